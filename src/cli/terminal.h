// What people see: tables and a progress line on standard error (only on a terminal, only when something takes over two seconds).
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "io/executor.h"

namespace quarry::cli {

// Columns padded to their widest cell; numbers (cells that begin with a digit in every row) to the right. Head in bold on a terminal.
void print_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows);

// "error: ..." on standard error; returns 1, the exit status of a failed command.
int print_error(const std::string& message);

// A line that counts: bytes and items done of totals (0: unknown), rate, time left. Confined to one thread.
class Progress {
 public:
  Progress(std::string title, bool enabled);
  ~Progress();  // clears the line
  void set_total(uint64_t items, uint64_t bytes);
  void add_bytes(uint64_t bytes);
  void add_items(uint64_t items);
  uint64_t bytes() const { return bytes_; }
  uint64_t items() const { return items_; }
  double seconds() const;

 private:
  void draw();
  std::string title_;
  bool enabled_;
  bool drawn_ = false;
  uint64_t items_ = 0, bytes_ = 0, items_total_ = 0, bytes_total_ = 0;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace quarry::cli
