// What a checkpoint says about itself (CheckpointManifest::extra), and what a directory remembers of it.
// Layouts: docs/formats/metadata-log.md, sections 4 and 5.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "meta/rocksdb/database.h"

namespace quarry::meta {

inline constexpr uint32_t kCheckpointMagic = 0x31434d51;  // "QMC1"
inline constexpr uint16_t kCheckpointVersion = 1;
inline constexpr size_t kCheckpointFilesMax = 1u << 20;

// One file of the database: `name` in the database's directory, `stored` in the log (globally unique).
struct CheckpointEntry {
  std::string name;
  std::string stored;
  uint64_t size = 0;
  uint32_t crc = 0;  // CRC32C of the contents
};

struct CheckpointExtra {
  Applied applied;  // exactly what the files hold
  std::vector<CheckpointEntry> files;
  std::string encode() const;
  // Names are checked: plain file names, nothing that leaves the directory.
  static Result<CheckpointExtra> decode(std::string_view bytes);
};

// A small file inside the database's directory: which of its files are in the log already, under which names. It moves with the
// directory, and names the database's identity, so that it is never believed for another one. Losing it costs a full checkpoint.
struct KnownFiles {
  std::string identity;
  std::map<std::string, CheckpointEntry> files;                                                // by name
  static KnownFiles load(const std::string& database_directory, const std::string& identity);  // empty if not to be believed. Blocks
  Result<void> save(const std::string& database_directory) const;                              // blocks
};

// Plain helpers for files; all block.
Result<void> write_file_durably(const std::string& path, std::string_view bytes);  // write, fsync, rename into place
Result<std::string> read_small_file(const std::string& path, size_t size_max);
Result<uint32_t> crc_of_file(const std::string& path, uint64_t size);
Result<void> sync_directory(const std::string& path);
// A file of so many bytes that take their room on any file system. no_space: nothing is left of it.
Result<void> write_ballast(const std::string& path, uint64_t bytes);
bool is_plain_file_name(std::string_view name);

}  // namespace quarry::meta
