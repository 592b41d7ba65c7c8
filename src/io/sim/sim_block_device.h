// A drive in memory, with faults. Two classes, so that a test keeps its hands on a drive that a store owns:
//   SimDisk         the medium: contents, the volatile cache, scripted faults, statistics. Kept by the test in a shared_ptr.
//   SimBlockDevice  a handle on it: the BlockDevice that code under test opens, uses and closes.
//
//   auto disk = SimDisk::create({.size = 64 * kMiB});
//   auto store = executor.run(Store::open(disk->open()));        // the store owns the device
//   disk->add_bad_range(4096, 4096);                             // the test breaks it
//   auto after = disk->crash_image(seed);                        // power cut: what the media might hold, as a new disk
//
// Every request completes asynchronously, after `latency` of the executor's (virtual) time, drawn from the disk's seed: with a
// range of latencies, requests in flight complete in any order, the same in every run. A completed write is visible to reads at once.
// It is stable once a flush that was issued after its completion has completed, or at its own completion if it is durable.
// A write's bytes are taken when it is issued and compared at its completion: changing them in between stops the program.
// Confined to one thread.
#pragma once
#include <deque>
#include <functional>
#include <map>

#include "io/block_device.h"
#include "io/sim/page_image.h"
#include "io/sync.h"

namespace quarry {

enum class SimRequestKind : uint8_t { read, write, flush, discard };

struct SimRequest {
  SimRequestKind kind = SimRequestKind::read;
  uint64_t offset = 0;
  uint64_t length = 0;
  Durability durability = Durability::volatile_;
  uint64_t number = 0;  // of all requests to this disk, from 0
};

// What a fault hook answers for one request. Default: nothing goes wrong.
struct SimFault {
  std::optional<Code> fail;            // the request fails with this code, at its completion
  uint64_t landed_before_failure = 0;  // of a failing write: this many bytes reached the media first
  Duration delay{0};                   // added to the latency
  bool lose = false;                   // write, discard: acknowledged, never happens
  std::optional<uint64_t> misdirect;   // write: acknowledged, lands at this offset instead. read: comes from there
  std::optional<uint64_t> flip_bit;  // write: this bit of the data (0 = lowest of the first byte) is stored flipped. read: returned flipped
};
using SimFaultHook = std::function<SimFault(const SimRequest&)>;

// How much of an unstable write a crash leaves: a set of sectors.
struct TornWrite {
  enum class Kind : uint8_t { dropped, kept, prefix, suffix, scattered } kind = Kind::kept;
  uint32_t sector = 512;  // unit of tearing: 512 or 4096
  uint64_t sectors = 0;   // prefix, suffix: how many sectors landed
  uint64_t seed = 0;      // scattered: which ones
  std::string to_string() const;
  // Draws a way to leave a write of `length` bytes on a drive that never tears up to `atomic_write` bytes. May return dropped and kept too.
  static TornWrite draw(uint64_t seed, uint64_t length, uint32_t atomic_write);
};

// One write or discard, as the media see it.
struct SimWrite {
  uint64_t number = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  std::shared_ptr<const Buffer> data;  // null: a discard, which leaves `fill`
  uint8_t fill = 0;
  bool keeps_old = false;  // a discard that does nothing
  Durability durability = Durability::volatile_;
  void apply(PageImage& image, const TornWrite& torn = {}) const;
};

// Sees the life of each request; io/sim/crash_recorder.h is the one implementation.
class SimDiskObserver {
 public:
  virtual ~SimDiskObserver() = default;
  virtual void write_issued(const SimWrite& write) = 0;
  virtual void write_completed(uint64_t number, bool ok) = 0;
  virtual void flush_issued(uint64_t number) = 0;
  virtual void flush_completed(uint64_t number, bool ok) = 0;
};

struct SimDiskStats {
  uint64_t reads = 0, writes = 0, durable_writes = 0, flushes = 0, discards = 0;  // requests, failed ones too
  uint64_t bytes_read = 0, bytes_written = 0, bytes_discarded = 0;
  uint64_t errors = 0;
  uint64_t read_ns = 0, write_ns = 0, flush_ns = 0;  // virtual time, sums
  uint64_t in_flight = 0, in_flight_max = 0;
};

enum class SimDiscard : uint8_t { pattern, zeros, nothing };  // what a discarded range reads as afterwards

class SimDisk : public std::enable_shared_from_this<SimDisk> {
 public:
  struct Options {
    std::string path = "sim0";
    uint64_t size = 64 * kMiB;
    uint32_t block_size = 4096;
    uint32_t atomic_write = 512;
    bool volatile_cache = true;  // false: each write is stable at its completion
    bool supports_discard = true;
    SimDiscard discard = SimDiscard::pattern;  // 0xdb, so that code which takes discarded space for zeros is caught
    DriveClass drive_class = DriveClass::nvme;
    Duration latency_min{0}, latency_max{0};
    uint64_t seed = 1;
  };
  // Unstable writes kept apart; beyond this the oldest ones reach the media by themselves, as in a real cache.
  static constexpr size_t kUnstableWritesMax = 65536;

