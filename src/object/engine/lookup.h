// look_up: one version and what a reader of it needs, in one trip to the metadata store where that is possible.
#pragma once
#include "object/engine/engine.h"

namespace quarry::object {

struct Found {
  BucketRef bucket;
  VersionRecord record;
  bool is_latest = true;
  SharedBytes payload;            // of an inline object, if asked for
  std::vector<PartRecord> parts;  // of a multipart object

  // What holds its bytes, for ReadGuard::narrow.
  std::vector<cluster::WriteId> writes() const {
    std::vector<cluster::WriteId> ids;
    if (record.layout) ids.push_back(record.layout->write_id);
    for (const auto& part : parts) {
      if (part.layout && (ids.empty() || ids.back() != part.layout->write_id)) ids.push_back(part.layout->write_id);
    }
    return ids;
  }
};

// version_id empty: the current version. What comes back belongs together: rows of two versions are never mixed.
// Errors: not_found ("bucket", "key", "version", "delete marker ID"), invalid_argument (version id), busy, corrupt.
Task<Result<Found>> look_up(Engine& engine, std::string bucket, std::string key, std::string version_id, bool with_payload);

}  // namespace quarry::object
