// fsck: names each kind of damage, and repairs what can be repaired without guessing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "object/engine/records.h"
#include "object/testing/harness.h"

namespace quarry::object {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

// A store with a bit of everything.
struct Fsck : testing::Test {
  void SetUp() override {
    auto made = h.make_bucket("b", Versioning::enabled);
    ASSERT_TRUE(made);
    id = made->id;
    ASSERT_TRUE(h.put("b", "inline", "hello"));
    large = *h.put("b", "large", std::string(100'000, 'l'));
    ASSERT_TRUE(h.put("b", "large", "newer"));
    auto upload = h.create_upload("b", "multi");
    auto part = h.put_part("b", "multi", upload->upload_id, 1, std::string(5000, 'p'));
    multi = *h.complete("b", "multi", upload->upload_id, {.parts = {{.number = 1, .etag = part->etag}}});
    auto open = h.create_upload("b", "open");
    upload_id = *from_hex(open->upload_id);
    ASSERT_TRUE(h.put_part("b", "open", open->upload_id, 1, std::string(5000, 'o')));
    ASSERT_THAT(h.violations(), IsEmpty());
  }
  std::string row(std::string key) { return h.executor.run(h.meta->get(std::move(key)))->value(); }
  void write(std::string key, std::optional<std::string> value) {
    auto transaction = h.executor.run(h.meta->begin());
    if (value) {
      (*transaction)->put(std::move(key), std::move(*value));
    } else {
      (*transaction)->remove(std::move(key));
    }
    ASSERT_TRUE(h.executor.run((*transaction)->commit()));
  }
  void expect_found(std::string what) { EXPECT_THAT(h.violations(), Contains(HasSubstr(what))); }
  Sequence sequence_of(const ObjectInfo& info) { return parse_version_id(info.version_id)->sequence; }

  Harness h{{}, 1};
  BucketId id = 0;
  ObjectInfo large, multi;
  UploadId upload_id;
};

TEST_F(Fsck, names_rows_that_do_not_decode) {
  write(current_key(id, "inline"), "garbage");
  expect_found("key 'b/inline'");
}
TEST_F(Fsck, names_lost_payload_rows) {
  write(payload_key(id, "inline", ~sequence_of(*h.head("b", "inline")), 0), std::nullopt);
  expect_found("its payload row is missing");
}
TEST_F(Fsck, names_damaged_payload_rows) {
  const std::string key = payload_key(id, "inline", ~sequence_of(*h.head("b", "inline")), 0);
  std::string value = row(key);
  value.back() ^= 1;
  write(key, value);
  expect_found("fails its checksum");
  EXPECT_EQ(code_of(h.get("b", "inline")), Code::corrupt);
}
TEST_F(Fsck, names_lost_pages_of_part_lists) {
  write(payload_key(id, "multi", ~sequence_of(multi), 0), std::nullopt);
  expect_found("page 0 of its part list is missing");
}
TEST_F(Fsck, names_and_repairs_wrong_counters) {
  write(counter_key(id, UsageCounter::bytes), encode_counter(7));
  expect_found("its counter of bytes says 7");
  ASSERT_TRUE(h.executor.run(h.engine->fsck(h.ctx, true)));
  EXPECT_THAT(h.violations(), IsEmpty());
}
TEST_F(Fsck, names_and_repairs_payload_of_nobody) {
  write(payload_key(id, "nobody", 5, 0), encode_inline_payload(1, bytes_of("x")));
  expect_found("key 'b/nobody': 1 payload rows belong to no version");
  ASSERT_TRUE(h.executor.run(h.engine->fsck(h.ctx, true)));
  EXPECT_THAT(h.violations(), IsEmpty());
}
// The null slot is used again: a put of the orphan's key between fsck's look and its repair must keep its bytes.
TEST(FsckRepair, never_removes_a_payload_written_since_it_looked) {
  size_t overtaken = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    Harness h;
    auto bucket = h.make_bucket("b");
    ASSERT_TRUE(bucket);
    for (int i = 0; i < 20; ++i) {
      auto transaction = h.executor.run(h.meta->begin());
      (*transaction)->put(payload_key(bucket->id, fmt::format("k{}", i), kNullSlot, 0), encode_inline_payload(1, bytes_of("orphan")));
      ASSERT_TRUE(h.executor.run((*transaction)->commit()));
    }
    h.meta->set_faults(
        {.seed = seed, .read_delay_max = std::chrono::microseconds(100), .commit_delay_max = std::chrono::microseconds(100)});
    std::vector<Task<bool>> tasks;
    tasks.push_back([](Harness& harness, size_t& found) -> Task<bool> {
      auto report = co_await harness.engine->fsck(harness.ctx, true);
      if (report && !report->violations.empty()) ++found;
      co_return report.has_value();
    }(h, overtaken));
    for (int i = 0; i < 20; ++i) {
      tasks.push_back([](Harness& harness, int number) -> Task<bool> {
        co_await sleep_for(std::chrono::microseconds(number * 100));
        auto put = co_await harness.put_task("b", fmt::format("k{}", number), "live");
        co_return put.has_value();
      }(h, i));
    }
    for (const bool fine : h.executor.run(when_all(std::move(tasks)))) EXPECT_TRUE(fine);
    h.meta->set_faults({});
    for (int i = 0; i < 20; ++i) {
      auto got = h.get("b", fmt::format("k{}", i));
      ASSERT_TRUE(got) << "k" << i << ": " << got.error().to_string();
      EXPECT_EQ(*got, "live");
    }
    EXPECT_THAT(h.violations(), IsEmpty());
  }
  EXPECT_GT(overtaken, 0u) << "fsck never met an orphan: the race was not run";
}
TEST_F(Fsck, names_and_repairs_parts_without_an_upload) {
  write(upload_key(id, "open", upload_id), std::nullopt);
  expect_found("which does not exist");
  ASSERT_TRUE(h.executor.run(h.engine->fsck(h.ctx, true)));
  ASSERT_TRUE(h.executor.run(h.engine->fsck(h.ctx, true)));  // the counter shows what is left once the part is gone
  EXPECT_THAT(h.violations(), IsEmpty());
}
TEST_F(Fsck, names_versions_out_of_order) {
  auto record = decode_version(row(version_key(id, "large", sequence_of(large))));
  ASSERT_TRUE(record);
  record->sequence = ~Sequence{0} - 1;
  write(version_key(id, "large", record->sequence), encode(*record));
  expect_found("a noncurrent version is newer than the current one");
  expect_found("is named by two records");
}
TEST_F(Fsck, names_live_versions_that_nothing_shows) {
  write(current_key(id, "large"), std::nullopt);
  expect_found("its newest version is live, but there is no current row");
}
TEST_F(Fsck, names_null_pointers_to_nothing) {
  write(null_pointer_key(id, "inline"), encode_counter(5));
  expect_found("the null pointer names nothing");
}
TEST_F(Fsck, names_buckets_at_odds_with_their_ids) {
  write(bucket_id_key(id), "other");
  expect_found("names 'other'");
  write(bucket_id_key(id), std::nullopt);
  expect_found("has no row");
  write(bucket_name_key("b"), std::nullopt);
  expect_found("does not exist");
}
TEST_F(Fsck, compares_layouts_with_data_rows) {
  auto record = decode_version(row(version_key(id, "large", sequence_of(large))));
  ASSERT_TRUE(record && record->layout);
  auto transaction = h.executor.run(h.meta->begin());
  h.data.retire(**transaction, *record->layout);
  ASSERT_TRUE(h.executor.run((*transaction)->commit()));
  expect_found(fmt::format("write {} is named by a record, but has no data row", record->layout->write_id));
  auto again = h.executor.run(h.meta->begin());
  auto stranger = *record->layout;
  stranger.write_id = 999;
  h.data.record(**again, *record->layout, "test");
  h.data.record(**again, stranger, "test");
  ASSERT_TRUE(h.executor.run((*again)->commit()));
  expect_found("write 999 has a data row, but no record names it");
}
TEST_F(Fsck, is_quiet_beside_traffic) {
  h.meta->set_faults({.read_delay_max = std::chrono::microseconds(50), .commit_delay_max = std::chrono::microseconds(50)});
  std::vector<Task<bool>> tasks;
  for (int worker = 0; worker < 4; ++worker) {
    tasks.push_back([](Harness& harness, int number) -> Task<bool> {
      for (int i = 0; i < 30; ++i) {
        auto put = co_await harness.put_task("b", fmt::format("{}", (number + i) % 5), std::string(i % 2 == 0 ? 10 : 9000, 'x'));
        if (!put) co_return false;
        auto removed = co_await harness.engine->remove(harness.ctx, "b", {.key = fmt::format("{}", i % 5), .version_id = put->version_id});
        if (!removed) co_return false;
      }
      co_return true;
    }(h, worker));
  }
  tasks.push_back([](Harness& harness) -> Task<bool> {
    for (int i = 0; i < 20; ++i) {
      auto report = co_await harness.engine->fsck(harness.ctx, false);
      EXPECT_TRUE(report);
      if (report) EXPECT_THAT(report->violations, IsEmpty());
    }
    co_return true;
  }(h));
  for (const bool fine : h.executor.run(when_all(std::move(tasks)))) EXPECT_TRUE(fine);
  h.meta->set_faults({});
  EXPECT_THAT(h.violations(), IsEmpty());
}

TEST(FsckRepair, two_at_once_mend_a_counter_once) {
  Harness h{{.read_delay_max = std::chrono::milliseconds(1)}, 1};  // so that they overlap
  auto bucket = h.make_bucket("b", Versioning::off);
  ASSERT_TRUE(bucket);
  ASSERT_TRUE(h.put("b", "k", "hello"));
  auto transaction = h.executor.run(h.meta->begin());
  (*transaction)->put(counter_key(bucket->id, UsageCounter::bytes), encode_counter(7));
  ASSERT_TRUE(h.executor.run((*transaction)->commit()));
  std::vector<Task<Result<ObjectEngine::FsckReport>>> repairs;
  for (int i = 0; i < 2; ++i) repairs.push_back(h.engine->fsck(h.ctx, true));
  auto reports = h.executor.run(when_all(std::move(repairs)));
  for (auto& report : reports) ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_THAT(h.violations(), IsEmpty());
}

}  // namespace
}  // namespace quarry::object
