// Ids of writes: given out once, whatever becomes of the metadata.
#include "cluster/stripes/write_ids.h"

#include <gtest/gtest.h>

#include "cluster/log/metadata_log_roots.h"
#include "cluster/map/keys.h"
#include "io/sim/sim_executor.h"
#include "meta/memory/memory_meta_store.h"
#include "meta/transact.h"

namespace quarry::cluster {
namespace {

constexpr uint32_t kBlock = 16;

class WriteIdsTest : public ::testing::Test {
 protected:
  // The first id that a start of this epoch gives out, on metadata that ends with the rows it is given. The rows become those it leaves.
  WriteId first_of(uint64_t epoch, std::map<std::string, std::string>& rows) {
    auto store = meta::MemoryMetaStore::open(meta::make_memory_meta_media());
    executor.run(fill(store.get(), &rows));
    Background background(executor);
    WriteId id = 0;
    {
      WriteIds ids(*store, epoch, background, kBlock);
      Result<WriteId> taken = executor.run(ids.take());
      EXPECT_TRUE(taken) << taken.error().to_string();
      if (taken) id = *taken;
      background.request_stop();
      executor.run(background.join());
    }
    for (const std::string& key : {keys::next_write_id(), keys::leased()}) {
      auto row = executor.run(store->get(key));
      if (row && *row) rows[key] = **row;
    }
    EXPECT_TRUE(executor.run(store->close()));
    return id;
  }
  static Task<void> fill(meta::MetaStore* store, std::map<std::string, std::string>* rows) {
    if (rows->empty()) co_return;
    auto transaction = co_await store->begin();
    for (const auto& [key, value] : *rows) (*transaction)->put(key, value);
    Result<meta::Version> done = co_await (*transaction)->commit();
    EXPECT_TRUE(done);
  }

  SimExecutor executor;
  static constexpr uint64_t kSkipped = uint64_t{1} << 32;
};

TEST_F(WriteIdsTest, of_one_start_go_on_where_those_of_the_last_ended) {
  std::map<std::string, std::string> rows;
  EXPECT_EQ(first_of(1, rows), 1u);
  EXPECT_EQ(first_of(2, rows), 1u + kBlock);
  EXPECT_EQ(first_of(900, rows), 1u + 2 * kBlock);
}

// The start that accepted it may have ended before it leased anything: the epoch is what it left.
TEST_F(WriteIdsTest, after_a_loss_are_none_that_may_have_been_given_out) {
  std::map<std::string, std::string> rows;
  EXPECT_EQ(first_of(5, rows), 1u);
  const uint64_t accepted = 5 + 1 + kEpochsSkippedAfterLoss;
  EXPECT_EQ(first_of(accepted + 1, rows), 1u + kBlock + kSkipped);
  EXPECT_EQ(first_of(accepted + 2, rows), 1u + 2 * kBlock + kSkipped) << "skipped again";
}

TEST_F(WriteIdsTest, after_two_losses_are_not_those_that_were_given_out_between_them) {
  std::map<std::string, std::string> before;
  EXPECT_EQ(first_of(5, before), 1u);
  std::map<std::string, std::string> between = before;
  const WriteId given_out = first_of(5 + 1 + kEpochsSkippedAfterLoss, between);
  EXPECT_GT(given_out, kSkipped);
  EXPECT_GT(first_of(5 + 2 * (1 + kEpochsSkippedAfterLoss), before), given_out + kBlock) << "back to before the first of them";
}

TEST_F(WriteIdsTest, where_the_metadata_went_back_to_nothing_were_given_out_before) {
  std::map<std::string, std::string> rows;
  EXPECT_GT(first_of(2 + kEpochsSkippedAfterLoss, rows), kSkipped);
}

}  // namespace
}  // namespace quarry::cluster
