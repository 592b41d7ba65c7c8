// HashQueue: digests of bodies, away from the event loops.
//
// MD5 is a chain of dependent steps, the slowest thing a PUT does per byte. Pieces of concurrent bodies are collected and advanced
// side by side in the lanes of a vector unit (codec/md5_multi.h), on the compute pool, while the loop that received them goes on
// with I/O. Without a pool, or for small pieces, the work is done in place, in slices, with a yield between them.
//
// Full lanes do five to eight times the bytes per CPU-second of one, so a drain gathers: bodies whose pieces were hashed together a moment
// ago are about to bring their next ones, and it waits for as many as came last time, at most kGatherMax. When they do not come in that
// time it expects fewer the next time, so a lone body never waits. A second thread joins in only when a whole vector of pieces waits.
#pragma once
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>

#include "codec/digest.h"
#include "codec/md5_multi.h"
#include "io/blocking_pool.h"
#include "object/object_engine.h"

namespace quarry::object {

// The digests of one body. Confined to one task at a time.
class BodyDigest {
 public:
  BodyDigest(ChecksumAlgorithm checksum, bool with_sha256);
  void update(ByteView bytes);

  struct Values {
    std::string md5;       // 16 raw bytes
    std::string checksum;  // raw bytes of the chosen algorithm; empty without one
    std::string sha256;    // 32 raw bytes, if asked for
  };
  Values finish();

 private:
  friend class HashQueue;
  void update_others(ByteView bytes);
  Md5Stream md5_;
  ChecksumAlgorithm algorithm_;
  bool with_sha256_;
  std::optional<S3Checksum> checksum_;  // but sha256
  std::optional<Digest> sha256_;
};

// Thread-safe.
class HashQueue {
 public:
  explicit HashQueue(BlockingPool* pool) : pool_(pool) {}

  // Work that runs while its starter does something else. The bytes and the digest stay alive until wait() has returned.
  class Job {
   public:
    Job(BodyDigest& digest, ByteView bytes) : digest_(digest), bytes_(bytes) {}
    Job(const Job&) = delete;

   private:
    friend class HashQueue;
    BodyDigest& digest_;
    ByteView bytes_;
    Executor* home_ = nullptr;
    bool started_ = false;
    // null: running; kDone: done; else the waiting coroutine.
    std::atomic<void*> state_{nullptr};
  };
  // Starts it on the pool, if there is one and the piece is large enough.
  void start(Job& job);
  // Returns when the digest has taken the bytes.
  Task<void> wait(Job& job);

 private:
  static constexpr size_t kSmallPiece = 16 * 1024;                      // below, a hop to the pool costs more than it saves
  static constexpr size_t kSlice = 64 * 1024;                           // without a pool: bytes hashed between two yields (about 100 us)
  static constexpr size_t kSlotsMax = 16;                               // jobs taken together, at most the lanes there are
  static constexpr Duration kGatherMax = std::chrono::milliseconds(2);  // about what one piece of 1 MiB takes alone
  // What the pool's threads use. They may leave it after the queue is gone.
  struct Shared {
    void drain();
    bool want_drain_locked() const { return !jobs.empty() && (draining == 0 || (!gathering && jobs.size() >= slots)); }
    void gather(std::unique_lock<std::mutex>& lock);
    const size_t slots = std::clamp<size_t>(md5_lanes(), 1, kSlotsMax);
    std::mutex mutex;              // guards what follows
    std::condition_variable came;  // a job, while a drain gathers
    std::deque<Job*> jobs;
    size_t draining = 0;  // drains submitted or running
    bool gathering = false;
    size_t expected = 1;  // pieces that come together, as last seen
  };
  BlockingPool* pool_;
  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

}  // namespace quarry::object
