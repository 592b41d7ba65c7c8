// GET and HEAD of an object: conditions, ranges, part numbers, overridden headers, checksums.
#include "base/log.h"

#include "frontends/s3/checksum_headers.h"
#include "frontends/s3/header_text.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/part_number.h"

namespace quarry::frontends::s3 {
namespace {

struct Override {
  std::string_view query, header;
};
constexpr Override kOverrides[] = {{"response-content-type", "Content-Type"},
                                   {"response-content-language", "Content-Language"},
                                   {"response-expires", "Expires"},
                                   {"response-cache-control", "Cache-Control"},
                                   {"response-content-disposition", "Content-Disposition"},
                                   {"response-content-encoding", "Content-Encoding"}};

bool has_overrides(const Request& request) {
  return std::ranges::any_of(request.head.query, [](const QueryParameter& parameter) { return parameter.name.starts_with("response-"); });
}

S3Result<void> apply_overrides(const Request& request, object::ObjectMetadata& metadata) {
  std::string* const fields[] = {&metadata.content_type,  &metadata.content_language,    &metadata.expires,
                                 &metadata.cache_control, &metadata.content_disposition, &metadata.content_encoding};
  for (size_t i = 0; i < std::size(kOverrides); ++i) {
    const std::string_view value = request.query_or(kOverrides[i].query);
    if (value.empty()) continue;
    TRY_ASSIGN(*fields[i], header_value_of(kOverrides[i].query, value));
  }
  return {};
}

// What is wrong whatever the object.
S3Result<void> check_query(const Request& request) {
  if (!request.has_query("partNumber")) return {};
  if (request.header("range")) return S3Error(E::invalid_request, "Cannot specify both Range header and partNumber query parameter");
  TRY(parse_part_number(request));
  return {};
}

// What part of the object to send, and how to say so.
struct Selection {
  ByteRange range;
  int status = 200;
  size_t parts_count = 0;                    // for x-amz-mp-parts-count; 0: not said
  std::optional<object::Checksum> checksum;  // of exactly these bytes
  size_t checksum_parts = 0;
  std::optional<object::ChecksumType> checksum_type;  // to tell, where it is not the checksum's own
};

S3Result<Selection> select_part(const object::ObjectInfo& info, uint32_t number) {
  Selection selection;
  const size_t count = std::max<size_t>(info.parts.size(), 1);
  if (number > count) {
    return S3Error(E::invalid_part_number)
        .detail("ActualPartCount", std::to_string(count))
        .detail("PartNumberRequested", std::to_string(number));
  }
  if (info.parts.empty()) {
    selection.range = {0, info.size};
    selection.status = info.size > 0 ? 206 : 200;
    selection.checksum = info.checksum;
    return selection;
  }
  for (size_t i = 0; i + 1 < number; ++i) selection.range.offset += info.parts[i].size;
  selection.range.length = info.parts[number - 1].size;
  selection.status = selection.range.length > 0 ? 206 : 200;  // no Content-Range can say "nothing"
  selection.parts_count = info.parts.size();
  if (info.checksum.type == object::ChecksumType::composite) {
    selection.checksum = info.parts[number - 1].checksum;
    selection.checksum_type = info.checksum.type;  // what the upload was created with, without the "-N" of the whole
  } else if (info.parts.size() == 1) {
    selection.checksum = info.checksum;
  }
  return selection;
}

S3Result<Selection> select_range(const Request& request, const object::ObjectInfo& info) {
  Selection selection;
  selection.range = {0, info.size};
  selection.checksum = info.checksum;
  selection.checksum_parts = info.parts.size();
  const auto header = request.header("range");
  if (!header || !range_applies(request, info)) return selection;
  const ParsedRange parsed = parse_range(*header, info.size);
  if (parsed.kind == RangeKind::whole) return selection;
  if (parsed.kind == RangeKind::unsatisfiable) {
    S3Error error =
        S3Error(E::invalid_range).detail("RangeRequested", std::string(*header)).detail("ActualObjectSize", std::to_string(info.size));
    error.headers.emplace_back("Content-Range", fmt::format("bytes */{}", info.size));
    return error;
  }
  selection.range = parsed.range;
  selection.status = 206;
  if (parsed.range.length != info.size) selection.checksum.reset();
  return selection;
}

S3Error not_found_error(const Request& request, const Error& error) {
  S3Error answer = request.error(error);
  constexpr std::string_view kMarker = "delete marker";
  if (const size_t at = error.context().find(kMarker); error.code() == Code::not_found && at != std::string::npos) {
    answer.headers.emplace_back("x-amz-delete-marker", "true");
    const std::string version = error.context().substr(at + kMarker.size());
    const size_t first = version.find_first_not_of(' ');
    if (first != std::string::npos) answer.headers.emplace_back("x-amz-version-id", version.substr(first));
  }
  return answer;
}

// The version asked for by id is a delete marker: 405, with when it was made.
S3Error marker_asked_for(const object::ObjectInfo& info) {
  S3Error error(E::method_not_allowed);
  error.headers.emplace_back("x-amz-delete-marker", "true");
  error.headers.emplace_back("x-amz-version-id", info.version_id);
  error.headers.emplace_back("Last-Modified", http_time(info.modified));
  error.headers.emplace_back("Allow", "DELETE");
  return error;
}

// Everything but the bytes. info outlives the task. nullopt: answered already (304).
Task<S3Result<std::optional<Selection>>> prepare(Request& request, const object::ObjectInfo& info, ResponseHead* response) {
  if (info.delete_marker) co_return marker_asked_for(info);
  const object::Conditions conditions = parse_read_conditions(request);
  if (!conditions.empty()) {
    switch (object::evaluate_read_conditions(conditions, info)) {
      case object::ConditionOutcome::pass: break;
      case object::ConditionOutcome::failed: co_return precondition_failed(conditions, info);
      case object::ConditionOutcome::not_modified: {
        ResponseHead unchanged = request.answer(304);
        unchanged.headers.add("ETag", quoted_etag(info.etag));
        unchanged.headers.add("Last-Modified", http_time(info.modified));
        add_version_header(unchanged, request, info.version_id);
        auto sent = co_await request.respond(std::move(unchanged));
        if (!sent) co_return std::move(sent).error();
        co_return std::optional<Selection>();
      }
    }
  }

  Selection selection;
  if (request.has_query("partNumber")) {
    CO_TRY_ASSIGN(const uint32_t number, parse_part_number(request));
    CO_TRY_ASSIGN(selection, select_part(info, number));
  } else {
    CO_TRY_ASSIGN(selection, select_range(request, info));
  }

  *response = request.answer(selection.status);
  if (has_overrides(request)) {
    object::ObjectMetadata overridden = info.metadata;
    CO_TRY(apply_overrides(request, overridden));
    add_object_headers(*response, info, overridden);
  } else {
    add_object_headers(*response, info, info.metadata);
  }
  add_version_header(*response, request, info.version_id);
  if (selection.parts_count > 0) response->headers.add("x-amz-mp-parts-count", selection.parts_count);
  if (selection.status == 206) {
    response->headers.add("Content-Range", fmt::format("bytes {}-{}/{}", selection.range.offset,
                                                       selection.range.offset + selection.range.length - 1, info.size));
  }
  if (selection.checksum && equal_ignoring_case(request.header_or("x-amz-checksum-mode"), "ENABLED")) {
    add_checksum_headers(*response, *selection.checksum, selection.checksum_parts, selection.checksum_type);
  }
  response->content_length = selection.range.length;
  co_return std::optional<Selection>(selection);
}

// Sends the bytes. What goes wrong after the head can only be shown by cutting the connection.
Task<void> send_bytes(Request& request, object::ObjectReader& reader, ResponseHead response, ByteRange range) {
  ResponseWriter& out = request.exchange.response;
  const size_t piece_bytes = request.services.options.transfer_buffer_bytes;
  uint64_t left = range.length;
  auto first = co_await reader.next(std::min<uint64_t>(left, piece_bytes));
  if (!first || first->empty()) {
    // Nothing was sent yet: a clean error.
    request.failed = true;
    const S3Error error = first ? S3Error(E::internal_error) : request.error(first.error());
    LOG_WARNING("object cannot be read", {"request", request.request_id}, {"bucket", request.bucket}, {"key", request.key},
                {"error", first ? "it is shorter than its record says" : first.error().to_string()});
    ResponseHead failed = request.answer(error.status());
    failed.headers.add("Content-Type", "application/xml");
    auto sent = co_await out.respond(std::move(failed), error_document(error, request.head.raw_path, request.request_id, request.host_id));
    std::move(sent).ignore("the client is gone");
    co_return;
  }
  auto head_sent = co_await out.send_head(std::move(response));
  if (!head_sent) co_return;
  SharedBytes piece = std::move(*first);
  for (;;) {
    if (piece.size() > left) piece = piece.slice(0, left);
    left -= piece.size();
    const size_t size = piece.size();
    auto written = co_await out.write(std::move(piece));
    if (!written) co_return;
    request.bytes_sent += size;
    if (left == 0) break;
    auto next = co_await reader.next(std::min<uint64_t>(left, piece_bytes));
    if (!next || next->empty()) {
      LOG_WARNING("object broke off while being sent", {"request", request.request_id}, {"bucket", request.bucket}, {"key", request.key},
                  {"error", next ? "it is shorter than its record says" : next.error().to_string()});
      request.failed = true;
      out.abort();
      co_return;
    }
    piece = std::move(*next);
  }
  auto finished = co_await out.finish();
  std::move(finished).ignore("the client is gone");
}

}  // namespace

Task<S3Result<void>> get_object(Request& request) {
  CO_TRY(check_query(request));
  auto reader = co_await request.services.objects.get(request.ctx, request.bucket, request.key, request.version_id());
  if (!reader) co_return not_found_error(request, reader.error());
  ResponseHead response;
  auto selection = co_await prepare(request, (*reader)->info(), &response);
  if (!selection) co_return std::move(selection).error();
  if (!selection->has_value()) co_return S3Result<void>();
  const ByteRange range = (*selection)->range;
  if (range.length == 0) co_return co_await request.respond(std::move(response));
  (*reader)->set_range(range.offset, range.length);
  co_await send_bytes(request, **reader, std::move(response), range);
  co_return S3Result<void>();
}

Task<S3Result<void>> head_object(Request& request) {
  CO_TRY(check_query(request));
  auto info = co_await request.services.objects.head(request.ctx, request.bucket, request.key, request.version_id());
  if (!info) co_return not_found_error(request, info.error());
  ResponseHead response;
  auto selection = co_await prepare(request, *info, &response);
  if (!selection) co_return std::move(selection).error();
  if (!selection->has_value()) co_return S3Result<void>();
  co_return co_await request.respond(std::move(response));
}

}  // namespace quarry::frontends::s3
