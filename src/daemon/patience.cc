#include "daemon/patience.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <map>
#include <mutex>

namespace quarry::daemon {
namespace {

constexpr Duration kBeat = std::chrono::seconds(1);
constexpr size_t kBlock = 4096;

// A change that harms nothing, made durable: the time of the last access. What answers an error answers; only silence counts.
void touch(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_DIRECT);
  if (fd < 0) fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return;
  struct stat status{};
  if (::fstat(fd, &status) == 0) {
    if (S_ISBLK(status.st_mode) || S_ISREG(status.st_mode)) {
      Buffer block(kBlock);
      static_cast<void>(::pread(fd, block.data(), block.size(), 0));
    }
    if (S_ISDIR(status.st_mode) || S_ISREG(status.st_mode)) {
      const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_NOW}, {.tv_sec = 0, .tv_nsec = UTIME_OMIT}};
      static_cast<void>(::futimens(fd, times));
      static_cast<void>(::fsync(fd));
    }
  }
  ::close(fd);
}

struct Hanging {
  std::mutex mutex;
  std::map<std::string, size_t> paths;  // calls that did not come back
};
Hanging& hanging() {
  static Hanging all;
  return all;
}

}  // namespace

struct Pulse::State {
  explicit State(std::string where, std::string name) : path(std::move(where)), text(std::move(name)) {}
  const std::string path, text;
  std::mutex mutex;  // guards what follows
  std::condition_variable wake;
  uint64_t begun = 0, returned = 0;  // beats
  bool ended = false, given_up = false;
};

Pulse::Pulse(const DriveSpec& spec) : state_(std::make_shared<State>(spec.path, spec.text())) {
  state_->begun = 1;
  quarry::detail::run_apart([state = state_] { beat(state); });
}

void Pulse::beat(std::shared_ptr<State> state) {
  for (;;) {
    touch(state->path);
    std::unique_lock lock(state->mutex);
    ++state->returned;
    if (std::exchange(state->given_up, false)) detail::HangingPaths::remove(state->text);
    state->wake.wait_for(lock, kBeat, [&] { return state->ended; });
    if (state->ended) return;
    ++state->begun;
  }
}

Pulse::~Pulse() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->ended = true;
  }
  state_->wake.notify_all();
}

bool Pulse::answered() const {
  const std::lock_guard lock(state_->mutex);
  return state_->returned > 0;
}

Duration Pulse::silent_for(TimePoint now) {
  const std::lock_guard lock(state_->mutex);
  lived_.tick(now);
  const uint64_t under_way = state_->begun > state_->returned ? state_->begun : 0;
  if (under_way != seen_) {
    seen_ = under_way;
    since_ = lived_.total();
  }
  return under_way == 0 ? Duration(0) : lived_.total() - since_;
}

void Pulse::give_up() {
  const std::lock_guard lock(state_->mutex);
  if (state_->begun == state_->returned || std::exchange(state_->given_up, true)) return;
  detail::HangingPaths::add(state_->text);
}

bool detail::HangingPaths::hangs(const std::string& path) {
  const std::lock_guard lock(hanging().mutex);
  return hanging().paths.contains(path);
}
void detail::HangingPaths::add(const std::string& path) {
  const std::lock_guard lock(hanging().mutex);
  ++hanging().paths[path];
}
void detail::HangingPaths::remove(const std::string& path) {
  const std::lock_guard lock(hanging().mutex);
  const auto at = hanging().paths.find(path);
  if (at != hanging().paths.end() && --at->second == 0) hanging().paths.erase(at);
}

}  // namespace quarry::daemon
