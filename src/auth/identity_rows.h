// Rows of users and access keys behind the metadata contract. Page: docs/formats/identity-rows.md. Internal to auth.
//   "au" key_text(user id)                    -> version u8 = 1 | text name | u8 flags | u64 created       (flags: 1 administrator, 2
//   enabled) "an" key_text(user name)                  -> version u8 = 1 | text user id "ak" key_text(access key)                 ->
//   version u8 = 1 | text user id | u8 flags | u64 created | text sealed secret   (flags: 2 enabled) "ai" key_text(user id) key_text(access
//   key) -> version u8 = 1
// The secret is sealed (codec/aead.h) under the master key, with the row's own key as associated data: a box moved to another row does not
// open.
#pragma once
#include <string>
#include <string_view>

#include "auth/identity.h"
#include "base/coding.h"
#include "codec/aead.h"

namespace quarry::auth {

inline constexpr uint8_t kRowVersion = 1;
inline constexpr uint8_t kFlagAdministrator = 1;
inline constexpr uint8_t kFlagEnabled = 2;

std::string user_row_key(std::string_view user_id);
std::string name_row_key(std::string_view user_name);
std::string access_key_row_key(std::string_view access_key);
std::string index_row_key(std::string_view user_id, std::string_view access_key);
std::string index_prefix(std::string_view user_id);  // of all keys of a user

std::string encode_user(const User& user);
Result<User> decode_user(std::string_view user_id, std::string_view row);

struct KeyRow {
  AccessKey key;
  std::string sealed_secret;
};
std::string encode_key(const KeyRow& row);
Result<KeyRow> decode_key(std::string_view access_key, std::string_view row);

std::string encode_name(std::string_view user_id);
Result<std::string> decode_name(std::string_view row);

}  // namespace quarry::auth
