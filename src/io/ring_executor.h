// RingExecutor: the real Executor: one thread, one io_uring for drives and sockets. ExecutorPool: one for each core.
// A turn of the loop: run what is ready, fire due timers, hand all prepared operations to the kernel in one system call (which
// also waits if nothing is ready), and resume the owners of what completed. A coroutine operation lives in its frame: no allocation.
//
//   auto pool = ExecutorPool::start({.name = "quarry", .threads = 4});
//   wait_on((*pool)->executor(0), serve(...));          // from a foreign thread: runs the task there, blocks until it is done
//   (*pool)->stop();
//
// Thread-safe: post, now, stop. Everything else: the loop's thread.
#pragma once
#include <atomic>
#include <mutex>
#include <semaphore>
#include <string>
#include <thread>

#include "base/bytes.h"
#include "base/result.h"
#include "io/sync.h"

struct io_uring_sqe;

namespace quarry {

// Steps: what a loop runs without a look at what else is ready: one coroutine up to its next wait, one timer, one completion. While a step
// lasts nobody else on that loop is served, so none may be longer than this. Only the thread's own CPU time counts: on a machine that is
// busy with other things a step takes longer, and nobody is to blame.
#if defined(__has_feature) && (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
inline constexpr Duration kLoopStepMax = std::chrono::milliseconds(100);
#else
inline constexpr Duration kLoopStepMax = std::chrono::milliseconds(10);
#endif
struct LoopSteps {
  uint64_t too_long = 0;
  Duration longest{};
};
// Of all loops of this process since it began. Any thread.
LoopSteps loop_steps();

// An operation the kernel works on. `done` is called on the loop's thread, once per completion; the operation stays where it is
// until the last one (flags without IORING_CQE_F_MORE). result: as of the system call, negative errno on failure.
struct RingOp {
  void (*done)(RingOp& op, int result, uint32_t flags) = nullptr;
};

class RingExecutor : public Executor {
 public:
  struct Options {
    std::string name = "ring";
    uint32_t submissions = 512;   // prepared operations per system call; more only cost another call
    uint32_t completions = 8192;  // beyond this the kernel keeps the rest itself
    uint32_t files_max = 256;     // registered files (drives)
    // Memory the kernel may fill for connections that wait (Stream::wait_readable) without a buffer of their own.
    uint32_t receive_buffers = 256;  // a power of two
    bool register_buffers = true;    // give the kernel the Buffer arena (base/buffer_arena.h), where RLIMIT_MEMLOCK allows
    // After stop: how long operations in flight may take before they are cancelled.
    Duration stop_grace = std::chrono::seconds(2);
  };
  struct Stats {
    uint64_t turns = 0, enters = 0, operations = 0, resumed = 0, wakeups = 0, in_flight = 0;
  };

  // Errors: unsupported (no io_uring in this kernel, or it is forbidden here: says how to allow it), io_error.
  static Result<std::unique_ptr<RingExecutor>> create(Options options);
  static Result<std::unique_ptr<RingExecutor>> create() { return create(Options{}); }
  ~RingExecutor() override;  // CHECKs that the loop is not running

  void post(std::coroutine_handle<> handle) override;
  TimePoint now() const override;

  // Runs the loop on the calling thread until stop(), which also waits for what is ready and for operations in flight. All runs
  // of one executor must be on the same thread (the kernel accepts one submitter). A task that still sleeps after stop is abandoned.
  void run();
  void stop();
  // Runs the loop on the calling thread until the task is done. For tools and tests.
  template <class T>
  T run(Task<T> task) {
    std::optional<T> value;
    run_until_done(detail::store_result(std::move(task), &value));
    return std::move(*value);
  }
  void run(Task<void> task) { run_until_done(std::move(task)); }

  const std::string& name() const { return options_.name; }
  Stats stats() const;

  // ---- for implementations of devices and streams, on the loop's thread
  static RingExecutor& here();  // CHECKs that the current executor is a ring
  // A submission for op, to be filled by an io_uring_prep_* (which keep the user data that this call sets) before anything else is
  // prepared. Submitted at the end of this turn at the latest.
  io_uring_sqe* prepare(RingOp& op);
  // A submission whose completion nobody wants (a cancel).
  io_uring_sqe* prepare_detached();
  // Cancels op; it completes with -ECANCELED, or normally if it was faster.
  void cancel_op(RingOp& op);
  // Two operations linked in one submission must not be parted by a full queue: makes room for count.
  void reserve(uint32_t count);
  // Slot of the registered file table, or -1 when it is full (then use the descriptor itself).
  int register_file(int fd);
  void unregister_file(int slot);
  // Provided receive buffers: false where the kernel has none (before 5.19). Made on first use.
  static constexpr uint16_t kReceiveGroup = 1;
  static constexpr size_t kReceiveBufferSize = 8 * kKiB;
  bool has_receive_buffers();
  ByteView receive_buffer(uint16_t id) const;
  void return_receive_buffer(uint16_t id);
  // Index of the registered buffer that holds all of the range, or -1.
  int registered_buffer(const void* data, size_t size);

