// Prints what the cluster keeps on a drive besides object data, for `quarry device inspect`: the label, and the frames, checkpoint files
// and roots of the metadata log. The master key in the label is left out.
#pragma once
#include <string>

#include "chunk/chunk_store.h"

namespace quarry::cluster {

// As JSON text. The store may be open read-only; nothing is changed. What cannot be read or decoded is printed as the error it gives.
// Errors: device_gone, io_error (the drive cannot list its chunks).
Task<Result<std::string>> inspect_metadata(chunk::ChunkStore& store);

}  // namespace quarry::cluster
