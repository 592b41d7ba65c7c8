#include "cluster/repair/sweeper.h"

#include "base/log.h"
#include "cluster/files/files.h"
#include "cluster/map/keys.h"
#include "meta/row_batches.h"
#include "observe/metrics.h"

namespace quarry::cluster {
namespace {

constexpr size_t kBatch = 256;               // retire rows at a time
constexpr size_t kChunksAtOnce = 16 * 1024;  // about so many are asked of the drives at a time
constexpr unsigned kFruitlessShare = 10;     // of the time at most one part of so many goes into sweeps that find nothing they may remove
constexpr size_t kListBatch = 256;
constexpr Duration kGather = std::chrono::milliseconds(20);  // after a wake: more will follow

Task<Result<void>> remove_keys(meta::Transaction& transaction, const std::vector<std::string>& rows) {
  for (const std::string& key : rows) transaction.remove(key);
  co_return Result<void>();
}

}  // namespace

Task<void> Sweeper::run() {
  while (!plane_.background.stopping()) {
    const TimePoint begin = Executor::here().now();
    const uint64_t before = removed_;
    Result<size_t> left = size_t{0};
    if (plane_.may_remove()) left = co_await sweep();
    if (!left && !plane_.background.stopping()) LOG_WARNING("sweep failed; it will be tried again", {"error", left.error().to_string()});
    // Each pass looks at all rows. With a drive away they grow, and few can go.
    const Duration took = Executor::here().now() - begin - std::exchange(waited_, Duration(0));
    if (removed_ - before < (left ? *left : 1)) co_await pause(took * (kFruitlessShare - 1));
    co_await alarm.wait(plane_.tuning.sweep_interval);
    if (!plane_.background.stopping()) co_await sleep_for(kGather);
  }
}

Task<void> Sweeper::pause(Duration duration) {
  constexpr Duration kStep = std::chrono::milliseconds(100);  // closing does not wait for it
  const TimePoint end = Executor::here().now() + duration;
  while (!plane_.background.stopping() && Executor::here().now() < end)
    co_await sleep_for(std::min<Duration>(kStep, end - Executor::here().now()));
}

Task<void> Sweeper::run_recovery() {
  while (!plane_.background.stopping() && !plane_.sessions_recovered.load()) {
    Result<size_t> removed = size_t{0};
    if (plane_.may_remove()) removed = co_await recover_sessions();
    if (!removed && !plane_.background.stopping())
      LOG_WARNING("orphan recovery failed; it will be tried again", {"error", removed.error().to_string()});
    if (!plane_.sessions_recovered.load()) co_await pause(plane_.tuning.sweep_interval);  // a drive is away: it may be back
  }
}

Task<Result<size_t>> Sweeper::sweep() {
  static const Counter swept = metrics::counter("cluster_retired_writes_removed_total", "Retired writes whose chunks were removed");
  co_await turn_.acquire();
  struct Release {
    Semaphore& turn;
    ~Release() { turn.release(); }
  } release{turn_};
  meta::RowBatches batches(plane_.meta, meta::KeyRange::prefix("cr"), kBatch);
  size_t left = 0;
  std::optional<Error> error;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await batches.next());
    if (rows.empty()) break;
    // Whoever looked one of these layouts up before it was retired holds a guard from before now, or is a registered reader by now.
    plane_.reads.turn();
    while (!plane_.reads.old_guards_gone()) {
      if (plane_.background.stopping()) co_return fail(Code::cancelled, "the store is closing");
      constexpr Duration kLook = std::chrono::milliseconds(1);
      co_await sleep_for(kLook);
      waited_ += kLook;
    }
    auto topology = plane_.drives.topology();
    for (size_t next = 0; next < rows.size();) {
      Removal removal;
      struct Candidate {
        std::string row;
        DataLayout layout;
      };
      std::vector<Candidate> candidates;
      for (; next < rows.size() && removal.chunks < kChunksAtOnce; ++next) {
        Decoder in(rows[next].value);
        CO_TRY_ASSIGN(DataLayout layout, DataLayout::decode(in));
        if (plane_.reads.reading(layout.write_id) || !removal.add(*topology, layout)) {
          ++left;
          continue;
        }
        candidates.push_back({rows[next].key, layout});
      }
      Result<void> removed = co_await removal.run();
      std::vector<std::string> done;
      for (Candidate& candidate : candidates) {  // one drive that fails does not keep the space of the others
        if (!removal.failed.empty() && Removal::touches(*topology, candidate.layout, removal.failed)) {
          ++left;
        } else {
          done.push_back(std::move(candidate.row));
          co_await forget_cached(plane_, candidate.layout);
        }
      }
      if (!removed) error = std::move(removed).error();
      if (done.empty()) continue;
      auto body = [&done](meta::Transaction& transaction) { return remove_keys(transaction, done); };
      Result<meta::Version> version = co_await meta::transact(plane_.meta, body);
      if (!version) co_return std::move(version).error();
      swept.add(done.size());
      removed_ += done.size();
    }
  }
  if (error) co_return std::move(*error);
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
    // Neighbours are of one write.
    std::vector<std::pair<WriteId, GroupId>> writes;
    std::vector<std::string> wanted;
    std::vector<size_t> write_of;
    for (const chunk::ChunkStat& stat : chunks) {
      const ChunkName name = chunk_name(stat.id);
      if (writes.empty() || writes.back() != std::pair(name.serial, name.group)) {
        writes.emplace_back(name.serial, name.group);
        wanted.push_back(keys::data(name.group, name.serial));
        wanted.push_back(keys::retired(name.serial));
      }
      write_of.push_back(writes.size() - 1);
    }
    CO_TRY_ASSIGN(auto rows, co_await plane_.meta.get_many(std::move(wanted)));
    std::vector<ChunkId> orphans;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const ChunkName name = chunk_name(chunks[i].id);
      const auto &data = rows[2 * write_of[i]], &retired = rows[2 * write_of[i] + 1];
      if (data && drive.keeps_files() && name.stripe == 0) {  // committed; perhaps the end came before its file was shown
        Decoder in(*data);
        CO_TRY_ASSIGN(DataLayout layout, DataLayout::decode(in));
        if (layout.redundancy.is_copy(name.shard))
          CO_TRY(co_await plane_.files->show_if_current(drive, layout, name.shard, term_of(name.generation)));
      }
      if (!data && !retired) orphans.push_back(chunks[i].id);
    }
    if (orphans.empty()) continue;
    // The rows were not read in one moment: a write retired between the two looks is not an orphan, and may have readers.
    std::vector<std::string> retired;
    for (const ChunkId id : orphans) retired.push_back(keys::retired(chunk_name(id).serial));
    CO_TRY_ASSIGN(auto again, co_await plane_.meta.get_many(std::move(retired)));
    size_t kept = 0;
    for (size_t i = 0; i < orphans.size(); ++i) {
      if (!again[i]) orphans[kept++] = orphans[i];
    }
    orphans.resize(kept);
    if (orphans.empty()) continue;
    removed += orphans.size();
    CO_TRY(co_await drive.disown(std::move(orphans)));
  }
}

