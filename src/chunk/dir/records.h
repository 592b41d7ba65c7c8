// Records of files: kept in an extended attribute, or in a side file where the file system has none or too little room.
// Blocking; any thread.
#pragma once
#include "chunk/dir/file_system.h"
#include "chunk/dir/format.h"

namespace quarry::chunk::dir {

enum class RecordPlace : uint8_t { attribute, side_file };

// The whole file; at most limit bytes, else corrupt.
Result<std::string> read_whole(FileSystem& files, const std::string& path, uint64_t limit);
// Replaces the file atomically and durably (written beside, synced, renamed, directory synced). scratch: a name in .quarry/unfinished.
Result<void> replace_whole(FileSystem& files, const std::string& path, const std::string& scratch, std::string_view content);
// Makes the directory if it is missing, durably; its parent exists.
Result<void> ensure_directory(FileSystem& files, const std::string& path);

// Whose file lies at a path of the readable tree.
enum class Lies : uint8_t { ours, others, nothing };
// What is known of the file that should lie there.
struct Expected {
  ChunkId first;
  uint64_t size = 0;
  int64_t modified_ns = 0;
};

class Records {
 public:
  Records(FileSystem& files, bool use_attributes) : files_(files), use_attributes_(use_attributes) {}

  // Before all else, once the descriptor is read.
  void set_drive(Uuid drive) { drive_ = drive; }

  // Keeps the record of an open file (its `drive` is set here). An attribute is durable with the next sync of the file, a side file when
  // this returns; a reader finds the old record or the new one, never a part.
  Result<RecordPlace> keep(File& file, FileRecord record);
  struct Found {
    FileRecord record;
    RecordPlace place = RecordPlace::attribute;
  };
  // The record of an open file. first: whose record, where the file itself cannot say. None: it has no record.
  // Errors: corrupt (it has one that cannot be read), io_error.
  Result<std::optional<Found>> find(File& file, std::optional<ChunkId> first);
  // Only what the attribute says: a record or a pointer, of this mountpath.
  Result<std::optional<DecodedRecord>> from_attribute(File& file);
  Result<FileRecord> from_side_file(ChunkId first);
  // Before a file is hidden, replaced or removed: what somebody put in its place is theirs, and stays. A file that cannot say whose it is
  // (a record in a side file, an attribute that somebody took away) is ours if size and time are.
  Result<Lies> look(const std::string& path, const Expected& expected);
  // Of a file that stays; durable with the next sync of the file.
  Result<void> erase(File& file, ChunkId first, RecordPlace place);
  // Of a file that is gone. A side file that outlives a crash is removed at open.
  void forget(ChunkId first, RecordPlace place);

 private:
  FileSystem& files_;
  const bool use_attributes_;
  Uuid drive_;
};

}  // namespace quarry::chunk::dir
