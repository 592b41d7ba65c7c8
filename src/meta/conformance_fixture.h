// What the conformance suite asks of a backend under test, and the helpers of its tests.
#pragma once
#include <gtest/gtest.h>

#include "base/coding.h"
#include "io/sim/sim_executor.h"
#include "io/sync.h"
#include "meta/meta_store.h"

namespace quarry::meta {

// One store under test, and what a test may do to it from outside.
class MetaFixture {
 public:
  virtual ~MetaFixture() = default;
  virtual MetaStore& store() = 0;
  virtual void advance_clock(Duration by) = 0;  // wall time, for leases
  // Commits take a while from now on (virtual time), so that many are in flight together.
  virtual void slow_commits(uint64_t seed) = 0;
  // Some commits answer unknown_outcome, conflict or unavailable without need, if the backend can do that.
  virtual void flaky_commits(uint64_t seed) = 0;
  // The process dies now; commits in flight answer an error. Then the store is opened again over what survived.
  virtual void crash(uint64_t seed) = 0;
  virtual void reopen(SimExecutor& executor) = 0;
  virtual void finish(SimExecutor& executor) = 0;  // closes
};

struct MetaBackend {
  std::string name;
  std::function<std::unique_ptr<MetaFixture>(SimExecutor&)> make;
};
inline std::string backend_name(const ::testing::TestParamInfo<MetaBackend>& info) { return info.param.name; }

class MetaConformance : public ::testing::TestWithParam<MetaBackend> {
 protected:
  void SetUp() override { fixture_ = GetParam().make(executor_); }
  void TearDown() override {
    fixture_->finish(executor_);
    fixture_.reset();
  }
  MetaStore& store() { return fixture_->store(); }

  // Calls, each run to its end.
  template <class T>
  T run(Task<T> task) {
    return executor_.run(std::move(task));
  }
  std::optional<std::string> get(const std::string& key) {
    auto value = run(store().get(key));
    EXPECT_TRUE(value) << value.error().to_string();
    return value ? *value : std::nullopt;
  }
  std::unique_ptr<Transaction> begin() { return std::move(run(store().begin()).value()); }
  Version commit(Transaction& transaction) {
    auto version = run(transaction.commit());
    EXPECT_TRUE(version) << version.error().to_string();
    return version.value_or(0);
  }
  Code commit_code(Transaction& transaction) {
    auto version = run(transaction.commit());
    EXPECT_FALSE(version);
    return version ? Code::internal : version.error().code();
  }
  Version put(const std::string& key, const std::string& value) {
    auto transaction = begin();
    transaction->put(key, value);
    return commit(*transaction);
  }
  Version remove(const std::string& key) {
    auto transaction = begin();
    transaction->remove(key);
    return commit(*transaction);
  }
  std::vector<KeyValue> scan(ScanOptions options) {
    auto rows = run(store().scan(std::move(options)));
    EXPECT_TRUE(rows) << rows.error().to_string();
    return rows ? std::move(*rows) : std::vector<KeyValue>();
  }
  static std::string text(const std::vector<KeyValue>& rows) {
    std::string out;
    for (const auto& row : rows) out += row.key + "=" + row.value + " ";
    return out;
  }

  SimExecutor executor_;
  std::unique_ptr<MetaFixture> fixture_;
};

inline std::string counter_text(int64_t value) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &value, 8);
  return out;
}

inline Task<Result<Version>> put_later(MetaStore& store, std::string key, std::string value) {
  CO_TRY_ASSIGN(auto transaction, co_await store.begin());
  transaction->put(std::move(key), std::move(value));
  Result<Version> version = co_await transaction->commit();
  co_return version;
}

}  // namespace quarry::meta
