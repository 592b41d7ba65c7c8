#include "cluster/map_keeper.h"

namespace quarry::cluster {
namespace {

using Rows = std::map<std::string, std::string>;

// Rows of the map only: "cm", "cd...", "cg...".
bool is_map_row(std::string_view key) { return key.starts_with("cm") || key.starts_with("cd") || key.starts_with("cg"); }

Task<Result<void>> write_rows(meta::Transaction& transaction, const Rows& before, const Rows& after) {
  for (const auto& [key, value] : after) {
    auto old = before.find(key);
    if (old == before.end() || old->second != value) transaction.put(key, value);
  }
  for (const auto& [key, value] : before) {
    if (!after.contains(key)) transaction.remove(key);
  }
  co_return Result<void>();
}

}  // namespace

Task<Result<void>> MapKeeper::load() {
  std::vector<meta::KeyValue> rows;
  meta::ScanOptions options;
  options.range = {"cd", "cn"};
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> some, co_await meta_.scan(options));
    if (some.empty()) break;
    options.range.begin = some.back().key + '\0';
    for (meta::KeyValue& row : some) {
      if (is_map_row(row.key)) rows.push_back(std::move(row));
    }
  }
  CO_TRY_ASSIGN(std::optional<ClusterMap> map, ClusterMap::decode(rows));
  if (!map)
    co_return fail(Code::not_found, "the metadata holds no cluster map: its creation was interrupted; to begin anew, start with --force");
  drives_.publish(std::move(*map));
  co_return Result<void>();
}

Task<Result<void>> MapKeeper::commit(const ClusterMap& before, const ClusterMap& after) {
  const Rows old_rows = before.epoch == 0 ? Rows{} : before.rows();
  const Rows new_rows = after.rows();
  auto body = [&old_rows, &new_rows](meta::Transaction& transaction) { return write_rows(transaction, old_rows, new_rows); };
  Result<meta::Version> version = co_await meta::transact(meta_, body);
  if (!version && version.error().code() == Code::unknown_outcome)
    version = co_await meta::transact(meta_, body);  // the same rows once more
  if (!version) co_return std::move(version).error();
  co_return Result<void>();
}

Task<Result<void>> MapKeeper::create(ClusterMap map) {
  co_await turn_.acquire();
  map.epoch = 1;
  Result<void> done = co_await commit(ClusterMap(), map);
  if (done) drives_.publish(std::move(map));
  turn_.release();
  co_return done;
}

Task<Result<void>> MapKeeper::change(Edit edit) {
  co_await turn_.acquire();
  auto topology = drives_.topology();
  ClusterMap map = topology->map;
  Result<void> done = edit(map);
  if (done) {
    ++map.epoch;
    done = co_await commit(topology->map, map);
    if (done) drives_.publish(std::move(map));
  }
  turn_.release();
  co_return done;
}

void MapKeeper::republish() { drives_.publish(drives_.topology()->map); }

}  // namespace quarry::cluster
