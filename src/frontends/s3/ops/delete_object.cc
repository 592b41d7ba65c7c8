#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"

namespace quarry::frontends::s3 {

// Deleting what is not there succeeds, as S3 has it.
Task<S3Result<void>> delete_object(Request& request) {
  object::DeleteTarget target;
  target.key = request.key;
  target.version_id = request.version_id();
  CO_TRY_ASSIGN(target.conditions, parse_delete_conditions(request));
  const bool conditional = !target.conditions.empty();
  auto done = co_await request.services.objects.remove(request.ctx, request.bucket, std::move(target));
  ResponseHead response = request.answer(204);
  if (!done) {
    const Error& error = done.error();
    const bool no_key = error.code() == Code::not_found && !error.context().starts_with("bucket");
    S3Error answer = request.error(error);
    if ((!no_key && answer.id() != E::no_such_version) || conditional) co_return answer;
    add_version_header(response, request, request.version_id());
    co_return co_await request.respond(std::move(response));
  }
  if (done->delete_marker) response.headers.add("x-amz-delete-marker", "true");
  if (done->delete_marker && done->version_id == "null") {
    response.headers.add("x-amz-version-id", done->version_id);  // a marker in a bucket whose versioning is suspended
  } else {
    add_version_header(response, request, done->version_id);
  }
  co_return co_await request.respond(std::move(response));
}

}  // namespace quarry::frontends::s3
