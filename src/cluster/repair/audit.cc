#include "cluster/repair/audit.h"

#include <bit>
#include <set>

#include "base/log.h"
#include "cluster/map/keys.h"
#include "io/pace.h"
#include "meta/row_batches.h"

namespace quarry::cluster {
namespace {

constexpr size_t kListBatch = 1024;
constexpr size_t kRowBatch = 256;

ChunkId next_id(ChunkId id) {
  if (++id.low == 0) ++id.high;
  return id;
}

std::string describe(const ChunkName& name) {
  return fmt::format("chunk of write {} group {} stripe {} shard {} (term {}, rewrite {})", name.serial, name.group, name.stripe,
                     name.shard, term_of(name.generation), rewrite_of(name.generation));
}

}  // namespace

// Write ids whose writes may be unfinished.
struct Auditor::Sessions {
  std::vector<std::pair<WriteId, WriteId>> open;  // blocks
  WriteId next = 0;                               // this one, and those behind it, were given out later
  bool covers(WriteId id) const {
    return id >= next || std::ranges::any_of(open, [id](const auto& block) { return id >= block.first && id < block.second; });
  }
};

Task<Result<Auditor::Sessions>> Auditor::load_sessions() {
  Sessions sessions;
  // First the bound: a block that is leased behind this line lies above it.
  CO_TRY_ASSIGN(std::optional<std::string> next, co_await plane_.meta.get(keys::next_write_id()));
  if (next && next->size() != 8) co_return fail(Code::corrupt, "row of the next write id has {} bytes", next->size());
  sessions.next = next ? load_le<uint64_t>(bytes_of(*next).data()) : 1;
  meta::RowBatches batches(plane_.meta, meta::KeyRange::prefix("cs"));
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await batches.next());
    if (rows.empty()) break;
    for (const meta::KeyValue& row : rows) {
      Decoder key(std::string_view(row.key).substr(2));
      key.key_u64();
      const WriteId first = key.key_u64();
      Decoder value(row.value);
      const WriteId end = value.u64();
      CO_TRY(key.finish("session key"));
      CO_TRY(value.finish("session row"));
      sessions.open.emplace_back(first, end);
    }
  }
  co_return sessions;
}

void Auditor::violation(DataPlane::FsckReport* report, std::string text) {
  if (report->violations.size() < kViolationsMax) {
    report->violations.push_back(std::move(text));
  } else if (report->violations.size() == kViolationsMax) {
    report->violations.push_back("further violations are counted, not listed");
  }
}

Task<Result<std::vector<Auditor::Judgement>>> Auditor::judge(Drive& drive, std::vector<chunk::ChunkStat> chunks) {
  // Before the rows: a block is let go when the rows of its writes say all.
  CO_TRY_ASSIGN(const Sessions sessions, co_await load_sessions());
  std::vector<std::string> wanted;
  for (const chunk::ChunkStat& stat : chunks) {
    const ChunkName name = chunk_name(stat.id);
    wanted.push_back(keys::data(name.group, name.serial));
    wanted.push_back(keys::retired(name.serial));
  }
  CO_TRY_ASSIGN(auto rows, co_await plane_.meta.get_many(std::move(wanted)));
  auto topology = plane_.drives.topology();
  std::vector<Judgement> judgements;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const ChunkName name = chunk_name(chunks[i].id);
    Judgement& judgement = judgements.emplace_back();
    const bool in_motion = rows[2 * i + 1].has_value() || sessions.covers(name.serial);
    if (!rows[2 * i]) {
      judgement.verdict = in_motion ? Verdict::in_motion : Verdict::orphan;
      continue;
    }
    Decoder in(*rows[2 * i]);
    Result<DataLayout> decoded = DataLayout::decode(in);
    if (!decoded) continue;  // nobody can tell; the row is named by check_rows
    judgement.layout = *decoded;
    const DataLayout& layout = judgement.layout;
    const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
    if (members.size() != layout.redundancy.width()) continue;  // nobody can tell
    judgement.verdict = Verdict::misplaced;
    if (name.shard >= members.size() || name.stripe >= chunk_stripes(layout)) continue;
    const auto places = places_of(members[name.shard]);
    if (std::ranges::find(places, Place{drive.number(), term_of(name.generation)}) != places.end()) {
      judgement.verdict = Verdict::placed;
    } else if (members[name.shard].pending) {
      judgement.verdict = Verdict::in_motion;
    }
  }
  co_return judgements;
}

