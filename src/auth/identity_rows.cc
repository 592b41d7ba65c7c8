#include "auth/identity_rows.h"

namespace quarry::auth {
namespace {

std::string row_key(std::string_view prefix, std::string_view text) {
  std::string key(prefix);
  Encoder(key).key_text(text);
  return key;
}

Result<void> check_version(Decoder& in, std::string_view what) {
  const uint8_t version = in.u8();
  TRY(in.check(what));
  if (version != kRowVersion) return fail(Code::incompatible, "{}: row version {}, this program knows {}", what, version, kRowVersion);
  return {};
}

}  // namespace

std::string user_row_key(std::string_view user_id) { return row_key("au", user_id); }
std::string name_row_key(std::string_view user_name) { return row_key("an", user_name); }
std::string access_key_row_key(std::string_view access_key) { return row_key("ak", access_key); }
std::string index_prefix(std::string_view user_id) { return row_key("ai", user_id); }

std::string index_row_key(std::string_view user_id, std::string_view access_key) {
  std::string key = index_prefix(user_id);
  Encoder(key).key_text(access_key);
  return key;
}

std::string encode_user(const User& user) {
  std::string row;
  const uint8_t flags = static_cast<uint8_t>((user.administrator ? kFlagAdministrator : 0) | (user.enabled ? kFlagEnabled : 0));
  Encoder(row).u8(kRowVersion).text(user.name).u8(flags).u64(static_cast<uint64_t>(user.created));
  return row;
}

Result<User> decode_user(std::string_view user_id, std::string_view row) {
  Decoder in(row);
  TRY(check_version(in, "user row"));
  User user;
  user.id = user_id;
  user.name = in.text();
  const uint8_t flags = in.u8();
  user.administrator = (flags & kFlagAdministrator) != 0;
  user.enabled = (flags & kFlagEnabled) != 0;
  user.created = static_cast<WallTime>(in.u64());
  TRY(in.finish("user row"));
  return user;
}

std::string encode_key(const KeyRow& row) {
  std::string out;
  const uint8_t flags = row.key.enabled ? kFlagEnabled : 0;
  Encoder(out).u8(kRowVersion).text(row.key.user_id).u8(flags).u64(static_cast<uint64_t>(row.key.created)).text(row.sealed_secret);
  return out;
}

Result<KeyRow> decode_key(std::string_view access_key, std::string_view row) {
  Decoder in(row);
  TRY(check_version(in, "access key row"));
  KeyRow out;
  out.key.access_key = access_key;
  out.key.user_id = in.text();
  out.key.enabled = (in.u8() & kFlagEnabled) != 0;
  out.key.created = static_cast<WallTime>(in.u64());
  out.sealed_secret = in.text();
  TRY(in.finish("access key row"));
  return out;
}

std::string encode_name(std::string_view user_id) {
  std::string row;
  Encoder(row).u8(kRowVersion).text(user_id);
  return row;
}

Result<std::string> decode_name(std::string_view row) {
  Decoder in(row);
  TRY(check_version(in, "user name row"));
  std::string user_id(in.text());
  TRY(in.finish("user name row"));
  return user_id;
}

}  // namespace quarry::auth
