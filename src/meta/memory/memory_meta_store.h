// The in-memory twin of the metadata store: exact multi-version semantics, and every fault the contract allows, drawn from a
// seed or planned one by one. For tests of what stands above the contract. Not for data anybody wants back.
// It shares neither committer nor conflict window with the store over a log (log_store/log_meta_store.h), on purpose: conflicts are decided
// from the rows' own versions, so that the conformance suite compares two answers; and a commit whose answer is lost, or that conflicts
// without need, comes when a test wants it. What is to run as on a node, log and recovery included, takes the store over a log with the
// index in memory (memory_index.h) instead.
//
//   auto media = make_memory_meta_media();                     // what survives a crash
//   auto store = MemoryMetaStore::open(media, {.seed = 7, .conflict_probability = 0.1});
//   store->crash();                                            // every call on it now answers unavailable
//   store = MemoryMetaStore::open(media, {});                  // holds every acknowledged commit
//
// Thread-safe. Delays are sleeps on the caller's executor (virtual time under SimExecutor).
#pragma once
#include <memory>

#include "io/clock.h"
#include "meta/meta_store.h"

namespace quarry::meta {

struct MemoryMetaFaults {
  uint64_t seed = 1;
  double conflict_probability = 0;         // a commit that could succeed answers conflict; nothing happened
  double unknown_outcome_probability = 0;  // a commit answers unknown_outcome; it happened or not, evenly
  double unavailable_probability = 0;      // a commit answers unavailable; nothing happened
  Duration read_delay_max{0};              // each read takes a uniformly drawn time up to this
  Duration commit_delay_max{0};            // before the instant of commit, and again before the answer
};

enum class CommitFault : uint8_t {
  none,
  conflict,             // nothing happened
  unavailable,          // nothing happened
  unknown_applied,      // answers unknown_outcome, and it happened
  unknown_not_applied,  // answers unknown_outcome, and nothing happened
  crash_before,         // the store crashes just before the instant of commit; the caller gets unknown_outcome
  crash_after,          // just after it
};

class MemoryMetaMedia;  // the rows and versions: what survives a crash
std::shared_ptr<MemoryMetaMedia> make_memory_meta_media();

class MemoryMetaStore : public MetaStore {
 public:
  // clock: for leases; null: the system's. It must outlive the store.
  static std::unique_ptr<MemoryMetaStore> open(std::shared_ptr<MemoryMetaMedia> media, MemoryMetaFaults faults = {},
                                               Clock* clock = nullptr);
  // A fresh, empty one.
  static std::unique_ptr<MemoryMetaStore> create(MemoryMetaFaults faults = {}, Clock* clock = nullptr);

  virtual void set_faults(MemoryMetaFaults faults) = 0;
  // Plans a fault for one commit of a transaction with writes: the next one, or the one after `skip` others. May be called often.
  virtual void plan(CommitFault fault, uint64_t skip = 0) = 0;

  // As if the process died: whatever was not committed is gone; commits that wait for their answer get unknown_outcome, everything
  // else, and every later call, unavailable. The media can be opened again.
  virtual void crash() = 0;

  virtual std::shared_ptr<MemoryMetaMedia> media() const = 0;
  // Rows held for live versions and readers, for tests that look for leaks.
  virtual size_t row_versions() const = 0;
};

}  // namespace quarry::meta
