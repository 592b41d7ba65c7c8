// Versioning: enabled, suspended, delete markers, deletion of versions, listing of versions; S3's semantics, claim by claim.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "object/testing/harness.h"

namespace quarry::object {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// "key=value", "key!" for a delete marker, "*" behind the latest.
std::vector<std::string> shown(Harness& h, const VersionListPage& page) {
  std::vector<std::string> out;
  for (const auto& version : page.versions) {
    std::string text = version.key;
    text += version.delete_marker ? std::string("!") : "=" + *h.get("b", version.key, version.version_id);
    if (version.version_id == "null") text += "(null)";
    if (version.is_latest) text += "*";
    out.push_back(text);
  }
  return out;
}
std::vector<std::string> versions(Harness& h) { return shown(h, *h.list_versions("b")); }

TEST(Versions, are_kept_newest_first_and_read_by_id) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b", Versioning::enabled));
  auto one = h.put("b", "k", "one"), two = h.put("b", "k", std::string(10'000, '2')), three = h.put("b", "k", "three");
  ASSERT_TRUE(one && two && three);
  EXPECT_NE(one->version_id, two->version_id);
  EXPECT_EQ(*h.get("b", "k"), "three");
  EXPECT_EQ(*h.get("b", "k", one->version_id), "one");
  EXPECT_EQ(*h.get("b", "k", two->version_id), std::string(10'000, '2'));
  EXPECT_FALSE(h.head("b", "k", one->version_id)->is_latest);
  EXPECT_TRUE(h.head("b", "k", three->version_id)->is_latest);
  EXPECT_THAT(versions(h), ElementsAre("k=three*", "k=" + std::string(10'000, '2'), "k=one"));
  EXPECT_EQ(h.usage("b").objects, 3u);
  EXPECT_EQ(h.list("b")->objects.size(), 1u);
  EXPECT_EQ(code_of(h.get("b", "k", std::string(32, 'f'))), Code::not_found);
  EXPECT_EQ(code_of(h.get("b", "k", "null")), Code::not_found);
  EXPECT_EQ(code_of(h.get("b", "k", "nonsense")), Code::invalid_argument);
  EXPECT_THAT(h.violations(), IsEmpty());
}

TEST(Versions, a_delete_marks_and_deleting_the_marker_brings_the_object_back) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b", Versioning::enabled));
  ASSERT_TRUE(h.put("b", "k", "one"));
  auto marker = h.remove("b", "k");
  ASSERT_TRUE(marker);
  EXPECT_TRUE(marker->delete_marker);
  auto gone = h.get("b", "k");
  ASSERT_EQ(code_of(gone), Code::not_found);
  EXPECT_EQ(gone.error().context(), "delete marker " + marker->version_id);
  auto head = h.head("b", "k", marker->version_id);
  ASSERT_TRUE(head);
  EXPECT_TRUE(head->delete_marker && head->is_latest);
  EXPECT_THAT(versions(h), ElementsAre("k!*", "k=one"));
  EXPECT_THAT(h.list("b")->objects, IsEmpty());
  EXPECT_EQ(code_of(h.executor.run(h.engine->delete_bucket(h.ctx, "b"))), Code::not_empty);

  auto second = h.remove("b", "k");
  ASSERT_TRUE(second && second->delete_marker);
  EXPECT_THAT(versions(h), ElementsAre("k!*", "k!", "k=one"));
  auto undone = h.remove("b", "k", second->version_id);
  ASSERT_TRUE(undone);
  EXPECT_TRUE(undone->delete_marker);
  EXPECT_THAT(versions(h), ElementsAre("k!*", "k=one"));
  ASSERT_TRUE(h.remove("b", "k", marker->version_id));
  EXPECT_EQ(*h.get("b", "k"), "one");
  EXPECT_THAT(versions(h), ElementsAre("k=one*"));
  EXPECT_THAT(h.violations(), IsEmpty());
}

TEST(Versions, a_delete_of_nothing_makes_a_marker_too) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b", Versioning::enabled));
  ASSERT_TRUE(h.remove("b", "k"));
  EXPECT_THAT(versions(h), ElementsAre("k!*"));
}

TEST(Versions, deleting_the_latest_promotes_the_next_live_one) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b", Versioning::enabled));
  auto one = h.put("b", "k", "one");
  ASSERT_TRUE(h.remove("b", "k"));
  auto two = h.put("b", "k", std::string(9000, '2')), three = h.put("b", "k", "three");
  ASSERT_TRUE(h.remove("b", "k", three->version_id));
  EXPECT_EQ(h.head("b", "k")->version_id, two->version_id);
  ASSERT_TRUE(h.remove("b", "k", two->version_id));
  EXPECT_EQ(code_of(h.get("b", "k")), Code::not_found);
  EXPECT_THAT(versions(h), ElementsAre("k!*", "k=one"));
  ASSERT_TRUE(h.remove("b", "k", one->version_id));
  EXPECT_THAT(versions(h), ElementsAre("k!*"));
  auto again = h.remove("b", "k", one->version_id);
  ASSERT_TRUE(again);  // S3: deleting a version that is not there succeeds
  EXPECT_FALSE(again->delete_marker);
  EXPECT_THAT(h.violations(), IsEmpty());
}

TEST(Versions, the_null_version_is_replaced_wherever_it_is) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  ASSERT_TRUE(h.put("b", "k", "plain"));
  ASSERT_TRUE(h.set_versioning("b", Versioning::enabled));
  ASSERT_TRUE(h.put("b", "k", "one"));
  EXPECT_THAT(versions(h), ElementsAre("k=one*", "k=plain(null)"));
  EXPECT_EQ(*h.get("b", "k", "null"), "plain");
  ASSERT_TRUE(h.set_versioning("b", Versioning::suspended));
  ASSERT_TRUE(h.put("b", "k", "null again"));
  EXPECT_THAT(versions(h), ElementsAre("k=null again(null)*", "k=one"));
  ASSERT_TRUE(h.put("b", "k", "and again"));
  EXPECT_THAT(versions(h), ElementsAre("k=and again(null)*", "k=one"));
  auto marker = h.remove("b", "k");
  EXPECT_EQ(marker->version_id, "null");
  EXPECT_TRUE(marker->delete_marker);
  EXPECT_THAT(versions(h), ElementsAre("k!(null)*", "k=one"));
  ASSERT_TRUE(h.set_versioning("b", Versioning::enabled));
  ASSERT_TRUE(h.put("b", "k", "two"));
  EXPECT_THAT(versions(h), ElementsAre("k=two*", "k!(null)", "k=one"));
  ASSERT_TRUE(h.set_versioning("b", Versioning::suspended));
  ASSERT_TRUE(h.remove("b", "k"));
  EXPECT_THAT(versions(h), ElementsAre("k!(null)*", "k=two", "k=one"));
  ASSERT_TRUE(h.remove("b", "k", "null"));
  EXPECT_THAT(versions(h), ElementsAre("k=two*", "k=one"));
  EXPECT_EQ(code_of(h.set_versioning("b", Versioning::off)), Code::invalid_argument);
  EXPECT_THAT(h.violations(), IsEmpty());
}

TEST(Versions, inline_payloads_follow_their_version) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  ASSERT_TRUE(h.put("b", "k", "null payload"));
  ASSERT_TRUE(h.set_versioning("b", Versioning::enabled));
  auto one = h.put("b", "k", "one");
  ASSERT_TRUE(h.remove("b", "k", one->version_id));
  EXPECT_EQ(*h.get("b", "k"), "null payload");
  EXPECT_EQ(h.head("b", "k")->version_id, "null");
  ASSERT_TRUE(h.remove("b", "k", "null"));
  EXPECT_THAT(versions(h), IsEmpty());
  EXPECT_EQ(h.usage("b").bytes, 0u);
  EXPECT_THAT(h.violations(), IsEmpty());
}

TEST(Versions, tags_belong_to_one_version) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b", Versioning::enabled));
  auto one = h.put("b", "k", "one"), two = h.put("b", "k", "two");
  ASSERT_TRUE(h.executor.run(h.engine->set_tags(h.ctx, "b", "k", one->version_id, {{"a", "1"}})));
  EXPECT_TRUE(h.head("b", "k")->tags.empty());
  EXPECT_EQ(h.head("b", "k", one->version_id)->tags.size(), 1u);
  EXPECT_EQ(h.head("b", "k", one->version_id)->etag, one->etag);
  ASSERT_TRUE(h.remove("b", "k"));
  EXPECT_EQ(code_of(h.executor.run(h.engine->set_tags(h.ctx, "b", "k", "", {}))), Code::not_found);
}

TEST(Versions, list_page_by_page_with_markers_groups_and_prefixes) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b", Versioning::enabled));
  for (int round = 0; round < 3; ++round) {
    for (const char* key : {"a/1", "b", "c/1", "c/2", "d"}) ASSERT_TRUE(h.put("b", key, std::to_string(round)));
  }
  ASSERT_TRUE(h.remove("b", "b"));
  ASSERT_TRUE(h.remove("b", "c/1"));
  const auto all = versions(h);
  EXPECT_EQ(all.size(), 17u);
  for (size_t limit = 1; limit < 8; ++limit) {
    std::vector<std::string> paged;
    VersionListOptions options{.limit = limit};
    for (;;) {
      auto page = h.list_versions("b", options);
      ASSERT_TRUE(page);
      ASSERT_LE(page->versions.size(), limit);
      for (auto& text : shown(h, *page)) paged.push_back(text);
      if (!page->truncated) break;
      options.key_marker = page->next_key_marker;
      options.version_marker = page->next_version_marker;
    }
    EXPECT_EQ(paged, all) << "limit " << limit;
  }
  auto grouped = h.list_versions("b", {.delimiter = "/"});
  EXPECT_THAT(grouped->common_prefixes, ElementsAre("a/", "c/"));
  EXPECT_THAT(shown(h, *grouped), ElementsAre("b!*", "b=2", "b=1", "b=0", "d=2*", "d=1", "d=0"));
  auto after = h.list_versions("b", {.delimiter = "/", .key_marker = "b"});
  EXPECT_THAT(after->common_prefixes, ElementsAre("c/"));
  auto prefix = h.list_versions("b", {.prefix = "c/1"});
  EXPECT_THAT(shown(h, *prefix), ElementsAre("c/1!*", "c/1=2", "c/1=1", "c/1=0"));
  EXPECT_FALSE(h.list_versions("b", {.limit = 0})->truncated);
}

