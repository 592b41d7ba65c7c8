// Decisions that must not outlive their ground: the map is planned anew, drives go and return, writes begin and are widened while repair,
// audit and the care for drives are between two steps. Each test says that the two met.
#include <gtest/gtest.h>

#include "base/fault_points.h"
#include "cluster/metadata_log.h"
#include "cluster/testing/cluster_harness.h"
#include "meta/transact.h"

namespace quarry::cluster {
namespace {

using Call = MemoryMedium::Call;

class GroundTest : public ::testing::Test, protected ClusterHarness {
 protected:
  void fill(int count, size_t size = 50'000) {
    for (int i = 0; i < count; ++i) {
      contents.push_back(random_bytes(1000 + contents.size(), size + static_cast<size_t>(i)));
      auto layout = write(contents.back());
      ASSERT_TRUE(layout) << layout.error().to_string();
      layouts.push_back(*layout);
    }
  }
  void check_all() {
    for (size_t i = 0; i < layouts.size(); ++i) {
      auto back = read(layouts[i]);
      ASSERT_TRUE(back) << i << " " << back.error().to_string();
      ASSERT_TRUE(*back == contents[i]) << i;
    }
  }
  void pass(Duration time) { executor.run(sleep_for(time)); }
  std::string state(uint32_t number) {
    for (const DriveStatus& drive : cluster->data().drives()) {
      if (drive.number == number) return drive.state;
    }
    return "?";
  }
  // What lies on the drives is what the writes need, and nothing else.
  void check_chunks() {
    size_t expected = 0;
    for (const DataLayout& layout : layouts) {
      for (uint32_t stripe = 0; stripe < layout.stripe_count(); ++stripe) {
        for (unsigned shard = 0; shard < layout.redundancy.width(); ++shard) expected += layout.stored_size(stripe, shard) > 0;
      }
    }
    EXPECT_EQ(data_chunks(), expected);
  }
  static uint64_t times(const std::string& point) { return points_reached()[point]; }

  std::vector<DataLayout> layouts;
  std::vector<std::string> contents;
};

enum class Change : uint8_t { add, drain, replace };

class ReplanTest : public GroundTest, public ::testing::WithParamInterface<Change> {
 protected:
  // At each of the first chunks that arrive at their new place.
  static Task<void> change(ReplanTest* self, uint32_t drive, Call call, ChunkId id) {
    if (call != Call::put || chunk_name(id).kind != ChunkKind::data || self->left == 0) co_return;
    --self->left;
    DataPlane& data = self->cluster->data();
    const auto what = GetParam();
    Result<void> done;
    if (what == Change::add) done = co_await data.add_drive("new", false);
    if (what == Change::drain) done = co_await data.drain_drive(drive);
    if (what == Change::replace) done = co_await data.replace_drive(drive, "new", false);
    EXPECT_TRUE(done) << done.error().to_string();
    ++self->changes;
  }
  int left = 0, changes = 0;
};
INSTANTIATE_TEST_SUITE_P(Changes, ReplanTest, ::testing::Values(Change::add, Change::drain, Change::replace), [](const auto& info) {
  return std::string(info.param == Change::add ? "add" : info.param == Change::drain ? "drain" : "replace");
});

TEST_P(ReplanTest, inside_a_settling_leaves_the_last_whole_copy) {
  add_media(4);
  ASSERT_TRUE(create("mirror:1"));
  fill(60);
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(1)));
  left = GetParam() == Change::add ? 4 : 1;
  for (size_t i = 1; i < 4; ++i) {
    const auto number = static_cast<uint32_t>(i + 1);
    media[i]->on_call = [this, number](Call call, ChunkId id) { return change(this, number, call, id); };
  }
  [[maybe_unused]] const uint64_t before = times("repair.ground_changed");
  settle();
  for (auto& medium : media) medium->on_call = nullptr;
  EXPECT_GT(changes, 0);
#ifdef QUARRY_DEV
  EXPECT_GT(times("repair.ground_changed"), before) << "no write was planned anew while it was settled: nothing was tested";
#endif
  check_all();
  settle();
  check_all();
  EXPECT_EQ(fsck(), "");
  check_chunks();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 0u);
}

TEST_F(GroundTest, only_so_many_lost_writes_are_remembered) {
  add_media(3);
  tuning.lost_writes_max = 5;
  ASSERT_TRUE(create("mirror:1"));
  fill(12);
  for (auto& medium : media) {
    for (const ChunkId id : medium->of_kind(ChunkKind::data)) medium->chunks.erase(id);
  }
  for (const DataLayout& layout : layouts) plane().plane().repairs.add(layout);
  settle();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 5u);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(retire(layouts[static_cast<size_t>(i)]));
  settle();
  for (const DataLayout& layout : layouts) EXPECT_FALSE(read(layout));  // asks for repair: those that were not remembered are now
  settle();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 5u);
  for (size_t i = 6; i < layouts.size(); ++i) ASSERT_TRUE(retire(layouts[i]));
  settle();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 0u);
}

class WidenedTest : public GroundTest {
 protected:
  static Task<Result<void>> add_rows(DataPlane* data, meta::Transaction* transaction, DataLayout before, DataLayout wide) {
    data->record_widened(*transaction, before, wide, "owner");
    co_return Result<void>();
  }
  static Task<Result<void>> commit(WidenedTest* self, DataLayout before, DataLayout wide) {
    auto body = [&](meta::Transaction& transaction) { return add_rows(&self->cluster->data(), &transaction, before, wide); };
    Result<meta::Version> done = co_await meta::transact(*self->meta_store, body);
    if (!done) co_return std::move(done).error();
    co_return Result<void>();
  }
  Result<DataLayout> widen(DataLayout layout, Redundancy wanted) {
    auto commit_rows = [this, layout](DataLayout wide) { return commit(this, layout, wide); };
    return executor.run(cluster->data().widen(layout, wanted, commit_rows));
  }
};

// Whoever asked for repair, or found damage, before a write was widened names places that are no concern of it any more.
TEST_F(WidenedTest, a_write_is_repaired_as_it_is_now_and_not_as_it_was_asked_for) {
  add_media(5);
  ASSERT_TRUE(create("mirror:1"));
  fill(40);
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  const std::vector<DataLayout> narrow = layouts;
  for (DataLayout& layout : layouts) {
    auto wide = widen(layout, twice);
    ASSERT_TRUE(wide) << wide.error().to_string();
    layout = *wide;
  }
  settle();
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(1)));
  for (const DataLayout& layout : narrow) {
    auto outcome = executor.run(plane().repairer().repair_write(layout, Repairer::Depth::verify));
    ASSERT_TRUE(outcome) << outcome.error().to_string();
    EXPECT_FALSE(outcome->lost);
    ASSERT_TRUE(executor.run(plane().repairer().repair_shard(layout, 0, 0)));
  }
  settle();
  check_all();
  EXPECT_EQ(fsck(), "");
  check_chunks();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 0u);
}

}  // namespace
}  // namespace quarry::cluster
