#include "chunk/raw/crash_harness.h"

namespace quarry::chunk {

// ---------------------------------------------------------------- the workload

Task<void> CrashRun::fill(int count) {
  auto opened = co_await RawStore::open(disk->open(), {});
  std::vector<ChunkId> removed;
  for (int i = 0; i < count; ++i) {
    const uint64_t n = next_++;
    std::vector<ByteView> parts = {bytes_of(payloads.make(n, 400'000 + n * 1000))};
    auto stored = co_await (*opened)->put(crash_chunk(n), std::move(parts), {});
    if (!stored) break;
    if (i % 2 == 0)
      alive_.push_back(n);
    else
      removed.push_back(crash_chunk(n));
  }
  auto done = co_await (*opened)->remove(std::move(removed));
  EXPECT_TRUE(done);
  auto closed = co_await (*opened)->close();
  EXPECT_TRUE(closed);
}

Task<void> CrashRun::remove_some(SeededRandom& random) {
  std::vector<ChunkId> ids;
  std::vector<uint64_t> numbers;
  for (uint64_t k = 0; k < 1 + random.below(4) && !alive_.empty(); ++k) {
    const size_t at = random.below(alive_.size());
    numbers.push_back(alive_[at]);
    alive_.erase(alive_.begin() + static_cast<ptrdiff_t>(at));
    ids.push_back(crash_chunk(numbers.back()));
    note(numbers.back(), remove_issued);
  }
  auto removed = co_await store_->remove(std::move(ids));
  EXPECT_TRUE(removed);
  for (const uint64_t n : numbers) note(n, remove_acknowledged);
}

Task<void> CrashRun::put_one(const CrashWorkload& w, SeededRandom& random) {
  const uint64_t n = next_++;
  const bool large = static_cast<double>(random.below(1000)) < w.large_share * 1000;
  const size_t size = large ? 66'000 + random.below(w.large_max) : random.below(w.small_max);
  std::vector<ByteView> parts = {bytes_of(payloads.make(n, size))};
  note(n, put_issued);
  auto stored = co_await store_->put(crash_chunk(n), std::move(parts), {static_cast<Stream>(random.below(3))});
  EXPECT_TRUE(stored || (w.prefill > 0 && stored.error().code() == Code::no_space)) << stored.error().to_string();
  if (!stored) co_return;
  note(n, put_acknowledged);
  alive_.push_back(n);
  if (w.checkpoint_one_in > 0 && random.below(static_cast<uint64_t>(w.checkpoint_one_in)) == 0) {
    auto done = co_await store_->checkpoint();
    EXPECT_TRUE(done);
  }
  if (w.compact && random.below(20) == 0) {
    auto done = co_await store_->compact();
    EXPECT_TRUE(done);
  }
}

Task<void> CrashRun::worker(const CrashWorkload& w, SeededRandom& random, int& left) {
  while (left-- > 0) {
    if (!alive_.empty() && static_cast<double>(random.below(1000)) < w.remove_share * 1000) {
      co_await remove_some(random);
    } else {
      co_await put_one(w, random);
    }
  }
}

// One thing after the other, as a cluster does it, while the workers put.
Task<void> CrashRun::administrator(const CrashWorkload& w, const int& left) {
  bool grown = !w.grow;
  const int middle = left / 2;
  while (left > 0) {
    if (w.administer) {
      note(CrashSubject::label, ++label_, put_issued);
      auto labelled = co_await store_->set_label(fmt::format("label {}", label_) + std::string(label_ % 3 * 3000, 'x'));
      EXPECT_TRUE(labelled);
      note(CrashSubject::label, label_, put_acknowledged);
      if (label_ == 3) {
        auto joined = co_await store_->set_cluster_id(kCrashCluster);
        EXPECT_TRUE(joined);
        note(CrashSubject::cluster, 1, put_acknowledged);
      }
    }
    if (!grown && left < middle) {
      grown = true;
      note(CrashSubject::size, 1, put_issued);
      auto size = co_await store_->grow();
      EXPECT_TRUE(size && *size == kCrashDiskGrown);
      note(CrashSubject::size, 1, put_acknowledged);
    }
    co_await sleep_for(std::chrono::microseconds(300));
  }
}

Task<void> CrashRun::workers(CrashWorkload w, uint64_t seed, int operations) {
  SeededRandom random(seed);
  int left = operations;
  TaskGroup group;
  for (int i = 0; i < w.workers; ++i) group.spawn(worker(w, random, left));
  if (w.administer || w.grow) group.spawn(administrator(w, left));
  co_await group.join();
}

void CrashRun::run(const CrashWorkload& w) {
  SimDisk::Options options{.size = kCrashDisk,
                           .drive_class = w.drive_class,
                           .latency_min = std::chrono::microseconds(20),
                           .latency_max = std::chrono::microseconds(400),
                           .seed = w.seed};
  // Drives differ in what they promise.
  options.discard = std::array{SimDiscard::pattern, SimDiscard::zeros, SimDiscard::nothing}[w.seed % 3];
  options.atomic_write = w.seed % 4 == 3 ? 4096 : 512;
  disk = SimDisk::create(options);
  {
    auto device = disk->open();
    ASSERT_TRUE(executor.run(RawStore::format(*device, {})));
    executor.run(device->close());
  }
  if (w.prefill > 0) executor.run(fill(w.prefill));
  RawStoreOptions how;
  how.compaction_live_below = w.compact ? 0.97 : 0.5;
  how.discard_after = std::chrono::milliseconds(1);  // so that discards meet the crashes
  auto small = w.grow ? disk->open() : nullptr;      // a handle that has seen the drive before it grew
  if (w.grow) disk->grow(kCrashDiskGrown);
  timeline.record(*disk);
  for (const uint64_t n : alive_) note(n, put_acknowledged);
  first_cut = timeline.events();
  SeededRandom dice(w.seed ^ 0xfa11);
  if (w.failing_one_in > 0) {
    disk->set_fault_hook([&](const SimRequest& request) {
      SimFault fault;
      // Slots of a checkpoint and superblocks are the volatile ones: where they cannot be written the store says so and only reads.
      if (request.kind != SimRequestKind::write || request.durability != Durability::durable ||
          dice.below(static_cast<uint64_t>(w.failing_one_in)) != 0)
        return fault;
      fault.fail = Code::io_error;
      fault.landed_before_failure = std::array<uint64_t, 3>{0, round_down(request.length / 2, 512), request.length}[dice.below(3)];
      return fault;
    });
  }
  for (int round = 0; round < w.opens; ++round) {
    auto opened = executor.run(RawStore::open(small ? std::move(small) : disk->open(), how));
    ASSERT_TRUE(opened) << opened.error().to_string();
    store_ = std::move(*opened);
    executor.run(workers(w, w.seed + static_cast<uint64_t>(round), w.operations / w.opens));
    if (testing::Test::HasFailure()) return;
    if (round + 1 == w.opens) break;
    ASSERT_TRUE(executor.run(store_->close()));
    store_.reset();
  }
  timeline.stop_recording();
  disk->set_fault_hook({});
  if (w.prefill > 0 || w.compact) EXPECT_GT(store_->stats().segments_compacted, 0u) << "the workload moved nothing";
  ASSERT_TRUE(executor.run(store_->close()));
  store_.reset();
}

// ---------------------------------------------------------------- the check

namespace {

// Chunks that are there, each with the right bytes; the others had a reason not to be.
std::vector<ChunkId> check_chunks(SimExecutor& executor, RawStore& store, const CrashPromise& promise, const CrashPayloads& payloads) {
  std::vector<ChunkId> present;
  for (const auto& [n, step] : promise.chunks) {
    const auto got = executor.run(store.get(crash_chunk(n), 0, kChunkSizeMax));
    if (!got) {
      EXPECT_EQ(got.error().code(), Code::not_found) << n << ": " << got.error().to_string();
      EXPECT_NE(step, put_acknowledged) << "an acknowledged chunk is lost: " << n;
      continue;
    }
    EXPECT_NE(step, remove_acknowledged) << "a removed chunk is back: " << n;
    present.push_back(crash_chunk(n));
    EXPECT_TRUE(text_of(got->view()) == payloads.of(n)) << "chunk " << n << " differs";
  }
  const auto listed = executor.run(store.list({}, {UINT64_MAX, UINT64_MAX}, SIZE_MAX));
  EXPECT_TRUE(listed);
  if (listed) EXPECT_EQ(listed->size(), present.size()) << "chunks nobody put";
  return present;
}

void check_administration(RawStore& store, const CrashPromise& promise) {
  uint64_t label = 0;
  const std::string text = store.label();
  if (!text.empty()) EXPECT_EQ(std::sscanf(text.c_str(), "label %lu", &label), 1) << "a torn label: " << text.substr(0, 20);
  if (!text.empty()) EXPECT_EQ(text.size(), fmt::format("label {}", label).size() + label % 3 * 3000);
  EXPECT_GE(label, promise.label_acknowledged);
  EXPECT_LE(label, promise.label_issued);
  EXPECT_GT(store.fencing_epoch(), 0u);
  if (promise.cluster_acknowledged) EXPECT_EQ(store.cluster_id(), kCrashCluster);
}

void check_nothing_leaks(SimExecutor& executor, RawStore& store, std::vector<ChunkId> present, uint64_t fresh_free) {
  EXPECT_TRUE(executor.run(store.remove(std::move(present))));
  EXPECT_TRUE(executor.run(store.compact()));
  executor.run(sleep_for(std::chrono::seconds(1)));  // whatever runs in the background ends
  const auto space = store.space();
  EXPECT_EQ(space.chunk_count, 0u);
  EXPECT_EQ(space.payload_bytes, 0u);
  EXPECT_EQ(space.used_bytes, 0u);
  // Open packed segments, one for each stream, keep their frames until they are sealed.
  EXPECT_GE(space.free_bytes + 4 * 2 * kMiB, fresh_free)
      << "space is lost: garbage " << space.garbage_bytes << ", overhead " << space.overhead_bytes;
}

}  // namespace

void check_crash_image(const std::shared_ptr<SimDisk>& disk, const CrashPromise& promise, const CrashCheck& how) {
  SimExecutor executor;
  RawStoreOptions options;
  options.background = how.number % 2 == 0;
  options.discard_after = std::chrono::milliseconds(1);
  auto opened = executor.run(RawStore::open(disk->open(), options));
  ASSERT_TRUE(opened) << opened.error().to_string();
  auto& store = *opened;
  EXPECT_TRUE(store->open_report().damage.empty()) << store->open_report().damage.front();
  const auto report = executor.run(store->fsck());
  ASSERT_TRUE(report);
  for (const auto& sentence : report->violations) ADD_FAILURE() << sentence;
  std::vector<ChunkId> present = check_chunks(executor, *store, promise, *how.payloads);
  check_administration(*store, promise);
  // A drive that had grown before the cut, or had not: in both cases it can.
  if (promise.grow_issued) {
    const auto size = executor.run(store->grow());
    EXPECT_TRUE(size && *size == kCrashDiskGrown);
  }
  // The recovered store works, and everything can be freed.
  static const std::string small = test_payload(999'999, 3000), large = test_payload(999'998, 300'000);
  for (const auto& [number, text] : {std::pair{999'999, &small}, std::pair{999'998, &large}}) {
    const auto stored = executor.run(store->put(crash_chunk(static_cast<uint64_t>(number)), {bytes_of(*text)}, {}));
    EXPECT_TRUE(stored || (how.full && stored.error().code() == Code::no_space)) << stored.error().to_string();
    if (stored) present.push_back(crash_chunk(static_cast<uint64_t>(number)));
  }
  const size_t kept = present.size();
  const bool emptied = how.number % 4 == 0;
  if (emptied) check_nothing_leaks(executor, *store, std::move(present), how.fresh_free);
  EXPECT_TRUE(executor.run(store->close()));
  store.reset();
  // A second mount finds the same, now from a clean close.
  if (how.number % 8 == 1) {
    auto again = executor.run(RawStore::open(disk->open(), {}));
    ASSERT_TRUE(again);
    EXPECT_TRUE((*again)->open_report().clean);
    EXPECT_TRUE((*again)->open_report().damage.empty());
    EXPECT_EQ((*again)->open_report().chunks, emptied ? 0 : kept);
    EXPECT_TRUE(executor.run((*again)->close()));
  }
}

uint64_t cut_recovery(const std::shared_ptr<SimDisk>& disk, const CrashPromise& promise, CrashPayloads& payloads, const CrashCheck& how,
                      uint64_t images_max) {
  CrashTimeline timeline;
  CrashPromise settled;  // what the first mount made of the chunks that were under way: it must not change its mind
  {
    SimExecutor executor;
    timeline.record(*disk);
    RawStoreOptions options;
    options.discard_after = std::chrono::milliseconds(1);
    auto opened = executor.run(RawStore::open(disk->open(), options));
    EXPECT_TRUE(opened) << opened.error().to_string();
    if (!opened) return 0;
    auto& store = *opened;
    for (const auto& [n, step] : promise.chunks)
      settled.chunks[n] = executor.run(store->stat(crash_chunk(n))) ? put_acknowledged : remove_acknowledged;
    timeline.note({}, crash_tag(CrashSubject::mounted, 0, put_acknowledged));
    for (uint64_t n = 900'000; n < 900'006; ++n) {
      if (!payloads.has(n)) payloads.make(n, n % 2 == 0 ? 2'000 : 90'000);
      timeline.note({}, crash_tag(CrashSubject::chunk, n, put_issued));
      EXPECT_TRUE(executor.run(store->put(crash_chunk(n), {bytes_of(payloads.of(n))}, {})));
      timeline.note({}, crash_tag(CrashSubject::chunk, n, put_acknowledged));
    }
    EXPECT_TRUE(executor.run(store->close()));
    timeline.stop_recording();
    store.reset();
  }
  CrashEnumerator images(timeline, {.images_max = images_max, .seed = how.number, .samples_per_cut = 1});
  while (auto image = images.next()) {
    SCOPED_TRACE("recovery was cut: " + image->description);
    CrashPromise now = promise;
    CrashPromise second;
    second.add(image->notes);
    if (second.mounted) now.chunks = settled.chunks;
    for (const auto& [n, step] : second.chunks) now.chunks[n] = step;
    CrashCheck check = how;
    check.number = images.produced();
    check_crash_image(image->disks[0], now, check);
    if (testing::Test::HasFailure()) break;
  }
  return images.produced();
}

uint64_t crash_everywhere(const CrashWorkload& workload, uint64_t images_wanted) {
  images_wanted = static_cast<uint64_t>(static_cast<double>(images_wanted) * workload.image_share);
  CrashRun run;
  run.run(workload);
  if (testing::Test::HasFailure()) return 0;
  CrashCheck how{.payloads = &run.payloads, .full = workload.prefill > 0 && workload.failing_one_in > 0};
  {
    SimExecutor executor;
    auto disk = SimDisk::create({.size = kCrashDisk});
    auto device = disk->open();
    EXPECT_TRUE(executor.run(RawStore::format(*device, {})));
    executor.run(device->close());
    device.reset();
    auto store = executor.run(RawStore::open(disk->open(), {}));
    how.fresh_free = (*store)->space().free_bytes;
    EXPECT_TRUE(executor.run((*store)->close()));
  }
  uint64_t checked = 0;
  CrashEnumerator images(run.timeline,
                         {.images_max = images_wanted, .seed = workload.seed, .samples_per_cut = 2, .first_cut = run.first_cut});
  while (checked < images_wanted) {
    auto image = images.next();
    if (!image) break;
    SCOPED_TRACE(image->description);
    CrashPromise promise;
    promise.add(image->notes);
    how.number = images.produced();
    if (workload.recut) {
      checked += cut_recovery(image->disks[0], promise, run.payloads, how, 12);
    } else {
      check_crash_image(image->disks[0], promise, how);
      ++checked;
    }
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "image " << images.produced() << " of workload " << workload.name << ", seed " << workload.seed;
      return checked;
    }
  }
  EXPECT_GE(checked, images_wanted / 2) << "the workload offers too few different cuts";
  return checked;
}

}  // namespace quarry::chunk
