// Cluster: puts one node's parts together and takes them down in order: labels -> metadata log -> metadata store -> map -> data plane.
// The drives alone bring everything back: the metadata directory is a cache, rebuilt from the log on the drives when it is lost.
//
//   create: gives numbers to formatted, unlabelled drives, labels them, writes the first map
//   open:   reads the labels, refuses drives of another cluster, recovers the metadata, starts a session, begins repair in the background
//
// Confined to the executor on which it was opened ("home"), but for data() and meta(), which are thread-safe.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "chunk/chunk_store.h"
#include "cluster/data_plane.h"
#include "cluster/map/redundancy.h"
#include "io/blocking_pool.h"
#include "io/clock.h"
#include "io/memory_probe.h"
#include "meta/commit_log.h"
#include "meta/meta_store.h"

namespace quarry::cluster {

// A drive that the caller opened (formatted for this cluster or fresh), on the executor that is to own it.
struct OpenedDrive {
  std::unique_ptr<chunk::ChunkStore> store;
  Executor* owner = nullptr;
  std::string path;
  std::string domain;   // failure domain; empty: the drive is its own
  uint64_t weight = 0;  // share of data; 0: bytes of the device
  // Of a drive that takes its space from a file system which others may use, too: which one. Drives that name the same share its space, and
  // its fate. Empty: the space is its own.
  std::string file_system = {};
  // Of one whose own space may be a promise (a file with holes): what is below it. Called on a thread that nobody waits for.
  std::function<Result<SpaceBelow>()> look_below = {};
};

// A drive that could not be opened, and why: told as the reason while it is missing.
struct UnopenedDrive {
  std::string path;
  std::string why;
  std::string then = {};  // how to use it all the same, with the command; empty: nothing is known to help
};

// Opens the metadata store whose commits go to `log` and whose own files live in `directory` (may be empty or lost).
using OpenMetaStore = std::function<Task<Result<std::unique_ptr<meta::MetaStore>>>(meta::CommitLog& log, std::string directory)>;
// Formats and opens a drive for add_drive and replace_drive. cluster: the id to format for.
using OpenNewDrive = std::function<Task<Result<OpenedDrive>>(std::string path, Uuid cluster, bool force)>;

// Opens a drive of this cluster again, for enable_drive; never formats. force: also one that another node has opened since this one did
// (else wrong_owner).
using OpenKnownDrive = std::function<Task<Result<OpenedDrive>>(std::string path, Uuid cluster, bool force)>;

struct ClusterTuning {
  uint64_t cache_bytes = 256 * kMiB;                  // verified data kept in memory; 0: none
  uint64_t cache_bytes_max = 0;                       // it grows up to here while memory_probe says that nobody else wants the memory
  MemoryProbe* memory_probe = nullptr;                // null: the cache's size is fixed
  bool cache_writes = true;                           // keep what was just written in it as well
  uint64_t cache_pin_bytes = 64 * kMiB;               // of that, at most so much pinned
  uint64_t write_memory_bytes = 384 * kMiB;           // data and parity of all writes in progress
  uint64_t read_ahead_bytes = 128 * kMiB;             // of all readers, beyond the piece each waits for
  uint32_t shard_bytes = 1 * kMiB;                    // full shard; a power of two >= 64 KiB
  Duration missing_grace = std::chrono::seconds(30);  // a drive away for longer counts as lost
  uint64_t repair_bytes_per_second = 0;               // 0: as fast as foreground requests allow
  uint64_t scrub_bytes_per_second = 64 * kMiB;
  Duration scrub_interval = std::chrono::hours(24 * 7);  // between complete passes; 0: only when asked for
  Duration sweep_interval = std::chrono::seconds(5);
  uint32_t write_id_block = 1 << 16;   // ids leased at a time: about so many writes are looked at after an unclean end
  size_t lost_writes_max = 64 * 1024;  // remembered as lost; beyond it they are found again by scrub and by readers
  bool hedge_reads = true;
  bool files_have_judge = false;  // FileService::set_judge will be called: until then no file is shown by the store itself
};

struct ClusterOptions {
  std::vector<OpenedDrive> drives;
  std::vector<UnopenedDrive> unopened;
  std::string metadata_directory;
  BlockingPool* blocking_pool = nullptr;  // required
  OpenMetaStore open_meta;                // required
  OpenNewDrive open_drive;                // add_drive and replace_drive answer unsupported without it
  OpenKnownDrive open_known;              // enable_drive of one that vanished answers unsupported without it
  Clock* clock = nullptr;                 // null: system_clock()
  Random* random = nullptr;               // null: the executor's
  ClusterTuning tuning;
  bool accept_loss = false;  // open although too many drives are absent to be sure that nothing newer exists
};

struct CreateOptions {
  Uuid cluster;            // the id the drives were formatted for; nil: a random one
  std::string redundancy;  // profile or explicit; empty: default_profile
  uint32_t group_count = 256;
  std::string master_key;  // 32 bytes; empty: random
};

class Cluster {
 public:
  // Labels the drives and opens. Errors: wrong_owner (a drive carries a label already), misconfigured (too few drives).
  static Task<Result<std::unique_ptr<Cluster>>> create(ClusterOptions options, CreateOptions what);
  // Errors: not_found (no drive is labelled), wrong_owner (drives of different clusters), data_lost (too many drives absent; says which).
  static Task<Result<std::unique_ptr<Cluster>>> open(ClusterOptions options);
  virtual ~Cluster() = default;

  virtual DataPlane& data() = 0;
  virtual meta::MetaStore& meta() = 0;
  virtual Uuid id() const = 0;
  virtual const std::string& master_key() const = 0;   // 32 bytes; never log it
  virtual std::string default_redundancy() const = 0;  // "ec:4+2"
  virtual uint64_t log_epoch() const = 0;              // grows with every open
  // Empty while writes are possible; else why not (too few drives).
  virtual std::string read_only_reason() const = 0;

  // Runs background work that is due (sweep, repair) to its end; for tests and orderly drains.
  virtual Task<Result<void>> settle() = 0;
  // The node is about to end: from now on drives that hang are given up whoever needs them, so that all who wait for one come to an end.
  // Any thread.
  virtual void begin_close() = 0;
  // Stops background work, ends the session, closes metadata, log and drives. Must be called before destruction.
  virtual Task<Result<void>> close() = 0;
  // A drive hangs: the kernel has not come back from something that was asked of it. The cluster can be closed, but neither it nor the
  // executors and pools below may be destroyed while this is so: a process that ends leaves them where they are.
  virtual bool hangs() const = 0;
};

// What a drive's label says, for `device list` and `inspect` (docs/formats/drive-label.md).
struct LabelSummary {
  Uuid cluster;
  uint32_t drive_number = 0;
  uint64_t map_epoch = 0;
  std::vector<std::string> drives;  // "3 9f1c... /dev/sdb expected"
};
Result<LabelSummary> describe_label(const std::string& label);

}  // namespace quarry::cluster
