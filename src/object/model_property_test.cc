// Random operations against the engine and a plain model of S3's semantics, with conflicts, unknown outcomes and data errors drawn
// by the twins; then every listing and every byte is compared. A failure prints the seed: set QUARRY_TEST_SEED to repeat it alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "codec/digest.h"
#include "object/testing/harness.h"

namespace quarry::object {
namespace {

struct ModelVersion {
  std::string id;  // empty: not known yet, after an unknown outcome
  bool null = false, marker = false;
  std::string bytes;
  Tags tags;
};
struct ModelBucket {
  Versioning versioning = Versioning::off;
  std::map<std::string, std::vector<ModelVersion>> keys;  // newest first; no empty vectors

  void drop_null(std::vector<ModelVersion>& versions) {
    std::erase_if(versions, [](const ModelVersion& v) { return v.null; });
  }
  void put(const std::string& key, std::string id, std::string bytes, Tags tags) {
    auto& versions = keys[key];
    const bool null = versioning != Versioning::enabled;
    if (null) drop_null(versions);
    versions.insert(versions.begin(), {std::move(id), null, false, std::move(bytes), std::move(tags)});
  }
  void remove(const std::string& key, std::string id) {
    if (versioning == Versioning::off) {
      keys.erase(key);
      return;
    }
    auto& versions = keys[key];
    const bool null = versioning == Versioning::suspended;
    if (null) drop_null(versions);
    versions.insert(versions.begin(), {std::move(id), null, true, "", {}});
  }
  void remove_version(const std::string& key, const std::string& id) {
    auto& versions = keys[key];
    std::erase_if(versions, [&](const ModelVersion& v) { return v.id == id; });
    if (versions.empty()) keys.erase(key);
  }
  const ModelVersion* current(const std::string& key) const {
    const auto found = keys.find(key);
    return found == keys.end() || found->second.front().marker ? nullptr : &found->second.front();
  }
};

class Run {
 public:
  Run(uint64_t seed, bool faulty) : h_({}, 1), seed_(seed), faulty_(faulty), random_(seed) {}
  void go(int operations) {
    ASSERT_TRUE(h_.make_bucket("b"));
    for (int i = 0; i < operations && !testing::Test::HasFatalFailure(); ++i) {
      set_faults(faulty_);
      step();
      set_faults(false);
      if (i % 25 == 24) compare();
    }
    compare();
    clean_up();
  }

 private:
  uint64_t below(uint64_t bound) { return random_.below(bound); }
  std::string some_key() {
    static const std::vector<std::string> names{
        "a", "a/", "a/b", "a/b/c", "a/c", "a0", "b", "b/x", "b\xc3\xa9", std::string("n\0ul", 4), "z/z/z", "zz"};
    return names[below(names.size())];
  }
  std::string some_bytes() {
    const size_t size = below(3) == 0 ? 4000 + below(20'000) : below(200);
    ++contents_;
    return fmt::format("#{}:", contents_) + pattern(size, contents_);
  }
  void set_faults(bool on) {
    meta::MemoryMetaFaults meta{.seed = seed_ * 1000 + ++fault_round_};
    MemoryDataFaults data{.seed = seed_ * 1000 + fault_round_};
    if (on) {
      meta.conflict_probability = 0.2;
      meta.unknown_outcome_probability = 0.15;
      meta.unavailable_probability = 0.03;
      data.append_error = data.begin_error = data.finish_error = 0.01;
    }
    h_.meta->set_faults(meta);
    h_.data.set_faults(data);
  }
  static bool nothing_happened(const Error& error) { return error.error_class() != ErrorClass::unknown_outcome; }

  // After an unknown outcome: the state before or the state after must be there.
  void settle(ModelBucket after) {
    set_faults(false);
    const auto before_difference = difference(bucket_);
    if (before_difference.empty()) return;
    const auto after_difference = difference(after);
    ASSERT_EQ(after_difference, "") << "neither before (" << before_difference << ") nor after";
    bucket_ = std::move(after);
  }

  void step() {
    const std::string key = some_key();
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
      case 3: return put(key);
      case 4:
      case 5: return remove(key);
      case 6:
      case 7: return remove_version(key);
      case 8: return change_versioning();
      case 9: return set_tags(key);
      case 10: return multipart(key);
      case 11: return remove_many();
    }
  }

