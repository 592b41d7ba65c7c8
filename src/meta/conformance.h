// The suite that every MetaStore passes: each sentence of meta/meta_store.h as a test. Include it in one test file per backend and
// instantiate it with a factory:
//   INSTANTIATE_TEST_SUITE_P(Memory, MetaConformance, ::testing::Values(MetaBackend{"memory", make_fixture}), backend_name);
// Histories (conformance_history.h) run random concurrent transactions and check them for strict serializability.
#pragma once
#include "meta/conformance_fixture.h"
#include "meta/conformance_history.h"
#include "meta/row_batches.h"

namespace quarry::meta {

TEST_P(MetaConformance, an_empty_store_has_nothing) {
  EXPECT_EQ(store().version(), 0u);
  EXPECT_EQ(get("a"), std::nullopt);
  EXPECT_TRUE(scan({}).empty());
}

TEST_P(MetaConformance, what_was_committed_is_read_and_what_was_removed_is_not) {
  const Version first = put("a", "1");
  EXPECT_GT(first, 0u);
  EXPECT_EQ(get("a"), "1");
  const Version second = put("a", "");
  EXPECT_GT(second, first);
  EXPECT_EQ(get("a"), "");
  EXPECT_EQ(store().version(), second);
  EXPECT_GT(remove("a"), second);
  EXPECT_EQ(get("a"), std::nullopt);
  EXPECT_GT(remove("a"), second);  // removing nothing is fine
}

TEST_P(MetaConformance, any_bytes_are_keys_in_order_of_bytes) {
  const std::vector<std::string> keys{
      std::string("\0", 1), std::string("\0\0", 2), "\x01", "a", std::string("a\0", 2), "aa", "b", "\x7f", "\x80", "\xff", "\xff\xff"};
  for (const auto& key : keys) put(key, to_hex(bytes_of(key)));
  const auto rows = scan({});
  ASSERT_EQ(rows.size(), keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_EQ(rows[i].key, keys[i]);
    EXPECT_EQ(rows[i].value, to_hex(bytes_of(keys[i])));
  }
}

TEST_P(MetaConformance, get_many_answers_in_order) {
  put("a", "1");
  put("c", "3");
  const auto values = run(store().get_many({"c", "b", "a", "c"}));
  ASSERT_TRUE(values);
  EXPECT_EQ(*values, (std::vector<std::optional<std::string>>{"3", std::nullopt, "1", "3"}));
}

TEST_P(MetaConformance, scans_honour_range_limit_and_direction) {
  for (const char* key : {"a", "b", "c", "d", "e"}) put(key, key);
  EXPECT_EQ(text(scan({{"b", "d"}})), "b=b c=c ");
  EXPECT_EQ(text(scan({{"b", ""}})), "b=b c=c d=d e=e ");
  EXPECT_EQ(text(scan({{"", "c"}})), "a=a b=b ");
  EXPECT_EQ(text(scan({{"bb", "dd"}, 1})), "c=c ");
  EXPECT_EQ(text(scan({{"", ""}, 2, 4u << 20, Direction::backward})), "e=e d=d ");
  EXPECT_EQ(text(scan({{"b", "d"}, 10, 4u << 20, Direction::backward})), "c=c b=b ");
  EXPECT_TRUE(scan({{"d", "b"}}).empty());
  EXPECT_TRUE(scan({{"b", "b"}}).empty());
  EXPECT_TRUE(scan({{"", ""}, 0}).empty());
  EXPECT_EQ(text(scan({KeyRange::prefix("c")})), "c=c ");
}

TEST_P(MetaConformance, a_scan_stops_at_its_byte_limit_but_returns_a_row) {
  for (int i = 0; i < 10; ++i) put(fmt::format("k{}", i), std::string(98, 'x'));
  EXPECT_EQ(scan({{"", ""}, 100, 1}).size(), 1u);
  EXPECT_EQ(scan({{"", ""}, 100, 100}).size(), 1u);  // the row that reaches the limit is returned
  EXPECT_EQ(scan({{"", ""}, 100, 101}).size(), 2u);
  EXPECT_EQ(scan({{"", ""}, 100, 301}).size(), 4u);
  EXPECT_EQ(scan({{"", ""}, 100, 301, Direction::backward}).size(), 4u);
}

TEST_P(MetaConformance, a_large_scan_pages_through_everything) {
  for (int i = 0; i < 2500; i += 50) {
    auto transaction = begin();
    for (int j = i; j < i + 50; ++j) transaction->put(fmt::format("{:06}", j), std::to_string(j));
    commit(*transaction);
  }
  std::string from;
  int next = 0;
  for (;;) {
    const auto rows = scan({{from, ""}, 1000});
    for (const auto& row : rows) EXPECT_EQ(row.key, fmt::format("{:06}", next++));
    if (rows.size() < 1000) break;
    from = key_after(rows.back().key);
  }
  EXPECT_EQ(next, 2500);
}

TEST_P(MetaConformance, a_snapshot_does_not_move) {
  const Version version = put("a", "1");
  put("b", "1");
  auto snapshot = std::move(run(store().snapshot()).value());
  EXPECT_EQ(snapshot->version(), version + 1);
  put("a", "2");
  put("c", "2");
  remove("b");
  EXPECT_EQ(run(snapshot->get("a")).value(), "1");
  EXPECT_EQ(run(snapshot->get("b")).value(), "1");
  EXPECT_EQ(run(snapshot->get("c")).value(), std::nullopt);
  EXPECT_EQ(text(run(snapshot->scan({})).value()), "a=1 b=1 ");
  EXPECT_EQ(text(scan({})), "a=2 c=2 ");
}

TEST_P(MetaConformance, a_cursor_reads_on_from_where_it_stands) {
  for (char c = 'a'; c <= 'j'; ++c) put(std::string(1, c), "v");
  auto cursor = std::move(run(store().cursor({"b", "i"}, Direction::forward)).value());
  put("bb", "later");  // not in its snapshot
  EXPECT_EQ(text(run(cursor->next(2)).value()), "b=v c=v ");
  EXPECT_EQ(text(run(cursor->next(1)).value()), "d=v ");
  cursor->seek("f5");
  EXPECT_EQ(text(run(cursor->next(1)).value()), "g=v ");
  cursor->seek("");  // before the range: its beginning
  EXPECT_EQ(text(run(cursor->next(1)).value()), "b=v ");
  cursor->seek("h");
  EXPECT_EQ(text(run(cursor->next(10)).value()), "h=v ");
  EXPECT_TRUE(run(cursor->next(10)).value().empty());
  cursor->seek("z");
  EXPECT_TRUE(run(cursor->next(10)).value().empty());
}

TEST_P(MetaConformance, a_cursor_walks_jumps_and_stops) {
  for (const char* key : {"a/1", "a/2", "b/1", "b/2", "b/3", "c", "d/1"}) put(key, "v");
  auto cursor = std::move(run(store().cursor({"", ""}, Direction::forward)).value());
  std::string seen;
  // A delimiter listing: one entry for each first part.
  const auto visit = [&seen](std::string_view key, std::string_view) {
    const size_t slash = key.find('/');
    if (slash == std::string_view::npos) {
      seen += std::string(key) + " ";
      return Cursor::Step{};
    }
    seen += std::string(key.substr(0, slash + 1)) + " ";
    return Cursor::Step{Cursor::Step::Kind::seek, prefix_end(key.substr(0, slash + 1))};
  };
  ASSERT_TRUE(run(cursor->walk(visit)));
  EXPECT_EQ(seen, "a/ b/ c d/ ");
  cursor->seek("b/2");
  seen.clear();
  const auto two = [&seen](std::string_view key, std::string_view) {
    seen += std::string(key) + " ";
    return Cursor::Step{seen.size() > 5 ? Cursor::Step::Kind::stop : Cursor::Step::Kind::next, {}};
  };
  ASSERT_TRUE(run(cursor->walk(two)));
  EXPECT_EQ(seen, "b/2 b/3 ");
  EXPECT_EQ(text(run(cursor->next(1)).value()), "c=v ");  // it goes on after the row at which the walk stopped
}

TEST_P(MetaConformance, a_cursor_goes_backward) {
  for (char c = 'a'; c <= 'f'; ++c) put(std::string(1, c), "v");
  auto cursor = std::move(run(store().cursor({"b", "f"}, Direction::backward)).value());
  EXPECT_EQ(text(run(cursor->next(2)).value()), "e=v d=v ");
  cursor->seek("c");
  EXPECT_EQ(text(run(cursor->next(1)).value()), "c=v ");
  cursor->seek("d5");
  EXPECT_EQ(text(run(cursor->next(9)).value()), "d=v c=v b=v ");
  EXPECT_TRUE(run(cursor->next(9)).value().empty());
  cursor->seek("zz");
  EXPECT_EQ(text(run(cursor->next(1)).value()), "e=v ");
}

TEST_P(MetaConformance, a_transaction_sees_its_view_and_its_own_writes) {
  for (const char* key : {"a", "b", "c", "d", "e", "f"}) put(key, "old");
  auto transaction = begin();
  put("a", "other");  // later: not seen
  EXPECT_EQ(run(transaction->get_unchecked("a")).value(), "old");
  transaction->put("b", "new");
  transaction->remove("c");
  transaction->put("bb", "new");
  transaction->remove_range({"e", "f"});
  transaction->add("n", 5);
  transaction->add("n", 6);
  EXPECT_EQ(run(transaction->get("b")).value(), "new");
  EXPECT_EQ(run(transaction->get("c")).value(), std::nullopt);
  EXPECT_EQ(run(transaction->get("e")).value(), std::nullopt);
  EXPECT_EQ(run(transaction->get("n")).value(), counter_text(11));
  EXPECT_EQ(text(run(transaction->scan({{"b", "g"}})).value()), "b=new bb=new d=old f=old ");
  EXPECT_EQ(text(run(transaction->scan({{"b", "g"}, 3, 4u << 20, Direction::backward})).value()), "f=old d=old bb=new ");
  EXPECT_EQ(text(run(transaction->scan({{"b", "g"}, 2})).value()), "b=new bb=new ");
  EXPECT_EQ(get("b"), "old");  // nobody else does before the commit
  commit(*transaction);
  EXPECT_EQ(text(scan({{"", "g"}})), "a=other b=new bb=new d=old f=old ");
}

TEST_P(MetaConformance, a_write_after_a_range_removal_stays) {
  put("a", "1");
  put("b", "1");
  auto transaction = begin();
  transaction->put("c", "gone");
  transaction->remove_range({"", ""});
  transaction->put("b", "2");
  transaction->add("d", 7);
  EXPECT_EQ(run(transaction->get("d")).value(), counter_text(7));
  commit(*transaction);
  EXPECT_EQ(text(scan({})), "b=2 d=" + counter_text(7) + " ");
}

TEST_P(MetaConformance, a_read_key_that_changed_is_a_conflict) {
  put("a", "1");
  auto transaction = begin();
  EXPECT_EQ(run(transaction->get("a")).value(), "1");
  transaction->put("b", "1");
  put("a", "2");
  EXPECT_EQ(commit_code(*transaction), Code::conflict);
  EXPECT_EQ(get("b"), std::nullopt);  // nothing happened
  auto again = begin();
  EXPECT_EQ(run(again->get("a")).value(), "2");
  again->put("b", "1");
  commit(*again);
}

TEST_P(MetaConformance, a_read_of_nothing_conflicts_with_its_creation) {
  auto transaction = begin();
  EXPECT_EQ(run(transaction->get("a")).value(), std::nullopt);
  transaction->put("a", "mine");
  put("a", "theirs");
  EXPECT_EQ(commit_code(*transaction), Code::conflict);
  EXPECT_EQ(get("a"), "theirs");
}

TEST_P(MetaConformance, a_read_key_that_was_removed_is_a_conflict) {
  for (const bool by_range : {false, true}) {
    put("a", "1");
    auto transaction = begin();
    EXPECT_EQ(run(transaction->get("a")).value(), "1");
    transaction->put("b", "1");
    auto other = begin();
    if (by_range) {
      other->remove_range({"", "b"});
    } else {
      other->remove("a");
    }
    commit(*other);
    EXPECT_EQ(commit_code(*transaction), Code::conflict);
  }
}

TEST_P(MetaConformance, writes_alone_never_conflict) {
  auto first = begin(), second = begin();
  first->put("a", "1");
  second->put("a", "2");
  const Version one = commit(*first), two = commit(*second);
  EXPECT_GT(two, one);
  EXPECT_EQ(get("a"), "2");
}

TEST_P(MetaConformance, an_unchecked_read_never_conflicts) {
  put("a", "1");
  auto transaction = begin();
  EXPECT_EQ(run(transaction->get_unchecked("a")).value(), "1");
  transaction->put("b", "1");
  put("a", "2");
  commit(*transaction);
}

TEST_P(MetaConformance, a_row_that_appears_in_a_scanned_range_is_a_conflict) {
  put("a", "1");
  put("c", "1");
  for (const Direction direction : {Direction::forward, Direction::backward}) {
    auto transaction = begin();
    EXPECT_EQ(run(transaction->scan({{"a", "d"}, 100, 4u << 20, direction})).value().size(), 2u);
    transaction->put("x", "1");
    put("b", "phantom");
    EXPECT_EQ(commit_code(*transaction), Code::conflict);
    remove("b");
  }
}

TEST_P(MetaConformance, rows_beyond_where_a_scan_stopped_may_change) {
  for (const char* key : {"a", "b", "c", "d"}) put(key, "1");
  auto forward = begin();
  EXPECT_EQ(text(run(forward->scan({{"", ""}, 2})).value()), "a=1 b=1 ");
  forward->put("x1", "1");
  put("b0", "new");
  commit(*forward);
  auto backward = begin();
  EXPECT_EQ(text(run(backward->scan({{"", "e"}, 2, 4u << 20, Direction::backward})).value()), "d=1 c=1 ");
  backward->put("x2", "1");
  put("b1", "new");
  commit(*backward);
  auto inside = begin();
  EXPECT_EQ(run(inside->scan({{"", "e"}, 2, 4u << 20, Direction::backward})).value().size(), 2u);
  inside->put("x3", "1");
  put("c5", "new");
  EXPECT_EQ(commit_code(*inside), Code::conflict);
}

TEST_P(MetaConformance, counters_add_without_conflict) {
  auto first = begin(), second = begin(), reader = begin();
  first->add("n", 5);
  second->add("n", -7);
  EXPECT_EQ(run(reader->get("n")).value(), std::nullopt);
  reader->put("x", "1");
  commit(*first);
  commit(*second);
  EXPECT_EQ(get("n"), counter_text(-2));
  EXPECT_EQ(commit_code(*reader), Code::conflict);
}

TEST_P(MetaConformance, counters_wrap_and_replace_what_is_no_counter) {
  put("n", counter_text(INT64_MAX));
  put("text", "hello");
  auto transaction = begin();
  transaction->add("n", 1);
  transaction->add("text", 3);
  EXPECT_EQ(run(transaction->get_unchecked("text")).value(), counter_text(3));
  commit(*transaction);
  EXPECT_EQ(get("n"), counter_text(INT64_MIN));
  EXPECT_EQ(get("text"), counter_text(3));
  auto mixed = begin();
  mixed->add("m", 4);
  mixed->remove("m");
  mixed->add("m", 6);
  mixed->put("k", counter_text(10));
  mixed->add("k", 1);
  commit(*mixed);
  EXPECT_EQ(get("m"), counter_text(6));
  EXPECT_EQ(get("k"), counter_text(11));
}

TEST_P(MetaConformance, many_adds_to_one_counter_sum_up) {
  int64_t sum = 0;
  for (int i = 0; i < 200; ++i) {
    auto transaction = begin();
    transaction->add("n", i);
    sum += i;
    commit(*transaction);
  }
  EXPECT_EQ(get("n"), counter_text(sum));
}

TEST_P(MetaConformance, version_stamps_carry_the_commit_version) {
  auto transaction = begin();
  transaction->put_versionstamped("v", "ab________cd", 2);
  transaction->put_at_versionstamped_key("log/________/x", 4, "entry");
  EXPECT_EQ(run(transaction->get("v")).error().code(), Code::invalid_argument);
  EXPECT_TRUE(run(transaction->scan({KeyRange::prefix("log/")})).value().empty());
  const Version version = commit(*transaction);
  std::string stamp;
  Encoder(stamp).key_u64(version);
  EXPECT_EQ(get("v"), "ab" + stamp + "cd");
  EXPECT_EQ(get("log/" + stamp + "/x"), "entry");
  auto later = begin();
  later->put_at_versionstamped_key("log/________/x", 4, "later");
  commit(*later);
  const auto rows = scan({KeyRange::prefix("log/")});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].value, "later");
}

