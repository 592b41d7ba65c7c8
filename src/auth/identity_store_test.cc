// Users and keys over the in-memory metadata twin: what is kept, what is hidden, and how soon a change acts.
#include <gtest/gtest.h>

#include "auth/identity.h"
#include "auth/identity_rows.h"
#include "io/sim/sim_executor.h"
#include "meta/memory/memory_meta_store.h"

namespace quarry::auth {
namespace {

struct Identities : testing::Test {
  ManualClock clock;
  SeededRandom random{1};
  SimExecutor executor;
  std::unique_ptr<meta::MemoryMetaStore> store = meta::MemoryMetaStore::create({});
  std::unique_ptr<IdentityStore> identities = make_identity_store(*store, std::string(32, 'm'), clock, random);

  Code credential_code(const std::string& key) {
    auto found = executor.run(identities->credential(key));
    return found ? Code::internal : found.error().code();
  }
};

TEST_F(Identities, users_and_keys_come_back_as_made) {
  const auto user = executor.run(identities->create_user("alice", true));
  ASSERT_TRUE(user);
  EXPECT_EQ(user->id.size(), 32u);
  EXPECT_EQ(executor.run(identities->create_user("alice", false)).error().code(), Code::already_exists);
  EXPECT_EQ(executor.run(identities->get_user("alice"))->id, user->id);
  EXPECT_EQ(executor.run(identities->get_user(user->id))->name, "alice");
  EXPECT_EQ(executor.run(identities->get_user("bob")).error().code(), Code::not_found);

  const auto generated = executor.run(identities->create_key("alice", "", ""));
  ASSERT_TRUE(generated);
  EXPECT_EQ(generated->access_key.size(), 20u);
  EXPECT_EQ(generated->secret_key.size(), 40u);
  ASSERT_TRUE(executor.run(identities->create_key("alice", "my-key", "my-secret-key")));
  EXPECT_EQ(executor.run(identities->create_key("alice", "my-key", "another-secret")).error().code(), Code::already_exists);
  EXPECT_EQ(executor.run(identities->create_key("bob", "k-1", "secret-secret")).error().code(), Code::not_found);
  EXPECT_EQ(executor.run(identities->create_key("alice", "short", "1234567")).error().code(), Code::invalid_argument);
  EXPECT_EQ(executor.run(identities->create_key("alice", "with/slash", "12345678")).error().code(), Code::invalid_argument);
  EXPECT_EQ(executor.run(identities->list_keys("alice"))->size(), 2u);

  const auto credential = executor.run(identities->credential("my-key"));
  ASSERT_TRUE(credential);
  EXPECT_EQ((*credential)->secret, "my-secret-key");
  EXPECT_EQ((*credential)->user.name, "alice");
  EXPECT_TRUE((*credential)->user.administrator);
}

TEST_F(Identities, a_change_through_the_store_acts_at_once) {
  ASSERT_TRUE(executor.run(identities->create_user("alice", false)));
  ASSERT_TRUE(executor.run(identities->create_key("alice", "key-one", "secret-one")));
  ASSERT_TRUE(executor.run(identities->create_key("alice", "key-two", "secret-two")));
  ASSERT_TRUE(executor.run(identities->credential("key-one")));
  ASSERT_TRUE(executor.run(identities->set_key_enabled("key-one", false)));
  EXPECT_EQ(credential_code("key-one"), Code::not_found);
  ASSERT_TRUE(executor.run(identities->set_key_enabled("key-one", true)));
  EXPECT_TRUE(executor.run(identities->credential("key-one")));
  ASSERT_TRUE(executor.run(identities->set_user_enabled("alice", false)));
  EXPECT_EQ(credential_code("key-one"), Code::not_found);
  EXPECT_EQ(credential_code("key-two"), Code::not_found);
  ASSERT_TRUE(executor.run(identities->set_user_enabled("alice", true)));
  ASSERT_TRUE(executor.run(identities->delete_key("key-one")));
  EXPECT_EQ(credential_code("key-one"), Code::not_found);
  ASSERT_TRUE(executor.run(identities->delete_user("alice")));
  EXPECT_EQ(credential_code("key-two"), Code::not_found);
  EXPECT_EQ(executor.run(store->scan({.range = meta::KeyRange::prefix("a")}))->size(), 0u);  // nothing of the user remains
}

TEST_F(Identities, a_change_made_elsewhere_acts_within_a_second) {
  const auto elsewhere = make_identity_store(*store, std::string(32, 'm'), clock, random);
  ASSERT_TRUE(executor.run(identities->create_user("alice", false)));
  ASSERT_TRUE(executor.run(identities->create_key("alice", "key", "secret-secret")));
  ASSERT_TRUE(executor.run(identities->credential("key")));
  ASSERT_TRUE(executor.run(elsewhere->set_key_enabled("key", false)));
  executor.run(sleep_for(std::chrono::seconds(1)));
  EXPECT_EQ(credential_code("key"), Code::not_found);
}

TEST_F(Identities, secrets_are_sealed_to_their_row_and_key) {
  ASSERT_TRUE(executor.run(identities->create_user("alice", false)));
  ASSERT_TRUE(executor.run(identities->create_key("alice", "key-a", "secret-aaaa")));
  ASSERT_TRUE(executor.run(identities->create_key("alice", "key-b", "secret-bbbb")));
  const auto rows = executor.run(store->scan({.range = meta::KeyRange::prefix("ak")}));
  ASSERT_EQ(rows->size(), 2u);
  for (const auto& row : *rows) EXPECT_EQ(row.value.find("secret"), std::string::npos);
  // Another master key opens nothing.
  const auto other = make_identity_store(*store, std::string(32, 'x'), clock, random);
  EXPECT_EQ(executor.run(other->credential("key-a")).error().code(), Code::corrupt);
  // A row moved to another name opens nothing.
  const auto moved = executor.run(meta::transact(*store, [&](meta::Transaction& t) -> Task<Result<void>> {
    t.put(access_key_row_key("key-b"), (*rows)[0].value);
    co_return Result<void>();
  }));
  ASSERT_TRUE(moved);
  EXPECT_EQ(credential_code("key-b"), Code::corrupt);
}

TEST_F(Identities, damaged_rows_are_corrupt_and_later_versions_incompatible) {
  KeyRow row;
  row.key.user_id = "u";
  const std::string good = encode_key(row);
  EXPECT_TRUE(decode_key("k", good));
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_EQ(decode_key("k", std::string_view(good).substr(0, size)).error().code(), Code::corrupt) << size;
  std::string later = good;
  later[0] = 9;
  EXPECT_EQ(decode_key("k", later).error().code(), Code::incompatible);
}

}  // namespace
}  // namespace quarry::auth
