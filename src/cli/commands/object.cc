// quarry object cat|cp|ls|rm|stat|pin|unpin
#include <unistd.h>

#include "base/units.h"
#include "cli/session.h"
#include "cli/terminal.h"

namespace quarry::cli {
namespace {

Task<Result<void>> cat(Session& session, const ObjectOptions& options) {
  for (const auto& path : options.paths) {
    CO_TRY_ASSIGN(const auto source, split_path(path));
    CO_TRY_ASSIGN(auto response, co_await session.s3.get(source.first, source.second));
    Buffer buffer(kMiB);
    for (;;) {
      CO_TRY_ASSIGN(const size_t n, co_await response->body().read_into({buffer.data(), buffer.capacity()}));
      if (n == 0) break;
      for (size_t done = 0; done < n;) {
        const ssize_t written = ::write(STDOUT_FILENO, buffer.data() + done, n - done);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) co_return errno_error(errno, "standard output");
        done += static_cast<size_t>(written);
      }
    }
  }
  co_return Result<void>();
}

// What a command did to how many objects: JSON, or a sentence.
void print_count(const Target& target, const char* verb, uint64_t objects) {
  if (target.json) {
    fmt::print("{{\"{}\":{}}}\n", verb, objects);
  } else {
    fmt::print("{} {} object{}\n", verb, objects, objects == 1 ? "" : "s");
  }
}

Task<void> copy_one(Session& session, Semaphore& slots, std::string from_bucket, std::string from_key, std::string bucket, std::string key,
                    std::vector<std::string>& failures, Progress& progress) {
  Result<void> copied = co_await session.s3.copy(from_bucket, from_key, bucket, key);
  if (!copied) failures.push_back(from_key + ": " + copied.error().to_string());
  progress.add_items(1);
  slots.release();
}

Task<Result<void>> copy(Session& session, const ObjectOptions& options) {
  if (options.paths.size() != 2) co_return fail(Code::invalid_argument, "use: quarry object cp BUCKET/KEY BUCKET/KEY");
  CO_TRY_ASSIGN(const auto from, split_path(options.paths[0]));
  CO_TRY_ASSIGN(const auto to, split_path(options.paths[1]));
  if (!options.recursive) {
    const std::string base = from.second.substr(from.second.rfind('/') + 1);
    CO_TRY(co_await session.s3.copy(from.first, from.second, to.first,
                                    to.second.empty() || to.second.back() == '/' ? to.second + base : to.second));
    print_count(options.target, "copied", 1);
    co_return Result<void>();
  }
  std::vector<std::string> failures;
  Progress progress("copy", !options.target.quiet && !options.target.json);
  Semaphore slots(options.jobs);
  TaskGroup group;
  std::string continuation;
  std::optional<Error> error;
  do {
    auto page = co_await session.s3.list(from.first, from.second, "", continuation);
    if (!page) {
      error.emplace(std::move(page).error());
      break;
    }
    for (const auto& object : page->objects) {
      co_await slots.acquire();
      group.spawn(copy_one(session, slots, from.first, object.key, to.first, to.second + object.key.substr(from.second.size()), failures,
                           progress));
    }
    continuation = page->next;
  } while (!continuation.empty());
  co_await group.join();
  if (error) co_return std::move(*error);
  if (!failures.empty()) co_return fail(Code::io_error, "{} copies failed, the first: {}", failures.size(), failures.front());
  print_count(options.target, "copied", progress.items());
  co_return Result<void>();
}

Task<Result<void>> list(Session& session, const ObjectOptions& options) {
  for (const auto& path : options.paths) {
    CO_TRY_ASSIGN(const auto place, split_path(path));
    std::string continuation;
    uint64_t shown = 0;
    JsonWriter json;
    json.begin_array();
    do {
      CO_TRY_ASSIGN(const auto page, co_await session.s3.list(place.first, place.second, options.recursive ? "" : "/", continuation));
      for (const auto& prefix : page.common_prefixes) {
        if (options.target.json) {
          json.begin_object().field("prefix", prefix).end_object();
        } else {
          fmt::print("{:>12}  {:<24}  {}\n", "PREFIX", "", prefix);
        }
      }
      for (const auto& object : page.objects) {
        if (options.target.json) {
          json.begin_object()
              .field("key", object.key)
              .field("size", object.size)
              .field("etag", object.etag)
              .field("modified", object.last_modified)
              .end_object();
        } else {
          fmt::print("{:>12}  {:<24}  {}\n", format_size(object.size), object.last_modified, object.key);
        }
        if (++shown == options.limit) break;
      }
      continuation = page.next;
    } while (!continuation.empty() && (options.limit == 0 || shown < options.limit));
    if (options.target.json) fmt::print("{}\n", json.end_array().str());
  }
  co_return Result<void>();
}

Task<void> remove_batch(Session& session, Semaphore& slots, std::string bucket, std::vector<std::string> keys,
                        std::vector<std::string>& failures, Progress& progress) {
  const size_t count = keys.size();
  std::vector<client::RemoteVersion> targets;
  for (auto& key : keys) targets.push_back({std::move(key)});
  auto errors = co_await session.s3.remove_many(bucket, std::move(targets));
  if (!errors) {
    failures.push_back(errors.error().to_string());
  } else {
    failures.insert(failures.end(), errors->begin(), errors->end());
    progress.add_items(count - errors->size());
  }
  slots.release();
}

Task<Result<void>> remove(Session& session, const ObjectOptions& options) {
  std::vector<std::string> failures;
  Progress progress("rm", !options.target.quiet && !options.target.json);
  Semaphore slots(options.jobs);
  TaskGroup group;
  std::optional<Error> error;
  std::vector<std::pair<std::string, std::string>> places;  // all are understood before the first thing is deleted
  for (const auto& path : options.paths) {
    CO_TRY_ASSIGN(auto place, split_path(path));
    if (!options.recursive && place.second.empty()) {
      co_return fail(Code::invalid_argument, "name a key, or add -r for everything in bucket {}", place.first);
    }
    places.push_back(std::move(place));
  }
  for (const auto& place : places) {
    if (!options.recursive) {
      const auto removed = co_await session.s3.remove(place.first, place.second, {}, client::S3Client::Missing::is_an_error);
      if (removed) {
        progress.add_items(1);
      } else if (removed.error().code() == Code::precondition_failed) {
        failures.push_back(fmt::format("there is no object {} in bucket {}", place.second, place.first));
      } else {
        co_return removed.error();
      }
      continue;
    }
    // Deleting while listing: the continuation is a name, so it stays right.
    std::string continuation;
    do {
      auto page = co_await session.s3.list(place.first, place.second, "", continuation);
      if (!page) {
        error.emplace(std::move(page).error());
        break;
      }
      std::vector<std::string> keys;
      for (const auto& object : page->objects) keys.push_back(object.key);
      continuation = page->next;
      if (keys.empty()) break;
      co_await slots.acquire();
      group.spawn(remove_batch(session, slots, place.first, std::move(keys), failures, progress));
    } while (!continuation.empty());
  }
  co_await group.join();
  if (error) co_return std::move(*error);
  if (!failures.empty()) co_return fail(Code::io_error, "{} could not be deleted, the first: {}", failures.size(), failures.front());
  print_count(options.target, "deleted", progress.items());
  co_return Result<void>();
}

Task<Result<void>> stat(Session& session, const ObjectOptions& options) {
  for (const auto& path : options.paths) {
    CO_TRY_ASSIGN(const auto place, split_path(path));
    CO_TRY_ASSIGN(const auto object, co_await session.s3.head(place.first, place.second));
    if (options.target.json) {
      JsonWriter json;
      json.begin_object().field("bucket", place.first).field("key", object.key).field("size", object.size).field("etag", object.etag);
      json.field("version_id", object.version_id).field("modified", object.last_modified).field("content_type", object.content_type);
      json.field("crc64nvme", object.checksum_crc64nvme).key("metadata").begin_object();
      for (const auto& [name, value] : object.user_metadata) json.field(name, value);
      fmt::print("{}\n", json.end_object().end_object().str());
      continue;
    }
    fmt::print("key        {}\nsize       {} ({} bytes)\netag       {}\nmodified   {}\ntype       {}\n", object.key,
               format_size(object.size), object.size, object.etag, object.last_modified, object.content_type);
    if (!object.version_id.empty()) fmt::print("version    {}\n", object.version_id);
    if (!object.checksum_crc64nvme.empty()) fmt::print("crc64nvme  {}\n", object.checksum_crc64nvme);
    for (const auto& [name, value] : object.user_metadata) fmt::print("meta       {} = {}\n", name, value);
  }
  co_return Result<void>();
}

Task<Result<void>> pin(Session& session, const ObjectOptions& options, bool pinned) {
  for (const auto& path : options.paths) {
    CO_TRY_ASSIGN(const auto place, split_path(path));
    JsonWriter json;
    json.begin_object().field("key", place.second).end_object();
    CO_TRY(co_await session.admin.call("POST", "/v1/buckets/" + percent_encode(place.first) + (pinned ? "/pin" : "/unpin"), json.take()));
  }
  print_count(options.target, pinned ? "pinned" : "unpinned", options.paths.size());
  co_return Result<void>();
}

}  // namespace

int run_object_cat(const ObjectOptions& options) {
  return with_session(options.target, [&options](Session& session) { return cat(session, options); });
}
int run_object_copy(const ObjectOptions& options) {
  return with_session(options.target, [&options](Session& session) { return copy(session, options); });
}
int run_object_list(const ObjectOptions& options) {
  return with_session(options.target, [&options](Session& session) { return list(session, options); });
}
int run_object_remove(const ObjectOptions& options) {
  return with_session(options.target, [&options](Session& session) { return remove(session, options); });
}
int run_object_stat(const ObjectOptions& options) {
  return with_session(options.target, [&options](Session& session) { return stat(session, options); });
}
int run_object_pin(const ObjectOptions& options, bool pinned) {
  return with_session(options.target, [&options, pinned](Session& session) { return pin(session, options, pinned); });
}

}  // namespace quarry::cli