TEST_P(MetaConformance, a_stamp_that_does_not_fit_is_refused) {
  auto value = begin();
  value->put_versionstamped("v", "1234567", 0);
  EXPECT_EQ(commit_code(*value), Code::invalid_argument);
  auto key = begin();
  key->put_at_versionstamped_key("12345678", 1, "v");
  EXPECT_EQ(commit_code(*key), Code::invalid_argument);
  auto huge = begin();
  huge->put_versionstamped("v", "12345678", UINT32_MAX);
  EXPECT_EQ(commit_code(*huge), Code::invalid_argument);
}

TEST_P(MetaConformance, limits_are_kept) {
  EXPECT_EQ(run(store().get("")).error().code(), Code::invalid_argument);
  EXPECT_EQ(run(store().get(std::string(kKeySizeMax + 1, 'k'))).error().code(), Code::too_large);
  const auto code_of = [this](auto change) {
    auto transaction = begin();
    change(*transaction);
    return commit_code(*transaction);
  };
  EXPECT_EQ(code_of([](Transaction& t) { t.put("", "v"); }), Code::invalid_argument);
  EXPECT_EQ(code_of([](Transaction& t) { t.add("", 1); }), Code::invalid_argument);
  EXPECT_EQ(code_of([](Transaction& t) { t.put(std::string(kKeySizeMax + 1, 'k'), "v"); }), Code::too_large);
  EXPECT_EQ(code_of([](Transaction& t) { t.remove(std::string(kKeySizeMax + 1, 'k')); }), Code::too_large);
  EXPECT_EQ(code_of([](Transaction& t) { t.put("k", std::string(kValueSizeMax + 1, 'v')); }), Code::too_large);
  EXPECT_EQ(code_of([](Transaction& t) { t.remove_range({std::string(kKeySizeMax + 1, 'k'), ""}); }), Code::too_large);
  EXPECT_EQ(code_of([](Transaction& t) {
              for (int i = 0; i < 65; ++i) t.put(fmt::format("k{}", i), std::string(kValueSizeMax, 'v'));
            }),
            Code::too_large);
  EXPECT_EQ(code_of([](Transaction& t) {
              for (int i = 0; i < 2'500'000; ++i) t.remove("k");  // short keys, but too many of them
            }),
            Code::too_large);
  EXPECT_TRUE(scan({}).empty());

  const std::string longest(kKeySizeMax, '\xff');
  put(longest, std::string(kValueSizeMax, 'v'));
  EXPECT_EQ(get(longest)->size(), kValueSizeMax);
  auto full = begin();
  for (int i = 0; i < 63; ++i) full->put(fmt::format("k{}", i), std::string(kValueSizeMax, static_cast<char>('a' + i % 26)));
  commit(*full);
  EXPECT_EQ(get("k62"), std::string(kValueSizeMax, static_cast<char>('a' + 62 % 26)));
  auto all = begin();
  all->remove_range({"", ""});  // reaches the last possible key
  commit(*all);
  EXPECT_TRUE(scan({}).empty());
}

