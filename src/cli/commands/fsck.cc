// quarry fsck: through the admin API of a running node, or by opening the store of a stopped one.
#include <filesystem>

#include "cli/fsck_report.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "daemon/node.h"

namespace quarry::cli {
namespace {

Task<Result<void>> ask_node(Session& session, bool repair, std::string& report) {
  CO_TRY_ASSIGN(report, co_await session.admin.call("POST", "/v1/fsck", repair ? "{\"repair\":true}" : "{}"));
  co_return Result<void>();
}

}  // namespace

int run_fsck(const NodeOptions& options) {
  std::string report;
  const std::string root = root_directory(options.target.root);
  if (options.device.empty() && (!options.target.admin.empty() || daemon::node_is_running(root))) {
    const int status = with_session(options.target, [&](Session& session) { return ask_node(session, options.repair, report); });
    return status != 0 ? status : print_fsck_report(report, options.target.json);
  }
  std::error_code ignored;
  if (options.device.empty() && !std::filesystem::exists(root + "/drives", ignored) &&
      !std::filesystem::exists(root + "/drives.list", ignored)) {
    return print_error(fmt::format("{} holds no drives: name the node's directory with --root, or its devices with --device", root));
  }
  set_log_level(LogLevel::warning);
  daemon::NodeConfig config;
  config.root = root;
  config.devices = options.device;
  auto checked = daemon::Node::check(std::move(config), options.repair);
  if (!checked) return print_error(checked.error().to_string());
  return print_fsck_report(*checked, options.target.json);
}

}  // namespace quarry::cli
