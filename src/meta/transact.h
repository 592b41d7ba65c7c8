// The retry loop declared in meta_store.h.
#pragma once
#include "io/executor.h"
#include "meta/meta_store.h"

namespace quarry::meta {

// Body: callable as Task<Result<void>>(Transaction&). A lambda with captures is fine: it lives in this frame.
template <class Body>
Task<Result<Version>> transact(MetaStore& store, Body body, int attempts) {
  Duration pause = std::chrono::microseconds(50);
  for (int attempt = 1;; ++attempt) {
    CO_TRY_ASSIGN(auto transaction, co_await store.begin());
    Task<Result<void>> work = body(*transaction);
    Result<void> done = co_await std::move(work);
    if (done) {
      Result<Version> version = co_await transaction->commit();
      if (version || version.error().code() != Code::conflict || attempt >= attempts) co_return version;
    } else if (done.error().code() != Code::conflict || attempt >= attempts) {
      co_return std::move(done).error();
    }
    co_await sleep_for(pause);
    pause = std::min<Duration>(pause * 2, std::chrono::milliseconds(20));
  }
}

}  // namespace quarry::meta
