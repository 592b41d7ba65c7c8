// Power cuts at every moment of several workloads on several drives: what is acknowledged is there byte for byte, what is not is whole or
// absent, the structures are sound, and no space is lost. QUARRY_IMAGES sets how many images each workload and seed checks, QUARRY_SEED
// the first of the seeds.
#include <cstdlib>

#include "chunk/raw/crash_harness.h"

namespace quarry::chunk {
namespace {

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

const std::vector<CrashWorkload>& workloads() {
  static const std::vector<CrashWorkload> all = {
      {.name = "mixed"},
      {.name = "packed", .operations = 300, .workers = 12, .large_share = 0},
      {.name = "large_in_reused_space",
       .operations = 150,
       .large_max = 2'500'000,
       .remove_share = 0.55,
       .large_share = 0.8,
       .image_share = 0.6},
      {.name = "compaction", .operations = 500, .small_max = 50'000, .remove_share = 0.22, .large_share = 0.02, .compact = true},
      {.name = "checkpoint_rotation", .operations = 160, .large_max = 100'000, .checkpoint_one_in = 3},
      {.name = "removals", .operations = 260, .large_max = 150'000, .remove_share = 0.49, .checkpoint_one_in = 40},
      {.name = "reopened", .operations = 120, .opens = 4},
      {.name = "labels_and_superblocks", .operations = 140, .administer = true},
      {.name = "grown", .operations = 160, .administer = true, .grow = true},
      {.name = "zeros_ahead", .operations = 250, .large_share = 0.02, .drive_class = DriveClass::file},
      {.name = "rotating", .operations = 140, .remove_share = 0.45, .drive_class = DriveClass::hdd},
      {.name = "full",
       .operations = 700,
       .large_max = 1'000,
       .remove_share = 0.1,
       .large_share = 0.05,
       .prefill = 200,
       .image_share = 0.25},
      {.name = "failing_writes",
       .operations = 200,
       .large_max = 150'000,
       .remove_share = 0.4,
       .checkpoint_one_in = 8,
       .failing_one_in = 60},
      {.name = "full_and_failing",
       .operations = 700,
       .large_max = 1'000,
       .remove_share = 0.1,
       .large_share = 0.05,
       .prefill = 200,
       .failing_one_in = 40,
       .image_share = 0.25},
      {.name = "recovery", .operations = 120, .large_max = 300'000, .compact = false, .recut = true, .image_share = 2},
  };
  return all;
}

class RawStoreCrash : public testing::TestWithParam<std::tuple<size_t, uint64_t>> {};

TEST_P(RawStoreCrash, a_cut_loses_nothing_acknowledged_and_leaves_nothing_else) {
  CrashWorkload workload = workloads()[std::get<0>(GetParam())];
  workload.seed = std::get<1>(GetParam()) + number_from("QUARRY_SEED", 1);
  const uint64_t checked = crash_everywhere(workload, number_from("QUARRY_IMAGES", 200));
  RecordProperty("images", static_cast<int>(checked));
}

INSTANTIATE_TEST_SUITE_P(Workloads, RawStoreCrash,
                         testing::Combine(testing::Range(size_t{0}, workloads().size()), testing::Values(0u, 1u, 2u)),
                         [](const auto& info) {
                           return fmt::format("{}_{}", workloads()[std::get<0>(info.param)].name, std::get<1>(info.param));
                         });

CrashWorkload named(const std::string& name, uint64_t seed) {
  for (CrashWorkload workload : workloads()) {
    if (workload.name != name) continue;
    workload.seed = seed;
    return workload;
  }
  ADD_FAILURE() << "no workload " << name;
  return {};
}

// Compaction was copying a chunk when it was removed, and a checkpoint let go of the tombstone before the copy had landed: it came back.
TEST(RawStoreCrashRegression, a_chunk_removed_while_it_was_copied_stays_removed_after_a_checkpoint) {
  EXPECT_EQ(crash_everywhere(named("compaction", 5002), 100), 100u);
}

// A large chunk's data could not be written at its first place. Before it was at the second one, a log frame called the first record
// settled, and recovery believed it: a chunk that nobody had acknowledged, and no bytes.
TEST(RawStoreCrashRegression, a_record_whose_data_could_not_be_written_is_not_believed) {
  for (const uint64_t seed : {52, 80}) EXPECT_EQ(crash_everywhere(named("failing_writes", seed), 200), 200u);
}

}  // namespace
}  // namespace quarry::chunk