TEST_P(MetaConformance, a_transaction_is_spent_by_its_commit) {
  auto transaction = begin();
  transaction->put("a", "1");
  commit(*transaction);
  EXPECT_EQ(run(transaction->commit()).error().code(), Code::invalid_argument);
  EXPECT_EQ(run(transaction->get("a")).error().code(), Code::invalid_argument);
}

TEST_P(MetaConformance, a_transaction_that_only_reads_commits_at_what_it_read) {
  const Version version = put("a", "1");
  auto transaction = begin();
  EXPECT_EQ(run(transaction->get("a")).value(), "1");
  put("a", "2");
  EXPECT_EQ(commit(*transaction), version);
}

TEST_P(MetaConformance, an_abandoned_transaction_leaves_nothing) {
  {
    auto transaction = begin();
    transaction->put("a", "1");
  }
  EXPECT_EQ(get("a"), std::nullopt);
}

TEST_P(MetaConformance, values_of_every_size_come_back) {
  for (const size_t size : {0u, 1u, 1535u, 1536u, 1537u, 4096u, 65535u, 65536u}) {
    std::string value(size, '\0');
    for (size_t i = 0; i < size; ++i) value[i] = static_cast<char>(i * 131 + size);
    put(fmt::format("{:05}", size), value);
  }
  for (const auto& row : scan({})) {
    const size_t size = std::stoul(row.key);
    ASSERT_EQ(row.value.size(), size);
    for (size_t i = 0; i < size; ++i) ASSERT_EQ(row.value[i], static_cast<char>(i * 131 + size));
  }
}

