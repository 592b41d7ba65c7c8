// How far an index is, and what a checkpoint of it says about itself (CheckpointManifest::extra).
// Layouts: docs/formats/metadata-log.md, sections 1 and 4. Decoding is safe on hostile bytes.
#pragma once
#include <string>
#include <vector>

#include "base/coding.h"
#include "base/ids.h"
#include "meta/commit_log.h"
#include "meta/meta_store.h"
#include "meta/write_set.h"

namespace quarry::meta {

// How far an index is.
struct Applied {
  FrameNumber frame = 0;
  Version version = 0;
  uint32_t check = 0;      // of that frame
  uint64_t log_bytes = 0;  // of all frames up to it, since the beginning
  Uuid store;
  std::string encode() const;
  static Result<Applied> decode(std::string_view value);
};

// It is a row of the index itself, changed in the same step as the rows of its frame.
inline constexpr std::string_view kAppliedRow =
    "\x01"
    "applied";
static_assert(kAppliedRow.front() == space::kSystem);

inline constexpr uint32_t kCheckpointMagic = 0x31434d51;  // "QMC1"
inline constexpr uint16_t kCheckpointVersion = 1;
inline constexpr size_t kCheckpointFilesMax = 1u << 20;

// One file of a checkpoint: `name` where the index lives, `stored` in the log (globally unique).
struct CheckpointEntry {
  std::string name;
  std::string stored;
  uint64_t size = 0;
  uint32_t crc = 0;  // CRC32C of the contents
  void encode(Encoder& out) const;
  // Names are checked: plain file names, nothing that leaves the directory.
  static Result<CheckpointEntry> decode(Decoder& in);
};

struct CheckpointExtra {
  Applied applied;  // exactly what the files hold
  std::vector<CheckpointEntry> files;
  std::string encode() const;
  static Result<CheckpointExtra> decode(std::string_view bytes);
};

// Bytes with their CRC32C at the end.
std::string seal(std::string bytes);
Result<std::string_view> unseal(std::string_view bytes, std::string_view what);

bool is_plain_file_name(std::string_view name);

}  // namespace quarry::meta
