// Multipart uploads and server-side copies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/digest.h"
#include "object/testing/harness.h"

namespace quarry::object {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr size_t kPart = kPartSizeMin;

struct Uploaded {
  std::string id;
  std::string bytes;
  CompleteOptions complete;
};

Uploaded upload(Harness& h, std::string key, std::vector<size_t> sizes, PutOptions options = {},
                ChecksumType type = ChecksumType::full_object) {
  Uploaded out;
  auto made = h.create_upload("b", key, options, type);
  EXPECT_TRUE(made) << made.error().to_string();
  out.id = made->upload_id;
  uint32_t number = 0;
  for (const size_t size : sizes) {
    number += 2;  // with gaps
    const std::string bytes = pattern(size, number);
    auto part = h.put_part("b", key, out.id, number, bytes);
    EXPECT_TRUE(part) << part.error().to_string();
    out.bytes += bytes;
    out.complete.parts.push_back({.number = number, .etag = part->etag, .checksum = part->checksum.value});
  }
  return out;
}

TEST(Multipart, joins_its_parts_into_one_object) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  PutOptions options;
  options.metadata.content_type = "x/y";
  options.tags = {{"t", "1"}};
  auto up = upload(h, "k", {kPart, kPart + 1, 17}, options);
  EXPECT_EQ(h.usage("b").bytes, up.bytes.size());
  EXPECT_EQ(h.usage("b").objects, 0u);
  EXPECT_EQ(code_of(h.get("b", "k")), Code::not_found);
  auto done = h.complete("b", "k", up.id, up.complete);
  ASSERT_TRUE(done) << done.error().to_string();
  std::string digests;
  for (const auto& part : up.complete.parts) digests += *from_hex(part.etag);
  EXPECT_EQ(done->etag, to_hex(md5(bytes_of(digests))) + "-3");
  EXPECT_EQ(*h.get("b", "k"), up.bytes);
  EXPECT_EQ(*h.range("b", "k", kPart - 10, 20), up.bytes.substr(kPart - 10, 20));
  EXPECT_EQ(*h.range("b", "k", kPart + 5, 10), up.bytes.substr(kPart + 5, 10));
  EXPECT_EQ(*h.range("b", "k", 2 * kPart - 3, 1000), up.bytes.substr(2 * kPart - 3));
  auto head = h.head("b", "k");
  ASSERT_EQ(head->parts.size(), 3u);
  EXPECT_EQ(head->parts[1].number, 4u);
  EXPECT_EQ(head->parts[1].size, kPart + 1);
  EXPECT_EQ(head->metadata.content_type, "x/y");
  EXPECT_EQ(head->tags.size(), 1u);
  EXPECT_EQ(h.usage("b").objects, 1u);
  EXPECT_EQ(h.usage("b").bytes, up.bytes.size());
  EXPECT_THAT(h.violations(), IsEmpty());

  auto again = h.complete("b", "k", up.id, up.complete);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->etag, done->etag);
  ASSERT_TRUE(h.put("b", "k", "small"));
  EXPECT_EQ(code_of(h.complete("b", "k", up.id, up.complete)), Code::not_found);
  EXPECT_THAT(h.violations(), IsEmpty());
  EXPECT_EQ(h.data.writes_held(), 0u);
}

