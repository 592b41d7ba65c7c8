// Any bytes as a configuration file: a configuration that is valid, or a sentence that says what is wrong.
#include "base/check.h"
#include "daemon/node_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = quarry::daemon::parse_config({reinterpret_cast<const char*>(data), size}, "fuzz.toml");
  if (config) {
    CHECK(config->validate());
  } else {
    CHECK(!config.error().context().empty());
  }
  return 0;
}
