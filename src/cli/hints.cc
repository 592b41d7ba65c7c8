#include "cli/hints.h"

#include <algorithm>
#include <array>

#include "base/result.h"

namespace quarry::cli {
namespace {

constexpr std::array<std::string_view, 5> kWithoutNode = {"quarry device format", "quarry device inspect", "quarry device fsck",
                                                          "quarry kfs", "quarry server"};

bool talks_to_node(std::string_view command) {
  return command.starts_with("quarry ") && command.find(" --root") == std::string_view::npos &&
         std::ranges::none_of(kWithoutNode, [command](std::string_view one) { return command.starts_with(one); });
}

}  // namespace

std::string with_root(std::string_view message, std::string_view root) {
  std::string text;
  while (!root.empty()) {
    const size_t begin = message.find('`'), end = begin == std::string_view::npos ? begin : message.find('`', begin + 1);
    if (end == std::string_view::npos) break;
    text += message.substr(0, end);
    if (talks_to_node(message.substr(begin + 1, end - begin - 1))) text += fmt::format(" --root {}", root);
    text += '`';
    message.remove_prefix(end + 1);
  }
  return text + std::string(message);
}

}  // namespace quarry::cli
