#include "meta/watch_hub.h"

#include "base/coding.h"
#include "meta/write_set.h"

namespace quarry::meta {

// Lives in the frame of the watching task. Registered and woken under the hub's lock; its timer belongs to its executor.
struct WatchHub::Waiter {
  WatchHub& hub;
  std::string prefix;
  Version after;
  TimePoint deadline;
  Executor* home = nullptr;
  std::coroutine_handle<> handle;
  struct DeadlineTimer : Timer {
    Waiter* waiter = nullptr;
  } timer;
  bool registered = false;  // under the hub's lock
  Result<Version> result = Version{0};

  Waiter(WatchHub& h, std::string p, Version v, TimePoint at) : hub(h), prefix(std::move(p)), after(v), deadline(at) {}
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting);
  Result<Version> await_resume() {
    home->cancel(timer);
    return std::move(result);
  }
};

bool WatchHub::Waiter::await_suspend(std::coroutine_handle<> waiting) {
  home = &Executor::here();
  handle = waiting;
  const std::lock_guard lock(hub.mutex_);
  if (hub.closed_) {
    result = *hub.closed_;
    return false;
  }
  if (after < hub.floor_) {
    result = hub.newest_;
    return false;
  }
  const std::string end = prefix_end(prefix);
  // Newest first, so that a watcher who is up to date looks at nothing.
  for (auto at = hub.history_.rbegin(); at != hub.history_.rend() && at->version > after; ++at) {
    const Change& change = *at;
    const bool key = change.end.empty();
    const bool hit = key ? change.begin.starts_with(prefix) : (end.empty() || change.begin < end) && change.end > prefix;
    if (hit) {
      result = hub.newest_;
      return false;
    }
  }
  if (deadline <= home->now()) {
    result = fail(Code::timed_out, "no change came before the deadline");
    return false;
  }
  if (hub.waiters_.size() >= kWatchersMax) {
    result = fail(Code::overloaded, "{} watches are open already", hub.waiters_.size());
    return false;
  }
  hub.waiters_.emplace(prefix, this);
  ++hub.lengths_[prefix.size()];
  registered = true;
  if (deadline != kNoDeadline) {
    timer.waiter = this;
    timer.fire = [](Timer& t) {
      Waiter& self = *static_cast<DeadlineTimer&>(t).waiter;
      {
        const std::lock_guard hold(self.hub.mutex_);
        if (!self.registered) return;  // woken just now: its resumption is on the way
        self.hub.forget(self);
        self.result = fail(Code::timed_out, "no change came before the deadline");
      }
      self.handle.resume();
    };
    home->arm(timer, deadline);
  }
  return true;
}

WatchHub::~WatchHub() { CHECK(waiters_.empty(), "a WatchHub dies under its watchers: close it first"); }

void WatchHub::forget(Waiter& waiter) {
  auto [at, last] = waiters_.equal_range(waiter.prefix);
  while (at != last && at->second != &waiter) ++at;
  CHECK(at != last);
  waiters_.erase(at);
  const auto length = lengths_.find(waiter.prefix.size());
  if (--length->second == 0) lengths_.erase(length);
  waiter.registered = false;
}

void WatchHub::wake(Waiter& waiter, Result<Version> result) {
  forget(waiter);
  waiter.result = std::move(result);
  waiter.home->post(waiter.handle);
}

void WatchHub::publish(Version version, std::string_view ops) {
  const std::lock_guard lock(mutex_);
  newest_ = version;
  OpReader reader(ops);
  Op op;
  std::vector<Waiter*> hit;
  while (reader.next(op)) {
    const bool range = op.kind == OpKind::remove_range;
    history_.push_back({version, std::string(op.key), range ? std::string(op.value) : std::string()});
    if (waiters_.empty()) continue;
    if (range) {
      for (const auto& [prefix, waiter] : waiters_) {
        const std::string end = prefix_end(prefix);
        if ((end.empty() || op.key < end) && op.value > prefix) hit.push_back(waiter);
      }
    } else {
      for (const auto& [length, count] : lengths_) {
        if (length > op.key.size()) break;
        const auto [first, last] = waiters_.equal_range(op.key.substr(0, length));
        for (auto at = first; at != last; ++at) hit.push_back(at->second);
      }
    }
    for (Waiter* waiter : hit) {
      if (waiter->registered && version > waiter->after) wake(*waiter, version);
    }
    hit.clear();
  }
  while (history_.size() > kHistoryMax) {
    floor_ = history_.front().version;
    history_.pop_front();
  }
}

Task<Result<Version>> WatchHub::watch(std::shared_ptr<WatchHub> hub, std::string prefix, Version after, TimePoint deadline) {
  Waiter waiter(*hub, std::move(prefix), after, deadline);
  Result<Version> result = co_await waiter;
  co_return result;
}

void WatchHub::close(Error error) {
  const std::lock_guard lock(mutex_);
  closed_ = std::move(error);
  while (!waiters_.empty()) wake(*waiters_.begin()->second, *closed_);
}

size_t WatchHub::watching() const {
  const std::lock_guard lock(mutex_);
  return waiters_.size();
}

}  // namespace quarry::meta
