// Row keys and records: what is written is read, and order and damage are as promised.
#include <gtest/gtest.h>

#include "object/engine/names.h"
#include "object/engine/records.h"
#include "object/testing/harness.h"

namespace quarry::object {
namespace {

cluster::DataLayout some_layout(uint64_t size) {
  return {.write_id = 77, .group = 3, .redundancy = {cluster::RedundancyKind::erasure, 4, 2}, .size = size, .shard_size = 1 << 20};
}

VersionRecord some_version() {
  VersionRecord record;
  record.sequence = 0x1122334455667788;
  record.unique = 0x99aabbccddeeff00;
  record.payload = PayloadKind::data;
  record.size = 5'000'000;
  record.modified = 1'700'000'000'000'000'000;
  record.md5 = std::string(16, '\xab');
  record.checksum = {.algorithm = ChecksumAlgorithm::crc64nvme, .type = ChecksumType::full_object, .value = "12345678"};
  record.owner = "alice";
  record.storage_class = "STANDARD_IA";
  record.metadata.content_type = "image/png";
  record.metadata.user = {{"color", "blue"}, {"empty", ""}};
  record.tags = {{"a", "b"}};
  record.layout = some_layout(5'000'000);
  return record;
}

std::vector<PartRecord> some_parts(uint32_t count) {
  std::vector<PartRecord> parts;
  for (uint32_t number = 1; number <= count; ++number) {
    parts.push_back({.number = number,
                     .unique = number,
                     .size = 100,
                     .modified = number,
                     .md5 = std::string(16, 'm'),
                     .checksum = {.algorithm = ChecksumAlgorithm::sha256, .value = std::string(32, 's')},
                     .layout = some_layout(100)});
  }
  return parts;
}

BucketRecord some_bucket() {
  BucketRecord record;
  record.unique = 5;
  record.info.id = 9;
  record.info.name = "pictures";
  record.info.owner = "alice";
  record.info.versioning = Versioning::suspended;
  record.info.policy = {.redundancy = "ec:4+2", .inline_limit = 1, .pack_limit = 2};
  record.info.quota = {.bytes = 3, .objects = 4};
  record.info.tags = {{"a", "b"}};
  record.info.attributes = {{"s3.location", "eu"}};
  return record;
}

TEST(Records, come_back_as_written) {
  const VersionRecord version = some_version();
  const auto read = decode_version(encode(version));
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(encode(*read), encode(version));
  EXPECT_EQ(read->metadata.user, version.metadata.user);
  EXPECT_EQ(read->layout, version.layout);
  const auto head = decode_version_head(encode(version));
  ASSERT_TRUE(head);
  EXPECT_EQ(head->size, version.size);
  EXPECT_EQ(head->storage_class, "STANDARD_IA");

  const BucketRecord bucket = some_bucket();
  const auto bucket_read = decode_bucket(encode(bucket));
  ASSERT_TRUE(bucket_read);
  EXPECT_EQ(encode(*bucket_read), encode(bucket));
  EXPECT_EQ(bucket_read->info.attributes, bucket.info.attributes);

  const auto parts = some_parts(10'000);
  const auto pages = encode_part_pages(3, parts);
  EXPECT_GT(pages.size(), 10u);
  uint32_t next = 1;
  for (const auto& page : pages) {
    EXPECT_LE(page.size(), meta::kValueSizeMax);
    const auto decoded = decode_part_page(page);
    ASSERT_TRUE(decoded);
    for (const auto& part : decoded->parts) EXPECT_EQ(part.number, next++);
  }
  EXPECT_EQ(next, 10'001u);
}

TEST(Records, the_documented_example_is_what_the_code_writes) {
  VersionRecord record;
  record.sequence = 0x17979cfe362a0000;
  record.unique = 0x0123456789abcdef;
  record.null_version = true;
  record.payload = PayloadKind::inlined;
  record.size = 5;
  record.modified = 0x17979cfe362a0000;
  record.md5 = *from_hex("5d41402abc4b2a76b9719d911017c592");
  record.owner = "bob";
  record.metadata.content_type = "text/plain";
  EXPECT_EQ(to_hex(bytes_of(encode(record))),
            "21020100002a36fe9c9717efcdab89674523010500002a36fe9c9717105d41402abc4b2a76b9719d911017c592000003626f62000a746578742f706c61696e"
            "0000000000000000000000");
  EXPECT_EQ(to_hex(bytes_of(current_key(7, "a/b"))), "6f0000000000000007612f620001");
  EXPECT_EQ(to_hex(bytes_of(encode_inline_payload(record.unique, bytes_of("hello")))), "51efcdab89674523014cbb719a68656c6c6f");
}

TEST(Records, every_damaged_byte_is_refused_or_decodes_to_something_whole) {
  const std::vector<std::string> samples{encode(some_version()),
                                         encode(some_bucket()),
                                         encode(some_parts(1)[0]),
                                         encode_part_pages(1, some_parts(3))[0],
                                         encode(UploadRecord{.owner = "x", .algorithm = ChecksumAlgorithm::crc32}),
                                         encode_inline_payload(1, bytes_of("hello"))};
  const auto decode_all = [](std::string_view value) {
    int good = 0;
    good += decode_version(value).has_value();
    good += decode_version_head(value).has_value();
    good += decode_bucket(value).has_value();
    good += decode_part(value).has_value();
    good += decode_part_page(value).has_value();
    good += decode_upload(value).has_value();
    good += decode_inline_payload(value).has_value();
    return good;
  };
  for (const auto& sample : samples) {
    EXPECT_GE(decode_all(sample), 1);
    for (size_t size = 0; size < sample.size(); ++size) {
      EXPECT_FALSE(decode_version(std::string_view(sample).substr(0, size)));
      EXPECT_FALSE(decode_bucket(std::string_view(sample).substr(0, size)));
      EXPECT_FALSE(decode_part_page(std::string_view(sample).substr(0, size)));
      EXPECT_FALSE(decode_inline_payload(std::string_view(sample).substr(0, size)));
    }
    for (size_t at = 0; at < sample.size(); ++at) {
      for (const int bit : {0, 3, 7}) {
        std::string damaged = sample;
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
        decode_all(damaged);
      }
    }
  }
  std::string payload = encode_inline_payload(1, bytes_of("hello"));
  payload.back() ^= 1;
  EXPECT_EQ(code_of(decode_inline_payload(payload)), Code::corrupt);
}

TEST(Keys, sort_as_s3_lists_and_parse_back) {
  const std::vector<std::string> names{std::string("\0", 1),
                                       std::string("\0a", 2),
                                       "a",
                                       std::string("a\0", 2),
                                       std::string("a\0b", 3),
                                       "a\x01",
                                       "a!",
                                       "a/",
                                       "a/b",
                                       "b",
                                       "\xff",
                                       "\xff\xff"};
  for (const RowKind kind : {RowKind::current, RowKind::upload}) {
    std::string previous;
    for (const auto& name : names) {
      const std::string row = kind == RowKind::current ? current_key(1, name) : upload_key(1, name, std::string(16, 'u'));
      EXPECT_LT(previous, row);
      const auto parsed = parse_row_key(row);
      ASSERT_TRUE(parsed);
      EXPECT_EQ(parsed->key, name);
      EXPECT_LT(row, after_key(kind, 1, name));
      previous = row;
    }
  }
  EXPECT_LT(version_key(1, "a", 5), version_key(1, "a", 4));
  EXPECT_EQ(parse_row_key(version_key(1, "a", 5))->sequence, 5u);
  EXPECT_TRUE(row_keys_fit(std::string(1024, 'x')));
  EXPECT_FALSE(row_keys_fit(std::string(1024, '\0')));
  EXPECT_LE(version_key(1, std::string(kObjectKeyMax, 'x'), 1).size(), meta::kKeySizeMax);
}

TEST(VersionIds, are_opaque_and_sort_newest_first) {
  const VersionId id{.sequence = 5, .unique = 6};
  EXPECT_EQ(*parse_version_id(to_text(id)), id);
  EXPECT_TRUE(parse_version_id("null")->null);
  EXPECT_LT(to_text({.sequence = 6}), to_text({.sequence = 5}));
  for (const char* wrong :
       {"", "x", "nulL", "0000000000000000000000000000000", "0000000000000000000000000000000G", "0000000000000000000000000000000A"}) {
    EXPECT_EQ(code_of(parse_version_id(wrong)), Code::invalid_argument) << wrong;
  }
}

}  // namespace
}  // namespace quarry::object
