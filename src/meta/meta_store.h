// The metadata contract: an ordered space of byte keys with serializable transactions, snapshots, ordered range reads, atomic
// counters, watches and leases, and a commit version that only grows.
//
// Backends: the embedded store (meta/log_store: commits durable through a CommitLog on the drives, rows in RocksDB or in memory), and the
// fault-injecting twin (meta/memory). One conformance suite runs on every backend (meta/conformance.h).
//
// Limits every backend honours: key 1..2 KiB; value <= 64 KiB; transaction <= 4 MiB of writes.
// Thread-safe: any executor may call; a Transaction, Snapshot or Cursor itself is used by one task at a time.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/executor.h"
#include "io/task.h"

namespace quarry::meta {

using Version = uint64_t;  // commit version; 0: nothing was ever committed

inline constexpr size_t kKeySizeMax = 2048;
inline constexpr size_t kValueSizeMax = 65536;
inline constexpr size_t kTransactionSizeMax = 4u << 20;

struct KeyValue {
  std::string key;
  std::string value;
};

// [begin, end); an empty end means "to the last key".
struct KeyRange {
  std::string begin;
  std::string end;
  static KeyRange prefix(std::string_view prefix);
};

enum class Direction : uint8_t { forward, backward };

struct ScanOptions {
  KeyRange range;
  size_t limit = 1000;  // rows
  // Stop once so many bytes of keys and values are there (the row that reaches it is returned). So a result with fewer than
  // `limit` rows and fewer than bytes_max bytes reached the end of the range.
  size_t bytes_max = 4u << 20;
  Direction direction = Direction::forward;
};

// A consistent view at one commit version. Holds resources: release it soon (seconds).
class Snapshot {
 public:
  virtual ~Snapshot() = default;
  virtual Version version() const = 0;
  virtual Task<Result<std::optional<std::string>>> get(std::string key) = 0;
  virtual Task<Result<std::vector<KeyValue>>> scan(ScanOptions options) = 0;
};

// A position in a snapshot for readers that jump (delimiter listings): one iterator underneath, so a seek costs microseconds.
class Cursor {
 public:
  virtual ~Cursor() = default;
  // Next rows of the range, in order; empty at its end.
  virtual Task<Result<std::vector<KeyValue>>> next(size_t limit) = 0;
  // Continues at the first key >= `key` inside the range; backward: at the last key <= `key`.
  virtual void seek(std::string key) = 0;
  // Runs `visit` over rows, in order, until it says stop or the range ends, in one hop to where the backend may block.
  // visit returns: keep going, jump to a key, or stop. It must not block or suspend; it runs on another thread.
  struct Step {
    enum class Kind : uint8_t { next, seek, stop } kind = Kind::next;
    std::string seek_to{};
  };
  using Visit = std::function<Step(std::string_view key, std::string_view value)>;
  virtual Task<Result<void>> walk(Visit visit) = 0;
};

// Optimistic: reads see a snapshot plus the transaction's own writes, and are checked at commit; the commit happens as if at
// one instant after all other committed transactions (strictly serializable).
class Transaction {
 public:
  virtual ~Transaction() = default;
  virtual Task<Result<std::optional<std::string>>> get(std::string key) = 0;
  virtual Task<Result<std::vector<KeyValue>>> scan(ScanOptions options) = 0;  // the range read becomes a conflict range
  // Reads without becoming a conflict: for hints, and rows whose change does not matter.
  virtual Task<Result<std::optional<std::string>>> get_unchecked(std::string key) = 0;