// ---- watches -----------------------------------------------------------------------------------------------------------------

struct WatchOutcome {
  bool done = false;
  Result<Version> result = Version{0};
};

inline Task<void> watch_into(MetaStore& store, std::string prefix, Version after, TimePoint deadline, WatchOutcome& outcome) {
  auto waiting = store.watch(std::move(prefix), after, deadline);
  outcome.result = co_await std::move(waiting);
  outcome.done = true;
}

TEST_P(MetaConformance, a_watch_wakes_for_its_prefix_and_no_other) {
  const Version start = put("w/0", "v");
  const auto body = [](MetaStore& s, Version after) -> Task<void> {
    TaskGroup group;
    WatchOutcome hit, other;
    const TimePoint now = Executor::here().now();
    group.spawn(watch_into(s, "w/", after, now + std::chrono::seconds(5), hit));
    group.spawn(watch_into(s, "v/", after, now + std::chrono::seconds(5), other));
    (co_await put_later(s, "x/1", "v")).value();
    EXPECT_FALSE(hit.done);
    const Version changed = (co_await put_later(s, "w/1", "v")).value();
    for (int i = 0; i < 100 && !hit.done; ++i) co_await Executor::here().yield();
    EXPECT_TRUE(hit.done);
    EXPECT_EQ(hit.result.value(), changed);
    EXPECT_FALSE(other.done);
    co_await group.join();
    EXPECT_EQ(other.result.error().code(), Code::timed_out);
  };
  executor_.run(body(store(), start));
}

