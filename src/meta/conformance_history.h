// Part of conformance.h: random concurrent transactions over few keys, and the check that they happened one after another.
//
// Every transaction that writes also puts a row "t/<id>" with its version stamp, so that after an unknown outcome or a crash the
// store itself says whether it happened, and when. Then all that happened are replayed in order of versions against a std::map;
// each read must have returned exactly what the map held just before its transaction. That is strict serializability, together
// with: a transaction sees everything that was acknowledged before it began.
#pragma once
#include "io/clock.h"
#include "meta/conformance_fixture.h"

namespace quarry::meta::history {

using Model = std::map<std::string, std::string>;

struct Access {
  enum class Kind : uint8_t { get, scan, put, remove, remove_range, add } kind = Kind::get;
  std::string key, value;
  ScanOptions options;
  int64_t delta = 0;
  std::optional<std::string> got;
  std::vector<KeyValue> rows;
};

struct Record {
  uint64_t id = 0;
  Version acknowledged_before = 0;  // newest acknowledged version when it began
  std::vector<Access> accesses;     // in order; own writes are seen by own reads
  bool writes = false;
  std::optional<Version> version;  // acknowledged, or found afterwards
  std::optional<Code> error;
};

struct Workload {
  uint64_t seed = 1;
  int clients = 8;
  int transactions = 40;  // each
  int keys = 6;
};

struct Shared {
  Workload workload;
  Version acknowledged = 0;
  std::vector<Record> records;
  uint64_t next_id = 1;
  bool stop = false;
};

inline std::string key_name(uint64_t index) { return fmt::format("k/{}", index); }

inline ScanOptions random_range(Random& random, int keys) {
  uint64_t a = random.below(static_cast<uint64_t>(keys) + 1), b = random.below(static_cast<uint64_t>(keys) + 1);
  if (a > b) std::swap(a, b);
  ScanOptions options;
  options.range = {key_name(a), b == static_cast<uint64_t>(keys) ? std::string("k0") : key_name(b)};
  options.limit = 1 + random.below(static_cast<uint64_t>(keys) + 2);
  options.direction = random.below(2) == 0 ? Direction::forward : Direction::backward;
  return options;
}

inline Task<Result<void>> one_transaction(MetaStore& store, Shared& shared, Random& random, Record& record) {
  record.acknowledged_before = shared.acknowledged;
  CO_TRY_ASSIGN(auto transaction, co_await store.begin());
  const uint64_t steps = 1 + random.below(5);
  const auto keys = static_cast<uint64_t>(shared.workload.keys);
  for (uint64_t step = 0; step < steps; ++step) {
    Access access;
    access.key = key_name(random.below(keys));
    const uint64_t dice = random.below(100);
    if (dice < 35) {
      CO_TRY_ASSIGN(access.got, co_await transaction->get(access.key));
    } else if (dice < 50) {
      access.kind = Access::Kind::scan;
      access.options = random_range(random, shared.workload.keys);
      CO_TRY_ASSIGN(access.rows, co_await transaction->scan(access.options));
    } else if (dice < 72) {
      access.kind = Access::Kind::put;
      access.value = fmt::format("{}.{}", record.id, step) + std::string(random.below(10) == 0 ? 3000 : 0, 'z');
      transaction->put(access.key, access.value);
      record.writes = true;
    } else if (dice < 82) {
      access.kind = Access::Kind::remove;
      transaction->remove(access.key);
      record.writes = true;
    } else if (dice < 86) {
      access.kind = Access::Kind::remove_range;
      access.options = random_range(random, shared.workload.keys);
      transaction->remove_range(access.options.range);
      record.writes = true;
    } else {
      access.kind = Access::Kind::add;
      access.delta = static_cast<int64_t>(random.below(100)) - 50;
      transaction->add(access.key, access.delta);
      record.writes = true;
    }
    record.accesses.push_back(std::move(access));
    if (random.below(4) == 0) co_await Executor::here().yield();
  }
  if (record.writes) transaction->put_versionstamped(fmt::format("t/{:08}", record.id), std::string(8, '\0'), 0);
  Result<Version> version = co_await transaction->commit();
  if (!version) co_return std::move(version).error();
  record.version = *version;
  if (record.writes) shared.acknowledged = std::max(shared.acknowledged, *version);
  co_return Result<void>();
}

inline Task<void> client(MetaStore& store, Shared& shared, uint64_t seed) {
  SeededRandom random(seed);
  for (int i = 0; i < shared.workload.transactions && !shared.stop; ++i) {
    Record record;
    record.id = shared.next_id++;
    const Result<void> done = co_await one_transaction(store, shared, random, record);
    if (!done) record.error = done.error().code();
    shared.records.push_back(std::move(record));
    if (random.below(3) == 0) co_await sleep_for(std::chrono::microseconds(random.below(300)));
  }
}

inline void apply(Model& model, const Access& access) {
  switch (access.kind) {
    case Access::Kind::put: model[access.key] = access.value; return;
    case Access::Kind::remove: model.erase(access.key); return;
    case Access::Kind::remove_range:
      model.erase(model.lower_bound(access.options.range.begin), model.lower_bound(access.options.range.end));
      return;
    case Access::Kind::add: {
      int64_t base = 0;
      if (const auto at = model.find(access.key); at != model.end() && at->second.size() == 8) std::memcpy(&base, at->second.data(), 8);
      model[access.key] = counter_text(base + access.delta);
      return;
    }
    default: return;
  }
}

inline std::vector<KeyValue> model_scan(const Model& model, const ScanOptions& options) {
  std::vector<KeyValue> rows;
  if (options.range.begin >= options.range.end) return rows;
  auto low = model.lower_bound(options.range.begin), high = model.lower_bound(options.range.end);
  if (options.direction == Direction::forward) {
    for (; low != high && rows.size() < options.limit; ++low) rows.push_back({low->first, low->second});
  } else {
    while (high != low && rows.size() < options.limit) {
      --high;
      rows.push_back({high->first, high->second});
    }
  }
  return rows;
}

inline bool same(const std::vector<KeyValue>& a, const std::vector<KeyValue>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const KeyValue& x, const KeyValue& y) { return x.key == y.key && x.value == y.value; });
}

