// list: one ordered walk over the current rows, with jumps over common prefixes; whatever the bucket's size, a page touches the
// rows it shows, one row a common prefix, and one more.
#include "object/engine/engine.h"
#include "object/engine/names.h"

namespace quarry::object {
namespace {

using Step = meta::Cursor::Step;

// Collects a page; runs where the backend may block.
struct PageBuilder {
  BucketId bucket;
  ListOptions options;
  ListPage page;
  Result<void> state;

  size_t items() const { return page.objects.size() + page.common_prefixes.size(); }

  Step visit(std::string_view row, std::string_view value) {
    auto parsed = parse_row_key(row);
    if (!parsed) return stop(std::move(parsed).error());
    if (items() >= options.limit) {
      page.truncated = true;
      return {.kind = Step::Kind::stop};
    }
    const std::string_view group = common_prefix(parsed->key, options.prefix, options.delimiter);
    if (!group.empty()) {
      page.common_prefixes.emplace_back(group);
      page.next = group;
      return {.kind = Step::Kind::seek, .seek_to = after_prefix(RowKind::current, bucket, group)};
    }
    auto record = decode_version_head(value);
    if (!record) return stop(std::move(record).error().with(parsed->key));
    page.next = parsed->key;
    page.objects.push_back(to_info(std::move(*record), std::move(parsed->key), true));
    return {.kind = Step::Kind::next};
  }
  Step stop(Error error) {
    state = std::move(error);
    return {.kind = Step::Kind::stop};
  }
};

}  // namespace

Task<Result<ListPage>> Engine::list(const RequestContext& ctx, std::string bucket_name, ListOptions options) {
  CO_TRY_ASSIGN(auto bucket, co_await fresh_bucket(std::move(bucket_name)));
  options.limit = std::min(options.limit, kListLimitMax);
  if (options.limit == 0) co_return ListPage();
  const BucketId id = bucket->info.id;
  meta::KeyRange range = prefix_rows(RowKind::current, id, options.prefix);
  range.begin = first_row_after(RowKind::current, id, options.after, options.prefix, options.delimiter);
  if (!range.end.empty() && range.begin >= range.end) co_return ListPage();
  PageBuilder builder{.bucket = id, .options = std::move(options), .page = {}, .state = {}};
  CO_TRY_ASSIGN(auto cursor, co_await meta().cursor(std::move(range), meta::Direction::forward));
  builder.page.objects.reserve(builder.options.limit);
  PageBuilder* target = &builder;
  auto walked = co_await cursor->walk([target](std::string_view row, std::string_view value) { return target->visit(row, value); });
  CO_TRY(std::move(walked));
  CO_TRY(std::move(builder.state));
  if (!builder.page.truncated) builder.page.next.clear();
  co_return std::move(builder.page);
}

}  // namespace quarry::object
