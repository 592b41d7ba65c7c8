// copy_object, copy_part: server-side copies, expressed as a read and a write. The bytes go through this process once, in pieces;
// the copy is checked by its own digests like any body.
#pragma once
#include "object/object_engine.h"

namespace quarry::object {

struct CopySource {
  std::string bucket, key;
  std::string version_id;        // empty: the current version
  Conditions conditions;         // of the source (x-amz-copy-source-if-*)
  std::optional<std::pair<uint64_t, uint64_t>> range;  // offset, length; copy_part only: the whole object otherwise
};

struct CopyOptions {
  PutOptions put;                // of the new object; metadata and tags count where they are to be replaced
  bool replace_metadata = false; // x-amz-metadata-directive: REPLACE
  bool replace_tags = false;     // x-amz-tagging-directive: REPLACE
  // put.checksum none: the algorithm of the source, if it has one.
};

struct CopyResult {
  ObjectInfo source;
  ObjectInfo object;  // copy_object
  PartInfo part;      // copy_part
};

// Errors: those of get and put; precondition_failed (a condition of the source does not hold), out_of_range (the range).
Task<Result<CopyResult>> copy_object(ObjectEngine& engine, RequestContext ctx, CopySource source, std::string bucket, std::string key, CopyOptions options);
Task<Result<CopyResult>> copy_part(ObjectEngine& engine, RequestContext ctx, CopySource source, std::string bucket, std::string key, std::string upload_id,
                                   uint32_t number, PutOptions options);

}  // namespace quarry::object
