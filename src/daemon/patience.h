// Patience: looking at a drive and opening it while somebody watches whether it answers at all.
//
// A disk that hangs, a frozen file system, a network file system whose server died: a call to them may never return, and nothing can end
// it. So what opens a drive runs as a task of its own, which never blocks its loop, and who waits for it goes on without it once the drive
// has been silent for too long. How long opening takes says nothing (a tree of millions of files takes minutes): a pulse says it, a small
// change that is made durable there, again and again, by a thread that nobody waits for; for raw drives also requests that do not end.
// The task that was left alone is still under way (WorkApart). Should it end, what it opened is closed again, so that the drive can be
// opened.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "base/log.h"
#include "cluster/drives/lived_time.h"
#include "daemon/drive_kind.h"
#include "io/sync.h"
#include "io/thread_pool.h"

namespace quarry::daemon {

inline constexpr Duration kStartPatience = std::chrono::seconds(30);      // of a node that starts; as for a drive that hangs later
inline constexpr Duration kEndPatience = std::chrono::milliseconds(500);  // of a node that ends, for what it only wanted to know
inline constexpr Duration kAskedPatience = std::chrono::seconds(10);  // where somebody waits for the answer: device add, replace, enable

// Whether a drive answers. Confined to the executor that made it.
class Pulse {
 public:
  explicit Pulse(const DriveSpec& spec);  // begins
  Pulse(const Pulse&) = delete;
  ~Pulse();               // it ends with the next answer, if one comes
  bool answered() const;  // at least once
  // How long the drive has been silent, to be asked again and again; zero between two beats. In lived time: while this process stood still
  // nothing could be heard.
  Duration silent_for(TimePoint now);
  // The path counts as hanging until the beat under way has come back.
  void give_up();

 private:
  struct State;
  static void beat(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
  uint64_t seen_ = 0;  // the beat that was under way when it was asked last
  cluster::LivedTime lived_;
  Duration since_{0};
};

// Requests of a drive that its device has not come back from; asked on the drive's executor, again and again.
using Stuck = std::function<Duration()>;

namespace detail {

// Paths of which something was asked that has not come back. Thread-safe.
class HangingPaths {
 public:
  static bool hangs(const std::string& path);
  static void add(const std::string& path);
  static void remove(const std::string& path);
};

template <class T>
struct Attempt {
  explicit Attempt(Executor& at) : home(at) {}
  Executor& home;
  bool given_up = false;  // of home's thread, as are the others
  std::optional<Result<T>> answer;
  Event done;
};

template <class T>
quarry::detail::Root attempt(std::shared_ptr<Attempt<T>> shared, Executor* at, std::string name, Task<Result<T>> work,
                             std::function<Task<void>(T)> discard) {
  const WorkApart counted;
  const auto own = std::move(shared);
  const auto path = std::move(name);
  const auto undo = std::move(discard);
  std::optional<Result<T>> result;
  {
    Task<Result<T>> task = std::move(work);
    co_await at->enter();
    result.emplace(co_await std::move(task));
  }  // the task dies where it ran
  co_await own->home.enter();
  own->answer = std::move(result);
  own->done.set();
  if (!own->given_up) co_return;
  LOG_INFO("a drive that was given up answers again", {"path", path},
           {"then", *own->answer ? "it is taken back, or `quarry device enable`" : own->answer->error().to_string()});
  co_await at->enter();
  if (*own->answer) co_await undo(std::move(**own->answer));
  HangingPaths::remove(path);
  co_await own->home.enter();
}

}  // namespace detail

// Runs `work` on `owner` once the drive has answered, and waits as long as the drive answers. discard: closes what came too late; on owner.
// ending: once it is set, patience is kEndPatience at most. Errors: timed_out (silent for longer than `patience`: the drive hangs), busy
// (it did before, and has not come back), those of work.
template <class T>
Task<Result<T>> while_it_answers(DriveSpec spec, Executor& owner, Duration patience, Task<Result<T>> work,
                                 std::function<Task<void>(T)> discard, Stuck stuck = nullptr, const Event* ending = nullptr) {
  constexpr Duration kTick = std::chrono::milliseconds(100), kFirstTick = std::chrono::milliseconds(1);
  const std::string path = spec.text();
  if (detail::HangingPaths::hangs(path))
    co_return fail(Code::busy, "{} still hangs: what was asked of it before has not come back; see to the disk, then try again", path);
  const auto waits_for = [patience, ending] { return ending != nullptr && ending->is_set() ? std::min(patience, kEndPatience) : patience; };
  Pulse pulse(spec);
  for (;;) {
    const Duration silent = pulse.silent_for(Executor::here().now());
    if (pulse.answered()) break;
    if (silent >= waits_for()) {
      pulse.give_up();
      co_return fail(Code::timed_out, "{} has not answered for {}: it hangs", path, format_duration(silent));
    }
    co_await sleep_for(std::clamp(silent, kFirstTick, kTick));
  }
  const auto attempt = std::make_shared<detail::Attempt<T>>(Executor::here());
  detail::attempt<T>(attempt, &owner, path, std::move(work), std::move(discard));
  while (!attempt->answer) {
    const bool in_time = co_await attempt->done.wait_until(Executor::here().now() + kTick);
    if (in_time) continue;
    Duration silent = pulse.silent_for(Executor::here().now());
    if (stuck) {
      const Duration waiting = co_await on(owner, [](const Stuck* ask) -> Task<Duration> { co_return (*ask)(); }(&stuck));
      silent = std::max(silent, waiting);
    }
    if (attempt->answer || silent < waits_for()) continue;
    attempt->given_up = true;
    detail::HangingPaths::add(path);
    pulse.give_up();
    co_return fail(Code::timed_out, "{} has not answered for {}: it hangs", path, format_duration(silent));
  }
  co_return std::move(*attempt->answer);
}

}  // namespace quarry::daemon
