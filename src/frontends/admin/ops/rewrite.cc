// POST /v1/buckets/NAME/rewrite {"prefix","key_marker","version_marker","limit"}: one step of bringing the objects of a bucket to its
// redundancy. The caller repeats it with the markers of the answer until "done"; each step stands alone, so it can stop anywhere and begin
// again: what has the redundancy is passed over. Keys and markers are percent-encoded, as they may be any bytes.
#include "frontends/admin/admin_server.h"
#include "wire/uri.h"

namespace quarry::frontends::admin {
namespace {

constexpr size_t kStepMax = 1000;                        // versions of one step
constexpr size_t kParallel = 8;                          // of them at once
constexpr Duration kStepTime = std::chrono::seconds(5);  // a step that took so long answers with what it has
constexpr size_t kProblemsMax = 100;                     // listed in one answer; all are counted

struct Tally {
  uint64_t looked = 0, right = 0, widened = 0, copied = 0, bytes = 0, pending = 0, busy = 0, left = 0, failed = 0;
  std::vector<std::pair<std::string, std::string>> problems;  // key, why
  void problem(const object::ObjectInfo& version, std::string why) {
    if (problems.size() < kProblemsMax) problems.emplace_back(version.key, std::move(why));
  }
  void add(const object::ObjectInfo& version, const Result<object::Rewritten>& result) {
    using What = object::Rewritten::What;
    ++looked;
    if (!result) {
      ++failed;
      problem(version, result.error().to_string());
      return;
    }
    switch (result->what) {
      case What::right: ++right; break;
      case What::superseded: ++right; break;
      case What::pending: ++pending; break;
      case What::widened:
        ++widened;
        bytes += result->bytes;
        break;
      case What::copied:
        ++copied;
        bytes += result->bytes;
        break;
      case What::busy: ++busy; break;
      case What::left:
        ++left;
        problem(version, result->why);
        break;
    }
  }
};

Result<std::string> decoded(const JsonValue& body, std::string_view name) { return percent_decode(body.string_at(name).value_or("")); }

// No further object will do better.
bool hopeless(const Error& error) {
  return error.code() == Code::misconfigured || error.code() == Code::no_space || error.code() == Code::unavailable ||
         error.code() == Code::cancelled || error.code() == Code::unsupported;
}

}  // namespace

Task<Result<Answer>> rewrite_op(AdminServices& services, Call& call) {
  const std::string bucket = call.segments[1];
  object::VersionListOptions options;
  CO_TRY_ASSIGN(options.prefix, decoded(call.body, "prefix"));
  CO_TRY_ASSIGN(options.key_marker, decoded(call.body, "key_marker"));
  CO_TRY_ASSIGN(options.version_marker, decoded(call.body, "version_marker"));
  options.limit = std::clamp<uint64_t>(call.body.u64_at("limit").value_or(kStepMax), 1, kStepMax);
  CO_TRY_ASSIGN(const auto usage, co_await services.objects.bucket_usage(call.ctx, bucket));
  const TimePoint end = Executor::here().now() + kStepTime;
  Tally tally;
  bool done = false;
  // Short pages, so that a step can end between them.
  const size_t wanted = options.limit;
  while (!done && tally.looked < wanted && Executor::here().now() < end) {
    options.limit = std::min(kParallel, wanted - tally.looked);
    CO_TRY_ASSIGN(const auto page, co_await services.objects.list_versions(call.ctx, bucket, options));
    std::vector<Task<Result<object::Rewritten>>> tasks;
    for (const auto& version : page.versions) tasks.push_back(services.objects.rewrite(call.ctx, bucket, version.key, version.version_id));
    auto results = co_await when_all(std::move(tasks));
    for (auto& result : results) std::move(result).ignore("looked at one by one, up to the first that is hopeless");
    for (size_t i = 0; i < results.size(); ++i) {
      if (!results[i] && hopeless(results[i].error())) co_return std::move(results[i]).error().with(page.versions[i].key);
      tally.add(page.versions[i], results[i]);
    }
    done = !page.truncated;
    options.key_marker = page.next_key_marker;
    options.version_marker = page.next_version_marker;
  }
  JsonWriter json;
  json.begin_object().field("done", done).field("objects", usage.objects);
  json.field("key_marker", percent_encode(options.key_marker)).field("version_marker", percent_encode(options.version_marker));
  json.field("looked", tally.looked).field("right", tally.right).field("in_place", tally.widened).field("copied", tally.copied);
  json.field("bytes", tally.bytes).field("pending", tally.pending).field("busy", tally.busy).field("left", tally.left);
  json.field("failed", tally.failed).key("problems").begin_array();
  for (const auto& [key, why] : tally.problems) json.begin_object().field("key", key).field("reason", why).end_object();
  json.end_array().end_object();
  co_return Answer{.json = json.take()};
}

}  // namespace quarry::frontends::admin