TEST_P(MetaConformance, a_watch_that_starts_late_misses_nothing) {
  const Version start = put("w/0", "v");
  const Version changed = put("w/1", "v");
  const auto soon = [this] { return executor_.now() + std::chrono::seconds(1); };
  EXPECT_GE(run(store().watch("w/", start, soon())).value(), changed);
  EXPECT_EQ(run(store().watch("w/", changed, soon())).error().code(), Code::timed_out);
  auto transaction = begin();
  transaction->remove_range({"a", "z"});
  const Version removed = commit(*transaction);
  EXPECT_GE(run(store().watch("w/", changed, soon())).value(), removed);
  EXPECT_EQ(run(store().watch("zz", changed, soon())).error().code(), Code::timed_out);
}

TEST_P(MetaConformance, a_watcher_that_loops_sees_every_value_or_a_later_one) {
  static constexpr int kChanges = 300;
  const auto body = [](MetaStore& s) -> Task<void> {
    struct Watcher {
      static Task<void> loop(MetaStore& store, int& last) {
        Version seen = 0;
        while (last < kChanges) {
          const auto result = co_await store.watch("n", seen, Executor::here().now() + std::chrono::seconds(60));
          EXPECT_TRUE(result) << "after value " << last;
          if (!result) co_return;
          seen = *result;
          const auto value = co_await store.get("n");
          if (value && *value) {
            const int number = std::stoi(**value);
            EXPECT_GE(number, last);
            last = number;
          }
        }
      }
    };
    TaskGroup group;
    std::vector<int> last(4, 0);
    for (int& slot : last) group.spawn(Watcher::loop(s, slot));
    for (int i = 1; i <= kChanges; ++i) {
      (co_await put_later(s, "n", std::to_string(i))).value();
      if (i % 7 == 0) co_await Executor::here().yield();
    }
    co_await group.join();
    for (const int value : last) EXPECT_EQ(value, kChanges);
  };
  executor_.run(body(store()));
}

