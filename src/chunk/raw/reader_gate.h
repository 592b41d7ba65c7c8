// ReaderGate: space of a removed chunk is reused only when every read that might still look at it has ended. Each read takes a
// ticket; what is freed waits for all tickets given out before. Confined to its loop.
#pragma once
#include <deque>
#include <functional>

namespace quarry::chunk::raw {

class ReaderGate {
 public:
  using Ticket = uint64_t;
  Ticket enter() {
    ended_.push_back(false);
    return first_ + ended_.size() - 1;
  }
  void leave(Ticket ticket) {
    ended_[ticket - first_] = true;
    while (!ended_.empty() && ended_.front()) {
      ended_.pop_front();
      ++first_;
    }
    run_ready();
  }
  // Runs `then` when all reads that are under way now have ended; at once if there are none.
  void when_quiet(std::function<void()> then) {
    waiting_.push_back({first_ + ended_.size(), std::move(then)});
    run_ready();
  }
  size_t waiting() const { return waiting_.size(); }
  size_t reading() const { return ended_.size(); }

 private:
  void run_ready() {
    while (!waiting_.empty() && waiting_.front().after <= first_) {
      auto then = std::move(waiting_.front().then);
      waiting_.pop_front();
      then();
    }
  }
  struct Waiting {
    Ticket after;
    std::function<void()> then;
  };
  Ticket first_ = 0;
  std::deque<bool> ended_;
  std::deque<Waiting> waiting_;
};

}  // namespace quarry::chunk::raw
