// quarry object put|get: files and trees to and from the store, in parallel, with progress, resumable.
#include <unistd.h>

#include <filesystem>

#include "base/units.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "client/transfer.h"

namespace quarry::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kFilesInFlightFactor = 2;  // files open per permitted request, so that permits never idle

struct Job {
  std::string path, bucket, key;
  uint64_t bytes = 0;
};

struct Outcome {
  uint64_t files = 0, bytes = 0, skipped = 0;
  std::vector<std::string> failures;
};

void report(const Outcome& outcome, const char* verb, const Progress& progress, bool as_json) {
  const double seconds = std::max(progress.seconds(), 1e-6);
  if (as_json) {
    JsonWriter json;
    json.begin_object()
        .field("files", outcome.files)
        .field("bytes", outcome.bytes)
        .field("skipped", outcome.skipped)
        .field("seconds", seconds);
    json.key("failures").begin_array();
    for (const auto& failure : outcome.failures) json.value(failure);
    json.end_array().end_object();
    fmt::print("{}\n", json.str());
    return;
  }
  for (const auto& failure : outcome.failures) fmt::print(stderr, "failed: {}\n", failure);
  fmt::print("{} {} file{}, {} in {} ({}, {:.0f} files/s){}\n", verb, outcome.files, outcome.files == 1 ? "" : "s",
             format_size(outcome.bytes), format_duration(Duration(static_cast<int64_t>(seconds * 1e9))),
             format_rate(static_cast<double>(outcome.bytes) / seconds), static_cast<double>(outcome.files) / seconds,
             outcome.skipped > 0 ? fmt::format(", {} were there already", outcome.skipped) : "");
}

Result<client::TransferOptions> transfer_options(const ObjectOptions& options, Progress& progress) {
  client::TransferOptions transfer;
  TRY_ASSIGN(transfer.part_bytes, parse_size(options.part_size));
  if (transfer.part_bytes < 5 * kMiB || transfer.part_bytes > 5 * kGiB) {
    return fail(Code::invalid_argument, "--part-size must be between 5MiB and 5GiB");
  }
  transfer.multipart_from_bytes = 2 * transfer.part_bytes;
  transfer.resume = !options.no_resume;
  transfer.skip_same = options.skip_same;
  transfer.on_bytes = [&progress](uint64_t bytes) { progress.add_bytes(bytes); };
  return transfer;
}

Task<void> upload_one(Session& session, Semaphore& slots, Semaphore& files, Job job, client::TransferOptions transfer, Outcome& outcome,
                      Progress& progress) {
  auto result = co_await client::upload_file(session.s3, session.pool, slots, job.path, job.bucket, job.key, std::move(transfer));
  if (result) {
    ++outcome.files;
    outcome.bytes += result->bytes;
    outcome.skipped += result->skipped;
    progress.add_items(1);
  } else {
    outcome.failures.push_back(job.path + ": " + result.error().to_string());
  }
  files.release();
}

Task<void> download_one(Session& session, Semaphore& slots, Semaphore& files, Job job, client::TransferOptions transfer, Outcome& outcome,
                        Progress& progress) {
  auto result = co_await client::download_file(session.s3, session.pool, slots, job.bucket, job.key, job.path, std::move(transfer));
  if (result) {
    ++outcome.files;
    outcome.bytes += result->bytes;
    progress.add_items(1);
  } else {
    outcome.failures.push_back(job.key + ": " + result.error().to_string());
  }
  files.release();
}

Result<std::vector<Job>> jobs_of_tree(const std::string& directory, const std::string& bucket, std::string prefix) {
  if (!prefix.empty() && prefix.back() != '/') prefix += '/';
  std::vector<Job> jobs;
  uint64_t others = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(directory, error), end; it != end; it.increment(error)) {
    if (error) return fail(Code::io_error, "{}: {}", directory, error.message());
    const fs::file_status status = it->symlink_status(error);
    if (error) return fail(Code::io_error, "{}: {}", it->path().string(), error.message());
    if (fs::is_directory(status)) continue;
    if (!fs::is_regular_file(status)) {
      ++others;
      continue;
    }
    const uint64_t bytes = it->file_size(error);
    if (error) return fail(Code::io_error, "{}: {}", it->path().string(), error.message());
    jobs.push_back({it->path().string(), bucket, prefix + it->path().lexically_relative(directory).generic_string(), bytes});
  }
  if (others > 0) fmt::print(stderr, "{}: {} symbolic links and special files are left out\n", directory, others);
  if (error) return fail(Code::io_error, "{}: {}", directory, error.message());
  return jobs;
}

