// The embedded metadata store of a node: the store over a log (log_store/log_meta_store.h) with RocksDB as its index, in a directory that
// is a cache: deleting it loses nothing.
//
// Frames are applied to RocksDB without its own log. Reads are served on the caller's thread if the blocks are in memory, else on the
// blocking pool. RocksDB's own threads flush and compact.
#pragma once
#include "meta/log_store/log_meta_store.h"

namespace quarry::meta {

struct RocksdbMetaOptions : LogMetaOptions {
  std::string directory;  // created if missing; nothing else may live in it

  // A start needs some room in the directory. Where a full file system has none, the index is made anew in the first of these directories
  // that lies on another one and has enough, for this run; without any the start fails (no_space). So that it rarely comes to that, so many
  // bytes are kept in a file that is given up for the start; 0: none.
  std::vector<std::string> spare_directories;
  uint64_t reserve_bytes = 0;

  // Memory: about block_cache_bytes + 3 * memtable_bytes + the conflict window.
  size_t block_cache_bytes = 256u << 20;  // blocks, filters, indexes and small blobs; a hard limit but for pinned blocks
  size_t memtable_bytes = 64u << 20;
  size_t table_file_bytes = 32u << 20;  // table files: the unit of compaction and of incremental checkpoints
  int open_files_max = 1024;
  int background_jobs = 2;
  uint64_t blob_size_min = 1536;  // values of this size and more live in blob files, out of the way of compactions
};

// As LogMetaStore::open.
Task<Result<std::unique_ptr<LogMetaStore>>> open_rocksdb_store(RocksdbMetaOptions options, CommitLog& log);

}  // namespace quarry::meta
