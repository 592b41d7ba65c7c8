// DataWriter: one write of the data plane in progress (DataPlane::begin_write, FileService::adopt).
#pragma once
#include "base/bytes.h"
#include "base/result.h"
#include "cluster/map/data_layout.h"
#include "io/task.h"

namespace quarry::cluster {

// One write in progress; used by one task at a time, on one executor.
class DataWriter {
 public:
  virtual ~DataWriter() = default;  // an unfinished or uncommitted write is removed in the background
  // Hands over the next bytes, any size > 0. Returns when they are accepted: encoding and device writes of earlier stripes overlap
  // with later appends, bounded by the plane's write memory (back-pressure is the await). Errors: no_space, unavailable.
  virtual Task<Result<void>> append(Buffer data) = 0;
  // Everything durable on enough drives. Errors: unavailable (too few drives to promise one loss when m > 0), no_space.
  virtual Task<Result<DataLayout>> finish() = 0;
  // The layout was committed (record() in a committed transaction): keep it. Without this call the data is removed.
  virtual void keep() = 0;
  // The commit's outcome is unknown: decide by looking for the data row, in the background.
  virtual void settle() = 0;
};

}  // namespace quarry::cluster
