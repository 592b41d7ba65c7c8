// Reed-Solomon erasure code over GF(2^8), polynomial 0x11d, systematic, with a Cauchy matrix: docs/formats/stripe.md, section 1.
// Shards 0..k-1 are the data as it is, shards k..k+m-1 are parity. Any k shards rebuild all others.
// The matrix is part of the on-disk format: it never changes for a given (k, m).
#pragma once
#include <bit>
#include <cstdint>
#include <memory>
#include <span>

#include "base/bytes.h"
#include "base/result.h"

namespace quarry {

// Bit i stands for shard i of a stripe.
using ShardMask = uint32_t;

inline constexpr uint32_t kShardsMax = 32;

// Immutable after construction; any thread.
class ErasureCode {
 public:
  // The shared code for k data and m parity shards; tables are computed once per (k, m) and kept for ever (at most 528 of them).
  // Errors: invalid_argument (k < 1 or k + m > 32).
  static Result<std::shared_ptr<const ErasureCode>> get(uint32_t data_shards, uint32_t parity_shards);
  ~ErasureCode();
  ErasureCode(const ErasureCode&) = delete;

  uint32_t data_shards() const { return k_; }
  uint32_t parity_shards() const { return m_; }
  uint32_t total_shards() const { return k_ + m_; }
  ShardMask all() const { return static_cast<ShardMask>((uint64_t{1} << (k_ + m_)) - 1); }

  // Computes all parity shards.
  //   data:   k pointers to shard_bytes readable bytes each; the same memory may appear more than once
  //   parity: m pointers to shard_bytes writable bytes each; distinct from data and from each other
  // Any length (0 included) and any alignment; 64-byte aligned memory is fastest. Pure.
  void encode(std::span<const uint8_t* const> data, std::span<uint8_t* const> parity, size_t shard_bytes) const;

  // Rebuilds the wanted shards, data or parity, from k of the present ones.
  //   shards:  k + m pointers; shards[i] is read if bit i of present is set (and it is among the k chosen), written if bit i of
  //            wanted is set, else not touched and may be null
  //   present: valid shards; with more than k, data shards are preferred, then the lowest parity
  //   wanted:  disjoint from present
  // Pure; does not verify the present shards. Decode tables are cached (at most kDecodeTablesMax per code, thread-safe).
  // Errors: data_lost (fewer than k present), invalid_argument (masks overlap or name shards that do not exist).
  Result<void> reconstruct(std::span<uint8_t* const> shards, size_t shard_bytes, ShardMask present, ShardMask wanted) const;

  // Row r (0..m-1) and column c (0..k-1) of the parity part of the matrix. For inspection and tests.
  uint8_t coefficient(uint32_t row, uint32_t column) const;

  static constexpr size_t kDecodeTablesMax = 256;
  // What a loop codes of each shard between two looks at its pace: results may go to memory that is touched for the first time, and a
  // huge page of it costs milliseconds.
  static constexpr size_t kRunMax = 64 * kKiB;

 private:
  ErasureCode(uint32_t k, uint32_t m);
  struct Tables;
  uint32_t k_, m_;
  std::unique_ptr<Tables> tables_;
};

}  // namespace quarry
