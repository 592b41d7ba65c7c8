// Power cuts for the raw store: runs a workload on a recorded drive, mounts what a cut may have left, and compares it with what was
// promised.
//
//   CrashRun run;
//   run.run({.seed = 3, .compact = true});
//   check_crash_image(image->disks[0], promise, {...});
//
// What a mount of an image must show, by chunk:
//   put acknowledged, removal not asked for  | there, byte for byte
//   put or removal under way                 | there, byte for byte, or absent
//   removal acknowledged, or never put       | absent
// and besides: open finds no damage, fsck no violation, label and epochs are the acknowledged ones or later, no space is lost, the store
// takes new chunks. Only for tests; confined to one thread.
#pragma once
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "chunk/raw/raw_store.h"
#include "chunk/test_payload.h"
#include "io/clock.h"
#include "io/sim/crash_recorder.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {

// Notes on the timeline carry what happened as their tag: subject << 60 | number << 2 | step.
enum class CrashSubject : uint64_t { chunk = 0, label = 1, cluster = 3, size = 4, mounted = 5 };
enum CrashStep : uint64_t { put_issued = 0, put_acknowledged = 1, remove_issued = 2, remove_acknowledged = 3 };
constexpr uint64_t crash_tag(CrashSubject subject, uint64_t number, CrashStep step) {
  return static_cast<uint64_t>(subject) << 60 | number << 2 | static_cast<uint64_t>(step);
}

struct CrashWorkload {
  std::string name;
  uint64_t seed = 1;
  int operations = 120;
  uint64_t large_max = 700'000;  // bytes of a large chunk
  uint64_t small_max = 12'000;   // and of a small one
  int workers = 6;
  double remove_share = 0.35;
  double large_share = 0.3;
  bool compact = false;
  int opens = 1;    // the store is closed and opened again so many times in all
  int prefill = 0;  // large chunks put before recording starts, then every second one removed
  int checkpoint_one_in = 25;
  bool administer = false;  // labels and the cluster's id, between puts
  bool grow = false;        // the drive grows in the middle
  int failing_one_in = 0;   // so many writes fail, of which a part landed: nothing, some, or all
  bool recut = false;       // recovery is cut too, and its images are checked
  double image_share = 1;   // of the images a workload gets: dear ones take fewer
  DriveClass drive_class = DriveClass::nvme;
};

// What was promised before a cut.
struct CrashPromise {
  std::map<uint64_t, int> chunks;  // number -> the last step
  uint64_t label_issued = 0, label_acknowledged = 0;
  bool cluster_acknowledged = false;
  bool grow_issued = false, grow_acknowledged = false;
  bool mounted = false;

  void add(const std::vector<CrashNote>& notes) {
    for (const CrashNote& note : notes) {
      const auto subject = static_cast<CrashSubject>(note.tag >> 60);
      const uint64_t number = (note.tag & ~(15ull << 60)) >> 2;
      const auto step = static_cast<CrashStep>(note.tag & 3);
      const bool done = step == put_acknowledged;
      switch (subject) {
        case CrashSubject::chunk: {
          const auto [at, fresh] = chunks.try_emplace(number, static_cast<int>(step));
          at->second = std::max(at->second, static_cast<int>(step));
          break;
        }
        case CrashSubject::label: (done ? label_acknowledged : label_issued) = number; break;
        case CrashSubject::cluster: cluster_acknowledged = cluster_acknowledged || done; break;
        case CrashSubject::size: (done ? grow_acknowledged : grow_issued) = true; break;
        case CrashSubject::mounted: mounted = true; break;
      }
    }
  }
};

// The payload of each chunk, made once: to make it anew for each image costs more than the check.
class CrashPayloads {
 public:
  const std::string& of(uint64_t number) const { return texts_.at(number); }
  const std::string& make(uint64_t number, size_t size) { return texts_[number] = test_payload(number, size); }
  bool has(uint64_t number) const { return texts_.contains(number); }

 private:
  std::map<uint64_t, std::string> texts_;
};

inline ChunkId crash_chunk(uint64_t n) { return {n * 0x9e3779b97f4a7c15ull, n}; }
inline constexpr uint64_t kCrashDisk = 64 * kMiB;
inline constexpr uint64_t kCrashDiskGrown = 80 * kMiB;
inline const Uuid kCrashCluster{{0xc1, 0x05}};

// A recorded run of a workload.
class CrashRun {
 public:
  SimExecutor executor;
  std::shared_ptr<SimDisk> disk;
  CrashTimeline timeline;
  CrashPayloads payloads;
  uint64_t first_cut = 0;

  void run(const CrashWorkload& workload);

 private:
  void note(CrashSubject subject, uint64_t number, CrashStep step) { timeline.note({}, crash_tag(subject, number, step)); }
  void note(uint64_t chunk, CrashStep step) { note(CrashSubject::chunk, chunk, step); }
  Task<void> fill(int count);
  Task<void> remove_some(SeededRandom& random);
  Task<void> put_one(const CrashWorkload& w, SeededRandom& random);
  Task<void> worker(const CrashWorkload& w, SeededRandom& random, int& left);
  Task<void> administrator(const CrashWorkload& w, const int& left);
  Task<void> workers(CrashWorkload w, uint64_t seed, int operations);

  std::unique_ptr<RawStore> store_;
  std::vector<uint64_t> alive_;
  uint64_t next_ = 1;
  uint64_t label_ = 0;
};

struct CrashCheck {
  const CrashPayloads* payloads = nullptr;
  uint64_t number = 0;      // of the image: some checks run on some images only
  bool full = false;        // a new chunk may find no room
  uint64_t fresh_free = 0;  // free bytes of an empty store on such a drive
};
// Mounts the image's only disk and checks it against the promise.
void check_crash_image(const std::shared_ptr<SimDisk>& disk, const CrashPromise& promise, const CrashCheck& how);
// Mounts it while recording, uses it a little, and checks up to `images_max` cuts of that. Returns how many.
uint64_t cut_recovery(const std::shared_ptr<SimDisk>& disk, const CrashPromise& promise, CrashPayloads& payloads, const CrashCheck& how,
                      uint64_t images_max);
// The whole: run, enumerate, check. Returns the images checked.
uint64_t crash_everywhere(const CrashWorkload& workload, uint64_t images_wanted);

}  // namespace quarry::chunk
