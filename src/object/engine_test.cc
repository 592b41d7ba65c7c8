// Buckets, put, get, head, delete, list on the in-memory twins.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/digest.h"
#include "object/engine/records.h"
#include "object/testing/harness.h"

namespace quarry::object {
namespace {

using testing::ElementsAre;

TEST(Buckets, are_made_once_found_listed_and_deleted_when_empty) {
  Harness h;
  auto made = h.make_bucket("pictures");
  ASSERT_TRUE(made) << made.error().to_string();
  auto again = h.make_bucket("pictures");
  ASSERT_EQ(code_of(again), Code::already_exists);
  EXPECT_NE(again.error().context().find("owned by you"), std::string::npos);
  ASSERT_TRUE(h.make_bucket("albums"));
  auto all = h.executor.run(h.engine->list_buckets(h.ctx, "", "", 100));
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 2u);
  EXPECT_EQ((*all)[0].name, "albums");
  EXPECT_NE((*all)[0].id, (*all)[1].id);
  EXPECT_EQ(h.executor.run(h.engine->list_buckets(h.ctx, "", "albums", 100))->size(), 1u);
  EXPECT_EQ(h.executor.run(h.engine->list_buckets(h.ctx, "al", "", 100))->size(), 1u);

  ASSERT_TRUE(h.put("albums", "a", "x"));
  EXPECT_EQ(code_of(h.executor.run(h.engine->delete_bucket(h.ctx, "albums"))), Code::not_empty);
  ASSERT_TRUE(h.remove("albums", "a"));
  ASSERT_TRUE(h.executor.run(h.engine->delete_bucket(h.ctx, "albums")));
  EXPECT_EQ(code_of(h.executor.run(h.engine->get_bucket(h.ctx, "albums"))), Code::not_found);
  EXPECT_EQ(code_of(h.put("albums", "a", "x")), Code::not_found);
  EXPECT_EQ(code_of(h.get("albums", "a")), Code::not_found);
}

TEST(Buckets, made_anew_under_an_old_name_show_nothing_of_the_old_one) {
  Harness h;
  auto first = h.make_bucket("b");
  ASSERT_TRUE(h.put("b", "k", "old"));
  ASSERT_TRUE(h.remove("b", "k"));
  ASSERT_TRUE(h.executor.run(h.engine->delete_bucket(h.ctx, "b")));
  auto second = h.make_bucket("b");
  ASSERT_TRUE(second);
  EXPECT_NE(first->id, second->id);
  EXPECT_EQ(code_of(h.get("b", "k")), Code::not_found);
  EXPECT_EQ(h.usage("b").objects, 0u);
}

TEST(Objects, of_every_size_class_come_back_byte_for_byte) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  for (const size_t size : {0ul, 1ul, 4096ul, 4097ul, 100'000ul, 128ul * 1024, 128ul * 1024 + 1, 3'000'001ul}) {
    const std::string bytes = pattern(size, size);
    auto info = h.put("b", "k", bytes);
    ASSERT_TRUE(info) << info.error().to_string();
    EXPECT_EQ(info->etag, to_hex(md5(bytes_of(bytes))));
    EXPECT_EQ(info->version_id, "null");
    auto got = h.get("b", "k");
    ASSERT_TRUE(got) << got.error().to_string();
    EXPECT_EQ(*got, bytes);
    auto head = h.head("b", "k");
    ASSERT_TRUE(head);
    EXPECT_EQ(head->size, size);
    EXPECT_EQ(h.usage("b").objects, 1u);
    EXPECT_EQ(h.usage("b").bytes, size);
    if (size > 10) {
      auto middle = h.range("b", "k", 3, size - 5);
      ASSERT_TRUE(middle);
      EXPECT_EQ(*middle, bytes.substr(3, size - 5));
    }
    ASSERT_TRUE(h.executor.run(h.data.collect()));
    EXPECT_EQ(h.data.writes_held(), size > 4096 ? 1u : 0u);  // what was replaced is gone
  }
  ASSERT_TRUE(h.remove("b", "k"));
  ASSERT_TRUE(h.executor.run(h.data.collect()));
  EXPECT_EQ(h.data.writes_held(), 0u);
  EXPECT_EQ(h.usage("b").objects, 0u);
  EXPECT_EQ(h.usage("b").bytes, 0u);
  EXPECT_EQ(code_of(h.get("b", "k")), Code::not_found);
  EXPECT_THAT(h.violations(), ElementsAre());
}

TEST(Objects, carry_their_metadata) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  PutOptions options;
  options.metadata.content_type = "image/png";
  options.metadata.storage_class = "STANDARD_IA";
  options.metadata.user = {{"color", "blue"}};
  options.tags = {{"a", "1"}};
  options.checksum = ChecksumAlgorithm::crc32c;
  options.owner = "bob";
  ASSERT_TRUE(h.put("b", "k", "123456789", options));
  auto head = h.head("b", "k");
  ASSERT_TRUE(head);
  EXPECT_EQ(head->metadata.content_type, "image/png");
  EXPECT_EQ(head->metadata.storage_class, "STANDARD_IA");
  EXPECT_EQ(head->metadata.user, options.metadata.user);
  EXPECT_EQ(head->tags, options.tags);
  EXPECT_EQ(head->owner, "bob");
  EXPECT_EQ(to_hex(bytes_of(head->checksum.value)), "e3069283");
  auto listed = h.list("b");
  ASSERT_TRUE(listed);
  EXPECT_EQ(listed->objects.at(0).metadata.storage_class, "STANDARD_IA");
  auto tagged = h.executor.run(h.engine->set_tags(h.ctx, "b", "k", "", {{"b", "2"}}));
  ASSERT_TRUE(tagged);
  EXPECT_EQ(h.head("b", "k")->tags, (Tags{{"b", "2"}}));
}

