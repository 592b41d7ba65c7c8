#include "meta/log_store/committer.h"

#include "base/log.h"
#include "meta/log_frame.h"

namespace quarry::meta {
namespace {
// While frames are in flight, a further one waits until so many transactions per frame in flight have gathered: fewer, fuller frames
// cost the drives and the processor less, and one frame at a time always runs at once.
constexpr size_t kGatherPerFrame = 8;
// Groups up to this size are applied on the event loop (tens of microseconds); larger ones on the pool.
constexpr size_t kApplyInPlaceMax = 128u << 10;
// What cannot be written is tried again after growing pauses.
constexpr Duration kPauseMin = std::chrono::milliseconds(20), kPauseMax = std::chrono::milliseconds(500);
// So long commits wait for a log that cannot go on. A full file system often has room again a moment later; a client does not wait for
// ever.
constexpr Duration kStallPatience = std::chrono::seconds(5);

// Comparisons with recent writes in one step of the loop, some 20 ns each: of one transaction, of one that was checked apart and only
// has to catch up, and of a group.
constexpr size_t kCompareInPlaceMax = 20'000, kCompareToCatchUpMax = 200'000, kCompareInGroupMax = 200'000;
constexpr size_t kCheckAtOnce = 2'000;  // writes, when a transaction is checked apart
constexpr size_t kGroupTransactionsMax = 4096;

Error stopped_error() { return fail(Code::cancelled, "the metadata store is closed"); }
}  // namespace

// One waiting commit; lives in the frame of commit_rows, which is suspended until it is answered.
struct Committer::Pending {
  Version checked;  // no write up to here is in its way: its read version, or later if it was checked apart
  ReadSet reads;
  WriteSet writes;
  bool was_apart = false, conflict = false;
  Executor* home = nullptr;
  std::coroutine_handle<> handle;
  Result<Version> result = Version{0};
};

struct Committer::Frame {
  FrameNumber number = 0;
  std::string bytes;
  Applied applied;  // what the index is at after it
  Version first_version = 0;
  size_t commits = 0;
  std::vector<Pending*> pending;    // in order of versions
  std::vector<Pending*> conflicts;  // answered after this frame, so that the next attempt sees what was in its way
  enum class State : uint8_t { writing, durable, failed } state = State::writing;
};

struct Committer::Submit {
  Committer& committer;
  Pending& pending;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    Committer& to = committer;
    pending.home = &Executor::here();
    pending.handle = handle;
    std::coroutine_handle<> wake;
    {
      const std::lock_guard lock(to.queue_mutex_);
      if (to.refuse_ || to.stalled_) {
        pending.result = to.refuse_ ? *to.refuse_ : *to.stalled_;
        return false;
      }
      const size_t bytes = pending.writes.ops().size();
      if (to.queue_.size() >= to.options_.queued_transactions_max || to.queued_bytes_ + bytes > to.options_.queued_bytes_max) {
        pending.result = fail(Code::overloaded, "{} commits wait already", to.queue_.size());
        return false;
      }
      to.queue_.push_back(&pending);
      to.queued_bytes_ += bytes;
      if (to.sleeper_ && to.queue_.size() >= to.wake_at_) wake = std::exchange(to.sleeper_, nullptr);
      // Posted under the lock: once it is released the answer may come, and this object be gone.
      if (wake) to.home_.post(wake);
    }
    return true;
  }
  void await_resume() const noexcept {}
};

// The committer's own wait: until enough is queued, or nudge().
struct Committer::Sleep {
  Committer& committer;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    const std::lock_guard lock(committer.queue_mutex_);
    committer.wake_at_ = committer.wake_threshold();
    if (committer.stopping_ || committer.queue_.size() >= committer.wake_at_) return false;
    committer.sleeper_ = handle;
    return true;
  }
  void await_resume() const noexcept {}
};

Committer::Committer(const LogMetaOptions& options, CommitLog& log, std::shared_ptr<Index> index, Applied start)
    : version_(start.version),
      options_(options),
      home_(Executor::here()),
      log_(log),
      index_(std::move(index)),
      hub_(std::make_shared<WatchHub>(start.version)),
      window_(start.version, options.conflict_window_entries, options.conflict_window_bytes),
      assigned_(start) {
  counters_.frame_appended = counters_.frame_applied = start.frame;
  counters_.log_bytes = start.log_bytes;
  publish_view(start.version);
}

Committer::~Committer() { CHECK(in_flight_.empty() && queue_.empty(), "a Committer dies under its commits: stop it first"); }

