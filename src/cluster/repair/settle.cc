// Settling: the shards of one write are brought to where the map wants them: each is looked for at its present place, and put there from
// where it was before or from others; then what it leaves behind is removed.
//
// The map may be planned anew at any await. One settling goes by one topology from its beginning to its end, and what that one calls a
// former place is given up only while the place where the shard was seen is still the shard's present one: a newer map may count just that
// place among the former ones, with the last whole copy on it.
#include "base/reached.h"
#include "cluster/files/files.h"
#include "cluster/map/keys.h"
#include "cluster/repair/repair.h"
#include "cluster/stripes/stripe_reader.h"
#include "observe/metrics.h"

namespace quarry::cluster {
namespace {

constexpr size_t kStripesParallel = 4;  // of a write

const Counter& repaired_bytes() {
  static const Counter counter = metrics::counter("cluster_repaired_bytes_total", "Bytes of shards rebuilt, moved or rewritten by repair");
  return counter;
}

struct ShardJob {
  uint32_t stripe = 0;
  unsigned shard = 0;
};

struct ShardResult {
  uint64_t bytes = 0;    // written
  bool lacking = false;  // could not be put where it belongs
  bool lost = false;
  bool changed = false;  // the only copy, by somebody
  std::string why_lost;
  bool as_chunks = false;  // not to be written as a file: the copy's data lies beside the one that somebody changed
};

// What lies there now is theirs. A checksum that fails while size and time are right may as well be the drive's fault, and where a file was
// removed there is nothing to spare.
bool changed_by_others(const Error& error) { return error.reason() == Reason::changed || error.reason() == Reason::replaced; }

// fresh: nothing of this name was ever put on the drive (it is the shard's new place); else its id may have been used.
Task<Result<void>> put_again(Drive* drive, ChunkName name, ByteView bytes, bool fresh) {
  std::vector<ByteView> parts{bytes};
  if (!fresh) co_return co_await drive->rewrite_shard(name, std::move(parts));
  Result<void> put = co_await drive->put(chunk_id(name), parts, chunk::Stream::data);
  // It was there once, as this or a later rewrite, and cannot be read now.
  if (!put && put.error().code() == Code::already_exists) put = co_await drive->rewrite_shard(name, std::move(parts));
  co_return put;
}

// Makes sure that the shard is at its present place in this topology.
Task<Result<ShardResult>> settle_shard(Plane* plane, BackgroundBudget* budget, std::shared_ptr<const Topology> topology, DataLayout layout,
                                       ShardJob job, Repairer::Depth depth) {
  ShardResult result;
  const uint32_t size = layout.stored_size(job.stripe, job.shard);
  if (size == 0) co_return result;
  const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  if (job.shard >= members.size())
    co_return fail(Code::unavailable, "group {} has no members of width {}", layout.group, layout.redundancy.width());
  const Member& member = members[job.shard];
  const ChunkName name = shard_name(layout, job.stripe, job.shard, member.at.term);
  Drive* drive = topology->drive(member.at.drive);
  if (drive == nullptr || !drive->readable()) {
    result.lacking = true;
    co_return result;
  }
  bool exists = false;
  if (depth == Repairer::Depth::presence) {
    Result<uint32_t> there = co_await drive->stat_shard(name);
    if (there && *there == size) co_return result;
    if (!there && there.error().code() != Code::not_found) co_return std::move(there).error();
    exists = there.has_value();
  } else {
    co_await budget->take(size);
    Result<SharedBytes> there = co_await drive->get_shard(name, 0, size);
    if (there && there->size() == size) co_return result;
    if (!there && !drive->readable()) {
      result.lacking = true;
      co_return result;
    }
    exists = there || there.error().code() != Code::not_found;
  }
  if (!drive->writable()) {
    result.lacking = true;
    co_return result;
  }
  co_await budget->take(uint64_t{size} * (member.before.empty() ? layout.redundancy.k + 1u : 2u));
  // A pending shard is read where it was; one that should be here and is not, or is damaged, is rebuilt.
  const bool nowhere_else = member.before.empty() && !plane->strays.has(layout.write_id);
  Result<SharedBytes> bytes = co_await rebuild_shard(*plane, layout, job.stripe, job.shard, nowhere_else);
  if (!bytes) {
    if (bytes.error().code() != Code::data_lost && bytes.error().code() != Code::not_found && bytes.error().code() != Code::corrupt)
      co_return std::move(bytes).error();
    result.lost = true;
    result.changed = changed_by_others(bytes.error());
    result.why_lost = bytes.error().to_string();
    co_return result;
  }
  Result<void> put = co_await put_again(drive, name, bytes->view(), member.pending && !exists);
  if (!put) co_return std::move(put).error();
  result.bytes = size;
  repaired_bytes().add(size);
  co_return result;
}

// Whether a copy's file is whole: size and presence, or every byte.
struct FileLook {
  bool whole = true;
  bool present = false;  // some of it is there
  bool changed = false;  // somebody changed the file: what is in it now is theirs
  bool unreachable = false;
};

Task<Result<FileLook>> look_at_file(Plane* plane, BackgroundBudget* budget, DataLayout layout, unsigned shard, Drive* drive, uint16_t term,
                                    Repairer::Depth depth) {
  FileLook look;
  for (uint32_t stripe = 0; stripe < chunk_stripes(layout); ++stripe) {
    const ChunkName name = shard_name(layout, stripe, shard, term);
    const uint32_t size = layout.size == 0 ? 0 : layout.stored_size(stripe, shard);
    if (depth == Repairer::Depth::presence || size == 0) {
      Result<uint32_t> there = co_await drive->stat_shard(name);
      if (!there && there.error().code() != Code::not_found) co_return std::move(there).error();
      look.present = look.present || there.has_value();
      look.whole = look.whole && there && *there == size;
      continue;
    }
    co_await budget->take(size);
    Result<SharedBytes> there = co_await drive->get_shard(name, 0, size);
    if (!there && !drive->readable()) {
      look.unreachable = true;
      co_return look;
    }
    const bool gone = !there && there.error().code() == Code::not_found;
    look.present = look.present || !gone;
    look.changed = look.changed || (!there && changed_by_others(there.error()));
    look.whole = look.whole && there && there->size() == size;
  }
  co_return look;
}

// Writes the whole file again under a rewrite number that was not used, from wherever its bytes can be read; then it takes the place of the
// older one. Interrupted, it leaves an unfinished file, which the store forgets, and the older one as it was.
Task<Result<ShardResult>> rewrite_file(Plane* plane, BackgroundBudget* budget, DataLayout layout, unsigned shard, Drive* drive,
                                       Member member, FileName file, bool fresh) {
  ShardResult result;
  const ChunkName first = shard_name(layout, 0, shard, member.at.term);
  CO_TRY_ASSIGN(std::vector<ChunkId> older, co_await drive->rewrites(first));
  uint16_t rewrite = older.empty() ? (fresh ? 0 : 1) : rewrite_of(chunk_name(older.back()).generation) + 1;
  std::vector<ChunkId> written;
  for (uint32_t stripe = 0; stripe < chunk_stripes(layout); ++stripe) {
    const uint32_t size = layout.size == 0 ? 0 : layout.stored_size(stripe, shard);
    SharedBytes bytes;
    if (size > 0) {
      co_await budget->take(uint64_t{size} * 2);
      Result<SharedBytes> got = co_await rebuild_shard(*plane, layout, stripe, shard, false);
      if (!got) {
        if (got.error().code() != Code::data_lost && got.error().code() != Code::not_found && got.error().code() != Code::corrupt)
          co_return std::move(got).error();
        result.lost = true;
        result.changed = changed_by_others(got.error()) || got.error().reason() == Reason::vanished;
        result.why_lost = got.error().to_string();
        break;
      }
      bytes = std::move(*got);
    }
    ChunkName name = shard_name(layout, stripe, shard, member.at.term);
    name.generation = generation_of(member.at.term, rewrite);
    std::vector<ByteView> parts{bytes.view()};
    chunk::PutOptions options;
    options.file = file_place(layout, stripe, shard, member.at.term, rewrite, file);
    Result<void> put = co_await drive->put(chunk_id(name), parts, options);
    if (!put && put.error().code() == Code::already_exists && stripe == 0 && rewrite < kRewritesMax) {
      ++rewrite;
      stripe = UINT32_MAX;  // from the start, under the next number
      continue;
    }
    if (!put) {
      if (!written.empty())
        (co_await drive->remove(std::move(written))).ignore("an unfinished file goes with the next start at the latest");
      co_return std::move(put).error();
    }
    written.push_back(chunk_id(name));
    result.bytes += size;
  }
  if (result.lost) {
    result.bytes = 0;
    if (!written.empty()) (co_await drive->remove(std::move(written))).ignore("an unfinished file goes with the next start at the latest");
    co_return result;
  }
  CO_TRY(co_await drive->finish_file(written.front(), layout.size));
  CO_TRY(co_await plane->files->show_if_current(*drive, layout, shard, member.at.term));
  std::vector<ChunkId> obsolete;
  for (uint32_t stripe = 0; stripe < chunk_stripes(layout) && !older.empty(); ++stripe) {
    CO_TRY_ASSIGN(std::vector<ChunkId> ids, co_await drive->rewrites(shard_name(layout, stripe, shard, member.at.term)));
    for (const ChunkId id : ids) {
      if (rewrite_of(chunk_name(id).generation) < rewrite) obsolete.push_back(id);
    }
  }
  if (!obsolete.empty()) CO_TRY(co_await drive->remove(std::move(obsolete)));
  repaired_bytes().add(result.bytes);
  co_return result;
}

// Makes sure that a copy which is kept as a file is at its present place, whole and under its name.
Task<Result<ShardResult>> settle_file(Plane* plane, BackgroundBudget* budget, std::shared_ptr<const Topology> topology, DataLayout layout,
                                      unsigned shard, FileName file, Repairer::Depth depth) {
  ShardResult result;
  const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  if (shard >= members.size())
    co_return fail(Code::unavailable, "group {} has no members of width {}", layout.group, layout.redundancy.width());
  const Member member = members[shard];
  Drive* drive = topology->drive(member.at.drive);
  if (drive == nullptr || !drive->readable()) {
    result.lacking = true;
    co_return result;
  }
  CO_TRY_ASSIGN(FileLook look, co_await look_at_file(plane, budget, layout, shard, drive, member.at.term, depth));
  if (look.whole && !look.unreachable) {
    // Whoever made it whole may have come to an end before it was shown.
    CO_TRY(co_await plane->files->show_if_current(*drive, layout, shard, member.at.term));
    co_return result;
  }
  if (look.unreachable || !drive->writable()) {
    result.lacking = true;
    co_return result;
  }
  if (look.changed) {
    result.as_chunks = true;
    co_return result;
  }
  co_return co_await rewrite_file(plane, budget, layout, shard, drive, member, std::move(file), member.pending && !look.present);
}

}  // namespace

Task<Result<Repairer::Outcome>> Repairer::settle_shards(DataLayout layout, std::vector<unsigned> shards, Depth depth) {
  OneAtATime alone(*this, layout.write_id);
  co_await alone.enter();
  Outcome outcome;
  CO_TRY_ASSIGN(const std::optional<DataLayout> present, co_await present_layout(layout));
  if (!present) {
    outcome.gone = true;
    plane_.strays.forget(layout.write_id);
    note_lost(layout, outcome);
    co_return outcome;
  }
  if (*present != layout) {  // it was widened since: the places of the narrower layout are no concern of it any more
    outcome.again = !shards.empty();
    if (outcome.again) co_return outcome;
    layout = *present;
  }
  const bool all = shards.empty();
  for (unsigned shard = 0; all && shard < layout.redundancy.width(); ++shard) shards.push_back(shard);
  const std::shared_ptr<const Topology> topology = plane_.drives.topology();
  std::map<uint32_t, unsigned> lacking;
  std::optional<Error> error;
  // Copies that are files are made as a whole; the others stripe by stripe.
  CO_TRY_ASSIGN(const std::vector<unsigned> chunked, co_await settle_files(topology, layout, shards, depth, &outcome, &error));
  std::vector<ShardJob> jobs;
  for (uint32_t stripe = 0; stripe < layout.stripe_count(); ++stripe) {
    for (unsigned shard : chunked) jobs.push_back({stripe, shard});
  }
  const size_t parallel = kStripesParallel * std::max<size_t>(chunked.size(), 1);
  for (size_t begin = 0; begin < jobs.size() && !error; begin += parallel) {
    std::vector<Task<Result<ShardResult>>> tasks;
    for (size_t i = begin; i < std::min(begin + parallel, jobs.size()); ++i)
      tasks.push_back(settle_shard(&plane_, &budget_, topology, layout, jobs[i], depth));
    std::vector<Result<ShardResult>> results = co_await when_all(std::move(tasks));
    for (size_t i = 0; i < results.size(); ++i) {
      if (!results[i]) {
        if (!error) error = std::move(results[i]).error();
        continue;
      }
      outcome.repaired_shards += results[i]->bytes > 0;
      outcome.repaired_bytes += results[i]->bytes;
      outcome.lost = outcome.lost || results[i]->lost;
      outcome.changed = outcome.changed || results[i]->changed;
      if (outcome.why_lost.empty()) outcome.why_lost = std::move(results[i]->why_lost);
      if (results[i]->lacking) outcome.lacking = std::max(outcome.lacking, ++lacking[jobs[begin + i].stripe]);
    }
  }
  CO_TRY_ASSIGN(const std::optional<DataLayout> still, co_await present_layout(layout));
  if (!still) {
    outcome.gone = true;
    outcome.lost = outcome.changed = outcome.again = false;
    outcome.lacking = 0;
    note_lost(layout, outcome);
    if (outcome.repaired_shards > 0) CO_TRY(co_await remove_everywhere(topology, layout));
    co_return outcome;
  }
  if (*still != layout) {  // what the narrower layout left behind may be what the wider one goes by
    outcome.again = true;
    if (error) co_return std::move(*error);
    co_return outcome;
  }
  outcome.changed = outcome.changed && outcome.lost;
  if (outcome.lost || !error) note_lost(layout, outcome);
  if (error) co_return std::move(*error);
  if (outcome.lacking > 0 || outcome.lost) co_return outcome;
  if (all) plane_.strays.forget(layout.write_id);
  CO_TRY(co_await remove_former(topology, layout, std::move(shards), &outcome));
  co_return outcome;
}

// The write was retired while shards of it were put: the sweeper may have been there before them, and they would be nobody's.
Task<Result<void>> Repairer::remove_everywhere(std::shared_ptr<const Topology> topology, DataLayout layout) {
  Removal put;
  put.add(*topology, layout);
  CO_TRY(co_await put.run());
  const auto now = plane_.drives.topology();
  if (now == topology) co_return Result<void>();
  Removal places;
  places.add(*now, layout);
  co_return co_await places.run();
}

// What moved is removed from where it was: readers look at the new place first.
Task<Result<void>> Repairer::remove_former(std::shared_ptr<const Topology> topology, DataLayout layout, std::vector<unsigned> shards,
                                           Outcome* outcome) {
  const auto width = static_cast<uint8_t>(layout.redundancy.width());
  const auto now = plane_.drives.topology();
  const Members seen = topology->map.members(width, layout.group), present = now->map.members(width, layout.group);
  Removal removal;
  for (const unsigned shard : shards) {
    const Member& member = seen[shard];
    if (member.before.empty()) continue;
    Drive* drive = now->drive(member.at.drive);
    const bool stands = shard < present.size() && present[shard].at == member.at && drive == topology->drive(member.at.drive) &&
                        drive != nullptr && drive->readable();
    if (!stands) {
      REACHED("repair.ground_changed");
      outcome->again = true;
      continue;
    }
    for (const Place& place : member.before) {
      Drive* former = now->drive(place.drive);
      if (former == nullptr || !former->readable()) {
        outcome->left_on.insert(place.drive);
        continue;
      }
      for (uint32_t stripe = 0; stripe < chunk_stripes(layout); ++stripe) {
        if (has_chunk(layout, stripe, shard)) removal.by_drive[former].push_back(shard_name(layout, stripe, shard, place.term));
      }
    }
  }
  co_return co_await removal.run();
}

// The shards that are no files.
Task<Result<std::vector<unsigned>>> Repairer::settle_files(std::shared_ptr<const Topology> topology, DataLayout layout,
                                                           std::vector<unsigned> shards, Depth depth, Outcome* outcome,
                                                           std::optional<Error>* error) {
  if (!topology->any_files || !layout.redundancy.has_copies()) co_return shards;
  const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  std::vector<unsigned> files, chunked;
  for (unsigned shard : shards) {
    Drive* drive = shard < members.size() ? topology->drive(members[shard].at.drive) : nullptr;
    (drive != nullptr && drive->keeps_files() && layout.redundancy.is_copy(shard) ? files : chunked).push_back(shard);
  }
  if (files.empty()) co_return chunked;
  CO_TRY_ASSIGN(std::optional<FileName> name, co_await plane_.files->find_name(layout));
  if (!name) co_return shards;
  for (unsigned shard : files) {
    Result<ShardResult> result = co_await settle_file(&plane_, &budget_, topology, layout, shard, *name, depth);
    if (!result) {
      if (!*error) *error = std::move(result).error();
      continue;
    }
    if (result->as_chunks) chunked.push_back(shard);
    // With another copy it is written beside the file; without one there is nothing to write.
    outcome->changed = outcome->changed || result->changed || result->as_chunks;
    if (outcome->why_lost.empty()) outcome->why_lost = std::move(result->why_lost);
    outcome->repaired_shards += result->bytes > 0;
    outcome->repaired_bytes += result->bytes;
    outcome->lost = outcome->lost || result->lost;
    outcome->lacking += result->lacking;
  }
  co_return chunked;
}

Task<Result<Repairer::Outcome>> Repairer::repair_write(DataLayout layout, Depth depth) {
  std::vector<unsigned> all;
  return settle_shards(layout, std::move(all), depth);
}

Task<Result<void>> Repairer::repair_shard(DataLayout layout, uint32_t stripe, unsigned shard) {
  OneAtATime alone(*this, layout.write_id);
  co_await alone.enter();
  CO_TRY_ASSIGN(const std::optional<DataLayout> present, co_await present_layout(layout));
  if (!present) co_return Result<void>();
  layout = *present;
  if (shard >= layout.redundancy.width() || stripe >= chunk_stripes(layout)) co_return Result<void>();
  const std::shared_ptr<const Topology> topology = plane_.drives.topology();
  std::optional<Error> file_error;
  Outcome whole;
  std::vector<unsigned> one{shard};
  CO_TRY_ASSIGN(const std::vector<unsigned> chunked,
                co_await settle_files(topology, layout, std::move(one), Depth::verify, &whole, &file_error));
  if (chunked.empty()) {
    if (file_error) co_return std::move(*file_error);
    whole.changed = whole.changed && whole.lost;
    note_lost(layout, whole);
    if (whole.lost) co_return fail(Code::data_lost, "shard {} of write {} cannot be rebuilt", shard, layout.write_id);
    note(whole);
    co_return Result<void>();
  }
  ShardJob job{stripe, shard};
  CO_TRY_ASSIGN(ShardResult result, co_await settle_shard(&plane_, &budget_, topology, layout, job, Depth::verify));
  if (result.lost) {
    Outcome lost{.lost = true, .changed = whole.changed || result.changed, .why_lost = result.why_lost};
    note_lost(layout, lost);
  }
  if (result.lost) co_return fail(Code::data_lost, "shard {} of stripe {} of write {} cannot be rebuilt", shard, stripe, layout.write_id);
  Outcome outcome;
  outcome.repaired_shards = result.bytes > 0;
  outcome.repaired_bytes = result.bytes;
  note(outcome);
  CO_TRY_ASSIGN(const std::optional<DataLayout> still, co_await present_layout(layout));
  if (still) co_return Result<void>();
  co_return co_await remove_everywhere(topology, layout);
}

}  // namespace quarry::cluster