// Deletes another object and says whether its bytes go.
bool others_go(Harness& h) {
  EXPECT_TRUE(h.put("b", "other", pattern(100'000, 99)));
  EXPECT_TRUE(h.remove("b", "other"));
  const auto removed = h.executor.run(h.data.collect());
  return removed && *removed >= 1;
}

TEST(Multipart, a_slow_reader_of_many_parts_keeps_them_and_nothing_else) {
  Harness h({}, 1);
  ASSERT_TRUE(h.make_bucket("b"));
  auto up = upload(h, "k", std::vector<size_t>(150, 5000));
  ASSERT_TRUE(h.complete("b", "k", up.id, up.complete));
  auto reader = h.executor.run(h.engine->get(h.ctx, "b", "k", {}));
  ASSERT_TRUE(reader);
  EXPECT_TRUE(others_go(h)) << "before its first byte was read";
  auto first = h.executor.run((*reader)->next(1000));
  ASSERT_TRUE(first);
  ASSERT_TRUE(h.put("b", "k", "overwritten"));
  EXPECT_TRUE(others_go(h));
  EXPECT_EQ(h.data.writes_held(), 150u) << "what it has read and will read";
  auto rest = h.executor.run(Harness::read_all(**reader));
  ASSERT_TRUE(rest) << rest.error().to_string();
  EXPECT_TRUE(std::string(text_of(*first)) + *rest == up.bytes);
  reader->reset();
  ASSERT_TRUE(h.executor.run(h.data.collect()));
  EXPECT_EQ(h.data.writes_held(), 0u);
}

TEST(Multipart, a_merge_keeps_its_parts_and_nothing_else) {
  Harness h({}, 1);
  h.data.keeps_files = h.data.whole = true;
  BucketInfo wanted;
  wanted.name = "b";
  wanted.owner = "alice";
  wanted.policy.redundancy = "mirror:2";
  ASSERT_TRUE(h.executor.run(h.engine->create_bucket(h.ctx, std::move(wanted))));
  auto up = upload(h, "k", std::vector<size_t>(20, 5000));
  h.data.set_faults({.seed = 1, .delay_max = std::chrono::seconds(10)});  // of each append: minutes
  Result<ObjectInfo> done = fail(Code::internal, "not run");
  TaskGroup group;
  struct Complete {
    static Task<void> run(Harness* h, Uploaded up, Result<ObjectInfo>* done) {
      *done = co_await h->engine->complete_upload(h->ctx, "b", "k", up.id, up.complete);
    }
  };
  struct Meanwhile {
    static Task<bool> run(Harness* h, TaskGroup* group, Task<void> complete) {
      group->spawn(std::move(complete));
      co_await sleep_for(std::chrono::seconds(20));
      auto put = co_await h->put_task("b", "other", pattern(100'000, 99));
      EXPECT_TRUE(put);
      auto gone = co_await h->engine->remove(h->ctx, "b", {.key = "other"});
      EXPECT_TRUE(gone);
      const auto removed = co_await h->data.collect();
      const bool others = removed && *removed >= 1;
      co_await group->join();
      co_return others;
    }
  };
  EXPECT_TRUE(h.executor.run(Meanwhile::run(&h, &group, Complete::run(&h, up, &done))));
  ASSERT_TRUE(done) << done.error().to_string();
  h.data.set_faults({});
  EXPECT_TRUE(*h.get("b", "k") == up.bytes);
}

TEST(Multipart, a_part_sent_again_replaces_and_parts_left_out_go) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  auto up = upload(h, "k", {kPart, kPart, 100});
  auto again = h.put_part("b", "k", up.id, 6, "other");
  ASSERT_TRUE(again);
  EXPECT_EQ(h.usage("b").bytes, 2 * kPart + 5);
  up.complete.parts.erase(up.complete.parts.begin() + 1);
  up.complete.parts[1].etag = again->etag;
  ASSERT_TRUE(h.complete("b", "k", up.id, up.complete));
  EXPECT_EQ(*h.get("b", "k"), up.bytes.substr(0, kPart) + "other");
  EXPECT_THAT(h.violations(), IsEmpty());
  EXPECT_EQ(h.data.writes_held(), 2u);
}

TEST(Multipart, refuses_what_does_not_fit) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  auto up = upload(h, "k", {kPart, kPart, 100});
  const auto refused = [&](CompleteOptions options) {
    auto done = h.complete("b", "k", up.id, std::move(options));
    return done ? std::string("done") : done.error().context();
  };
  EXPECT_EQ(refused({}), "parts: none is listed");
  auto order = up.complete;
  std::swap(order.parts[0], order.parts[1]);
  EXPECT_TRUE(refused(order).starts_with("order"));
  auto missing = up.complete;
  missing.parts[1].number = 5;
  EXPECT_EQ(refused(missing), "part 5: missing");
  auto etag = up.complete;
  etag.parts[1].etag = std::string(32, '0');
  EXPECT_EQ(refused(etag), "part 4: etag");
  auto size = up.complete;
  size.expected_size = 1;
  EXPECT_TRUE(refused(size).starts_with("size"));
  ASSERT_TRUE(h.put_part("b", "k", up.id, 4, "tiny"));
  auto tiny = up.complete;
  tiny.parts[1].etag = to_hex(md5(bytes_of("tiny")));
  EXPECT_TRUE(refused(tiny).starts_with("too small"));
  EXPECT_EQ(code_of(h.put_part("b", "k", up.id, 10001, "x")), Code::invalid_argument);
  EXPECT_EQ(code_of(h.put_part("b", "k", std::string(32, '0'), 1, "x")), Code::not_found);
  EXPECT_EQ(code_of(h.put_part("b", "other", up.id, 1, "x")), Code::not_found);
  EXPECT_THAT(h.violations(), IsEmpty());
}

TEST(Multipart, abort_and_bucket_deletion_leave_nothing) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  auto up = upload(h, "k", {1000, 2000});
  ASSERT_TRUE(h.abort("b", "k", up.id));
  EXPECT_EQ(code_of(h.abort("b", "k", up.id)), Code::not_found);
  EXPECT_EQ(code_of(h.put_part("b", "k", up.id, 1, "x")), Code::not_found);
  EXPECT_EQ(h.usage("b").bytes, 0u);
  EXPECT_THAT(h.violations(), IsEmpty());
  upload(h, "k", {1000, 2000});
  upload(h, "k2", {});
  ASSERT_TRUE(h.executor.run(h.engine->delete_bucket(h.ctx, "b")));
  EXPECT_THAT(h.violations(), IsEmpty());
  EXPECT_EQ(h.data.writes_held(), 0u);
}

TEST(Multipart, checksums_are_combined_or_composed) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  for (const auto algorithm : {ChecksumAlgorithm::crc32, ChecksumAlgorithm::crc32c, ChecksumAlgorithm::crc64nvme}) {
    auto up = upload(h, "full", {kPart, 123}, {.checksum = algorithm});
    S3Checksum whole(static_cast<ChecksumKind>(algorithm));
    whole.update(bytes_of(up.bytes));
    const auto digest = whole.finish();
    up.complete.expected_checksum = "wrong";
    EXPECT_EQ(code_of(h.complete("b", "full", up.id, up.complete)), Code::checksum_mismatch);
    up.complete.expected_checksum = text_of(digest.view());
    auto done = h.complete("b", "full", up.id, up.complete);
    ASSERT_TRUE(done) << done.error().to_string();
    EXPECT_EQ(done->checksum.value, text_of(digest.view()));
  }
  auto up = upload(h, "composite", {kPart, 123}, {.checksum = ChecksumAlgorithm::sha256}, ChecksumType::composite);
  auto done = h.complete("b", "composite", up.id, up.complete);
  ASSERT_TRUE(done);
  std::string digests;
  for (const auto& part : up.complete.parts) digests += part.checksum;
  EXPECT_EQ(done->checksum.value, text_of(sha256(bytes_of(digests))));
  EXPECT_EQ(done->checksum.type, ChecksumType::composite);
  EXPECT_EQ(code_of(h.create_upload("b", "x", {.checksum = ChecksumAlgorithm::sha1}, ChecksumType::full_object)), Code::invalid_argument);
  EXPECT_EQ(code_of(h.create_upload("b", "x", {.checksum = ChecksumAlgorithm::crc64nvme}, ChecksumType::composite)),
            Code::invalid_argument);
}

TEST(Multipart, ten_thousand_parts_fit) {
  Harness h({}, 1);
  ASSERT_TRUE(h.make_bucket("b", Versioning::enabled));
  auto made = h.create_upload("b", "k");
  ASSERT_TRUE(made);
  CompleteOptions complete;
  std::string bytes;
  for (uint32_t number = 1; number <= kPartNumberMax; ++number) {
    const std::string text = fmt::format("<{}>", number);
    auto part = h.put_part("b", "k", made->upload_id, number, text);
    ASSERT_TRUE(part);
    bytes += text;
    complete.parts.push_back({.number = number, .etag = part->etag});
  }
  std::vector<PartInfo> listed;
  for (uint32_t after = 0;;) {
    auto page = h.executor.run(h.engine->list_parts(h.ctx, "b", "k", made->upload_id, after, 999));
    ASSERT_TRUE(page);
    listed.insert(listed.end(), page->parts.begin(), page->parts.end());
    if (!page->truncated) break;
    after = page->next_marker;
  }
  ASSERT_EQ(listed.size(), kPartNumberMax);
  EXPECT_EQ(listed.back().number, kPartNumberMax);
  auto done = h.complete("b", "k", made->upload_id, complete);
  ASSERT_TRUE(done) << done.error().to_string();
  EXPECT_EQ(*h.get("b", "k"), bytes);
  EXPECT_EQ(*h.range("b", "k", bytes.size() / 2, 1000), bytes.substr(bytes.size() / 2, 1000));
  EXPECT_EQ(h.head("b", "k")->parts.size(), kPartNumberMax);
  EXPECT_THAT(h.violations(), IsEmpty());
  ASSERT_TRUE(h.remove("b", "k", done->version_id));
  EXPECT_THAT(h.violations(), IsEmpty());
  EXPECT_EQ(h.data.writes_held(), 0u);
}

TEST(Multipart, uploads_are_listed_by_key_and_then_by_time) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  auto b1 = h.create_upload("b", "b"), a = h.create_upload("b", "a/1"), b2 = h.create_upload("b", "b"), c = h.create_upload("b", "c");
  ASSERT_TRUE(b1 && a && b2 && c);
  const auto ids = [](const UploadListPage& page) {
    std::vector<std::string> out;
    for (const auto& up : page.uploads) out.push_back(up.upload_id);
    return out;
  };
  auto all = h.executor.run(h.engine->list_uploads(h.ctx, "b", {}));
  EXPECT_THAT(ids(*all), ElementsAre(a->upload_id, b1->upload_id, b2->upload_id, c->upload_id));
  auto first = h.executor.run(h.engine->list_uploads(h.ctx, "b", {.limit = 2}));
  EXPECT_TRUE(first->truncated);
  auto second = h.executor.run(
      h.engine->list_uploads(h.ctx, "b", {.key_marker = first->next_key_marker, .upload_marker = first->next_upload_marker, .limit = 2}));
  EXPECT_THAT(ids(*second), ElementsAre(b2->upload_id, c->upload_id));
  EXPECT_FALSE(second->truncated);
  auto by_key = h.executor.run(h.engine->list_uploads(h.ctx, "b", {.key_marker = "b"}));
  EXPECT_THAT(ids(*by_key), ElementsAre(c->upload_id));
  auto grouped = h.executor.run(h.engine->list_uploads(h.ctx, "b", {.delimiter = "/"}));
  EXPECT_THAT(grouped->common_prefixes, ElementsAre("a/"));
}

}  // namespace
}  // namespace quarry::object
