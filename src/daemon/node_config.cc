#include "daemon/node_config.h"

#include "daemon/drive_kind.h"

#include <fstream>
#include <stdexcept>

// The library (3.3) takes some broken texts for impossible ("[" and a line's end; some characters beyond ASCII): with assertions it would
// end the process, without them it tells the compiler so. Here such a text is an exception, as its other errors are.
#include <toml++/impl/preprocessor.h>
#undef TOML_ASSERT
#undef TOML_ASSERT_ASSUME
#undef TOML_ASSUME
#undef TOML_UNREACHABLE
#define TOML_ASSERT(expr) (static_cast<bool>(expr) ? static_cast<void>(0) : throw std::logic_error("not a TOML document"))
#define TOML_ASSERT_ASSUME(expr) TOML_ASSERT(expr)
#define TOML_ASSUME(expr) static_assert(true)
#define TOML_UNREACHABLE return false  // classes of characters
#include <toml++/impl/forward_declarations.h>
#include <toml++/impl/unicode.h>
#undef TOML_UNREACHABLE
#define TOML_UNREACHABLE throw std::logic_error("not a TOML document")
#include <toml++/toml.h>

namespace quarry::daemon {
namespace {
constexpr size_t kConfigBytesMax = 1 * kMiB;
constexpr int64_t kCoresMax = 1024;
}  // namespace

Result<LogLevel> parse_log_level(std::string_view text) {
  if (text == "debug") return LogLevel::debug;
  if (text == "info") return LogLevel::info;
  if (text == "warning") return LogLevel::warning;
  if (text == "error") return LogLevel::error;
  return fail(Code::misconfigured, "log level '{}' is none of debug, info, warning, error", text);
}

Result<void> NodeConfig::validate() const {
  if (root.empty()) return fail(Code::misconfigured, "root: name a directory");
  if (devices.empty() && (drives < 1 || drives > 64)) return fail(Code::misconfigured, "drives: {} is not between 1 and 64", drives);
  if (devices.empty() && drive_bytes < 64 * kMiB)
    return fail(Code::misconfigured, "drive_size: {} is less than 64 MiB", format_size(drive_bytes));
  if (devices.empty() && drive_bytes % 4096 != 0) return fail(Code::misconfigured, "drive_size: {} is no multiple of 4096", drive_bytes);
  if (tls_certificate.empty() != tls_key.empty()) return fail(Code::misconfigured, "tls_certificate and tls_key belong together");
  if (region.empty()) return fail(Code::misconfigured, "region: must not be empty");
  for (const auto& device : devices) {
    if (device.empty()) return fail(Code::misconfigured, "devices: an empty path");
    const auto spec = parse_drive_spec(device);
    if (!spec) return fail(Code::misconfigured, "devices: {}", spec.error().context());
  }
  return {};
}

Result<NodeConfig> read_config_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return errno_error(errno, path);
  std::string text(kConfigBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return fail(Code::io_error, "{} cannot be read", path);
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kConfigBytesMax)
    return fail(Code::misconfigured, "{} is larger than {}: is it a configuration file?", path, format_size(kConfigBytesMax));
  return parse_config(text, path);
}

Result<NodeConfig> parse_config(std::string_view toml_text, const std::string& path) {
  toml::table parsed;
  try {
    parsed = toml::parse(toml_text, path);
  } catch (const toml::parse_error& error) {
    return fail(Code::misconfigured, "{}:{}: {}", path, error.source().begin.line, error.description());
  } catch (const std::logic_error& error) {
    return fail(Code::misconfigured, "{}: {}", path, error.what());
  }
  NodeConfig config;
  const auto wrong = [&](std::string_view name, const toml::node& node, const std::string& what) {
    return fail(Code::misconfigured, "{}:{}: {}: {}", path, node.source().begin.line, name, what);
  };
  for (const auto& [key, node] : parsed) {
    const std::string_view name = key.str();
    const auto located = [&]<class T>(Result<T> result) -> Result<T> {
      if (!result) return wrong(name, node, result.error().context());
      return result;
    };
    const auto text = node.value_exact<std::string>();
    const auto number = node.value_exact<int64_t>();
    const auto flag = node.value_exact<bool>();
    const auto texts = [&]() -> Result<std::vector<std::string>> {
      std::vector<std::string> list;
      if (!node.is_array()) return wrong(name, node, "must be a list of strings");
      for (const auto& item : *node.as_array()) {
        if (!item.is_string()) return wrong(name, node, "must be a list of strings");
        list.push_back(*item.value_exact<std::string>());
      }
      return list;
    };
    if (name == "root" && node.is_string()) {
      config.root = *text;
    } else if ((name == "s3" || name == "admin") && node.is_string()) {
      TRY_ASSIGN((name == "s3" ? config.s3 : config.admin), located(SocketAddress::parse(*text)));
    } else if (name == "devices") {
      TRY_ASSIGN(config.devices, texts());
    } else if (name == "virtual_hosts") {
      TRY_ASSIGN(config.virtual_hosts, texts());
    } else if (name == "drives" && node.is_integer() && *number > 0) {
      config.drives = static_cast<unsigned>(std::min<int64_t>(*number, UINT32_MAX));  // validate() knows the bound
    } else if ((name == "drive_size" || name == "cache_size") && node.is_string()) {
      TRY_ASSIGN((name == "drive_size" ? config.drive_bytes : config.cache_bytes), located(parse_size(*text)));
    } else if (name == "profile" && node.is_string()) {
      config.profile = *text;
    } else if (name == "region" && node.is_string()) {
      config.region = *text;
    } else if (name == "tls" && node.is_boolean()) {
      config.tls = *flag;
    } else if (name == "tls_certificate" && node.is_string()) {
      config.tls_certificate = *text;
    } else if (name == "tls_key" && node.is_string()) {
      config.tls_key = *text;
    } else if (name == "cores" && node.is_integer() && *number >= 0 && *number <= kCoresMax) {
      config.cores = static_cast<unsigned>(*number);
    } else if (name == "drain_timeout" && node.is_string()) {
      TRY_ASSIGN(config.drain_timeout, located(parse_duration(*text)));
    } else if (name == "log_level" && node.is_string()) {
      TRY_ASSIGN(config.log_level, located(parse_log_level(*text)));
    } else {
      return wrong(name, node, "no such setting, or a value of the wrong type (docs/guide/configuration.md lists them)");
    }
  }
  TRY(config.validate());
  return config;
}

}  // namespace quarry::daemon
