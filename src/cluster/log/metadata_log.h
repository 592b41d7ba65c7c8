// MetadataLog: the commit log of the embedded metadata store, kept on the drives themselves at m + 1 copies, so that the metadata
// survives whatever the data survives: the loss of any m drives, and of the root directory. Page: docs/formats/metadata-copies.md.
//
//   frames       one chunk each (kind metadata_frame, serial = number, generation = low 16 bits of the log epoch), m + 1 copies on
//                drives of distinct domains
//   files        checkpoint files, in pieces of 8 MiB (kind metadata_file), m + 1 copies
//   roots        (kind metadata_root, serial = log epoch): "prepared", "established" and checkpoints
//
// Epochs. Each open starts a new epoch: (1) prepare it on m + 1 drives, (2) bring every frame of the tail back to m + 1 copies,
// (3) establish it on m + 1 drives; only then may frames be written. An epoch is in effect when an established root or a checkpoint of
// it is seen. A root names all that its epoch goes on from: the checkpoint, and which epoch each frame after it belongs to. So recovery
// follows the newest root in effect and nothing else: what other roots say, and what other epochs wrote, is of starts that were given up
// (their drives were away meanwhile) and discarded. Reasons: docs/decisions/0010-lineage.md.
//
// Confined to the executor that opened it. Drives are called on their own executors.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cluster/drives/drive.h"
#include "cluster/log/metadata_log_roots.h"
#include "io/blocking_pool.h"
#include "io/sync.h"
#include "meta/commit_log.h"

namespace quarry::cluster {

// A drive that should be there and is not: its copies cannot be read.
struct AbsentDrive {
  uint32_t number = 0;
  std::string domain;
};

struct MetadataLogOptions {
  std::vector<Drive*> drives;             // open drives; owned by the caller, outlive the log
  std::vector<AbsentDrive> absent;        // expected by the newest label, not open
  unsigned copies = 1;                    // m + 1, >= 1
  BlockingPool* blocking_pool = nullptr;  // for ReadPiece; required by store_file
  bool accept_loss = false;               // open although more domains are absent than the copies allow (an operator's decision)
};

class MetadataLog : public meta::CommitLog {
 public:
  // Recovers what the drives hold and starts a new epoch. With too few drives to write (fewer than writable_copies_min()) the log opens
  // for reading: appends answer unavailable until add_drive makes it writable.
  // Errors: data_lost (more absent drives than copies - 1: says which to bring back; or a needed frame or file has no copy left),
  // corrupt (copies exist, none can be read), unavailable.
  static Task<Result<std::unique_ptr<MetadataLog>>> open(MetadataLogOptions options);
  ~MetadataLog() override;

  Task<Result<void>> append(meta::FrameNumber number, std::vector<ByteView> parts) override;
  meta::FrameNumber last_frame() const override { return last_frame_; }
  Task<Result<Buffer>> read(meta::FrameNumber number) override;
  Task<Result<meta::CheckpointFile>> store_file(std::string name, uint64_t size, ReadPiece read_piece) override;
  Task<Result<Buffer>> read_file(const meta::CheckpointFile& file, uint64_t offset, size_t length) override;
  Task<Result<void>> publish_checkpoint(meta::CheckpointManifest manifest) override;
  Result<std::optional<meta::CheckpointManifest>> checkpoint() const override { return checkpoint_; }

  // Copies each frame must reach to be acknowledged: all of `copies`; one less only where there are no more drives than copies. Copies that
  // are lost together count once: by domain where there are as many domains as copies, else by drive.
  unsigned writable_copies_min() const { return copies_for_sure(all_.units); }
  // As many drives are there as that takes, those that no label names among them.
  bool enough_drives() const { return usable(all_) >= writable_copies_min(); }
  bool writable() const { return writable_; }
  uint64_t epoch() const { return epoch_; }
  // It may have gone back to an earlier state.
  bool loss_accepted() const { return loss_accepted_; }

  // How many copies an acknowledged frame has for sure depends on how many drives there are (writable_copies_min), and open relies on it
  // with the number in the newest label. So: a drive is added here, then restore_copies, then the labels name it; and a drive leaves here,
  // then the labels name it no more, then it is forgotten here. A start does not look at a drive that no label names: until note_named,
  // what lies on a new one counts only beside as many copies on the others as would be enough without it.

