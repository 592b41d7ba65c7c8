// Gates: asynchronous locks that tasks of any executor may wait for. The engine uses them only to keep transactions that would
// conflict from doing so again and again; correctness rests on the transactions.
#pragma once
#include <array>
#include <deque>
#include <mutex>

#include "io/executor.h"

namespace quarry::object {

// First come, first served. Thread-safe. Waiters are suspended requests, so admission upstream bounds them.
class Gate {
 public:
  // Holds the gate until destroyed or released.
  class [[nodiscard]] Pass {
   public:
    Pass() = default;
    explicit Pass(Gate& gate) : gate_(&gate) {}
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&& other) noexcept {
      if (this != &other) {
        release();
        gate_ = std::exchange(other.gate_, nullptr);
      }
      return *this;
    }
    ~Pass() { release(); }
    bool held() const { return gate_ != nullptr; }
    void release() {
      if (gate_ != nullptr) std::exchange(gate_, nullptr)->leave();
    }

   private:
    Gate* gate_ = nullptr;
  };

  Task<Pass> enter() {
    co_await Entering{*this};
    co_return Pass(*this);
  }

 private:
  struct Waiter {
    Executor* home;
    std::coroutine_handle<> handle;
  };
  struct Entering {
    Gate& gate;
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> handle) const {
      const std::lock_guard lock(gate.mutex_);
      if (!gate.taken_) {
        gate.taken_ = true;
        return false;  // continues at once
      }
      gate.waiters_.push_back({&Executor::here(), handle});
      return true;
    }
    void await_resume() const noexcept {}
  };

  void leave() {
    Waiter next{};
    {
      const std::lock_guard lock(mutex_);
      if (waiters_.empty()) {
        taken_ = false;
        return;
      }
      next = waiters_.front();  // the gate passes on without being free between
      waiters_.pop_front();
    }
    next.home->post(next.handle);
  }

  std::mutex mutex_;
  bool taken_ = false;
  std::deque<Waiter> waiters_;
};

// A fixed number of gates, shared by hash: strangers may wait for each other, which costs time and nothing else.
template <size_t kCount>
class GateTable {
 public:
  Gate& at(uint64_t hash) { return gates_[hash % kCount]; }

 private:
  std::array<Gate, kCount> gates_;
};

}  // namespace quarry::object
