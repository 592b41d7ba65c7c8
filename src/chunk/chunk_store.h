// ChunkStore: immutable chunks of bytes on one drive, named by ids that are never reused.
//
// A store is confined to the executor on which it was opened (its owner); other executors call it through `on(owner, ...)`.
// Calls may overlap freely; the store orders what must be ordered.
//
// Durability: put and remove are durable when they return. A put that has not returned leaves, after a crash, either the
// whole chunk or no trace; never a part. What get returns was verified against checksums seeded with the chunk's id and
// block number, so rot, misdirected and stale sectors are all found: corrupt, never wrong bytes.
// Implementations: chunk/raw (a whole device), chunk/kfs (256 LevelDBs in a directory), chunk/dir (plain files in a directory). One
// conformance suite runs on all (chunk/conformance.h).
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/result.h"
#include "io/block_device.h"
#include "io/task.h"

namespace quarry::chunk {

// Largest chunk any store must accept, bytes. Larger data is cut by the layer above.
inline constexpr uint32_t kChunkSizeMax = 16 * kMiB;

// How the writer expects a chunk to live; a store may use it to keep unlike chunks apart. Frozen numbers.
enum class Stream : uint8_t {
  data = 0,      // object data
  log = 1,       // metadata log frames: small, short-lived, latency matters
  metadata = 2,  // metadata checkpoints: large, medium-lived
};

// Says that a chunk is a range of a file with a name. Stores that keep whole files (chunk/dir) put all chunks of a file into one; the
// others ignore it. Chunk `index` of a file lies at index * chunk_size and has the id first + index * stride.
struct FilePlace {
  ChunkId first;  // the id of chunk 0: it names the file
  uint32_t index = 0;
  uint32_t chunk_size = 0;     // of every chunk but the last
  uint64_t stride = 0;         // between the ids of neighbours, in ChunkId::low
  std::string_view directory;  // the bucket; valid until the put returns
  std::string_view name;       // the key: any bytes
};

struct PutOptions {
  Stream stream = Stream::data;
  std::optional<FilePlace> file = std::nullopt;
};

struct ChunkStat {
  ChunkId id;
  uint32_t size = 0;         // payload bytes
  uint32_t stored_size = 0;  // bytes of the device it occupies
};

struct SpaceReport {
  uint64_t device_bytes = 0;    // the whole device
  uint64_t overhead_bytes = 0;  // superblocks, log, inventories: never payload
  uint64_t used_bytes = 0;      // live chunks, as they occupy the device
  uint64_t payload_bytes = 0;   // live chunks, as they were put
  uint64_t garbage_bytes = 0;   // freed, not yet reusable (awaiting compaction or quarantine)
  uint64_t free_bytes = 0;      // can be given to new chunks
  uint64_t chunk_count = 0;
};

enum class StoreState : uint8_t {
  online,
  read_only,  // full, or a write failed in a way that forbids further ones; reads go on
  failed,     // device gone or too damaged; every call answers device_gone
};

struct StoreHealth {
  StoreState state = StoreState::online;
  std::string reason;             // empty while online
  Reason because = Reason::none;  // taken: another node has it
  uint64_t read_errors = 0;       // since open
  uint64_t write_errors = 0;
  uint64_t checksum_errors = 0;
};

struct Damage {
  ChunkId id;
  std::string what;
  Reason reason = Reason::none;  // as get would have it
};

struct ScrubProgress {
  ChunkId next;  // resume after this id
  bool complete = false;
  uint64_t chunks_checked = 0;
  uint64_t bytes_checked = 0;
  std::vector<Damage> damaged;
};

// One file of a store that keeps files, finished: shown under its name, or not (yet, or any more).
struct StoredFile {
  ChunkId first;
  uint64_t size = 0;  // bytes
  uint32_t chunk_size = 0;
  uint64_t stride = 0;
  bool shown = false;
  std::string directory, name;  // as in FilePlace
};

// What a store says about its own structures (not about who references its chunks).
struct FsckReport {
  std::vector<std::string> violations;  // each one sentence naming the structure and place; empty: sound
  uint64_t chunks = 0;
  uint64_t segments = 0;
  SpaceReport space;
};

class ChunkStore {
 public:
  virtual ~ChunkStore() = default;

  virtual Uuid drive_id() const = 0;
  virtual std::string description() const = 0;  // path and kind, for people
  // Of this open of the drive, as the drive carries it from now on: whoever opens it next leaves another (fencing.h). 0: not to be told.
  virtual uint64_t owner_epoch() const { return 0; }