  static std::shared_ptr<SimDisk> create(Options options);
  static std::shared_ptr<SimDisk> create(Options options, PageImage contents);
  ~SimDisk();

  // A handle; the disk lives at least as long. As with a real drive one handle at a time: CHECKs that the last one is closed or gone.
  std::unique_ptr<BlockDevice> open();
  const Options& options() const { return options_; }
  const SimDiskStats& stats() const { return stats_; }
  void reset_stats() { stats_ = {.in_flight = stats_.in_flight}; }

  // ---- faults
  // Reads that touch the range fail with io_error; writing a sector heals it, as drives do by remapping.
  void add_bad_range(uint64_t offset, uint64_t length);
  void clear_bad_ranges() { bad_.clear(); }
  void fail_next_reads(uint64_t count, Code code = Code::io_error);
  void fail_next_writes(uint64_t count, Code code = Code::io_error, uint64_t landed_before_failure = 0);
  void fail_next_flushes(uint64_t count, Code code = Code::io_error);
  void set_gone(bool gone) { gone_ = gone; }  // all requests, those in flight too, fail with device_gone
  void set_read_only(bool read_only) { read_only_ = read_only; }
  // no_space for a write or flush that would make the sparse file take more than this; kUnlimited by default.
  void set_space_limit(uint64_t bytes) { space_limit_ = bytes; }
  static constexpr uint64_t kUnlimited = UINT64_MAX;
  // Added to every request's latency, virtual time.
  void set_delay(Duration delay) { delay_ = delay; }
  void lose_next_write() { ++lose_writes_; }
  void misdirect_next_write(uint64_t to_offset) { misdirect_writes_.push_back(to_offset); }
  // For everything else. Called once per request, when it is issued; combined with the above. Empty: none.
  void set_fault_hook(SimFaultHook hook) { hook_ = std::move(hook); }

  // ---- contents, behind the back of whoever has it open
  Buffer peek(uint64_t offset, uint64_t length) const;  // what a read would see
  void poke(uint64_t offset, ByteView bytes);           // changes media and cache alike
  void flip_bit(uint64_t offset, unsigned bit);
  void swap_ranges(uint64_t a, uint64_t b, uint64_t length);
  void grow(uint64_t size);  // seen by the handle after refresh_size
  void cut(uint64_t size);   // as truncate does; seen likewise
  const PageImage& contents() const { return visible_; }

  // ---- power cut
  // What the media might hold if the power failed now: stable contents, and of each unstable write (completed or in flight)
  // whatever the seed says: kept, dropped or torn. A new disk; this one is left as it is.
  std::shared_ptr<SimDisk> crash_image(uint64_t seed) const;
  // The kindest crash: everything issued and completed is there.
  std::shared_ptr<SimDisk> copy() const;
  // The harshest one: nothing unstable is there.
  std::shared_ptr<SimDisk> stable_copy() const;
  size_t unstable_writes() const { return unstable_.size(); }
  // Issued, not completed; in order of issue.
  std::vector<SimWrite> writes_in_flight() const;

