// Roots of the metadata log: what says, after a start, which frames and files on the drives are the metadata. Private to the log, to
// who needs to know of its epochs, and to `quarry inspect`. Layout and rules: docs/formats/metadata-copies.md; reasons:
// docs/decisions/0010-lineage.md.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "meta/commit_log.h"

namespace quarry::cluster {

inline constexpr uint32_t kSequencePrepared = 0, kSequenceEstablished = 1, kSequenceFirstCheckpoint = 2;
// After a loss that an operator accepted, drives may come back with epochs that nobody here has seen. Fewer starts than this lie between.
inline constexpr uint64_t kEpochsSkippedAfterLoss = 1000;
inline constexpr uint16_t kRootVersion = 2;
inline constexpr uint16_t kRootVersionWithoutLine = 1;  // of earlier programs: read, never written

// The frames from `first` on, to the next stretch, are those of this epoch.
struct Stretch {
  uint64_t epoch = 0;
  meta::FrameNumber first = 0;
  bool operator==(const Stretch&) const = default;
};

struct Root {
  uint16_t version = kRootVersion;
  uint64_t epoch = 0;
  uint32_t sequence = 0;
  meta::FrameNumber first = 0;                       // of the epoch
  std::optional<meta::CheckpointManifest> manifest;  // none: everything is in frames
  // What the epoch recovered from: the stretches of the frames before `first` that the manifest does not contain, oldest first. Together
  // with the manifest the root so names all it needs; other roots have no say.
  std::vector<Stretch> line;
  meta::FrameNumber base() const { return manifest ? manifest->frame : 0; }
};

std::string encode_root(const Root& root);  // in kRootVersion
Result<Root> decode_root(ByteView bytes, uint64_t epoch, uint32_t sequence);

}  // namespace quarry::cluster