  // Stores data under id; durable when it returns. The parts are one payload, in order; they stay valid until completion.
  // Parts of 4096-aligned memory (Buffer) are written without a copy where the layout allows.
  // Errors: already_exists, too_large, no_space, read_only, device_gone, io_error.
  virtual Task<Result<void>> put(ChunkId id, std::vector<ByteView> parts, PutOptions options) = 0;

  // Verified bytes [offset, offset + length) of the chunk. length may reach past the end: the result is cut there.
  // Errors: not_found, out_of_range (offset > size), corrupt (where the store can tell, its reason says whether somebody changed or removed
  // what was stored, or it is rot), io_error, device_gone.
  virtual Task<Result<SharedBytes>> get(ChunkId id, uint32_t offset, uint32_t length) = 0;

  // True: chunks put with a FilePlace are kept as one plain file. Such puts are durable only when finish_file has returned.
  virtual bool keeps_files() const { return false; }
  // All chunks of the file were put: makes it durable. It is not under its name yet. Errors: not_found, as put.
  virtual Task<Result<void>> finish_file(ChunkId first, uint64_t size);
  // Shows the file under its name, in the place of an older one, durably; the older one stays readable by its chunks' ids until they
  // are removed. Done again, it changes nothing. attributes: short texts kept with the file (content type and the like).
  virtual Task<Result<void>> show_file(ChunkId first, std::vector<std::pair<std::string, std::string>> attributes);
  // Takes the file from under its name, durably (its object was deleted, or is not the current version any more): it stays readable by
  // its chunks' ids until they are removed, and can be shown again. A file that is not shown, or is not there: nothing to do.
  virtual Task<Result<void>> hide_file(ChunkId first);

  // Up to `limit` finished files with first >= from, in ascending order of it. For stores that keep no files: none.
  virtual Task<Result<std::vector<StoredFile>>> files(ChunkId from, size_t limit);

  // Whether the place still works, where ordinary calls would not tell soon (a directory that was removed, a file system that turned
  // read-only, a disk that hangs). Called every few seconds and after errors. An error says why the drive should not be used.
  virtual Task<Result<void>> check_health() { co_return Result<void>{}; }

  // Durably forgets the chunks; ids that are not there are skipped (idempotent). Space returns once the tombstones are durable
  // and readers have left. Errors: read_only is not one (a full store accepts removals); io_error, device_gone.
  virtual Task<Result<void>> remove(std::vector<ChunkId> ids) = 0;

  // As remove, for chunks of writes that were never committed (interrupted, or found after a crash). The difference: a file that was there
  // before Quarry (DirStore::adopt) loses its record and stays where it lies; remove deletes it.
  virtual Task<Result<void>> disown(std::vector<ChunkId> ids) { return remove(std::move(ids)); }

  virtual Task<Result<ChunkStat>> stat(ChunkId id) = 0;

  // Up to `limit` chunks with id >= from and id < to, in ascending order of id.
  virtual Task<Result<std::vector<ChunkStat>>> list(ChunkId from, ChunkId to, size_t limit) = 0;

  // Reads and verifies chunks from `from` on until about budget_bytes were read. Damaged chunks are reported, not removed.
  virtual Task<Result<ScrubProgress>> scrub(ChunkId from, uint64_t budget_bytes) = 0;

  virtual Task<Result<FsckReport>> fsck() = 0;

  virtual SpaceReport space() const = 0;   // owner's thread
  virtual StoreHealth health() const = 0;  // owner's thread

  // A small record (<= 64 KiB) kept beside the superblock, replaced atomically and durably: who this drive belongs to and what
  // the cluster must know before it can read anything else. Empty after format.
  virtual Task<Result<void>> set_label(std::string label) = 0;
  virtual std::string label() const = 0;

  // Finishes what was accepted, makes a restart cheap (checkpoint), closes the device. Later calls answer device_gone.
  virtual Task<Result<void>> close() = 0;
};

inline Task<Result<void>> ChunkStore::finish_file(ChunkId, uint64_t) { co_return Result<void>{}; }
inline Task<Result<void>> ChunkStore::show_file(ChunkId, std::vector<std::pair<std::string, std::string>>) { co_return Result<void>{}; }
inline Task<Result<void>> ChunkStore::hide_file(ChunkId) { co_return Result<void>{}; }
inline Task<Result<std::vector<StoredFile>>> ChunkStore::files(ChunkId, size_t) { co_return std::vector<StoredFile>{}; }

}  // namespace quarry::chunk
