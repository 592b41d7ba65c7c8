// The front end when the store below fails or is slow: a clean error or a cut connection, never a wrong or half answer.
#include "frontends/s3/testing/fake_exchange.h"

namespace quarry::frontends::s3 {
namespace {

std::string pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 24);
  return bytes;
}

TEST(S3Faults, a_read_that_fails_is_an_error_or_a_cut_never_a_short_answer) {
  S3Harness s3;
  ASSERT_EQ(s3.put("/bucket", "").status, 200);
  const std::string body = pattern(5'000'000);
  ASSERT_EQ(s3.put("/bucket/k", body).status, 200);
  size_t whole = 0, cut = 0, refused = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    s3.store.data.set_faults({.seed = seed, .read_error = 0.2});
    const Answer answer = s3.get("/bucket/k");
    if (answer.aborted) {
      ++cut;
      EXPECT_LT(answer.body.size(), body.size());
      EXPECT_EQ(answer.body, body.substr(0, answer.body.size()));
    } else if (answer.status == 200) {
      ++whole;
      EXPECT_EQ(answer.body, body);
    } else {
      ++refused;
      EXPECT_EQ(answer.code(), "InternalError");
    }
  }
  EXPECT_GT(whole, 0u);
  EXPECT_GT(cut, 0u);
  EXPECT_GT(refused, 0u);
}

TEST(S3Faults, a_write_that_fails_leaves_what_was_there_before) {
  S3Harness s3;
  ASSERT_EQ(s3.put("/bucket", "").status, 200);
  std::string present = pattern(300'000);
  ASSERT_EQ(s3.put("/bucket/k", present).status, 200);
  size_t failed = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    s3.store.data.set_faults({.seed = seed, .begin_error = 0.1, .append_error = 0.1, .finish_error = 0.1});
    const std::string next = pattern(2'200'000 + seed);
    const Answer answer = s3.put("/bucket/k", next);
    if (answer.status == 200) {
      present = next;
    } else {
      ++failed;
      EXPECT_GE(answer.status, 500);
    }
    s3.store.data.set_faults({});
    EXPECT_EQ(s3.get("/bucket/k").body, present) << "seed " << seed;
  }
  EXPECT_GT(failed, 0u);
  EXPECT_EQ(s3.store.violations(), std::vector<std::string>());
}

TEST(S3Faults, a_slow_copy_shows_signs_of_life) {
  S3Harness s3;
  ASSERT_EQ(s3.put("/bucket", "").status, 200);
  const std::string body = pattern(1'500'000);
  ASSERT_EQ(s3.put("/bucket/src", body).status, 200);
  s3.store.data.set_faults({.seed = 3, .delay_max = std::chrono::seconds(60)});
  const Answer answer = s3.put("/bucket/dst", "", {{"x-amz-copy-source", "bucket/src"}});
  s3.store.data.set_faults({});
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.body.starts_with("<?xml"));
  EXPECT_NE(answer.body.find(" \n<CopyObjectResult"), std::string::npos) << answer.body;
  EXPECT_FALSE(answer.element("ETag").empty()) << answer.body;
  EXPECT_EQ(s3.get("/bucket/dst").body, body);
}

TEST(S3Faults, a_slow_copy_that_fails_says_so_in_its_body) {
  S3Harness s3;
  ASSERT_EQ(s3.put("/bucket", "").status, 200);
  ASSERT_EQ(s3.put("/bucket/src", pattern(1'500'000)).status, 200);
  s3.store.data.set_faults({.seed = 3, .finish_error = 1, .delay_max = std::chrono::seconds(60)});
  const Answer answer = s3.put("/bucket/dst", "", {{"x-amz-copy-source", "bucket/src"}});
  s3.store.data.set_faults({});
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.code(), "ServiceUnavailable") << answer.body;
  EXPECT_EQ(s3.get("/bucket/dst").code(), "NoSuchKey");
  EXPECT_EQ(s3.store.violations(), std::vector<std::string>());
}

TEST(S3Faults, quotas_are_refused_with_a_code_of_their_own) {
  S3Harness s3;
  ASSERT_EQ(s3.put("/bucket", "").status, 200);
  ASSERT_TRUE(s3.store.executor.run(s3.store.engine->update_bucket(s3.store.ctx, "bucket", [](object::BucketInfo& info) -> Result<void> {
    info.quota.bytes = 1000;
    return {};
  })));
  EXPECT_EQ(s3.put("/bucket/k", pattern(900)).status, 200);
  EXPECT_EQ(s3.put("/bucket/other", pattern(900)).code(), "QuotaExceeded");
  EXPECT_EQ(s3.store.violations(), std::vector<std::string>());
}

}  // namespace
}  // namespace quarry::frontends::s3
