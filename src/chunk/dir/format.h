// Every structure that a mountpath keeps beside the plain files. Page: docs/formats/dir.md. Little-endian; each ends in the CRC-32C of all
// that comes before it in the structure.
#pragma once
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/coding.h"
#include "base/ids.h"
#include "base/result.h"

namespace quarry::chunk::dir {

inline constexpr uint16_t kFormatVersion = 1;
inline constexpr uint32_t kBlock = 64 * kKiB;  // one checksum covers this much of a chunk
inline constexpr size_t kAttributeBytesMax =
    2800;  // a longer record goes to a side file; ext4 has 4 KiB beside an inode for all attributes
inline constexpr size_t kRecordBytesMax = 1u << 30;  // sanity of a side file
// In a record's attributes: the file was there before Quarry took it in.
inline constexpr const char* kAdoptedAttribute = "quarry-adopted";
inline constexpr const char* kRecordAttribute = "user.quarry.record";

// Names below the mountpath.
inline constexpr const char* kOwn = ".quarry";
inline constexpr const char* kDescriptorFile = ".quarry/descriptor";
inline constexpr const char* kLabelFile = ".quarry/label";
inline constexpr const char* kLockFile = ".quarry/lock";
inline constexpr const char* kCleanFile = ".quarry/clean";
inline constexpr const char* kProbeFile = ".quarry/unfinished/probe";
inline constexpr const char* kChunks = ".quarry/chunks";          // anonymous chunks: XX/ID
inline constexpr const char* kHidden = ".quarry/hidden";          // finished files that are not shown: XX/ID
inline constexpr const char* kRecords = ".quarry/records";        // side files of records: XX/ID
inline constexpr const char* kAbsent = ".quarry/absent";          // which chunks of a file are removed while others are not: XX/ID
inline constexpr const char* kDisplaced = ".quarry/displaced";    // files of others that lay where an object had to go: ID-NAME
inline constexpr const char* kUnfinished = ".quarry/unfinished";  // being written; removed at open

// "chunks/3f/0123...": the place of an id in one of the directories above. XX is spread over 256 names by a CRC of the id.
std::string shelf_of(ChunkId id);                         // "3f"
std::string place_of(const char* directory, ChunkId id);  // ".quarry/chunks/3f/<32 hex>"

// First argument of crc32c for block `block` of chunk `id`.
uint32_t checksum_seed(ChunkId id, uint32_t block);

struct Descriptor {
  Uuid drive, cluster;
  uint64_t fencing_epoch = 0;
  uint16_t version = kFormatVersion;
};
std::string encode_descriptor(const Descriptor& descriptor);
// Errors: corrupt, incompatible (newer).
Result<Descriptor> decode_descriptor(ByteView bytes);

std::string encode_label(std::string_view label);
Result<std::string> decode_label(ByteView bytes);

using Attributes = std::vector<std::pair<std::string, std::string>>;

// What is known of one file.
struct FileRecord {
  Uuid drive;  // of the mountpath; the records of another one (a copied file, an earlier installation) mean nothing here
  ChunkId first;
  uint64_t size = 0;
  uint32_t chunk_size = 0;
  uint64_t stride = 0;
  int64_t modified_ns = 0;
  std::string directory, name;
  std::string path;  // where it was recorded, if that is not the path of its key (an adopted file); else empty
  Attributes attributes;
  std::vector<uint32_t> checksums;  // of all blocks, chunk by chunk

  uint32_t chunk_count() const { return size == 0 ? 1 : static_cast<uint32_t>(div_up(size, chunk_size)); }
  ChunkId chunk(uint32_t index) const { return {first.high, first.low + index * stride}; }
  uint32_t blocks_per_chunk() const { return static_cast<uint32_t>(div_up(chunk_size, kBlock)); }
  uint32_t size_of_chunk(uint32_t index) const {
    return static_cast<uint32_t>(std::min<uint64_t>(chunk_size, size - static_cast<uint64_t>(index) * chunk_size));
  }
  uint64_t block_count() const {
    if (size == 0) return 0;
    const uint32_t last = chunk_count() - 1;
    return static_cast<uint64_t>(last) * blocks_per_chunk() + div_up(size_of_chunk(last), kBlock);
  }
};
// Whether size, chunk size and stride can be served: chunk size in 1..kChunkSizeMax, ids that do not overflow.
Result<void> check_shape(ChunkId first, uint64_t size, uint32_t chunk_size, uint64_t stride);

std::string encode_record(const FileRecord& record);
// In the attribute of a file whose record is a side file: only the id.
std::string encode_record_pointer(Uuid drive, ChunkId first);
struct DecodedRecord {
  FileRecord record;  // only `drive` and `first` if it is a pointer
  bool is_pointer = false;
};
Result<DecodedRecord> decode_record(ByteView bytes);

// An anonymous chunk is a file of a header and the payload.
struct ChunkHeader {
  ChunkId id;
  uint32_t size = 0;
  uint8_t stream = 0;
  std::vector<uint32_t> checksums;
};
constexpr uint64_t chunk_header_bytes(uint64_t size) { return 40 + 4 * div_up(size, kBlock); }
std::string encode_chunk_header(const ChunkHeader& header);
Result<ChunkHeader> decode_chunk_header(ByteView bytes);  // of at least chunk_header_bytes(size) bytes
// Payload bytes of an anonymous chunk's file of so many bytes; out_of_range if no payload gives this size.
Result<uint32_t> payload_of_file_size(uint64_t file_size);

// Bit i is set: chunk i of the file was removed.
std::string encode_absent(ChunkId first, const std::vector<bool>& absent);
struct DecodedAbsent {
  ChunkId first;
  std::vector<bool> absent;
};
Result<DecodedAbsent> decode_absent(ByteView bytes);

// Checksums of one payload that comes in parts.
std::vector<uint32_t> checksums_of(ChunkId id, const std::vector<ByteView>& parts);

}  // namespace quarry::chunk::dir
