#include "io/ring_executor.h"

#include <liburing.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <span>

#include "base/buffer_arena.h"
#include "base/log.h"
#include "io/thread_pool.h"

namespace quarry {
namespace {
thread_local RingExecutor* current_ring = nullptr;
// A loop that always has something ready still asks the kernel for completions after this many rounds.
constexpr int kRoundsPerTurn = 16;
// While locked memory is short: attempts 10 ms apart to make a small ring, as others' may just be ending.
constexpr int kRingTriesMax = 30;

// Counters are written by one thread and read by any: no locked instruction is needed.
void add(std::atomic<uint64_t>& counter, uint64_t n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

std::atomic<uint64_t> steps_too_long{0};
std::atomic<int64_t> longest_step{0};
void note_step(Duration took) {
  int64_t longest = longest_step.load(std::memory_order_relaxed);
  while (took.count() > longest && !longest_step.compare_exchange_weak(longest, took.count(), std::memory_order_relaxed)) {
  }
}

// Registering a chunk pins its pages, and those that are not there are made first: 20 to 45 ms for 32 MiB. So they are made on a thread of
// their own, once for all loops. false: they are on their way. Chunks stay for the life of the process, and what is in them stays.
bool chunk_is_there(size_t chunk) {
  enum : uint8_t { cold, under_way, there };
  static std::vector<std::atomic<uint8_t>>& states = *new std::vector<std::atomic<uint8_t>>(buffer_arena_chunks_max());
  std::atomic<uint8_t>& state = states[chunk];
  uint8_t seen = cold;
  if (!state.compare_exchange_strong(seen, under_way)) return seen == there;
  detail::run_apart([&state, memory = buffer_arena_chunk(chunk)] {
    ::madvise(memory.data(), memory.size(), MADV_POPULATE_WRITE);  // a kernel that cannot makes them while it registers
    state.store(there);
  });
  return false;
}

Duration thread_cpu_time() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return Duration(t.tv_sec * 1'000'000'000ll + t.tv_nsec);
}
}  // namespace

LoopSteps loop_steps() { return {steps_too_long.load(std::memory_order_relaxed), Duration(longest_step.load(std::memory_order_relaxed))}; }

struct RingExecutor::Ring {
  io_uring ring{};
  bool open = false;
  int event_fd = -1;
  struct Wake : RingOp {
    RingExecutor* owner = nullptr;
    uint64_t value = 0;
    bool armed = false;
  } wake;
  RingOp nobody{[](RingOp&, int, uint32_t) {}};
  Buffer receive_ring_memory;
  io_uring_buf_ring* receive_ring = nullptr;
  ~Ring() {
    if (open) io_uring_queue_exit(&ring);
    if (event_fd >= 0) ::close(event_fd);
  }
};

RingExecutor::RingExecutor(Options options) : options_(std::move(options)), ring_(std::make_unique<Ring>()) {}

RingExecutor::~RingExecutor() {
  CHECK(!on_thread_, "a RingExecutor dies while its loop runs");
  if (in_flight_ == wake_in_flight()) return;
  // What the kernel still works on may write into memory that is about to go.
  enter_thread();
  stopping_ = true;
  cancel_all();
  for (int turns = 0; turns < 100 && in_flight_ > wake_in_flight(); ++turns) turn();
  leave_thread();
  CHECK(in_flight_ <= wake_in_flight(), "a RingExecutor dies under operations that cannot be cancelled");
}

void RingExecutor::cancel_all() {
  io_uring_sqe* sqe = prepare_detached();
  io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
}

Result<std::unique_ptr<RingExecutor>> RingExecutor::create(Options options) {
  std::unique_ptr<RingExecutor> executor(new RingExecutor(std::move(options)));
  TRY(executor->open());
  return executor;
}

Result<void> RingExecutor::open() {
  // Best first: without interrupts of the loop's thread (6.1), then what 5.19 and 5.11 can do. Created disabled, so that the
  // thread which runs the loop becomes the one submitter.
  const unsigned base = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED;
  const unsigned choices[] = {
      base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
      base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
      base,
  };
  // Linux counts a ring against RLIMIT_MEMLOCK of all processes of a user together, and gives back a little after a ring's end.
  // Where the limit is low, a small ring does the same with more system calls.
  struct Size {
    unsigned submissions, completions;
  };
  const Size sizes[] = {{options_.submissions, options_.completions}, {64, 256}, {32, 128}};
  const auto attempt = [&](const Size& size) {
    int error = 0;
    for (const unsigned flags : choices) {
      io_uring_params params{};
      params.flags = flags;
      params.cq_entries = std::min(size.completions, options_.completions);
      error = -io_uring_queue_init_params(std::min(size.submissions, options_.submissions), &ring_->ring, &params);
      if (error != EINVAL) break;
    }
    ring_->open = error == 0;
    return error;
  };
  int error = attempt(sizes[0]);
  for (int tries = 0; error == ENOMEM && tries < kRingTriesMax; ++tries) {
    if (tries > 0) ::usleep(10'000);
    for (const Size& size : std::span(sizes).subspan(1)) {
      error = attempt(size);
      if (error == 0)
        LOG_INFO("little locked memory (ulimit -l): a small io_uring", {"loop", options_.name}, {"submissions", size.submissions});
      if (error != ENOMEM) break;
    }
  }
  if (error == ENOSYS || error == EPERM || error == EACCES) {
    return fail(Code::unsupported,
                "io_uring is not available ({}): Quarry needs Linux 5.11 or newer, sysctl kernel.io_uring_disabled=0, and a container or "
                "service profile that permits the io_uring system calls",
                strerror(error));
  }
  if (error == ENOMEM) {
    return fail(Code::unsupported, "io_uring: not enough locked memory: raise RLIMIT_MEMLOCK (ulimit -l) or start fewer loops");
  }
  if (error != 0) return errno_error(error, "io_uring_setup");
  if ((ring_->ring.features & (IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)) != (IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)) {
    return fail(Code::unsupported, "this kernel's io_uring is too old: Quarry needs Linux 5.11 or newer");
  }
  ring_->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (ring_->event_fd < 0) return errno_error(errno, "eventfd");
  ring_->wake.owner = this;
  ring_->wake.done = [](RingOp& op, int, uint32_t) {
    auto& wake = static_cast<Ring::Wake&>(op);
    wake.armed = false;
    --wake.owner->in_flight_;
    add(wake.owner->counters_.wakeups, 1);
  };
  return {};
}

uint64_t RingExecutor::wake_in_flight() const { return ring_->wake.armed ? 1 : 0; }

void RingExecutor::enter_thread() {
  CHECK(!on_thread_, "a RingExecutor's loop runs already");
  on_thread_ = true;
  previous_ = Executor::current();
  previous_ring_ = current_ring;
  set_current(this);
  current_ring = this;
  if (enabled_) return;
  enabled_ = true;
  // io_uring_enable_rings is declared by liburing 2.3 but not exported by Debian's library.
  CHECK(io_uring_register(static_cast<unsigned>(ring_->ring.ring_fd), IORING_REGISTER_ENABLE_RINGS, nullptr, 0) == 0,
        "enabling a ring failed");
  io_uring_register_ring_fd(&ring_->ring);  // saves a look-up per call where the kernel has it; a failure changes nothing
  if (options_.files_max > 0 && io_uring_register_files_sparse(&ring_->ring, options_.files_max) == 0) {
    for (int slot = static_cast<int>(options_.files_max); slot > 0; --slot) free_files_.push_back(slot - 1);
  }
  if (options_.register_buffers && buffer_arena_chunks_max() > 0) {
    buffers_possible_ = io_uring_register_buffers_sparse(&ring_->ring, static_cast<unsigned>(buffer_arena_chunks_max())) == 0;
    registered_chunks_.assign(buffers_possible_ ? buffer_arena_chunks_max() : 0, false);
  }
}

void RingExecutor::leave_thread() {
  on_thread_ = false;
  set_current(previous_);
  current_ring = previous_ring_;
}

RingExecutor& RingExecutor::here() {
  CHECK(current_ring != nullptr && Executor::current() == current_ring, "not on a RingExecutor's thread");
  return *current_ring;
}

TimePoint RingExecutor::now() const {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return TimePoint(Duration(t.tv_sec * 1'000'000'000ll + t.tv_nsec));
}

RingExecutor::Stats RingExecutor::stats() const {
  const auto get = [](const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); };
  return {get(counters_.turns),   get(counters_.enters),  get(counters_.operations),
          get(counters_.resumed), get(counters_.wakeups), get(counters_.in_flight)};
}

// ---------------------------------------------------------------- operations

void RingExecutor::reserve(uint32_t count) {
  while (io_uring_sq_space_left(&ring_->ring) < count) {
    add(counters_.enters, 1);
    const int submitted = io_uring_submit(&ring_->ring);
    // EBUSY, EAGAIN: the kernel wants its completions taken first, or is short of memory. They are taken only between
    // coroutines, so ask again; get_events moves overflowed completions along.
    if (submitted < 0) {
      CHECK(submitted == -EBUSY || submitted == -EAGAIN || submitted == -EINTR, "io_uring_submit failed");
      io_uring_get_events(&ring_->ring);
    }
  }
}

io_uring_sqe* RingExecutor::prepare(RingOp& op) {
  DCHECK(may_touch());
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_->ring);
  if (sqe == nullptr) {
    reserve(1);
    sqe = io_uring_get_sqe(&ring_->ring);
  }
  io_uring_sqe_set_data(sqe, &op);
  ++in_flight_;
  add(counters_.operations, 1);
  return sqe;
}

io_uring_sqe* RingExecutor::prepare_detached() { return prepare(ring_->nobody); }

void RingExecutor::cancel_op(RingOp& op) {
  io_uring_sqe* sqe = prepare_detached();
  io_uring_prep_cancel(sqe, &op, 0);
}

int RingExecutor::register_file(int fd) {
  if (free_files_.empty()) return -1;
  const int slot = free_files_.back();
  if (io_uring_register_files_update(&ring_->ring, static_cast<unsigned>(slot), &fd, 1) != 1) return -1;
  free_files_.pop_back();
  return slot;
}

void RingExecutor::unregister_file(int slot) {
  if (slot < 0) return;
  int none = -1;
  CHECK(io_uring_register_files_update(&ring_->ring, static_cast<unsigned>(slot), &none, 1) == 1, "io_uring_register_files_update failed");
  free_files_.push_back(slot);
}

bool RingExecutor::has_receive_buffers() {
  if (receive_state_ != ReceiveBuffers::unknown) return receive_state_ == ReceiveBuffers::ready;
  receive_state_ = ReceiveBuffers::impossible;
  const uint32_t count = options_.receive_buffers;
  if (count == 0) return false;
  CHECK(std::has_single_bit(count) && count <= 32768, "receive_buffers is a power of two");
  ring_->receive_ring_memory = Buffer(count * sizeof(io_uring_buf));
  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<uintptr_t>(ring_->receive_ring_memory.data());
  registration.ring_entries = count;
  registration.bgid = kReceiveGroup;
  if (io_uring_register_buf_ring(&ring_->ring, &registration, 0) != 0) return false;
  ring_->receive_ring = reinterpret_cast<io_uring_buf_ring*>(ring_->receive_ring_memory.data());
  io_uring_buf_ring_init(ring_->receive_ring);
  receive_memory_ = Buffer(count * kReceiveBufferSize);
  receive_state_ = ReceiveBuffers::ready;
  for (uint32_t id = 0; id < count; ++id) return_receive_buffer(static_cast<uint16_t>(id));
  return true;
}

ByteView RingExecutor::receive_buffer(uint16_t id) const {
  return receive_memory_.view().subspan(id * kReceiveBufferSize, kReceiveBufferSize);
}

void RingExecutor::return_receive_buffer(uint16_t id) {
  uint8_t* data = receive_memory_.data() + id * kReceiveBufferSize;
  io_uring_buf_ring_add(ring_->receive_ring, data, kReceiveBufferSize, id, io_uring_buf_ring_mask(options_.receive_buffers), 0);
  io_uring_buf_ring_advance(ring_->receive_ring, 1);
}

int RingExecutor::registered_buffer(const void* data, size_t size) {
  if (!buffers_possible_) return -1;
  const int chunk = buffer_arena_chunk_of(data, size);
  if (chunk < 0) return -1;
  if (!registered_chunks_[static_cast<size_t>(chunk)]) {
    if (!chunk_is_there(static_cast<size_t>(chunk))) return -1;  // it works without
    const MutableByteView memory = buffer_arena_chunk(static_cast<size_t>(chunk));
    iovec vector{memory.data(), memory.size()};
    __u64 tag = 0;
    if (io_uring_register_buffers_update_tag(&ring_->ring, static_cast<unsigned>(chunk), &vector, &tag, 1) != 1) {
      // RLIMIT_MEMLOCK, most likely. Unregistered memory works; it costs about a tenth of the operations per CPU-second.
      LOG_INFO("io_uring buffers are not registered", {"loop", options_.name}, {"chunk", chunk});
      buffers_possible_ = false;
      return -1;
    }
    registered_chunks_[static_cast<size_t>(chunk)] = true;
  }
  return chunk;
}

// ---------------------------------------------------------------- the loop

void RingExecutor::post(std::coroutine_handle<> handle) {
  if (current_ring == this && Executor::current() == this) {
    ready_.push_back(handle);
    return;
  }
  // The wake is inside the lock: once the loop has taken the handle, it may run it to its end and destroy this executor.
  const std::lock_guard lock(remote_mutex_);
  remote_.push_back(handle);
  has_remote_.store(true, std::memory_order_release);
  wake_if_sleeping();
}

void RingExecutor::wake_if_sleeping() {
  if (!std::exchange(sleeping_, false)) return;
  const uint64_t one = 1;
  const ssize_t written = ::write(ring_->event_fd, &one, sizeof(one));
  CHECK(written == sizeof(one), "waking a loop failed");
}

void RingExecutor::stop() {
  stopping_.store(true);
  const std::lock_guard lock(remote_mutex_);
  wake_if_sleeping();
}

bool RingExecutor::take_remote() {
  if (!has_remote_.load(std::memory_order_acquire)) return false;
  const std::lock_guard lock(remote_mutex_);
  ready_.insert(ready_.end(), remote_.begin(), remote_.end());
  remote_.clear();
  has_remote_.store(false, std::memory_order_relaxed);
  return true;
}

void RingExecutor::arm_wake() {
  auto& wake = ring_->wake;
  if (wake.armed) return;
  wake.armed = true;
  io_uring_prep_read(prepare(wake), ring_->event_fd, &wake.value, sizeof(wake.value), 0);
}

void RingExecutor::reap() {
  io_uring* ring = &ring_->ring;
  unsigned head;
  unsigned count = 0;
  io_uring_cqe* cqe;
  io_uring_for_each_cqe(ring, head, cqe) {
    ++count;
    auto* op = reinterpret_cast<RingOp*>(static_cast<uintptr_t>(cqe->user_data));
    const int result = cqe->res;
    const uint32_t flags = cqe->flags;
    if ((flags & IORING_CQE_F_MORE) == 0 && op != &ring_->wake) --in_flight_;
    op->done(*op, result, flags);  // may prepare, never reaps
    step_done();
  }
  io_uring_cq_advance(ring, count);
}

void RingExecutor::steps_begin(bool slept) {
  step_began_ = now();
  if (!slept && step_began_ - cpu_read_at_ < kLoopStepMax) return;
  cpu_read_ = thread_cpu_time();
  cpu_read_at_ = step_began_;
}

void RingExecutor::step_done() {
  const TimePoint end = now();
  if (end - step_began_ >= kLoopStepMax) {
    long_step(end);
  } else if ((end - step_began_).count() > longest_step.load(std::memory_order_relaxed)) {
    note_step(end - step_began_);
  }
  step_began_ = end;
}

// The step took that long by the clock on the wall; how much of it was the thread's own? At least what is left of the CPU time since its
// last reading when all the time between that reading and the step's begin is taken off.
void RingExecutor::long_step(TimePoint end) {
  const Duration cpu = thread_cpu_time();
  const Duration own = cpu - cpu_read_ - (step_began_ - cpu_read_at_);
  cpu_read_ = cpu;
  cpu_read_at_ = end;
  note_step(own);
  if (own >= kLoopStepMax) steps_too_long.fetch_add(1, std::memory_order_relaxed);
}

void RingExecutor::turn() {
  add(counters_.turns, 1);
  take_remote();
  steps_begin(false);
  for (int round = 0; round < kRoundsPerTurn && !ready_.empty(); ++round) {
    running_.swap(ready_);
    for (const auto handle : running_) {
      handle.resume();
      step_done();
    }
    add(counters_.resumed, running_.size());
    running_.clear();
  }
  const TimePoint next = next_timer() == kNoDeadline ? kNoDeadline : fire_due_timers(now());
  io_uring* ring = &ring_->ring;
  bool sleep = !finished_ && ready_.empty() && io_uring_cq_ready(ring) == 0;
  if (sleep) {
    arm_wake();
    const std::lock_guard lock(remote_mutex_);
    if (!remote_.empty() || (stopping_.load() && in_flight_ == wake_in_flight())) {
      sleep = false;
    } else {
      sleeping_ = true;
    }
  }
  int result = 0;
  const bool slept = sleep;
  if (sleep) {
    add(counters_.enters, 1);
    io_uring_cqe* cqe = nullptr;
    __kernel_timespec timeout{};
    __kernel_timespec* limit = nullptr;
    TimePoint until = next;
    if (stopping_.load()) until = std::min(until, now() + options_.stop_grace);
    if (until != kNoDeadline) {
      const int64_t left = std::max<int64_t>(0, (until - now()).count());
      timeout.tv_sec = left / 1'000'000'000;
      timeout.tv_nsec = left % 1'000'000'000;
      limit = &timeout;
    }
    result = io_uring_submit_and_wait_timeout(ring, &cqe, 1, limit, nullptr);
    const std::lock_guard lock(remote_mutex_);
    sleeping_ = false;
  } else if (io_uring_sq_ready(ring) > 0) {
    add(counters_.enters, 1);
    result = io_uring_submit_and_get_events(ring);
  } else if ((IO_URING_READ_ONCE(*ring->sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0) {
    add(counters_.enters, 1);
    result = io_uring_get_events(ring);
  }
  CHECK(result >= 0 || result == -ETIME || result == -EINTR || result == -EBUSY || result == -EAGAIN, "io_uring_enter failed");
  steps_begin(slept);
  reap();
  counters_.in_flight.store(in_flight_ - wake_in_flight(), std::memory_order_relaxed);
}

void RingExecutor::run() {
  enter_thread();
  TimePoint cancel_at = kNoDeadline;
  for (;;) {
    turn();
    if (!stopping_.load()) continue;
    const uint64_t operations = in_flight_ - wake_in_flight();
    if (ready_.empty() && !has_remote_.load() && operations == 0) break;
    if (cancel_at == kNoDeadline) cancel_at = now() + options_.stop_grace;
    if (operations > 0 && now() >= cancel_at) {
      cancel_all();
      cancel_at = now() + options_.stop_grace;
    }
  }
  leave_thread();
}

detail::Root RingExecutor::drive(Task<void> task) {
  co_await std::move(task);
  finished_ = true;
}

void RingExecutor::run_until_done(Task<void> task) {
  enter_thread();
  finished_ = false;
  drive(std::move(task));
  while (!finished_) turn();
  finished_ = false;
  leave_thread();
}

// ---------------------------------------------------------------- the pool

Result<std::unique_ptr<ExecutorPool>> ExecutorPool::start(Options options) {
  CHECK(options.threads > 0);
  std::unique_ptr<ExecutorPool> pool(new ExecutorPool());
  for (size_t i = 0; i < options.threads; ++i) {
    RingExecutor::Options ring = options.ring;
    ring.name = fmt::format("{}-{}", options.name, i);
    TRY_ASSIGN(auto executor, RingExecutor::create(std::move(ring)));
    pool->executors_.push_back(std::move(executor));
  }
  for (auto& executor : pool->executors_) {
    pool->threads_.emplace_back([&loop = *executor] {
      pthread_setname_np(pthread_self(), loop.name().substr(0, 15).c_str());
      loop.run();
    });
  }
  return pool;
}

void ExecutorPool::stop() {
  for (auto& executor : executors_) executor->stop();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}
ExecutorPool::~ExecutorPool() { stop(); }

}  // namespace quarry
