#include "auth/credential_cache.h"
#include "auth/identity.h"
#include "auth/identity_rows.h"
#include "io/executor.h"
#include "meta/row_batches.h"

namespace quarry::auth {
namespace {

using meta::MetaStore;
using meta::Transaction;

constexpr size_t kNameSizeMax = 64;
constexpr size_t kAccessKeySizeMin = 3, kAccessKeySizeMax = 128;
constexpr size_t kSecretSizeMin = 8, kSecretSizeMax = 256;
constexpr size_t kUsersListedMax = 100'000;  // more users than that are refused at creation of the list, not cut silently

bool is_name(std::string_view text) {
  if (text.empty() || text.size() > kNameSizeMax) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("+.@_-").find(c) != std::string_view::npos;
  });
}

bool is_access_key(std::string_view text) {
  if (text.size() < kAccessKeySizeMin || text.size() > kAccessKeySizeMax) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._@+-").find(c) != std::string_view::npos;
  });
}

bool is_secret(std::string_view text) {
  if (text.size() < kSecretSizeMin || text.size() > kSecretSizeMax) return false;
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

std::string random_text(Random& random, size_t size, std::string_view alphabet) {
  std::string text;
  for (size_t i = 0; i < size; ++i) text.push_back(alphabet[random.below(alphabet.size())]);
  return text;
}

class MetaIdentityStore : public IdentityStore {
 public:
  MetaIdentityStore(MetaStore& store, AeadKey master_key, const Clock& clock, Random& random)
      : store_(store), master_key_(master_key), clock_(clock), random_(random) {}

  Task<Result<User>> create_user(std::string name, bool administrator) override {
    if (!is_name(name)) co_return fail(Code::invalid_argument, "user name '{}': 1 to 64 letters, digits or + . @ _ -", name);
    User user;
    user.name = std::move(name);
    user.administrator = administrator;
    user.created = clock_.wall_now();
    uint8_t id[16];
    random_.fill(id);
    user.id = to_hex(id);
    auto done = co_await meta::transact(store_, [&user](Transaction& t) { return add_user(t, user); });
    if (!done) co_return std::move(done).error();
    co_return user;
  }

  Task<Result<User>> get_user(std::string name_or_id) override {
    CO_TRY_ASSIGN(auto by_name, co_await store_.get(name_row_key(name_or_id)));
    std::string id = name_or_id;
    if (by_name.has_value()) {
      auto decoded = decode_name(*by_name);
      if (!decoded) co_return std::move(decoded).error();
      id = std::move(*decoded);
    }
    CO_TRY_ASSIGN(auto row, co_await store_.get(user_row_key(id)));
    if (!row.has_value()) co_return fail(Code::not_found, "user '{}'", name_or_id);
    co_return decode_user(id, *row);
  }

  Task<Result<std::vector<User>>> list_users() override {
    std::vector<User> users;
    meta::RowBatches batches(store_, meta::KeyRange::prefix("au"));
    for (;;) {
      CO_TRY_ASSIGN(auto rows, co_await batches.next());
      if (rows.empty()) break;
      for (const auto& row : rows) {
        Decoder in(std::string_view(row.key).substr(2));
        auto user = decode_user(in.key_text(), row.value);
        if (!user) co_return std::move(user).error();
        users.push_back(std::move(*user));
      }
      if (users.size() > kUsersListedMax) co_return fail(Code::too_large, "more than {} users: ask for one by name", kUsersListedMax);
    }
    std::sort(users.begin(), users.end(), [](const User& a, const User& b) { return a.name < b.name; });
    co_return users;
  }

  Task<Result<void>> set_user_enabled(std::string name, bool enabled) override {
    auto done = co_await meta::transact(store_, [&name, enabled](Transaction& t) { return enable_user(t, name, enabled); });
    cache_.clear();
    if (!done) co_return std::move(done).error();
    co_return Result<void>();
  }

  Task<Result<void>> delete_user(std::string name) override {
    auto done = co_await meta::transact(store_, [&name](Transaction& t) { return remove_user(t, name); });
    cache_.clear();
    if (!done) co_return std::move(done).error();
    co_return Result<void>();
  }

  Task<Result<NewKey>> create_key(std::string user_name, std::string access_key, std::string secret_key) override {
    NewKey made;
    made.access_key = access_key.empty() ? random_text(random_, 20, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") : std::move(access_key);
    made.secret_key = secret_key.empty() ? random_text(random_, 40, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
                                         : std::move(secret_key);
    if (!is_access_key(made.access_key)) {
      co_return fail(Code::invalid_argument, "access key '{}': {} to {} letters, digits or . _ @ + -", made.access_key, kAccessKeySizeMin,
                     kAccessKeySizeMax);
    }
    if (!is_secret(made.secret_key)) {
      co_return fail(Code::invalid_argument, "secret key: {} to {} printable characters without spaces", kSecretSizeMin, kSecretSizeMax);
    }
    KeyRow row;
    row.key.access_key = made.access_key;
    row.key.created = clock_.wall_now();
    const std::string name = access_key_row_key(made.access_key);
    AeadNonce nonce;
    random_.fill(nonce);
    row.sealed_secret = seal(master_key_, nonce, bytes_of(made.secret_key), bytes_of(name));
    auto done = co_await meta::transact(store_, [&row, &user_name](Transaction& t) { return add_key(t, row, user_name); });
    cache_.erase(made.access_key);
    if (!done) co_return std::move(done).error();
    co_return made;
  }

  Task<Result<std::vector<AccessKey>>> list_keys(std::string user_name) override {
    CO_TRY_ASSIGN(auto user, co_await get_user(user_name));
    const std::string prefix = index_prefix(user.id);
    meta::RowBatches batches(store_, meta::KeyRange::prefix(prefix));
    std::vector<AccessKey> keys;
    for (;;) {
      CO_TRY_ASSIGN(auto rows, co_await batches.next());
      if (rows.empty()) break;
      std::vector<std::string> names, row_keys;
      for (const auto& row : rows) {
        Decoder in(std::string_view(row.key).substr(prefix.size()));
        names.push_back(in.key_text());
        row_keys.push_back(access_key_row_key(names.back()));
      }
      CO_TRY_ASSIGN(auto found, co_await store_.get_many(std::move(row_keys)));
      for (size_t i = 0; i < names.size(); ++i) {
        if (!found[i]) continue;  // deleted between the two reads
        auto key = decode_key(names[i], *found[i]);
        if (!key) co_return std::move(key).error();
        keys.push_back(std::move(key->key));
      }
    }
    co_return keys;
  }

  Task<Result<void>> set_key_enabled(std::string access_key, bool enabled) override {
    auto done = co_await meta::transact(store_, [&access_key, enabled](Transaction& t) { return enable_key(t, access_key, enabled); });
    cache_.erase(access_key);
    if (!done) co_return std::move(done).error();
    co_return Result<void>();
  }

  Task<Result<void>> delete_key(std::string access_key) override {
    auto done = co_await meta::transact(store_, [&access_key](Transaction& t) { return remove_key(t, access_key); });
    cache_.erase(access_key);
    if (!done) co_return std::move(done).error();
    co_return Result<void>();
  }

  Task<Result<std::shared_ptr<const Credential>>> credential(std::string access_key) override {
    if (auto cached = cache_.find(access_key, Executor::here().now())) co_return cached;
    const uint64_t generation = cache_.generation();
    const std::string row_key = access_key_row_key(access_key);
    if (row_key.size() > meta::kKeySizeMax) co_return fail(Code::not_found, "access key of {} bytes", access_key.size());
    CO_TRY_ASSIGN(auto row, co_await store_.get(row_key));
    if (!row.has_value()) co_return fail(Code::not_found, "access key '{}'", access_key);
    auto key = decode_key(access_key, *row);
    if (!key) co_return std::move(key).error();
    CO_TRY_ASSIGN(auto user_row, co_await store_.get(user_row_key(key->key.user_id)));
    if (!user_row.has_value()) co_return fail(Code::not_found, "the user of access key '{}'", access_key);
    auto user = decode_user(key->key.user_id, *user_row);
    if (!user) co_return std::move(user).error();
    if (!key->key.enabled || !user->enabled) co_return fail(Code::not_found, "access key '{}' is disabled", access_key);
    auto secret = open_sealed(master_key_, bytes_of(key->sealed_secret), bytes_of(row_key));
    if (!secret) co_return std::move(secret).error().with(fmt::format("secret of access key '{}'", access_key));
    std::shared_ptr<const Credential> credential = make_credential(std::move(key->key), std::move(*user), std::move(*secret));
    cache_.insert(credential, generation, Executor::here().now());
    co_return credential;
  }

 private:
  static Task<Result<std::string>> user_id_of(Transaction& t, std::string name) {
    CO_TRY_ASSIGN(auto row, co_await t.get(name_row_key(name)));
    if (!row.has_value()) co_return fail(Code::not_found, "user '{}'", name);
    co_return decode_name(*row);
  }

  static Task<Result<void>> add_user(Transaction& t, User user) {
    CO_TRY_ASSIGN(auto taken, co_await t.get(name_row_key(user.name)));
    if (taken.has_value()) co_return fail(Code::already_exists, "user '{}'", user.name);
    t.put(name_row_key(user.name), encode_name(user.id));
    t.put(user_row_key(user.id), encode_user(user));
    co_return Result<void>();
  }

  static Task<Result<void>> enable_user(Transaction& t, std::string name, bool enabled) {
    CO_TRY_ASSIGN(auto id, co_await user_id_of(t, name));
    CO_TRY_ASSIGN(auto row, co_await t.get(user_row_key(id)));
    if (!row.has_value()) co_return fail(Code::not_found, "user '{}'", name);
    auto user = decode_user(id, *row);
    if (!user) co_return std::move(user).error();
    user->enabled = enabled;
    t.put(user_row_key(id), encode_user(*user));
    co_return Result<void>();
  }

  static Task<Result<void>> remove_user(Transaction& t, std::string name) {
    CO_TRY_ASSIGN(auto id, co_await user_id_of(t, name));
    const std::string prefix = index_prefix(id);
    meta::ScanOptions scan;
    scan.range = meta::KeyRange::prefix(prefix);
    scan.limit = 10'000;
    CO_TRY_ASSIGN(auto keys, co_await t.scan(scan));
    if (keys.size() == scan.limit) co_return fail(Code::too_large, "user '{}' has {} keys or more: delete some first", name, scan.limit);
    for (const auto& row : keys) {
      Decoder in(std::string_view(row.key).substr(prefix.size()));
      t.remove(access_key_row_key(in.key_text()));
      t.remove(row.key);
    }
    t.remove(user_row_key(id));
    t.remove(name_row_key(name));
    co_return Result<void>();
  }

  static Task<Result<void>> add_key(Transaction& t, KeyRow row, std::string user_name) {
    CO_TRY_ASSIGN(auto id, co_await user_id_of(t, user_name));
    const std::string key = access_key_row_key(row.key.access_key);
    CO_TRY_ASSIGN(auto taken, co_await t.get(key));
    if (taken.has_value()) co_return fail(Code::already_exists, "access key '{}'", row.key.access_key);
    row.key.user_id = id;
    t.put(key, encode_key(row));
    t.put(index_row_key(id, row.key.access_key), std::string(1, static_cast<char>(kRowVersion)));
    co_return Result<void>();
  }

  static Task<Result<void>> enable_key(Transaction& t, std::string access_key, bool enabled) {
    CO_TRY_ASSIGN(auto row, co_await t.get(access_key_row_key(access_key)));
    if (!row.has_value()) co_return fail(Code::not_found, "access key '{}'", access_key);
    auto key = decode_key(access_key, *row);
    if (!key) co_return std::move(key).error();
    key->key.enabled = enabled;
    t.put(access_key_row_key(access_key), encode_key(*key));
    co_return Result<void>();
  }

  static Task<Result<void>> remove_key(Transaction& t, std::string access_key) {
    CO_TRY_ASSIGN(auto row, co_await t.get(access_key_row_key(access_key)));
    if (!row.has_value()) co_return fail(Code::not_found, "access key '{}'", access_key);
    auto key = decode_key(access_key, *row);
    if (!key) co_return std::move(key).error();
    t.remove(access_key_row_key(access_key));
    t.remove(index_row_key(key->key.user_id, access_key));
    co_return Result<void>();
  }

  MetaStore& store_;
  const AeadKey master_key_;
  const Clock& clock_;
  Random& random_;
  CredentialCache cache_;
};

}  // namespace

std::unique_ptr<IdentityStore> make_identity_store(MetaStore& store, std::string master_key, const Clock& clock, Random& random) {
  AeadKey key;
  CHECK(master_key.size() == key.size(), "the master key has 32 bytes");
  std::memcpy(key.data(), master_key.data(), key.size());
  wipe(master_key);
  return std::make_unique<MetaIdentityStore>(store, key, clock, random);
}

}  // namespace quarry::auth
