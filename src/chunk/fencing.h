// Fencing epochs: which node a drive belongs to where no lock tells (two machines that see one drive, a guest's disk given to two guests).
//
// Each open for writing raises the epoch that the drive carries, and remembers what it wrote. A store that finds another one there is not
// the drive's owner any more: it writes nothing further and answers device_gone. When a store looks is said by each (raw/owner.cc;
// check_health of all). The low bits are random, so that two that open at once do not draw the same epoch.
#pragma once
#include <cstdint>
#include <string_view>

namespace quarry::chunk {

// In the sentence of that error, whose reason is `taken`. Who opens drives again by himself must not open this one: two nodes would take it
// from each other in turn. An operator may (`quarry device enable`).
inline constexpr std::string_view kTakenByAnother = "another node has opened this drive";

inline constexpr uint32_t kFencingRandomBits = 20;
constexpr uint64_t next_fencing_epoch(uint64_t present, uint64_t random) {
  constexpr uint64_t kOne = 1ull << kFencingRandomBits;
  return (present / kOne + 1) * kOne + random % kOne;
}

}  // namespace quarry::chunk
