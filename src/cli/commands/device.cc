// quarry device list|format|inspect|fsck: drives of every kind; format, inspect and fsck of those that no node has open.
// (add, drain, remove, replace, disable, enable: commands/status.cc)
#include "base/units.h"
#include "chunk/raw/device_probe.h"
#include "cli/drive_notes.h"
#include "cli/options.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "daemon/drive_kind.h"
#include "daemon/patience.h"
#include "io/ring_executor.h"
#include "wire/json.h"

namespace quarry::cli {
namespace {

struct Done {};
Task<Result<Done>> as_done(Task<Result<void>> task) {
  Result<void> result = co_await std::move(task);
  if (!result) co_return std::move(result).error();
  co_return Done{};
}
Task<void> forget(Done) { co_return; }

// Runs the work on an event loop of its own, for as long as the drive answers.
Result<void> run_on_ring(const DeviceOptions& options, Task<Result<void>> task) {
  TRY_ASSIGN(const daemon::DriveSpec spec, daemon::parse_drive_spec(options.path));
  TRY_ASSIGN(auto executor, RingExecutor::create());
  auto watched = daemon::while_it_answers<Done>(spec, *executor, daemon::kAskedPatience, as_done(std::move(task)), forget);
  const Result<Done> result = executor->run(std::move(watched));
  if (WorkApart::under_way() > 0) static_cast<void>(executor.release());  // the process ends without what hangs
  if (!result) return result.error();
  return {};
}

Task<Result<void>> format(const DeviceOptions& options) {
  Uuid cluster;
  if (!options.cluster.empty()) {
    CO_TRY_ASSIGN(cluster, Uuid::parse(options.cluster));
  }
  CO_TRY_ASSIGN(const daemon::DriveSpec spec, daemon::parse_drive_spec(options.path));
  CO_TRY_ASSIGN(auto found, co_await spec.kind->find(spec.path, options.force));
  if (found->identity && !options.force) {
    const std::string drive = found->identity->drive.to_string();
    co_await found->close();
    co_return fail(Code::already_exists, "{} carries drive {} already\n  to DESTROY what is on it: `quarry device format --force {}`",
                   spec.text(), drive, spec.text());
  }
  const uint64_t size = found->size_bytes();
  Result<Uuid> drive = co_await found->format(cluster, options.force);
  co_await found->close();
  if (!drive) co_return std::move(drive).error();
  if (options.target.json) {
    JsonWriter json;
    json.begin_object()
        .field("path", spec.text())
        .field("kind", spec.kind->name())
        .field("drive", drive->to_string())
        .field("size_bytes", size)
        .end_object();
    fmt::print("{}\n", json.str());
  } else {
    fmt::print("formatted {}{} as {} drive {}\n", spec.path, size == 0 ? std::string() : fmt::format(" ({})", format_size(size)),
               spec.kind->name(), drive->to_string());
  }
  co_return Result<void>();
}

Task<Result<void>> inspect(const DeviceOptions& options) {
  CO_TRY_ASSIGN(const daemon::DriveSpec spec, daemon::parse_drive_spec(options.path));
  if (options.chunk.empty() && options.segment.empty()) {
    CO_TRY_ASSIGN(const bool done, inspect_mountpath_file(options, spec.path));
    if (done) co_return Result<void>();
  }
  std::string what = "all";
  if (!options.chunk.empty()) what = "chunk " + options.chunk;
  if (!options.segment.empty()) what = "segment " + options.segment;
  CO_TRY_ASSIGN(const std::string text, co_await spec.kind->inspect(spec.path, what));
  fmt::print("{}\n", text);
  co_return Result<void>();
}

Task<Result<void>> check(const DeviceOptions& options) {
  CO_TRY_ASSIGN(const daemon::DriveSpec spec, daemon::parse_drive_spec(options.path));
  CO_TRY_ASSIGN(const auto report, co_await spec.kind->fsck(spec.path));
  if (options.target.json) {
    JsonWriter json;
    json.begin_object()
        .field("kind", spec.kind->name())
        .field("sound", report.violations.empty())
        .field("chunks", report.chunks)
        .field("segments", report.segments);
    json.key("violations").begin_array();
    for (const auto& violation : report.violations) json.value(violation);
    fmt::print("{}\n", json.end_array().end_object().str());
  } else {
    for (const auto& violation : report.violations) fmt::print("VIOLATION  {}\n", violation);
    fmt::print("{}: {} chunks{}\n", report.violations.empty() ? "sound" : "NOT sound", report.chunks,
               report.segments > 0 ? fmt::format(" in {} segments", report.segments) : std::string());
  }
  if (!report.violations.empty()) co_return fail(Code::corrupt, "{} has {} violations", options.path, report.violations.size());
  co_return Result<void>();
}

Task<Result<void>> ask_drives(Session& session, std::vector<JsonValue>& drives) {
  auto answer = co_await session.admin.call("GET", "/v1/status");
  if (!answer) co_return Result<void>();  // no node: devices of the machine are shown all the same
  CO_TRY_ASSIGN(const JsonValue json, parse_json(*answer));
  if (const JsonValue* list = json.find("drives")) drives.assign(list->items().begin(), list->items().end());
  co_return Result<void>();
}

int finish(const Result<void>& result) { return result ? 0 : print_error(result.error().to_string()); }

}  // namespace

namespace {

// The drives of the node, as it tells them; empty if none is running.
std::vector<JsonValue> drives_in_use(const DeviceOptions& options) {
  std::vector<JsonValue> drives;
  if (!resolve_endpoints(options.target)) return drives;
  Target target = options.target;
  target.quiet = true;
  with_session(target, [&drives](Session& session) { return ask_drives(session, drives); });
  return drives;
}

}  // namespace

int run_device_list(const DeviceOptions& options) {
  auto devices = chunk::list_devices();
  if (!devices) return print_error(devices.error().to_string());
  const std::vector<JsonValue> drives = drives_in_use(options);
  const auto text = [](const JsonValue& drive, std::string_view name) { return drive.string_at(name).value_or(""); };
  const auto number = [](const JsonValue& drive, std::string_view name) { return drive.u64_at(name).value_or(0); };
  if (options.target.json) {
    JsonWriter json;
    json.begin_array();
    for (const auto& drive : drives) {
      json.begin_object().field("path", text(drive, "path")).field("kind", text(drive, "kind")).field("number", number(drive, "number"));
      json.field("size_bytes", number(drive, "size_bytes"))
          .field("state", text(drive, "state"))
          .field("reason", text(drive, "reason"))
          .field("file_system", text(drive, "file_system"))
          .field("in_use", true)
          .end_object();
    }
    for (const auto& device : *devices) {
      json.begin_object()
          .field("path", device.path)
          .field("kind", "raw")
          .field("size_bytes", device.size)
          .field("rotational", device.rotational);
      json.field("in_use", device.mounted_or_held).field("content", device.content ? device.content->type : std::string());
      json.field("unreadable", device.unreadable).end_object();
    }
    fmt::print("{}\n", json.end_array().str());
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& drive : drives) {
    rows.push_back(
        {text(drive, "path"), text(drive, "kind"), format_size(number(drive, "size_bytes")), text(drive, "state"),
         fmt::format("drive {}{}{}", number(drive, "number"), text(drive, "reason").empty() ? "" : ": ", text(drive, "reason"))});
  }
  for (const auto& device : *devices) {
    rows.push_back({device.path, "raw", format_size(device.size),
                    device.mounted_or_held      ? "in use"
                    : device.unreadable.empty() ? "free"
                                                : "unknown",
                    fmt::format("{}, {}", device.rotational ? "rotating" : "solid state",
                                device.content              ? device.content->description
                                : device.unreadable.empty() ? "empty"
                                                            : device.unreadable)});
  }
  print_table({"DEVICE", "KIND", "SIZE", "STATE", "CONTENT"}, rows);
  for (const auto& note : shared_file_systems(drives)) fmt::print("\n{}\n", note);
  if (drives.empty()) fmt::print("\nother kinds of drives are directories:\n");
  for (const auto* kind : daemon::drive_kinds()) {
    if (drives.empty() && kind != &daemon::raw_drive_kind()) fmt::print("  {}\n", kind->help());
  }
  return 0;
}

int run_device_format(const DeviceOptions& options) { return finish(run_on_ring(options, format(options))); }
int run_device_inspect(const DeviceOptions& options) { return finish(run_on_ring(options, inspect(options))); }
int run_device_fsck(const DeviceOptions& options) { return finish(run_on_ring(options, check(options))); }

}  // namespace quarry::cli
