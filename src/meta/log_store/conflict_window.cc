#include "meta/log_store/conflict_window.h"

#include <algorithm>
#include <bit>

namespace quarry::meta {
namespace {
constexpr size_t kEntryOverhead = 96;  // node, list entry, string header: about

bool touches(const ReadSet& reads, const KeyRange& removed) {
  if (reads.sorted) return reads.touches(removed);
  return std::ranges::any_of(reads.keys, [&](const std::string& key) { return key >= removed.begin && key < removed.end; }) ||
         std::ranges::any_of(reads.ranges, [&](const KeyRange& range) { return range.begin < removed.end && removed.begin < range.end; });
}

}  // namespace

std::deque<ConflictWindow::Write>::const_iterator ConflictWindow::writes_after(Version version) const {
  return std::ranges::upper_bound(writes_, version, {}, &Write::version);
}

std::deque<ConflictWindow::RangeWrite>::const_iterator ConflictWindow::ranges_after(Version version) const {
  return std::ranges::upper_bound(ranges_, version, {}, &RangeWrite::version);
}

size_t ConflictWindow::cost(Version after, const ReadSet& reads) const {
  if (reads.empty() || after < floor_) return 0;
  const auto writes = static_cast<size_t>(writes_.end() - writes_after(after));
  const auto ranges = static_cast<size_t>(ranges_.end() - ranges_after(after));
  const size_t keys = reads.keys.size(), scans = reads.ranges.size();
  if (reads.sorted) return (writes + ranges) * static_cast<size_t>(std::bit_width(keys) + std::bit_width(scans));
  return keys + writes * scans + ranges * (keys + scans);
}

bool ConflictWindow::conflicts(Version after, const ReadSet& reads) const {
  if (reads.empty()) return false;
  if (after < floor_) return true;
  if (reads.sorted) return check_some(after, reads, SIZE_MAX).conflict;
  for (const auto& key : reads.keys) {
    const auto at = newest_.find(key);
    if (at != newest_.end() && at->second.version > after) return true;
  }
  for (auto at = ranges_after(after); at != ranges_.end(); ++at) {
    if (touches(reads, at->range)) return true;
  }
  if (reads.ranges.empty()) return false;
  for (auto at = writes_after(after); at != writes_.end(); ++at) {
    const std::string& key = at->key->first;
    for (const auto& range : reads.ranges) {
      if (key >= range.begin && key < range.end) return true;
    }
  }
  return false;
}

ConflictWindow::Checked ConflictWindow::check_some(Version after, const ReadSet& reads, size_t writes) const {
  CHECK(reads.sorted, "reads are sorted before they are checked bit by bit");
  if (after < floor_) return {true, after};
  Checked checked{false, last_};
  Version before = after;
  for (auto at = writes_after(after); at != writes_.end(); ++at) {
    if (writes == 0 && at->version != before) {  // a transaction is looked at as a whole
      checked.reached = before;
      break;
    }
    if (reads.touches(at->key->first)) return {true, before};
    before = at->version;
    if (writes > 0) --writes;
  }
  for (auto at = ranges_after(after); at != ranges_.end() && at->version <= checked.reached; ++at) {
    if (touches(reads, at->range)) return {true, after};
  }
  return checked;
}

void ConflictWindow::add(Version version, std::string_view ops) {
  last_ = version;
  OpReader reader(ops);
  Op op;
  while (reader.next(op)) {
    if (op.kind == OpKind::remove_range) {
      ranges_.push_back({version, {std::string(op.key), std::string(op.value)}});
      bytes_ += op.key.size() + op.value.size() + kEntryOverhead;
      continue;
    }
    auto at = newest_.find(op.key);
    if (at == newest_.end()) at = newest_.emplace(std::string(op.key), Newest()).first;
    at->second.version = version;
    ++at->second.remembered;
    writes_.push_back({version, &*at});
    bytes_ += op.key.size() + kEntryOverhead;
  }
  while (entries() > entries_max_ || bytes_ > bytes_max_ || ranges_.size() > kRangesMax) forget_oldest();
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
  const auto at = newest_.find(write.key->first);
  if (--at->second.remembered == 0) newest_.erase(at);
}

}  // namespace quarry::meta