TEST_P(MetaConformance, closing_cancels_watches_and_later_calls) {
  put("a", "1");
  const auto body = [](MetaStore& s) -> Task<void> {
    TaskGroup group;
    WatchOutcome outcome;
    group.spawn(watch_into(s, "w/", s.version(), kNoDeadline, outcome));
    (co_await s.close()).value();
    co_await group.join();
    EXPECT_EQ(outcome.result.error().code(), Code::cancelled);
  };
  executor_.run(body(store()));
  EXPECT_EQ(run(store().get("a")).error().code(), Code::cancelled);
  EXPECT_EQ(run(store().begin()).error().code(), Code::cancelled);
  EXPECT_EQ(run(store().scan({})).error().code(), Code::cancelled);
}

// ---- leases ------------------------------------------------------------------------------------------------------------------

TEST_P(MetaConformance, a_lease_has_one_holder_until_it_expires) {
  using std::chrono::seconds;
  const auto first = run(store().lease("primary", "a", seconds(10)));
  ASSERT_TRUE(first) << first.error().to_string();
  EXPECT_EQ(first->holder, "a");
  EXPECT_GT(first->epoch, 0u);
  EXPECT_EQ(run(store().lease("primary", "b", seconds(10))).error().code(), Code::busy);
  EXPECT_TRUE(run(store().lease("other", "b", seconds(10))));
  fixture_->advance_clock(seconds(6));
  const auto renewed = run(store().lease("primary", "a", seconds(10)));
  ASSERT_TRUE(renewed);
  EXPECT_EQ(renewed->epoch, first->epoch);
  EXPECT_EQ(renewed->expires_at, first->expires_at + 6'000'000'000);
  fixture_->advance_clock(seconds(6));
  EXPECT_EQ(run(store().lease("primary", "b", seconds(10))).error().code(), Code::busy);
  fixture_->advance_clock(seconds(5));
  const auto second = run(store().lease("primary", "b", seconds(10)));
  ASSERT_TRUE(second);
  EXPECT_GT(second->epoch, first->epoch);
  EXPECT_EQ(run(store().release_lease("primary", "a")).error().code(), Code::not_found);
  EXPECT_TRUE(run(store().release_lease("primary", "b")));
  const auto third = run(store().lease("primary", "a", seconds(10)));
  ASSERT_TRUE(third);
  EXPECT_GT(third->epoch, second->epoch);
  EXPECT_TRUE(scan({}).empty());  // leases are no rows of the users
}

TEST_P(MetaConformance, one_of_many_racing_for_a_lease_gets_it) {
  const auto body = [](MetaStore& s) -> Task<int> {
    std::vector<Task<Result<LeaseGrant>>> tries;
    for (int i = 0; i < 16; ++i) tries.push_back(s.lease("l", fmt::format("h{}", i), std::chrono::seconds(5)));
    auto all = when_all(std::move(tries));
    auto grants = co_await std::move(all);
    int won = 0;
    for (const auto& grant : grants) {
      if (grant) {
        ++won;
      } else {
        EXPECT_EQ(grant.error().code(), Code::busy);
      }
    }
    co_return won;
  };
  EXPECT_EQ(executor_.run(body(store())), 1);
}

// ---- transact ----------------------------------------------------------------------------------------------------------------

inline Task<void> increment_often(MetaStore& store, int times, int& done) {
  for (int i = 0; i < times; ++i) {
    const auto body = [](Transaction& t) -> Task<Result<void>> {
      CO_TRY_ASSIGN(const auto value, co_await t.get("n"));
      t.put("n", std::to_string(value ? std::stoi(*value) + 1 : 1));
      co_return Result<void>();
    };
    auto working = transact(store, body, 1000);
    const auto version = co_await std::move(working);
    EXPECT_TRUE(version) << version.error().to_string();
    if (version) ++done;
  }
}

TEST_P(MetaConformance, transact_repeats_on_conflict_and_loses_no_increment) {
  const auto body = [](MetaStore& s) -> Task<void> {
    TaskGroup group;
    int done = 0;
    for (int i = 0; i < 8; ++i) group.spawn(increment_often(s, 25, done));
    co_await group.join();
    EXPECT_EQ(done, 200);
  };
  fixture_->slow_commits(3);
  executor_.run(body(store()));
  EXPECT_EQ(get("n"), "200");
  EXPECT_GT(store().stats().conflicts, 0u);
  EXPECT_EQ(store().stats().commits, 200u);
}

TEST_P(MetaConformance, what_was_acknowledged_survives_a_crash) {
  for (int i = 0; i < 50; ++i) put(fmt::format("k{:03}", i), std::string(static_cast<size_t>(i) * 97, 'v'));
  ASSERT_TRUE(run(store().lease("l", "a", std::chrono::seconds(1000))));
  const Version version = store().version();
  fixture_->crash(1);
  fixture_->reopen(executor_);
  EXPECT_EQ(store().version(), version);
  const auto rows = scan({});
  ASSERT_EQ(rows.size(), 50u);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(rows[static_cast<size_t>(i)].value.size(), static_cast<size_t>(i) * 97);
  EXPECT_EQ(run(store().lease("l", "b", std::chrono::seconds(1))).error().code(), Code::busy);
  EXPECT_GT(put("next", "v"), version);
}

// ---- histories ---------------------------------------------------------------------------------------------------------------

TEST_P(MetaConformance, concurrent_histories_are_strictly_serializable) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    auto fixture = GetParam().make(executor_);
    if (seed % 3 != 0) fixture->slow_commits(seed);
    history::Shared shared{{seed, 2 + static_cast<int>(seed) * 2, 30, 3 + static_cast<int>(seed % 5)}};
    executor_.run(history::run_clients(fixture->store(), shared));
    const auto marks = executor_.run(fixture->store().scan({KeyRange::prefix("t/"), SIZE_MAX, SIZE_MAX}));
    const auto rows = executor_.run(fixture->store().scan({KeyRange::prefix("k/"), SIZE_MAX, SIZE_MAX}));
    size_t committed = 0;
    for (const auto& record : shared.records) committed += record.version.has_value();
    EXPECT_GT(committed, shared.records.size() / 8);
    history::check(shared.records, marks.value(), rows.value());
    fixture->finish(executor_);
    if (HasFatalFailure()) return;
  }
}

