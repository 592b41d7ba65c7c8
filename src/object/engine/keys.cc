#include "object/engine/keys.h"

namespace quarry::object {
namespace {

std::string start(RowKind kind, BucketId bucket, size_t more) {
  std::string out;
  out.reserve(9 + more);
  out.push_back(static_cast<char>(kind));
  Encoder(out).key_u64(bucket);
  return out;
}

std::string keyed(RowKind kind, BucketId bucket, std::string_view key) {
  std::string out = start(kind, bucket, key.size() + 20);
  Encoder(out).key_text(key);
  return out;
}

}  // namespace

std::string bucket_name_key(std::string_view name) {
  std::string out = "bn";
  Encoder(out).key_text(name);
  return out;
}
std::string bucket_name_prefix(std::string_view prefix) {
  std::string out = "bn";
  Encoder(out).key_text_prefix(prefix);
  return out;
}
std::string bucket_id_key(BucketId id) {
  std::string out = "bi";
  Encoder(out).key_u64(id);
  return out;
}
std::string last_bucket_id_key() { return "bs"; }

std::string counter_key(BucketId bucket, UsageCounter counter) {
  std::string out = "k";
  Encoder(out).key_u64(bucket).u8(static_cast<uint8_t>(counter));
  return out;
}

std::string current_key(BucketId bucket, std::string_view key) { return keyed(RowKind::current, bucket, key); }
std::string shown_file_key(BucketId bucket, std::string_view key, uint64_t write_id) {
  std::string out = keyed(RowKind::shown_file, bucket, key);
  Encoder(out).key_u64(write_id);
  return out;
}
meta::KeyRange shown_files_range() { return {"f", prefix_end("f")}; }
std::string null_pointer_key(BucketId bucket, std::string_view key) { return keyed(RowKind::null_pointer, bucket, key); }
std::string version_key(BucketId bucket, std::string_view key, Sequence sequence) {
  std::string out = keyed(RowKind::version, bucket, key);
  Encoder(out).key_u64(~sequence);
  return out;
}
std::string payload_key(BucketId bucket, std::string_view key, PayloadSlot slot, uint32_t page) {
  std::string out = keyed(RowKind::payload, bucket, key);
  Encoder(out).key_u64(slot).key_u32(page);
  return out;
}
std::string upload_key(BucketId bucket, std::string_view key, std::string_view upload_id) {
  return keyed(RowKind::upload, bucket, key).append(upload_id);
}
std::string part_key(std::string_view upload_id, uint32_t number) {
  std::string out = "p";
  out.append(upload_id);
  Encoder(out).key_u32(number);
  return out;
}

meta::KeyRange bucket_names_range() { return {"bn", prefix_end("bn")}; }
meta::KeyRange bucket_rows(RowKind kind, BucketId bucket) {
  std::string begin = start(kind, bucket, 0);
  std::string end = prefix_end(begin);
  return {std::move(begin), std::move(end)};
}
meta::KeyRange key_rows(RowKind kind, BucketId bucket, std::string_view key) {
  std::string begin = keyed(kind, bucket, key);
  std::string end = prefix_end(begin);
  return {std::move(begin), std::move(end)};
}
meta::KeyRange prefix_rows(RowKind kind, BucketId bucket, std::string_view prefix) {
  std::string begin = start(kind, bucket, prefix.size() + 4);
  Encoder(begin).key_text_prefix(prefix);
  std::string end = prefix_end(begin);
  return {std::move(begin), std::move(end)};
}
meta::KeyRange part_rows(std::string_view upload_id) {
  std::string begin = "p";
  begin.append(upload_id);
  std::string end = prefix_end(begin);
  return {std::move(begin), std::move(end)};
}
std::string after_key(RowKind kind, BucketId bucket, std::string_view key) { return prefix_end(keyed(kind, bucket, key)); }
std::string after_prefix(RowKind kind, BucketId bucket, std::string_view prefix) { return prefix_rows(kind, bucket, prefix).end; }

Result<ParsedKey> parse_row_key(std::string_view row_key) {
  Decoder in(row_key);
  const char kind = static_cast<char>(in.u8());
  ParsedKey parsed;
  parsed.bucket = in.key_u64();
  parsed.key = in.key_text();
  switch (kind) {
    case 'o':
    case 'n': break;
    case 'f':
      if (in.remaining() > 0) parsed.write_id = in.key_u64();  // rows of the first version end with the key
      break;
    case 'v': parsed.sequence = ~in.key_u64(); break;
    case 'i':
      parsed.slot = in.key_u64();
      parsed.page = in.key_u32();
      break;
    case 'u': parsed.upload_id = std::string(text_of(in.bytes(kUploadIdBytes))); break;
    default: return fail(Code::corrupt, "row of unknown kind {}", to_hex(bytes_of(row_key.substr(0, 16))));
  }
  TRY(in.finish("row key"));
  return parsed;
}

Result<ParsedPartKey> parse_part_key(std::string_view row_key) {
  Decoder in(row_key);
  const char kind = static_cast<char>(in.u8());
  ParsedPartKey parsed;
  parsed.upload_id = std::string(text_of(in.bytes(kUploadIdBytes)));
  parsed.number = in.key_u32();
  TRY(in.finish("part row key"));
  if (kind != 'p') return fail(Code::corrupt, "row of kind {} among the parts", int{kind});
  return parsed;
}

Result<std::string> parse_bucket_name_key(std::string_view row_key) {
  Decoder in(row_key);
  const bool right = in.u8() == 'b' && in.u8() == 'n';
  std::string name = in.key_text();
  TRY(in.finish("bucket row key"));
  if (!right) return fail(Code::corrupt, "row of another kind among the buckets");
  return name;
}

bool row_keys_fit(std::string_view key) {
  constexpr size_t kAround = 1 + 8 + 2 + kUploadIdBytes;  // kind, bucket, end of text, and the longest suffix
  const auto zeros = static_cast<size_t>(std::count(key.begin(), key.end(), '\0'));
  return key.size() + zeros + kAround <= meta::kKeySizeMax;
}

}  // namespace quarry::object
