// CommitLog: where an embedded metadata store makes its commits durable and keeps its checkpoints, so that the store's own
// files are only a cache that can be lost. The cluster layer implements it over the drives (cluster/metadata_log.h) at the
// redundancy of the profile; tests use the in-memory one (meta/memory_commit_log.h).
//
// The log is a sequence of frames 1, 2, 3, ... without gaps. A checkpoint is a set of named immutable files that together hold
// the effect of all frames up to some number; once a checkpoint is durable, those frames may be trimmed.
// Confined to the executor that opened it.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "io/task.h"

namespace quarry::meta {

using FrameNumber = uint64_t;
inline constexpr size_t kFrameSizeMax = 8u << 20;

struct CheckpointFile {
  std::string name;  // unique among all files ever stored under this log (e.g. "000123.sst")
  uint64_t size = 0;
  uint64_t handle = 0;  // chosen by the log when the file was stored
};

struct CheckpointManifest {
  FrameNumber frame = 0;  // all frames <= this are contained
  std::vector<CheckpointFile> files;
  std::string extra;  // backend's own data
};

class CommitLog {
 public:
  virtual ~CommitLog() = default;

  // Frames are appended strictly in order, several may be in flight; each is durable (at full redundancy), as are all before it, when its
  // append returns. After an error the frame may be found at recovery; nothing later becomes durable until the same frame, with the same
  // bytes, was appended again with success, which may be tried as often as one likes (each frame for
  // itself: an append may wait for one before it to be tried again). Errors: unavailable (too few drives), no_space.
  virtual Task<Result<void>> append(FrameNumber number, std::vector<ByteView> parts) = 0;

  // Recovery, before any append: the number of the last whole frame, and each frame's bytes. Frames after the newest
  // checkpoint's are contiguous. Errors: corrupt / data_lost if a frame before the last valid one cannot be read.
  virtual FrameNumber last_frame() const = 0;
  virtual Task<Result<Buffer>> read(FrameNumber number) = 0;

  // Stores a file at the redundancy of the profile; durable when it returns. `read_piece(offset, length)` gives its bytes.
  using ReadPiece = std::function<Result<Buffer>(uint64_t offset, size_t length)>;  // may block; called on a blocking pool
  virtual Task<Result<CheckpointFile>> store_file(std::string name, uint64_t size, ReadPiece read_piece) = 0;
  virtual Task<Result<Buffer>> read_file(const CheckpointFile& file, uint64_t offset, size_t length) = 0;

  // Publishes a checkpoint atomically and durably; then frees frames <= manifest.frame and files that it does not name.
  virtual Task<Result<void>> publish_checkpoint(CheckpointManifest manifest) = 0;
  virtual Result<std::optional<CheckpointManifest>> checkpoint() const = 0;  // newest published
};

}  // namespace quarry::meta