// Length unknown: parts of 16 MiB until the end. upload_id: of the upload that was begun, which the caller aborts when this fails.
Task<Result<void>> send_standard_input(Session& session, std::string bucket, std::string key, std::string& upload_id, uint64_t& bytes) {
  std::vector<client::RemotePart> parts;
  for (;;) {
    Result<Buffer> piece = co_await blocking(session.pool, []() -> Result<Buffer> {
      Buffer buffer(16 * kMiB);
      size_t size = 0;
      while (size < buffer.capacity()) {
        const ssize_t n = ::read(STDIN_FILENO, buffer.data() + size, buffer.capacity() - size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno_error(errno, "standard input");
        if (n == 0) break;
        size += static_cast<size_t>(n);
      }
      buffer.resize(size);
      return buffer;
    });
    if (!piece) co_return std::move(piece).error();
    const bool last = piece->size() < 16 * kMiB;
    bytes += piece->size();
    std::vector<SharedBytes> body;
    if (!piece->empty()) body.emplace_back(std::move(*piece));
    if (last && parts.empty()) {
      CO_TRY(co_await session.s3.put(bucket, key, std::move(body)));
      co_return Result<void>();
    }
    if (upload_id.empty()) {
      CO_TRY_ASSIGN(upload_id, co_await session.s3.create_upload(bucket, key, "application/octet-stream"));
    }
    if (!body.empty()) {
      CO_TRY_ASSIGN(auto part,
                    co_await session.s3.put_part(bucket, key, upload_id, static_cast<uint32_t>(parts.size() + 1), std::move(body)));
      parts.push_back(std::move(part));
    }
    if (last) break;
  }
  CO_TRY(co_await session.s3.complete_upload(bucket, key, upload_id, std::move(parts)));
  co_return Result<void>();
}

Task<Result<void>> put_standard_input(Session& session, std::string bucket, std::string key, bool as_json) {
  std::string upload_id;
  Progress progress("put", false);
  Outcome outcome{.files = 1};
  Result<void> sent = co_await send_standard_input(session, bucket, key, upload_id, outcome.bytes);
  if (!sent && !upload_id.empty()) {
    Result<void> aborted = co_await session.s3.abort_upload(bucket, key, upload_id);
    std::move(aborted).ignore("the first error is the one to tell");
  }
  if (sent) report(outcome, "put", progress, as_json);
  co_return sent;
}

Task<Result<void>> put(Session& session, const ObjectOptions& options) {
  if (options.paths.size() < 2) co_return fail(Code::invalid_argument, "say what and where: quarry object put FILE... BUCKET/KEY");
  CO_TRY_ASSIGN(const auto destination, split_path(options.paths.back()));
  const std::string bucket = destination.first, key = destination.second;
  if (options.paths[0] == "-") {
    if (key.empty() || options.paths.size() != 2)
      co_return fail(Code::invalid_argument, "name one key for standard input: quarry object put - BUCKET/KEY");
    CO_TRY(co_await put_standard_input(session, bucket, key, options.target.json));
    co_return Result<void>();
  }
  std::vector<Job> jobs;
  for (size_t i = 0; i + 1 < options.paths.size(); ++i) {
    const std::string& path = options.paths[i];
    std::error_code error;
    if (fs::is_directory(path, error)) {
      if (!options.recursive) co_return fail(Code::invalid_argument, "{} is a directory; add -r to put all of it", path);
      CO_TRY_ASSIGN(auto tree, jobs_of_tree(path, bucket, key));
      jobs.insert(jobs.end(), std::make_move_iterator(tree.begin()), std::make_move_iterator(tree.end()));
      continue;
    }
    const uint64_t bytes = fs::file_size(path, error);
    if (error) co_return fail(Code::not_found, "{}: {}", path, error.message());
    const bool into = key.empty() || key.back() == '/' || options.paths.size() > 2;
    const std::string base = fs::path(path).filename().string();
    jobs.push_back({path, bucket, into ? key + (key.empty() || key.back() == '/' ? "" : "/") + base : key, bytes});
  }

  Progress progress("put", !options.target.quiet && !options.target.json);
  uint64_t total = 0;
  for (const auto& job : jobs) total += job.bytes;
  progress.set_total(jobs.size(), total);
  CO_TRY_ASSIGN(const auto transfer, transfer_options(options, progress));
  Semaphore slots(options.jobs), files(options.jobs * kFilesInFlightFactor);
  Outcome outcome;
  TaskGroup group;
  for (auto& job : jobs) {
    co_await files.acquire();
    group.spawn(upload_one(session, slots, files, std::move(job), transfer, outcome, progress));
  }
  co_await group.join();
  report(outcome, "put", progress, options.target.json);
  if (!outcome.failures.empty())
    co_return fail(Code::io_error, "{} of {} files failed; run the command again to continue", outcome.failures.size(), jobs.size());
  co_return Result<void>();
}

Task<Result<void>> get(Session& session, const ObjectOptions& options) {
  if (options.paths.size() > 2) co_return fail(Code::invalid_argument, "use: quarry object get BUCKET/KEY [FILE], or -r BUCKET/PREFIX DIR");
  CO_TRY_ASSIGN(const auto source, split_path(options.paths[0]));
  const std::string bucket = source.first, key = source.second;
  std::vector<Job> jobs;
  if (options.recursive) {
    const std::string directory = options.paths.size() == 2 ? options.paths[1] : ".";
    std::string continuation;
    do {
      CO_TRY_ASSIGN(const auto page, co_await session.s3.list(bucket, key, "", continuation));
      for (const auto& object : page.objects) {
        if (object.key.ends_with("/")) continue;  // a folder marker of other tools
        const fs::path below =
            fs::path(object.key.substr(key.ends_with("/") ? key.size() : key.substr(0, key.rfind('/') + 1).size())).lexically_normal();
        if (below.is_absolute() || (!below.empty() && *below.begin() == "..")) {
          co_return fail(Code::invalid_argument, "key '{}' would leave {}; get it by name", object.key, directory);
        }
        jobs.push_back({(fs::path(directory) / below).string(), bucket, object.key, object.size});
      }
      continuation = page.next;
    } while (!continuation.empty());
    if (jobs.empty()) co_return fail(Code::not_found, "nothing in {} begins with '{}'", bucket, key);
  } else {
    if (key.empty()) co_return fail(Code::invalid_argument, "name a key, or add -r for all of bucket {}", bucket);
    std::string path = options.paths.size() == 2 ? options.paths[1] : fs::path(key).filename().string();
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) path = (fs::path(path) / fs::path(key).filename()).string();
    CO_TRY_ASSIGN(const auto head, co_await session.s3.head(bucket, key));
    jobs.push_back({path, bucket, key, head.size});
  }

  Progress progress("get", !options.target.quiet && !options.target.json);
  uint64_t total = 0;
  for (const auto& job : jobs) total += job.bytes;
  progress.set_total(jobs.size(), total);
  CO_TRY_ASSIGN(const auto transfer, transfer_options(options, progress));
  Semaphore slots(options.jobs), files(options.jobs * kFilesInFlightFactor);
  Outcome outcome;
  TaskGroup group;
  for (auto& job : jobs) {
    co_await files.acquire();
    group.spawn(download_one(session, slots, files, std::move(job), transfer, outcome, progress));
  }
  co_await group.join();
  report(outcome, "got", progress, options.target.json);
  if (!outcome.failures.empty())
    co_return fail(Code::io_error, "{} of {} files failed; run the command again to continue", outcome.failures.size(), jobs.size());
  co_return Result<void>();
}

}  // namespace

int run_object_put(const ObjectOptions& options) {
  return with_session(options.target, [&options](Session& session) { return put(session, options); });
}
int run_object_get(const ObjectOptions& options) {
  return with_session(options.target, [&options](Session& session) { return get(session, options); });
}

}  // namespace quarry::cli
