#include "object/engine/version_id.h"

namespace quarry::object {

std::string to_text(const VersionId& id) {
  if (id.null) return "null";
  return fmt::format("{:016x}{:016x}", ~id.sequence, id.unique);
}

Result<VersionId> parse_version_id(std::string_view text) {
  if (text == "null") return VersionId{.null = true};
  const auto raw = from_hex(text);
  if (!raw || raw->size() != 16 || std::any_of(text.begin(), text.end(), [](char c) { return c >= 'A' && c <= 'F'; })) {
    return fail(Code::invalid_argument, "version id '{}' is not one of ours", text.substr(0, 64));
  }
  Decoder in{std::string_view(*raw)};
  VersionId id;
  id.sequence = ~in.key_u64();
  id.unique = in.key_u64();
  return id;
}

UploadId make_upload_id(Sequence time, uint64_t unique) {
  UploadId id;
  Encoder(id).key_u64(time).key_u64(unique);
  return id;
}

std::string upload_id_text(std::string_view upload_id) { return to_hex(bytes_of(upload_id)); }

Result<UploadId> parse_upload_id(std::string_view text) {
  auto raw = from_hex(text);
  if (!raw || raw->size() != kUploadIdBytes) return fail(Code::not_found, "upload '{}'", text.substr(0, 64));
  return std::move(*raw);
}

}  // namespace quarry::object
