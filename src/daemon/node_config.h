// What a node needs to know to start. Filled from the command line or from a TOML file (docs/guide/configuration.md).
#pragma once
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "base/units.h"
#include "io/network.h"

namespace quarry::daemon {

struct NodeConfig {
  std::string root;                        // directory of the node: drives/, metadata/, tls/, endpoints.json; default ~/.quarry
  SocketAddress s3{"127.0.0.1", 9000};     // S3 listener
  SocketAddress admin{"127.0.0.1", 9001};  // admin, health and metrics listener
  std::vector<std::string> devices;        // PATH (raw), kfs:DIRECTORY or dir:DIRECTORY; empty: file-backed drives under root
  unsigned drives = 6;                     // file-backed drives to make on the first start (1..64)
  uint64_t drive_bytes = 8 * kGiB;         // size of each, bytes; multiple of 4 KiB, at least 64 MiB
  std::string profile;                     // redundancy of the store, decided at the first start; empty: by the number of drives
  bool tls = false;                        // TLS 1.3 on both listeners; always on beyond loopback
  std::string tls_certificate, tls_key;    // PEM files; empty: self-signed under root/tls
  uint64_t memory_bytes = 0;               // what the process may use; found out at start
  uint64_t cache_bytes = 0;                // read cache; 0: by the memory (sizes.h)
  unsigned cores = 0;                      // event loops; 0: one for each processor
  bool force_format = false;               // where no drive carries a store: make one, whatever is there and was there
  bool accept_loss = false;                // open although what was written last may be on drives that are away
  std::vector<std::string> virtual_hosts;  // base domains for virtual-host style requests
  std::string region = "us-east-1";
  Duration drain_timeout = std::chrono::seconds(30);  // for accepted requests at shutdown
  LogLevel log_level = LogLevel::info;

  // Errors: misconfigured, naming the setting and its bounds.
  Result<void> validate() const;
};

// Errors: misconfigured (syntax, unknown names, wrong types: with line), not_found.
Result<NodeConfig> read_config_file(const std::string& path);
// The same of a text; path: for messages.
Result<NodeConfig> parse_config(std::string_view toml_text, const std::string& path);
Result<LogLevel> parse_log_level(std::string_view text);

}  // namespace quarry::daemon
