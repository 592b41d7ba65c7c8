// quarry bucket rewrite NAME: existing objects get the redundancy that the bucket has now. The node does the work, step by step; this asks
// for the steps and shows how far it is. It can be stopped and repeated at any time.
#include "base/units.h"
#include "cli/session.h"
#include "cli/terminal.h"

namespace quarry::cli {
namespace {

constexpr Duration kLookAgain = std::chrono::seconds(1);
constexpr Duration kStuck = std::chrono::seconds(60);       // so long nothing became less: repair goes on without us
constexpr Duration kStepPatience = std::chrono::hours(24);  // a step may copy one very large object

struct Sum {
  uint64_t looked = 0, right = 0, in_place = 0, copied = 0, bytes = 0, pending = 0, busy = 0, left = 0, failed = 0, objects = 0;
};

void show(const BucketOptions& options, const Sum& sum, bool waiting) {
  if (options.target.quiet || options.target.json) return;
  if (waiting) {
    fmt::print(stderr, "\r\033[Kwaiting for repair: {} objects lack copies", sum.pending + sum.busy);
  } else {
    const double share = sum.objects == 0 ? 1.0 : std::min(1.0, static_cast<double>(sum.looked) / static_cast<double>(sum.objects));
    constexpr int kBar = 24;
    const auto filled = static_cast<size_t>(share * kBar);
    fmt::print(stderr, "\r\033[K[{}{}] {:3.0f} %  {} of {} objects, {} rewritten ({})", std::string(filled, '='),
               std::string(kBar - filled, ' '), share * 100, sum.looked, sum.objects, sum.in_place + sum.copied, format_size(sum.bytes));
  }
  std::fflush(stderr);
}

Task<Result<Sum>> run_pass(Session* session, const BucketOptions* options, bool waiting, std::vector<std::string>* problems) {
  Sum sum;
  std::string key_marker, version_marker;
  for (;;) {
    JsonWriter body;
    body.begin_object()
        .field("prefix", percent_encode(options->prefix))
        .field("key_marker", key_marker)
        .field("version_marker", version_marker)
        .end_object();
    CO_TRY_ASSIGN(
        const std::string answer,
        co_await session->admin.call("POST", "/v1/buckets/" + percent_encode(options->name) + "/rewrite", body.take(), kStepPatience));
    CO_TRY_ASSIGN(const JsonValue json, parse_json(answer));
    const std::pair<const char*, uint64_t*> fields[] = {{"looked", &sum.looked}, {"right", &sum.right}, {"in_place", &sum.in_place},
                                                        {"copied", &sum.copied}, {"bytes", &sum.bytes}, {"pending", &sum.pending},
                                                        {"busy", &sum.busy},     {"left", &sum.left},   {"failed", &sum.failed}};
    for (const auto& [name, value] : fields) *value += json.u64_at(name).value_or(0);
    sum.objects = json.u64_at("objects").value_or(0);
    if (const JsonValue* list = json.find("problems")) {
      for (const auto& one : list->items())
        problems->push_back(fmt::format("{}: {}", one.string_at("key").value_or(""), one.string_at("reason").value_or("")));
    }
    show(*options, sum, waiting);
    if (const JsonValue* done = json.find("done"); done != nullptr && done->as_bool().value_or(false)) co_return sum;
    const std::string next = json.string_at("key_marker").value_or(""), version = json.string_at("version_marker").value_or("");
    if (next == key_marker && version == version_marker) co_return fail(Code::internal, "the node makes no progress behind '{}'", next);
    key_marker = next;
    version_marker = version;
  }
}

Task<Result<void>> rewrite(Session* session, const BucketOptions* options) {
  std::vector<std::string> problems;
  CO_TRY_ASSIGN(Sum sum, co_await run_pass(session, options, false, &problems));
  // Copies that repair makes, and objects that could not be looked at while data was moved.
  uint64_t waiting = sum.in_place + sum.pending + sum.busy;
  TimePoint progress = Executor::here().now();
  while (waiting > 0 && !options->no_wait && Executor::here().now() - progress < kStuck) {
    co_await sleep_for(kLookAgain);
    std::vector<std::string> again;
    CO_TRY_ASSIGN(const Sum look, co_await run_pass(session, options, true, &again));
    sum.in_place += look.in_place;
    sum.copied += look.copied;
    sum.bytes += look.bytes;
    const uint64_t now = look.in_place + look.pending + look.busy;
    if (now < waiting) progress = Executor::here().now();
    waiting = now;
  }
  if (options->target.json) {
    JsonWriter json;
    json.begin_object()
        .field("bucket", options->name)
        .field("looked", sum.looked)
        .field("in_place", sum.in_place)
        .field("copied", sum.copied);
    json.field("bytes", sum.bytes)
        .field("waiting", waiting)
        .field("left", sum.left)
        .field("failed", sum.failed)
        .key("problems")
        .begin_array();
    for (const auto& problem : problems) json.value(problem);
    fmt::print("{}\n", json.end_array().end_object().str());
  } else {
    if (!options->target.quiet) fmt::print(stderr, "\r\033[K");
    for (const auto& problem : problems) fmt::print("{}\n", problem);
    fmt::print("{} objects of {}: {} got more copies where they lie, {} were written anew ({} in all), {} had their redundancy{}\n",
               sum.looked, options->name, sum.in_place, sum.copied, format_size(sum.bytes), sum.right,
               sum.left + sum.failed == 0 ? std::string() : fmt::format(", {} were left as they are", sum.left + sum.failed));
    if (waiting > 0) fmt::print("{} still lack copies; repair makes them in the background (`quarry status`)\n", waiting);
  }
  if (sum.left + sum.failed > 0)
    co_return fail(Code::precondition_failed, "{} objects could not be brought to the bucket's redundancy; they are as they were",
                   sum.left + sum.failed);
  co_return Result<void>();
}

}  // namespace

int run_bucket_rewrite(const BucketOptions& options) {
  return with_session(options.target, [&options](Session& session) { return rewrite(&session, &options); });
}

}  // namespace quarry::cli
