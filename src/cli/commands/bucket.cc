// quarry bucket create|list|info|set|delete
#include "base/units.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "io/sync.h"

namespace quarry::cli {
namespace {

Result<std::string> settings_json(const BucketOptions& options) {
  JsonWriter json;
  json.begin_object();
  if (!options.redundancy.empty()) json.field("redundancy", options.redundancy);
  if (!options.versioning.empty()) json.field("versioning", options.versioning);
  const std::pair<const char*, const std::string&> sizes[] = {
      {"quota_bytes", options.quota_bytes}, {"inline_limit", options.inline_limit}, {"pack_limit", options.pack_limit}};
  for (const auto& [name, text] : sizes) {
    if (text.empty()) continue;
    TRY_ASSIGN(const uint64_t bytes, parse_size(text));
    json.field(name, bytes);
  }
  if (options.quota_objects >= 0) json.field("quota_objects", static_cast<uint64_t>(options.quota_objects));
  json.end_object();
  return json.take();
}

Task<Result<void>> apply_settings(Session& session, const BucketOptions& options, bool required) {
  CO_TRY_ASSIGN(const std::string body, settings_json(options));
  if (body == "{}") {
    if (required)
      co_return fail(Code::invalid_argument, "say what to change, for example: quarry bucket set {} --quota 10GiB", options.name);
    co_return Result<void>();
  }
  CO_TRY_ASSIGN(const std::string answer, co_await session.admin.call("POST", "/v1/buckets/" + percent_encode(options.name), body));
  if (required && options.target.json) fmt::print("{}", answer);
  if (required && !options.target.json) fmt::print("changed bucket {}\n", options.name);
  co_return Result<void>();
}

Task<Result<void>> create(Session& session, const BucketOptions& options) {
  // Servers in us-east-1 let one's own bucket be made again. Who creates one wants a new one.
  const auto there = co_await session.s3.has_bucket(options.name);
  if (there && *there) co_return fail(Code::already_exists, "you have a bucket {} already", options.name);
  if (!there && there.error().code() != Code::permission_denied) co_return there.error();
  CO_TRY(co_await session.s3.create_bucket(options.name));
  CO_TRY(co_await apply_settings(session, options, false));
  if (options.target.json) {
    fmt::print("{{\"bucket\":\"{}\"}}\n", options.name);
  } else {
    fmt::print("created bucket {}\n", options.name);
  }
  co_return Result<void>();
}

Task<Result<void>> list(Session& session, const BucketOptions& options) {
  CO_TRY_ASSIGN(const auto buckets, co_await session.s3.list_buckets());
  if (options.target.json) {
    JsonWriter json;
    json.begin_array();
    for (const auto& bucket : buckets) json.begin_object().field("name", bucket.key).field("created", bucket.last_modified).end_object();
    json.end_array();
    fmt::print("{}\n", json.str());
    co_return Result<void>();
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& bucket : buckets) rows.push_back({bucket.key, bucket.last_modified});
  print_table({"BUCKET", "CREATED"}, rows);
  co_return Result<void>();
}

Task<Result<void>> info(Session& session, const BucketOptions& options) {
  CO_TRY_ASSIGN(const std::string text, co_await session.admin.call("GET", "/v1/buckets/" + percent_encode(options.name)));
  if (options.target.json) {
    fmt::print("{}", text);
    co_return Result<void>();
  }
  CO_TRY_ASSIGN(const JsonValue json, parse_json(text));
  for (const auto& [name, value] : json.members()) {
    std::string shown = value.as_string() ? std::string(*value.as_string()) : fmt::format("{}", value.as_u64().value_or(0));
    if (name == "bytes" || name.ends_with("_limit") || name == "quota_bytes") shown = format_size(value.as_u64().value_or(0));
    if (name.starts_with("quota") && value.as_u64().value_or(0) == 0) shown = "unlimited";
    if (name == "redundancy" && shown.empty()) shown = "(the node's default)";
    if (name != "created") fmt::print("{:<14} {}\n", name, shown);
  }
  co_return Result<void>();
}

struct Emptying {
  Session& session;
  const BucketOptions& options;
  Progress progress;
  Semaphore slots;
  std::optional<std::string> failure = {};  // the first
};

Task<void> remove_page(Emptying& work, std::vector<client::RemoteVersion> versions) {
  const size_t count = versions.size();
  auto errors = co_await work.session.s3.remove_many(work.options.name, std::move(versions));
  if (!errors && !work.failure) work.failure = errors.error().to_string();
  if (errors && !errors->empty() && !work.failure) work.failure = errors->front();
  if (errors) work.progress.add_items(count - std::min(count, errors->size()));
  work.slots.release();
}

// One walk over all versions. Deleting while listing: a page begins behind a name, so it stays right.
Task<Result<void>> empty(Emptying& work) {
  TaskGroup group;
  std::optional<Error> error;
  client::RemoteVersion next;
  do {
    auto page = co_await work.session.s3.list_versions(work.options.name, next);
    if (!page) {
      error = std::move(page).error();
      break;
    }
    next = std::move(page->next);
    if (page->versions.empty()) continue;
    co_await work.slots.acquire();
    group.spawn(remove_page(work, std::move(page->versions)));
  } while (!next.key.empty() && !work.failure);
  co_await group.join();
  if (error) co_return std::move(*error);
  if (work.failure) co_return fail(Code::internal, "{}", *work.failure);
  co_return Result<void>();
}

Task<Result<void>> remove(Session& session, const BucketOptions& options) {
  if (options.force) {
    constexpr size_t kPagesAtOnce = 16;
    Emptying work{session, options, Progress("delete", !options.target.quiet && !options.target.json), Semaphore(kPagesAtOnce)};
    CO_TRY(co_await empty(work));
    for (;;) {  // what others put meanwhile
      CO_TRY_ASSIGN(const auto rest, co_await session.s3.list_versions(options.name));
      if (rest.versions.empty()) break;
      CO_TRY(co_await empty(work));
    }
  }
  CO_TRY(co_await session.s3.delete_bucket(options.name));
  if (options.target.json) {
    fmt::print("{{\"deleted\":\"{}\"}}\n", options.name);
  } else {
    fmt::print("deleted bucket {}\n", options.name);
  }
  co_return Result<void>();
}

}  // namespace

int run_bucket_create(const BucketOptions& options) {
  return with_session(options.target, [&options](Session& session) { return create(session, options); });
}
int run_bucket_list(const BucketOptions& options) {
  return with_session(options.target, [&options](Session& session) { return list(session, options); });
}
int run_bucket_info(const BucketOptions& options) {
  return with_session(options.target, [&options](Session& session) { return info(session, options); });
}
int run_bucket_set(const BucketOptions& options) {
  return with_session(options.target, [&options](Session& session) { return apply_settings(session, options, true); });
}
int run_bucket_delete(const BucketOptions& options) {
  return with_session(options.target, [&options](Session& session) { return remove(session, options); });
}

}  // namespace quarry::cli
