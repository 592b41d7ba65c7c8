#include "chunk/raw/chunk_index.h"

#include <algorithm>

#include "base/check.h"

namespace quarry::chunk::raw {
namespace {
constexpr auto kById = [](const IndexEntry& entry, const ChunkId& id) { return entry.id < id; };
}  // namespace

ChunkIndex::ChunkIndex() { leaves_.emplace(ChunkId{}, Leaf{}); }
ChunkIndex::~ChunkIndex() = default;

std::map<ChunkId, ChunkIndex::Leaf>::const_iterator ChunkIndex::leaf_of(const ChunkId& id) const {
  return std::prev(leaves_.upper_bound(id));
}

const IndexEntry* ChunkIndex::find(const ChunkId& id) const {
  const Leaf& leaf = leaf_of(id)->second;
  const auto at = std::lower_bound(leaf.begin(), leaf.end(), id, kById);
  return at != leaf.end() && at->id == id ? &*at : nullptr;
}

void ChunkIndex::put(const IndexEntry& entry) {
  Leaf& leaf = const_cast<Leaf&>(leaf_of(entry.id)->second);
  auto at = std::lower_bound(leaf.begin(), leaf.end(), entry.id, kById);
  if (at != leaf.end() && at->id == entry.id) {
    *at = entry;
    return;
  }
  ++size_;
  if (leaf.size() >= kLeafMax) {
    // Ascending ids leave full leaves behind; others split in the middle.
    const size_t keep = at == leaf.end() ? kLeafMax : kLeafMax / 2;
    if (keep == kLeafMax) {
      Leaf fresh;
      fresh.reserve(kGrowth);
      fresh.push_back(entry);
      leaves_.emplace(entry.id, std::move(fresh));
      return;
    }
    Leaf upper(leaf.begin() + static_cast<ptrdiff_t>(keep), leaf.end());
    leaf.resize(keep);
    leaf.shrink_to_fit();
    const ChunkId first = upper.front().id;
    Leaf& other = leaves_.emplace(first, std::move(upper)).first->second;
    Leaf& target = entry.id < first ? leaf : other;
    target.insert(std::lower_bound(target.begin(), target.end(), entry.id, kById), entry);
    return;
  }
  if (leaf.size() == leaf.capacity()) {
    const auto position = at - leaf.begin();
    leaf.reserve(leaf.size() + kGrowth);
    at = leaf.begin() + position;
  }
  leaf.insert(at, entry);
}

bool ChunkIndex::erase(const ChunkId& id) {
  const auto node = leaf_of(id);
  Leaf& leaf = const_cast<Leaf&>(node->second);
  const auto at = std::lower_bound(leaf.begin(), leaf.end(), id, kById);
  if (at == leaf.end() || at->id != id) return false;
  leaf.erase(at);
  --size_;
  if (leaf.empty()) {
    if (node->first != ChunkId{})
      leaves_.erase(node);
    else
      leaf.shrink_to_fit();
    return true;
  }
  if (leaf.capacity() > leaf.size() + 3 * kGrowth) leaf.shrink_to_fit();
  const auto next = std::next(node);
  if (next != leaves_.end() && leaf.size() + next->second.size() <= kLeafMax / 2) {
    leaf.reserve(leaf.size() + next->second.size());
    leaf.insert(leaf.end(), next->second.begin(), next->second.end());
    leaves_.erase(next);
  }
  return true;
}

void ChunkIndex::load(std::vector<IndexEntry> entries) {
  leaves_.clear();
  size_ = entries.size();
  for (size_t i = 0; i < entries.size(); i += kLeafMax) {
    const size_t end = std::min(i + kLeafMax, entries.size());
    DCHECK(i == 0 || entries[i - 1].id < entries[i].id);
    leaves_.emplace_hint(leaves_.end(), i == 0 ? ChunkId{} : entries[i].id,
                         Leaf(entries.begin() + static_cast<ptrdiff_t>(i), entries.begin() + static_cast<ptrdiff_t>(end)));
  }
  if (leaves_.empty()) leaves_.emplace(ChunkId{}, Leaf{});
}

std::span<const IndexEntry> ChunkIndex::leaf_from(const ChunkId& from) const {
  for (auto node = leaf_of(from); node != leaves_.end(); ++node) {
    const Leaf& leaf = node->second;
    const auto at = std::lower_bound(leaf.begin(), leaf.end(), from, kById);
    if (at != leaf.end()) return {at, leaf.end()};
  }
  return {};
}

void ChunkIndex::visit(const ChunkId& from, const std::function<bool(const IndexEntry&)>& visit) const {
  auto node = leaf_of(from);
  bool first = true;
  for (; node != leaves_.end(); ++node) {
    const Leaf& leaf = node->second;
    auto at = first ? std::lower_bound(leaf.begin(), leaf.end(), from, kById) : leaf.begin();
    first = false;
    for (; at != leaf.end(); ++at) {
      if (!visit(*at)) return;
    }
  }
}

size_t ChunkIndex::bytes() const {
  size_t total = sizeof *this;
  for (const auto& [id, leaf] : leaves_) total += 48 + sizeof(id) + sizeof(Leaf) + 16 + leaf.capacity() * sizeof(IndexEntry);
  return total;
}

}  // namespace quarry::chunk::raw
