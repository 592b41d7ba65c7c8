// Power cuts at every moment of a workload: what is acknowledged is there byte for byte, what is not is whole or absent, the
// structures are sound, and no space is lost. QUARRY_CRASH_IMAGES sets how many images each workload checks.
#include <gtest/gtest.h>

#include <cstdlib>

#include "chunk/raw/raw_store.h"
#include "io/clock.h"
#include "io/sim/crash_recorder.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {
namespace {

std::string payload(uint64_t seed, size_t size) {
  std::string text(size, '\0');
  uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
  for (auto& c : text) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    c = static_cast<char>(x);
  }
  return text;
}
ChunkId id_of(uint64_t n) { return {n * 0x9e3779b97f4a7c15ull, n}; }

// What happened, by chunk. Notes on the timeline carry these as tags: (chunk << 2 | step).
enum Step : uint64_t { put_issued = 0, put_acknowledged = 1, remove_issued = 2, remove_acknowledged = 3 };

struct Workload {
  uint64_t seed = 1;
  int operations = 120;
  uint64_t large_max = 700'000;  // bytes of a large chunk
  uint64_t small_max = 12'000;   // and of a small one
  int workers = 6;
  bool compact = false;
  bool reopen = false;
  double remove_share = 0.35;
  double large_share = 0.3;
  DriveClass drive_class = DriveClass::nvme;
  int prefill = 0;  // large chunks put before recording starts, then every second one removed
};

struct Runner {
  SimExecutor executor;
  std::shared_ptr<SimDisk> disk;
  std::unique_ptr<RawStore> store;
  CrashTimeline timeline;
  std::map<uint64_t, size_t> sizes;
  std::vector<uint64_t> alive;
  uint64_t next = 1;
  uint64_t first_cut = 0;

  void note(uint64_t chunk, Step step) { timeline.note(fmt::format("{} of {}", static_cast<uint64_t>(step), chunk), chunk << 2 | step); }

  Task<void> worker(const Workload& w, SeededRandom& random, int& left) {
    while (left-- > 0) {
      if (!alive.empty() && static_cast<double>(random.below(1000)) < w.remove_share * 1000) {
        std::vector<ChunkId> ids;
        std::vector<uint64_t> numbers;
        for (uint64_t k = 0; k < 1 + random.below(4) && !alive.empty(); ++k) {
          const size_t at = random.below(alive.size());
          numbers.push_back(alive[at]);
          alive.erase(alive.begin() + static_cast<ptrdiff_t>(at));
          ids.push_back(id_of(numbers.back()));
          note(numbers.back(), remove_issued);
        }
        auto removed = co_await store->remove(std::move(ids));
        EXPECT_TRUE(removed);
        for (const uint64_t n : numbers) note(n, remove_acknowledged);
        continue;
      }
      const uint64_t n = next++;
      const bool large = static_cast<double>(random.below(1000)) < w.large_share * 1000;
      const size_t size = large ? 66'000 + random.below(w.large_max) : random.below(w.small_max);
      sizes[n] = size;
      const std::string text = payload(n, size);
      std::vector<ByteView> parts = {bytes_of(text)};
      note(n, put_issued);
      auto stored = co_await store->put(id_of(n), std::move(parts), {static_cast<Stream>(random.below(2))});
      EXPECT_TRUE(stored || (w.prefill > 0 && stored.error().code() == Code::no_space)) << stored.error().to_string();
      if (!stored) continue;
      note(n, put_acknowledged);
      alive.push_back(n);
      if (random.below(25) == 0) {
        auto done = co_await store->checkpoint();
        EXPECT_TRUE(done);
      }
      if (w.compact && random.below(20) == 0) {
        auto done = co_await store->compact();
        EXPECT_TRUE(done);
      }
    }
  }
  Task<void> workers(Workload w, uint64_t seed, int operations) {
    SeededRandom random(seed);
    int left = operations;
    TaskGroup group;
    for (int i = 0; i < w.workers; ++i) group.spawn(worker(w, random, left));
    co_await group.join();
  }

