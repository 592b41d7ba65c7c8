#include "frontends/s3/object_headers.h"

#include <gtest/gtest.h>

#include "frontends/s3/copy_source.h"
#include "frontends/s3/session.h"

namespace quarry::frontends::s3 {
namespace {

struct RangeCase {
  std::string_view text;
  uint64_t size;
  RangeKind kind;
  uint64_t offset = 0, length = 0;
};

TEST(S3Range, follows_rfc_9110_and_ignores_what_is_malformed) {
  const RangeCase cases[] = {
      {"bytes=0-0", 100, RangeKind::part, 0, 1},
      {"bytes=0-99", 100, RangeKind::part, 0, 100},
      {"bytes=50-", 100, RangeKind::part, 50, 50},
      {"bytes=0-999999", 100, RangeKind::part, 0, 100},
      {"bytes=-1", 100, RangeKind::part, 99, 1},
      {"bytes=-101", 100, RangeKind::part, 0, 100},
      {"bytes=00-01", 100, RangeKind::part, 0, 2},
      {"bytes=-0", 100, RangeKind::unsatisfiable},
      {"bytes=100-100", 100, RangeKind::unsatisfiable},
      {"bytes=0-0", 0, RangeKind::unsatisfiable},
      {"bytes=-1", 0, RangeKind::whole},
      {"bytes=", 100, RangeKind::whole},
      {"bytes=-", 100, RangeKind::whole},
      {"bytes= -1", 100, RangeKind::whole},
      {"bytes=0--1", 100, RangeKind::whole},
      {"bytes=10-5", 100, RangeKind::whole},
      {"bytes=0-0,1-2", 100, RangeKind::whole},
      {"items=0-1", 100, RangeKind::whole},
      {"bytes=99999999999999999999-", 100, RangeKind::whole},
  };
  for (const auto& wanted : cases) {
    const ParsedRange parsed = parse_range(wanted.text, wanted.size);
    EXPECT_EQ(parsed.kind, wanted.kind) << wanted.text;
    EXPECT_EQ(parsed.range.offset, wanted.offset) << wanted.text;
    EXPECT_EQ(parsed.range.length, wanted.length) << wanted.text;
  }
}

TEST(S3Range, copy_ranges_must_lie_inside) {
  EXPECT_EQ(parse_copy_range("bytes=0-9", 10)->length, 10u);
  for (const std::string_view bad : {"bytes=0-10", "bytes=5-4", "bytes=-5", "bytes=5-", "0-5", "bytes=a-b"})
    EXPECT_FALSE(parse_copy_range(bad, 10)) << bad;
}

TEST(S3Tags, header_form_decodes_and_refuses) {
  const auto tags = parse_tagging_header("a=b&c%20d=%2F&e&&");
  ASSERT_TRUE(tags);
  EXPECT_EQ(*tags, (object::Tags{{"a", "b"}, {"c d", "/"}, {"e", ""}}));
  EXPECT_EQ(parse_tagging_header("a=1&a=2").error().id(), E::invalid_argument);
  EXPECT_EQ(parse_tagging_header("a%").error().id(), E::invalid_argument);
  EXPECT_EQ(parse_tagging_header("a!=1").error().id(), E::invalid_tag);
  EXPECT_EQ(parse_tagging_header("1&2&3&4&5&6&7&8&9&10&11").error().id(), E::bad_request);
}

TEST(S3Tags, document_form_is_checked) {
  const auto parse = [](std::string_view set) {
    return parse_tagging_document(fmt::format("<Tagging><TagSet>{}</TagSet></Tagging>", set), kObjectTagsMax);
  };
  EXPECT_EQ(parse("<Tag><Key>a</Key><Value>b</Value></Tag>")->size(), 1u);
  EXPECT_EQ(parse("<Tag><Value>b</Value></Tag>").error().id(), E::malformed_xml);
  EXPECT_EQ(parse("<Tag><Key>a</Key><Value>b</Value></Tag><Tag><Key>a</Key><Value>c</Value></Tag>").error().id(), E::invalid_tag);
  EXPECT_EQ(parse_tagging_document("<Tagging/>", 10).error().id(), E::malformed_xml);
  EXPECT_EQ(parse_tagging_document("no xml", 10).error().id(), E::malformed_xml);
}

TEST(S3Time, iso_times_round_trip) {
  EXPECT_EQ(iso_time(1'700'000'000'123'000'000), "2023-11-14T22:13:20.123Z");
  EXPECT_EQ(parse_iso_time("2023-11-14T22:13:20.123Z"), 1'700'000'000'123'000'000);
  EXPECT_EQ(parse_iso_time("2023-11-14T22:13:20Z"), 1'700'000'000'000'000'000);
  EXPECT_FALSE(parse_iso_time("2023-11-14"));
}

TEST(S3Names, bucket_names_follow_aws) {
  for (const std::string_view good : {"abc", "my.bucket-1", "a1b", "123"}) EXPECT_TRUE(is_valid_bucket_name(good)) << good;
  for (const std::string_view bad : {"", "ab", "Abc", "-abc", "abc-", "a..b", "192.168.1.1", "xn--abc", "abc-s3alias", "a_b", "a/b"}) {
    EXPECT_FALSE(is_valid_bucket_name(bad)) << bad;
  }
  EXPECT_FALSE(is_valid_bucket_name(std::string(64, 'a')));
}

TEST(S3Names, keys_that_climb_out_are_found) {
  for (const std::string_view bad : {".", "..", "../x", "a/../../b", "./", "/.", "/.."}) EXPECT_TRUE(escapes_bucket(bad)) << bad;
  for (const std::string_view good : {"a/../b", "...", "a..b", ".../...", "//", "a/./b", "..a"}) EXPECT_FALSE(escapes_bucket(good)) << good;
}

TEST(S3CopySource, forms) {
  const auto source = parse_copy_source("/bucket/a%2Fb%20c?versionId=v1");
  ASSERT_TRUE(source);
  EXPECT_EQ(source->bucket, "bucket");
  EXPECT_EQ(source->key, "a/b c");
  EXPECT_EQ(source->version_id, "v1");
  for (const std::string_view bad : {"", "bucket", "bucket/", "b/%ZZ", "UPPER/key", "bucket/../x"})
    EXPECT_FALSE(parse_copy_source(bad)) << bad;
}

TEST(S3Times, beyond_64_bits_are_the_last_or_first) {
  EXPECT_GT(*parse_iso_time("9999-12-31T23:59:59.999Z"), *parse_iso_time("2262-01-01T00:00:00Z"));
  EXPECT_LT(*parse_iso_time("0001-01-01T00:00:00Z"), *parse_iso_time("1700-01-01T00:00:00Z"));
  EXPECT_EQ(*parse_iso_time("1970-01-01T00:00:01.5Z"), 1'500'000'000);
}

TEST(S3Attribution, an_application_of_the_user_agent_is_a_job) {
  EXPECT_EQ(application_of("Boto3/1.44 md/Botocore#1.44 os/linux app/train-7 cfg/x"), "train-7");
  EXPECT_EQ(application_of("curl/8 myapp/1"), "");
  EXPECT_EQ(application_of("app/"), "");
  EXPECT_EQ(application_of("app/" + std::string(100, 'j')).size(), kAttributionValueMax);
}

TEST(S3Attribution, takes_what_it_knows) {
  const Attribution parsed = parse_attribution("tenant=a; team = b;job=" + std::string(100, 'j') + ";x=y;;rank=3");
  EXPECT_EQ(parsed.tenant, "a");
  EXPECT_EQ(parsed.team, "b");
  EXPECT_EQ(parsed.job.size(), kAttributionValueMax);
  EXPECT_EQ(parsed.rank, "3");
}

}  // namespace
}  // namespace quarry::frontends::s3
