// How the metadata log names its chunks, and finds them on a drive. Private to metadata_log.cc and metadata_log_copies.cc.
#pragma once
#include "cluster/drives/drive.h"
#include "cluster/log/metadata_log.h"

namespace quarry::cluster {

inline constexpr uint32_t kPieceSize = 8u << 20;  // of a checkpoint file, bytes
inline constexpr size_t kMetadataListBatch = 4096;
inline constexpr size_t kMetadataRemoveBatch = 1024;
inline constexpr size_t kRestoreParallel = 4;

inline ChunkName frame_name(meta::FrameNumber number, uint64_t epoch) {
  return {
      .kind = ChunkKind::metadata_frame, .serial = number, .group = 0, .stripe = 0, .shard = 0, .generation = static_cast<uint16_t>(epoch)};
}
inline ChunkName piece_name(uint64_t handle, uint32_t piece) {
  return {.kind = ChunkKind::metadata_file, .serial = handle, .group = 0, .stripe = piece, .shard = 0, .generation = 0};
}
inline ChunkName root_name(uint64_t epoch, uint32_t sequence) {
  return {.kind = ChunkKind::metadata_root, .serial = epoch, .group = 0, .stripe = sequence, .shard = 0, .generation = 0};
}

inline std::string describe(const ChunkName& name) {
  switch (name.kind) {
    case ChunkKind::metadata_frame: return fmt::format("metadata frame {}", name.serial);
    case ChunkKind::metadata_file: return fmt::format("piece {} of metadata file {:x}", name.stripe, name.serial);
    default: return fmt::format("metadata root {}.{}", name.serial, name.stripe);
  }
}

inline chunk::Stream stream_of(const ChunkName& name) {
  return name.kind == ChunkKind::metadata_file ? chunk::Stream::metadata : chunk::Stream::log;
}

inline uint32_t piece_count(uint64_t size) { return static_cast<uint32_t>(div_up(size, kPieceSize)); }

// Everything of the log's three kinds on a drive: kinds 2, 3 and 4 are one range of ids.
inline Task<Result<std::vector<chunk::ChunkStat>>> list_all(Drive* drive) {
  ChunkId from = chunk_range(ChunkKind::metadata_frame).first;
  const ChunkId to = chunk_range(ChunkKind::metadata_root).second;
  std::vector<chunk::ChunkStat> all;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<chunk::ChunkStat> some, co_await drive->list(from, to, kMetadataListBatch));
    all.insert(all.end(), some.begin(), some.end());
    if (some.size() < kMetadataListBatch) co_return all;
    from = some.back().id;
    if (++from.low == 0) ++from.high;
  }
}

inline Task<Result<void>> remove_from(Drive* drive, std::vector<ChunkId> ids) {
  for (size_t begin = 0; begin < ids.size(); begin += kMetadataRemoveBatch) {
    std::vector<ChunkId> batch(ids.begin() + begin, ids.begin() + std::min(begin + kMetadataRemoveBatch, ids.size()));
    Result<void> removed = co_await drive->remove(std::move(batch));
    if (!removed) co_return removed;
  }
  co_return Result<void>();
}

}  // namespace quarry::cluster