TEST(Objects, with_wrong_digests_or_sizes_are_not_published_and_leave_nothing) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  const std::string bytes = pattern(200'000, 1);
  EXPECT_EQ(code_of(h.put("b", "k", bytes, {}, {.md5 = std::string(16, 'x')})), Code::checksum_mismatch);
  EXPECT_EQ(code_of(h.put("b", "k", bytes, {.checksum = ChecksumAlgorithm::crc32}, {.checksum = std::string("abcd")})),
            Code::checksum_mismatch);
  EXPECT_EQ(code_of(h.put("b", "k", bytes, {.compute_sha256 = true}, {.sha256 = std::string(32, 'x')})), Code::checksum_mismatch);
  EXPECT_EQ(code_of(h.put("b", "k", bytes, {.size = 199'999})), Code::invalid_argument);
  EXPECT_EQ(code_of(h.put("b", "k", bytes, {.size = 200'001})), Code::invalid_argument);
  EXPECT_EQ(code_of(h.get("b", "k")), Code::not_found);
  EXPECT_EQ(h.data.writes_held(), 0u);
  EXPECT_TRUE(h.put("b", "k", bytes, {.size = 200'000, .compute_sha256 = true}, {.sha256 = std::string(text_of(sha256(bytes_of(bytes))))}));
}

TEST(Objects, abandoned_halfway_leave_nothing) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  {
    auto writer = h.executor.run(h.engine->put(h.ctx, "b", "k", {}));
    ASSERT_TRUE(writer);
    ASSERT_TRUE(h.executor.run((*writer)->write(Buffer::copy_of(bytes_of(pattern(300'000, 1))))));
    ASSERT_TRUE(h.executor.run((*writer)->write(Buffer::copy_of(bytes_of(pattern(300'000, 2))))));
    EXPECT_EQ(h.data.writes_held(), 1u);
  }
  EXPECT_EQ(h.data.writes_held(), 0u);
  EXPECT_EQ(code_of(h.head("b", "k")), Code::not_found);
}

TEST(Objects, a_read_that_began_is_not_cut_by_an_overwrite) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  const std::string bytes = pattern(1'000'000, 1);
  ASSERT_TRUE(h.put("b", "k", bytes));
  auto reader = h.executor.run(h.engine->get(h.ctx, "b", "k", ""));
  ASSERT_TRUE(reader);
  ASSERT_TRUE(h.put("b", "k", "new"));
  EXPECT_EQ(*h.executor.run(h.data.collect()), 0u);  // the guard holds it
  auto first = h.executor.run((*reader)->next(1000));
  ASSERT_TRUE(first);
  EXPECT_EQ(*h.executor.run(h.data.collect()), 0u);
  auto rest = h.executor.run(Harness::read_all(**reader));
  ASSERT_TRUE(rest);
  EXPECT_EQ(*h.executor.run(h.data.collect()), 1u) << "at its end";
  EXPECT_EQ(std::string(text_of(*first)) + *rest, bytes);
  EXPECT_EQ(*h.get("b", "k"), "new");
}

TEST(Conditions, guard_writes) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  EXPECT_EQ(code_of(h.put("b", "k", "x", {.conditions = {.if_match = {"*"}}})), Code::not_found);
  auto made = h.put("b", "k", "one", {.conditions = {.if_none_match = {"*"}}});
  ASSERT_TRUE(made);
  EXPECT_EQ(code_of(h.put("b", "k", "two", {.conditions = {.if_none_match = {"*"}}})), Code::precondition_failed);
  EXPECT_EQ(code_of(h.put("b", "k", "two", {.conditions = {.if_match = {"00"}}})), Code::precondition_failed);
  EXPECT_TRUE(h.put("b", "k", "two", {.conditions = {.if_match = {made->etag}}}));
  EXPECT_EQ(*h.get("b", "k"), "two");
  auto early = h.executor.run(h.engine->put(h.ctx, "b", "k", {.conditions = {.if_none_match = {"*"}}, .size = 1'000'000}));
  EXPECT_EQ(code_of(early), Code::precondition_failed) << "before its bytes come";
  EXPECT_EQ(code_of(h.remove("b", "k", "", {.if_match = {made->etag}})), Code::precondition_failed);
  EXPECT_EQ(code_of(h.remove("b", "k", "", {.if_match_size = 4})), Code::precondition_failed);
  EXPECT_TRUE(h.remove("b", "k", "", {.if_match = {"*"}, .if_match_size = 3}));
  EXPECT_EQ(code_of(h.remove("b", "k", "", {.if_match = {"*"}})), Code::precondition_failed);
  EXPECT_TRUE(h.remove("b", "k", "", {.if_match = {"00"}}));
}

TEST(Conditions, of_reads_follow_the_precedence_of_rfc_9110) {
  ObjectInfo info;
  info.etag = "e";
  info.modified = 1000'000'000'000;
  const WallTime before = info.modified - 1'000'000'000, after = info.modified + 1'000'000'000, same = info.modified + 999;
  EXPECT_EQ(evaluate_read_conditions({}, info), ConditionOutcome::pass);
  EXPECT_EQ(evaluate_read_conditions({.if_match = {"e"}, .if_unmodified_since = before}, info), ConditionOutcome::pass);
  EXPECT_EQ(evaluate_read_conditions({.if_match = {"f"}}, info), ConditionOutcome::failed);
  EXPECT_EQ(evaluate_read_conditions({.if_unmodified_since = before}, info), ConditionOutcome::failed);
  EXPECT_EQ(evaluate_read_conditions({.if_unmodified_since = same}, info), ConditionOutcome::pass);
  EXPECT_EQ(evaluate_read_conditions({.if_none_match = {"f"}, .if_modified_since = after}, info), ConditionOutcome::pass);
  EXPECT_EQ(evaluate_read_conditions({.if_none_match = {"e"}, .if_modified_since = before}, info), ConditionOutcome::not_modified);
  EXPECT_EQ(evaluate_read_conditions({.if_modified_since = same}, info), ConditionOutcome::not_modified);
  EXPECT_EQ(evaluate_read_conditions({.if_modified_since = before}, info), ConditionOutcome::pass);
  EXPECT_EQ(evaluate_read_conditions({.if_match = {"e"}, .if_none_match = {"*"}}, info), ConditionOutcome::not_modified);
}

TEST(Listing, goes_in_byte_order_page_by_page) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  for (const char* key : {"a", "a/b", "a/c/d", "a0", "b", "\xc3\xa4", "z"}) ASSERT_TRUE(h.put("b", key, "x"));
  auto all = h.list("b");
  ASSERT_TRUE(all);
  EXPECT_THAT(names_of(all->objects), ElementsAre("a", "a/b", "a/c/d", "a0", "b", "z", "\xc3\xa4"));
  EXPECT_FALSE(all->truncated);
  std::vector<std::string> paged;
  ListOptions options{.limit = 2};
  for (;;) {
    auto page = h.list("b", options);
    ASSERT_TRUE(page);
    for (auto& name : names_of(page->objects)) paged.push_back(name);
    if (!page->truncated) break;
    options.after = page->next;
  }
  EXPECT_EQ(paged, names_of(all->objects));
  EXPECT_FALSE(h.list("b", {.limit = 7})->truncated);
  EXPECT_TRUE(h.list("b", {.limit = 6})->truncated);
  auto none = h.list("b", {.limit = 0});
  EXPECT_TRUE(none->objects.empty() && !none->truncated);
  EXPECT_EQ(code_of(h.list("nothing")), Code::not_found);
}

TEST(Listing, groups_by_any_delimiter_and_passes_whole_groups) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  for (const char* key : {"a/1", "a/2", "b", "c--1", "c--2", "c-3", "d/1", "d/2/3"}) ASSERT_TRUE(h.put("b", key, "x"));
  auto slash = h.list("b", {.delimiter = "/"});
  EXPECT_THAT(slash->common_prefixes, ElementsAre("a/", "d/"));
  EXPECT_THAT(names_of(slash->objects), ElementsAre("b", "c--1", "c--2", "c-3"));
  auto dashes = h.list("b", {.delimiter = "--"});
  EXPECT_THAT(dashes->common_prefixes, ElementsAre("c--"));
  auto inside = h.list("b", {.prefix = "d/", .delimiter = "/"});
  EXPECT_THAT(inside->common_prefixes, ElementsAre("d/2/"));
  EXPECT_THAT(names_of(inside->objects), ElementsAre("d/1"));
  auto first = h.list("b", {.delimiter = "/", .limit = 1});
  EXPECT_THAT(first->common_prefixes, ElementsAre("a/"));
  EXPECT_TRUE(first->truncated);
  EXPECT_EQ(first->next, "a/");
  auto second = h.list("b", {.delimiter = "/", .after = first->next, .limit = 1});
  EXPECT_TRUE(second->common_prefixes.empty());
  EXPECT_THAT(names_of(second->objects), ElementsAre("b"));
  auto within = h.list("b", {.delimiter = "/", .after = "a/1"});
  EXPECT_THAT(within->common_prefixes, ElementsAre("d/"));
  EXPECT_TRUE(h.list("b", {.prefix = "a/", .after = "b"})->objects.empty());
  EXPECT_THAT(names_of(h.list("b", {.prefix = "c", .after = "a"})->objects), ElementsAre("c--1", "c--2", "c-3"));
}

TEST(Listing, of_100_000_keys_touches_what_it_shows) {
  Harness h;
  auto bucket = h.make_bucket("b");
  ASSERT_TRUE(bucket);
  VersionRecord record;
  record.sequence = 1;
  record.null_version = true;
  record.md5 = std::string(16, 'm');
  const std::string value = encode(record);
  constexpr size_t kKeys = 100'000;
  for (size_t i = 0; i < kKeys;) {
    auto transaction = h.executor.run(h.meta->begin());
    ASSERT_TRUE(transaction);
    for (size_t end = i + 10'000; i < end; ++i)
      (*transaction)->put(current_key(bucket->id, fmt::format("{:03}/{:05}", i / 1000, i)), value);
    ASSERT_TRUE(h.executor.run((*transaction)->commit()));
  }
  auto first = h.list("b");
  ASSERT_EQ(first->objects.size(), 1000u);
  EXPECT_EQ(first->objects.back().key, "000/00999");
  EXPECT_TRUE(first->truncated);
  auto last = h.list("b", {.after = "098/98999"});
  ASSERT_EQ(last->objects.size(), 1000u);
  EXPECT_EQ(last->objects.back().key, "099/99999");
  EXPECT_FALSE(last->truncated);
  auto grouped = h.list("b", {.delimiter = "/"});
  EXPECT_EQ(grouped->common_prefixes.size(), 100u);
  size_t seen = 0;
  ListOptions options;
  for (;;) {
    auto page = h.list("b", options);
    ASSERT_TRUE(page);
    seen += page->objects.size();
    if (!page->truncated) break;
    options.after = page->next;
  }
  EXPECT_EQ(seen, kKeys);
}

}  // namespace
}  // namespace quarry::object
