// Puts: small chunks go into a packed frame; large ones into an extent: its data and the log record that names it are written side by
// side, and both are stable before the put returns. Recovery checks the data of puts that no later log frame calls settled.
#include "base/check.h"
#include "base/log.h"
#include "chunk/raw/raw_store_impl.h"
#include "codec/crc32c.h"

namespace quarry::chunk::raw {
namespace {

constexpr size_t kGatherPartsMax = 64;

// Checksums of the blocks of a payload that comes in parts.
std::vector<uint32_t> block_checksums(const ChunkId& id, const std::vector<ByteView>& parts, uint32_t size) {
  const uint32_t block = 1u << checksum_shift(size);
  std::vector<uint32_t> checksums;
  checksums.reserve(div_up(size, block));
  uint32_t filled = 0;
  uint32_t crc = 0;
  for (ByteView part : parts) {
    while (!part.empty()) {
      if (filled == 0) crc = checksum_seed(id, static_cast<uint32_t>(checksums.size()));
      const size_t take = std::min<size_t>(part.size(), block - filled);
      crc = crc32c(crc, part.first(take));
      part = part.subspan(take);
      filled += static_cast<uint32_t>(take);
      if (filled == block) {
        checksums.push_back(crc);
        filled = 0;
      }
    }
  }
  if (filled > 0) checksums.push_back(crc);
  return checksums;
}

Task<void> append_to(Journal& journal, Journal::Entry* entry, Result<void>* result) { *result = co_await journal.append(*entry); }

// A payload as whole aligned blocks: views of the parts where they are aligned, else of one copy. The last block is padded with zeros.
struct AlignedPayload {
  std::vector<ByteView> pieces;
  Buffer copy, tail;
};
AlignedPayload align_payload(const std::vector<ByteView>& parts, uint32_t size) {
  AlignedPayload out;
  bool direct = parts.size() + 2 <= kGatherPartsMax;
  for (size_t i = 0; i < parts.size() && direct; ++i) {
    direct =
        reinterpret_cast<uintptr_t>(parts[i].data()) % kBufferAlignment == 0 && (parts[i].size() % kBlock == 0 || i + 1 == parts.size());
  }
  if (!direct) {
    out.copy = Buffer(round_up(size, kBlock));
    size_t at = 0;
    for (const ByteView part : parts) {
      if (!part.empty()) std::memcpy(out.copy.data() + at, part.data(), part.size());
      at += part.size();
    }
    std::memset(out.copy.data() + at, 0, out.copy.size() - at);
    out.pieces.push_back(out.copy.view());
    return out;
  }
  for (const ByteView part : parts) {
    const size_t whole = round_down(part.size(), kBlock);
    if (whole > 0) out.pieces.push_back(part.first(whole));
    if (whole == part.size()) continue;
    out.tail = Buffer(kBlock);
    std::memcpy(out.tail.data(), part.data() + whole, part.size() - whole);
    std::memset(out.tail.data() + (part.size() - whole), 0, kBlock - (part.size() - whole));
    out.pieces.push_back(out.tail.view());
  }
  return out;
}

}  // namespace

Task<Result<void>> RawStoreImpl::put(ChunkId id, std::vector<ByteView> parts, PutOptions options) {
  CO_TRY(writable());
  Use use(*this);
  uint64_t size = 0;
  for (const ByteView part : parts) size += part.size();
  if (size > kChunkSizeMax) co_return fail(Code::too_large, "a chunk of {} bytes: at most {}", size, kChunkSizeMax);
  if (owner_look_due()) CO_TRY(co_await look_at_owner());
  if (index_.find(id) != nullptr || !putting_.insert(id).second) co_return fail(Code::already_exists, "chunk {}", id.to_string());
  co_await put_bytes_.acquire(size);
  const auto stream = static_cast<uint8_t>(options.stream);
  Result<void> result;
  if (size <= supers_.superblock().pack_limit) {
    result = co_await put_packed(id, std::move(parts), static_cast<uint32_t>(size), stream);
  } else {
    result = co_await store_extent(id, std::move(parts), static_cast<uint32_t>(size), stream, std::nullopt);
  }
  put_bytes_.release(size);
  putting_.erase(id);
  co_return result;
}

Task<Result<void>> RawStoreImpl::put_packed(ChunkId id, std::vector<ByteView> parts, uint32_t size, uint8_t stream) {
  CHECK(stream < kStreams);
  PackedPut item;
  item.id = id;
  item.size = size;
  item.stream = stream;
  item.crc = checksum_seed(id, 0);
  for (const ByteView part : parts) item.crc = crc32c(item.crc, part);
  item.parts = std::move(parts);
  auto result = co_await streams_[stream]->put(item);
  co_return result;
}

Task<Result<std::vector<Run>>> RawStoreImpl::allocate_runs(uint32_t blocks, uint8_t stream) {
  const uint32_t reserve = kReserveCompaction + (stream == static_cast<uint8_t>(Stream::data) ? kReserveMetadata : 0);
  const bool fits_one = blocks <= space_.geometry().data_blocks();
  for (;;) {
    if (fits_one) {
      if (const auto run = space_.allocate(blocks)) co_return std::vector<Run>{*run};
    } else if (auto runs = space_.allocate_scattered(blocks); !runs.empty()) {
      co_return runs;
    }
    if (!may_use_segments(reserve)) break;
    // One segment at a time; who waited here looks again first.
    const uint32_t before = space_.free_segments();
    co_await opening_.acquire();
    Result<uint32_t> opened = 0u;
    if (space_.free_segments() == before || !fits_one) {
      opened = fail(Code::no_space, "{}: all segments are in use", device_->info().path);
      if (may_use_segments(reserve)) opened = co_await open_segment(Role::extent, stream);
    }
    opening_.release();
    if (!opened && opened.error().code() != Code::no_space) co_return std::move(opened).error();
    if (!opened) break;
  }
  if (auto runs = space_.allocate_scattered(blocks); !runs.empty()) co_return runs;
  co_return fail(Code::no_space, "{}: no room for {} bytes", device_->info().path, static_cast<uint64_t>(blocks) * kBlock);
}

void RawStoreImpl::abandon_runs(const std::vector<Run>& runs, std::optional<size_t> bad) {
  for (size_t i = 0; i < runs.size(); ++i) {
    const uint32_t segment = space_.geometry().segment_of(runs[i]);
    if (bad) {  // all stay allocated until the next mount: the record may count till then; the segment of the bad one takes no more
      if (i != *bad) continue;
      if (space_[segment].state != SegmentState::retired) ++stats_.segments_retired;
      space_.retire(segment);
      continue;
    }
    --space_[segment].pending;
    space_.release(runs[i]);
  }
}

Task<Result<void>> RawStoreImpl::write_runs(const std::vector<Run>& runs, const std::vector<ByteView>& pieces, size_t* done) {
  size_t piece = 0;
  size_t used = 0;  // bytes of pieces[piece]
  for (const auto& run : runs) {
    std::vector<ByteView> parts;
    uint64_t need = static_cast<uint64_t>(run.blocks) * kBlock;
    uint64_t at = run.block * kBlock;
    while (need > 0) {
      const size_t take = std::min<uint64_t>(need, pieces[piece].size() - used);
      parts.push_back(pieces[piece].subspan(used, take));
      used += take;
      need -= take;
      if (used == pieces[piece].size()) {
        ++piece;
        used = 0;
      }
    }
    if (owner_look_due()) CO_TRY(co_await look_at_owner());  // the runs before may have taken long
    CO_TRY(co_await device_->write_gather(at, std::move(parts), Durability::durable));
    ++*done;
  }
  co_return Result<void>{};
}

Task<Result<void>> RawStoreImpl::store_extent(ChunkId id, std::vector<ByteView> parts, uint32_t size, uint8_t stream,
                                              std::optional<uint64_t> from) {
  const AlignedPayload payload = align_payload(parts, size);
  ChunkHeader header;
  header.drive = drive_id();
  header.id = id;
  header.size = size;
  header.stream = stream;
  header.checksums = block_checksums(id, parts, size);
  PutRecord record{id, size, 0, stream, {}};
  Buffer header_block(kBlock);
  std::vector<ByteView> pieces;
  pieces.push_back(header_block.view());
  pieces.insert(pieces.end(), payload.pieces.begin(), payload.pieces.end());
  const auto blocks = static_cast<uint32_t>(1 + div_up(size, kBlock));
  for (uint32_t attempt = 0;; ++attempt) {
    if (from) {
      record.runs = allocate_from_holes(blocks);
      if (record.runs.empty())
        co_return fail(Code::no_space, "{}: no hole for {} bytes", device_->info().path, static_cast<uint64_t>(blocks) * kBlock);
    } else {
      CO_TRY_ASSIGN(record.runs, co_await allocate_runs(blocks, stream));
    }
    Result<void> ours;
    if (owner_look_due()) ours = co_await look_at_owner();  // room may have been made for it first
    if (!ours) {
      abandon_runs(record.runs, std::nullopt);
      co_return std::move(ours).error();
    }
    header.runs = record.runs;
    header.after = journal_.durable();
    header.epoch = journal_.epoch();
    encode_chunk_header(header, header_block.mutable_view(), &record.header_crc);
    Journal::Entry entry;
    encode_record(record, entry.records);
    entry.count = 1;
    entry.settles_later = true;
    Result<void> logged;
    TaskGroup logging;
    logging.spawn(append_to(journal_, &entry, &logged));
    size_t done = 0;  // runs
    auto written = co_await write_runs(record.runs, pieces, &done);
    co_await logging.join();
    if (!logged) {
      // The record may be there all the same: its space is not given out again before the next mount.
      if (!written) note_error(written.error(), true);
      co_return noted(std::move(logged).error(), true);
    }
    if (written && owner_look_due()) written = co_await look_at_owner();  // a newcomer may have read before it was there
    if (written) {
      commit_extent(record);
      journal_.settle(entry.sequence);
      break;
    }
    const Code code = written.error().code();
    journal_.settle_failed(entry.sequence);
    abandon_runs(record.runs, code == Code::io_error ? std::optional(done) : std::nullopt);
    auto error = noted(std::move(written).error(), true);
    const bool again = code == Code::io_error && attempt + 1 < kPutAttempts && health_.state == StoreState::online;
    // The record names data that is not there: recovery checks it and finds that. A later record for the id takes its place, or a removal;
    // where the chunk was to be moved its former place stays right.
    if (!again && !from) {
      Journal::Entry undo;
      encode_record(RemoveRecord{id}, undo.records);
      undo.count = 1;
      auto undone = co_await journal_.append(undo);
      if (!undone) note_error(undone.error(), true);
    }
    if (!again) co_return std::move(error);
  }
  schedule_idle_seal();
  co_return Result<void>{};
}

// In one run if there is a hole of that size, else in several; opens no segment.
std::vector<Run> RawStoreImpl::allocate_from_holes(uint32_t blocks) {
  if (const auto run = space_.allocate(blocks)) return {*run};
  return space_.allocate_scattered(blocks);
}

void RawStoreImpl::commit_extent(const PutRecord& record) {
  if (const IndexEntry* old = index_.find(record.id)) {  // moved
    const IndexEntry copy = *old;
    release_entry(copy);
    multi_.erase(record.id);
  }
  IndexEntry entry;
  entry.id = record.id;
  entry.size = record.size;
  entry.crc = record.header_crc;
  entry.place = record.runs.front().block * kBlock | static_cast<uint64_t>(record.stream) << IndexEntry::kStreamShift;
  if (record.runs.size() > 1) {
    entry.place |= IndexEntry::kMulti;
    multi_[record.id] = record.runs;
  }
  for (const auto& run : record.runs) {
    Segment& s = space_[space_.geometry().segment_of(run)];
    --s.pending;
    ++s.live;
    ++s.changes;
    s.live_bytes += static_cast<uint64_t>(run.blocks) * kBlock;
    s.dirty = true;
    stored_bytes_ += static_cast<uint64_t>(run.blocks) * kBlock;
  }
  payload_bytes_ += record.size;
  index_.put(entry);
  if (listing_) listing_->entered(entry, record.runs);
}

}  // namespace quarry::chunk::raw
