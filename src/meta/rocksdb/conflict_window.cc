#include "meta/rocksdb/conflict_window.h"

namespace quarry::meta {
namespace {
constexpr size_t kEntryOverhead = 96;  // node, list entry, string header: about
}

bool ConflictWindow::conflicts(Version read_version, const ReadSet& reads) const {
  if (reads.empty()) return false;
  if (read_version < floor_) return true;
  for (const auto& key : reads.keys) {
    const auto at = newest_.find(key);
    if (at != newest_.end() && at->second > read_version) return true;
  }
  for (auto at = ranges_.rbegin(); at != ranges_.rend() && at->version > read_version; ++at) {
    const KeyRange& removed = at->range;
    for (const auto& key : reads.keys) {
      if (key >= removed.begin && key < removed.end) return true;
    }
    for (const auto& range : reads.ranges) {
      if (range.begin < removed.end && removed.begin < range.end) return true;
    }
  }
  if (reads.ranges.empty()) return false;
  // Newest first: a transaction is usually young, so few writes are newer than what it read.
  for (auto at = writes_.rbegin(); at != writes_.rend() && at->version > read_version; ++at) {
    const std::string& key = at->key->first;
    for (const auto& range : reads.ranges) {
      if (key >= range.begin && key < range.end) return true;
    }
  }
  return false;
}

void ConflictWindow::add(Version version, std::string_view ops) {
  OpReader reader(ops);
  Op op;
  while (reader.next(op)) {
    if (op.kind == OpKind::remove_range) {
      ranges_.push_back({version, {std::string(op.key), std::string(op.value)}});
      bytes_ += op.key.size() + op.value.size() + kEntryOverhead;
      continue;
    }
    auto at = newest_.find(op.key);
    if (at == newest_.end()) at = newest_.emplace(std::string(op.key), version).first;
    at->second = version;
    writes_.push_back({version, &*at});
    bytes_ += op.key.size() + kEntryOverhead;
  }
  while (entries() > entries_max_ || bytes_ > bytes_max_) forget_oldest();
}

void ConflictWindow::forget_oldest() {
  const bool range = !ranges_.empty() && (writes_.empty() || ranges_.front().version < writes_.front().version);
  if (range) {
    floor_ = std::max(floor_, ranges_.front().version);
    bytes_ -= ranges_.front().range.begin.size() + ranges_.front().range.end.size() + kEntryOverhead;
    ranges_.pop_front();
    return;
  }
  const Write write = writes_.front();
  writes_.pop_front();
  floor_ = std::max(floor_, write.version);
  bytes_ -= write.key->first.size() + kEntryOverhead;
  // Two writes of one key in one transaction share a version: the second leaves the node only if it is the last that names it.
  if (write.key->second == write.version && (writes_.empty() || writes_.front().key != write.key)) {
    bool named = false;
    for (auto at = writes_.begin(); at != writes_.end() && at->version == write.version && !named; ++at) named = at->key == write.key;
    if (!named) newest_.erase(newest_.find(write.key->first));
  }
}

}  // namespace quarry::meta