TEST_P(MetaConformance, histories_with_lost_answers_are_still_serializable) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    auto fixture = GetParam().make(executor_);
    fixture->flaky_commits(seed);
    history::Shared shared{{seed, 8, 30, 5}};
    executor_.run(history::run_clients(fixture->store(), shared));
    // A log that failed refuses commits until the store is opened again; what it holds then is what counts.
    fixture->crash(seed);
    fixture->reopen(executor_);
    const auto marks = executor_.run(fixture->store().scan({KeyRange::prefix("t/"), SIZE_MAX, SIZE_MAX}));
    const auto rows = executor_.run(fixture->store().scan({KeyRange::prefix("k/"), SIZE_MAX, SIZE_MAX}));
    history::check(shared.records, marks.value(), rows.value());
    fixture->finish(executor_);
    if (HasFatalFailure()) return;
  }
}

TEST_P(MetaConformance, crashes_lose_nothing_acknowledged_and_halve_nothing) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    auto fixture = GetParam().make(executor_);
    std::vector<history::Record> records;
    history::Shared shared{{seed, 12, 1000, 6}};
    for (int life = 0; life < 3; ++life) {
      fixture->slow_commits(seed * 10 + static_cast<uint64_t>(life));
      shared.workload.seed = seed * 100 + static_cast<uint64_t>(life);
      shared.stop = false;
      executor_.run(history::run_clients_and_crash(*fixture, shared, std::chrono::microseconds(500 + seed * 731)));
      fixture->reopen(executor_);
    }
    const auto marks = executor_.run(fixture->store().scan({KeyRange::prefix("t/"), SIZE_MAX, SIZE_MAX}));
    const auto rows = executor_.run(fixture->store().scan({KeyRange::prefix("k/"), SIZE_MAX, SIZE_MAX}));
    EXPECT_FALSE(marks.value().empty());
    history::check(shared.records, marks.value(), rows.value());
    fixture->finish(executor_);
    if (HasFatalFailure()) return;
  }
}

}  // namespace quarry::meta