  virtual void put(std::string key, std::string value) = 0;
  virtual void remove(std::string key) = 0;
  virtual void remove_range(KeyRange range) = 0;
  // Adds to a counter: a value of 8 bytes, little-endian, two's complement; absent counts as 0 (and so does a value of another
  // size), and it wraps around. Never conflicts with other adds, but a reader of the key conflicts with an add as with any write.
  virtual void add(std::string key, int64_t delta) = 0;
  // Writes `value` with the commit version (8 bytes, big-endian) put in place of its bytes [offset, offset + 8).
  // Reading it back in the same transaction is invalid_argument: its bytes are not known yet.
  virtual void put_versionstamped(std::string key, std::string value, uint32_t offset) = 0;
  // The same with the stamp inside the key (keys in order of commit). The row is invisible to this transaction's own reads.
  virtual void put_at_versionstamped_key(std::string key, uint32_t offset, std::string value) = 0;

  // Durable when it returns, and visible to every read that starts afterwards. The transaction is spent. Limits that a write
  // violated are reported here. A transaction without writes returns the version that it read.
  // Errors: conflict (nothing happened; begin again), unknown_outcome (it may have happened), too_large, invalid_argument,
  // overloaded (the commit queue is full; nothing happened), unavailable, cancelled.
  virtual Task<Result<Version>> commit() = 0;
};

struct LeaseGrant {
  std::string holder;
  Version epoch = 0;       // fencing token: grows with every new holder
  int64_t expires_at = 0;  // wall time, ns
};

class MetaStore {
 public:
  virtual ~MetaStore() = default;

  // Plain reads of the newest committed state.
  virtual Task<Result<std::optional<std::string>>> get(std::string key) = 0;
  virtual Task<Result<std::vector<std::optional<std::string>>>> get_many(std::vector<std::string> keys) = 0;
  virtual Task<Result<std::vector<KeyValue>>> scan(ScanOptions options) = 0;

  virtual Task<Result<std::unique_ptr<Snapshot>>> snapshot() = 0;
  virtual Task<Result<std::unique_ptr<Cursor>>> cursor(KeyRange range, Direction direction) = 0;
  virtual Task<Result<std::unique_ptr<Transaction>>> begin() = 0;

  // Newest committed version.
  virtual Version version() const = 0;

  // Waits until a key with this prefix was changed by a commit with version > after (returns that or a later version), or the
  // deadline comes (timed_out). Changes may be coalesced; none is missed while the store runs. `after` from before the store was
  // opened, or too far back to know, is answered at once with the newest version: the caller has to look. close: cancelled.
  virtual Task<Result<Version>> watch(std::string prefix, Version after, TimePoint deadline) = 0;

  // Takes or renews a named lease for `duration`. The epoch of a renewal before expiry stays; else it is a greater one.
  // Errors: busy (another holder's has not expired; its grant is in the context), and those of commit.
  virtual Task<Result<LeaseGrant>> lease(std::string name, std::string holder, Duration duration) = 0;
  // Errors: not_found (that holder does not have it).
  virtual Task<Result<void>> release_lease(std::string name, std::string holder) = 0;

  struct Stats {
    Version version = 0;
    uint64_t keys_estimate = 0;
    uint64_t bytes_on_disk = 0;
    uint64_t commits = 0;
    uint64_t commit_groups = 0;
    uint64_t conflicts = 0;
    uint64_t log_bytes_since_checkpoint = 0;
    Version checkpoint_version = 0;
    std::string failure;        // why commits are refused at the moment; empty: they are taken
    std::string index_trouble;  // what is wrong with the index of this run and a restart mends; empty: nothing
  };
  virtual Stats stats() const = 0;

  // Finishes accepted commits, ends watches (cancelled), makes the next start cheap, closes. Snapshots, cursors and transactions
  // are released before; later calls answer cancelled.
  virtual Task<Result<void>> close() = 0;
};

// Runs body(transaction) and commits, again on conflict with growing pauses, at most `attempts` times. body must be repeatable.
// unknown_outcome is passed up: only the caller knows whether repeating is safe.
template <class Body>
Task<Result<Version>> transact(MetaStore& store, Body body, int attempts = 16);

}  // namespace quarry::meta

#include "meta/transact.h"
