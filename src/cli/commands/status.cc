// quarry status, quarry fsck, quarry scrub, and the device verbs of a running node.
#include "base/units.h"
#include "cli/drive_notes.h"
#include "cli/fsck_report.h"
#include "cli/hints.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "daemon/drive_kind.h"

namespace quarry::cli {
namespace {

uint64_t number(const JsonValue& json, std::string_view name) { return json.u64_at(name).value_or(0); }
std::string text(const JsonValue& json, std::string_view name) { return json.string_at(name).value_or(""); }

constexpr int kNoAnswer = 3;  // of `quarry status`: the node could not be asked

// 0, 1, 2: as bad as it is.
int status_of_health(const JsonValue& json) {
  const std::string health = text(json, "health");
  return health == "healthy" ? 0 : health == "degraded" ? 1 : 2;
}

void print_status(const JsonValue& json, const std::string& root) {
  fmt::print("cluster {}  {}  profile {}  up {}\n", text(json, "cluster"), text(json, "health"), text(json, "profile"),
             format_duration(std::chrono::seconds(number(json, "uptime_seconds"))));
  if (const JsonValue* problems = json.find("problems")) {
    for (const auto& problem : problems->items())
      fmt::print("  {:<10}  {}\n", text(problem, "level") == "healthy" ? "note" : text(problem, "level"),
                 with_root(text(problem, "sentence"), root));
  }
  if (const JsonValue* space = json.find("space")) {
    fmt::print("space   {} used of {} raw; {} more can be stored\n", format_size(number(*space, "used_bytes")),
               format_size(number(*space, "raw_bytes")), format_size(number(*space, "usable_free_bytes")));
  }
  if (const JsonValue* cache = json.find("cache")) {
    const uint64_t hits = number(*cache, "hits"), misses = number(*cache, "misses");
    fmt::print("cache   {} of {}, {:.0f} % hits\n", format_size(number(*cache, "used_bytes")),
               format_size(number(*cache, "capacity_bytes")),
               hits + misses == 0 ? 0.0 : 100.0 * static_cast<double>(hits) / static_cast<double>(hits + misses));
  }
  if (const JsonValue* repair = json.find("repair")) {
    fmt::print("repair  {}", text(*repair, "activity"));
    if (number(*repair, "pending_writes") > 0) {
      const auto eta = repair->find("eta_seconds") == nullptr ? std::nullopt : repair->find("eta_seconds")->as_i64();
      fmt::print(", {} to go at {}{}", number(*repair, "pending_writes"),
                 format_rate(repair->find("bytes_per_second") == nullptr ? 0 : repair->find("bytes_per_second")->as_double().value_or(0)),
                 eta.value_or(-1) >= 0 ? ", " + format_duration(std::chrono::seconds(*eta)) + " left" : "");
    }
    if (number(*repair, "lost_writes") > 0) fmt::print(", {} LOST", number(*repair, "lost_writes"));
    fmt::print("\n");
  }
  if (const JsonValue* scrub = json.find("scrub")) {
    const std::string reason = text(*scrub, "reason");
    fmt::print("scrub   {}, {} checked, {} damaged, {} repaired{}{}\n\n", text(*scrub, "state"),
               format_size(number(*scrub, "bytes_checked")), number(*scrub, "damaged"), number(*scrub, "repaired"),
               reason.empty() ? "" : "; ", reason);
  }
  std::vector<std::vector<std::string>> rows;
  if (const JsonValue* drives = json.find("drives")) {
    for (const auto& drive : drives->items()) {
      rows.push_back({std::to_string(number(drive, "number")), text(drive, "kind"), text(drive, "state"),
                      format_size(number(drive, "size_bytes")), format_size(number(drive, "used_bytes")),
                      std::to_string(number(drive, "read_errors") + number(drive, "write_errors") + number(drive, "checksum_errors")),
                      text(drive, "path"), text(drive, "reason")});
    }
  }
  print_table({"DRIVE", "KIND", "STATE", "SIZE", "USED", "ERRORS", "PATH", "REASON"}, rows);
  if (const JsonValue* drives = json.find("drives")) {
    for (const auto& note : what_to_do(drives->items())) fmt::print("{}\n", with_root(note, root));
  }
}

// One line for whom work was done, since the node started.
void print_jobs(const JsonValue& json) {
  const JsonValue* jobs = json.find("jobs");
  if (jobs == nullptr || jobs->items().empty()) {
    fmt::print("nothing was asked of this node yet\n");
    return;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& job : jobs->items()) {
    const uint64_t requests = number(job, "requests"), microseconds = number(job, "microseconds");
    const auto shown = [&](std::string_view name) {
      const std::string value = text(job, name);
      return value.empty() ? std::string("-") : value;
    };
    rows.push_back(
        {shown("user"), shown("tenant"), shown("team"), shown("project"), shown("job"), std::to_string(requests),
         std::to_string(number(job, "errors")), format_size(number(job, "bytes_in")), format_size(number(job, "bytes_out")),
         fmt::format("{:.2f} ms", requests == 0 ? 0.0 : static_cast<double>(microseconds) / static_cast<double>(requests) / 1000)});
  }
  print_table({"USER", "TENANT", "TEAM", "PROJECT", "JOB", "REQUESTS", "ERRORS", "IN", "OUT", "MEAN TIME"}, rows);
}

Task<Result<void>> show_status(Session& session, const NodeOptions& options, int* status) {
  for (;;) {
    CO_TRY_ASSIGN(const std::string answer, co_await session.admin.call("GET", options.jobs ? "/v1/jobs" : "/v1/status"));
    if (options.watch) fmt::print("\033[H\033[2J");
    CO_TRY_ASSIGN(const JsonValue json, parse_json(answer));
    if (!options.jobs) *status = status_of_health(json);
    if (options.target.json) {
      fmt::print("{}", answer);
    } else {
      options.jobs ? print_jobs(json) : print_status(json, options.target.root);
    }
    std::fflush(stdout);
    if (!options.watch) co_return Result<void>();
    co_await sleep_for(std::chrono::seconds(2));
  }
}

// A drive that was added to the file system of another one.
Task<void> warn_of_sharing(Session& session, std::string path) {
  const auto answer = co_await session.admin.call("GET", "/v1/status");
  const auto json = answer ? parse_json(*answer) : Result<JsonValue>(answer.error());
  const JsonValue* drives = json ? json->find("drives") : nullptr;
  if (drives == nullptr) co_return;
  std::string file_system;
  for (const auto& drive : drives->items()) {
    if (text(drive, "path") == path && text(drive, "state") != "removed") file_system = text(drive, "file_system");
  }
  std::vector<JsonValue> same;
  for (const auto& drive : drives->items()) {
    if (!file_system.empty() && text(drive, "file_system") == file_system) same.push_back(drive);
  }
  for (const auto& note : shared_file_systems(same)) fmt::print(stderr, "warning: {}\n", note);
}

// What is so now that the node has answered, and what goes on.
std::string said_of_drive(const std::string& verb, const DeviceOptions& options) {
  if (verb == "disable" || verb == "enable") return fmt::format("drive {} is {}d\n", options.number, verb);
  if (verb == "add") return fmt::format("{} is added; data moves to it, progress: `quarry status`\n", options.path);
  if (verb == "replace")
    return fmt::format("{} takes the places of drive {}; data moves to it, progress: `quarry status`\n", options.path, options.number);
  if (verb == "drain")
    return fmt::format("drive {} gets no new data; what it holds moves away, progress: `quarry status`\n", options.number);
  return fmt::format("drive {} is removed\n", options.number);
}

Task<Result<void>> change_drive(Session& session, const DeviceOptions& options, std::string verb) {
  JsonWriter json;
  json.begin_object().field("force", options.force);
  if (!options.path.empty()) {
    CO_TRY_ASSIGN(const daemon::DriveSpec spec, daemon::parse_drive_spec(options.path));
    json.field("path", spec.text());
  }
  json.end_object();
  const std::string path = verb == "add" ? "/v1/drives" : fmt::format("/v1/drives/{}/{}", options.number, verb);
  CO_TRY(co_await session.admin.call("POST", path, json.take()));
  if (options.target.json) {
    JsonWriter done;
    done.begin_object().field("accepted", verb);
    if (verb != "add") done.field("drive", options.number);
    if (!options.path.empty()) done.field("path", options.path);
    fmt::print("{}\n", done.end_object().str());
    co_return Result<void>();
  }
  fmt::print("{}", with_root(said_of_drive(verb, options), options.target.root));
  if (verb == "add" || verb == "replace") co_await warn_of_sharing(session, options.path);
  co_return Result<void>();
}

Task<Result<void>> start_scrub(Session& session, bool as_json) {
  CO_TRY_ASSIGN(const std::string answer, co_await session.admin.call("POST", "/v1/scrub"));
  fmt::print("{}", as_json ? answer : "scrub started; progress: `quarry status`\n");
  co_return Result<void>();
}

}  // namespace

int print_fsck_report(const std::string& answer, bool as_json) {
  auto json = parse_json(answer);
  if (!json) return print_error("the report cannot be read: " + json.error().to_string());
  const JsonValue* sound = json->find("sound");
  const bool good = sound != nullptr && sound->as_bool().value_or(false);
  if (as_json) {
    fmt::print("{}{}", answer, answer.ends_with('\n') ? "" : "\n");
    return good ? 0 : 1;
  }
  if (const JsonValue* violations = json->find("violations")) {
    for (const auto& violation : violations->items()) fmt::print("VIOLATION  {}\n", violation.as_string().value_or(""));
  }
  fmt::print("{}: {} buckets, {} objects, {} uploads, {} of data; {} data rows, {} chunks ({} orphans, {} missing)\n",
             good ? "sound" : "NOT sound", number(*json, "buckets"), number(*json, "versions"), number(*json, "uploads"),
             format_size(number(*json, "bytes")), number(*json, "data_rows"), number(*json, "chunks"), number(*json, "orphan_chunks"),
             number(*json, "missing_chunks"));
  return good ? 0 : 1;
}

int run_status(const NodeOptions& options) {
  int status = 0;
  const int asked = with_session(options.target, [&](Session& session) { return show_status(session, options, &status); });
  return asked == 0 ? status : kNoAnswer;
}
int run_device_change(const DeviceOptions& options, const char* verb) {
  return with_session(options.target, [&](Session& session) { return change_drive(session, options, verb); });
}
int run_scrub(const NodeOptions& options) {
  return with_session(options.target, [&options](Session& session) { return start_scrub(session, options.target.json); });
}

}  // namespace quarry::cli
