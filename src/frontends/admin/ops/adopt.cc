// POST /v1/adopt {"directory","bucket","phase","after","limit","attach","replace","prune"}: one step of making a tree of files on a dir
// drive the objects of a bucket, in place. The caller repeats it with "after" = the answer's "next" until "done"; each step stands alone,
// so it can stop anywhere and begin again. Phases:
//   count  how much there is to take
//   check  objects that were adopted before: a changed file is let go, to be taken in again; a vanished one is reported, with prune its
//          object is deleted
//   take   files that belong to no object become objects
// directory, after and next are percent-encoded, as they may be any bytes.
#include <sys/stat.h>

#include <filesystem>
#include <mutex>
#include <set>

#include "chunk/dir/escape.h"
#include "cluster/drives/drive_path.h"
#include "frontends/admin/admin_server.h"
#include "wire/uri.h"

namespace quarry::frontends::admin {
namespace {

constexpr size_t kStepMax = 1000;  // files of one step
constexpr Duration kInWorkRetry = std::chrono::milliseconds(20);
constexpr size_t kParallel = 8;                          // adopted at once
constexpr Duration kStepTime = std::chrono::seconds(5);  // a step that took so long answers with what it has
constexpr size_t kProblemsMax = 100;                     // listed in one answer; all are counted

struct Place {
  uint32_t drive = 0;
  std::string under;  // below the drive's directory; empty: all of it
};

bool on_one_file_system(const std::string& a, const std::string& b) {
  struct stat of_a{}, of_b{};
  return ::stat(a.c_str(), &of_a) == 0 && ::stat(b.c_str(), &of_b) == 0 && of_a.st_dev == of_b.st_dev;
}

// A file system that is mounted inside a mountpath is none of that mountpath's. `around`: the mountpath around such a one.
std::optional<Place> find_place(const cluster::DataPlane& data, const std::string& directory, std::string* around) {
  std::optional<Place> best;
  size_t longest = 0;
  for (const auto& drive : data.drives()) {
    const cluster::DrivePath at = cluster::parse_drive_path(drive.path);
    if (at.kind != "dir" || drive.state == "removed" || at.path.size() < longest) continue;
    const std::string root(at.path);
    if (directory == root) {
      best = Place{drive.number, ""};
    } else if (directory.starts_with(root + "/")) {
      best = Place{drive.number, directory.substr(root.size() + 1)};
    } else {
      continue;
    }
    longest = at.path.size();
    around->clear();
    if (best->under.empty() || on_one_file_system(root, directory)) continue;
    best.reset();
    *around = root;
  }
  return best;
}

struct Tally {
  uint64_t adopted = 0, bytes = 0, unchanged = 0, changed = 0, vanished = 0, pruned = 0, failed = 0, skipped = 0;
  std::vector<std::pair<std::string, std::string>> problems;  // what, why
  std::string next;
  bool done = false;
  void problem(std::string what, std::string why) {
    if (problems.size() < kProblemsMax) problems.emplace_back(std::move(what), std::move(why));
  }
};

Task<Result<Tally>> check_step(AdminServices* services, const RequestContext& ctx, std::string bucket, std::string after, size_t limit,
                               bool prune) {
  const TimePoint end = Executor::here().now() + kStepTime;
  Tally tally;
  object::ListOptions options{.after = std::move(after), .limit = limit};
  tally.next = options.after;
  CO_TRY_ASSIGN(const auto page, co_await services->objects.list(ctx, bucket, options));
  for (const auto& object : page.objects) {
    CO_TRY_ASSIGN(const auto state, co_await services->objects.adopted_state(ctx, bucket, object.key));
    switch (state.state) {
      case cluster::FileState::unchanged: ++tally.unchanged; break;
      case cluster::FileState::changed: ++tally.changed; break;
      case cluster::FileState::vanished:
        ++tally.vanished;
        if (prune) {
          CO_TRY(co_await services->objects.remove(ctx, bucket, {.key = object.key, .version_id = {}, .conditions = {}}));
          ++tally.pruned;
          break;
        }
        tally.problem(object.key, "its file is gone, or was replaced by another one, which is adopted in its place");
        break;
      case cluster::FileState::elsewhere: break;
    }
    tally.next = object.key;
    if (Executor::here().now() > end) co_return tally;
  }
  tally.done = !page.truncated;
  co_return tally;
}

// The key of a file: what its path says if the tree came out of Quarry, else its path below the directory.
std::string key_of(const std::string& path, const std::string& under, const std::string& bucket) {
  const auto own = chunk::dir::parse_path(path);
  if (own && own->bucket == bucket && under == bucket) return own->key;
  return under.empty() ? path : path.substr(under.size() + 1);
}

// UTF-8 without the characters that no XML can say: what a listing can hold.
bool is_text(std::string_view name) {
  for (size_t at = 0; at < name.size();) {
    const auto lead = static_cast<uint8_t>(name[at]);
    const size_t size = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (size == 0 || at + size > name.size()) return false;
    if (size == 1 && (lead == 0x7f || (lead < 0x20 && lead != '\t' && lead != '\n' && lead != '\r'))) return false;
    uint32_t character = size == 1 ? lead : lead & (0xffu >> (size + 1));
    for (size_t i = 1; i < size; ++i) {
      const auto next = static_cast<uint8_t>(name[at + i]);
      if ((next & 0xc0) != 0x80) return false;
      character = character << 6 | (next & 0x3f);
    }
    const bool overlong = (size == 3 && character < 0x800) || (size == 4 && character < 0x10000);
    const bool surrogate = character >= 0xd800 && character < 0xe000;
    if (overlong || surrogate || character > 0x10ffff || character == 0xfffe || character == 0xffff) return false;
    at += size;
  }
  return true;
}

// Files being adopted now, so that a run that was interrupted and its successor do not meet at one: the step of the first goes on to its
// end. Thread-safe.
class FilesInWork {
 public:
  bool begin(const std::string& file) {
    std::lock_guard lock(mutex_);
    return files_.insert(file).second;
  }
  void end(const std::string& file) {
    std::lock_guard lock(mutex_);
    files_.erase(file);
  }