Task<Result<std::vector<Sweeper::Block>>> Sweeper::older_blocks() {
  std::vector<Block> blocks;
  meta::RowBatches batches(plane_.meta, meta::KeyRange::prefix("cs"));
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await batches.next());
    if (rows.empty()) co_return blocks;
    for (meta::KeyValue& row : rows) {
      Decoder key(std::string_view(row.key).substr(2));
      const uint64_t session = key.key_u64();
      const WriteId first = key.key_u64();
      Decoder value(row.value);
      const WriteId end = value.u64();
      CO_TRY(key.finish("session key"));
      CO_TRY(value.finish("session row"));
      if (session != plane_.ids.session()) blocks.push_back({std::move(row.key), first, end});
    }
  }
}

Task<Result<size_t>> Sweeper::look_through(Drive* drive, const std::vector<Block>* blocks) {
  size_t removed = 0;
  for (const Block& block : *blocks) {
    if (looked_through_.contains({drive->number(), block.first})) continue;
    CO_TRY_ASSIGN(size_t count, co_await remove_orphans(*drive, block.first, block.end));
    looked_through_.emplace(drive->number(), block.first);
    removed += count;
  }
  co_return removed;
}

Task<Result<size_t>> Sweeper::recover_sessions() {
  co_await recovery_turn_.acquire();
  struct Release {
    Semaphore& turn;
    ~Release() { turn.release(); }
  } release{recovery_turn_};
  CO_TRY_ASSIGN(const std::vector<Block> blocks, co_await older_blocks());
  auto topology = plane_.drives.topology();
  bool all = true;
  std::vector<Task<Result<size_t>>> looks;
  std::vector<uint32_t> numbers;
  for (const auto& [number, known] : topology->map.drives) {
    if (known.state == DriveState::failed || known.state == DriveState::removed) continue;
    Drive* drive = topology->drive(number);
    if (drive == nullptr || !drive->readable()) {
      all = false;
      continue;
    }
    numbers.push_back(number);
    looks.push_back(look_through(drive, &blocks));
  }
  size_t removed = 0;
  std::vector<Result<size_t>> results = co_await when_all(std::move(looks));
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i]) {
      removed += *results[i];
      continue;
    }
    all = false;
    LOG_WARNING("a drive could not be looked through for writes that were never committed", {"drive", numbers[i]},
                {"error", results[i].error().to_string()});
  }
  if (removed > 0) LOG_INFO("removed chunks of writes that were never committed", {"chunks", removed});
  for (size_t next = 0; all && next < blocks.size();) {
    std::vector<std::string> done;
    for (; next < blocks.size() && done.size() < kBatch; ++next) done.push_back(blocks[next].row);
    auto body = [&done](meta::Transaction& transaction) { return remove_keys(transaction, done); };
    Result<meta::Version> version = co_await meta::transact(plane_.meta, body);
    if (!version) co_return std::move(version).error();
  }
  if (all) looked_through_.clear();
  plane_.sessions_recovered.store(all);
  co_return removed;
}

}  // namespace quarry::cluster
