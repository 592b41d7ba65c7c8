// SocketAddress::parse takes configuration and command-line text: any bytes give an address that prints and parses back, or an error.
#include "io/network.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto address = quarry::SocketAddress::parse(text);
  if (!address) return 0;
  const auto again = quarry::SocketAddress::parse(address->to_string());
  CHECK(again.has_value() && again->host == address->host && again->port == address->port);
  static_cast<void>(address->is_loopback());
  return 0;
}
