// rewrite: brings one version of an object to its bucket's redundancy. Nothing that anybody sees of it changes: bytes, ETag, version id,
// time and metadata stay. Where the data plane can, what is there stays in its place and gets more copies (DataPlane::widen: the way of
// adopted files, which are not copied); else the bytes are written anew and the version is pointed to them in one transaction, which
// retires the old ones. Readers that began before end with the old bytes; writers and deletes that come between win.
#include "base/log.h"
#include "codec/digest.h"
#include "object/engine/lookup.h"
#include "object/engine/publish.h"

namespace quarry::object {
namespace {

constexpr size_t kPiece = 1 << 20;

struct Swap {
  cluster::DataLayout from, to;
};

// Points a version to other layouts. What it finds otherwise it leaves alone.
class ChangeLayouts : public KeyChange {
 public:
  enum class Way : uint8_t {
    widened,  // `to` is `from` with more shards
    copied,   // each layout has a copy
    merged,   // those of all parts became one: swaps are of all parts, in order, with the same `to`
  };
  ChangeLayouts(std::string key, VersionId version, std::vector<Swap> swaps, Way way)
      : key_(std::move(key)), version_(version), swaps_(std::move(swaps)), way_(way) {}
  bool done() const { return done_; }  // else: the version is gone, or has other layouts

  Task<Result<Applied>> apply(ChangeContext& context) override {
    done_ = false;
    KeyRows rows(context.transaction, context.data, context.bucket.id, key_, context.usage);
    CO_TRY(co_await rows.load());
    CO_TRY_ASSIGN(std::optional<VersionRecord> record, co_await rows.find(version_));
    if (!record || record->delete_marker || record->version_id() != version_) co_return Applied::nothing_to_write;
    std::vector<PartRecord> parts;
    if (record->payload == PayloadKind::parts) {
      meta::Transaction* transaction = &context.transaction;
      RowReader get = [transaction](std::string row) { return transaction->get(std::move(row)); };
      CO_TRY_ASSIGN(parts, co_await read_part_list(std::move(get), context.bucket.id, key_, *record));
    }
    const std::vector<cluster::DataLayout> present = layouts_of(*record, parts);
    if (is_unknown() && matches(present, true)) {
      done_ = true;
      co_return Applied::nothing_to_write;
    }
    if (!matches(present, false)) co_return Applied::nothing_to_write;
    remember(encode(*record));
    CO_TRY(still_as_seen(key_));
    const std::string owner = layout_owner(context.bucket.id, key_, record->unique);
    for (size_t i = 0; i < swaps_.size(); ++i) {
      const auto& [from, to] = swaps_[i];
      if (way_ == Way::widened) {
        context.data.record_widened(context.transaction, from, to, owner);
        continue;
      }
      if (way_ == Way::copied || i == 0) context.data.record(context.transaction, to, owner);
      context.data.retire(context.transaction, from);
      context.usage.retired = true;
    }
    if (record->layout) {
      record->layout = swaps_.front().to;
    } else {
      size_t next = 0;
      for (auto& part : parts) {
        if (part.layout) part.layout = swaps_[next++].to;
        if (way_ == Way::merged) part.layout.reset();
      }
      if (way_ == Way::merged) record->layout = swaps_.front().to;
      const uint32_t pages = record->page_count;
      rows.put_part_list(*record, parts);
      for (uint32_t page = record->page_count; page < pages; ++page)
        context.transaction.remove(payload_key(context.bucket.id, key_, record->slot(), page));
    }
    if (rows.current() && rows.current()->unique == record->unique) {
      rows.set_current(std::move(*record));
    } else {
      rows.rewrite_noncurrent(*record);
    }
    done_ = true;
    co_return Applied::commit;
  }

  static std::vector<cluster::DataLayout> layouts_of(const VersionRecord& record, const std::vector<PartRecord>& parts) {
    if (record.layout) return {*record.layout};
    std::vector<cluster::DataLayout> layouts;
    for (const auto& part : parts) {
      if (part.layout) layouts.push_back(*part.layout);
    }
    return layouts;
  }

