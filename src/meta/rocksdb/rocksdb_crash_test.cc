// Deaths at every point between a commit and a trimmed log, and everything that can be wrong with the directory and with the log.
// The oracle is the history check of the conformance suite: acknowledged transactions are there, whole, in order; no others.
#include <sys/mount.h>

#include <thread>

#include "meta/conformance_history.h"
#include "meta/log_frame.h"
#include "meta/log_store/crash_fixture.h"

namespace quarry::meta {
namespace {

TEST_F(RocksdbCrash, a_death_at_any_point_keeps_what_was_acknowledged_and_nothing_half) {
  const std::vector<std::string> points{"append.before",      "append.after",      "apply.after",          "checkpoint.flushed",
                                        "checkpoint.storing", "checkpoint.stored", "checkpoint.published", "close.flush"};
  std::map<std::string, int> died;
  SeededRandom random(42);
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    media_ = std::make_shared<MemoryLogMedia>();
    fs::remove_all(path());
    history::Shared shared{{seed, 10, 1000, 6}};
    for (int life = 0; life < 3; ++life) {
      const std::string point = points[random.below(points.size())];
      const bool checkpoints = point.starts_with("checkpoint");
      auto countdown = std::make_shared<std::atomic<int>>(1 + static_cast<int>(random.below(checkpoints              ? 2
                                                                                            : point == "close.flush" ? 1
                                                                                                                     : 25)));
      auto dead = std::make_shared<std::atomic<bool>>(false);
      shared.stop = false;
      shared.workload.seed = seed * 100 + static_cast<uint64_t>(life);
      options_.checkpoint_log_bytes = 4096;  // checkpoints all the time
      options_.die_at = [point, countdown, dead](std::string_view at) {
        if (at == point && --*countdown == 0) *dead = true;
        return dead->load();
      };
      log_faults_ = {.append_delay = std::chrono::microseconds(50), .append_jitter = std::chrono::microseconds(300), .seed = seed};
      open();
      struct Watchdog {
        // Until it died, or enough was done. Real pauses too: the pool works in real time.
        static Task<void> run(history::Shared& to, std::shared_ptr<std::atomic<bool>> death) {
          const size_t end = to.records.size() + 300;
          while (!*death && to.records.size() < end) co_await sleep_for(std::chrono::microseconds(100));
          to.stop = true;
        }
        static Task<void> all(MetaStore& store, history::Shared& to, std::shared_ptr<std::atomic<bool>> death) {
          TaskGroup group;
          group.spawn(history::run_clients(store, to));
          group.spawn(run(to, death));
          co_await group.join();
        }
      };
      executor_.run(Watchdog::all(*store_, shared, dead));
      if (point == "close.flush") executor_.run(store_->close()).ignore("it died there");
      if (*dead) ++died[point];
      log_->crash();
      kill();
      const uint64_t dice = random.below(4);
      if (dice == 0) fs::remove_all(path());
    }
    options_.die_at = nullptr;
    open();
    const auto marks = executor_.run(store_->scan({KeyRange::prefix("t/"), SIZE_MAX, SIZE_MAX}));
    const auto rows = executor_.run(store_->scan({KeyRange::prefix("k/"), SIZE_MAX, SIZE_MAX}));
    history::check(shared.records, marks.value(), rows.value());
    kill();
    ASSERT_FALSE(HasFatalFailure());
  }
  for (const auto& point : points) EXPECT_GT(died[point], 0) << "never died at " << point;
}

TEST_F(RocksdbCrash, a_clean_close_makes_the_next_start_replay_nothing) {
  open();
  EXPECT_EQ(store_->status().opened_by, "empty");
  fill(0, 200);
  close();
  open();
  EXPECT_EQ(store_->status().opened_by, "directory");
  EXPECT_EQ(store_->status().frames_replayed, 0u);
  EXPECT_EQ(store_->stats().log_bytes_since_checkpoint, 0u);  // little was to be stored, so close made a checkpoint
  expect_filled();
}

TEST_F(RocksdbCrash, a_lost_directory_comes_back_from_checkpoint_and_log) {
  open();
  fill(0, 100);
  checkpoint();
  EXPECT_LT(media_->frames.size(), 2u);  // trimmed
  fill(100, 150);
  const Version version = store_->version();
  kill();
  fs::remove_all(path());
  open();
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  EXPECT_EQ(store_->status().frames_replayed, 50u);
  EXPECT_EQ(store_->version(), version);
  expect_filled();
  fill(150, 160);
  kill();
  fs::remove_all(path());
  open();
  expect_filled();
}

class RocksdbCheckpoint : public RocksdbCrash, public ::testing::WithParamInterface<bool> {};

TEST_P(RocksdbCheckpoint, a_second_checkpoint_stores_only_what_is_new) {
  options_.memtable_bytes = 8u << 20;
  open();
  fill(0, 1000);
  checkpoint();
  const uint64_t first = log_->bytes_stored();
  EXPECT_GT(first, 500'000u);
  fill(1000, 1010);
  checkpoint();
  const uint64_t second = log_->bytes_stored() - first;
  EXPECT_LT(second, first / 2) << "the second checkpoint stored " << second << " of " << first << ": " << stored_files();
  // RocksDB may compact the table of keys meanwhile, so what must not be stored twice is the blobs, more than half of the bytes.
  // Also across a restart, or across a restoration.
  close();
  const bool restored = GetParam();
  if (restored) fs::remove_all(path());
  open();
  EXPECT_EQ(store_->status().opened_by, restored ? "checkpoint" : "directory");
  fill(1010, 1030);
  checkpoint();
  EXPECT_LT(log_->bytes_stored(), first / 2) << stored_files();
  kill();
  fs::remove_all(path());
  open();
  expect_filled();
}
INSTANTIATE_TEST_SUITE_P(RestartOrRestoration, RocksdbCheckpoint, ::testing::Bool());

TEST_F(RocksdbCrash, an_older_copy_of_the_directory_is_caught_up_or_replaced) {
  const std::string copy = directory_.path() + "/copy";
  open();
  fill(0, 100);
  close();
  copy_directory(path(), copy);
  open();
  fill(100, 200);
  kill();
  copy_directory(copy, path());  // the log still has what is missing
  open();
  EXPECT_EQ(store_->status().opened_by, "directory");
  EXPECT_EQ(store_->status().frames_replayed, 100u);
  expect_filled();
  fill(200, 300);
  checkpoint();  // now it is trimmed
  kill();
  copy_directory(copy, path());
  open();
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  EXPECT_FALSE(store_->status().reason.empty());
  expect_filled();
}

TEST_F(RocksdbCrash, two_directories_of_one_store_never_mix_in_a_checkpoint) {
  const std::string other = directory_.path() + "/other";
  options_.checkpoint_at_close_bytes = 0;
  open();
  fill(0, 300);
  checkpoint();
  fill(300, 400);
  close();
  copy_directory(path(), other);
  // A second life of the same history: the same frames, other files under the same names.
  fs::remove_all(path());
  open();
  checkpoint();
  close();
  fs::remove_all(path());
  copy_directory(other, path());
  open();
  EXPECT_EQ(store_->status().opened_by, "directory") << store_->status().reason;
  fill(400, 420);
  checkpoint();
  kill();
  fs::remove_all(path());
  open();
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  expect_filled();
}

TEST_F(RocksdbCrash, a_directory_of_another_store_is_set_aside) {
  const std::string mine = directory_.path() + "/mine";
  open();
  fill(0, 50);
  close();
  copy_directory(path(), mine);
  const auto my_media = media_;
  media_ = std::make_shared<MemoryLogMedia>();
  fs::remove_all(path());
  open();
  put("foreign", "1");
  close();
  media_ = my_media;
  open();
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  EXPECT_NE(store_->status().reason.find("another store"), std::string::npos) << store_->status().reason;
  EXPECT_TRUE(fs::exists(path() + "/set-aside/CURRENT"));
  expect_filled();
  EXPECT_EQ(executor_.run(store_->get("foreign")).value(), std::nullopt);
}

TEST_F(RocksdbCrash, a_directory_ahead_of_the_log_is_not_believed) {
  open();
  fill(0, 50);
  const auto older = copy_of(*media_);
  put("later", "1");
  close();
  media_ = older;
  open();
  EXPECT_NE(store_->status().reason.find("the log ends"), std::string::npos) << store_->status().reason;
  EXPECT_EQ(executor_.run(store_->get("later")).value(), std::nullopt);
  expect_filled();
}

TEST_F(RocksdbCrash, a_directory_with_another_history_is_not_believed) {
  open();
  fill(0, 50);
  const auto fork = copy_of(*media_);
  put("here", "1");
  options_.checkpoint_at_close_bytes = 0;
  close();
  // The log was set back, and went on differently, further than the directory.
  const std::string copy = directory_.path() + "/copy";
  copy_directory(path(), copy);
  fs::remove_all(path());
  media_ = fork;
  open();
  put("there", "1");
  put("there", "2");
  kill();
  copy_directory(copy, path());
  open();
  EXPECT_NE(store_->status().reason.find("history"), std::string::npos) << store_->status().reason;
  EXPECT_EQ(executor_.run(store_->get("here")).value(), std::nullopt);
  EXPECT_EQ(executor_.run(store_->get("there")).value(), "2");
  expect_filled();
}

TEST_F(RocksdbCrash, an_empty_log_does_not_take_over_an_old_directory) {
  open();
  fill(0, 10);
  close();
  media_ = std::make_shared<MemoryLogMedia>();
  open();
  EXPECT_EQ(store_->status().opened_by, "empty");
  EXPECT_EQ(store_->version(), 0u);
  EXPECT_TRUE(fs::exists(path() + "/set-aside/CURRENT"));
}

TEST_F(RocksdbCrash, a_damaged_frame_stops_a_start_that_needs_it) {
  open();
  fill(0, 20);
  kill();
  media_->frames.at(7)[90] ^= 1;
  const std::string saved = media_->frames.at(7);
  const auto opened = try_open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::corrupt) << opened.error().to_string();
  media_->frames.at(7)[90] ^= 1;
  open();
  expect_filled();
}

TEST_F(RocksdbCrash, a_damaged_frame_whose_effect_is_in_the_directory_is_harmless) {
  for (const FrameNumber bad : {FrameNumber{1}, FrameNumber{7}, FrameNumber{20}}) {
    SCOPED_TRACE(bad);
    media_ = std::make_shared<MemoryLogMedia>();
    fs::remove_all(path());
    filled_ = 0;
    options_.checkpoint_at_close_bytes = 0;
    open();
    fill(0, 20);
    close();
    media_->unreadable[bad] = Code::data_lost;
    open();
    EXPECT_EQ(store_->status().opened_by, "directory");
    expect_filled();
    fill(20, 21);
    checkpoint();  // from here on the log can do without the frame
    media_->unreadable.clear();
    kill();
    fs::remove_all(path());
    open();
    expect_filled();
    kill();
  }
}

TEST_F(RocksdbCrash, an_unreadable_frame_without_directory_is_a_clear_error) {
  open();
  fill(0, 20);
  kill();
  fs::remove_all(path());
  media_->unreadable[5] = Code::data_lost;
  const auto opened = try_open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::data_lost);
  EXPECT_NE(opened.error().to_string().find("frame 5"), std::string::npos);
  media_->unreadable.clear();
  open();  // the failed attempt has destroyed nothing
  expect_filled();
}

