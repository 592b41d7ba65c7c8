#include "cluster/map/data_layout.h"

#include "chunk/chunk_store.h"

namespace quarry::cluster {
namespace {
constexpr uint8_t kVersion = 1;
constexpr uint8_t kVersionWhole = 2;  // of layouts that programs before `whole` would not understand
constexpr uint32_t kAlignedShardMin =
    64 * 1024;  // from here on short shards are whole 4 KiB blocks, so that they are written without a copy
}  // namespace

uint32_t shard_size_for(uint64_t bytes, unsigned k) {
  if (k == 1) return static_cast<uint32_t>(bytes);
  const uint64_t share = div_up(bytes, k);
  return static_cast<uint32_t>(round_up(share, share >= kAlignedShardMin ? kBufferAlignment : 64));
}

uint32_t shard_size_max(const Redundancy& redundancy) {
  if (redundancy.kind != RedundancyKind::whole) return chunk::kChunkSizeMax;
  return static_cast<uint32_t>(round_down(chunk::kChunkSizeMax / redundancy.k, 64));
}

uint64_t DataLayout::stripe_size(uint32_t stripe) const {
  const uint64_t begin = stripe * stripe_bytes();
  return std::min(stripe_bytes(), size - begin);
}

uint32_t DataLayout::stripe_shard_size(uint32_t stripe) const {
  const uint64_t bytes = stripe_size(stripe);
  return bytes == stripe_bytes() ? shard_size : shard_size_for(bytes, redundancy.k);
}

uint32_t DataLayout::stored_size(uint32_t stripe, unsigned shard) const {
  const uint64_t length = stripe_shard_size(stripe);
  const uint64_t bytes = stripe_size(stripe);
  if (redundancy.is_copy(shard)) return static_cast<uint32_t>(bytes);
  shard -= redundancy.first_slice();
  if (shard >= redundancy.k) return static_cast<uint32_t>(length);
  const uint64_t begin = shard * length;
  return begin >= bytes ? 0 : static_cast<uint32_t>(std::min(length, bytes - begin));
}

uint64_t DataLayout::stored_bytes() const {
  const uint32_t stripes = stripe_count();
  if (stripes == 0) return 0;
  const auto stored = [this](uint32_t stripe) {
    uint64_t sum = 0;
    for (unsigned shard = 0; shard < redundancy.width(); ++shard) sum += stored_size(stripe, shard);
    return sum;
  };
  return (stripes - 1) * (stripes > 1 ? stored(0) : 0) + stored(stripes - 1);
}

void DataLayout::encode(std::string& out) const {
  Encoder(out)
      .u8(redundancy.kind == RedundancyKind::whole ? kVersionWhole : kVersion)
      .u8(static_cast<uint8_t>(redundancy.kind))
      .u8(redundancy.k)
      .u8(redundancy.m)
      .u16(group)
      .varint(write_id)
      .varint(size)
      .varint(shard_size);
}

Result<DataLayout> DataLayout::decode(Decoder& in) {
  const uint8_t version = in.u8();
  if (in.ok() && version != kVersion && version != kVersionWhole)
    return fail(Code::incompatible, "data layout of version {}; this program reads {} and {}", version, kVersion, kVersionWhole);
  DataLayout layout;
  const uint8_t kind = in.u8();
  layout.redundancy.k = in.u8();
  layout.redundancy.m = in.u8();
  layout.group = in.u16();
  layout.write_id = in.varint();
  layout.size = in.varint();
  const uint64_t shard_size = in.varint();
  TRY(in.check("data layout"));
  const Redundancy& r = layout.redundancy;
  if (version == kVersionWhole ? kind != 3 : kind != 1 && kind != 2)
    return fail(Code::corrupt, "data layout of version {}: redundancy kind {}", version, kind);
  layout.redundancy.kind = static_cast<RedundancyKind>(kind);
  if (r.k < 1 || r.width() > 32 || (r.kind == RedundancyKind::mirror && r.k != 1)) {
    return fail(Code::corrupt, "data layout: {} data and {} parity shards", r.k, r.m);
  }
  if (shard_size < 64 || shard_size % 64 != 0 || shard_size > shard_size_max(r))
    return fail(Code::corrupt, "data layout: shard size {}", shard_size);
  layout.shard_size = static_cast<uint32_t>(shard_size);
  if (layout.write_id >> 56 != 0) return fail(Code::corrupt, "data layout: write id {:x}", layout.write_id);
  if (layout.size > layout.stripe_bytes() * kStripesMax) return fail(Code::corrupt, "data layout: size {}", layout.size);
  return layout;
}

}  // namespace quarry::cluster