 protected:
  bool may_touch() const override { return current() == this || !on_thread_.load(); }
  void timer_done() override { step_done(); }

 private:
  struct Ring;
  explicit RingExecutor(Options options);
  Result<void> open();
  void enter_thread();
  void leave_thread();
  void turn();
  void steps_begin(bool slept);
  void step_done();
  void long_step(TimePoint end);
  void cancel_all();
  uint64_t wake_in_flight() const;
  bool take_remote();
  void wake_if_sleeping();  // with remote_mutex_ held
  void reap();
  void arm_wake();
  void run_until_done(Task<void> task);
  detail::Root drive(Task<void> task);

  const Options options_;
  std::unique_ptr<Ring> ring_;
  std::vector<std::coroutine_handle<>> ready_, running_;
  Executor* previous_ = nullptr;
  RingExecutor* previous_ring_ = nullptr;
  std::atomic<bool> on_thread_{false};  // the loop runs
  bool enabled_ = false;
  bool finished_ = false;   // the task of run(task) is done: do not sleep
  uint64_t in_flight_ = 0;  // without the wake operation
  TimePoint step_began_{};
  // CPU time of the loop's thread, and when it was read: seldom, because that is a system call.
  Duration cpu_read_{};
  TimePoint cpu_read_at_{};
  std::vector<int> free_files_;
  Buffer receive_memory_;
  enum class ReceiveBuffers : uint8_t { unknown, ready, impossible } receive_state_ = ReceiveBuffers::unknown;
  std::vector<bool> registered_chunks_;
  bool buffers_possible_ = false;
  struct Counters {
    std::atomic<uint64_t> turns{0}, enters{0}, operations{0}, resumed{0}, wakeups{0}, in_flight{0};
  } counters_;

  // Other threads.
  std::atomic<bool> stopping_{false};
  std::atomic<bool> has_remote_{false};
  std::mutex remote_mutex_;
  std::vector<std::coroutine_handle<>> remote_;
  bool sleeping_ = false;  // guarded by remote_mutex_
};

class ExecutorPool {
 public:
  struct Options {
    std::string name = "loop";  // threads are called NAME-0, ...
    size_t threads = 1;
    RingExecutor::Options ring{};
  };
  // All loops run when this returns. Errors: as RingExecutor::create.
  static Result<std::unique_ptr<ExecutorPool>> start(Options options);
  ~ExecutorPool();  // stops
  size_t size() const { return executors_.size(); }
  RingExecutor& executor(size_t index) { return *executors_[index]; }
  // Stop services first. Then: refuses nothing, waits for what is ready and in flight, ends the threads. Idempotent.
  void stop();

 private:
  ExecutorPool() = default;
  std::vector<std::unique_ptr<RingExecutor>> executors_;
  std::vector<std::thread> threads_;
};

namespace detail {
template <class T>
Root run_and_signal(Executor& executor, Task<T> task, std::optional<T>* value, std::binary_semaphore* done) {
  co_await executor.enter();
  value->emplace(co_await std::move(task));
  done->release();
}
inline Root run_and_signal(Executor& executor, Task<void> task, std::binary_semaphore* done) {
  co_await executor.enter();
  co_await std::move(task);
  done->release();
}
}  // namespace detail

// From a thread that is not an executor's: runs the task on `executor`, blocks until it is done, returns its value.
template <class T>
T wait_on(Executor& executor, Task<T> task) {
  CHECK(Executor::current() == nullptr, "wait_on would block an event loop: use `on`");
  std::binary_semaphore done(0);
  if constexpr (std::is_void_v<T>) {
    detail::run_and_signal(executor, std::move(task), &done);
    done.acquire();
  } else {
    std::optional<T> value;
    detail::run_and_signal(executor, std::move(task), &value, &done);
    done.acquire();
    return std::move(*value);
  }
}

}  // namespace quarry