 private:
  bool matches(const std::vector<cluster::DataLayout>& present, bool after) const {
    if (after && way_ == Way::merged) return present.size() == 1 && present.front() == swaps_.front().to;
    if (present.size() != swaps_.size()) return false;
    for (size_t i = 0; i < swaps_.size(); ++i) {
      if (present[i] != (after ? swaps_[i].to : swaps_[i].from)) return false;
    }
    return true;
  }

  const std::string key_;
  const VersionId version_;
  const std::vector<Swap> swaps_;
  const Way way_;
  bool done_ = false;
};

bool satisfies(const cluster::DataLayout& layout, const cluster::Redundancy& wanted, uint32_t pack_limit) {
  if (layout.redundancy == wanted) return true;
  const cluster::Redundancy packed{cluster::RedundancyKind::mirror, 1, wanted.m};
  return wanted.kind == cluster::RedundancyKind::erasure && layout.size <= pack_limit && layout.redundancy == packed;
}

struct Copy {
  std::unique_ptr<cluster::DataWriter> writer;
  cluster::DataLayout layout;
};

// Writes the bytes of the layouts, one behind the other, as one new write. md5: what they must be; empty: not known.
Task<Result<Copy>> copy_bytes(Engine* engine, std::vector<cluster::DataLayout> from, cluster::WriteOptions options,
                              std::string expected_md5) {
  Copy copy;
  uint64_t size = 0;
  for (const auto& layout : from) size += layout.size;
  options.size_hint = size;
  CO_TRY_ASSIGN(copy.writer, engine->data().begin_write(options));
  Digest digest(DigestKind::md5);
  for (const auto& layout : from) {
    auto reader = engine->data().read(layout, 0, layout.size, cluster::CachePolicy::bypass);
    for (;;) {
      CO_TRY_ASSIGN(auto piece, co_await reader->next(kPiece));
      if (piece.empty()) break;
      if (!expected_md5.empty()) digest.update(piece.view());
      CO_TRY(co_await copy.writer->append(Buffer::copy_of(piece.view())));
    }
  }
  CO_TRY_ASSIGN(copy.layout, co_await copy.writer->finish());
  if (copy.layout.size != size) co_return fail(Code::corrupt, "{} bytes were read of {}", copy.layout.size, size);
  if (!expected_md5.empty() && text_of(digest.finish().view()) != expected_md5)
    co_return fail(Code::corrupt, "its bytes are not those of its ETag: it was left as it is");
  co_return copy;
}

}  // namespace

Task<Result<Rewritten>> Engine::rewrite(const RequestContext& ctx, std::string bucket_name, std::string key, std::string version_id) {
  using What = Rewritten::What;
  const RequestContext context = ctx;
  CO_TRY_ASSIGN(auto bucket, co_await fresh_bucket(bucket_name));
  const BucketPolicy& policy = bucket->info.policy;
  CO_TRY_ASSIGN(const cluster::Redundancy wanted, redundancy_of(policy));
  auto guard = data().guard_reads();
  auto found = co_await look_up(*this, bucket_name, key, std::move(version_id), false);
  if (!found && found.error().code() == Code::not_found) co_return Rewritten{.what = What::superseded};
  if (!found) co_return std::move(found).error();
  if (guard != nullptr) guard->narrow(found->writes());  // copying may take hours
  const VersionRecord& record = found->record;
  const std::vector<cluster::DataLayout> layouts = ChangeLayouts::layouts_of(record, found->parts);
  Rewritten outcome{.what = What::right, .bytes = record.size};
  if (record.delete_marker || layouts.empty()) co_return outcome;

  const bool merge = data().files().on_all_drives() && !record.layout;
  bool right = !merge;
  for (const auto& layout : layouts) right = right && satisfies(layout, wanted, policy.pack_limit);
  if (right) {
    for (const auto& layout : layouts) {
      CO_TRY_ASSIGN(const bool waits, co_await data().awaits_repair(layout));
      if (waits) outcome.what = What::pending;
    }
    co_return outcome;
  }

  // In place.
  if (record.layout) {
    bool changed = false;
    auto commit = [&](cluster::DataLayout wide) -> Task<Result<void>> {
      return [](Engine* self, RequestContext asked, std::string in, BucketId id, std::string name, VersionId version, Swap swap,
                bool* done) -> Task<Result<void>> {
        ChangeLayouts change(name, version, {swap}, ChangeLayouts::Way::widened);
        CO_TRY(co_await self->run_change(asked, in, id, name, change));
        *done = change.done();
        co_return Result<void>();
      }(this, context, bucket->info.name, bucket->info.id, key, record.version_id(), Swap{*record.layout, wide}, &changed);
    };
    auto wide = co_await data().widen(*record.layout, wanted, std::move(commit));
    if (wide) {
      outcome.what = changed ? What::widened : What::superseded;
      co_return outcome;
    }
    if (wide.error().code() == Code::busy) {
      outcome.what = What::busy;
      outcome.why = wide.error().context();
      co_return outcome;
    }
    if (wide.error().code() != Code::unsupported) co_return std::move(wide).error();
    CO_TRY_ASSIGN(const bool adopted, co_await data().files().is_adopted(*record.layout, std::nullopt));
    if (adopted) {
      outcome.what = What::left;
      outcome.why =
          fmt::format("an adopted file is not copied to another place, and it cannot stay where it is as {} ({}); copy it onto another key",
                      wanted.to_string(), wide.error().context());
      co_return outcome;
    }
  }

  // Anew.
  cluster::WriteOptions options{.redundancy = wanted, .pack_limit = policy.pack_limit};
  if (data().files().on_some_drives() && (record.layout || merge)) options.file = {.directory = bucket->info.name, .name = key};
  std::vector<Copy> copies;
  std::vector<Swap> swaps;
  if (merge) {
    CO_TRY_ASSIGN(auto copy, co_await copy_bytes(this, layouts, options, ""));
    for (const auto& layout : layouts) swaps.push_back({layout, copy.layout});
    copies.push_back(std::move(copy));
  } else {
    size_t part = 0;
    for (const auto& layout : layouts) {
      std::string md5 = record.part_count == 0 ? record.md5 : std::string();
      if (!record.layout) {
        while (!found->parts[part].layout) ++part;
        md5 = found->parts[part++].md5;
      }
      std::vector<cluster::DataLayout> one{layout};
      CO_TRY_ASSIGN(auto copy, co_await copy_bytes(this, std::move(one), options, std::move(md5)));
      if (copy.layout.redundancy == layout.redundancy) {
        outcome.what = What::left;
        outcome.why = fmt::format("there is no room for {}: it would be {} again; add drives or delete data", wanted.to_string(),
                                  layout.redundancy.to_string());
        co_return outcome;
      }
      swaps.push_back({layout, copy.layout});
      copies.push_back(std::move(copy));
    }
  }
  ChangeLayouts change(key, record.version_id(), std::move(swaps), merge ? ChangeLayouts::Way::merged : ChangeLayouts::Way::copied);
  auto done = co_await run_change(context, bucket->info.name, bucket->info.id, key, change);
  if (!done) {
    if (done.error().code() == Code::unknown_outcome) {
      for (auto& copy : copies) copy.writer->settle();
    }
    co_return std::move(done).error();
  }
  if (!change.done()) {
    outcome.what = What::superseded;
    co_return outcome;
  }
  for (auto& copy : copies) copy.writer->keep();
  outcome.what = What::copied;
  co_await settle_name(bucket->info.id, key, {});
  co_return outcome;
}

}  // namespace quarry::object
