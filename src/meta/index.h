// Index: the rows of a metadata store, in order, as they are after some frame of its commit log. What the store over a log
// (log_store/log_meta_store.h) needs of whatever holds its rows; it makes durable nothing itself. An index may be lost, damaged, exchanged
// or set back at any time while nobody has it open: the store catches it up from the log, or has it made anew from a checkpoint.
//
// Implementations: meta/rocksdb (a directory), meta/memory (memory_index.h: for the simulator and for tests).
//
// Calls that are said to block are made on the blocking pool of the store.
#pragma once
#include <functional>
#include <map>
#include <memory>

#include "meta/checkpoint.h"
#include "meta/optimistic.h"

namespace quarry::meta {

class Index;

// The rows at one version. Keeps the index open. Thread-safe.
class IndexView : public RowView, public std::enable_shared_from_this<IndexView> {
 public:
  // What get_row can say without blocking or suspending; none: ask get_row.
  virtual Result<std::optional<std::optional<std::string>>> get_in_memory(std::string_view row) = 0;
  virtual Task<Result<std::vector<std::optional<std::string>>>> get_rows(std::vector<std::string> rows) = 0;
  virtual std::unique_ptr<Cursor> cursor(KeyRange range, Direction direction) = 0;  // users' keys
  virtual Index& index() const = 0;
};

// A state of an index, held still as a set of files until remove().
class IndexCheckpoint {
 public:
  struct File {
    std::string name;  // a plain file name
    uint64_t size = 0;
    bool immutable = false;  // never another file of this name and size in this index: one that the log holds is not stored again
  };
  virtual ~IndexCheckpoint() = default;
  // What the files hold, exactly; proves that they can be opened. First of all. Blocks.
  virtual Result<Applied> examine() = 0;
  virtual Result<std::vector<File>> files() = 0;  // in order of names. Blocks
  // Reads a file that is to be stored: its CRC32C. The log is what could make the file anew, and the checkpoint lets the log go: so a file
  // that is not as it was made is `corrupt` here, or in prove() below, and the index knows itself damaged. Blocks.
  virtual Result<uint32_t> check(const File& file) = 0;
  virtual Result<void> prove() = 0;  // after all check(): what they could not tell. Blocks
  // For CommitLog::store_file. Blocks.
  virtual CommitLog::ReadPiece reader(const CheckpointEntry& entry) = 0;
  virtual void remove() = 0;  // blocks
};

// Thread-safe, except that apply() has one caller at a time.
class Index {
 public:
  virtual ~Index() = default;
  virtual Result<std::optional<Applied>> applied() = 0;  // none: it is empty. Blocks
  // The operations of each transaction, in order, and the applied row: all or nothing, also after a crash; but rows of a removed range may
  // go before the rest, which replaying the frame makes good. can_wait false: never blocks, and answers busy, having done nothing, where it
  // would have to. Errors: no_space (tried again after resume()), corrupt.
  virtual Result<void> apply(const std::vector<std::string_view>& transactions, const Applied& applied, bool can_wait) = 0;
  virtual Result<void> resume() = 0;  // blocks; after no_space: it can be written again, if there is room by now
  virtual Result<void> flush() = 0;   // blocks; then what is applied survives a crash of the process and the machine
  // What is applied, which is said to be this version.
  virtual std::shared_ptr<IndexView> view(Version version) = 0;

  virtual Result<std::shared_ptr<IndexCheckpoint>> checkpoint() = 0;  // one at a time; flushes. Blocks
  // Which files of this index the log's newest checkpoint holds, by name, as was noted beside it; never those of another one. Without the
  // note the next checkpoint stores everything: more work, nothing lost. Both block.
  virtual std::map<std::string, CheckpointEntry> stored_files() = 0;
  virtual Result<void> note_stored_files(const std::map<std::string, CheckpointEntry>& files) = 0;
  // Damage was found from outside: told like that found by a read. The error to answer.
  virtual Error damaged(std::string what) = 0;

  virtual uint64_t keys_estimate() = 0;
  virtual uint64_t bytes_on_disk() = 0;
  virtual uint64_t reads_on_pool() = 0;  // of its views
};

// Called once, on any thread, when an index finds itself damaged; it has seen to it that it is not believed at the next open.
using OnIndexDamage = std::function<void(const std::string& what)>;

// Writes one file of a checkpoint that is being restored, front to back.
class RestoredFile {
 public:
  virtual ~RestoredFile() = default;
  virtual Result<void> write(uint64_t offset, ByteView piece) = 0;  // blocks
  virtual Result<void> sync() = 0;                                  // blocks
};

// Where the index of one store lives between runs.
class IndexPlace {
 public:
  virtual ~IndexPlace() = default;
  virtual std::string name() const = 0;               // for messages
  virtual std::string trouble() const { return {}; }  // what is not as it should be with the place itself

  // What is there, opened; null with the reason if it cannot be believed. Removes what a killed run left half done. Blocks.
  // Errors: busy (open already), no_space, misconfigured: what is there stays as it is.
  struct Found {
    std::shared_ptr<Index> index;
    Applied applied;
    std::string reason;
  };
  virtual Result<Found> look(OnIndexDamage on_damage) = 0;
  // Makes room for another one. keep_aside: for a person to look at. Blocks.
  virtual Result<void> discard(bool keep_aside) = 0;
  // A checkpoint comes back: the files between these two calls; only the second one puts them in their place. All three block.
  virtual Result<void> begin_restore() = 0;
  virtual Result<std::shared_ptr<RestoredFile>> restore_file(const std::string& name) = 0;  // thread-safe
  virtual Result<void> end_restore() = 0;
  // fresh: an empty one is made; else what was restored. Blocks.
  virtual Result<std::shared_ptr<Index>> open(bool fresh, OnIndexDamage on_damage) = 0;
};

}  // namespace quarry::meta
