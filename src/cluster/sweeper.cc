#include "cluster/sweeper.h"

#include "base/log.h"
#include "cluster/files.h"
#include "cluster/keys.h"
#include "observe/metrics.h"

namespace quarry::cluster {
namespace {

constexpr size_t kBatch = 256;  // retire rows at a time
constexpr size_t kListBatch = 1024;
constexpr Duration kGather = std::chrono::milliseconds(20);  // after a wake: more will follow

Task<Result<void>> remove_keys(meta::Transaction& transaction, const std::vector<std::string>& rows) {
  for (const std::string& key : rows) transaction.remove(key);
  co_return Result<void>();
}

std::string after(std::string key) {
  key.push_back('\0');
  return key;
}

}  // namespace

Task<void> Sweeper::run() {
  while (!plane_.background.stopping()) {
    if (!plane_.sessions_recovered.load()) {  // also while a drive is away: it may be back
      Result<size_t> removed = co_await recover_sessions();
      if (!removed) LOG_WARNING("orphan recovery failed; it will be tried again", {"error", removed.error().to_string()});
    }
    Result<size_t> left = co_await sweep();
    if (!left) LOG_WARNING("sweep failed; it will be tried again", {"error", left.error().to_string()});
    co_await alarm.wait(plane_.tuning.sweep_interval);
    if (!plane_.background.stopping()) co_await sleep_for(kGather);
  }
}

Task<Result<size_t>> Sweeper::sweep() {
  static const Counter swept = metrics::counter("cluster_retired_writes_removed_total", "Retired writes whose chunks were removed");
  co_await turn_.acquire();
  struct Release {
    Semaphore& turn;
    ~Release() { turn.release(); }
  } release{turn_};
  meta::ScanOptions options;
  options.range = meta::KeyRange::prefix("cr");
  options.limit = kBatch;
  size_t left = 0;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await plane_.meta.scan(options));
    if (rows.empty()) break;
    options.range.begin = after(rows.back().key);
    // Whoever looked one of these layouts up before it was retired holds a guard from before now, or is a registered reader by now.
    plane_.reads.turn();
    while (!plane_.reads.old_guards_gone()) co_await sleep_for(std::chrono::milliseconds(1));
    auto topology = plane_.drives.topology();
    Removal removal;
    std::vector<std::string> done;
    for (const meta::KeyValue& row : rows) {
      Decoder in(row.value);
      CO_TRY_ASSIGN(DataLayout layout, DataLayout::decode(in));
      if (plane_.reads.reading(layout.write_id) || !removal.add(*topology, layout)) {
        ++left;
        continue;
      }
      done.push_back(row.key);
    }
    CO_TRY(co_await removal.run());
    if (done.empty()) continue;
    auto body = [&done](meta::Transaction& transaction) { return remove_keys(transaction, done); };
    Result<meta::Version> version = co_await meta::transact(plane_.meta, body);
    if (!version) co_return std::move(version).error();
    swept.add(done.size());
  }
  co_return left;
}

Task<Result<size_t>> Sweeper::remove_orphans(Drive& drive, WriteId first, WriteId end) {
  ChunkId from = chunk_id({.kind = ChunkKind::data, .serial = first});
  const ChunkId to = chunk_id({.kind = ChunkKind::data, .serial = end});
  size_t removed = 0;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<chunk::ChunkStat> chunks, co_await drive.list(from, to, kListBatch));
    if (chunks.empty()) co_return removed;
    from = chunks.back().id;
    if (++from.low == 0) ++from.high;
    std::vector<std::string> wanted;
    for (const chunk::ChunkStat& stat : chunks) {
      const ChunkName name = chunk_name(stat.id);
      wanted.push_back(keys::data(name.group, name.serial));
      wanted.push_back(keys::retired(name.serial));
    }
    CO_TRY_ASSIGN(auto rows, co_await plane_.meta.get_many(std::move(wanted)));
    std::vector<ChunkId> orphans;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const ChunkName name = chunk_name(chunks[i].id);
      if (rows[2 * i] && drive.keeps_files() && name.stripe == 0) {  // committed; perhaps the end came before its file was shown
        Decoder in(*rows[2 * i]);
        CO_TRY_ASSIGN(DataLayout layout, DataLayout::decode(in));
        if (layout.redundancy.is_copy(name.shard))
          CO_TRY(co_await show_if_current(plane_, drive, layout, name.shard, term_of(name.generation)));
      }
      if (!rows[2 * i] && !rows[2 * i + 1]) orphans.push_back(chunks[i].id);
    }
    if (orphans.empty()) continue;
    removed += orphans.size();
    CO_TRY(co_await drive.disown(std::move(orphans)));
  }
}

Task<Result<size_t>> Sweeper::recover_sessions() {
  meta::ScanOptions options;
  options.range = meta::KeyRange::prefix("cs");
  size_t removed = 0;
  bool all = true;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await plane_.meta.scan(options));
    if (rows.empty()) break;
    options.range.begin = after(rows.back().key);
    std::vector<std::string> done;
    for (const meta::KeyValue& row : rows) {
      Decoder key(std::string_view(row.key).substr(2));
      const uint64_t session = key.key_u64();
      const WriteId first = key.key_u64();
      Decoder value(row.value);
      const WriteId end = value.u64();
      CO_TRY(key.finish("session key"));
      CO_TRY(value.finish("session row"));
      if (session == plane_.ids.session()) continue;
      auto topology = plane_.drives.topology();
      bool complete = true;
      for (const auto& [number, known] : topology->map.drives) {
        if (known.state == DriveState::failed || known.state == DriveState::removed) continue;
        Drive* drive = topology->drive(number);
        if (drive == nullptr || !drive->readable()) {
          complete = false;
          continue;
        }
        if (looked_through_.contains({number, first})) continue;
        CO_TRY_ASSIGN(size_t count, co_await remove_orphans(*drive, first, end));
        looked_through_.emplace(number, first);
        removed += count;
      }
      all = all && complete;
      if (!complete) continue;
      done.push_back(row.key);
      std::erase_if(looked_through_, [first](const auto& one) { return one.second == first; });
    }
    if (done.empty()) continue;
    auto body = [&done](meta::Transaction& transaction) { return remove_keys(transaction, done); };
    Result<meta::Version> version = co_await meta::transact(plane_.meta, body);
    if (!version) co_return std::move(version).error();
  }
  plane_.sessions_recovered.store(all);
  if (removed > 0) LOG_INFO("removed chunks of writes that were never committed", {"chunks", removed});
  co_return removed;
}

}  // namespace quarry::cluster