  Task<void> fill(int count) {
    auto opened = co_await RawStore::open(disk->open(), {});
    std::vector<ChunkId> removed;
    for (int i = 0; i < count; ++i) {
      const uint64_t n = next++;
      sizes[n] = 400'000 + n * 1000;
      const std::string text = payload(n, sizes[n]);
      std::vector<ByteView> parts = {bytes_of(text)};
      auto stored = co_await (*opened)->put(id_of(n), std::move(parts), {});
      if (!stored) break;
      if (i % 2 == 0) alive.push_back(n);
      else removed.push_back(id_of(n));
    }
    auto done = co_await (*opened)->remove(std::move(removed));
    EXPECT_TRUE(done);
    auto closed = co_await (*opened)->close();
    EXPECT_TRUE(closed);
  }

  void run(const Workload& w) {
    disk = SimDisk::create({.size = 64 * kMiB,
                            .discard = SimDiscard::pattern,
                            .drive_class = w.drive_class,
                            .latency_min = std::chrono::microseconds(20),
                            .latency_max = std::chrono::microseconds(400),
                            .seed = w.seed});
    {
      auto device = disk->open();
      ASSERT_TRUE(executor.run(RawStore::format(*device, {})));
      executor.run(device->close());
    }
    if (w.prefill > 0) executor.run(fill(w.prefill));
    timeline.record(*disk);
    for (const uint64_t n : alive) note(n, put_acknowledged);
    first_cut = timeline.events();
    RawStoreOptions options;
    options.compaction_live_below = w.compact ? 0.97 : 0.5;
    options.discard_after = std::chrono::milliseconds(1);  // so that discards meet the crashes
    const int rounds = w.reopen ? 3 : 1;
    for (int round = 0; round < rounds; ++round) {
      auto opened = executor.run(RawStore::open(disk->open(), options));
      ASSERT_TRUE(opened) << opened.error().to_string();
      store = std::move(*opened);
      executor.run(workers(w, w.seed + static_cast<uint64_t>(round), w.operations / rounds));
      if (HasFailure()) return;
      if (round + 1 == rounds) break;
      ASSERT_TRUE(executor.run(store->close()));
      store.reset();
    }
    timeline.stop_recording();
    if (w.prefill > 0 || w.compact) EXPECT_GT(store->stats().segments_compacted, 0u) << "the workload moved nothing";
    ASSERT_TRUE(executor.run(store->close()));
    store.reset();
  }
  static bool HasFailure() { return testing::Test::HasFailure(); }
};

// The state of each chunk before the cut.
std::map<uint64_t, int> states_of(const CrashImage& image) {
  std::map<uint64_t, int> states;
  for (const auto& note : image.notes) states[note.tag >> 2] = std::max(states[note.tag >> 2], static_cast<int>(note.tag & 3));
  return states;
}