inline std::string brief(const std::vector<KeyValue>& rows) {
  std::string out;
  for (const auto& row : rows) out += row.key + "=" + (row.value.size() == 8 ? to_hex(bytes_of(row.value)) : row.value.substr(0, 12)) + " ";
  return out;
}

// Replays `records` against a model that starts empty, and compares with the rows that the store holds in the end.
inline void check(std::vector<Record> records, const std::vector<KeyValue>& marks, const std::vector<KeyValue>& rows) {
  std::map<uint64_t, Version> found;
  for (const auto& mark : marks) found[std::stoull(mark.key.substr(2))] = Decoder(mark.value).key_u64();
  std::vector<Record*> order;
  for (auto& record : records) {
    const auto at = found.find(record.id);
    if (record.writes) {
      if (record.version) {
        ASSERT_NE(at, found.end()) << "acknowledged transaction " << record.id << " is lost";
        ASSERT_EQ(at->second, *record.version);
      } else if (at != found.end()) {
        ASSERT_NE(record.error, Code::conflict) << "transaction " << record.id << " was refused and happened";
        record.version = at->second;
      }
      found.erase(record.id);
    }
    if (record.version) order.push_back(&record);
  }
  ASSERT_TRUE(found.empty()) << "a transaction nobody made";
  // Writers at their version; readers just after the writer whose version they saw.
  std::sort(order.begin(), order.end(),
            [](const Record* a, const Record* b) { return std::pair(*a->version, !a->writes) < std::pair(*b->version, !b->writes); });
  Model model;
  Version last = 0;
  for (const Record* record : order) {
    if (record->writes) {
      ASSERT_GT(*record->version, last) << "two transactions share a version";
      last = *record->version;
      ASSERT_GT(*record->version, record->acknowledged_before) << "transaction " << record->id << " was placed in the past";
    } else {
      ASSERT_GE(*record->version, record->acknowledged_before) << "transaction " << record->id << " read an old state";
    }
    Model own = model;
    for (const Access& access : record->accesses) {
      if (access.kind == Access::Kind::get) {
        const auto at = own.find(access.key);
        const auto expected = at == own.end() ? std::optional<std::string>() : std::optional(at->second);
        ASSERT_EQ(access.got, expected) << "transaction " << record->id << " at version " << *record->version << " key " << access.key;
      } else if (access.kind == Access::Kind::scan) {
        ASSERT_TRUE(same(access.rows, model_scan(own, access.options)))
            << "scan of transaction " << record->id << " at " << *record->version << " of [" << access.options.range.begin << ", "
            << access.options.range.end << ") limit " << access.options.limit
            << (access.options.direction == Direction::forward ? " forward" : " backward") << "\n  got      " << brief(access.rows)
            << "\n  expected " << brief(model_scan(own, access.options));
      }
      apply(own, access);
    }
    model = std::move(own);
  }
  ASSERT_TRUE(same(rows, model_scan(model, {{"k/", "k0"}, SIZE_MAX}))) << "the final state differs";
}

inline Task<void> run_clients(MetaStore& store, Shared& shared) {
  TaskGroup group;
  for (int i = 0; i < shared.workload.clients; ++i) {
    group.spawn(client(store, shared, shared.workload.seed * 1000 + static_cast<uint64_t>(i)));
  }
  co_await group.join();
}

// Runs the clients, and crashes the store after a drawn time.
inline Task<void> run_clients_and_crash(MetaFixture& fixture, Shared& shared, Duration after) {
  TaskGroup group;
  group.spawn(run_clients(fixture.store(), shared));
  co_await sleep_for(after);
  shared.stop = true;
  fixture.crash(shared.workload.seed);
  co_await group.join();
}

}  // namespace quarry::meta::history