void Committer::start() { tasks_.spawn(run()); }

Task<Result<Version>> Committer::commit_rows(Version read_version, ReadSet reads, WriteSet writes) {
  Pending pending{.checked = read_version, .reads = std::move(reads), .writes = std::move(writes)};
  co_await Submit{*this, pending};
  co_return std::move(pending.result);
}

std::shared_ptr<IndexView> Committer::view() const {
  const std::lock_guard lock(view_mutex_);
  return view_;
}

void Committer::publish_view(Version version) {
  auto next = index_->view(version);
  {
    const std::lock_guard lock(view_mutex_);
    view_.swap(next);
  }
  version_.store(version, std::memory_order_release);
  // `next` holds the old view: its snapshot is released here, outside the lock, unless somebody still reads it.
}

size_t Committer::queued() const {
  const std::lock_guard lock(queue_mutex_);
  return queue_.size();
}

std::string Committer::failure() const {
  const std::lock_guard lock(queue_mutex_);
  if (refuse_) return refuse_->to_string();
  return stalled_ ? stalled_->to_string() : std::string();
}

size_t Committer::wake_threshold() const {
  if (in_flight_.empty()) return 1;
  if (in_flight_.size() >= options_.frames_in_flight_max) return SIZE_MAX;
  return in_flight_.size() * kGatherPerFrame;
}

void Committer::nudge() {
  std::coroutine_handle<> wake;
  {
    const std::lock_guard lock(queue_mutex_);
    if (!sleeper_) return;
    wake_at_ = wake_threshold();
    if (stopping_ || queue_.size() >= wake_at_) wake = std::exchange(sleeper_, nullptr);
  }
  if (wake) home_.post(wake);
}

bool Committer::die(std::string_view point) {
  if (dead_) return true;
  if (options_.die_at && options_.die_at(point)) {
    fail_with(fail(Code::unavailable, "the metadata store was made to die at {}", point));
    dead_ = true;
  }
  return dead_;
}

void Committer::fail_with(Error error) {
  const std::lock_guard lock(queue_mutex_);
  if (!refuse_) refuse_ = std::move(error);
}

void Committer::answer(Pending& pending, Result<Version> result) {
  pending.result = std::move(result);
  pending.home->post(pending.handle);
}

Task<void> Committer::run() {
  for (;;) {
    co_await Sleep{*this};
    std::optional<Error> refused;
    {
      const std::lock_guard lock(queue_mutex_);
      refused = refuse_;
    }
    if (broken_ || dead_ || (refused && !stopping_)) {
      std::deque<Pending*> dropped;
      {
        const std::lock_guard lock(queue_mutex_);
        dropped.swap(queue_);
        queued_bytes_ = 0;
        if (!refuse_) refuse_ = broken_;
        refused = refuse_;
      }
      for (Pending* pending : dropped) answer(*pending, *refused);
      if (stopping_ && apart_ == 0) co_return;
      if (stopping_) co_await sleep_for(std::chrono::microseconds(50));
      continue;
    }
    if (in_flight_.size() < options_.frames_in_flight_max && form_group()) tasks_.spawn(append(in_flight_.back().get()));
    if (stopping_) {
      if (queued() == 0 && apart_ == 0) co_return;
      if (queued() == 0 || in_flight_.size() >= options_.frames_in_flight_max) co_await sleep_for(std::chrono::microseconds(50));
    }
  }
}

