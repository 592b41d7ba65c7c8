// CrashTimeline: records what one or several simulated drives are told during a workload, and enumerates the states in which a
// power cut could have left them. Each is a set of new disks that a test mounts and checks.
//
//   CrashTimeline timeline;
//   timeline.record(*disk_a);  timeline.record(*disk_b);        // one timeline: their requests are ordered against each other
//   ... run the workload; timeline.note("acknowledged k1=v7") when the code under test says so ...
//   CrashEnumerator images(timeline, {.images_max = 2000, .seed = 7});
//   while (auto image = images.next()) { mount image->disks; everything in image->notes must hold; }
//
// The model (the same for every drive):
//   - A cut falls between two events. Events are: a write is issued, completes; a flush is issued, completes; a note.
//   - A write is stable when it is durable and has completed, or has completed before a flush was issued which has completed.
//   - Every other write issued before the cut is pending, in flight or in the cache: it is kept, dropped, or torn at 512 B or
//     4 KiB, independently of all others, whatever order they were issued in. A failed write stays pending for ever.
//   - Where a kept pending write and a stable one overlap, the later issued wins; the drive never goes back behind a stable write.
// Confined to one thread.
#pragma once
#include <string>
#include <unordered_set>
#include <vector>

#include "io/sim/sim_block_device.h"

namespace quarry {

struct CrashNote {
  uint64_t event = 0;  // position on the timeline
  std::string text;
  uint64_t tag = 0;
};

class CrashTimeline {
 public:
  CrashTimeline();
  ~CrashTimeline();  // stops recording
  CrashTimeline(const CrashTimeline&) = delete;

  // From now on; the disk's present visible contents count as stable, what is in flight as issued now. The disk must outlive the timeline
  // or stop_recording. Returns its index among the image's disks.
  size_t record(SimDisk& disk);
  void stop_recording();
  // Puts "this had happened" on the timeline: an image has the notes made before its cut.
  void note(std::string text, uint64_t tag = 0);
  uint64_t events() const { return events_.size(); }

 private:
  friend class CrashEnumerator;
  enum class Kind : uint8_t { write_issued, write_completed, flush_issued, flush_completed, note };
  struct Event {
    Kind kind;
    bool ok = true;
    uint32_t disk = 0;   // note: unused
    uint64_t index = 0;  // write: into writes of the disk; flush: into flushes of the disk; note: into notes_
  };
  struct Recorded;  // one disk
  std::vector<std::unique_ptr<Recorded>> disks_;
  std::vector<Event> events_;
  std::vector<CrashNote> notes_;
};

struct CrashImage {
  uint64_t cut = 0;                             // events before the cut
  std::vector<std::shared_ptr<SimDisk>> disks;  // in the order of record()
  std::vector<CrashNote> notes;                 // made before the cut, in order
  bool noted(std::string_view text) const;
  bool noted(uint64_t tag) const;
  std::string description;  // "cut 17 of 90: sim0 write #5 at 8192+4096 torn prefix 3x512; ..." for failure messages
};

class CrashEnumerator {
 public:
  struct Options {
    uint64_t images_max = 1000;
    uint64_t seed = 1;
    // At a cut with at most this many pending writes, all kept/dropped subsets are enumerated before any is torn.
    uint32_t exhaustive_pending_max = 6;
    // Images per cut beyond the exhaustive ones; raised until images_max is used up or nothing new is found.
    uint32_t samples_per_cut = 8;
    // Not every write tears; false leaves kept and dropped only (drives with large atomic writes).
    bool tear = true;
    uint64_t first_cut = 0;  // skip what a test does not care for, such as formatting
  };
  CrashEnumerator(const CrashTimeline& timeline, Options options);
  ~CrashEnumerator();
  // Images come cut by cut in a shuffled order of cuts, so a bounded run samples the whole workload; none comes twice.
  std::optional<CrashImage> next();
  uint64_t produced() const { return produced_; }

 private:
  struct Cut;
  struct Choice;
  const CrashTimeline& timeline_;
  Options options_;
  uint64_t produced_ = 0;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quarry