TEST_F(RocksdbCrash, frames_that_do_not_continue_each_other_are_refused) {
  open();
  fill(0, 20);
  kill();
  std::swap(media_->frames.at(8), media_->frames.at(9));
  EXPECT_EQ(try_open().error().code(), Code::corrupt);
  std::swap(media_->frames.at(8), media_->frames.at(9));
  open();
  expect_filled();
}

TEST_F(RocksdbCrash, damage_in_any_file_of_the_directory_is_found_and_repaired_from_the_log) {
  open();
  fill(0, 400);
  checkpoint();
  fill(400, 420);
  close();
  const std::string sound = directory_.path() + "/sound";
  copy_directory(path(), sound);
  SeededRandom random(5);
  int rebuilt = 0;
  for (const std::string suffix : {".sst", ".blob", "CURRENT", "MANIFEST"}) {
    for (const std::string how : {"flip", "truncate", "remove", "garbage"}) {
      SCOPED_TRACE(suffix + " " + how);
      fs::remove_all(path());
      copy_directory(sound, path());
      std::vector<std::string> targets;
      for (const auto& entry : fs::directory_iterator(path() + "/db")) {
        const std::string name = entry.path().filename().string();
        if (name.ends_with(suffix) || name.starts_with(suffix)) targets.push_back(entry.path().string());
      }
      ASSERT_FALSE(targets.empty());
      const std::string target = targets[random.below(targets.size())];
      const auto size = fs::file_size(target);
      if (how == "remove") fs::remove(target);
      if (how == "truncate") fs::resize_file(target, size / 2);
      if (how == "flip" || how == "garbage") {
        std::fstream file(target, std::ios::in | std::ios::out | std::ios::binary);
        const auto at = static_cast<std::streamoff>(how == "flip" ? random.below(size) : 0);
        std::string bytes(how == "flip" ? 1 : std::min<size_t>(size, 4096), '\0');
        file.seekg(at);
        file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        for (char& byte : bytes) byte = static_cast<char>(byte ^ 0x5a);
        file.seekp(at);
        file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
      }
      // Never a wrong byte: a start that notices rebuilds; one that does not gives right rows, or corrupt and a rebuild next time.
      open();
      const auto rows = executor_.run(store_->scan({KeyRange::prefix("row/"), SIZE_MAX, SIZE_MAX}));
      if (!rows) {
        EXPECT_EQ(rows.error().code(), Code::corrupt) << rows.error().to_string();
        EXPECT_TRUE(fs::exists(path() + "/DAMAGED"));
        kill();
        open();
      }
      if (store_->status().opened_by == "checkpoint") ++rebuilt;
      expect_filled();
      kill();
    }
  }
  EXPECT_GE(rebuilt, 10);
}

