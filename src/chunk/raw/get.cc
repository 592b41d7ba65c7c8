// Reads: one device read where the layout allows, every byte that leaves was checked against the index and the chunk's checksums.
#include "base/check.h"
#include "base/log.h"
#include "chunk/raw/raw_store_impl.h"
#include "codec/crc32c.h"

namespace quarry::chunk::raw {
namespace {

// A range that starts this close behind the header is read together with it.
constexpr uint64_t kReadThrough = 64 * kKiB;

Error broken(const IndexEntry& entry, std::string_view why) {
  return fail(Code::corrupt, "chunk {} at {}: {}", entry.id.to_string(), entry.offset(), why).because(Reason::rot);
}

Result<ChunkHeader> check_header(const IndexEntry& entry, const Uuid& drive, ByteView block) {
  uint32_t crc = 0;
  auto header = decode_chunk_header(block, &crc);
  if (!header) return broken(entry, header.error().context());
  if (header->id != entry.id || header->drive != drive) return broken(entry, "another chunk lies here (stale or misdirected write)");
  if (crc != entry.crc || header->size != entry.size) return broken(entry, "its header is not the one written");
  return header;
}

}  // namespace

std::vector<Run> RawStoreImpl::runs_of(const IndexEntry& entry) const {
  if (entry.multi()) {
    const auto found = multi_.find(entry.id);
    CHECK(found != multi_.end());
    return found->second;
  }
  return {single_run(entry)};
}

Task<Result<void>> RawStoreImpl::read_blocks(const std::vector<Run>& runs, uint32_t block, MutableByteView into) {
  for (const auto& run : runs) {
    if (into.empty()) break;
    if (block >= run.blocks) {
      block -= run.blocks;
      continue;
    }
    const size_t bytes = std::min<uint64_t>(static_cast<uint64_t>(run.blocks - block) * kBlock, into.size());
    const MutableByteView piece = into.first(bytes);
    auto got = co_await device_->read((run.block + block) * kBlock, piece);
    if (!got) co_return std::move(got).error();
    into = into.subspan(bytes);
    block = 0;
  }
  co_return Result<void>{};
}

Task<Result<SharedBytes>> RawStoreImpl::read_packed(IndexEntry entry, uint32_t offset, uint32_t length) {
  if (entry.size == 0) co_return SharedBytes();
  const uint64_t start = round_down(entry.offset(), kBlock);
  Buffer buffer(round_up(entry.offset() + entry.size, kBlock) - start);
  auto got = co_await device_->read(start, buffer.mutable_view());
  if (!got) co_return std::move(got).error();
  const size_t at = entry.offset() - start;
  const ByteView payload = buffer.view().subspan(at, entry.size);
  if (crc32c(checksum_seed(entry.id, 0), payload) != entry.crc) co_return broken(entry, "checksum mismatch");
  co_return SharedBytes(std::move(buffer)).slice(at + offset, length);
}

Task<Result<SharedBytes>> RawStoreImpl::read_extent(IndexEntry entry, std::vector<Run> runs, uint32_t offset, uint32_t length) {
  const uint32_t shift = checksum_shift(entry.size);
  const uint64_t first = round_down(offset, 1u << shift);
  const uint64_t last = std::min<uint64_t>(round_up(static_cast<uint64_t>(offset) + std::max(length, 1u), 1u << shift), entry.size);
  const bool together = first <= kReadThrough;
  const uint64_t from = together ? 0 : first;  // payload bytes
  const size_t lead = together ? kBlock : 0;
  Buffer data(round_up(last, kBlock) - from + lead);
  Buffer header_block;
  Result<void> got;
  if (together) {
    got = co_await read_blocks(runs, 0, data.mutable_view());
  } else {
    header_block = Buffer(kBlock);
    std::vector<Task<Result<void>>> reads;
    reads.push_back(read_blocks(runs, 0, header_block.mutable_view()));
    reads.push_back(read_blocks(runs, static_cast<uint32_t>(1 + from / kBlock), data.mutable_view()));
    auto results = co_await when_all(std::move(reads));
    for (auto& result : results) {
      if (!result) got = std::move(result);
    }
  }
  if (!got) co_return std::move(got).error();
  const auto header = check_header(entry, drive_id(), together ? data.view().first(kBlock) : header_block.view());
  if (!header) co_return header.error();
  for (uint64_t at = first; at < last; at += 1u << shift) {
    const auto number = static_cast<uint32_t>(at >> shift);
    const size_t size = std::min<uint64_t>(1u << shift, entry.size - at);
    if (crc32c(checksum_seed(entry.id, number), data.view().subspan(lead + (at - from), size)) != header->checksums[number]) {
      co_return broken(entry, fmt::format("checksum mismatch in bytes {} to {}", at, at + size));
    }
  }
  co_return SharedBytes(std::move(data)).slice(lead + (offset - from), length);
}

Task<Result<SharedBytes>> RawStoreImpl::get_verified(ChunkId id, uint32_t offset, uint32_t length) {
  const IndexEntry* found = index_.find(id);
  if (found == nullptr) co_return fail(Code::not_found, "chunk {}", id.to_string());
  const IndexEntry entry = *found;
  if (offset > entry.size)
    co_return fail(Code::out_of_range, "chunk {}: offset {} is past its {} bytes", id.to_string(), offset, entry.size);
  length = std::min(length, entry.size - offset);
  const auto ticket = readers_.enter();
  Result<SharedBytes> result = SharedBytes();
  if (entry.packed()) {
    result = co_await read_packed(entry, offset, length);
  } else {
    auto runs = runs_of(entry);
    result = co_await read_extent(entry, std::move(runs), offset, length);
  }
  readers_.leave(ticket);
  co_return result;
}

Task<Result<SharedBytes>> RawStoreImpl::get(ChunkId id, uint32_t offset, uint32_t length) {
  CO_TRY(readable());
  Use use(*this);
  auto result = co_await get_verified(id, offset, length);
  if (result || (result.error().code() != Code::corrupt && result.error().code() != Code::io_error)) {
    if (!result && result.error().code() == Code::device_gone) co_return noted(std::move(result).error(), false);
    co_return result;
  }
  // Once more: a bus error or a drive's own retry may have been the cause.
  const Error first = result.error();
  result = co_await get_verified(id, offset, length);
  if (result) {
    LOG_WARNING("a read succeeded only the second time", {"device", device_->info().path}, {"error", first.to_string()});
    co_return result;
  }
  if (result.error().code() == Code::corrupt) {
    ++health_.checksum_errors;
    LOG_ERROR("stored bytes are not what was written", {"device", device_->info().path}, {"error", result.error().to_string()});
    co_return result;
  }
  co_return noted(std::move(result).error(), false);
}

Task<Result<ChunkStat>> RawStoreImpl::stat(ChunkId id) {
  CO_TRY(readable());
  const IndexEntry* entry = index_.find(id);
  if (entry == nullptr) co_return fail(Code::not_found, "chunk {}", id.to_string());
  const uint32_t stored = entry->packed() ? static_cast<uint32_t>(round_up(entry->size, kItemAlignment)) + kFrameItemSize
                                          : static_cast<uint32_t>((1 + div_up(entry->size, kBlock)) * kBlock);
  co_return ChunkStat{entry->id, entry->size, stored};
}

Task<Result<std::vector<ChunkStat>>> RawStoreImpl::list(ChunkId from, ChunkId to, size_t limit) {
  CO_TRY(readable());
  std::vector<ChunkStat> stats;
  index_.visit(from, [&](const IndexEntry& entry) {
    if (entry.id >= to || stats.size() >= limit) return false;
    const uint32_t stored = entry.packed() ? static_cast<uint32_t>(round_up(entry.size, kItemAlignment)) + kFrameItemSize
                                           : static_cast<uint32_t>((1 + div_up(entry.size, kBlock)) * kBlock);
    stats.push_back({entry.id, entry.size, stored});
    return true;
  });
  co_return stats;
}

}  // namespace quarry::chunk::raw
