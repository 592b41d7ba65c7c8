// Answers that take long (completing an upload, copying): when nothing has come after slow_answer_interval, the head 200 leaves and white
// space follows at that interval, so that the client keeps waiting; the document comes at the end, or an <Error> in its place, as S3 does
// it.
#pragma once
#include <functional>

#include "frontends/s3/request.h"
#include "io/sync.h"

namespace quarry::frontends::s3 {

class SlowAnswer {
 public:
  explicit SlowAnswer(Request& request) : request_(request) {}

  // Waits for `work` and keeps the client alive meanwhile. T: what work returns; it must not fail by itself but say so in T.
  template <class T>
  Task<T> wait(Task<T> work) {
    std::optional<T> result;
    Event done;
    TaskGroup group;
    group.spawn(run(std::move(work), &result, &done));
    while (!done.is_set()) {
      Executor& here = Executor::here();
      const bool finished = co_await done.wait_until(here.now() + request_.services.options.slow_answer_interval);
      if (!finished && !done.is_set()) co_await sign_of_life();
    }
    co_await group.join();
    co_return std::move(*result);
  }

  // The answer, whichever way it goes.
  Task<S3Result<void>> succeed(ResponseHead response, std::string document);
  Task<S3Result<void>> fail(S3Error error);

 private:
  template <class T>
  static Task<void> run(Task<T> work, std::optional<T>* result, Event* done) {
    result->emplace(co_await std::move(work));
    done->set();
  }
  Task<void> sign_of_life();

  Request& request_;
  bool begun_ = false;  // the head has left
};

// The document without its XML declaration, which has been sent at the beginning.
std::string_view without_declaration(std::string_view document);

}  // namespace quarry::frontends::s3