  void put(const std::string& key) {
    const std::string bytes = some_bytes();
    PutOptions options{.tags = {{"t", std::to_string(below(100))}}};
    const ModelVersion* current = bucket_.current(key);
    bool must_fail = false;
    if (below(4) == 0) {
      options.conditions.if_none_match = {"*"};
      must_fail = current != nullptr;
    } else if (current != nullptr && below(4) == 0) {
      const bool right = below(2) == 0;
      options.conditions.if_match = {right ? to_hex(md5(bytes_of(current->bytes))) : std::string(32, '0')};
      if (multipart_contents_.contains(current->bytes)) options.conditions.if_match = {"*"};
      must_fail = !right && options.conditions.if_match.front() != "*";
    }
    ModelBucket after = bucket_;
    auto done = h_.put("b", key, bytes, options);
    after.put(key, done ? done->version_id : "", bytes, options.tags);
    if (must_fail) {
      ASSERT_FALSE(done);
      if (nothing_happened(done.error())) return;
      return settle(bucket_);
    }
    if (done) {
      bucket_ = std::move(after);
    } else if (!nothing_happened(done.error())) {
      settle(std::move(after));
    } else {
      ASSERT_TRUE(done.error().code() == Code::unavailable || done.error().code() == Code::no_space) << done.error().to_string();
    }
  }
  void remove(const std::string& key) {
    ModelBucket after = bucket_;
    auto done = h_.remove("b", key);
    after.remove(key, done ? done->version_id : "");
    finish(done, std::move(after));
  }
  void remove_version(const std::string& key) {
    const auto found = bucket_.keys.find(key);
    if (found == bucket_.keys.end()) return;
    const ModelVersion version = found->second[below(found->second.size())];
    ModelBucket after = bucket_;
    after.remove_version(key, version.id);
    auto done = h_.remove("b", key, version.id);
    if (done) EXPECT_EQ(done->delete_marker, version.marker);
    finish(done, std::move(after));
  }
  void change_versioning() {
    if (below(3) != 0) return;
    const Versioning to = below(2) == 0 ? Versioning::enabled : Versioning::suspended;
    auto done = h_.set_versioning("b", to);
    if (!done && !nothing_happened(done.error())) {
      set_faults(false);
      done = h_.executor.run(h_.engine->get_bucket(h_.ctx, "b"));
    }
    if (done) bucket_.versioning = done->versioning;
  }
  void set_tags(const std::string& key) {
    const ModelVersion* current = bucket_.current(key);
    const Tags tags{{"s", std::to_string(below(1000))}};
    auto done = h_.executor.run(h_.engine->set_tags(h_.ctx, "b", key, "", tags));
    if (current == nullptr) {
      ASSERT_FALSE(done);
      return;
    }
    ModelBucket after = bucket_;
    after.keys[key].front().tags = tags;
    finish(done, std::move(after));
  }
  void multipart(const std::string& key) {
    auto upload = h_.create_upload("b", key, {.tags = {{"m", "1"}}});
    if (!upload) return;  // an upload of unknown outcome goes with the bucket
    CompleteOptions complete;
    std::string bytes;
    const uint64_t parts = 1 + below(4);
    for (uint32_t number = 1; number <= parts; ++number) {
      const std::string piece = some_bytes();
      auto part = h_.put_part("b", key, upload->upload_id, number, piece);
      if (!part) continue;
      bytes += piece;
      complete.parts.push_back({.number = number, .etag = part->etag});
    }
    if (complete.parts.empty() || below(4) == 0) {
      h_.abort("b", key, upload->upload_id).ignore("an upload of unknown outcome goes with the bucket");
      return;
    }
    ModelBucket after = bucket_;
    auto done = h_.complete("b", key, upload->upload_id, complete);
    after.put(key, done ? done->version_id : "", bytes, {{"m", "1"}});
    multipart_contents_.insert(bytes);
    finish(done, std::move(after));
  }
  void remove_many() {
    std::vector<DeleteTarget> targets;
    std::set<std::string> keys;
    for (uint64_t i = 0; i < 1 + below(4); ++i) keys.insert(some_key());
    for (const auto& key : keys) {
      const auto found = bucket_.keys.find(key);
      const bool version = found != bucket_.keys.end() && below(2) == 0;
      targets.push_back({.key = key, .version_id = version ? found->second[below(found->second.size())].id : ""});
    }
    auto results = h_.executor.run(h_.engine->remove_many(h_.ctx, "b", targets));
    set_faults(false);
    for (size_t i = 0; i < targets.size(); ++i) {
      ModelBucket after = bucket_;
      if (targets[i].version_id.empty()) {
        after.remove(targets[i].key, results[i] ? results[i]->version_id : "");
      } else {
        after.remove_version(targets[i].key, targets[i].version_id);
      }
      if (results[i]) {
        bucket_ = std::move(after);
      } else if (!nothing_happened(results[i].error())) {
        // One key at a time: what the others did is not to be mixed in.
        if (difference(bucket_, targets[i].key).empty()) continue;
        ASSERT_EQ(difference(after, targets[i].key), "");
        bucket_ = std::move(after);
      }
    }
  }
  template <class T>
  void finish(const Result<T>& done, ModelBucket after) {
    if (done) {
      bucket_ = std::move(after);
    } else if (!nothing_happened(done.error())) {
      settle(std::move(after));
    } else {
      ASSERT_EQ(done.error().code(), Code::unavailable) << done.error().to_string();
    }
  }

