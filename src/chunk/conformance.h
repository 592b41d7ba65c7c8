// What every ChunkStore must do, as a test suite over the interface. An implementation's test file includes this once and says
//   INSTANTIATE_TEST_SUITE_P(Raw, ChunkStoreConformance, testing::Values(ConformanceSetup{...}));
#pragma once
#include <gtest/gtest.h>

#include <map>

#include "chunk/chunk_store.h"
#include "chunk/test_payload.h"
#include "io/clock.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {

// A place where a store can be opened again and again; the first open finds it empty.
class ConformancePlace {
 public:
  virtual ~ConformancePlace() = default;
  virtual std::unique_ptr<ChunkStore> open(SimExecutor& executor) = 0;
};
struct ConformanceSetup {
  std::string name;
  std::function<std::unique_ptr<ConformancePlace>(SimExecutor&)> make;
  uint64_t capacity = 64 * kMiB;  // about; the suite fills at most half of it
};
inline std::ostream& operator<<(std::ostream& out, const ConformanceSetup& setup) { return out << setup.name; }

class ChunkStoreConformance : public testing::TestWithParam<ConformanceSetup> {
 protected:
  void SetUp() override {
    place = GetParam().make(executor);
    store = place->open(executor);
    ASSERT_TRUE(store);
  }
  void TearDown() override {
    if (store) EXPECT_TRUE(executor.run(store->close()));
  }
  void reopen() {
    ASSERT_TRUE(executor.run(store->close()));
    store.reset();
    store = place->open(executor);
    ASSERT_TRUE(store);
  }
  // Parts that are neither aligned nor of whole blocks, unless parts == 1.
  Result<void> put(ChunkId id, const std::string& text, size_t parts = 1, Stream stream = Stream::data) {
    std::vector<ByteView> views;
    const ByteView all = bytes_of(text);
    for (size_t i = 0, at = 0; i < parts; ++i) {
      const size_t end = i + 1 == parts ? all.size() : std::min(all.size(), at + all.size() / parts + i);
      views.push_back(all.subspan(at, end - at));
      at = end;
    }
    return executor.run(store->put(id, std::move(views), {stream}));
  }
  std::string get(ChunkId id, uint32_t offset = 0, uint32_t length = kChunkSizeMax) {
    auto got = executor.run(store->get(id, offset, length));
    EXPECT_TRUE(got) << got.error().to_string();
    return got ? std::string(text_of(got->view())) : std::string();
  }
  Code get_error(ChunkId id, uint32_t offset = 0, uint32_t length = 1) {
    auto got = executor.run(store->get(id, offset, length));
    EXPECT_FALSE(got);
    return got ? Code::internal : got.error().code();
  }
  void expect_sound() {
    auto report = executor.run(store->fsck());
    ASSERT_TRUE(report) << report.error().to_string();
    for (const auto& sentence : report->violations) ADD_FAILURE() << sentence;
  }

  SimExecutor executor{{.threads = true}};
  std::unique_ptr<ConformancePlace> place;
  std::unique_ptr<ChunkStore> store;
};

