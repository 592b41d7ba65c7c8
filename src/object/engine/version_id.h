// Version ids as clients see them: 32 hex digits, the inverted sequence and then the write's random number, so that ids sort
// newest first, as AWS lists; "null" for versions made without versioning.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "object/engine/keys.h"

namespace quarry::object {

struct VersionId {
  bool null = false;
  Sequence sequence = 0;
  uint64_t unique = 0;
  bool operator==(const VersionId&) const = default;
};

std::string to_text(const VersionId& id);
// Errors: invalid_argument ("version id ...").
Result<VersionId> parse_version_id(std::string_view text);

// Upload ids: 32 hex digits of time of initiation (so that ids of one key sort by it, as S3 lists) and a random number.
UploadId make_upload_id(Sequence time, uint64_t unique);
std::string upload_id_text(std::string_view upload_id);
// Errors: not_found ("upload ..."): an id that we never gave out names nothing.
Result<UploadId> parse_upload_id(std::string_view text);

}  // namespace quarry::object
