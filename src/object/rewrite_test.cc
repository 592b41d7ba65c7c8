// Rewriting: another redundancy for what is there, and nothing else of it changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "object/testing/harness.h"

namespace quarry::object {
namespace {

using meta::CommitFault;
using testing::IsEmpty;
using What = Rewritten::What;

struct Fixture : Harness {
  explicit Fixture(Versioning versioning = Versioning::off) : Harness({}, 1) {
    EXPECT_TRUE(make_bucket("b", versioning));
    ask_for("ec:2+1");
  }
  void ask_for(std::string redundancy) {
    EXPECT_TRUE(executor.run(engine->update_bucket(ctx, "b", [redundancy](BucketInfo& info) {
      info.policy.redundancy = redundancy;
      info.policy.inline_limit = 100;
      info.policy.pack_limit = 0;
      return Result<void>();
    })));
  }
  Result<Rewritten> rewrite(std::string key, std::string version = "") {
    return executor.run(engine->rewrite(ctx, "b", std::move(key), std::move(version)));
  }
  What outcome(std::string key, std::string version = "") {
    auto done = rewrite(std::move(key), std::move(version));
    EXPECT_TRUE(done) << done.error().to_string();
    return done ? done->what : What::left;
  }
};

TEST(Rewrite, changes_the_redundancy_and_nothing_else) {
  Fixture f(Versioning::enabled);
  const std::string old_bytes = pattern(5000, 1), new_bytes = pattern(300'000, 2);
  auto old_version = f.put("b", "k", old_bytes, {.tags = {{"a", "b"}}});
  auto new_version = f.put("b", "k", new_bytes);
  ASSERT_TRUE(old_version && new_version);
  ASSERT_TRUE(f.put("b", "small", "inline"));
  const BucketUsage usage = f.usage("b");
  EXPECT_EQ(f.outcome("k"), What::right);
  f.ask_for("mirror:2");
  EXPECT_EQ(f.outcome("k", old_version->version_id), What::copied);
  EXPECT_EQ(f.outcome("k"), What::copied);
  EXPECT_EQ(f.outcome("k"), What::right);
  EXPECT_EQ(f.outcome("small"), What::right) << "it is in the metadata";
  EXPECT_EQ(f.outcome("nothing"), What::superseded);
  EXPECT_EQ(*f.get("b", "k"), new_bytes);
  EXPECT_EQ(*f.get("b", "k", old_version->version_id), old_bytes);
  const auto head = f.head("b", "k", old_version->version_id);
  ASSERT_TRUE(head);
  EXPECT_EQ(head->etag, old_version->etag);
  EXPECT_EQ(head->modified, old_version->modified);
  EXPECT_EQ(head->tags.size(), 1u);
  EXPECT_EQ(f.usage("b").bytes, usage.bytes);
  EXPECT_EQ(f.usage("b").objects, usage.objects);
  EXPECT_EQ(f.list_versions("b")->versions.size(), 3u);
  EXPECT_THAT(f.violations(), IsEmpty());
}

TEST(Rewrite, each_part_of_an_upload_is_rewritten) {
  Fixture f;
  auto upload = f.create_upload("b", "m");
  CompleteOptions options;
  std::string all;
  for (uint32_t number = 1; number <= 3; ++number) {
    const std::string bytes = pattern(50'000 * number, number);
    auto part = f.put_part("b", "m", upload->upload_id, number, bytes);
    ASSERT_TRUE(part);
    options.parts.push_back({.number = number, .etag = part->etag});
    all += bytes;
  }
  auto done = f.complete("b", "m", upload->upload_id, options);
  ASSERT_TRUE(done);
  f.ask_for("mirror:2");
  EXPECT_EQ(f.outcome("m"), What::copied);
  EXPECT_EQ(f.outcome("m"), What::right);
  EXPECT_EQ(*f.get("b", "m"), all);
  EXPECT_EQ(*f.range("b", "m", 49'990, 60'000), all.substr(49'990, 60'000));
  EXPECT_EQ(f.head("b", "m")->etag, done->etag);
  EXPECT_EQ(f.head("b", "m")->parts.size(), 3u);
  EXPECT_THAT(f.violations(), IsEmpty());
  ASSERT_TRUE(f.remove("b", "m"));
  EXPECT_THAT(f.violations(), IsEmpty());
}

TEST(Rewrite, whoever_writes_or_deletes_meanwhile_wins) {
  for (const bool deletes : {false, true}) {
    Fixture f;
    ASSERT_TRUE(f.put("b", "k", pattern(400'000, 1)));
    f.ask_for("mirror:2");
    const std::string newer = pattern(1000, 2);
    const auto rewriting = [](Fixture* fixture) -> Task<Result<void>> {
      auto done = co_await fixture->engine->rewrite(fixture->ctx, "b", "k", "");
      if (!done) co_return std::move(done).error();
      co_return Result<void>();
    };
    const auto meanwhile = [](Fixture* fixture, bool remove, std::string bytes) -> Task<Result<void>> {
      if (remove) {
        auto removed = co_await fixture->engine->remove(fixture->ctx, "b", {.key = "k", .version_id = {}, .conditions = {}});
        if (!removed) co_return std::move(removed).error();
        co_return Result<void>();
      }
      auto put = co_await fixture->put_task("b", "k", std::move(bytes));
      if (!put) co_return std::move(put).error();
      co_return Result<void>();
    };
    std::vector<Task<Result<void>>> tasks;
    tasks.push_back(rewriting(&f));
    tasks.push_back(meanwhile(&f, deletes, newer));
    auto results = f.executor.run(when_all(std::move(tasks)));
    for (auto& result : results) EXPECT_TRUE(result) << result.error().to_string();
    if (deletes) {
      EXPECT_EQ(code_of(f.get("b", "k")), Code::not_found);
    } else {
      EXPECT_EQ(*f.get("b", "k"), newer);
    }
    EXPECT_THAT(f.violations(), IsEmpty());
  }
}

class RewriteOutcome : public testing::TestWithParam<CommitFault> {};

TEST_P(RewriteOutcome, of_an_unknown_commit_is_found_out) {
  Fixture f;
  const std::string bytes = pattern(200'000, 1);
  ASSERT_TRUE(f.put("b", "k", bytes));
  f.ask_for("mirror:2");
  f.meta->plan(GetParam());
  EXPECT_EQ(f.outcome("k"), What::copied);
  EXPECT_EQ(f.outcome("k"), What::right);
  EXPECT_EQ(*f.get("b", "k"), bytes);
  EXPECT_THAT(f.violations(), IsEmpty());
}
INSTANTIATE_TEST_SUITE_P(Faults, RewriteOutcome,
                         testing::Values(CommitFault::unknown_applied, CommitFault::unknown_not_applied, CommitFault::conflict));

}  // namespace
}  // namespace quarry::object
