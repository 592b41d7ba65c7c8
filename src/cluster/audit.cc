#include "cluster/audit.h"

#include <bit>
#include <set>

#include "cluster/keys.h"
#include "io/pace.h"

namespace quarry::cluster {
namespace {

constexpr size_t kListBatch = 1024;
constexpr size_t kRowBatch = 256;

std::string after(std::string key) {
  key.push_back('\0');
  return key;
}

ChunkId next_id(ChunkId id) {
  if (++id.low == 0) ++id.high;
  return id;
}

std::string describe(const ChunkName& name) {
  return fmt::format("chunk of write {} group {} stripe {} shard {} (term {}, rewrite {})", name.serial, name.group, name.stripe,
                     name.shard, term_of(name.generation), rewrite_of(name.generation));
}

}  // namespace

// Blocks of write ids whose writes may be unfinished.
struct Auditor::Sessions {
  std::vector<std::pair<WriteId, WriteId>> open;
  bool covers(WriteId id) const {
    return std::ranges::any_of(open, [id](const auto& block) { return id >= block.first && id < block.second; });
  }
};

Task<Result<Auditor::Sessions>> Auditor::load_sessions() {
  Sessions sessions;
  meta::ScanOptions options;
  options.range = meta::KeyRange::prefix("cs");
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await plane_.meta.scan(options));
    if (rows.empty()) break;
    options.range.begin = after(rows.back().key);
    for (const meta::KeyValue& row : rows) {
      Decoder key(std::string_view(row.key).substr(2));
      key.key_u64();
      const WriteId first = key.key_u64();
      Decoder value(row.value);
      sessions.open.emplace_back(first, value.u64());
    }
  }
  sessions.open.emplace_back(plane_.ids.first_leased(), UINT64_MAX);  // of this session, also those leased after this look
  co_return sessions;
}

void Auditor::violation(DataPlane::FsckReport* report, std::string text) {
  if (report->violations.size() < kViolationsMax) {
    report->violations.push_back(std::move(text));
  } else if (report->violations.size() == kViolationsMax) {
    report->violations.push_back("further violations are counted, not listed");
  }
}

Task<Result<std::vector<Auditor::Verdict>>> Auditor::judge(Drive& drive, std::vector<chunk::ChunkStat> chunks, const Sessions& sessions) {
  std::vector<std::string> wanted;
  for (const chunk::ChunkStat& stat : chunks) {
    const ChunkName name = chunk_name(stat.id);
    wanted.push_back(keys::data(name.group, name.serial));
    wanted.push_back(keys::retired(name.serial));
  }
  CO_TRY_ASSIGN(auto rows, co_await plane_.meta.get_many(std::move(wanted)));
  auto topology = plane_.drives.topology();
  std::vector<Verdict> verdicts;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const ChunkName name = chunk_name(chunks[i].id);
    const bool in_motion = rows[2 * i + 1].has_value() || sessions.covers(name.serial);
    if (!rows[2 * i]) {
      verdicts.push_back(in_motion ? Verdict::in_motion : Verdict::orphan);
      continue;
    }
    Decoder in(*rows[2 * i]);
    CO_TRY_ASSIGN(DataLayout layout, DataLayout::decode(in));
    const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
    Verdict verdict = Verdict::misplaced;
    if (name.shard < members.size() && name.stripe < chunk_stripes(layout)) {
      for (const Place& place : places_of(members[name.shard])) {
        if (place == Place{drive.number(), term_of(name.generation)}) verdict = Verdict::placed;
      }
      if (verdict == Verdict::misplaced && members[name.shard].pending) verdict = Verdict::in_motion;
    }
    verdicts.push_back(verdict);
  }
  co_return verdicts;
}

Task<Result<Auditor::Leftovers>> Auditor::remove_leftovers(Drive& drive) {
  CO_TRY_ASSIGN(Sessions sessions, co_await load_sessions());
  auto [from, to] = chunk_range(ChunkKind::data);
  Leftovers result;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<chunk::ChunkStat> chunks, co_await drive.list(from, to, kListBatch));
    if (chunks.empty()) co_return result;
    if (plane_.background.stopping()) co_return fail(Code::cancelled, "the store is closing");
    from = next_id(chunks.back().id);
    // Writers of an older topology may still put shards where the map does not look any more; their rows come later.
    CO_TRY_ASSIGN(std::vector<Verdict> verdicts, co_await judge(drive, chunks, sessions));
    std::vector<ChunkId> leftovers;
    for (size_t i = 0; i < chunks.size(); ++i) {
      if (verdicts[i] == Verdict::orphan || verdicts[i] == Verdict::misplaced) leftovers.push_back(chunks[i].id);
      result.in_motion += verdicts[i] == Verdict::in_motion;
    }
    if (leftovers.empty()) continue;
    result.removed += leftovers.size();
    CO_TRY(co_await drive.disown(std::move(leftovers)));
  }
}