TEST(RemoveMany, answers_each_target) {
  Harness h;
  ASSERT_TRUE(h.make_bucket("b"));
  std::vector<DeleteTarget> targets;
  for (int i = 0; i < 250; ++i) {
    const std::string key = fmt::format("{:03}", i);
    ASSERT_TRUE(h.put("b", key, std::string(i % 7 == 0 ? 5000 : 10, 'x')));
    targets.push_back({.key = key});
  }
  targets.push_back({.key = "nothing"});
  targets.push_back({.key = "000"});  // again
  targets.push_back({.key = "001", .version_id = "nonsense"});
  targets[5].conditions.if_match = {"00"};
  auto results = h.executor.run(h.engine->remove_many(h.ctx, "b", targets));
  ASSERT_EQ(results.size(), 253u);
  for (size_t i = 0; i < 253; ++i) {
    if (i == 5) {
      EXPECT_EQ(code_of(results[i]), Code::precondition_failed);
    } else if (i == 252) {
      EXPECT_EQ(code_of(results[i]), Code::invalid_argument);
    } else {
      EXPECT_TRUE(results[i]) << i;
    }
  }
  EXPECT_THAT(names_of(h.list("b")->objects), ElementsAre("005"));
  EXPECT_EQ(h.usage("b").objects, 1u);
  EXPECT_THAT(h.violations(), IsEmpty());
}

}  // namespace
}  // namespace quarry::object
