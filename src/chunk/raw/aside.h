// Long computations of a mount: on a thread of their own, so that the loop, which may serve other drives, goes on.
#pragma once
#include "io/blocking_pool.h"

namespace quarry::chunk::raw {

// What takes a few milliseconds stays on the loop. (So tests are deterministic, too.)
inline constexpr size_t kItemsOnLoopMax = 20'000;

// Runs `work`, which looks at about so many items; nobody else touches what it uses before this returns.
template <class F>
Task<void> aside(size_t items, F work) {
  if (items <= kItemsOnLoopMax) {
    work();
    co_return;
  }
  const std::unique_ptr<BlockingPool> pool = Executor::here().make_pool("raw-mount", 1);
  const bool done = co_await blocking(*pool, [&work] {
    work();
    return true;
  });
  (void)done;
}

}  // namespace quarry::chunk::raw
