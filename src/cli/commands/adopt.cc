// quarry adopt DIR BUCKET: an existing tree of files becomes a bucket, in place. The work is done by the node, step by step; this asks for
// the steps and shows how far it is. It can be stopped and repeated at any time.
#include <filesystem>

#include "base/units.h"
#include "cli/hints.h"
#include "cli/session.h"
#include "cli/terminal.h"

namespace quarry::cli {
namespace {

struct Sum {
  uint64_t adopted = 0, bytes = 0, unchanged = 0, changed = 0, vanished = 0, pruned = 0, failed = 0, skipped = 0;
};
constexpr Duration kStepPatience = std::chrono::hours(24);  // a step may read one very large file
constexpr size_t kProblemsShown = 1000;
constexpr Duration kHomeWait = std::chrono::milliseconds(500);
constexpr int kHomeWaitsMax = 60;

void show(const AdoptOptions& options, const std::string& phase, const Sum& sum, const Sum& all) {
  if (options.target.quiet || options.target.json) return;
  if (phase == "count") {
    fmt::print(stderr, "\r\033[Klooking: {} files, {}", sum.adopted, format_size(sum.bytes));
  } else if (phase == "check") {
    fmt::print(stderr, "\r\033[Kchecking what was adopted before: {}", sum.unchanged + sum.changed + sum.vanished);
  } else {
    const double share = all.bytes == 0 ? 1.0 : std::min(1.0, static_cast<double>(sum.bytes) / static_cast<double>(all.bytes));
    constexpr int kBar = 24;
    const auto filled = static_cast<size_t>(share * kBar);
    fmt::print(stderr, "\r\033[K[{}{}] {:3.0f} %  {} of {} files, {} of {}", std::string(filled, '='), std::string(kBar - filled, ' '),
               share * 100, sum.adopted + sum.failed, all.adopted, format_size(sum.bytes), format_size(all.bytes));
  }
  std::fflush(stderr);
}

Task<Result<void>> run_phase(Session* session, const AdoptOptions* options, std::string directory, std::string phase, Sum* sum,
                             const Sum& all, std::vector<std::string>* problems) {
  std::string after;
  int waits = 0;
  for (;;) {
    JsonWriter body;
    body.begin_object()
        .field("directory", percent_encode(directory))
        .field("bucket", options->bucket)
        .field("phase", phase)
        .field("after", after)
        .field("attach", options->attach)
        .field("replace", options->replace)
        .field("prune", options->prune)
        .end_object();
    auto answer = co_await session->admin.call("POST", "/v1/adopt", body.take(), kStepPatience);
    // A drive that was just attached gets its part of the store within seconds; until then it is the home of nothing.
    if (!answer && answer.error().code() == Code::unavailable && phase == "take" && waits++ < kHomeWaitsMax) {
      co_await sleep_for(kHomeWait);
      continue;
    }
    CO_TRY_ASSIGN(const std::string text, std::move(answer));
    CO_TRY_ASSIGN(const JsonValue json, parse_json(text));
    const auto number = [&json](std::string_view name) { return json.u64_at(name).value_or(0); };
    sum->adopted += number("adopted");
    sum->bytes += number("bytes");
    sum->unchanged += number("unchanged");
    sum->changed += number("changed");
    sum->vanished += number("vanished");
    sum->pruned += number("pruned");
    sum->failed += number("failed");
    sum->skipped += number("skipped");
    if (const JsonValue* list = json.find("problems")) {
      for (const auto& one : list->items())
        if (problems->size() < kProblemsShown)
          problems->push_back(fmt::format("{}: {}", one.string_at("name").value_or(""), one.string_at("reason").value_or("")));
    }
    show(*options, phase, *sum, all);
    const std::string next = json.string_at("next").value_or("");
    const JsonValue* done = json.find("done");
    if (done != nullptr && done->as_bool().value_or(false)) co_return Result<void>();
    if (next == after) co_return fail(Code::internal, "the node makes no progress behind '{}'", after);
    after = next;
  }
}

Task<Result<void>> adopt(Session* session, const AdoptOptions* options) {
  std::error_code error;
  const std::filesystem::path canonical = std::filesystem::canonical(options->directory, error);
  const std::string directory = error ? options->directory : canonical.string();
  // The bucket is made if it is not there yet.
  JsonWriter check;
  Sum sum, all;
  std::vector<std::string> problems;
  // Before the bucket is made: this says whether the directory can be adopted at all.
  CO_TRY(co_await run_phase(session, options, directory, "count", &all, all, &problems));
  auto made = co_await session->s3.create_bucket(options->bucket);
  if (!made && made.error().code() != Code::already_exists) co_return std::move(made).error();
  CO_TRY(co_await run_phase(session, options, directory, "check", &sum, all, &problems));
  all = Sum();  // with what was let go
  CO_TRY(co_await run_phase(session, options, directory, "count", &all, all, &problems));
  CO_TRY(co_await run_phase(session, options, directory, "take", &sum, all, &problems));
  if (options->target.json) {
    JsonWriter json;
    json.begin_object()
        .field("adopted", sum.adopted)
        .field("bytes", sum.bytes)
        .field("unchanged", sum.unchanged)
        .field("changed", sum.changed);
    json.field("vanished", sum.vanished)
        .field("pruned", sum.pruned)
        .field("failed", sum.failed)
        .field("skipped", sum.skipped)
        .key("problems")
        .begin_array();
    for (const auto& problem : problems) json.value(problem);
    fmt::print("{}\n", json.end_array().end_object().str());
  } else {
    if (!options->target.quiet) fmt::print(stderr, "\r\033[K");
    for (const auto& problem : problems) fmt::print("{}\n", problem);
    if (sum.pruned > 0) fmt::print("{} objects whose files are gone were deleted\n", sum.pruned);
    if (sum.vanished > sum.pruned)
      fmt::print("to delete the objects of files that are gone: {}\n",
                 with_root(fmt::format("`quarry adopt --prune {} {}`", directory, options->bucket), options->target.root));
    fmt::print("{} files adopted into {} ({}), {} of them again after a change; {} as they were, {} vanished, {} could not be adopted{}\n",
               sum.adopted, options->bucket, format_size(sum.bytes), sum.changed, sum.unchanged, sum.vanished, sum.failed,
               sum.skipped == 0 ? std::string() : fmt::format(", {} are no plain files", sum.skipped));
  }
  if (sum.failed > 0) co_return fail(Code::invalid_argument, "{} files could not be adopted; they were left as they are", sum.failed);
  co_return Result<void>();
}

}  // namespace

int run_adopt(const AdoptOptions& options) {
  return with_session(options.target, [&options](Session& session) { return adopt(&session, &options); });
}

}  // namespace quarry::cli