// Takes what is queued, up to one frame. false: there was nothing to write.
bool Committer::form_group() {
  std::vector<Pending*> group;
  {
    const std::lock_guard lock(queue_mutex_);
    size_t bytes = 0;
    while (!queue_.empty() && group.size() < kGroupTransactionsMax) {
      const size_t size = queue_.front()->writes.ops().size();
      if (!group.empty() && bytes + size > options_.group_bytes_max) break;
      bytes += size;
      queued_bytes_ -= size;
      group.push_back(queue_.front());
      queue_.pop_front();
    }
  }
  auto frame = std::make_unique<Frame>();
  LogFrameWriter writer;
  Version version = assigned_.version;
  size_t compared = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    Pending* pending = group[i];
    const size_t cost = pending->conflict ? 0 : window_.cost(pending->checked, pending->reads);
    if (cost > (pending->was_apart ? kCompareToCatchUpMax : kCompareInPlaceMax)) {
      ++apart_;
      tasks_.spawn(check_apart(pending));
      continue;
    }
    if (compared > 0 && compared + cost > kCompareInGroupMax) {
      while (group.size() > i) {
        requeue(group.back());
        group.pop_back();
      }
      break;
    }
    compared += cost;
    if (pending->conflict || window_.conflicts(pending->checked, pending->reads)) {
      frame->conflicts.push_back(pending);
      continue;
    }
    ++version;
    if (pending->writes.has_stamps()) {
      const std::string ops = pending->writes.stamped_ops(version);
      window_.add(version, ops);
      writer.add(ops);
    } else {
      window_.add(version, pending->writes.ops());
      writer.add(pending->writes.ops());
    }
    frame->pending.push_back(pending);
  }
  counters_.conflicts += frame->conflicts.size();
  if (frame->pending.empty()) {
    for (Pending* pending : frame->conflicts) {
      if (in_flight_.empty()) {
        answer(*pending, fail(Code::conflict, "what the transaction read has changed"));
      } else {
        in_flight_.back()->conflicts.push_back(pending);
      }
    }
    return false;
  }
  LogFrameHeader header;
  header.number = frame->number = assigned_.frame + 1;
  header.first_version = frame->first_version = assigned_.version + 1;
  header.store = assigned_.store;
  header.previous_check = assigned_.check;
  frame->commits = frame->pending.size();
  frame->bytes = writer.seal(header);
  assigned_.frame = header.number;
  assigned_.version = version;
  assigned_.check = header.check;
  assigned_.log_bytes += frame->bytes.size();
  frame->applied = assigned_;
  in_flight_.push_back(std::move(frame));
  return true;
}

void Committer::requeue(Pending* pending) {
  const std::lock_guard lock(queue_mutex_);
  queue_.push_front(pending);
  queued_bytes_ += pending->writes.ops().size();
}

// Compares a transaction that began long ago or read much with what was written since, in steps that leave the loop to others. When it is
// nearly up to date it goes to the front of the queue, and is compared with the rest there.
Task<void> Committer::check_apart(Pending* pending) {
  if (!pending->reads.sorted) {
    const auto sort = [pending] {
      pending->reads.sort();
      return true;
    };
    auto sorting = blocking(*options_.pool, sort);
    co_await std::move(sorting);
  }
  while (!dead_ && !pending->conflict && window_.cost(pending->checked, pending->reads) > kCompareInPlaceMax) {
    const ConflictWindow::Checked checked = window_.check_some(pending->checked, pending->reads, kCheckAtOnce);
    pending->conflict = checked.conflict;
    pending->checked = checked.reached;
    co_await home_.yield();
  }
  pending->was_apart = true;
  requeue(pending);
  --apart_;
  nudge();
}

Task<void> Committer::append(Frame* frame) {
  frame->state = Frame::State::failed;
  if (!die("append.before")) {
    frame->state = Frame::State::writing;
    for (int attempt = 0;; ++attempt) {
      std::vector<ByteView> parts{bytes_of(frame->bytes)};
      Task<Result<void>> work = log_.append(frame->number, std::move(parts));
      const Result<void> appended = co_await std::move(work);
      if (appended) {
        frame->state = Frame::State::durable;
        break;
      }
      stalls(*frame, appended.error());
      if (!ending()) co_await pause(attempt);
      if (ending()) {
        frame->state = Frame::State::failed;
        break;
      }
    }
  }
  co_await drain();
}

Task<void> Committer::pause(int attempt) { co_await sleep_for(std::min(kPauseMax, kPauseMin * (1 << std::min(attempt, 10)))); }

void Committer::stalls(const Frame& frame, const Error& error) {
  const TimePoint now = home_.now();
  if (!stalls_since_) {
    stalls_since_ = now;
    LOG_WARNING("metadata cannot be written: commits wait", {"frame", frame.number}, {"error", error.to_string()});
  }
  if (now - *stalls_since_ < kStallPatience) return;
  // Too long to wait: who asked is told what is known.
  const Error refusal(error.code() == Code::no_space ? Code::no_space : Code::unavailable,
                      fmt::format("the metadata cannot be written ({}); commits are taken again once it can", error.to_string()));
  std::deque<Pending*> dropped;
  {
    const std::lock_guard lock(queue_mutex_);
    if (!stalled_)
      LOG_ERROR("metadata cannot be written: commits are refused until it can", {"frame", frame.number}, {"error", error.to_string()});
    stalled_ = refusal;
    dropped.swap(queue_);
    queued_bytes_ = 0;
  }
  for (Pending* pending : dropped) answer(*pending, refusal);
  const Error unknown = fail(Code::unknown_outcome, "the commit is seen later, or not at all: {}", refusal.context());
  for (const auto& waiting : in_flight_) {
    for (Pending* pending : std::exchange(waiting->pending, {})) answer(*pending, unknown);
    for (Pending* pending : std::exchange(waiting->conflicts, {})) answer(*pending, refusal);
  }
}