  // A new drive may hold copies from now on. A log that opened for reading becomes writable when drives that the labels name are enough:
  // nothing is acknowledged before, nor said to be the newest (a root).
  enum class Named : uint8_t { no, yes };
  Task<Result<void>> add_drive(Drive& drive, Named named = Named::yes);
  // Before labels name all drives: a start that goes by them relies on it. Errors: unavailable.
  Result<void> check_copies() const;
  // The labels name them.
  Task<Result<void>> note_named(std::vector<uint32_t> numbers);
  // The drive's copies no longer count (it died, or is being drained): every frame, file and root gets its full number of copies
  // on other drives. When it returns success the drive is not needed any more. Errors: unavailable (no spare drive: the metadata stays
  // at fewer copies), data_lost.
  Task<Result<void>> leave_drive(uint32_t number);
  // Its copies stay where they are: should it come back, those still in use are taken as they are (an id removed from a drive is never put
  // there again), the rest is removed.
  void forget_drive(uint32_t number);
  bool knows_drive(uint32_t number) const { return find(number) != nullptr; }
  // Copies that are needed and missing, after drives failed: makes them again where possible. Also while the log is read-only, if there are
  // enough drives.
  Task<Result<void>> restore_copies();

  struct ScrubResult {
    uint64_t chunks_checked = 0, bytes_checked = 0, damaged = 0, repaired = 0;
    std::vector<std::string> problems;
  };
  // Reads every copy of every frame, file and root; damaged ones are replaced.
  Task<Result<ScrubResult>> scrub();
  // A chunk of the log was found damaged on a drive (by the drive's own scrub): replaces it. not_found if it is not in use.
  Task<Result<void>> repair_copy(uint32_t drive, ChunkId id);

  struct Status {
    meta::FrameNumber last_frame = 0, checkpoint_frame = 0;
    uint64_t frames = 0, files = 0, file_pieces = 0;
    unsigned copies = 0, copies_min = 0;  // wanted; of the least copied chunk in use
    size_t drives_away = 0;               // that should hold copies
  };
  Status status() const;
  // Whether the log uses this chunk on this drive (for fsck); false: a leftover that may be removed.
  bool uses(uint32_t drive, ChunkId id) const;
  // A chunk that is being written this moment: not yet in use, no leftover either.
  bool in_flight(ChunkId id) const;
  // Every chunk in use: name and the drives that should hold it.
  struct Entry {
    ChunkId id;
    std::vector<uint32_t> drives;
  };
  std::vector<Entry> entries() const;

  // Waits for work in flight. The drives stay open.
  Task<void> close();

 private:
  // Which drives hold a chunk: (drive number, rewrite number = ChunkName.shard).
  struct Copies {
    std::vector<std::pair<uint32_t, uint8_t>> at;
    uint32_t size = 0;
  };
  explicit MetadataLog(MetadataLogOptions options);

  struct Spread {
    Copies copies;  // those it was given, and the new ones
    unsigned counted = 0;
    std::optional<Error> error;  // of the last put that failed
  };