 private:
  std::mutex mutex_;
  std::set<std::string> files_;  // at most kParallel for each step that runs
};

Task<Result<object::ObjectInfo>> adopt_one(AdminServices* services, const RequestContext& ctx, std::string bucket, std::string key,
                                           object::AdoptSource source) {
  static FilesInWork in_work;
  const RequestContext context = ctx;
  const std::string file = fmt::format("{} {} {}", fmt::ptr(services), source.drive, source.path);
  while (!in_work.begin(file)) co_await sleep_for(kInWorkRetry);
  auto adopted = co_await services->objects.adopt(context, std::move(bucket), std::move(key), std::move(source));
  in_work.end(file);
  co_return adopted;
}

Task<Result<Tally>> count_step(AdminServices* services, Place place, std::string after) {
  constexpr size_t kCountStep = 10'000;
  Tally tally;
  tally.next = after;
  CO_TRY_ASSIGN(const auto files, co_await services->data.files().unrecorded(place.drive, place.under, std::move(after), kCountStep));
  for (const auto& file : files) {
    tally.next = file.path;
    if (!file.why_not.empty()) continue;
    ++tally.adopted;
    tally.bytes += file.size;
  }
  tally.done = files.size() < kCountStep;
  co_return tally;
}

Task<Result<Tally>> take_step(AdminServices* services, const RequestContext& ctx, Place place, std::string bucket, std::string after,
                              size_t limit, bool replace) {
  const TimePoint end = Executor::here().now() + kStepTime;
  Tally tally;
  tally.next = after;
  CO_TRY_ASSIGN(const auto files, co_await services->data.files().unrecorded(place.drive, place.under, std::move(after), limit));
  for (size_t begin = 0; begin < files.size(); begin += kParallel) {
    const size_t end_of_batch = std::min(begin + kParallel, files.size());
    std::vector<Task<Result<object::ObjectInfo>>> tasks;
    std::vector<const cluster::UnrecordedFile*> taken;
    for (size_t i = begin; i < end_of_batch; ++i) {
      const auto& file = files[i];
      tally.next = file.path;
      if (!file.why_not.empty()) {
        ++tally.skipped;
        tally.problem(file.path, file.why_not);
        continue;
      }
      const std::string key = key_of(file.path, place.under, bucket);
      if (!is_text(key)) {
        ++tally.failed;
        tally.problem(file.path, "its name is no UTF-8 text, which keys are: rename it, then adopt again");
        continue;
      }
      object::AdoptSource source{.drive = place.drive, .path = file.path, .owner = ctx.identity.user, .replace = replace};
      tasks.push_back(adopt_one(services, ctx, bucket, key, std::move(source)));
      taken.push_back(&file);
    }
    auto results = co_await when_all(std::move(tasks));
    for (auto& result : results) std::move(result).ignore("looked at one by one, up to the first that is hopeless");
    for (size_t i = 0; i < results.size(); ++i) {
      auto& adopted = results[i];
      if (adopted) {
        ++tally.adopted;
        tally.bytes += adopted->size;
      } else if (adopted.error().error_class() == ErrorClass::caller || adopted.error().code() == Code::busy) {
        ++tally.failed;  // of this file alone
        tally.problem(taken[i]->path, adopted.error().to_string());
      } else {
        co_return std::move(adopted).error().with(taken[i]->path);
      }
    }
    if (Executor::here().now() > end) co_return tally;
  }
  tally.done = files.size() < limit;
  co_return tally;
}

}  // namespace

Task<Result<Answer>> adopt_op(AdminServices& services, Call& call) {
  if (call.head.method != "POST" || call.segments.size() != 1) co_return fail(Code::not_found, "use POST /v1/adopt");
  CO_TRY_ASSIGN(const std::string directory_text, call.body.string_at("directory"));
  CO_TRY_ASSIGN(const std::string directory, percent_decode(directory_text));
  CO_TRY_ASSIGN(const std::string bucket, call.body.string_at("bucket"));
  CO_TRY_ASSIGN(const std::string phase, call.body.string_at("phase"));
  CO_TRY_ASSIGN(const std::string after, percent_decode(call.body.string_at("after").value_or("")));
  const JsonValue* replace = call.body.find("replace");
  const size_t limit = std::clamp<uint64_t>(call.body.u64_at("limit").value_or(kStepMax), 1, kStepMax);
  const JsonValue* attach = call.body.find("attach");
  if (directory.empty() || directory[0] != '/')
    co_return fail(Code::invalid_argument, "directory '{}': name it from the root, as the node sees it", directory);
  std::error_code error;
  if (!std::filesystem::is_directory(directory, error))
    co_return fail(Code::not_found, "{} is no directory that this node can see", directory);
  std::string around;
  std::optional<Place> place = find_place(services.data, directory, &around);
  if (!place) {
    if (!around.empty() && (attach == nullptr || !attach->as_bool().value_or(false))) {
      co_return fail(
          Code::precondition_failed,
          "{} is on another file system than the dir drive {} around it: make it a drive of its own: `quarry adopt --attach {} {}`",
          directory, around, directory, bucket);
    }
    if (attach == nullptr || !attach->as_bool().value_or(false)) {
      co_return fail(Code::precondition_failed,
                     "{} lies on no dir drive of this node: make it one, or a directory above it: `quarry adopt --attach {} {}`", directory,
                     directory, bucket);
    }
    CO_TRY(co_await services.data.add_drive("dir:" + directory, false));
    place = find_place(services.data, directory, &around);
    if (!place) co_return fail(Code::internal, "{} was attached and is no drive", directory);
  }
  Tally tally;
  if (phase == "check") {
    const JsonValue* prune = call.body.find("prune");
    CO_TRY_ASSIGN(tally,
                  co_await check_step(&services, call.ctx, bucket, after, limit, prune != nullptr && prune->as_bool().value_or(false)));
  } else if (phase == "take") {
    const bool replaces = replace != nullptr && replace->as_bool().value_or(false);
    CO_TRY_ASSIGN(tally, co_await take_step(&services, call.ctx, *place, bucket, after, limit, replaces));
  } else if (phase == "count") {
    CO_TRY_ASSIGN(tally, co_await count_step(&services, *place, after));
  } else {
    co_return fail(Code::invalid_argument, "phase '{}' is neither count, check nor take", phase);
  }
  JsonWriter json;
  json.begin_object()
      .field("drive", place->drive)
      .field("done", tally.done)
      .field("next", percent_encode(tally.next))
      .field("adopted", tally.adopted)
      .field("bytes", tally.bytes);
  json.field("unchanged", tally.unchanged).field("changed", tally.changed).field("vanished", tally.vanished).field("failed", tally.failed);
  json.field("pruned", tally.pruned).field("skipped", tally.skipped).key("problems").begin_array();
  for (const auto& [what, why] : tally.problems) json.begin_object().field("name", what).field("reason", why).end_object();
  json.end_array().end_object();
  co_return Answer{.json = json.take()};
}

}  // namespace quarry::frontends::admin
