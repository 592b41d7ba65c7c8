// Removals: a durable tombstone first; then the index forgets, and the space waits for readers. Nothing is freed by a timer.
#include "base/check.h"
#include "chunk/raw/raw_store_impl.h"

namespace quarry::chunk::raw {
namespace {
struct RemoveCommit {
  RawStoreImpl* store;
  const std::vector<ChunkId>* ids;
};
}  // namespace

Task<Result<void>> RawStoreImpl::remove(std::vector<ChunkId> ids) {
  CO_TRY(readable());
  Use use(*this);
  if (owner_look_due()) CO_TRY(co_await look_at_owner());
  std::erase_if(ids, [this](const ChunkId& id) { return index_.find(id) == nullptr; });
  for (size_t at = 0; at < ids.size(); at += kRemovesPerEntry) {
    std::vector<ChunkId> part(ids.begin() + static_cast<ptrdiff_t>(at),
                              ids.begin() + static_cast<ptrdiff_t>(std::min(at + kRemovesPerEntry, ids.size())));
    const auto in_motion = [this](const ChunkId& id) { return moving_.contains(id) || removing_.contains(id); };
    while (std::any_of(part.begin(), part.end(), in_motion)) co_await moved_or_removed_.wait();
    std::erase_if(part, [this](const ChunkId& id) { return index_.find(id) == nullptr; });
    if (part.empty()) continue;
    Journal::Entry entry;
    for (const auto& id : part) encode_record(RemoveRecord{id}, entry.records);
    removing_.insert(part.begin(), part.end());
    entry.count = static_cast<uint32_t>(part.size());
    RemoveCommit commit{this, &part};
    entry.context = &commit;
    entry.apply = [](void* context, uint64_t) {
      auto& self = *static_cast<RemoveCommit*>(context);
      for (const auto& id : *self.ids) self.store->forget(id);
    };
    auto logged = co_await journal_.append(entry);
    for (const auto& id : part) removing_.erase(id);
    moved_or_removed_.pulse();
    if (!logged) co_return noted(std::move(logged).error(), true);
  }
  schedule_idle_seal();
  co_return Result<void>{};
}

void RawStoreImpl::forget(const ChunkId& id) {
  const IndexEntry* entry = index_.find(id);
  if (entry == nullptr) return;  // named twice in one removal
  const IndexEntry copy = *entry;
  release_entry(copy);
  multi_.erase(id);
  index_.erase(id);
}

// The place of the entry holds nothing live any more.
void RawStoreImpl::release_entry(const IndexEntry& entry) {
  payload_bytes_ -= entry.size;
  if (entry.packed()) {
    packed_item_died(entry.offset(), entry.size);
  } else {
    auto runs = runs_of(entry);
    if (listing_) listing_->left(entry, runs);
    free_runs_later(std::move(runs));
  }
}

void RawStoreImpl::packed_item_died(uint64_t device_offset, uint32_t size) {
  const uint32_t segment = space_.geometry().segment_at(device_offset);
  Segment& s = space_[segment];
  CHECK(s.role == Role::packed && s.live > 0 && s.live_bytes >= size);
  s.dead.push_back(static_cast<uint32_t>((device_offset - space_.geometry().offset_of(segment)) / kItemAlignment));
  --s.live;
  ++s.changes;
  s.live_bytes -= size;
  stored_bytes_ -= round_up(size, kItemAlignment) + kFrameItemSize;
  s.dirty = true;
  if (s.live == 0 && s.state != SegmentState::open)
    free_packed_later(segment);
  else
    consider_compaction();
}

void RawStoreImpl::free_packed_later(uint32_t segment) {
  Segment& s = space_[segment];
  if (s.emptying || s.compacting) return;
  s.emptying = true;
  readers_.when_quiet([this, segment] {
    space_.give_segment(segment);
    discard_later(segment);
  });
}

void RawStoreImpl::free_runs_later(std::vector<Run> runs) {
  for (const auto& run : runs) {
    Segment& s = space_[space_.geometry().segment_of(run)];
    CHECK(s.role == Role::extent && s.live > 0);
    --s.live;
    ++s.pending;
    ++s.changes;
    s.live_bytes -= static_cast<uint64_t>(run.blocks) * kBlock;
    stored_bytes_ -= static_cast<uint64_t>(run.blocks) * kBlock;
    s.dirty = true;
    s.unreadable = false;  // it may have been the one that could not be moved
  }
  quarantined_blocks_ += [&] {
    uint64_t blocks = 0;
    for (const auto& run : runs) blocks += run.blocks;
    return blocks;
  }();
  readers_.when_quiet([this, runs = std::move(runs)] {
    for (const auto& run : runs) {
      const uint32_t segment = space_.geometry().segment_of(run);
      --space_[segment].pending;
      quarantined_blocks_ -= run.blocks;
      space_.release(run);
      if (space_[segment].live + space_[segment].pending > 0) continue;
      space_.give_segment(segment);
      discard_later(segment);
    }
  });
}

}  // namespace quarry::chunk::raw