  // What differs between the model and the store (of one key, or all); "" if nothing. Fills in ids that the model does not know yet.
  std::string difference(ModelBucket& model, std::optional<std::string> only = {}) {
    VersionListOptions options{.limit = 1 + below(7)};
    std::map<std::string, std::vector<ObjectInfo>> listed;
    for (;;) {
      auto page = h_.list_versions("b", options);
      if (!page) return page.error().to_string();
      for (auto& version : page->versions) {
        if (!only || version.key == *only) listed[version.key].push_back(std::move(version));
      }
      if (!page->truncated) break;
      options.key_marker = page->next_key_marker;
      options.version_marker = page->next_version_marker;
    }
    for (auto& [key, versions] : model.keys) {
      if (only && key != *only) continue;
      const auto& found = listed[key];
      if (found.size() != versions.size()) return fmt::format("'{}' has {} versions, not {}", key, found.size(), versions.size());
      for (size_t i = 0; i < versions.size(); ++i) {
        ModelVersion& wanted = versions[i];
        if (wanted.id.empty() && (found[i].version_id == "null") == wanted.null) wanted.id = found[i].version_id;
        if (found[i].version_id != wanted.id) return fmt::format("'{}' version {} is {}, not {}", key, i, found[i].version_id, wanted.id);
        if (found[i].is_latest != (i == 0)) return fmt::format("'{}' version {}: latest {}", key, i, found[i].is_latest);
        if (found[i].delete_marker != wanted.marker) return fmt::format("'{}' version {}: marker {}", key, i, found[i].delete_marker);
        if (wanted.marker) continue;
        auto bytes = h_.get("b", key, wanted.id);
        if (!bytes) return fmt::format("'{}' version {}: {}", key, i, bytes.error().to_string());
        if (*bytes != wanted.bytes) return fmt::format("'{}' version {}: other bytes", key, i);
        auto head = h_.head("b", key, wanted.id);
        if (!head || head->tags != wanted.tags || head->size != wanted.bytes.size())
          return fmt::format("'{}' version {}: other attributes", key, i);
      }
      listed.erase(key);
    }
    for (const auto& [key, versions] : listed) {
      if (!versions.empty()) return fmt::format("'{}' is there", key);
    }
    return "";
  }