  Task<Result<void>> recover();
  Task<Result<void>> establish();
  Task<Result<void>> write_if_possible();
  Result<void> check_absent();
  // What recovery follows.
  struct Head {
    std::vector<std::pair<uint64_t, uint32_t>> roots;  // that say it: one, unless they are of earlier programs
    std::optional<meta::CheckpointManifest> checkpoint;
    std::vector<Stretch> line;      // of the frames after it
    meta::FrameNumber first = 1;    // of the newest epoch
    meta::FrameNumber reached = 0;  // the last frame that was there for sure
    bool guessed = false;           // from roots without a line
  };
  Task<Result<Head>> find_head(const std::map<std::pair<uint64_t, uint32_t>, Copies>& pieces);
  // The root that says what is so now, with this checkpoint.
  std::string root_of_now(uint32_t sequence, std::optional<meta::CheckpointManifest> manifest) const;
  std::map<uint32_t, std::vector<ChunkId>> take_late();
  void remove_roots_before(std::pair<uint64_t, uint32_t> current, std::map<uint32_t, std::vector<ChunkId>>& by_drive);
  Drive* find(uint32_t number) const;
  bool counts(uint32_t number) const;  // its copies count: up and not leaving
  // The drives that are expected, by what is lost together.
  struct Ground {
    std::set<uint32_t> without;  // not counted
    bool by_domain = false;
    size_t units = 0;
  };
  Ground ground_without(std::set<uint32_t> without) const;
  void look_at_drives();  // after each change of the drives
  unsigned counted(const Copies& copies, const Ground& ground) const;
  unsigned counted(const Copies& copies) const { return counted(copies, all_); }
  size_t drives_of(const Copies& copies) const;  // whose copies count
  bool suffices(const Copies& copies, const Ground& ground) const { return counted(copies, ground) >= copies_for_sure(ground.units); }
  unsigned usable(const Ground& ground) const;  // units that can be written to
  // It survives what it should, whichever labels the next start goes by.
  bool enough(const Copies& copies) const;
  // Copies of an acknowledged frame with so many drives, or domains.
  unsigned copies_for_sure(size_t units) const;
  std::vector<Drive*> candidates(const Copies& have, const std::set<uint32_t>& refused);
  // Puts copies of `name` until `copies` count; moves on to other drives when one fails.
  Task<Spread> spread(ChunkName name, std::vector<ByteView> parts, chunk::Stream stream, Copies copies);
  Task<Result<SharedBytes>> fetch(ChunkName name, Copies copies, uint32_t offset, uint32_t length, std::string what) const;
  Task<Result<void>> put_root(uint32_t sequence, std::string payload);
  // Brings one chunk back to its number of copies. The chunk may be trimmed meanwhile.
  Task<Result<void>> restore(ChunkName name);
  Task<Result<void>> restore_all(bool files_too);
  // Replaces the copy `rewrite` of `name` on a drive from the others.
  Task<Result<void>> replace_copy(ChunkName name, uint32_t drive, uint8_t rewrite);
  Copies* copies_of(const ChunkName& name);
  const Copies* copies_of(const ChunkName& name) const { return const_cast<MetadataLog*>(this)->copies_of(name); }
  std::vector<ChunkName> names(bool files_too) const;
  void note_late(uint32_t number, const std::vector<ChunkId>& ids);
  Task<void> remove_chunks(std::map<uint32_t, std::vector<ChunkId>> by_drive);
  static void add_for_removal(std::map<uint32_t, std::vector<ChunkId>>& by_drive, ChunkName name, const Copies& copies);
  Task<Result<uint32_t>> store_piece(ChunkName name, ReadPiece read_piece, uint64_t offset, uint32_t length);

  MetadataLogOptions options_;
  std::set<uint32_t> leaving_;
  std::set<uint32_t> unnamed_;  // no label names them yet
  Ground all_, named_;
  uint64_t epoch_ = 0;
  meta::FrameNumber epoch_first_ = 1;
  meta::FrameNumber last_frame_ = 0;
  meta::FrameNumber durable_frame_ = 0;
  Event durable_changed_;
  bool writable_ = false;
  // Copies whose put or removal failed, by drive: they may be there all the same, or come yet.
  std::map<uint32_t, std::set<ChunkId>> late_;
  bool loss_accepted_ = false;  // too many drives are absent, and what only they hold is given up
  // The first frame that has too few copies, and why: nothing after it is durable until it was appended again.
  struct Stall {
    meta::FrameNumber frame = 0;
    Error error;
  };
  std::optional<Stall> stall_;
  std::map<meta::FrameNumber, std::pair<uint64_t, Copies>> frames_;  // epoch, copies
  std::map<std::pair<uint64_t, uint32_t>, Copies> pieces_;           // handle, piece
  std::map<std::pair<uint64_t, uint32_t>, Copies> roots_;            // epoch, sequence
  std::map<uint64_t, uint64_t> file_sizes_;                          // handle -> bytes
  std::optional<meta::CheckpointManifest> checkpoint_;
  uint64_t next_file_ = 1;
  uint32_t next_root_;
  mutable uint64_t rotation_ = 0;
  Semaphore restoring_{1};
  std::map<uint32_t, std::vector<ChunkId>> garbage_;  // found by recovery, removed once the epoch is established
  size_t appends_ = 0;                                // in flight
};

}  // namespace quarry::cluster
