#include "observe/usage.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>

#include "observe/metrics.h"

namespace quarry {
namespace {

constexpr char kSeparator = '\x1f';

void append_key(std::string& key, std::string_view part) {
  key.append(part);
  key.push_back(kSeparator);
}

struct Row {
  UsageRow usage;
  uint64_t used = 0;  // when last, by the table's own count
};

// One thread's rows.
struct Table {
  std::mutex mutex;
  std::unordered_map<std::string, Row> rows;
  UsageRow other;
  uint64_t clock = 0;
};

void add(std::array<UsageCounts, kUsageKinds>& to, const std::array<UsageCounts, kUsageKinds>& from) {
  for (size_t kind = 0; kind < kUsageKinds; ++kind) to[kind] += from[kind];
}

struct Tables {
  std::mutex mutex;
  std::vector<std::shared_ptr<Table>> all;  // of ended threads too, until they are taken over
  std::vector<std::shared_ptr<Table>> free;
};
// Never destroyed: threads may still count while the process ends.
Tables& tables() {
  static Tables* const instance = new Tables;
  return *instance;
}

// A thread's table outlives it and goes to the next thread that needs one, so threads that come and go leave nothing behind.
struct Mine {
  std::shared_ptr<Table> table;
  Mine() {
    Tables& t = tables();
    const std::lock_guard lock(t.mutex);
    if (!t.free.empty()) {
      table = std::move(t.free.back());
      t.free.pop_back();
      return;
    }
    table = std::make_shared<Table>();
    table->other.user = kUsageOther;
    table->other.attribution.job = kUsageOther;
    t.all.push_back(table);
  }
  ~Mine() {
    Tables& t = tables();
    const std::lock_guard lock(t.mutex);
    t.free.push_back(std::move(table));
  }
};

void make_room(Table& table) {
  const auto oldest = std::ranges::min_element(table.rows, {}, [](const auto& entry) { return entry.second.used; });
  add(table.other.counts, oldest->second.usage.counts);
  table.rows.erase(oldest);
}

// The samples of /metrics, one family a number.
std::vector<metrics::CollectedFamily> collect() {
  struct Column {
    std::string_view name, help;
    uint64_t UsageCounts::* value;
  };
  constexpr Column kColumns[] = {
      {"job_requests_total", "Requests by whom they were for", &UsageCounts::requests},
      {"job_errors_total", "Requests that failed, by whom they were for", &UsageCounts::errors},
      {"job_received_bytes_total", "Bytes of bodies received", &UsageCounts::bytes_in},
      {"job_sent_bytes_total", "Bytes of bodies sent", &UsageCounts::bytes_out},
      {"job_request_microseconds_total", "Time from a request's head to its answer's end", &UsageCounts::microseconds}};
  const std::vector<UsageRow> rows = usage();
  std::vector<metrics::CollectedFamily> families;
  for (const auto& column : kColumns) {
    metrics::CollectedFamily family{std::string(column.name), std::string(column.help), {}};
    for (const auto& row : rows) {
      for (size_t kind = 0; kind < kUsageKinds; ++kind) {
        if (row.counts[kind].requests == 0) continue;
        const Attribution& a = row.attribution;
        family.samples.push_back({{{"user", row.user},
                                   {"tenant", a.tenant},
                                   {"team", a.team},
                                   {"project", a.project},
                                   {"job", a.job},
                                   {"operation", std::string(usage_kind_name(static_cast<UsageKind>(kind)))}},
                                  static_cast<double>(row.counts[kind].*column.value)});
      }
    }
    families.push_back(std::move(family));
  }
  return families;
}

}  // namespace

std::string_view usage_kind_name(UsageKind kind) {
  constexpr std::string_view kNames[kUsageKinds] = {"read", "write", "list", "delete", "other"};
  return kNames[static_cast<size_t>(kind)];
}

UsageCounts& UsageCounts::operator+=(const UsageCounts& more) {
  requests += more.requests;
  errors += more.errors;
  bytes_in += more.bytes_in;
  bytes_out += more.bytes_out;
  microseconds += more.microseconds;
  return *this;
}

UsageCounts UsageRow::sum() const {
  UsageCounts all;
  for (const auto& kind : counts) all += kind;
  return all;
}

void count_usage(const RequestContext& context, UsageKind kind, const UsageCounts& counts) {
  static const bool exposed = [] {
    metrics::collector(collect);
    return true;
  }();
  (void)exposed;
  static const Attribution kNobody;
  thread_local Mine mine;
  thread_local std::string key;
  const Attribution& a = context.identity.is_anonymous() ? kNobody : context.attribution;
  key.clear();
  for (const std::string* part : {&context.identity.user, &a.tenant, &a.team, &a.project, &a.job}) append_key(key, *part);
  Table& table = *mine.table;
  const std::lock_guard lock(table.mutex);
  auto found = table.rows.find(key);
  if (found == table.rows.end()) {
    if (table.rows.size() >= kUsageRowsMax) make_room(table);
    found = table.rows.emplace(key, Row{}).first;
    found->second.usage.user = context.identity.user;
    found->second.usage.attribution = a;
    found->second.usage.attribution.rank.clear();
  }
  found->second.used = ++table.clock;
  found->second.usage.counts[static_cast<size_t>(kind)] += counts;
}

std::vector<UsageRow> usage() {
  std::vector<std::shared_ptr<Table>> all;
  {
    Tables& t = tables();
    const std::lock_guard lock(t.mutex);
    all = t.all;
  }
  std::map<std::string, UsageRow> sums;
  UsageRow other;
  other.user = kUsageOther;
  other.attribution.job = kUsageOther;
  for (const auto& table : all) {
    const std::lock_guard lock(table->mutex);
    for (const auto& [key, row] : table->rows) {
      const auto [at, fresh] = sums.try_emplace(key, row.usage);
      if (!fresh) add(at->second.counts, row.usage.counts);
    }
    add(other.counts, table->other.counts);
  }
  std::vector<UsageRow> rows;
  for (auto& [key, row] : sums) rows.push_back(std::move(row));
  if (other.sum().requests > 0) rows.push_back(std::move(other));
  return rows;
}

}  // namespace quarry
