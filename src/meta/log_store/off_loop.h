// Calls that may block, where the store is given a pool for them.
#pragma once
#include "io/blocking_pool.h"
#include "io/executor.h"

namespace quarry::meta {

template <class F, class T = std::invoke_result_t<F&>>
Task<T> after_all_that_is_ready(F fn) {
  co_await Executor::here().yield();
  co_return fn();
}

// Runs fn on the pool. null, since nothing blocks: here, after everything that is ready; so it is a suspension all the same, and what can
// happen meanwhile is what can happen with a pool.
template <class F, class T = std::invoke_result_t<F&>>
Task<T> off_loop(BlockingPool* pool, F fn) {
  return pool != nullptr ? blocking(*pool, std::move(fn)) : after_all_that_is_ready(std::move(fn));
}

}  // namespace quarry::meta
