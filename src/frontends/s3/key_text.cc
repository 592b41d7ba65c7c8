#include "frontends/s3/key_text.h"

#include "base/utf8.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/routes.h"

namespace quarry::frontends::s3 {
namespace {

using Run = decltype(Operation::run);

bool is_one_of(Run run, std::initializer_list<Run> some) { return std::ranges::find(some, run) != some.end(); }

struct OldName {
  std::string text;
  bool whole = false;  // a key; else where names begin
};

// Whether something in the bucket, a version or an upload, has this name.
Task<S3Result<bool>> is_taken(Request& request, OldName name) {
  const auto fits = [&](const std::string& key) { return !name.whole || key == name.text; };
  object::VersionListOptions versions;
  versions.prefix = name.text;
  versions.limit = 1;  // the name itself comes before all that begin with it
  auto listed = co_await request.services.objects.list_versions(request.ctx, request.bucket, versions);
  if (!listed) co_return request.error(listed.error());
  if (!listed->versions.empty() && fits(listed->versions[0].key)) co_return true;
  object::UploadListOptions uploads;
  uploads.prefix = name.text;
  uploads.limit = 1;
  auto open = co_await request.services.objects.list_uploads(request.ctx, request.bucket, uploads);
  if (!open) co_return request.error(open.error());
  co_return !open->uploads.empty() && fits(open->uploads[0].key);
}

}  // namespace

Task<S3Result<void>> check_text(Request& request) {
  const Run run = request.operation->run;
  std::vector<OldName> of_old;
  if (!is_utf8(request.key)) {
    if (!is_one_of(run, {get_object, head_object, delete_object, abort_multipart_upload})) co_return S3Error(E::invalid_uri);
    of_old.push_back({.text = request.key, .whole = true});
  }
  const bool lists = is_one_of(run, {list_objects, list_objects_v2, list_object_versions, list_multipart_uploads});
  for (const auto& parameter : request.head.query) {
    if (is_utf8(parameter.name) && is_utf8(parameter.value)) continue;
    const std::string_view name = parameter.name;
    const bool place = name == "prefix" || name == "marker" || name == "key-marker" || name == "start-after";
    if (!lists || !place) co_return S3Error(E::invalid_uri);
    of_old.push_back({.text = parameter.value});
  }
  for (const auto& name : of_old) {
    auto taken = co_await is_taken(request, name);
    if (!taken) co_return std::move(taken).error();
    if (!*taken) co_return S3Error(E::invalid_uri);
  }
  co_return S3Result<void>();
}

}  // namespace quarry::frontends::s3