void check_image(const CrashImage& image, const std::map<uint64_t, size_t>& sizes, uint64_t number, uint64_t fresh_free) {
  SCOPED_TRACE(image.description);
  SimExecutor executor;
  RawStoreOptions options;
  options.background = number % 2 == 0;
  options.discard_after = std::chrono::milliseconds(1);  // so that discards meet the crashes
  auto opened = executor.run(RawStore::open(image.disks[0]->open(), options));
  ASSERT_TRUE(opened) << opened.error().to_string();
  auto& store = *opened;
  EXPECT_TRUE(store->open_report().damage.empty()) << store->open_report().damage.front();
  const auto report = executor.run(store->fsck());
  ASSERT_TRUE(report);
  for (const auto& sentence : report->violations) ADD_FAILURE() << sentence;
  const auto states = states_of(image);
  std::vector<ChunkId> present;
  for (const auto& [n, state] : states) {
    const auto got = executor.run(store->get(id_of(n), 0, kChunkSizeMax));
    if (!got) {
      EXPECT_EQ(got.error().code(), Code::not_found) << n << ": " << got.error().to_string();
      EXPECT_NE(state, put_acknowledged) << "an acknowledged chunk is lost: " << n;
      continue;
    }
    EXPECT_NE(state, remove_acknowledged) << "a removed chunk is back: " << n;
    present.push_back(id_of(n));
    EXPECT_TRUE(text_of(got->view()) == payload(n, sizes.at(n))) << "chunk " << n << " differs";
  }
  const auto listed = executor.run(store->list({}, {UINT64_MAX, UINT64_MAX}, SIZE_MAX));
  ASSERT_TRUE(listed);
  EXPECT_EQ(listed->size(), present.size()) << "chunks nobody put";
  // The recovered store works, and everything can be freed.
  const std::string text = payload(999'999, 3000), large = payload(999'998, 300'000);
  EXPECT_TRUE(executor.run(store->put(id_of(999'999), {bytes_of(text)}, {})));
  EXPECT_TRUE(executor.run(store->put(id_of(999'998), {bytes_of(large)}, {})));
  present.push_back(id_of(999'999));
  present.push_back(id_of(999'998));
  if (number % 8 == 0) {
    EXPECT_TRUE(executor.run(store->remove(present)));
    EXPECT_TRUE(executor.run(store->compact()));
    executor.run(sleep_for(std::chrono::seconds(1)));  // whatever runs in the background ends
    const auto space = store->space();
    EXPECT_EQ(space.chunk_count, 0u);
    EXPECT_EQ(space.payload_bytes, 0u);
    EXPECT_EQ(space.used_bytes, 0u);
    // Open packed segments of up to three streams keep their frames until they are sealed.
    EXPECT_GE(space.free_bytes + 3 * 2 * kMiB, fresh_free) 
        << "space is lost: garbage " << space.garbage_bytes << ", overhead " << space.overhead_bytes << ", used " << space.used_bytes;
  }
  EXPECT_TRUE(executor.run(store->close()));
  store.reset();
  // A second mount finds the same, now from a clean close.
  if (number % 16 == 1) {
    auto again = executor.run(RawStore::open(image.disks[0]->open(), {}));
    ASSERT_TRUE(again);
    EXPECT_TRUE((*again)->open_report().clean);
    EXPECT_EQ((*again)->open_report().chunks, present.size());
    EXPECT_TRUE(executor.run((*again)->close()));
  }
}

uint64_t images_default() {
  const char* text = std::getenv("QUARRY_CRASH_IMAGES");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 250;
}

void crash_everywhere(const Workload& workload, uint64_t images_wanted = images_default()) {
  Runner runner;
  runner.run(workload);
  if (testing::Test::HasFailure()) return;
  uint64_t fresh_free = 0;
  {
    SimExecutor executor;
    auto disk = SimDisk::create({.size = 64 * kMiB});
    auto device = disk->open();
    ASSERT_TRUE(executor.run(RawStore::format(*device, {})));
    executor.run(device->close());
    device.reset();
    auto store = executor.run(RawStore::open(disk->open(), {}));
    ASSERT_TRUE(store);
    fresh_free = (*store)->space().free_bytes;
    ASSERT_TRUE(executor.run((*store)->close()));
  }
  CrashEnumerator images(runner.timeline, {.images_max = images_wanted, .seed = workload.seed, .samples_per_cut = 2, .first_cut = runner.first_cut});
  while (auto image = images.next()) {
    check_image(*image, runner.sizes, images.produced(), fresh_free);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "image " << images.produced() << " of seed " << workload.seed;
      return;
    }
  }
  EXPECT_GE(images.produced(), images_wanted / 2);
}

TEST(RawStoreCrash, mixed_sizes) { crash_everywhere({.seed = 1}); }
TEST(RawStoreCrash, small_chunks_only) { crash_everywhere({.seed = 2, .operations = 300, .workers = 12, .large_share = 0}); }
TEST(RawStoreCrash, large_chunks_in_reused_space) { crash_everywhere({.seed = 3, .operations = 150, .large_max = 2'500'000, .remove_share = 0.55, .large_share = 0.8}); }
TEST(RawStoreCrash, while_compacting) { crash_everywhere({.seed = 4, .operations = 500, .small_max = 50'000, .compact = true, .remove_share = 0.22, .large_share = 0.02}); }
TEST(RawStoreCrash, on_a_file_with_zeros_written_ahead) {
  crash_everywhere({.seed = 6, .operations = 250, .large_share = 0.02, .drive_class = DriveClass::file});
}
TEST(RawStoreCrash, on_a_full_drive_that_moves_large_chunks) {
  crash_everywhere({.seed = 7, .operations = 700, .large_max = 1'000, .remove_share = 0.1, .large_share = 0.05, .prefill = 200}, images_default() / 4);
}
TEST(RawStoreCrash, across_reopens) { crash_everywhere({.seed = 5, .operations = 120, .reopen = true}); }

}  // namespace
}  // namespace quarry::chunk