void Committer::goes_on(const Frame& frame) {
  if (!stalls_since_) return;
  stalls_since_.reset();
  const std::lock_guard lock(queue_mutex_);
  stalled_.reset();
  LOG_INFO("metadata can be written again", {"frame", frame.number});
}

// Applies durable frames in order; whoever finds it running leaves the rest to it.
Task<void> Committer::drain() {
  if (draining_) co_return;
  draining_ = true;
  while (!in_flight_.empty() && in_flight_.front()->state != Frame::State::writing) {
    Frame& frame = *in_flight_.front();
    const bool lost = frame.state == Frame::State::failed || broken_ || die("append.after");
    if (lost) {
      // Frames after a failed one are given up too, even if they are durable: recovery may not find them.
      if (!broken_) broken_ = fail(Code::unavailable, "the metadata store was closed before");
      const Error unknown = fail(Code::unknown_outcome, "the commit may be found when the store is opened again: {}", broken_->context());
      finish(frame, &unknown);
    } else {
      counters_.frame_appended = frame.number;
      Task<Result<void>> work = apply(frame);
      const Result<void> applied = co_await std::move(work);
      if (!applied) {
        broken_ = fail(Code::unavailable, "the metadata index failed ({}): restart, it is rebuilt if needed", applied.error().to_string());
        LOG_ERROR("metadata index failed", {"frame", frame.number}, {"error", applied.error().to_string()});
        fail_with(*broken_);
        const Error unknown =
            fail(Code::unknown_outcome, "the commit is durable but cannot be shown before a restart: {}", broken_->context());
        finish(frame, &unknown);
      } else {
        goes_on(frame);
        finish(frame, nullptr);
      }
    }
    in_flight_.pop_front();
    if (!lost && on_applied_) on_applied_();
  }
  draining_ = false;
  nudge();
}

Task<Result<void>> Committer::apply(Frame& frame) {
  // Its own bytes are decoded again: what is applied is what is in the log, checked once more.
  auto decoded = decode_log_frame(bytes_of(frame.bytes));
  if (!decoded) co_return std::move(decoded).error();
  Result<void> applied = fail(Code::busy, "not tried yet");
  if (frame.bytes.size() <= kApplyInPlaceMax) applied = index_->apply(decoded->transactions, frame.applied, false);
  for (int attempt = 0; !applied; ++attempt) {
    const Code code = applied.error().code();
    if (code == Code::no_space) {  // in the root directory
      stalls(frame, applied.error());
      if (!ending()) co_await pause(attempt);
      if (ending()) break;
    } else if (code != Code::busy || attempt > 0) {
      break;
    }
    const auto slowly = [this, &decoded, &frame, code]() -> Result<void> {
      if (code == Code::no_space) TRY(index_->resume());
      return index_->apply(decoded->transactions, frame.applied, true);
    };
    Task<Result<void>> work = blocking(*options_.pool, slowly);
    applied = co_await std::move(work);
  }
  if (!applied) co_return applied;
  counters_.frame_applied = frame.number;
  if (die("apply.after")) co_return fail(Code::unavailable, "died");
  publish_view(frame.applied.version);
  Version version = frame.first_version;
  for (const auto ops : decoded->transactions) hub_->publish(version++, ops);
  co_return Result<void>();
}

void Committer::finish(Frame& frame, const Error* error) {
  Version version = frame.first_version;
  if (error == nullptr) {
    counters_.commits += frame.commits;
    ++counters_.groups;
    counters_.log_bytes = frame.applied.log_bytes;
  }
  for (Pending* pending : frame.pending) {
    if (error != nullptr) {
      answer(*pending, *error);
    } else {
      answer(*pending, version++);
    }
  }
  for (Pending* pending : frame.conflicts) answer(*pending, fail(Code::conflict, "what the transaction read has changed"));
}

Task<void> Committer::stop(bool finish_accepted) {
  fail_with(stopped_error());
  stopping_ = true;
  if (!finish_accepted) dead_ = true;
  nudge();
  co_await tasks_.join();
  {
    const std::lock_guard lock(view_mutex_);
    view_.reset();
  }
  hub_->close(stopped_error());
  index_.reset();
}

}  // namespace quarry::meta
