#include "cluster/stripes/read_cache.h"

#include <bit>

namespace quarry::cluster {
namespace {
constexpr uint64_t kPartMin = 32 * kMiB;  // a part holds many of the largest entries
constexpr uint64_t kPartsMax = 64;
constexpr size_t kEvictAtOnce = 64;  // entries, by resize under one lock
constexpr uint8_t kFrequencyMax = 3;
constexpr size_t kGhostsMax = 16 * 1024;  // per part; hashes only
}  // namespace

ReadCache::ReadCache(uint64_t capacity_bytes, uint64_t pin_bytes)
    : capacity_(capacity_bytes), pin_capacity_(std::min(pin_bytes, capacity_bytes)) {
  // Pinned bytes come out of the capacity only while they are used: parts evict against what is left.
  const uint64_t parts = std::bit_floor(std::clamp<uint64_t>(capacity_bytes / kPartMin, 1, kPartsMax));
  for (uint64_t i = 0; i < parts; ++i) parts_.push_back(std::make_unique<Part>());
}

std::optional<SharedBytes> ReadCache::find(const CacheKey& key) {
  if (!enabled()) return std::nullopt;
  Part& part = part_of(key);
  std::lock_guard lock(part.mutex);
  auto found = part.index.find(key);
  if (found == part.index.end()) {
    ++part.misses;
    return std::nullopt;
  }
  ++part.hits;
  Entry& entry = *found->second.entry;
  if (entry.frequency < kFrequencyMax) ++entry.frequency;
  return entry.bytes;
}

void ReadCache::add(Part& part, bool to_main, uint64_t bytes) {
  (to_main ? part.main_bytes : part.small_bytes) += bytes;
  used_bytes_.fetch_add(bytes, std::memory_order_relaxed);
}

void ReadCache::subtract(Part& part, bool from_main, uint64_t bytes) {
  (from_main ? part.main_bytes : part.small_bytes) -= bytes;
  used_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
}

bool ReadCache::insert(const CacheKey& key, SharedBytes bytes, bool pinned) {
  if (!enabled()) return false;
  Entry entry{key, std::move(bytes)};
  const uint64_t size = weight(entry);
  if (size > part_capacity()) return false;
  std::vector<SharedBytes> dropped;
  Part& part = part_of(key);
  std::lock_guard lock(part.mutex);
  if (auto found = part.index.find(key); found != part.index.end()) {
    if (!pinned || found->second.where == Where::pinned) return true;
    const uint64_t old = weight(*found->second.entry);
    if (pinned_bytes_.fetch_add(old) + old > pin_capacity_) {
      pinned_bytes_.fetch_sub(old);
      return false;
    }
    const bool small = found->second.where == Where::small;
    subtract(part, !small, old);
    part.pinned.splice(part.pinned.end(), small ? part.small : part.main, found->second.entry);
    found->second.where = Where::pinned;
    return true;
  }
  const size_t hash = KeyHash()(key);
  if (pinned) {
    if (pinned_bytes_.fetch_add(size) + size > pin_capacity_) {
      pinned_bytes_.fetch_sub(size);
      return false;
    }
    part.pinned.push_back(std::move(entry));
    part.index.emplace(key, Location{std::prev(part.pinned.end()), Where::pinned});
    make_room(part, dropped);
    return true;
  }
  ++part.admitted;
  const bool known = part.ghosts.contains(hash);
  Queue& queue = known ? part.main : part.small;
  queue.push_back(std::move(entry));
  part.index.emplace(key, Location{std::prev(queue.end()), known ? Where::main : Where::small});
  add(part, known, size);
  make_room(part, dropped);
  return true;
}

void ReadCache::unpin(const CacheKey& key) {
  if (!enabled()) return;
  std::vector<SharedBytes> dropped;
  Part& part = part_of(key);
  std::lock_guard lock(part.mutex);
  auto found = part.index.find(key);
  if (found == part.index.end() || found->second.where != Where::pinned) return;
  const uint64_t size = weight(*found->second.entry);
  pinned_bytes_.fetch_sub(size);
  part.main.splice(part.main.end(), part.pinned, found->second.entry);
  add(part, true, size);
  found->second.where = Where::main;
  make_room(part, dropped);
}

void ReadCache::erase(const CacheKey& key) {
  if (!enabled()) return;
  SharedBytes dropped;
  Part& part = part_of(key);
  std::lock_guard lock(part.mutex);
  auto found = part.index.find(key);
  if (found == part.index.end()) return;
  const auto [entry, where] = found->second;
  const uint64_t size = weight(*entry);
  if (where == Where::pinned) {
    pinned_bytes_.fetch_sub(size);
  } else {
    subtract(part, where == Where::main, size);
  }
  dropped = std::move(entry->bytes);
  (where == Where::pinned ? part.pinned : where == Where::main ? part.main : part.small).erase(entry);
  part.index.erase(found);
}

void ReadCache::resize(uint64_t capacity_bytes) {
  CHECK(enabled() && capacity_bytes > 0, "a cache that is off stays off, and one that is on stays on");
  capacity_.store(std::max(capacity_bytes, pin_capacity_), std::memory_order_relaxed);
  for (const auto& part : parts_) {
    for (bool all = false; !all;) {
      std::vector<SharedBytes> dropped;
      std::lock_guard lock(part->mutex);
      all = make_room(*part, dropped, kEvictAtOnce);
    }
  }
}

void ReadCache::remember(Part& part, size_t hash) {
  part.ghost.push_back(hash);
  ++part.ghosts[hash];
  const size_t limit = std::clamp<size_t>(part.index.size(), 64, kGhostsMax);
  while (part.ghost.size() > limit) {
    auto found = part.ghosts.find(part.ghost.front());
    if (--found->second == 0) part.ghosts.erase(found);
    part.ghost.pop_front();
  }
}

bool ReadCache::make_room(Part& part, std::vector<SharedBytes>& dropped, size_t entries) {
  const uint64_t pinned_share = pinned_bytes_.load(std::memory_order_relaxed) / parts_.size();
  const uint64_t whole = part_capacity(), limit = whole > pinned_share ? whole - pinned_share : 0;
  while (part.small_bytes + part.main_bytes > limit && part.small_bytes + part.main_bytes > 0) {
    if (dropped.size() == entries) return false;
    if (part.small_bytes > limit / 10 || part.main.empty()) {
      Entry& oldest = part.small.front();
      const uint64_t size = weight(oldest);
      subtract(part, false, size);
      if (oldest.frequency > 0) {  // asked for again while in the small queue: worth keeping
        oldest.frequency = 0;
        part.index.find(oldest.key)->second.where = Where::main;
        part.main.splice(part.main.end(), part.small, part.small.begin());
        add(part, true, size);
      } else {
        remember(part, KeyHash()(oldest.key));
        part.index.erase(oldest.key);
        dropped.push_back(std::move(oldest.bytes));
        part.small.pop_front();
        ++part.evicted;
      }
      continue;
    }
    Entry& oldest = part.main.front();
    if (oldest.frequency > 0) {
      --oldest.frequency;
      part.main.splice(part.main.end(), part.main, part.main.begin());
      continue;
    }
    subtract(part, true, weight(oldest));
    part.index.erase(oldest.key);
    dropped.push_back(std::move(oldest.bytes));
    part.main.pop_front();
    ++part.evicted;
  }
  return true;
}

CacheStatus ReadCache::status() const {
  CacheStatus status;
  status.capacity_bytes = capacity();
  status.pinned_bytes = pinned_bytes_.load();
  status.used_bytes = status.pinned_bytes;
  for (const auto& part : parts_) {
    std::lock_guard lock(part->mutex);
    status.used_bytes += part->small_bytes + part->main_bytes;
    status.hits += part->hits;
    status.misses += part->misses;
    status.admitted += part->admitted;
    status.evicted += part->evicted;
  }
  return status;
}

}  // namespace quarry::cluster