// RocksDB 7.8 ends a scan without an error at a file whose first block is damaged, if it looks for range tombstones.
TEST_F(RocksdbCrash, a_scan_over_a_damaged_table_never_leaves_out_rows) {
  options_.table_file_bytes = 32u << 10;
  options_.blob_size_min = 1u << 20;
  options_.checkpoint_at_close_bytes = 0;
  open();
  fill(0, 1200);
  close();
  const auto tables = files(".sst");
  ASSERT_GT(tables.size(), 8u);
  const std::string sound = directory_.path() + "/sound";
  copy_directory(path(), sound);
  int noticed = 0;
  for (const auto& table : tables) {
    SCOPED_TRACE(table);
    copy_directory(sound, path());
    {
      std::fstream file(table, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(100);
      const char byte = static_cast<char>(file.get() ^ 1);
      file.seekp(100);
      file.put(byte);
    }
    open();
    if (store_->status().opened_by != "directory") {  // the row that says how far it is was in that block
      ++noticed;
      expect_filled();
      kill();
      continue;
    }
    for (const size_t limit : {size_t{20}, SIZE_MAX}) {
      for (const Direction direction : {Direction::forward, Direction::backward}) {
        // Pages from one end to the other: all rows, or corrupt.
        ScanOptions page{KeyRange::prefix("row/"), limit, SIZE_MAX, direction};
        int rows = 0;
        for (;;) {
          const auto got = executor_.run(store_->scan(page));
          if (!got) {
            EXPECT_EQ(got.error().code(), Code::corrupt);
            ++noticed;
            break;
          }
          rows += static_cast<int>(got->size());
          if (got->size() < limit) {
            EXPECT_EQ(rows, filled_);
            break;
          }
          if (direction == Direction::forward) {
            page.range.begin = got->back().key + '\0';
          } else {
            page.range.end = got->back().key;
          }
        }
      }
    }
    kill();
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_GE(noticed, static_cast<int>(tables.size()));
}

TEST_F(RocksdbCrash, a_huge_range_is_removed_whole) {
  open();
  for (int i = 0; i < 70000; i += 1000) {
    auto transaction = std::move(executor_.run(store_->begin()).value());
    for (int j = i; j < i + 1000; ++j) transaction->put(fmt::format("r{:06}", j), "v");
    ASSERT_TRUE(executor_.run(transaction->commit()));
  }
  auto before = std::move(executor_.run(store_->snapshot()).value());
  auto transaction = std::move(executor_.run(store_->begin()).value());
  transaction->put("r1", "gone");
  transaction->remove_range({"r", "s"});
  transaction->put("r2", "stays");
  ASSERT_TRUE(executor_.run(transaction->commit()));
  const auto rows = executor_.run(store_->scan({{"", ""}, SIZE_MAX, SIZE_MAX}));
  ASSERT_EQ(rows.value().size(), 1u);
  EXPECT_EQ(rows->front().key, "r2");
  EXPECT_EQ(executor_.run(before->scan({{"", ""}, SIZE_MAX, SIZE_MAX})).value().size(), 70000u);
  before.reset();
  kill();
  fs::remove_all(path());
  open();
  EXPECT_EQ(executor_.run(store_->scan({{"", ""}, SIZE_MAX, SIZE_MAX})).value().size(), 1u);
}

TEST_F(RocksdbCrash, a_damaged_checkpoint_is_noticed_not_served) {
  open();
  fill(0, 200);
  checkpoint();
  kill();
  fs::remove_all(path());
  for (auto& [handle, file] : media_->files) {
    if (!file.name.starts_with("0") || file.bytes.empty()) continue;
    file.bytes[file.bytes.size() / 2] ^= 4;
    const auto opened = try_open();
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code(), Code::corrupt);
    EXPECT_NE(opened.error().to_string().find(file.name), std::string::npos) << opened.error().to_string();
    file.bytes[file.bytes.size() / 2] ^= 4;
  }
  open();
  expect_filled();
}

TEST_F(RocksdbCrash, a_checkpoint_that_fails_costs_nothing_but_log) {
  open();
  fill(0, 100);
  log_->set_faults({.fail_store_after = 1});
  EXPECT_EQ(executor_.run(store_->checkpoint()).error().code(), Code::no_space);
  EXPECT_EQ(media_->manifest, std::nullopt);
  fill(100, 120);
  log_->set_faults({.fail_publish = true});
  EXPECT_EQ(executor_.run(store_->checkpoint()).error().code(), Code::no_space);
  EXPECT_EQ(store_->status().checkpoint_failures, 2u);
  EXPECT_FALSE(store_->status().checkpoint_error.empty());
  EXPECT_EQ(media_->frames.size(), 120u);
  fill(120, 140);
  log_->set_faults({});
  checkpoint();
  EXPECT_TRUE(store_->status().checkpoint_error.empty());
  EXPECT_LT(media_->frames.size(), 2u);
  // Files of the failed attempts were freed by the publication.
  uint64_t held = 0;
  for (const auto& [handle, file] : media_->files) held += file.bytes.size();
  uint64_t named = 0;
  for (const auto& file : media_->manifest->files) named += file.size;
  EXPECT_EQ(held, named);
  expect_filled();
}

TEST_F(RocksdbCrash, a_failed_log_takes_no_more_commits_and_still_reads) {
  open();
  fill(0, 10);
  log_->set_faults({.fail_append = 11});
  const auto try_put = [this] {
    auto transaction = std::move(executor_.run(store_->begin()).value());
    transaction->put("x", "1");
    return executor_.run(transaction->commit());
  };
  EXPECT_EQ(try_put().error().code(), Code::unknown_outcome);
  EXPECT_EQ(try_put().error().code(), Code::unavailable);
  EXPECT_FALSE(store_->status().failure.empty());
  expect_filled();
  kill();
  open();
  const bool happened = media_->last_frame == 11;
  EXPECT_EQ(executor_.run(store_->get("x")).value().has_value(), happened);
  expect_filled();
  EXPECT_GT(put("y", "1"), 0u);
}

Task<Result<Version>> put_one(RocksdbMetaStore& store, std::string key) {
  auto begun = co_await store.begin();
  (*begun)->put(std::move(key), "1");
  co_return co_await (*begun)->commit();
}

TEST_F(RocksdbCrash, a_log_that_was_full_for_a_moment_costs_nobody_an_error) {
  open();
  fill(0, 10);
  MemoryLogFaults full;
  full.full = true;
  full.append_delay = std::chrono::milliseconds(3);
  log_->set_faults(full);
  std::vector<Task<Result<Version>>> commits;
  for (int i = 0; i < 20; ++i) commits.push_back(put_one(*store_, fmt::format("x{}", i)));
  const auto mend = [](MemoryCommitLog* log) -> Task<Result<Version>> {
    co_await sleep_for(std::chrono::seconds(2));
    log->set_faults({});
    co_return Version{0};
  };
  commits.push_back(mend(log_.get()));
  for (auto& result : executor_.run(when_all(std::move(commits)))) EXPECT_TRUE(result) << result.error().to_string();
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(executor_.run(store_->get(fmt::format("x{}", i))).value().has_value()) << i;
  EXPECT_TRUE(store_->status().failure.empty());
  expect_filled();
}

TEST_F(RocksdbCrash, a_log_that_stays_full_refuses_and_goes_on_once_it_has_room) {
  open();
  fill(0, 10);
  MemoryLogFaults full;
  full.full = true;
  log_->set_faults(full);
  // Those that were handed to the log cannot be told; those behind them have not happened.
  std::vector<Task<Result<Version>>> commits;
  for (int i = 0; i < 2000; ++i) commits.push_back(put_one(*store_, fmt::format("x{}", i)));
  std::set<int> unknown;
  const auto results = executor_.run(when_all(std::move(commits)));
  for (int i = 0; i < 2000; ++i) {
    ASSERT_FALSE(results[static_cast<size_t>(i)]);
    const Code code = results[static_cast<size_t>(i)].error().code();
    if (code == Code::unknown_outcome)
      unknown.insert(i);
    else
      ASSERT_EQ(code, Code::no_space);
  }
  ASSERT_FALSE(unknown.empty());
  const TimePoint before = executor_.now();
  EXPECT_EQ(executor_.run(put_one(*store_, "late")).error().code(), Code::no_space);
  EXPECT_LT(executor_.now() - before, std::chrono::milliseconds(1)) << "a refusal is given at once";
  EXPECT_NE(store_->status().failure, "");
  expect_filled();

  log_->set_faults({});
  executor_.run(sleep_for(std::chrono::seconds(1)));
  EXPECT_EQ(store_->status().failure, "");
  EXPECT_GT(put("later", "1"), 0u);
  const auto expect = [&] {
    for (int i = 0; i < 2000; ++i)
      ASSERT_EQ(executor_.run(store_->get(fmt::format("x{}", i))).value().has_value(), unknown.contains(i)) << i;
    ASSERT_FALSE(executor_.run(store_->get("late")).value());
    expect_filled();
  };
  expect();
  kill();
  open();
  expect();
}

TEST_F(RocksdbCrash, an_index_without_room_refuses_and_goes_on_once_it_has_some) {
  if (::mount("tmpfs", directory_.path().c_str(), "tmpfs", 0, "size=16m") != 0) GTEST_SKIP() << "mounting is not permitted here";
  struct Unmount {
    std::string at;
    ~Unmount() { ::umount2(at.c_str(), MNT_DETACH); }
  } unmount{directory_.path()};
  open();
  fill(0, 10);
  const std::string ballast = directory_.path() + "/somebody-elses";
  {
    std::ofstream out(ballast, std::ios::binary);
    const std::string block(64 << 10, 'x');
    while (out.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  // Until a memtable can no longer become a table.
  int rows = 0;
  Result<Version> last = Version{0};
  for (; rows < 2000 && last; ++rows) {
    auto transaction = std::move(executor_.run(store_->begin()).value());
    transaction->put(fmt::format("full/{:06}", rows), value_of(rows));
    last = executor_.run(transaction->commit());
  }
  ASSERT_FALSE(last) << "it was never full: nothing was tested";
  EXPECT_EQ(last.error().code(), Code::unknown_outcome) << last.error().to_string();
  EXPECT_EQ(executor_.run(put_one(*store_, "late")).error().code(), Code::no_space);
  EXPECT_NE(store_->status().failure, "");
  expect_filled();

  fs::remove(ballast);
  // RocksDB looks at the free space every five seconds of the real clock.
  for (int i = 0; i < 600 && !store_->status().failure.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    executor_.run(sleep_for(std::chrono::milliseconds(600)));
  }
  EXPECT_EQ(store_->status().failure, "");
  EXPECT_GT(put("later", "1"), 0u);
  const auto expect = [&] {
    expect_filled();
    for (int i = 0; i < rows; ++i) {  // also the last: it was in the log
      const auto found = executor_.run(store_->get(fmt::format("full/{:06}", i)));
      ASSERT_TRUE(found && *found) << i;
      ASSERT_EQ(**found, value_of(i)) << i;
    }
    ASSERT_FALSE(executor_.run(store_->get("late")).value());
  };
  expect();
  kill();
  open();
  expect();
  kill();
}

TEST_F(RocksdbCrash, a_store_whose_log_is_full_can_be_closed) {
  open();
  fill(0, 10);
  MemoryLogFaults full;
  full.full = true;
  log_->set_faults(full);
  std::vector<Task<Result<Version>>> commits;
  commits.push_back(put_one(*store_, "x"));
  const auto close = [](RocksdbMetaStore* store) -> Task<Result<Version>> {
    co_await sleep_for(std::chrono::milliseconds(100));
    (void)co_await store->close();
    co_return Version{0};
  };
  commits.push_back(close(store_.get()));
  const TimePoint before = executor_.now();
  const auto results = executor_.run(when_all(std::move(commits)));
  EXPECT_EQ(results[0].error().code(), Code::unknown_outcome);
  EXPECT_LT(executor_.now() - before, std::chrono::seconds(2));
}

TEST_F(RocksdbCrash, a_directory_in_use_is_refused_and_left_alone) {
  open();
  fill(0, 10);
  MemoryCommitLog second(media_);
  RocksdbMetaOptions options = options_;
  options.directory = path();
  const auto opened = executor_.run(RocksdbMetaStore::open(std::move(options), second));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::busy) << opened.error().to_string();
  fill(10, 20);
  expect_filled();
}

TEST_F(RocksdbCrash, an_old_transaction_conflicts_when_the_window_has_moved_on) {
  options_.conflict_window_entries = 16;
  open();
  auto old = std::move(executor_.run(store_->begin()).value());
  EXPECT_EQ(executor_.run(old->get("untouched")).value(), std::nullopt);
  old->put("x", "1");
  auto blind = std::move(executor_.run(store_->begin()).value());
  blind->put("y", "1");
  fill(0, 40);
  EXPECT_EQ(executor_.run(old->commit()).error().code(), Code::conflict);
  EXPECT_TRUE(executor_.run(blind->commit()));
}

TEST_F(RocksdbCrash, a_full_commit_queue_answers_overloaded) {
  options_.queued_transactions_max = 10;
  options_.frames_in_flight_max = 1;
  log_faults_.append_delay = std::chrono::milliseconds(1);
  open();
  const auto body = [](MetaStore& store) -> Task<std::pair<int, int>> {
    std::vector<Task<Result<Version>>> commits;
    for (int i = 0; i < 100; ++i) commits.push_back(put_later(store, fmt::format("k{}", i), "v"));
    auto all = when_all(std::move(commits));
    const auto results = co_await std::move(all);
    int done = 0, refused = 0;
    for (const auto& result : results) {
      if (result) {
        ++done;
      } else if (result.error().code() == Code::overloaded) {
        ++refused;
      }
    }
    co_return std::pair(done, refused);
  };
  const auto [done, refused] = executor_.run(body(*store_));
  EXPECT_GE(done, 10);
  EXPECT_EQ(done + refused, 100);
  EXPECT_EQ(store_->stats().commits, static_cast<uint64_t>(done));
}

}  // namespace
}  // namespace quarry::meta
