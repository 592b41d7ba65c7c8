// What a database's directory remembers of the newest checkpoint (docs/formats/metadata-log.md, section 5), and plain helpers for files.
#pragma once
#include <map>

#include "meta/checkpoint.h"

namespace quarry::meta {

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

}  // namespace quarry::meta
