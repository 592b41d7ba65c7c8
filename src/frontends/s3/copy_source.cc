#include "frontends/s3/copy_source.h"

#include "base/utf8.h"
#include "frontends/s3/session.h"
#include "wire/uri.h"

namespace quarry::frontends::s3 {

S3Result<CopySource> parse_copy_source(std::string_view header) {
  std::string_view text = header;
  CopySource source;
  // A '?' of the key itself is sent as %3F.
  const size_t question = text.find("?versionId=");
  if (question != std::string_view::npos) {
    auto version = percent_decode(text.substr(question + 11));
    if (!version) return invalid_argument("Invalid copy source encoding", "x-amz-copy-source", header);
    source.version_id = std::move(*version);
    text = text.substr(0, question);
  }
  // A '+' is a space, as in forms: Java's URLEncoder writes it so. One of the key is sent as %2B.
  auto decoded = percent_decode(text, PlusSign::is_space);
  if (!decoded || !is_utf8(*decoded)) return invalid_argument("Invalid copy source encoding", "x-amz-copy-source", header);
  std::string_view path = *decoded;
  if (const size_t encoded = path.find("?versionId="); source.version_id.empty() && encoded != std::string_view::npos) {
    // Some SDKs encode the separator too.
    source.version_id = path.substr(encoded + 11);
    path = path.substr(0, encoded);
  }
  if (path.starts_with('/')) path.remove_prefix(1);
  const size_t slash = path.find('/');
  source.bucket = path.substr(0, slash);
  if (!is_valid_bucket_name(source.bucket)) return invalid_argument("Invalid copy source bucket name", "x-amz-copy-source", source.bucket);
  if (slash != std::string_view::npos) source.key = path.substr(slash + 1);
  if (source.key.empty() || source.key.size() > object::kObjectKeyMax || escapes_bucket(source.key)) {
    return invalid_argument("Invalid copy source object key", "x-amz-copy-source", source.key);
  }
  return source;
}

Task<S3Result<std::unique_ptr<object::ObjectReader>>> open_copy_source(Request& request, CopySource source) {
  auto access = co_await check_access(request, source.bucket);
  if (!access) co_return std::move(access).error();
  auto reader = co_await request.services.objects.get(request.ctx, source.bucket, source.key, source.version_id);
  if (!reader) co_return to_s3_error(reader.error(), {.bucket = source.bucket, .key = source.key, .version_id = source.version_id});
  const object::ObjectInfo& info = (*reader)->info();
  if (info.delete_marker)
    co_return S3Error(E::invalid_request, "The source of a copy request may not specifically refer to a delete marker by version id.");
  const object::Conditions conditions = parse_read_conditions(request, "x-amz-copy-source-");
  if (!conditions.empty() && object::evaluate_read_conditions(conditions, info) != object::ConditionOutcome::pass) {
    co_return precondition_failed(conditions, info);
  }
  co_return std::move(*reader);
}

Task<Result<void>> copy_bytes(object::ObjectReader& reader, object::ObjectWriter& writer, size_t piece_bytes) {
  for (;;) {
    CO_TRY_ASSIGN(SharedBytes piece, co_await reader.next(piece_bytes));
    if (piece.empty()) co_return Result<void>();
    CO_TRY(co_await writer.write(Buffer::copy_of(piece)));
  }
}

}  // namespace quarry::frontends::s3