Task<Result<void>> Auditor::check_drive(Drive& drive, bool repair, const Sessions& sessions, DataPlane::FsckReport* report) {
  ChunkId from{0, 0};
  const ChunkId end{~uint64_t{0}, ~uint64_t{0}};
  for (;;) {
    CO_TRY_ASSIGN(std::vector<chunk::ChunkStat> chunks, co_await drive.list(from, end, kListBatch));
    if (chunks.empty()) break;
    from = next_id(chunks.back().id);
    report->chunks += chunks.size();
    std::vector<chunk::ChunkStat> data;
    for (const chunk::ChunkStat& stat : chunks) {
      const ChunkName name = chunk_name(stat.id);
      if (name.kind == ChunkKind::data) {
        data.push_back(stat);
        continue;
      }
      const bool known =
          name.kind == ChunkKind::metadata_frame || name.kind == ChunkKind::metadata_file || name.kind == ChunkKind::metadata_root;
      if (known && (!log_.knows_drive(drive.number()) || log_.uses(drive.number(), stat.id) || log_.in_flight(stat.id))) continue;
      Result<chunk::ChunkStat> again = co_await drive.stat(stat.id);  // trimmed meanwhile?
      if (!again || (known && (log_.uses(drive.number(), stat.id) || log_.in_flight(stat.id)))) continue;
      ++report->orphan_chunks;
      violation(report, fmt::format("drive {}: chunk {} of kind {} is not in use by the metadata log", drive.number(), stat.id.to_string(),
                                    static_cast<int>(name.kind)));
      if (repair) {
        std::vector<ChunkId> ids{stat.id};
        CO_TRY(co_await drive.remove(std::move(ids)));
      }
    }
    CO_TRY_ASSIGN(std::vector<Verdict> verdicts, co_await judge(drive, data, sessions));
    for (size_t i = 0; i < data.size(); ++i) {
      if (verdicts[i] == Verdict::placed || verdicts[i] == Verdict::in_motion) continue;
      std::vector<chunk::ChunkStat> one{data[i]};
      Result<chunk::ChunkStat> again = co_await drive.stat(data[i].id);
      if (!again) continue;  // removed meanwhile
      CO_TRY_ASSIGN(std::vector<Verdict> second, co_await judge(drive, std::move(one), sessions));
      if (second[0] == Verdict::placed || second[0] == Verdict::in_motion) continue;
      ++report->orphan_chunks;
      violation(report, fmt::format("drive {}: {} {}", drive.number(), describe(chunk_name(data[i].id)),
                                    second[0] == Verdict::orphan ? "belongs to no data row, session or retire row"
                                                                 : "is not where the map places it"));
      if (repair) {
        std::vector<ChunkId> ids{data[i].id};
        CO_TRY(co_await drive.disown(std::move(ids)));
      }
    }
  }
  CO_TRY_ASSIGN(chunk::FsckReport own, co_await drive.fsck());
  for (std::string& text : own.violations) violation(report, fmt::format("drive {}: {}", drive.number(), text));
  co_return Result<void>();
}

