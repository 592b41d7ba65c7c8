// RequestContext: who asks, for whom, until when. Made once by the front end and passed by const reference through every layer, so
// that every log line, metric, queue and budget can be attributed. A value type: copy it into work that outlives the request.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace quarry {

// 128 random bits; printed as 32 hex digits. short_id is its first 16 digits, for people and the S3 x-amz-request-id header.
struct RequestId {
  uint64_t high = 0, low = 0;
  bool operator==(const RequestId&) const = default;
  std::string to_string() const;
  std::string short_id() const;  // 16 upper-case hex digits
};

// Who proved to be asking. Empty for an anonymous request and for the system's own work.
struct Identity {
  std::string user;        // name of the user
  std::string access_key;  // the key that signed; never the secret
  bool is_anonymous() const { return user.empty(); }
};

// For whom the work is done; each part may be empty.
struct Attribution {
  std::string tenant, team, project, job, rank;
  bool empty() const { return tenant.empty() && team.empty() && project.empty() && job.empty() && rank.empty(); }
};

// What kind of work it is: foreground requests go before background work in every queue and budget.
enum class WorkClass : uint8_t { foreground, background };

struct RequestContext {
  using TimePoint = std::chrono::time_point<std::chrono::steady_clock, std::chrono::nanoseconds>;

  RequestId id;
  std::string operation;  // "s3.put_object", "repair", ...: the name used in metrics
  Identity identity;
  Attribution attribution;
  WorkClass work_class = WorkClass::foreground;
  TimePoint deadline = TimePoint::max();  // in the time of the executor (Executor::now); max: none

  // Work of the system itself: background, no deadline.
  static RequestContext system(std::string_view operation);
  bool expired(TimePoint now) const { return now >= deadline; }
};

// A fresh id. Thread-safe: a per-thread generator, seeded once from the operating system, so that it costs no system call.
RequestId new_request_id();

}  // namespace quarry
