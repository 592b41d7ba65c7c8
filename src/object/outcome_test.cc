// What callers hear when commits conflict, fail, or have an unknown outcome; planned one by one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "object/testing/harness.h"

namespace quarry::object {
namespace {

using meta::CommitFault;
using testing::IsEmpty;

size_t version_count(Harness& h) { return h.list_versions("b")->versions.size(); }

class Outcome : public testing::TestWithParam<CommitFault> {};

// Whether the commit behind the lost answer happened or not, each change is done once and answered definitely.
TEST_P(Outcome, of_an_unknown_commit_is_found_out) {
  for (const Versioning versioning : {Versioning::off, Versioning::enabled, Versioning::suspended}) {
    Harness h({}, 1);
    ASSERT_TRUE(h.make_bucket("b", versioning));
    const auto doubt = [&] { h.meta->plan(GetParam()); };
    const size_t versions_kept = versioning == Versioning::enabled ? 1 : 0;

    doubt();
    ASSERT_TRUE(h.put("b", "k", "one"));
    EXPECT_EQ(version_count(h), 1u);
    doubt();
    auto two = h.put("b", "k", std::string(5000, '2'), {.conditions = {.if_match = {"*"}}});
    ASSERT_TRUE(two);
    EXPECT_EQ(version_count(h), 1 + versions_kept);
    EXPECT_EQ(*h.get("b", "k"), std::string(5000, '2'));
    doubt();
    ASSERT_TRUE(h.put("b", "new", "x", {.conditions = {.if_none_match = {"*"}}}));  // the retry must not meet its own work
    doubt();
    ASSERT_TRUE(h.executor.run(h.engine->set_tags(h.ctx, "b", "k", "", {{"a", "b"}})));
    EXPECT_EQ(h.head("b", "k")->tags.size(), 1u);

    doubt();
    auto upload = h.create_upload("b", "m");
    ASSERT_TRUE(upload);
    doubt();
    auto part = h.put_part("b", "m", upload->upload_id, 1, "first");
    ASSERT_TRUE(part);
    doubt();
    part = h.put_part("b", "m", upload->upload_id, 1, "again");
    ASSERT_TRUE(part);
    doubt();
    auto done =
        h.complete("b", "m", upload->upload_id, {.parts = {{.number = 1, .etag = part->etag}}, .conditions = {.if_none_match = {"*"}}});
    ASSERT_TRUE(done) << done.error().to_string();
    EXPECT_EQ(*h.get("b", "m"), "again");
    auto second = h.create_upload("b", "m");
    ASSERT_TRUE(h.put_part("b", "m", second->upload_id, 1, "x"));
    doubt();
    ASSERT_TRUE(h.abort("b", "m", second->upload_id));

    doubt();
    ASSERT_TRUE(h.remove("b", "k"));
    EXPECT_EQ(code_of(h.get("b", "k")), Code::not_found);
    if (versioning == Versioning::enabled) {
      EXPECT_EQ(version_count(h), 5u);  // k: marker, two, one; m; new
      doubt();
      auto removed = h.remove("b", "k", two->version_id);
      ASSERT_TRUE(removed);
      EXPECT_EQ(version_count(h), 4u);
    }
    doubt();
    auto results = h.executor.run(h.engine->remove_many(h.ctx, "b", {{.key = "m"}, {.key = "new"}, {.key = "nothing"}}));
    for (const auto& result : results) EXPECT_TRUE(result);
    doubt();
    ASSERT_TRUE(h.set_versioning("b", Versioning::suspended));
    EXPECT_THAT(h.violations(), IsEmpty());

    doubt();
    ASSERT_TRUE(h.make_bucket("second"));
    doubt();
    ASSERT_TRUE(h.executor.run(h.engine->delete_bucket(h.ctx, "second")));
    EXPECT_EQ(code_of(h.executor.run(h.engine->get_bucket(h.ctx, "second"))), Code::not_found);
    EXPECT_THAT(h.violations(), IsEmpty());
  }
}
INSTANTIATE_TEST_SUITE_P(Faults, Outcome,
                         testing::Values(CommitFault::unknown_applied, CommitFault::unknown_not_applied, CommitFault::conflict));

TEST(Outcomes, unavailable_says_that_nothing_happened_and_leaves_nothing) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  h.meta->plan(CommitFault::unavailable);
  EXPECT_EQ(code_of(h.put("b", "k", std::string(100'000, 'x'))), Code::unavailable);
  EXPECT_EQ(code_of(h.get("b", "k")), Code::not_found);
  EXPECT_EQ(h.data.writes_held(), 0u);
}

TEST(Outcomes, nobody_can_tell_when_another_write_came_between) {
  for (const CommitFault fault : {CommitFault::unknown_applied, CommitFault::unknown_not_applied}) {
    Harness h;
    ASSERT_TRUE(h.make_bucket("b"));
    ASSERT_TRUE(h.put("b", "k", "before"));
    h.meta->plan(fault);
    // The pause before the retry leaves time for the other writer.
    auto both = h.executor.run([](Harness& harness) -> Task<std::vector<Result<ObjectInfo>>> {
      std::vector<Task<Result<ObjectInfo>>> tasks;
      tasks.push_back(harness.put_task("b", "k", std::string(20'000, 'm')));
      tasks.push_back([](Harness& inner) -> Task<Result<ObjectInfo>> {
        co_await sleep_for(std::chrono::microseconds(10));
        auto info = co_await inner.put_task("b", "k", "other");
        co_return info;
      }(harness));
      auto results = co_await when_all(std::move(tasks));
      co_return results;
    }(h));
    EXPECT_EQ(code_of(both[0]), Code::unknown_outcome);
    EXPECT_TRUE(both[1]);
    EXPECT_EQ(*h.get("b", "k"), "other");
    EXPECT_THAT(h.violations(), IsEmpty());
  }
}

// The commit whose answer was lost did happen, and what it made was deleted before the put came to look: the key is as it was before, and
// the data is being removed. It must not be published a second time.
TEST(Outcomes, a_put_that_was_deleted_before_its_outcome_was_known_is_not_made_again_of_removed_data) {
  for (const Versioning versioning : {Versioning::off, Versioning::enabled}) {
    Harness h;
    h.data.notes_retired = true;
    ASSERT_TRUE(h.make_bucket("b", versioning));
    h.meta->plan(CommitFault::unknown_applied);
    const std::string bytes(20'000, 'm');
    // The pause before the retry leaves time for the other client, and for the sweep.
    auto put = h.executor.run([](Harness& harness, std::string content) -> Task<Result<ObjectInfo>> {
      TaskGroup group;
      std::optional<Result<ObjectInfo>> done;
      group.spawn([](Harness& inner, std::string text, std::optional<Result<ObjectInfo>>* result) -> Task<void> {
        *result = co_await inner.put_task("b", "k", std::move(text));
      }(harness, std::move(content), &done));
      co_await sleep_for(std::chrono::microseconds(10));
      auto seen = co_await harness.engine->head(harness.ctx, "b", "k", "");
      EXPECT_TRUE(seen && !done) << "they did not meet";
      if (seen) {
        auto removed = co_await harness.engine->remove(harness.ctx, "b", {.key = "k", .version_id = seen->version_id});
        EXPECT_TRUE(removed && !done) << "they did not meet";
      }
      auto swept = co_await harness.data.collect();
      EXPECT_TRUE(swept);
      co_await group.join();
      swept = co_await harness.data.collect();
      EXPECT_TRUE(swept);
      co_return std::move(*done);
    }(h, bytes));
    auto got = h.get("b", "k");
    EXPECT_TRUE(got ? *got == bytes : code_of(got) == Code::not_found) << "a published object has no data";
    if (put) EXPECT_TRUE(got);
    EXPECT_THAT(h.violations(), IsEmpty());
  }
}

TEST(Outcomes, with_versions_the_trace_stays_and_the_answer_is_definite) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b", Versioning::enabled));
  h.meta->plan(CommitFault::unknown_applied);
  auto both = h.executor.run([](Harness& harness) -> Task<std::vector<Result<ObjectInfo>>> {
    std::vector<Task<Result<ObjectInfo>>> tasks;
    tasks.push_back(harness.put_task("b", "k", "mine"));
    tasks.push_back([](Harness& inner) -> Task<Result<ObjectInfo>> {
      co_await sleep_for(std::chrono::microseconds(10));
      auto info = co_await inner.put_task("b", "k", "other");
      co_return info;
    }(harness));
    auto results = co_await when_all(std::move(tasks));
    co_return results;
  }(h));
  ASSERT_TRUE(both[0] && both[1]);
  EXPECT_EQ(*h.get("b", "k", both[0]->version_id), "mine");
  EXPECT_EQ(*h.get("b", "k"), "other");
  EXPECT_EQ(version_count(h), 2u);
}

TEST(Quota, is_never_exceeded_by_concurrent_puts) {
  Harness h({.commit_delay_max = std::chrono::microseconds(200)});
  ASSERT_TRUE(h.make_bucket("b"));
  ASSERT_TRUE(h.executor.run(h.engine->update_bucket(h.ctx, "b", [](BucketInfo& info) {
    info.quota = {.bytes = 10'500, .objects = 8};
    return Result<void>();
  })));
  const auto race = [&](size_t count, size_t size) {
    std::vector<Task<Result<ObjectInfo>>> tasks;
    for (size_t i = 0; i < count; ++i) tasks.push_back(h.put_task("b", fmt::format("{}/{}", size, i), std::string(size, 'x')));
    auto results = h.executor.run(when_all(std::move(tasks)));
    size_t stored = 0;
    for (const auto& result : results) {
      if (result) ++stored;
      if (!result) EXPECT_EQ(result.error().code(), Code::quota_exceeded);
    }
    return stored;
  };
  EXPECT_EQ(race(30, 2000), 5u);
  EXPECT_EQ(h.usage("b").bytes, 10'000u);
  EXPECT_EQ(race(30, 1), 3u);  // the quota of objects
  for (const auto& name : names_of(h.list("b", {.prefix = "2000/"})->objects)) {
    ASSERT_TRUE(h.put("b", name, std::string(2050, 'y')));  // what a put replaces makes room for it
  }
  EXPECT_LE(h.usage("b").bytes, 10'500u);
  EXPECT_LE(h.usage("b").objects, 8u);
  EXPECT_THAT(h.violations(), IsEmpty());
  auto upload = h.create_upload("b", "u");
  ASSERT_TRUE(upload);
  EXPECT_EQ(code_of(h.put_part("b", "u", upload->upload_id, 1, std::string(600, 'x'))), Code::quota_exceeded);
  EXPECT_TRUE(h.put_part("b", "u", upload->upload_id, 1, std::string(200, 'x')));
}

// One key, many writers and readers, with faults. Every write is unique, so the history tells:
//   - a read returns whole contents, of a write that had begun when the read ended;
//   - no read returns what was overwritten by a write that began after it and ended before the read began;
//   - of conditional creations after one deletion, at most one succeeds.
struct Span {
  int64_t begin, end;
  bool known;  // false: its outcome is unknown
};

Task<void> write_some(Harness& h, int writer, std::map<std::string, Span>& writes, int count) {
  for (int i = 0; i < count; ++i) {
    const std::string bytes = fmt::format("{}.{}", writer, i) + std::string(i % 3 == 0 ? 6000 : 5, 'x');
    const int64_t begin = h.executor.now().time_since_epoch().count();
    auto done = co_await h.put_task("b", "k", bytes);
    const int64_t end = h.executor.now().time_since_epoch().count();
    if (done || done.error().code() == Code::unknown_outcome) {
      writes[bytes] = {begin, end, done.has_value()};
    } else {
      EXPECT_TRUE(done.error().code() == Code::unavailable || done.error().code() == Code::conflict) << done.error().to_string();
    }
  }
}
struct Read {
  std::string bytes;
  int64_t begin, end;
};
Task<void> read_some(Harness& h, std::vector<Read>& reads, int count) {
  for (int i = 0; i < count; ++i) {
    co_await sleep_for(std::chrono::microseconds(50));
    const int64_t begin = h.executor.now().time_since_epoch().count();
    auto got = co_await h.get_task("b", "k");
    const int64_t end = h.executor.now().time_since_epoch().count();
    EXPECT_TRUE(got) << got.error().to_string();
    if (got) reads.push_back({std::move(*got), begin, end});
  }
}
Task<void> collect_some(Harness& h, int count) {
  for (int i = 0; i < count; ++i) {
    co_await sleep_for(std::chrono::microseconds(20));
    auto collected = co_await h.data.collect();
    EXPECT_TRUE(collected);
  }
}

TEST(Concurrency, reads_of_one_key_see_whole_writes_in_order) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    for (const Versioning versioning : {Versioning::off, Versioning::enabled}) {
      Harness h;
      ASSERT_TRUE(h.make_bucket("b", versioning));
      std::map<std::string, Span> writes;
      ASSERT_TRUE(h.put("b", "k", "start"));
      writes["start"] = {0, 0, true};
      h.meta->set_faults({.seed = seed,
                          .conflict_probability = 0.1,
                          .unknown_outcome_probability = 0.1,
                          .read_delay_max = std::chrono::microseconds(30),
                          .commit_delay_max = std::chrono::microseconds(100)});
      h.data.set_faults({.seed = seed, .delay_max = std::chrono::microseconds(40)});
      std::vector<Read> reads;
      h.executor.run([](Harness& harness, std::map<std::string, Span>& all_writes, std::vector<Read>& all_reads) -> Task<void> {
        TaskGroup group;
        for (int writer = 0; writer < 6; ++writer) group.spawn(write_some(harness, writer, all_writes, 15));
        for (int reader = 0; reader < 4; ++reader) group.spawn(read_some(harness, all_reads, 40));
        group.spawn(collect_some(harness, 200));
        co_await group.join();
      }(h, writes, reads));
      h.meta->set_faults({});
      h.data.set_faults({});
      for (const Read& read : reads) {
        const auto write = writes.find(read.bytes);
        ASSERT_NE(write, writes.end()) << "read something never written: " << read.bytes.substr(0, 20);
        ASSERT_LE(write->second.begin, read.end);
        for (const auto& [bytes, other] : writes) {
          if (other.known && write->second.known) ASSERT_FALSE(other.begin > write->second.end && other.end < read.begin) << "a stale read";
        }
      }
      EXPECT_THAT(h.violations(), IsEmpty());
      EXPECT_EQ(h.data.writers_open(), 0u);
    }
  }
}

TEST(Concurrency, of_conditional_creations_exactly_one_wins) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Harness h({.seed = seed,
               .conflict_probability = 0.1,
               .read_delay_max = std::chrono::microseconds(30),
               .commit_delay_max = std::chrono::microseconds(100)});
    ASSERT_TRUE(h.make_bucket("b"));
    for (int round = 0; round < 3; ++round) {
      std::vector<Task<Result<ObjectInfo>>> tasks;
      for (int i = 0; i < 20; ++i) tasks.push_back(h.put_task("b", "k", std::to_string(i), {.conditions = {.if_none_match = {"*"}}}));
      auto results = h.executor.run(when_all(std::move(tasks)));
      size_t won = 0;
      for (size_t i = 0; i < results.size(); ++i) {
        if (results[i]) {
          ++won;
          EXPECT_EQ(*h.get("b", "k"), std::to_string(i));
        } else {
          EXPECT_EQ(results[i].error().code(), Code::precondition_failed);
        }
      }
      EXPECT_EQ(won, 1u);
      ASSERT_TRUE(h.remove("b", "k"));
    }
  }
}

TEST(Concurrency, increments_guarded_by_etag_are_not_lost) {
  Harness h({.seed = 5,
             .conflict_probability = 0.1,
             .read_delay_max = std::chrono::microseconds(30),
             .commit_delay_max = std::chrono::microseconds(100)});
  ASSERT_TRUE(h.make_bucket("b"));
  ASSERT_TRUE(h.put("b", "k", "0"));
  std::vector<Task<int>> tasks;
  for (int i = 0; i < 8; ++i) {
    tasks.push_back([](Harness& harness) -> Task<int> {
      int done = 0;
      while (done < 5) {
        auto head = co_await harness.engine->head(harness.ctx, "b", "k", "");
        auto value = co_await harness.get_task("b", "k");
        if (!head || !value) continue;
        auto put = co_await harness.put_task("b", "k", std::to_string(std::stoi(*value) + 1), {.conditions = {.if_match = {head->etag}}});
        if (put) ++done;
      }
      co_return done;
    }(h));
  }
  h.executor.run(when_all(std::move(tasks)));
  EXPECT_EQ(*h.get("b", "k"), "40");
}

TEST(Concurrency, a_bucket_is_deleted_or_written_never_both) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Harness h({.seed = seed, .read_delay_max = std::chrono::microseconds(100), .commit_delay_max = std::chrono::microseconds(100)});
    ASSERT_TRUE(h.make_bucket("b"));
    std::vector<Task<bool>> tasks;
    for (int i = 0; i < 4; ++i) {
      tasks.push_back([](Harness& harness, int number) -> Task<bool> {
        auto put = co_await harness.put_task("b", std::to_string(number), "x");
        co_return put.has_value();
      }(h, i));
    }
    tasks.push_back([](Harness& harness) -> Task<bool> {
      auto deleted = co_await harness.engine->delete_bucket(harness.ctx, "b");
      co_return deleted.has_value();
    }(h));
    auto results = h.executor.run(when_all(std::move(tasks)));
    const bool deleted = results.back();
    EXPECT_EQ(h.executor.run(h.engine->get_bucket(h.ctx, "b")).has_value(), !deleted);
    if (deleted) {
      for (size_t i = 0; i + 1 < results.size(); ++i) EXPECT_FALSE(results[i]);
    }
    EXPECT_THAT(h.violations(), IsEmpty());
  }
}

}  // namespace
}  // namespace quarry::object
