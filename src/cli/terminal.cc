#include "cli/terminal.h"

#include <unistd.h>

#include "base/units.h"

namespace quarry::cli {
namespace {

// Columns that a text takes on a terminal: bytes that do not continue a UTF-8 character.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

void print_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  std::vector<bool> numeric(head.size(), !rows.empty());
  for (const auto& name : head) widths.push_back(width_of(name));
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], width_of(row[i]));
      if (row[i].empty() || row[i][0] < '0' || row[i][0] > '9') numeric[i] = false;
    }
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t i = 0; i < cells.size() && i < widths.size(); ++i) {
      const std::string space(widths[i] - width_of(cells[i]), ' ');
      text += (i == 0 ? "" : "  ") + (numeric[i] ? space + cells[i] : cells[i] + space);
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    return text;
  };
  const bool bold = ::isatty(STDOUT_FILENO) == 1;
  fmt::print("{}{}{}\n", bold ? "\033[1m" : "", line(head), bold ? "\033[0m" : "");
  for (const auto& row : rows) fmt::print("{}\n", line(row));
}

int print_error(const std::string& message) {
  fmt::print(stderr, "quarry: {}\n", message);
  return 1;
}

Progress::Progress(std::string title, bool enabled)
    : title_(std::move(title)),
      enabled_(enabled && ::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

Progress::~Progress() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
}

void Progress::set_total(uint64_t items, uint64_t bytes) {
  items_total_ = items;
  bytes_total_ = bytes;
}
void Progress::add_bytes(uint64_t bytes) {
  bytes_ += bytes;
  draw();
}
void Progress::add_items(uint64_t items) {
  items_ += items;
  draw();
}
double Progress::seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

void Progress::draw() {
  if (!enabled_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - start_ < std::chrono::seconds(1) || now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  const double elapsed = seconds(), rate = static_cast<double>(bytes_) / elapsed;
  std::string line = title_ + "  ";
  if (bytes_total_ > 0) {
    const double share = std::min(1.0, static_cast<double>(bytes_) / static_cast<double>(bytes_total_));
    const auto filled = static_cast<size_t>(share * 24);
    line += "[" + std::string(filled, '#') + std::string(24 - filled, '.') + fmt::format("] {:3.0f} %  ", share * 100);
  }
  if (bytes_ == 0 && bytes_total_ == 0) {  // objects are counted, not their bytes
    line += fmt::format("{} objects  {:.0f}/s", items_, static_cast<double>(items_) / elapsed);
    fmt::print(stderr, "\r\033[K{}", line);
    return;
  }
  line += fmt::format("{}{}  {}", format_size(bytes_), bytes_total_ > 0 ? " of " + format_size(bytes_total_) : "", format_rate(rate));
  if (items_total_ > 1 || items_ > 1) line += fmt::format("  {}{} files", items_, items_total_ > 0 ? fmt::format("/{}", items_total_) : "");
  if (bytes_total_ > bytes_ && rate > 0) {
    line += "  " + format_duration(Duration(static_cast<int64_t>(static_cast<double>(bytes_total_ - bytes_) / rate * 1e9))) + " left";
  }
  fmt::print(stderr, "\r\033[K{}", line);
}

}  // namespace quarry::cli
