// Usage by whom work is done for: requests, errors, bytes and time by tenant, team, project, job and user, and by kind of operation.
// Counting takes an uncontended lock of the calling thread's own table; reading adds the tables up. Each table holds at most kUsageRowsMax
// rows: the one unused for longest then gives up its row, and what it had counted goes to the row "other", so sums stay true.
// A rank is not part of a row (a job has thousands): it is in the RequestContext, for logs and budgets.
// Exposed at /metrics as job_*_total. Thread-safe; nothing is durable.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "observe/request_context.h"

namespace quarry {

inline constexpr size_t kUsageRowsMax = 64;

enum class UsageKind : uint8_t { read, write, list, remove, other };
inline constexpr size_t kUsageKinds = 5;
std::string_view usage_kind_name(UsageKind kind);

struct UsageCounts {
  uint64_t requests = 0, errors = 0, bytes_in = 0, bytes_out = 0, microseconds = 0;
  UsageCounts& operator+=(const UsageCounts& more);
};

struct UsageRow {
  std::string user;         // who proved to be asking; empty: nobody
  Attribution attribution;  // rank is empty
  std::array<UsageCounts, kUsageKinds> counts;
  UsageCounts sum() const;
};
inline constexpr std::string_view kUsageOther = "other";  // job and user of the row that stands for the rest

// An anonymous request's attribution is not believed: everybody could fill the table with it.
void count_usage(const RequestContext& context, UsageKind kind, const UsageCounts& counts);

// All rows, by user, tenant, team, project, job.
std::vector<UsageRow> usage();

}  // namespace quarry
