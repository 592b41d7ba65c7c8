// Deaths at every point between a commit and a trimmed log, and everything that can be wrong with the index as a whole and with the log;
// with either index. The oracle is the history check of the conformance suite: acknowledged transactions are there, whole, in order; no
// others. "Directory" in names of tests is where an index lives, also in memory.
#include "meta/conformance_history.h"
#include "meta/crash_fixture.h"
#include "meta/log_frame.h"

namespace quarry::meta {
namespace {

class Crash : public EitherCrash {};
INSTANTIATE_TEST_SUITE_P(Index, Crash, kEitherIndex, kind_name);

TEST_P(Crash, a_death_at_any_point_keeps_what_was_acknowledged_and_nothing_half) {
  const std::vector<std::string> points{"append.before",      "append.after",      "apply.after",          "checkpoint.flushed",
                                        "checkpoint.storing", "checkpoint.stored", "checkpoint.published", "close.flush"};
  std::map<std::string, int> died;
  SeededRandom random(42);
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    media_ = std::make_shared<MemoryLogMedia>();
    lose_index();
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
        // Until it died, or enough was done.
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
      if (dice == 0) lose_index();
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

TEST_P(Crash, a_clean_close_makes_the_next_start_replay_nothing) {
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

TEST_P(Crash, a_lost_directory_comes_back_from_checkpoint_and_log) {
  open();
  fill(0, 100);
  checkpoint();
  EXPECT_LT(media_->frames.size(), 2u);  // trimmed
  fill(100, 150);
  const Version version = store_->version();
  kill();
  lose_index();
  open();
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  EXPECT_EQ(store_->status().frames_replayed, 50u);
  EXPECT_EQ(store_->version(), version);
  expect_filled();
  fill(150, 160);
  kill();
  lose_index();
  open();
  expect_filled();
}

TEST_P(Crash, an_older_copy_of_the_directory_is_caught_up_or_replaced) {
  open();
  fill(0, 100);
  close();
  save_index("copy");
  open();
  fill(100, 200);
  kill();
  bring_back_index("copy");  // the log still has what is missing
  open();
  EXPECT_EQ(store_->status().opened_by, "directory");
  EXPECT_EQ(store_->status().frames_replayed, 100u);
  expect_filled();
  fill(200, 300);
  checkpoint();  // now it is trimmed
  kill();
  bring_back_index("copy");
  open();
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  EXPECT_FALSE(store_->status().reason.empty());
  expect_filled();
}

TEST_P(Crash, two_directories_of_one_store_never_mix_in_a_checkpoint) {
  options_.checkpoint_at_close_bytes = 0;
  open();
  fill(0, 300);
  checkpoint();
  fill(300, 400);
  close();
  save_index("other");
  // A second life of the same history: the same frames, other files under the same names.
  lose_index();
  open();
  checkpoint();
  close();
  lose_index();
  bring_back_index("other");
  open();
  EXPECT_EQ(store_->status().opened_by, "directory") << store_->status().reason;
  fill(400, 420);
  checkpoint();
  kill();
  lose_index();
  open();
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  expect_filled();
}

TEST_P(Crash, a_directory_of_another_store_is_set_aside) {
  open();
  fill(0, 50);
  close();
  save_index("mine");
  const auto my_media = media_;
  media_ = std::make_shared<MemoryLogMedia>();
  lose_index();
  open();
  put("foreign", "1");
  close();
  media_ = my_media;
  open();
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  EXPECT_NE(store_->status().reason.find("another store"), std::string::npos) << store_->status().reason;
  EXPECT_TRUE(is_set_aside());
  expect_filled();
  EXPECT_EQ(executor_.run(store_->get("foreign")).value(), std::nullopt);
}

TEST_P(Crash, a_directory_ahead_of_the_log_is_not_believed) {
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

TEST_P(Crash, a_directory_with_another_history_is_not_believed) {
  open();
  fill(0, 50);
  const auto fork = copy_of(*media_);
  put("here", "1");
  options_.checkpoint_at_close_bytes = 0;
  close();
  // The log was set back, and went on differently, further than the directory.
  save_index("copy");
  lose_index();
  media_ = fork;
  open();
  put("there", "1");
  put("there", "2");
  kill();
  bring_back_index("copy");
  open();
  EXPECT_NE(store_->status().reason.find("history"), std::string::npos) << store_->status().reason;
  EXPECT_EQ(executor_.run(store_->get("here")).value(), std::nullopt);
  EXPECT_EQ(executor_.run(store_->get("there")).value(), "2");
  expect_filled();
}

TEST_P(Crash, an_empty_log_does_not_take_over_an_old_directory) {
  open();
  fill(0, 10);
  close();
  media_ = std::make_shared<MemoryLogMedia>();
  open();
  EXPECT_EQ(store_->status().opened_by, "empty");
  EXPECT_EQ(store_->version(), 0u);
  EXPECT_TRUE(is_set_aside());
}

TEST_P(Crash, a_damaged_frame_stops_a_start_that_needs_it) {
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

TEST_P(Crash, a_damaged_frame_whose_effect_is_in_the_directory_is_harmless) {
  for (const FrameNumber bad : {FrameNumber{1}, FrameNumber{7}, FrameNumber{20}}) {
    SCOPED_TRACE(bad);
    media_ = std::make_shared<MemoryLogMedia>();
    lose_index();
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
    lose_index();
    open();
    expect_filled();
    kill();
  }
}

TEST_P(Crash, a_close_stores_however_much_it_is_where_the_log_alone_could_not_bring_it_back) {
  options_.checkpoint_at_close_bytes = 0;
  open();
  fill(0, 20);
  close();
  media_->unreadable[20] = Code::data_lost;
  log_faults_ = {.fail_publish = true};
  open();
  EXPECT_EQ(store_->status().opened_by, "directory");
  EXPECT_EQ(executor_.run(store_->checkpoint()).error().code(), Code::no_space);
  EXPECT_EQ(store_->status().checkpoint_failures, 2u) << "the start makes one, too";
  EXPECT_FALSE(media_->manifest);
  log_faults_ = {};
  log_->set_faults({});
  close();
  ASSERT_TRUE(media_->manifest);
  lose_index();
  open();
  expect_filled();
}

TEST_P(Crash, an_unreadable_frame_without_directory_is_a_clear_error) {
  open();
  fill(0, 20);
  kill();
  lose_index();
  media_->unreadable[5] = Code::data_lost;
  const auto opened = try_open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::data_lost);
  EXPECT_NE(opened.error().to_string().find("frame 5"), std::string::npos);
  media_->unreadable.clear();
  open();  // the failed attempt has destroyed nothing
  expect_filled();
}

TEST_P(Crash, frames_that_do_not_continue_each_other_are_refused) {
  open();
  fill(0, 20);
  kill();
  std::swap(media_->frames.at(8), media_->frames.at(9));
  EXPECT_EQ(try_open().error().code(), Code::corrupt);
  std::swap(media_->frames.at(8), media_->frames.at(9));
  open();
  expect_filled();
}

TEST_P(Crash, a_huge_range_is_removed_whole) {
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
  lose_index();
  open();
  EXPECT_EQ(executor_.run(store_->scan({{"", ""}, SIZE_MAX, SIZE_MAX})).value().size(), 1u);
}

TEST_P(Crash, a_damaged_checkpoint_is_noticed_not_served) {
  open();
  fill(0, 200);
  checkpoint();
  kill();
  lose_index();
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

TEST_P(Crash, a_checkpoint_that_fails_costs_nothing_but_log) {
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

TEST_P(Crash, a_failed_log_takes_no_more_commits_and_still_reads) {
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

TEST_P(Crash, a_log_that_was_full_for_a_moment_costs_nobody_an_error) {
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

TEST_P(Crash, a_log_that_stays_full_refuses_and_goes_on_once_it_has_room) {
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

TEST_P(Crash, a_store_whose_log_is_full_can_be_closed) {
  open();
  fill(0, 10);
  MemoryLogFaults full;
  full.full = true;
  log_->set_faults(full);
  std::vector<Task<Result<Version>>> commits;
  commits.push_back(put_one(*store_, "x"));
  const auto close = [](LogMetaStore* store) -> Task<Result<Version>> {
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

TEST_P(Crash, a_directory_in_use_is_refused_and_left_alone) {
  open();
  fill(0, 10);
  MemoryCommitLog second(media_);
  const auto opened = executor_.run(open_over(second));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::busy) << opened.error().to_string();
  fill(10, 20);
  expect_filled();
}

TEST_P(Crash, an_old_transaction_conflicts_when_the_window_has_moved_on) {
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

TEST_P(Crash, a_full_commit_queue_answers_overloaded) {
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

// Any kind of operation, and after each commit what is there.
TEST_P(Crash, a_log_that_is_cut_anywhere_gives_what_was_there_at_the_cut) {
  options_.checkpoint_at_close_bytes = 0;
  index_->flush_bytes = 3000;
  open();
  SeededRandom random(11);
  std::vector<std::string> states{""};  // by frame
  const auto state = [this] {
    std::string out;
    const auto rows = executor_.run(store_->scan({{"", ""}, SIZE_MAX, SIZE_MAX}));
    if (!rows) return rows.error().to_string();
    for (const auto& [key, value] : *rows) out += fmt::format("{}={} ", key, to_hex(bytes_of(value)));
    return out;
  };
  constexpr FrameNumber kCheckpointed = 15, kFrames = 60;
  while (media_->last_frame < kFrames) {
    auto transaction = std::move(executor_.run(store_->begin()).value());
    for (uint64_t i = 1 + random.below(4); i > 0; --i) {
      const std::string key = fmt::format("{:02}", random.below(40)), end = fmt::format("{:02}", random.below(40));
      switch (random.below(6)) {
        case 0: transaction->remove(key); break;
        case 1: transaction->remove_range({key, end}); break;
        case 2: transaction->add(key, static_cast<int64_t>(random.below(100))); break;
        case 3: transaction->put_versionstamped(key, std::string(12, 's'), 2); break;
        default: transaction->put(key, std::string(random.below(200), static_cast<char>('a' + random.below(26)))); break;
      }
    }
    transaction->put("at", std::to_string(states.size()));
    ASSERT_TRUE(executor_.run(transaction->commit()));
    ASSERT_EQ(media_->last_frame, states.size());
    states.push_back(state());
    if (media_->last_frame == kCheckpointed) checkpoint();
  }
  kill();
  save_index("late");
  const auto whole = media_;
  for (FrameNumber cut = kCheckpointed; cut <= kFrames; ++cut) {
    for (const bool lost : {true, false}) {
      SCOPED_TRACE(fmt::format("cut after {}, the index {}", cut, lost ? "is lost" : "is there"));
      media_ = copy_of(*whole);
      media_->frames.erase(media_->frames.upper_bound(cut), media_->frames.end());
      media_->last_frame = cut;
      lose_index();
      if (!lost) bring_back_index("late");
      open();
      ASSERT_EQ(state(), states[cut]);
      ASSERT_EQ(store_->version(), cut);
      EXPECT_EQ(put("more", "1"), cut + 1);
      kill();
      open();
      EXPECT_EQ(executor_.run(store_->get("more")).value(), "1");
      kill();
    }
  }
}

class MemoryCrash : public StoreCrash {
 protected:
  MemoryCrash() : StoreCrash(IndexKind::memory) {}
  static size_t threads() {
    return static_cast<size_t>(std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator()));
  }
};

TEST_F(MemoryCrash, one_seed_gives_one_history_without_a_thread) {
  const size_t before = threads();
  std::vector<std::string> traces;
  for (const uint64_t seed : {7u, 7u, 8u}) {
    executor_.draw_from(seed);
    random_ = SeededRandom(seed);
    media_ = std::make_shared<MemoryLogMedia>();
    lose_index();
    index_->flush_bytes = 2000;
    options_.checkpoint_log_bytes = 4096;
    log_faults_ = {.append_delay = std::chrono::microseconds(50), .append_jitter = std::chrono::microseconds(300), .seed = seed};
    history::Shared shared{{seed, 10, 60, 6}};
    std::string trace;
    for (int life = 0; life < 3; ++life) {
      open();
      EXPECT_LE(threads(), before);
      shared.workload.seed = seed * 100 + static_cast<uint64_t>(life);
      const TimePoint began = executor_.now();
      executor_.run(history::run_clients(*store_, shared));
      const auto status = store_->status();
      trace += fmt::format("{} {} {} {} {}\n", status.opened_by, status.frames_replayed, status.checkpoints, store_->version(),
                           (executor_.now() - began).count());
      log_->crash();
      kill();
    }
    for (const auto& [number, bytes] : media_->frames) trace += fmt::format("{}: {}\n", number, to_hex(bytes_of(bytes)));
    for (const auto& [handle, file] : media_->files) trace += fmt::format("{}: {}\n", file.name, to_hex(bytes_of(file.bytes)));
    traces.push_back(std::move(trace));
  }
  EXPECT_TRUE(traces[0] == traces[1]);  // without printing them: they are long
  EXPECT_FALSE(traces[0] == traces[2]);
}

TEST_F(MemoryCrash, an_index_without_room_refuses_and_goes_on_once_it_has_some) {
  open();
  fill(0, 10);
  index_->full = true;
  EXPECT_EQ(executor_.run(put_one(*store_, "first")).error().code(), Code::unknown_outcome);
  EXPECT_EQ(executor_.run(put_one(*store_, "late")).error().code(), Code::no_space);
  EXPECT_NE(store_->status().failure, "");
  expect_filled();
  index_->full = false;
  executor_.run(sleep_for(std::chrono::seconds(1)));
  EXPECT_EQ(store_->status().failure, "");
  EXPECT_GT(put("later", "1"), 0u);
  const auto expect = [this] {
    expect_filled();
    EXPECT_TRUE(executor_.run(store_->get("first")).value());  // it was in the log
    EXPECT_FALSE(executor_.run(store_->get("late")).value());
  };
  expect();
  kill();
  open();
  expect();
}

TEST_F(MemoryCrash, an_index_that_is_marked_damaged_is_made_anew) {
  for (const bool checkpointed : {false, true}) {
    open();
    fill(filled_, filled_ + 50);
    if (checkpointed) checkpoint();
    fill(filled_, filled_ + 50);
    kill();
    index_->damaged = "a bit was seen to flip";
    open();
    EXPECT_EQ(store_->status().opened_by, checkpointed ? "checkpoint" : "log");
    EXPECT_NE(store_->status().reason.find("a bit was seen to flip"), std::string::npos) << store_->status().reason;
    expect_filled();
    close();
    open();
    EXPECT_EQ(store_->status().opened_by, "directory");
    expect_filled();
    kill();
    media_ = std::make_shared<MemoryLogMedia>();
    lose_index();
    filled_ = 0;
  }
}

}  // namespace
}  // namespace quarry::meta
