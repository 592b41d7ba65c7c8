// SuperblockSet: the copies of superblock and label on a device: finding them, agreeing on one, writing the next.
//
// Agreement: copies are grouped by content. Of the drive that most valid copies name, the newest sequence wins that
//   - at least two copies agree on, or
//   - one copy holds whose predecessor's checksum matches a survivor of the sequence before (an update that was cut short), or
//   - one copy holds while no other sequence survives at all.
// Otherwise the next older sequence is tried. Confined to its loop.
#pragma once
#include "chunk/raw/geometry.h"
#include "io/block_device.h"

namespace quarry::chunk::raw {

struct SuperblockCopy {
  uint64_t zone = 0;
  uint32_t identity = 0;
  Superblock superblock;
};
// Index of a copy that holds the agreed superblock, or nothing.
std::optional<size_t> agree(const std::vector<SuperblockCopy>& copies);

// Whether a raw store can live on the device: each of its blocks is written by itself, so no sector may hold two.
Result<void> check_sectors(const DeviceInfo& info);

class SuperblockSet {
 public:
  // Errors: not_found (no copy at all), incompatible (newer format, sectors too large), corrupt (copies, but no agreement), io_error,
  // device_gone.
  static Task<Result<SuperblockSet>> load(BlockDevice& device);
  // A new set: wipes all places where an older format may have superblocks, then writes both.
  static Task<Result<SuperblockSet>> create(BlockDevice& device, Superblock superblock, std::string label);

  const Superblock& superblock() const { return superblock_; }
  const std::string& label() const { return label_.text; }
  // Of superblock and label, found at load: bad, missing, or old where newer ones exist.
  uint32_t damaged_copies() const { return damaged_; }
  bool label_lost() const { return label_lost_; }

  // Whether nobody else has written a superblock since this set did. All zones are asked: two suffice for an update, so an old copy in one,
  // or in all but two, says nothing. Where no copy can be read: true. Errors: device_gone.
  Task<Result<bool>> is_newest(BlockDevice& device) const;
  // Writes the superblock with the next sequence to all zones; durable when it returns. Bad zones are passed over as long as two good
  // ones remain. Errors: io_error, device_gone, read_only: then it may be in some zones all the same.
  Task<Result<void>> update(BlockDevice& device, Superblock next);
  Task<Result<void>> set_label(BlockDevice& device, std::string text);

 private:
  Superblock superblock_;
  uint32_t identity_ = 0;
  std::vector<uint32_t> failed_;  // identities of updates that failed: they may be in some zones, and are nobody else's
  Label label_;
  uint32_t damaged_ = 0;
  bool label_lost_ = false;
  Task<Result<void>> load_label(BlockDevice& device);
};

}  // namespace quarry::chunk::raw
