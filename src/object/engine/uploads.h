// Parts of an upload, shared by the files about multipart uploads.
#pragma once
#include "object/engine/engine.h"
#include "object/engine/row_stream.h"

namespace quarry::object {

// All parts of an upload, in order of their numbers; their rows become conflicts of the transaction.
Task<Result<std::vector<PartRecord>>> scan_parts(meta::Transaction& transaction, UploadId upload_id);

}  // namespace quarry::object
