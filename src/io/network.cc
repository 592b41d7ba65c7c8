#include "io/network.h"

#include <arpa/inet.h>

#include <charconv>

namespace quarry {

Result<SocketAddress> SocketAddress::parse(std::string_view text) {
  const auto malformed = [text] {
    return fail(Code::malformed, "'{}' is not an address: write HOST:PORT, [IPV6]:PORT or *:PORT, for example 127.0.0.1:9000", text);
  };
  std::string_view host, port;
  if (text.starts_with('[')) {
    const size_t end = text.find("]:");
    if (end == std::string_view::npos) return malformed();
    host = text.substr(1, end - 1);
    port = text.substr(end + 2);
    in6_addr parsed;
    if (inet_pton(AF_INET6, std::string(host).c_str(), &parsed) != 1) return malformed();
  } else {
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return malformed();
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (host.find(':') != std::string_view::npos) return malformed();  // IPv6 needs its brackets
    if (host.empty() || host == "*") host = "::";                      // every address, both families
  }
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size() || host.size() > 255 ||
      host.find_first_of(" \t\r\n/") != std::string_view::npos) {
    return malformed();
  }
  return SocketAddress{std::string(host), number};
}

std::string SocketAddress::to_string() const {
  return host.find(':') != std::string::npos ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

bool SocketAddress::is_loopback() const {
  in_addr four;
  if (inet_pton(AF_INET, host.c_str(), &four) == 1) return (ntohl(four.s_addr) >> 24) == 127;
  in6_addr six;
  if (inet_pton(AF_INET6, host.c_str(), &six) == 1) {
    if (IN6_IS_ADDR_LOOPBACK(&six)) return true;
    return IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127;
  }
  return host == "localhost";
}

}  // namespace quarry
