// quarry device list|format|inspect|fsck: devices that no node has open. (add, drain, remove, replace: commands/status.cc)
#include "base/units.h"
#include "chunk/raw/device_probe.h"
#include "chunk/raw/raw_store.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "cluster/cluster.h"
#include "io/ring_executor.h"
#include "io/uring_block_device.h"
#include "wire/json.h"

namespace quarry::cli {
namespace {

template <class T>
Result<T> run_on_ring(Task<Result<T>> task) {
  TRY_ASSIGN(auto executor, RingExecutor::create());
  return executor->run(std::move(task));
}

Task<Result<void>> format(const DeviceOptions& options) {
  chunk::FormatOptions format_options;
  format_options.force = options.force;
  if (!options.cluster.empty()) {
    CO_TRY_ASSIGN(format_options.cluster, Uuid::parse(options.cluster));
  }
  auto content = chunk::probe_device(options.path);
  if (!content) co_return std::move(content).error().with(options.path);
  if (content->has_value() && !options.force) {
    co_return fail(Code::already_exists, "{} is not empty: {}\n  to DESTROY what is on it: quarry device format --force {}", options.path, (*content)->description,
                   options.path);
  }
  CO_TRY_ASSIGN(auto device, co_await UringBlockDevice::open(options.path));
  const uint64_t size = device->info().size;
  auto drive = co_await chunk::RawStore::format(*device, format_options);
  co_await device->close();
  if (!drive) co_return std::move(drive).error().with(options.path);
  if (options.target.json) {
    JsonWriter json;
    json.begin_object().field("path", options.path).field("drive", drive->to_string()).field("size_bytes", size).end_object();
    fmt::print("{}\n", json.str());
  } else {
    fmt::print("formatted {} ({}) as drive {}\n", options.path, format_size(size), drive->to_string());
  }
  co_return Result<void>();
}

Task<Result<void>> inspect(const DeviceOptions& options) {
  UringBlockDevice::Options open_options;
  open_options.read_only = true;
  open_options.exclusive = false;
  CO_TRY_ASSIGN(auto device, co_await UringBlockDevice::open(options.path, open_options));
  auto text = co_await chunk::inspect_raw_device(*device, options.chunk.empty() ? "all" : "chunk " + options.chunk);
  co_await device->close();
  if (!text) co_return std::move(text).error().with(options.path);
  fmt::print("{}\n", *text);
  co_return Result<void>();
}

Task<Result<void>> check(const DeviceOptions& options) {
  UringBlockDevice::Options open_options;
  open_options.read_only = true;
  CO_TRY_ASSIGN(auto device, co_await UringBlockDevice::open(options.path, open_options));
  CO_TRY_ASSIGN(const auto report, co_await chunk::fsck_raw_device(std::move(device), true));
  if (options.target.json) {
    JsonWriter json;
    json.begin_object().field("sound", report.violations.empty()).field("chunks", report.chunks).field("segments", report.segments).key("violations").begin_array();
    for (const auto& violation : report.violations) json.value(violation);
    fmt::print("{}\n", json.end_array().end_object().str());
  } else {
    for (const auto& violation : report.violations) fmt::print("VIOLATION  {}\n", violation);
    fmt::print("{}: {} chunks in {} segments\n", report.violations.empty() ? "sound" : "NOT sound", report.chunks, report.segments);
  }
  if (!report.violations.empty()) co_return fail(Code::corrupt, "{} has {} violations", options.path, report.violations.size());
  co_return Result<void>();
}

int finish(const Result<void>& result) { return result ? 0 : print_error(result.error().to_string()); }

}  // namespace

int run_device_list(const DeviceOptions& options) {
  auto devices = chunk::list_devices();
  if (!devices) return print_error(devices.error().to_string());
  if (options.target.json) {
    JsonWriter json;
    json.begin_array();
    for (const auto& device : *devices) {
      json.begin_object().field("path", device.path).field("size_bytes", device.size).field("rotational", device.rotational).field("in_use", device.mounted_or_held);
      json.field("content", device.content ? device.content->type : std::string()).end_object();
    }
    fmt::print("{}\n", json.end_array().str());
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& device : *devices) {
    rows.push_back({device.path, format_size(device.size), device.rotational ? "rotating" : "solid state", device.mounted_or_held ? "in use" : "free",
                    device.content ? device.content->description : "empty"});
  }
  print_table({"DEVICE", "SIZE", "KIND", "USE", "CONTENT"}, rows);
  return 0;
}

int run_device_format(const DeviceOptions& options) { return finish(run_on_ring(format(options))); }
int run_device_inspect(const DeviceOptions& options) { return finish(run_on_ring(inspect(options))); }
int run_device_fsck(const DeviceOptions& options) { return finish(run_on_ring(check(options))); }

}  // namespace quarry::cli
