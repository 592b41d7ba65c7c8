// DriveLabel: the small copy, on every drive, of what must be known before the metadata can be read: whose drive it is, which drives may
// hold the newest metadata, in how many copies, and the master key. Page: docs/formats/drive-label.md.
// The label with the highest epoch counts. Who changes the list writes it to every drive that is present, durably, before relying on it.
#pragma once
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace quarry::cluster {

inline constexpr size_t kMasterKeySize = 32;

struct LabelDrive {
  uint32_t number = 0;
  Uuid id;
  std::string domain;
  std::string path;  // a hint for messages
  bool operator==(const LabelDrive&) const = default;
};

struct DriveLabel {
  Uuid cluster;
  uint32_t number = 0;             // of the drive that carries it
  uint64_t epoch = 0;              // of the label
  uint32_t metadata_copies = 1;    // m + 1
  std::string master_key;          // kMasterKeySize bytes, plain: who holds the drives holds the data (docs/formats/drive-label.md)
  std::vector<LabelDrive> drives;  // may hold needed metadata
  bool operator==(const DriveLabel&) const = default;

  std::string encode() const;
  // Errors: corrupt (checksum or structure), incompatible (newer version).
  static Result<DriveLabel> decode(std::string_view bytes);
};

}  // namespace quarry::cluster