Task<Result<void>> Auditor::check_rows(bool repair, DataPlane::FsckReport* report) {
  Pace pace;
  meta::ScanOptions options;
  options.range = meta::KeyRange::prefix("d");
  options.limit = kRowBatch;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await plane_.meta.scan(options));
    if (rows.empty()) break;
    if (plane_.background.stopping()) co_return fail(Code::cancelled, "the store is closing");
    options.range.begin = after(rows.back().key);
    for (const meta::KeyValue& row : rows) {
      ++report->data_rows;
      Decoder in(row.value);
      Result<DataLayout> layout = DataLayout::decode(in);
      if (!layout || keys::data(*layout) != row.key) {
        violation(report, fmt::format("data row {} cannot be read: {}", to_hex(bytes_of(row.key)),
                                      layout ? "its key and content differ" : layout.error().to_string()));
        continue;
      }
      auto topology = plane_.drives.topology();
      const Members members = topology->map.members(static_cast<uint8_t>(layout->redundancy.width()), layout->group);
      for (uint32_t stripe = 0; stripe < layout->stripe_count(); ++stripe) {
        co_await pace;
        uint32_t here = 0;  // bit i: shard i
        std::string missing;
        unsigned missing_count = 0;
        for (unsigned shard = 0; shard < layout->redundancy.width(); ++shard) {
          const uint32_t size = layout->stored_size(stripe, shard);
          if (size == 0) {
            here |= 1u << shard;
            continue;
          }
          bool found = false;
          bool away = members.size() <= shard;
          std::vector<Place> places;
          if (!away) places = places_of(members[shard]);
          for (const Place& place : places) {
            Drive* drive = topology->drive(place.drive);
            if (drive == nullptr || !drive->readable()) {
              away = true;
              continue;
            }
            Result<uint32_t> there = co_await drive->stat_shard(shard_name(*layout, stripe, shard, place.term));
            found = found || (there && *there == size);
          }
          if (found) here |= 1u << shard;
          if (!found && !away) {
            ++missing_count;
            missing += fmt::format("{}{} (drive {})", missing.empty() ? "" : ", ", shard, members[shard].at.drive);
          }
        }
        const bool readable = layout->redundancy.readable_from(here);
        if (missing_count == 0 && readable) continue;
        CO_TRY_ASSIGN(std::optional<std::string> still, co_await plane_.meta.get(row.key));
        if (!still) break;  // retired meanwhile
        report->missing_chunks += missing_count;
        if (!readable) {
          violation(report, fmt::format("write {} stripe {}: {} of {} shards needed are there: it cannot be read{}{}", layout->write_id,
                                        stripe, std::popcount(here), layout->redundancy.k, missing.empty() ? "" : "; missing: ", missing));
        } else {
          bool queued = false;
          for (unsigned spare = 0; spare <= layout->redundancy.losses() && !queued; ++spare) {
            CO_TRY_ASSIGN(std::optional<std::string> entry,
                          co_await plane_.meta.get(keys::repair(static_cast<uint8_t>(spare), layout->write_id)));
            queued = entry.has_value();
          }
          const bool pending = std::ranges::any_of(members, [](const Member& member) { return member.pending; });
          if (!queued && !pending)
            violation(report, fmt::format("write {} stripe {}: shards missing: {}", layout->write_id, stripe, missing));
        }
        if (repair) {
          plane_.repairs.add(*layout);
          plane_.wake_repair();
        }
      }
    }
  }
  co_return Result<void>();
}

Task<Result<uint64_t>> Auditor::find_missing() {
  DataPlane::FsckReport report;
  CO_TRY(co_await check_rows(true, &report));
  co_return report.missing_chunks;
}

Task<Result<DataPlane::FsckReport>> Auditor::fsck(bool repair) {
  DataPlane::FsckReport report;
  CO_TRY_ASSIGN(Sessions sessions, co_await load_sessions());
  auto topology = plane_.drives.topology();
  for (const auto& [number, known] : topology->map.drives) {
    Drive* drive = topology->drive(number);
    if (known.state == DriveState::removed || known.state == DriveState::failed || drive == nullptr || !drive->readable()) continue;
    Result<void> checked = co_await check_drive(*drive, repair, sessions, &report);
    if (!checked) violation(&report, fmt::format("drive {} cannot be checked: {}", number, checked.error().to_string()));
  }
  CO_TRY(co_await check_rows(repair, &report));
  for (const MetadataLog::Entry& entry : log_.entries()) {
    for (uint32_t number : entry.drives) {
      Drive* drive = topology->drive(number);
      if (drive == nullptr || !drive->readable()) continue;
      Result<chunk::ChunkStat> there = co_await drive->stat(entry.id);
      if (there || !log_.uses(number, entry.id)) continue;
      ++report.missing_chunks;
      violation(&report, fmt::format("drive {}: chunk {} of the metadata log is missing", number, entry.id.to_string()));
    }
  }
  const MetadataLog::Status log = log_.status();
  if (log.copies_min < log_.writable_copies_min() && log.drives_away == 0) {
    violation(&report,
              fmt::format("the metadata log has a chunk with {} copies; {} are needed", log.copies_min, log_.writable_copies_min()));
  }
  co_return report;
}

}  // namespace quarry::cluster
