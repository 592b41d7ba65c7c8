// The format of a kfs directory (docs/formats/kfs.md): the descriptor file, and the records inside a bucket.
//
//   #bucket        which store and which bucket this LevelDB is
//   /NAME          header of a chunk
//   NAME 000000    blocks of 64 KiB, consecutive
//   NAME!          header of a file, right behind its blocks
// NAME is the hash of a file, or the id of a chunk, in lower-case hex. The header holds size and checksums; the file or chunk exists if and
// only if its header does. Blocks without one are what an interrupted write or removal left.
//
// A file is one run of the key space with all its records, so that what was written for it never meets other runs in a compaction. The
// headers of chunks lie together instead, because a node lists all of its chunks when it starts.
#pragma once
#include <array>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "chunk/kfs/kfs_options.h"

namespace quarry::chunk::kfs {

inline constexpr std::string_view kDescriptorName = "kfs.store";
inline constexpr size_t kKeyBytesMax = 1024, kLabelBytesMax = 64 * kKiB;
inline constexpr size_t kDescriptorBytesMax = 256 + kKeyBytesMax + kLabelBytesMax + kKfsBuckets * 33 + 2;

enum class StoreKind : uint8_t { files = 1, chunks = 2 };  // frozen numbers
// The version that is written. Stores of files of version 1 had their headers at /NAME; they are converted when they are opened.
inline constexpr uint16_t format_version(StoreKind kind) { return kind == StoreKind::files ? 2 : 1; }

struct BucketCount {
  uint64_t files = 0, payload_bytes = 0;
  uint64_t stored_bytes = 0;   // live, by stored_size()
  uint64_t garbage_bytes = 0;  // deleted since the last compaction
  bool operator==(const BucketCount&) const = default;
};

struct Descriptor {
  uint16_t version = format_version(StoreKind::files);
  StoreKind kind = StoreKind::files;
  uint8_t hash = 0;   // KfsHash; 0 in a chunk store
  bool clean = true;  // closed properly
  Uuid drive, cluster;
  uint64_t bucket_bytes = kKfsBucketBytes;
  uint64_t mounts = 0;
  std::array<uint8_t, kKfsBuckets / 8> created{};  // bit i: bucket i was created, so its absence is a loss
  std::string key;                                 // its first byte sorts
  std::string label;
  // Version 2, of a store that was closed properly: what is in the buckets that need no look when they are opened next.
  std::map<uint8_t, BucketCount> counts;
  bool has_bucket(size_t bucket) const { return (created[bucket / 8] >> (bucket % 8) & 1) != 0; }
  void set_bucket(size_t bucket) { created[bucket / 8] = static_cast<uint8_t>(created[bucket / 8] | 1u << (bucket % 8)); }
};
std::string encode_descriptor(const Descriptor& descriptor);
// Errors: not_found (other magic), incompatible (newer), corrupt.
Result<Descriptor> decode_descriptor(std::string_view bytes);

std::string bucket_path(const std::string& directory, size_t bucket);  // DIR/buckets/1f

std::string identity_key();
std::string encode_identity(const Uuid& drive, uint8_t bucket);
bool identity_is_sound(std::string_view value);  // false: damaged
Result<void> check_identity(std::string_view value, const Uuid& drive, uint8_t bucket);

std::string header_key(StoreKind kind, std::string_view name);
std::string block_key(std::string_view name, uint64_t index);
std::string run_begin(std::string_view name);  // below every block of the name
std::string run_end(std::string_view name);    // above every block of the name, and above its header in a store of files
// The name inside a key of a run: of a block, or of the header of a file. Empty: not such a key.
std::string_view name_of_run_key(std::string_view key);
bool is_name(std::string_view text);  // lower-case hex, 2 to 128 digits, an even number

struct Header {
  uint64_t size = 0;
  std::vector<uint32_t> checksums;  // one a block
  uint32_t blocks() const { return static_cast<uint32_t>(checksums.size()); }
  uint32_t block_size(uint32_t index) const {
    return index + 1 < blocks() ? kKfsBlock : static_cast<uint32_t>(size - uint64_t{index} * kKfsBlock);
  }
};
std::string encode_header(std::string_view name, const Header& header);
Result<Header> decode_header(std::string_view name, std::string_view value);
inline constexpr uint64_t blocks_of(uint64_t size) { return div_up(size, kKfsBlock); }
// What a file takes of its bucket's limit: payload, keys, checksums.
inline constexpr uint64_t stored_size(uint64_t size) { return size + 256 + blocks_of(size) * 160; }

uint32_t block_checksum(std::string_view name, uint64_t index, ByteView block);

}  // namespace quarry::chunk::kfs
