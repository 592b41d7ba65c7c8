// Row keys of the object engine. Page: docs/formats/object-records.md, section 1.
//
//   b n  name                          bucket record           (names in order: one scan lists buckets)
//   b i  bucket id                     its name
//   b s                                last bucket id given out
//   k    bucket id, counter            usage counter (c and d rows are of the cluster layer)
//   o    bucket id, key                current version, if it is not a delete marker
//   v    bucket id, key, ~sequence     noncurrent versions and delete markers, newest first
//   n    bucket id, key                sequence of the null version, while its row is a v row
//   i    bucket id, key, slot, page    payload of an inline object, or part list of a multipart object
//   f    bucket id, key, write id      the file of a former current version may still be shown (drives that keep files)
//   u    bucket id, key, upload id     upload in progress
//   p    upload id, part number        part of an upload in progress
//
// Integers are big-endian, names and keys are base/coding.h key_text: rows sort as S3 lists.
#pragma once
#include <string>
#include <string_view>

#include "base/coding.h"
#include "meta/meta_store.h"

namespace quarry::object {

using BucketId = uint64_t;
using Sequence = uint64_t;  // orders the versions of one key; 0: none

inline constexpr size_t kUploadIdBytes = 16;
using UploadId = std::string;  // kUploadIdBytes raw bytes

enum class UsageCounter : uint8_t { objects = 0, bytes = 1 };  // frozen numbers

// Where a version keeps its payload rows. All null versions of a key share one slot: there is at most one of them.
using PayloadSlot = uint64_t;
inline constexpr PayloadSlot kNullSlot = ~PayloadSlot{0};
inline PayloadSlot payload_slot(bool null_version, Sequence sequence) { return null_version ? kNullSlot : ~sequence; }

std::string bucket_name_key(std::string_view name);
std::string bucket_name_prefix(std::string_view prefix);
std::string bucket_id_key(BucketId id);
std::string last_bucket_id_key();
std::string counter_key(BucketId bucket, UsageCounter counter);
std::string current_key(BucketId bucket, std::string_view key);
std::string version_key(BucketId bucket, std::string_view key, Sequence sequence);
std::string shown_file_key(BucketId bucket, std::string_view key, uint64_t write_id);
meta::KeyRange shown_files_range();
std::string null_pointer_key(BucketId bucket, std::string_view key);
std::string payload_key(BucketId bucket, std::string_view key, PayloadSlot slot, uint32_t page);
std::string upload_key(BucketId bucket, std::string_view key, std::string_view upload_id);
std::string part_key(std::string_view upload_id, uint32_t number);

// Kinds of rows whose keys go `kind, bucket id, key, ...`.
enum class RowKind : char { current = 'o', version = 'v', null_pointer = 'n', payload = 'i', upload = 'u', shown_file = 'f' };

meta::KeyRange bucket_names_range();
meta::KeyRange bucket_rows(RowKind kind, BucketId bucket);                           // all of one bucket
meta::KeyRange key_rows(RowKind kind, BucketId bucket, std::string_view key);        // all of one key
meta::KeyRange prefix_rows(RowKind kind, BucketId bucket, std::string_view prefix);  // all keys that begin with prefix
meta::KeyRange part_rows(std::string_view upload_id);
// First row after every row of `key`, and of every key that begins with `prefix`.
std::string after_key(RowKind kind, BucketId bucket, std::string_view key);
std::string after_prefix(RowKind kind, BucketId bucket, std::string_view prefix);

// What a row key of kind o, v, n, i, u, f says. Errors: corrupt.
struct ParsedKey {
  BucketId bucket = 0;
  std::string key;
  Sequence sequence = 0;  // v
  PayloadSlot slot = 0;   // i
  uint32_t page = 0;      // i
  std::string upload_id;  // u
  uint64_t write_id = 0;  // f
};
Result<ParsedKey> parse_row_key(std::string_view row_key);

struct ParsedPartKey {
  std::string upload_id;
  uint32_t number = 0;
};
Result<ParsedPartKey> parse_part_key(std::string_view row_key);
Result<std::string> parse_bucket_name_key(std::string_view row_key);

// Is every row key of this object key within the store's limit? (A key of 1,024 NUL bytes is not: each is escaped.)
bool row_keys_fit(std::string_view key);

}  // namespace quarry::object
