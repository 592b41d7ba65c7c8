// Reading a mountpath at open: who lies where, by several threads, each working on one directory or a batch of one directory's names.
// What it keeps is small for each file of ours, and nothing for files of others. Blocking.
#pragma once
#include <atomic>

#include "chunk/dir/records.h"
#include "io/thread_pool.h"

namespace quarry::chunk::dir {

// A file with a record, where it was found.
struct WalkedFile {
  std::string path;
  ChunkId first;
  uint64_t size = 0;  // as recorded
  uint64_t stride = 0;
  int64_t modified_ns = 0;  // as recorded
  uint64_t inode = 0;
  uint32_t chunk_size = 0;
  bool hidden = false;
  bool in_side_file = false;
  std::string directory, name;  // empty where the path says it
  std::string recorded_path;    // where it should be, if that is not its key's path
};
// A file of the readable tree whose attribute does not say whose it is, at a path that some side file's record may mean.
struct UnsaidFile {
  std::string path;
  FileInfo info;
};
struct WalkedChunk {
  ChunkId id;
  uint32_t size = 0;
};

struct TreeWalkResult {
  std::vector<WalkedFile> files;
  std::vector<UnsaidFile> unsaid;
  std::vector<WalkedChunk> chunks;
  std::vector<WalkedFile> side_records;  // path: empty
  std::vector<DecodedAbsent> absent;
  std::vector<std::string> strange;  // files under .quarry that have no business there
  std::vector<std::string> shelves;  // directories XX under .quarry
  std::vector<std::string> damage;
  std::vector<std::string> not_entered;  // directories of other file systems and other mountpaths, and why: one sentence each
  uint64_t foreign_files = 0;
  void append(TreeWalkResult&& other);
};

// Reads side records first, then all the rest. Runs on the calling thread and `helpers` threads of the pool.
Result<TreeWalkResult> walk_tree(FileSystem& files, Records& records, ThreadPool& pool, size_t helpers);

// Whether `path` (a file or directory, "" for the mountpath) can be reached without entering another file system.
// Errors: invalid_argument (it cannot: says where the other one begins), not_found, io_error.
Result<void> check_one_file_system(FileSystem& files, const std::string& path);

// Every plain file below `under` ("" for all) outside .quarry, in order of path, after `after` (exclusive), until visit returns false; and
// everything else that is no directory to go into, with the reason: symbolic links, special files, other file systems, directories that may
// not be read. Errors: as check_one_file_system of `under`.
using VisitFile = std::function<bool(const std::string& path, std::string_view why_not)>;
Result<bool> visit_tree(FileSystem& files, const std::string& under, const std::string& after, const VisitFile& visit);

}  // namespace quarry::chunk::dir
