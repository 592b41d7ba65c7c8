// The index in memory: for a store over a commit log (log_store/log_meta_store.h) in the simulator and in tests, without RocksDB, files or
// threads.
//
//   auto media = std::make_shared<MemoryIndexMedia>();                                  // what survives a crash, as a directory would
//   auto store = co_await LogMetaStore::open({}, make_memory_place(media), log);
//   co_await (*store)->kill();                                                          // media holds what was flushed last
//   *media = {};                                                                        // the index is lost; the next open makes it anew
//
// The media belongs to the store that has it open; while it is closed tests copy it, exchange it, set it back.
#pragma once
#include "meta/index.h"
#include "meta/memory/row_tree.h"

namespace quarry::meta {

class MemoryIndex;

struct MemoryIndexMedia {
  std::optional<RowTree> rows;                   // as they were flushed last; none: there is no index
  std::optional<RowTree> set_aside;              // an index that knew what the log did not
  std::string damaged;                           // why the rows must not be believed; empty: they may be
  std::map<std::string, std::string> restoring;  // files of a checkpoint that comes back
  std::weak_ptr<MemoryIndex> open;               // by whom it is in use
  // Rows are flushed after so many bytes of operations, not only when somebody asks: what a crash leaves is then a state in between.
  uint64_t flush_bytes = 64u << 10;
  bool full = false;  // nothing can be applied: no_space
};

std::unique_ptr<IndexPlace> make_memory_place(std::shared_ptr<MemoryIndexMedia> media);

}  // namespace quarry::meta
