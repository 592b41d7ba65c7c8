// Users and access keys. Rows live behind the metadata contract; secrets are sealed with the store's master key.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/clock.h"
#include "io/task.h"
#include "meta/meta_store.h"

namespace quarry::auth {

struct User {
  std::string id;    // stable, 32 hex digits
  std::string name;  // unique, what people type
  bool administrator = false;
  bool enabled = true;
  WallTime created = 0;
};

struct AccessKey {
  std::string access_key;  // public
  std::string user_id;
  bool enabled = true;
  WallTime created = 0;
};

struct NewKey {
  std::string access_key;
  std::string secret_key;  // shown once; never logged
};

// A key with what is needed to check its signatures. Kept in memory only; wiped when dropped from the cache.
struct Credential {
  AccessKey key;
  User user;
  std::string secret;
};

// Thread-safe. Lookups are cached (bounded): a change made through this store acts at once, one made elsewhere within a second.
class IdentityStore {
 public:
  virtual ~IdentityStore() = default;
  virtual Task<Result<User>> create_user(std::string name, bool administrator) = 0;
  virtual Task<Result<User>> get_user(std::string name_or_id) = 0;
  virtual Task<Result<std::vector<User>>> list_users() = 0;
  virtual Task<Result<void>> set_user_enabled(std::string name, bool enabled) = 0;
  virtual Task<Result<void>> delete_user(std::string name) = 0;  // with its keys
  // Empty strings: generated (20 and 40 characters). Errors: already_exists, invalid_argument (secret shorter than 8).
  virtual Task<Result<NewKey>> create_key(std::string user_name, std::string access_key, std::string secret_key) = 0;
  virtual Task<Result<std::vector<AccessKey>>> list_keys(std::string user_name) = 0;
  virtual Task<Result<void>> set_key_enabled(std::string access_key, bool enabled) = 0;
  virtual Task<Result<void>> delete_key(std::string access_key) = 0;
  // For authentication. not_found if there is none or key or user is disabled.
  virtual Task<Result<std::shared_ptr<const Credential>>> credential(std::string access_key) = 0;
};

// master_key: 32 bytes. The store, the clock and the randomness must outlive it; all are used on the caller's executor.
std::unique_ptr<IdentityStore> make_identity_store(meta::MetaStore& store, std::string master_key, const Clock& clock, Random& random);

}  // namespace quarry::auth