  void compare() {
    ASSERT_EQ(difference(bucket_), "");
    for (const std::string prefix : {"", "a", "a/", "b"}) {
      for (const std::string delimiter : {"", "/", "b"}) {
        std::vector<std::string> expected, found;
        std::string group;
        for (const auto& [key, versions] : bucket_.keys) {
          if (!key.starts_with(prefix) || versions.front().marker) continue;
          const size_t at = delimiter.empty() ? std::string::npos : key.find(delimiter, prefix.size());
          if (at == std::string::npos) {
            expected.push_back(key);
          } else if (expected.empty() || expected.back() != "group " + key.substr(0, at + delimiter.size())) {
            expected.push_back("group " + key.substr(0, at + delimiter.size()));
          }
        }
        ListOptions options{.prefix = prefix, .delimiter = delimiter, .limit = 1 + below(5)};
        for (;;) {
          auto page = h_.list("b", options);
          ASSERT_TRUE(page);
          std::map<std::string, std::string> merged;
          for (const auto& object : page->objects) merged[object.key] = object.key;
          for (const auto& common : page->common_prefixes) merged[common] = "group " + common;
          for (const auto& [name, text] : merged) found.push_back(text);
          if (!page->truncated) break;
          options.after = page->next;
        }
        ASSERT_EQ(found, expected) << "prefix '" << prefix << "' delimiter '" << delimiter << "'";
      }
    }
    for (const auto& [key, versions] : bucket_.keys) {
      auto got = h_.get("b", key);
      if (versions.front().marker) {
        ASSERT_EQ(code_of(got), Code::not_found);
      } else {
        ASSERT_TRUE(got) << got.error().to_string();
        ASSERT_EQ(*got, versions.front().bytes);
      }
    }
    ASSERT_THAT(h_.violations(), testing::IsEmpty());
  }

  void clean_up() {
    for (const auto& [key, versions] : bucket_.keys) {
      for (const auto& version : versions) ASSERT_TRUE(h_.remove("b", key, bucket_.versioning == Versioning::off ? "" : version.id));
    }
    ASSERT_TRUE(h_.executor.run(h_.engine->delete_bucket(h_.ctx, "b")));
    ASSERT_THAT(h_.violations(), testing::IsEmpty());
    ASSERT_EQ(h_.data.writes_held(), 0u);
    ASSERT_EQ(h_.executor.run(h_.meta->scan({.range = {"k", "l"}}))->size(), 0u);
    ASSERT_EQ(h_.executor.run(h_.meta->scan({.range = {"i", "j"}}))->size(), 0u);
  }

  Harness h_;
  const uint64_t seed_;
  const bool faulty_;
  SeededRandom random_;
  ModelBucket bucket_;
  std::set<std::string> multipart_contents_;
  uint64_t contents_ = 0, fault_round_ = 0;
};

void run_seeds(bool faulty, uint64_t count, int operations) {
  const char* chosen = std::getenv("QUARRY_TEST_SEED");
  const uint64_t first = chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : 1;
  for (uint64_t seed = first; seed < first + (chosen != nullptr ? 1 : count); ++seed) {
    SCOPED_TRACE(fmt::format("QUARRY_TEST_SEED={}", seed));
    Run(seed, faulty).go(operations);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(Model, agrees_over_random_operations) { run_seeds(false, 10, 400); }
TEST(Model, agrees_over_random_operations_with_conflicts_unknown_outcomes_and_errors) { run_seeds(true, 25, 400); }

}  // namespace
}  // namespace quarry::object