// Whether the shard's chunk is where the map wants it.
Task<Result<Auditor::AtPlace>> Auditor::look_at_place(DataLayout layout, ChunkName name) {
  if (name.shard >= layout.redundancy.width() || name.stripe >= chunk_stripes(layout) || !has_chunk(layout, name.stripe, name.shard))
    co_return AtPlace::filled;  // there is none
  const auto topology = plane_.drives.topology();
  const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  if (name.shard >= members.size() || members[name.shard].pending) co_return AtPlace::unknown;
  const Place place = members[name.shard].at;
  Drive* drive = topology->drive(place.drive);
  if (drive == nullptr || !drive->readable()) co_return AtPlace::unknown;
  const uint32_t size = layout.size == 0 ? 0 : layout.stored_size(name.stripe, name.shard);
  Result<uint32_t> there = co_await drive->stat_shard(shard_name(layout, name.stripe, name.shard, place.term));
  if (there && *there == size) co_return AtPlace::filled;
  co_return there || there.error().code() == Code::not_found ? AtPlace::lacking : AtPlace::unknown;
}

// Where its place lacks it this chunk may be the last of its kind: repair is told where it lies.
Task<Result<bool>> Auditor::is_needed(Drive& drive, chunk::ChunkStat chunk, DataLayout layout, Leftovers* result) {
  const ChunkName name = chunk_name(chunk.id);
  CO_TRY_ASSIGN(const AtPlace place, co_await look_at_place(layout, name));
  if (place == AtPlace::filled) co_return false;
  if (place == AtPlace::unknown) {
    ++result->in_motion;
    co_return true;
  }
  Result<SharedBytes> bytes = co_await drive.get(chunk.id, 0, chunk.size);
  if (!bytes && bytes.error().code() == Code::not_found) co_return false;
  if (!bytes && !drive.readable()) co_return std::move(bytes).error();
  if (!bytes) {
    ++result->kept;
    co_return true;
  }
  plane_.strays.add(layout.write_id, name.shard, {drive.number(), term_of(name.generation)});
  plane_.repairs.add(layout);
  plane_.wake_repair();
  ++result->in_motion;
  co_return true;
}

Task<Result<void>> Auditor::remove(Drive& drive, std::vector<chunk::ChunkStat> chunks, std::vector<Judgement> judgements,
                                   Leftovers* result) {
  std::vector<ChunkId> leftovers;
  std::vector<std::string> retired;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const Judgement& judgement = judgements[i];
    result->in_motion += judgement.verdict == Verdict::in_motion;
    if (judgement.verdict != Verdict::orphan && judgement.verdict != Verdict::misplaced) continue;
    if (judgement.verdict == Verdict::misplaced) {
      CO_TRY_ASSIGN(const bool needed, co_await is_needed(drive, chunks[i], judgement.layout, result));
      if (needed) continue;
    }
    leftovers.push_back(chunks[i].id);
    retired.push_back(keys::retired(chunk_name(chunks[i].id).serial));
  }
  // Its rows were not read in one moment: one that was retired between the two may have readers, and the sweeper comes for it.
  CO_TRY_ASSIGN(const auto rows, co_await plane_.meta.get_many(std::move(retired)));
  size_t kept = 0;
  for (size_t i = 0; i < leftovers.size(); ++i) {
    if (!rows[i]) leftovers[kept++] = leftovers[i];
  }
  result->in_motion += leftovers.size() - kept;
  leftovers.resize(kept);
  if (leftovers.empty()) co_return Result<void>();
  result->removed += leftovers.size();
  co_return co_await drive.disown(std::move(leftovers));
}

Task<Result<Auditor::Leftovers>> Auditor::remove_leftovers(Drive& drive) {
  auto [from, to] = chunk_range(ChunkKind::data);
  Leftovers result;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<chunk::ChunkStat> chunks, co_await drive.list(from, to, kListBatch));
    if (chunks.empty()) break;
    if (plane_.background.stopping()) co_return fail(Code::cancelled, "the store is closing");
    from = next_id(chunks.back().id);
    // Writers of an older topology may still put shards where the map does not look any more; their rows come later.
    CO_TRY_ASSIGN(std::vector<Judgement> judgements, co_await judge(drive, chunks));
    CO_TRY(co_await remove(drive, std::move(chunks), std::move(judgements), &result));
  }
  if (result.kept > 0)
    LOG_ERROR("chunks that are missing where they belong lie on this drive and cannot be read", {"drive", drive.number()},
              {"chunks", result.kept});
  co_return result;
}

