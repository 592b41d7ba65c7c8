#include "codec/erasure.h"

#include <isa-l/erasure_code.h>

#include <array>
#include <map>
#include <mutex>
#include <vector>

#include "base/check.h"

namespace quarry {
namespace {

// Each input and output is walked in tiles, so that codes with many parity rows (ISA-L makes one pass over the inputs for every 4 to 6
// rows) find the inputs in the cache on the second pass.
constexpr size_t kTileBytes = 32 * kKiB;
// What one pass of ISA-L's widest kernels covers; up to here tiles gain nothing.
constexpr uint32_t kRowsPerPass = 4;

// Bytes of ISA-L's expanded table for one coefficient.
constexpr size_t kTableBytes = 32;

void multiply(size_t bytes, uint32_t inputs, uint32_t outputs, const uint8_t* tables, const uint8_t* const* from, uint8_t* const* to) {
  std::array<uint8_t*, kShardsMax> in;
  std::array<uint8_t*, kShardsMax> out;
  const size_t tile = outputs > kRowsPerPass ? kTileBytes : size_t{1} << 30;  // ISA-L takes the length as an int
  for (size_t offset = 0; offset < bytes; offset += tile) {
    const size_t length = std::min(tile, bytes - offset);
    for (uint32_t i = 0; i < inputs; ++i) in[i] = const_cast<uint8_t*>(from[i]) + offset;  // the C interface lacks const; it only reads
    for (uint32_t i = 0; i < outputs; ++i) out[i] = to[i] + offset;
    ec_encode_data(static_cast<int>(length), static_cast<int>(inputs), static_cast<int>(outputs), const_cast<uint8_t*>(tables), in.data(),
                   out.data());
  }
}

struct DecodeTable {
  std::vector<uint8_t> expanded;
};

}  // namespace

struct ErasureCode::Tables {
  std::vector<uint8_t> matrix;  // (k + m) x k
  std::vector<uint8_t> encode;  // m * k * kTableBytes
  std::mutex mutex;
  // Key: chosen inputs, wanted outputs. When full, the lowest key goes: which one matters little, a table is rebuilt in microseconds.
  std::map<std::pair<ShardMask, ShardMask>, std::shared_ptr<const DecodeTable>> decode;
};

Result<std::shared_ptr<const ErasureCode>> ErasureCode::get(uint32_t data_shards, uint32_t parity_shards) {
  if (data_shards < 1 || data_shards > kShardsMax || parity_shards > kShardsMax - data_shards) {
    return fail(Code::invalid_argument, "erasure code {}+{}: needs at least 1 data shard and at most {} shards in all", data_shards,
                parity_shards, kShardsMax);
  }
  static std::mutex mutex;
  static std::array<std::array<std::shared_ptr<const ErasureCode>, kShardsMax + 1>, kShardsMax + 1> codes;
  const std::lock_guard lock(mutex);
  auto& slot = codes[data_shards][parity_shards];
  if (!slot) slot.reset(new ErasureCode(data_shards, parity_shards));
  return slot;
}

ErasureCode::ErasureCode(uint32_t k, uint32_t m) : k_(k), m_(m), tables_(std::make_unique<Tables>()) {
  tables_->matrix.resize(static_cast<size_t>(k + m) * k);
  gf_gen_cauchy1_matrix(tables_->matrix.data(), static_cast<int>(k + m), static_cast<int>(k));
  tables_->encode.resize(static_cast<size_t>(m) * k * kTableBytes);
  if (m > 0) ec_init_tables(static_cast<int>(k), static_cast<int>(m), tables_->matrix.data() + k * k, tables_->encode.data());
}

ErasureCode::~ErasureCode() = default;

uint8_t ErasureCode::coefficient(uint32_t row, uint32_t column) const {
  CHECK(row < m_ && column < k_);
  return tables_->matrix[static_cast<size_t>(k_ + row) * k_ + column];
}

void ErasureCode::encode(std::span<const uint8_t* const> data, std::span<uint8_t* const> parity, size_t shard_bytes) const {
  CHECK(data.size() == k_ && parity.size() == m_);
  if (m_ == 0 || shard_bytes == 0) return;
  multiply(shard_bytes, k_, m_, tables_->encode.data(), data.data(), parity.data());
}

Result<void> ErasureCode::reconstruct(std::span<uint8_t* const> shards, size_t shard_bytes, ShardMask present, ShardMask wanted) const {
  CHECK(shards.size() == k_ + m_);
  if (((present | wanted) & ~all()) != 0 || (present & wanted) != 0) {
    return fail(Code::invalid_argument, "reconstruct {}+{}: masks present {:#x} and wanted {:#x} overlap or go beyond the shards", k_, m_,
                present, wanted);
  }
  if (static_cast<uint32_t>(std::popcount(present)) < k_) {
    return fail(Code::data_lost, "{} of {} shards are left, {} are needed", std::popcount(present), k_ + m_, k_);
  }
  if (wanted == 0 || shard_bytes == 0) return {};

  // The k lowest present shards: data first, then parity.
  std::array<const uint8_t*, kShardsMax> from;
  std::array<uint32_t, kShardsMax> rows;
  ShardMask chosen = 0;
  for (uint32_t i = 0, n = 0; n < k_; ++i) {
    if ((present >> i & 1) == 0) continue;
    chosen |= ShardMask{1} << i;
    rows[n] = i;
    from[n++] = shards[i];
  }
  std::array<uint8_t*, kShardsMax> to;
  uint32_t outputs = 0;
  for (uint32_t i = 0; i < k_ + m_; ++i) {
    if (wanted >> i & 1) to[outputs++] = shards[i];
  }

  std::shared_ptr<const DecodeTable> table;
  {
    const std::lock_guard lock(tables_->mutex);
    if (const auto found = tables_->decode.find({chosen, wanted}); found != tables_->decode.end()) table = found->second;
  }
  if (!table) {
    std::vector<uint8_t> survivors(static_cast<size_t>(k_) * k_), inverse(static_cast<size_t>(k_) * k_);
    for (uint32_t n = 0; n < k_; ++n) {
      std::memcpy(survivors.data() + n * k_, tables_->matrix.data() + static_cast<size_t>(rows[n]) * k_, k_);
    }
    // Every square submatrix of a Cauchy matrix over the identity is regular.
    CHECK(gf_invert_matrix(survivors.data(), inverse.data(), static_cast<int>(k_)) == 0);
    std::vector<uint8_t> decode(static_cast<size_t>(outputs) * k_);
    uint32_t out = 0;
    for (uint32_t i = 0; i < k_ + m_; ++i) {
      if ((wanted >> i & 1) == 0) continue;
      // Row i of the code times the inverse: shard i as a combination of the survivors (for data it is row i of the inverse).
      for (uint32_t column = 0; column < k_; ++column) {
        uint8_t sum = 0;
        for (uint32_t j = 0; j < k_; ++j) sum ^= gf_mul(tables_->matrix[static_cast<size_t>(i) * k_ + j], inverse[j * k_ + column]);
        decode[static_cast<size_t>(out) * k_ + column] = sum;
      }
      ++out;
    }
    auto built = std::make_shared<DecodeTable>();
    built->expanded.resize(static_cast<size_t>(outputs) * k_ * kTableBytes);
    ec_init_tables(static_cast<int>(k_), static_cast<int>(outputs), decode.data(), built->expanded.data());
    table = std::move(built);
    const std::lock_guard lock(tables_->mutex);
    if (tables_->decode.size() >= kDecodeTablesMax) tables_->decode.erase(tables_->decode.begin());
    tables_->decode.emplace(std::pair{chosen, wanted}, table);
  }
  multiply(shard_bytes, k_, outputs, table->expanded.data(), from.data(), to.data());
  return {};
}

}  // namespace quarry
