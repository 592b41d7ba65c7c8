#include "cluster/drives/map_keeper.h"

#include "base/log.h"
#include "cluster/map/keys.h"
#include "meta/row_batches.h"

namespace quarry::cluster {
namespace {

using Rows = std::map<std::string, std::string>;

Result<uint64_t> epoch_of(std::string_view head) {
  Decoder in(head);
  in.u8();
  const uint64_t epoch = in.u64();
  TRY(in.check("head of the cluster map"));
  return epoch;
}

// The map's rows: "cm", "cd...", "cg...". `from`: the store, or a transaction.
template <class From>
Task<Result<std::optional<ClusterMap>>> read_map(From* from) {
  std::vector<meta::KeyValue> rows;
  for (const char* prefix : {"cd", "cg", "cm"}) {
    meta::RowBatches batches(*from, meta::KeyRange::prefix(prefix));
    for (;;) {
      CO_TRY_ASSIGN(std::vector<meta::KeyValue> some, co_await batches.next());
      if (some.empty()) break;
      rows.insert(rows.end(), std::make_move_iterator(some.begin()), std::make_move_iterator(some.end()));
    }
  }
  co_return ClusterMap::decode(rows);
}

// The map that the transaction sees: `believed`, unless that is not what is there. Reading its head is enough to conflict with every other
// change of it.
Task<Result<std::optional<ClusterMap>>> stored_map(meta::Transaction* transaction, const ClusterMap* believed) {
  CO_TRY_ASSIGN(const std::optional<std::string> head, co_await transaction->get(keys::map_head()));
  if (!head) co_return std::optional<ClusterMap>();
  CO_TRY_ASSIGN(const uint64_t epoch, epoch_of(*head));
  if (epoch == believed->epoch) co_return std::optional<ClusterMap>(*believed);
  LOG_WARNING("the cluster map is another than was believed", {"epoch", epoch}, {"believed", believed->epoch});
  Result<std::optional<ClusterMap>> map = co_await read_map(transaction);
  co_return map;
}

void write_difference(meta::Transaction& transaction, const Rows& before, const Rows& after) {
  for (const auto& [key, value] : after) {
    auto old = before.find(key);
    if (old == before.end() || old->second != value) transaction.put(key, value);
  }
  for (const auto& [key, value] : before) {
    if (!after.contains(key)) transaction.remove(key);
  }
}

// One change, run as often as it takes.
struct Change {
  const ClusterMap* believed;
  const MapKeeper::Edit* edit;
  std::optional<ClusterMap> made;  // the newest attempt; its outcome may be unknown
};

Task<Result<void>> apply_change(meta::Transaction* transaction, Change* change) {
  CO_TRY_ASSIGN(std::optional<ClusterMap> stored, co_await stored_map(transaction, change->believed));
  if (!stored) co_return fail(Code::not_found, "the metadata holds no cluster map");
  const Rows before = stored->rows();
  if (change->made && before == change->made->rows()) co_return Result<void>();  // the attempt before came through
  ClusterMap map = std::move(*stored);
  CO_TRY((*change->edit)(map));
  ++map.epoch;
  write_difference(*transaction, before, map.rows());
  change->made = std::move(map);
  co_return Result<void>();
}

Task<Result<void>> apply_first(meta::Transaction* transaction, const ClusterMap* first) {
  CO_TRY_ASSIGN(const std::optional<std::string> head, co_await transaction->get(keys::map_head()));
  const Rows rows = first->rows();
  if (head && *head == rows.at(keys::map_head())) co_return Result<void>();  // an attempt before came through
  if (head) co_return fail(Code::already_exists, "the metadata holds a cluster map");
  write_difference(*transaction, Rows(), rows);
  co_return Result<void>();
}

struct Look {
  const ClusterMap* believed;
  std::optional<ClusterMap> seen;
};

// With a write: it commits only after everything that was handed to the log before it.
Task<Result<void>> look_for_sure(meta::Transaction* transaction, Look* look) {
  CO_TRY_ASSIGN(look->seen, co_await stored_map(transaction, look->believed));
  transaction->put("cx", "");
  co_return Result<void>();
}

}  // namespace

Task<Result<void>> MapKeeper::load() {
  CO_TRY_ASSIGN(std::optional<ClusterMap> map, co_await read_map(&meta_));
  if (!map)
    co_return fail(Code::not_found, "the metadata holds no cluster map: its creation was interrupted; to begin anew, start with --force");
  drives_.publish(std::move(*map));
  co_return Result<void>();
}

Task<Result<void>> MapKeeper::create(ClusterMap map) {
  co_await turn_.acquire();
  map.epoch = 1;
  const auto body = [&map](meta::Transaction& transaction) { return apply_first(&transaction, &map); };
  Result<meta::Version> done = co_await meta::transact(meta_, body);
  if (!done && done.error().code() == Code::unknown_outcome) done = co_await meta::transact(meta_, body);
  if (done) drives_.publish(std::move(map));
  turn_.release();
  if (!done) co_return std::move(done).error();
  co_return Result<void>();
}

Task<Result<void>> MapKeeper::change(Edit edit) {
  co_await turn_.acquire();
  const auto topology = drives_.topology();
  Change change{&topology->map, &edit, std::nullopt};
  const auto body = [&change](meta::Transaction& transaction) { return apply_change(&transaction, &change); };
  Result<meta::Version> done = co_await meta::transact(meta_, body);
  bool unknown = !done && done.error().code() == Code::unknown_outcome;
  if (unknown) {
    Result<meta::Version> again = co_await meta::transact(meta_, body);
    // Told as the first was, unless it is certain by now: the change may be seen later.
    if (again) done = std::move(again);
    unknown = !done;
  }
  in_doubt_ = in_doubt_ || unknown;
  if (done) {
    in_doubt_ = false;
    drives_.publish(std::move(*change.made));
  }
  turn_.release();
  if (!done) co_return std::move(done).error();
  co_return Result<void>();
}

Task<Result<void>> MapKeeper::settle() {
  if (!in_doubt_) co_return Result<void>();
  co_await turn_.acquire();
  const auto topology = drives_.topology();
  Look look{&topology->map, std::nullopt};
  const auto body = [&look](meta::Transaction& transaction) { return look_for_sure(&transaction, &look); };
  const Result<meta::Version> done = co_await meta::transact(meta_, body);
  if (done && look.seen) {
    in_doubt_ = false;
    if (look.seen->epoch != topology->map.epoch) drives_.publish(std::move(*look.seen));
  }
  turn_.release();
  if (!done) co_return done.error();
  co_return Result<void>();
}

}  // namespace quarry::cluster
