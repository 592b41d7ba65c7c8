// quarry adopt DIR BUCKET: an existing tree of files becomes a bucket, in place. The work is done by the node, step by step; this asks for
// the steps and shows how far it is. It can be stopped and repeated at any time.
#include <filesystem>

#include "base/units.h"
#include "cli/session.h"
#include "cli/terminal.h"

namespace quarry::cli {
namespace {

struct Sum {
  uint64_t adopted = 0, bytes = 0, unchanged = 0, changed = 0, vanished = 0, failed = 0;
};

Task<Result<void>> run_phase(Session* session, const AdoptOptions* options, std::string directory, std::string phase, Sum* sum,
                             std::vector<std::string>* problems) {
  std::string after;
  for (;;) {
    JsonWriter body;
    body.begin_object()
        .field("directory", directory)
        .field("bucket", options->bucket)
        .field("phase", phase)
        .field("after", after)
        .field("attach", options->attach)
        .end_object();
    CO_TRY_ASSIGN(const std::string answer, co_await session->admin.call("POST", "/v1/adopt", body.take()));
    CO_TRY_ASSIGN(const JsonValue json, parse_json(answer));
    const auto number = [&json](std::string_view name) { return json.u64_at(name).value_or(0); };
    sum->adopted += number("adopted");
    sum->bytes += number("bytes");
    sum->unchanged += number("unchanged");
    sum->changed += number("changed");
    sum->vanished += number("vanished");
    sum->failed += number("failed");
    if (const JsonValue* list = json.find("problems")) {
      for (const auto& one : list->items())
        problems->push_back(fmt::format("{}: {}", one.string_at("name").value_or(""), one.string_at("reason").value_or("")));
    }
    if (!options->target.quiet && !options->target.json) {
      fmt::print(stderr, "\r{}: {} files adopted, {}; {} looked at    ", phase == "check" ? "checking" : "adopting", sum->adopted,
                 format_size(sum->bytes), sum->unchanged + sum->changed + sum->vanished);
    }
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
  Sum sum;
  std::vector<std::string> problems;
  auto made = co_await session->s3.create_bucket(options->bucket);
  if (!made && made.error().code() != Code::already_exists) co_return std::move(made).error();
  CO_TRY(co_await run_phase(session, options, directory, "check", &sum, &problems));
  CO_TRY(co_await run_phase(session, options, directory, "take", &sum, &problems));
  if (options->target.json) {
    JsonWriter json;
    json.begin_object()
        .field("adopted", sum.adopted)
        .field("bytes", sum.bytes)
        .field("unchanged", sum.unchanged)
        .field("changed", sum.changed);
    json.field("vanished", sum.vanished).field("failed", sum.failed).key("problems").begin_array();
    for (const auto& problem : problems) json.value(problem);
    fmt::print("{}\n", json.end_array().end_object().str());
  } else {
    if (!options->target.quiet) fmt::print(stderr, "\r\033[K");
    for (const auto& problem : problems) fmt::print("{}\n", problem);
    fmt::print("{} files adopted into {} ({}), {} of them again after a change; {} as they were, {} vanished, {} could not be adopted\n",
               sum.adopted, options->bucket, format_size(sum.bytes), sum.changed, sum.unchanged, sum.vanished, sum.failed);
  }
  if (sum.failed > 0) co_return fail(Code::invalid_argument, "{} files could not be adopted; they were left as they are", sum.failed);
  co_return Result<void>();
}

}  // namespace

int run_adopt(const AdoptOptions& options) {
  return with_session(options.target, [&options](Session& session) { return adopt(&session, &options); });
}

}  // namespace quarry::cli