  // null: none. The observer must outlive the disk or be taken away first.
  void set_observer(SimDiskObserver* observer) { observer_ = observer; }

 private:
  friend class SimBlockDevice;
  struct Unstable {
    SimWrite write;
    bool completed = false;
    bool failed = false;
    bool stable = false;  // but older unstable writes are still before it
  };

  SimDisk(Options options, PageImage contents);
  SimRequest start_request(SimRequestKind kind, uint64_t offset, uint64_t length, Durability durability);
  Result<void> check_request(const SimRequest& request, uintptr_t memory_bits) const;
  SimFault draw_fault(const SimRequest& request);
  Duration draw_latency(const SimFault& fault);
  // The error a request ends with, by fault and state of the disk, or nothing.
  std::optional<Error> failure(const SimFault& fault, const SimRequest& request) const;
  Task<Result<void>> read(uint64_t offset, MutableByteView into);
  Task<Result<void>> write(uint64_t offset, std::vector<ByteView> parts, Durability durability);
  Task<Result<void>> flush();
  Task<Result<void>> discard(uint64_t offset, uint64_t length);
  void issue_write(const SimWrite& write);
  void complete_write(const SimWrite& write, const std::optional<Error>& error, uint64_t landed);
  Unstable* find_unstable(uint64_t number);
  void heal(uint64_t offset, uint64_t length);
  void settle();
  std::shared_ptr<SimDisk> reduced(const std::function<TornWrite(const Unstable&)>& choose) const;

  const Options options_;
  PageImage visible_;
  PageImage stable_;
  std::deque<Unstable> unstable_;  // by number; stable_ + these, in order, is what a crash may leave
  SimDiskStats stats_;
  SimDiskObserver* observer_ = nullptr;
  bool open_ = false;
  uint64_t next_number_ = 0;
  uint64_t random_state_;

  std::map<uint64_t, uint64_t> writing_;  // ranges of writes in flight: start -> end
  std::map<uint64_t, uint64_t> bad_;      // start -> end
  SimFaultHook hook_;
  struct FailNext {
    uint64_t count = 0;
    Code code = Code::io_error;
    uint64_t landed = 0;
  } fail_reads_, fail_writes_, fail_flushes_;
  bool gone_ = false;
  bool read_only_ = false;
  uint64_t space_limit_ = kUnlimited;
  Duration delay_{0};
  uint64_t lose_writes_ = 0;
  std::deque<uint64_t> misdirect_writes_;
};

class SimBlockDevice : public BlockDevice {
 public:
  explicit SimBlockDevice(std::shared_ptr<SimDisk> disk);
  // For tests that need no more than a device: a disk of its own.
  explicit SimBlockDevice(SimDisk::Options options) : SimBlockDevice(SimDisk::create(std::move(options))) {}
  ~SimBlockDevice() override;
  SimDisk& disk() { return *disk_; }

  const DeviceInfo& info() const override { return info_; }
  Task<Result<void>> read(uint64_t offset, MutableByteView into) override;
  Task<Result<void>> write(uint64_t offset, ByteView from, Durability durability) override;
  Task<Result<void>> write_gather(uint64_t offset, std::vector<ByteView> parts, Durability durability) override;
  Task<Result<void>> flush() override;
  Task<Result<void>> discard(uint64_t offset, uint64_t length) override;
  Task<Result<uint64_t>> refresh_size() override;
  Task<void> close() override;
  DeviceStats stats() const override;

 private:
  Result<void> usable() const;
  // Counts the request while it runs; its virtual time is added to *nanoseconds.
  Task<Result<void>> tracked(Task<Result<void>> task, uint64_t* nanoseconds);
  std::shared_ptr<SimDisk> disk_;
  DeviceInfo info_;
  bool closed_ = false;
  uint64_t in_flight_ = 0;
  Event idle_;
};

}  // namespace quarry