TEST_P(ChunkStoreConformance, a_chunk_of_any_size_reads_back_whole_and_in_ranges) {
  for (const size_t size : {0ul, 1ul, 511ul, 4096ul, 12'345ul, 65'535ul, 65'536ul, 65'537ul, 1'000'000ul, size_t{kChunkSizeMax}}) {
    const ChunkId id{7, size};
    const std::string text = test_payload(size, size);
    ASSERT_TRUE(put(id, text, 1 + size % 5)) << size;
    EXPECT_TRUE(get(id) == text) << size;
    SeededRandom random(size);
    for (int i = 0; i < 12; ++i) {
      const auto offset = static_cast<uint32_t>(random.below(size + 1));
      const auto length = static_cast<uint32_t>(random.below(200'000));
      EXPECT_TRUE(get(id, offset, length) == text.substr(offset, length)) << size << " at " << offset << "+" << length;
    }
    EXPECT_EQ(get(id, static_cast<uint32_t>(size), 10), "");
    EXPECT_EQ(get_error(id, static_cast<uint32_t>(size) + 1), Code::out_of_range);
    const auto stat = executor.run(store->stat(id));
    ASSERT_TRUE(stat);
    EXPECT_EQ(stat->size, size);
    EXPECT_GE(stat->stored_size, size);
    if (size > 2'000'000) ASSERT_TRUE(executor.run(store->remove({id})));
  }
  expect_sound();
}

TEST_P(ChunkStoreConformance, refuses_what_the_contract_refuses) {
  ASSERT_TRUE(put({1, 1}, "first"));
  const auto twice = put({1, 1}, "second");
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code(), Code::already_exists);
  EXPECT_EQ(get({1, 1}), "first");
  const auto big = put({1, 2}, std::string(kChunkSizeMax + 1, 'x'));
  ASSERT_FALSE(big);
  EXPECT_EQ(big.error().code(), Code::too_large);
  EXPECT_EQ(get_error({9, 9}), Code::not_found);
  const auto stat = executor.run(store->stat({9, 9}));
  ASSERT_FALSE(stat);
  EXPECT_EQ(stat.error().code(), Code::not_found);
  const auto label = executor.run(store->set_label(std::string(64 * kKiB + 1, 'l')));
  ASSERT_FALSE(label);
  EXPECT_EQ(label.error().code(), Code::too_large);
}

TEST_P(ChunkStoreConformance, removing_is_durable_and_idempotent) {
  ASSERT_TRUE(put({1, 1}, test_payload(1, 3000)));
  ASSERT_TRUE(put({1, 2}, test_payload(2, 300'000)));
  ASSERT_TRUE(put({1, 3}, test_payload(3, 3000)));
  ASSERT_TRUE(executor.run(store->remove({{1, 1}, {1, 2}, {5, 5}})));
  ASSERT_TRUE(executor.run(store->remove({{1, 1}, {1, 2}, {5, 5}})));
  EXPECT_EQ(get_error({1, 1}), Code::not_found);
  reopen();
  EXPECT_EQ(get_error({1, 1}), Code::not_found);
  EXPECT_EQ(get_error({1, 2}), Code::not_found);
  EXPECT_TRUE(get({1, 3}) == test_payload(3, 3000));
  expect_sound();
}

TEST_P(ChunkStoreConformance, lists_in_order_of_id_within_bounds) {
  std::vector<ChunkId> ids;
  SeededRandom random(3);
  for (int i = 0; i < 300; ++i) ids.push_back({random.below(5), random.u64()});
  for (const auto& id : ids) ASSERT_TRUE(put(id, "x"));
  std::sort(ids.begin(), ids.end());
  const auto all = executor.run(store->list({}, {UINT64_MAX, UINT64_MAX}, 1000));
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ((*all)[i].id, ids[i]);
  const auto page = executor.run(store->list(ids[100], ids[200], 40));
  ASSERT_TRUE(page);
  ASSERT_EQ(page->size(), 40u);
  EXPECT_EQ(page->front().id, ids[100]);
  EXPECT_EQ(page->back().id, ids[139]);
  const auto rest = executor.run(store->list(ids[190], ids[200], 40));
  ASSERT_TRUE(rest);
  EXPECT_EQ(rest->size(), 10u);
}

TEST_P(ChunkStoreConformance, the_label_is_replaced_atomically_and_kept) {
  EXPECT_EQ(store->label(), "");
  for (const size_t size : {1ul, 100ul, 64 * kKiB, 0ul, 5000ul}) {
    const std::string label = test_payload(size, size);
    ASSERT_TRUE(executor.run(store->set_label(label)));
    EXPECT_TRUE(store->label() == label);
    reopen();
    EXPECT_TRUE(store->label() == label) << size;
  }
}

Task<void> inline conformance_put(ChunkStore& store, ChunkId id, std::string text, Result<void>* result) {
  std::vector<ByteView> parts = {bytes_of(text)};
  *result = co_await store.put(id, std::move(parts), {});
}
Task<void> inline conformance_many(ChunkStore& store, std::vector<std::pair<ChunkId, std::string>> chunks,
                                   std::vector<Result<void>>& results) {
  TaskGroup group;
  for (size_t i = 0; i < chunks.size(); ++i) group.spawn(conformance_put(store, chunks[i].first, chunks[i].second, &results[i]));
  co_await group.join();
}

TEST_P(ChunkStoreConformance, overlapping_puts_all_arrive) {
  std::vector<std::pair<ChunkId, std::string>> chunks;
  for (uint64_t i = 0; i < 200; ++i) chunks.push_back({{3, i}, test_payload(i, i % 10 == 0 ? 100'000 + i : i * 37)});
  std::vector<Result<void>> results(chunks.size());
  executor.run(conformance_many(*store, chunks, results));
  for (const auto& result : results) EXPECT_TRUE(result);
  reopen();
  for (const auto& [id, text] : chunks) EXPECT_TRUE(get(id) == text) << id.to_string();
  expect_sound();
}

TEST_P(ChunkStoreConformance, scrub_visits_every_chunk_in_steps) {
  for (uint64_t i = 1; i <= 40; ++i) ASSERT_TRUE(put({1, i}, test_payload(i, 20'000)));
  ChunkId next{};
  uint64_t checked = 0, steps = 0;
  for (bool complete = false; !complete && steps < 100; ++steps) {
    const auto progress = executor.run(store->scrub(next, 100'000));
    ASSERT_TRUE(progress);
    EXPECT_TRUE(progress->damaged.empty());
    checked += progress->chunks_checked;
    complete = progress->complete;
    next = progress->next;
  }
  EXPECT_EQ(checked, 40u);
  EXPECT_GT(steps, 3u);
}

TEST_P(ChunkStoreConformance, a_closed_store_answers_device_gone) {
  ASSERT_TRUE(put({1, 1}, "x"));
  ASSERT_TRUE(executor.run(store->close()));
  EXPECT_EQ(get_error({1, 1}), Code::device_gone);
  const auto later = put({1, 2}, "y");
  ASSERT_FALSE(later);
  EXPECT_EQ(later.error().code(), Code::device_gone);
  EXPECT_TRUE(executor.run(store->close()));
}

// As the operator's `device enable` meets the guard's look.
TEST_P(ChunkStoreConformance, health_checks_may_meet) {
  const auto all = [this]() -> Task<std::vector<Result<void>>> {
    std::vector<Task<Result<void>>> checks;
    for (int i = 0; i < 8; ++i) checks.push_back(store->check_health());
    co_return co_await when_all(std::move(checks));
  };
  for (int round = 0; round < 20; ++round) {
    for (const auto& healthy : executor.run(all())) ASSERT_TRUE(healthy) << healthy.error().to_string();
  }
}

// Random operations against a map, with reopening in between.
TEST_P(ChunkStoreConformance, behaves_like_a_map) {
  for (const uint64_t seed : {1, 2, 3}) {
    SeededRandom random(seed);
    std::map<ChunkId, std::string> model;
    uint64_t bytes = 0, next = seed << 32;
    const auto listed = executor.run(store->list({}, {UINT64_MAX, UINT64_MAX}, SIZE_MAX));
    ASSERT_TRUE(listed);
    std::vector<ChunkId> old;
    for (const auto& stat : *listed) old.push_back(stat.id);
    ASSERT_TRUE(executor.run(store->remove(old)));
    for (int step = 0; step < 400; ++step) {
      const uint64_t what = random.below(100);
      if (what < 50 && bytes < GetParam().capacity / 2) {
        const size_t size = random.below(5) == 0 ? random.below(2'000'000) : random.below(20'000);
        const ChunkId id{random.below(3), ++next};
        model[id] = test_payload(next, size);
        bytes += size;
        ASSERT_TRUE(put(id, model[id], 1 + random.below(3), static_cast<Stream>(random.below(3))));
      } else if (what < 80 && !model.empty()) {
        auto at = model.lower_bound({random.below(3), seed << 32 | random.below(400)});
        if (at == model.end()) at = model.begin();
        bytes -= at->second.size();
        ASSERT_TRUE(executor.run(store->remove({at->first})));
        model.erase(at);
      } else if (what < 98 && !model.empty()) {
        auto at = model.lower_bound({random.below(3), seed << 32 | random.below(400)});
        if (at == model.end()) at = model.begin();
        const auto offset = static_cast<uint32_t>(random.below(at->second.size() + 1));
        const auto length = static_cast<uint32_t>(random.below(100'000));
        ASSERT_TRUE(get(at->first, offset, length) == at->second.substr(offset, length)) << "seed " << seed << " step " << step;
      } else if (what >= 98) {
        reopen();
      }
    }
    for (const auto& [id, text] : model) ASSERT_TRUE(get(id) == text) << "seed " << seed << " " << id.to_string();
    const auto space = store->space();
    EXPECT_EQ(space.chunk_count, model.size());
    EXPECT_EQ(space.payload_bytes, bytes);
    expect_sound();
  }
}

}  // namespace quarry::chunk