Task<Result<void>> Auditor::check_drive(Drive& drive, bool repair, DataPlane::FsckReport* report) {
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
    CO_TRY_ASSIGN(const std::vector<Judgement> first, co_await judge(drive, data));
    for (size_t i = 0; i < data.size(); ++i) {
      if (first[i].verdict == Verdict::placed || first[i].verdict == Verdict::in_motion) continue;
      std::vector<chunk::ChunkStat> one{data[i]};
      Result<chunk::ChunkStat> again = co_await drive.stat(data[i].id);
      if (!again) continue;  // removed meanwhile
      CO_TRY_ASSIGN(std::vector<Judgement> second, co_await judge(drive, one));
      if (second[0].verdict == Verdict::placed || second[0].verdict == Verdict::in_motion) continue;
      ++report->orphan_chunks;
      violation(report, fmt::format("drive {}: {} {}", drive.number(), describe(chunk_name(data[i].id)),
                                    second[0].verdict == Verdict::orphan ? "belongs to no data row, session or retire row"
                                                                         : "is not where the map places it"));
      Leftovers removed;
      if (repair) CO_TRY(co_await remove(drive, std::move(one), std::move(second), &removed));
    }
  }
  CO_TRY_ASSIGN(chunk::FsckReport own, co_await drive.fsck());
  for (std::string& text : own.violations) violation(report, fmt::format("drive {}: {}", drive.number(), text));
  co_return Result<void>();
}

// Which shards of a stripe are there.
struct Auditor::StripeLook {
  uint32_t here = 0;         // bit i: shard i
  std::string missing = {};  // where their drives are there
  unsigned missing_count = 0;
  bool pending = false;
};

Task<Auditor::StripeLook> Auditor::look_at_stripe(DataLayout layout, uint32_t stripe) {
  StripeLook look;
  const auto topology = plane_.drives.topology();
  const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  look.pending = std::ranges::any_of(members, [](const Member& member) { return member.pending; });
  for (unsigned shard = 0; shard < layout.redundancy.width(); ++shard) {
    const uint32_t size = layout.stored_size(stripe, shard);
    bool found = size == 0;
    bool away = members.size() <= shard;
    std::vector<Place> places;
    if (!away && !found) places = places_of(members[shard]);
    for (const Place& place : places) {
      Drive* drive = topology->drive(place.drive);
      if (drive == nullptr || !drive->readable()) {
        away = true;
        continue;
      }
      Result<uint32_t> there = co_await drive->stat_shard(shard_name(layout, stripe, shard, place.term));
      found = found || (there && *there == size);
    }
    if (found) look.here |= 1u << shard;
    if (found || away) continue;
    ++look.missing_count;
    look.missing += fmt::format("{}{} (drive {})", look.missing.empty() ? "" : ", ", shard, members[shard].at.drive);
  }
  co_return look;
}

Task<Result<void>> Auditor::check_rows(bool repair, DataPlane::FsckReport* report) {
  Pace pace;
  meta::RowBatches batches(plane_.meta, meta::KeyRange::prefix("d"), kRowBatch);
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await batches.next());
    if (rows.empty()) break;
    if (plane_.background.stopping()) co_return fail(Code::cancelled, "the store is closing");
    for (const meta::KeyValue& row : rows) {
      ++report->data_rows;
      Decoder in(row.value);
      Result<DataLayout> layout = DataLayout::decode(in);
      if (!layout || keys::data(*layout) != row.key) {
        violation(report, fmt::format("data row {} cannot be read: {}", to_hex(bytes_of(row.key)),
                                      layout ? "its key and content differ" : layout.error().to_string()));
        continue;
      }
      for (uint32_t stripe = 0; stripe < layout->stripe_count(); ++stripe) {
        co_await pace;
        StripeLook look = co_await look_at_stripe(*layout, stripe);
        if (look.missing_count == 0 && layout->redundancy.readable_from(look.here)) continue;
        look = co_await look_at_stripe(*layout, stripe);  // it may have been moved from one place to the other between two looks
        const bool readable = layout->redundancy.readable_from(look.here);
        if (look.missing_count == 0 && readable) continue;
        CO_TRY_ASSIGN(std::optional<std::string> still, co_await plane_.meta.get(row.key));
        if (!still || *still != row.value) break;  // retired meanwhile, or widened
        report->missing_chunks += look.missing_count;
        if (!readable) {
          violation(report,
                    fmt::format("write {} stripe {}: {} of {} shards needed are there: it cannot be read{}{}", layout->write_id, stripe,
                                std::popcount(look.here), layout->redundancy.k, look.missing.empty() ? "" : "; missing: ", look.missing));
        } else {
          bool queued = false;
          for (unsigned spare = 0; spare <= layout->redundancy.losses() && !queued; ++spare) {
            CO_TRY_ASSIGN(std::optional<std::string> entry,
                          co_await plane_.meta.get(keys::repair(static_cast<uint8_t>(spare), layout->write_id)));
            queued = entry.has_value();
          }
          if (!queued && !look.pending)
            violation(report, fmt::format("write {} stripe {}: shards missing: {}", layout->write_id, stripe, look.missing));
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
  auto topology = plane_.drives.topology();
  for (const auto& [number, known] : topology->map.drives) {
    Drive* drive = topology->drive(number);
    if (known.state == DriveState::removed || known.state == DriveState::failed || drive == nullptr || !drive->readable()) continue;
    Result<void> checked = co_await check_drive(*drive, repair, &report);
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
