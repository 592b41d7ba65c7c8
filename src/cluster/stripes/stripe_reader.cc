#include "cluster/stripes/stripe_reader.h"

#include <deque>

#include "cluster/map/keys.h"
#include "cluster/stripes/plane.h"
#include "codec/erasure.h"
#include "io/pace.h"
#include "observe/metrics.h"

namespace quarry::cluster {
namespace {

constexpr size_t kSlotsMax = 8;  // pieces in flight per reader
constexpr size_t kSlotsFirst = 4;
constexpr uint32_t kPieceMax = 1 * kMiB;  // of a full copy beside slices, whose chunks may be much longer
constexpr Duration kHedgeMin = std::chrono::milliseconds(2);
constexpr Duration kHedgeUnknown = std::chrono::milliseconds(50);  // until the drives' latencies are known
constexpr unsigned kHedgeFactor = 3;                               // times the peers' p95

const Counter& degraded_reads() {
  static const Counter counter = metrics::counter("cluster_degraded_reads_total", "Shard reads that were answered from parity or copies");
  return counter;
}
const Counter& hedged_reads() {
  static const Counter counter = metrics::counter("cluster_hedged_reads_total", "Shard reads that were raced against a late drive");
  return counter;
}
const Counter& bytes_served() {
  static const Counter counter = metrics::counter("cluster_data_bytes_read_total", "Bytes of object data handed to readers");
  return counter;
}

// A fetch of a part of a shard, that several may wait for. Confined to the reader's executor.
struct Fetch {
  Event done;
  std::optional<Result<SharedBytes>> result;
};
using FetchPointer = std::shared_ptr<Fetch>;

struct Range {
  uint32_t offset = 0;
  uint32_t length = 0;
};

// What a reader shares with its fetches in flight, which may outlive it.
struct ReadState {
  Plane& plane;
  DataLayout layout;
  CachePolicy policy;
  std::shared_ptr<const Topology> topology;
  Members members;
  std::map<std::pair<uint32_t, unsigned>, FetchPointer> direct;  // whole shards being read or read, of the stripes in the window
  bool keep_direct = false;                                      // false: ranges and repair, nothing is shared
  bool repair_asked = false;
  std::shared_ptr<ReadState> wider = {};  // for what is still to be read, since the write was widened

  void refresh() {
    topology = plane.drives.topology();
    members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  }
  Drive* drive_of(unsigned shard) const {
    if (shard >= members.size()) return nullptr;
    Drive* drive = topology->drive(members[shard].at.drive);
    return drive != nullptr && drive->readable() ? drive : nullptr;
  }
  void ask_for_repair() {
    if (std::exchange(repair_asked, true)) return;
    plane.repairs.add(layout);
    plane.wake_repair();
  }
};
using StatePointer = std::shared_ptr<ReadState>;

// From the shard's present place, then from where it was before a move.
Task<Result<SharedBytes>> read_own(StatePointer state, uint32_t stripe, unsigned shard, Range range) {
  if (shard >= state->members.size())
    co_return fail(Code::unavailable, "group {} has no members of width {}", state->layout.group, state->layout.redundancy.width());
  std::optional<Error> worst;
  std::vector<Place> places = places_of(state->members[shard]);
  state->plane.strays.append(state->layout.write_id, shard, places);
  for (const Place& place : places) {
    Drive* drive = state->topology->drive(place.drive);
    if (drive == nullptr || !drive->readable()) {
      if (!worst || worst->code() == Code::not_found) worst = fail(Code::device_gone, "drive {} is away", place.drive);
      continue;
    }
    Result<SharedBytes> bytes = co_await drive->get_shard(shard_name(state->layout, stripe, shard, place.term), range.offset, range.length);
    if (bytes) {
      if (bytes->size() == range.length) {
        state->plane.bytes_read.fetch_add(range.length, std::memory_order_relaxed);
        co_return bytes;
      }
      worst = fail(Code::corrupt, "shard {} of stripe {} of write {} on drive {} has {} bytes where {} are expected", shard, stripe,
                   state->layout.write_id, place.drive, bytes->size(), range.length);
      continue;
    }
    if (!worst || bytes.error().code() != Code::not_found) worst = std::move(bytes).error().with(fmt::format("drive {}", place.drive));
  }
  co_return std::move(*worst);
}

Task<void> run_direct(StatePointer state, uint32_t stripe, unsigned shard, Range range, FetchPointer fetch) {
  fetch->result = co_await read_own(state, stripe, shard, range);
  std::move(*fetch->result).ignore("whoever waits for it gets a copy; perhaps nobody does any more");
  fetch->done.set();
}

// A whole-shard read that others of this reader may use too.
FetchPointer direct_fetch(StatePointer state, uint32_t stripe, unsigned shard, Range range) {
  if (state->keep_direct) {
    auto found = state->direct.find({stripe, shard});
    if (found != state->direct.end()) return found->second;
  }
  auto fetch = std::make_shared<Fetch>();
  if (state->keep_direct) state->direct.emplace(std::pair{stripe, shard}, fetch);
  state->plane.background.spawn_here(run_direct(state, stripe, shard, range, fetch));
  return fetch;
}

// [offset, offset + length) of shard `other`, as a source of a rebuild: cut where it is stored short, the rest are zeros.
Task<Result<SharedBytes>> source_bytes(StatePointer state, uint32_t stripe, unsigned other, Range range) {
  const uint32_t stored = state->layout.stored_size(stripe, other);
  if (stored <= range.offset) co_return SharedBytes();
  Range part{range.offset, std::min(range.length, stored - range.offset)};
  if (part.offset == 0 && part.length == stored) {
    if (state->layout.redundancy.kind == RedundancyKind::erasure && other < state->layout.redundancy.k &&
        state->policy != CachePolicy::bypass) {
      if (auto cached = state->plane.cache.find(cache_key(state->layout, stripe, other, kWholeShard))) co_return *cached;
    }
    FetchPointer fetch = direct_fetch(state, stripe, other, part);
    co_await fetch->done.wait();
    co_return *fetch->result;
  }
  co_return co_await read_own(state, stripe, other, part);
}

// Bytes of a shard that are known already.
struct Known {
  unsigned shard = 0;
  Range range;
  SharedBytes bytes;
};

// Computes a range of each wanted shard of the code from the same range of k others; `known` are not read again. In order of shard number.
Task<Result<std::vector<SharedBytes>>> decode(StatePointer state, uint32_t stripe, ShardMask wanted, Range range,
                                              std::vector<Known> known = {}) {
  const DataLayout& layout = state->layout;
  const Redundancy redundancy = layout.redundancy;
  const unsigned first = redundancy.first_slice(), width = redundancy.width();
  std::vector<std::optional<SharedBytes>> have(width);
  unsigned count = 0;
  for (const Known& each : known) {  // where its bytes are all that is stored of the range
    const uint32_t stored = layout.stored_size(stripe, each.shard);
    const uint32_t end = std::min(range.offset + range.length, std::max(stored, range.offset));
    if (count == redundancy.k || each.range.offset > range.offset || each.range.offset + each.range.length < end) continue;
    have[each.shard] = each.bytes.slice(range.offset - each.range.offset, end - range.offset);
    ++count;
  }
  // Sources in order of preference: shards that are known zeros, drives that are there and not slow, slow ones, the rest.
  std::vector<unsigned> order;
  for (unsigned i = first; i < width; ++i) {
    if ((wanted >> i & 1) == 0 && !have[i]) order.push_back(i);
  }
  auto rank = [&](unsigned i) {
    if (layout.stored_size(stripe, i) == 0) return 0;
    Drive* drive = state->drive_of(i);
    if (drive == nullptr) return 3;
    return drive->slow.load(std::memory_order_relaxed) ? 2 : 1;
  };
  std::sort(order.begin(), order.end(), [&](unsigned a, unsigned b) { return std::pair(rank(a), a) < std::pair(rank(b), b); });
  std::string problems;
  for (size_t next = 0; count < redundancy.k && next < order.size();) {
    std::vector<Task<Result<SharedBytes>>> reads;
    std::vector<unsigned> which;
    while (count + reads.size() < redundancy.k && next < order.size()) {
      which.push_back(order[next]);
      reads.push_back(source_bytes(state, stripe, order[next++], range));
    }
    std::vector<Result<SharedBytes>> results = co_await when_all(std::move(reads));
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i]) {
        have[which[i]] = std::move(*results[i]);
        ++count;
      } else {
        problems += fmt::format("; shard {}: {}", which[i], results[i].error().to_string());
      }
    }
  }
  if (count < redundancy.k) {
    co_return fail(Code::data_lost, "stripe {} of write {}: only {} of {} shards needed can be read{}", stripe, layout.write_id, count,
                   redundancy.k, problems);
  }
  auto code = ErasureCode::get(redundancy.k, redundancy.m);
  if (!code) co_return std::move(code).error();
  std::vector<Buffer> padded, out;
  std::vector<uint8_t*> shards(width);
  ShardMask present = 0;
  for (unsigned i = first; i < width; ++i) {
    if ((wanted >> i & 1) != 0) {
      out.emplace_back(range.length);
      shards[i] = out.back().data();
    }
    if (!have[i]) continue;
    present |= ShardMask{1} << i;
    if (have[i]->size() == range.length) {
      shards[i] = const_cast<uint8_t*>(have[i]->view().data());  // read only: the bit is not in `wanted`
    } else {
      Buffer whole(range.length);
      if (have[i]->size() > 0) std::memcpy(whole.data(), have[i]->view().data(), have[i]->size());
      std::memset(whole.data() + have[i]->size(), 0, range.length - have[i]->size());
      shards[i] = whole.data();
      padded.push_back(std::move(whole));
    }
  }
  Pace pace;
  for (size_t at = 0; at < range.length; at += ErasureCode::kRunMax) {
    const size_t run = std::min(range.length - at, ErasureCode::kRunMax);
    for (Buffer& buffer : out) {
      buffer.data()[at] = buffer.data()[at + run - 1] = 0;  // the system makes the page now, one between two looks at the pace
      co_await pace;
    }
    CO_TRY((*code)->reconstruct(std::span(shards).subspan(first), run, present >> first, wanted >> first));
    for (uint8_t*& shard : shards) {
      if (shard != nullptr) shard += run;
    }
  }
  std::vector<SharedBytes> results;
  for (Buffer& buffer : out) results.push_back(SharedBytes(std::move(buffer)));
  co_return results;
}

Task<Result<SharedBytes>> decode_one(StatePointer state, uint32_t stripe, unsigned shard, Range range) {
  Result<std::vector<SharedBytes>> decoded = co_await decode(std::move(state), stripe, ShardMask{1} << shard, range);
  if (!decoded) co_return std::move(decoded).error();
  co_return std::move(decoded->front());
}

Task<Result<SharedBytes>> read_other_copy(StatePointer state, uint32_t stripe, unsigned shard, Range range) {
  std::vector<unsigned> order;
  for (unsigned i = 0; i < state->layout.redundancy.width(); ++i) {
    if (i != shard) order.push_back(i);
  }
  auto rank = [&](unsigned i) {
    Drive* drive = state->drive_of(i);
    if (drive == nullptr) return 3;
    return drive->slow.load(std::memory_order_relaxed) ? 2 : 1;
  };
  std::sort(order.begin(), order.end(), [&](unsigned a, unsigned b) { return std::pair(rank(a), a) < std::pair(rank(b), b); });
  std::string problems;
  for (unsigned other : order) {
    Result<SharedBytes> bytes = co_await read_own(state, stripe, other, range);
    if (bytes) co_return bytes;
    problems += fmt::format("; copy {}: {}", other, bytes.error().to_string());
  }
  co_return fail(Code::data_lost, "stripe {} of write {}: no copy can be read{}", stripe, state->layout.write_id, problems);
}

// A range of the full copy, from the data slices that hold it; those that cannot be read are computed from others.
Task<Result<SharedBytes>> copy_from_slices(StatePointer state, uint32_t stripe, Range range) {
  const DataLayout& layout = state->layout;
  const unsigned first = layout.redundancy.first_slice();
  const uint32_t length = layout.stripe_shard_size(stripe), end = range.offset + range.length;
  std::vector<Known> parts;
  std::vector<Task<Result<SharedBytes>>> reads;
  for (uint32_t at = range.offset; at < end;) {
    const uint32_t slice = at / length;
    Known part{.shard = first + slice, .range = {at % length, 0}, .bytes = {}};
    part.range.length = std::min(end - at, length - part.range.offset);
    at += part.range.length;
    reads.push_back(read_own(state, stripe, part.shard, part.range));
    parts.push_back(std::move(part));
  }
  std::vector<Result<SharedBytes>> results = co_await when_all(std::move(reads));
  ShardMask failed = 0;
  Range columns{UINT32_MAX, 0};  // of the slices that failed: one range over all of them
  uint32_t columns_end = 0;
  std::vector<Known> known;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (results[i]) {
      parts[i].bytes = std::move(*results[i]);
      known.push_back(parts[i]);
      continue;
    }
    failed |= ShardMask{1} << parts[i].shard;
    columns.offset = std::min(columns.offset, parts[i].range.offset);
    columns_end = std::max(columns_end, parts[i].range.offset + parts[i].range.length);
  }
  if (failed == 0 && parts.size() == 1) co_return parts[0].bytes;
  if (failed != 0) {
    columns.length = columns_end - columns.offset;
    Result<std::vector<SharedBytes>> decoded = co_await decode(state, stripe, failed, columns, std::move(known));
    if (!decoded) co_return std::move(decoded).error();
    size_t next = 0;
    for (Known& part : parts) {
      if ((failed >> part.shard & 1) != 0) part.bytes = (*decoded)[next++].slice(part.range.offset - columns.offset, part.range.length);
    }
  }
  Buffer whole(range.length);
  size_t at = 0;
  for (const Known& part : parts) {
    std::memcpy(whole.data() + at, part.bytes.view().data(), part.bytes.size());
    at += part.bytes.size();
  }
  co_return SharedBytes(std::move(whole));
}

// A range of a slice from the full copy; from other slices if that cannot be read.
Task<Result<SharedBytes>> slice_from_copy(StatePointer state, uint32_t stripe, unsigned shard, Range range) {
  const DataLayout& layout = state->layout;
  const Redundancy redundancy = layout.redundancy;
  const unsigned coded = shard - redundancy.first_slice();
  const uint32_t length = layout.stripe_shard_size(stripe), bytes = static_cast<uint32_t>(layout.stripe_size(stripe));
  const bool data = coded < redundancy.k;
  const Range wanted = data ? Range{coded * length + range.offset, range.length} : Range{0, bytes};
  Result<SharedBytes> copy = co_await read_own(state, stripe, 0, wanted);
  if (!copy) {
    Result<SharedBytes> decoded = co_await decode_one(state, stripe, shard, range);
    if (!decoded) co_return std::move(decoded).error().with(fmt::format("the full copy: {}", copy.error().to_string()));
    co_return decoded;
  }
  if (data) co_return copy;
  std::vector<Known> known;
  for (unsigned i = 0; i < redundancy.k; ++i) {
    const uint32_t begin = std::min(bytes, i * length), end = std::min(bytes, (i + 1) * length);
    known.push_back({.shard = redundancy.first_slice() + i, .range = {0, end - begin}, .bytes = copy->slice(begin, end - begin)});
  }
  Result<std::vector<SharedBytes>> decoded = co_await decode(state, stripe, ShardMask{1} << shard, range, std::move(known));
  if (!decoded) co_return std::move(decoded).error();
  co_return std::move(decoded->front());
}

// A range of a shard from others.
Task<Result<SharedBytes>> rebuild(StatePointer state, uint32_t stripe, unsigned shard, Range range) {
  degraded_reads().add();
  switch (state->layout.redundancy.kind) {
    case RedundancyKind::mirror: return read_other_copy(std::move(state), stripe, shard, range);
    case RedundancyKind::whole:
      if (shard == 0) return copy_from_slices(std::move(state), stripe, range);
      return slice_from_copy(std::move(state), stripe, shard, range);
    case RedundancyKind::erasure: break;
  }
  return decode_one(std::move(state), stripe, shard, range);
}

struct Race {
  Event finished;
  std::optional<SharedBytes> bytes;
  std::optional<Error> direct_error, rebuild_error;
  bool rebuilding = false;
};

Task<void> race_direct(StatePointer state, uint32_t stripe, unsigned shard, Range range, std::shared_ptr<Race> race) {
  Result<SharedBytes> result = fail(Code::internal, "not run");
  if (range.offset == 0 && range.length == state->layout.stored_size(stripe, shard)) {
    FetchPointer fetch = direct_fetch(state, stripe, shard, range);
    co_await fetch->done.wait();
    result = *fetch->result;
  } else {
    result = co_await read_own(state, stripe, shard, range);
  }
  if (result) {
    if (!race->bytes) race->bytes = std::move(*result);
  } else {
    race->direct_error = std::move(result).error();
  }
  race->finished.pulse();
}

Task<void> race_rebuild(StatePointer state, uint32_t stripe, unsigned shard, Range range, std::shared_ptr<Race> race) {
  Result<SharedBytes> result = co_await rebuild(state, stripe, shard, range);
  if (result) {
    if (!race->bytes) race->bytes = std::move(*result);
  } else {
    race->rebuild_error = std::move(result).error();
  }
  race->finished.pulse();
}

// How long a read of this shard may take before it is raced: by what its peers need, so that a slow drive does not excuse itself.
Duration hedge_delay(const ReadState& state, unsigned shard) {
  std::vector<Duration> peers;
  for (unsigned i = 0; i < state.members.size(); ++i) {
    if (i == shard) continue;
    if (Drive* drive = state.drive_of(i)) peers.push_back(drive->read_latency.quantile(0.95, kHedgeUnknown));
  }
  if (peers.empty()) return kHedgeUnknown;
  std::nth_element(peers.begin(), peers.begin() + peers.size() / 2, peers.end());
  return std::max(kHedgeMin, peers[peers.size() / 2] * kHedgeFactor);
}

bool worth_repair(const Error& error) {
  return error.code() == Code::not_found || error.code() == Code::corrupt || error.code() == Code::io_error;
}

// The copy of a mirror to read: the one whose drive has the fewest reads in flight; among equals they take turns. Drives that are away or
// slow, and copies that are still being made, come last.
unsigned choose_copy(const ReadState& state) {
  const unsigned width = state.layout.redundancy.width();
  if (width < 2) return 0;
  const uint32_t turn = state.plane.read_rotation.fetch_add(1, std::memory_order_relaxed);
  unsigned best = 0;
  uint64_t best_load = UINT64_MAX;
  for (unsigned i = 0; i < width; ++i) {
    const unsigned copy = (turn + i) % width;
    const Drive* drive = state.drive_of(copy);
    if (drive == nullptr || state.members[copy].pending) continue;
    uint64_t load = drive->reads_in_flight.load(std::memory_order_relaxed);
    if (drive->slow.load(std::memory_order_relaxed)) load += uint64_t{1} << 32;
    if (load >= best_load) continue;
    best = copy;
    best_load = load;
  }
  return best;
}

// The full copy beside slices: they are read only where it cannot be.
Task<Result<SharedBytes>> obtain_copy(StatePointer state, uint32_t stripe, Range range) {
  Result<SharedBytes> own = co_await read_own(state, stripe, 0, range);
  if (own) co_return own;
  if (worth_repair(own.error())) state->ask_for_repair();
  Result<SharedBytes> rebuilt = co_await rebuild(state, stripe, 0, range);
  if (!rebuilt) co_return std::move(rebuilt).error().with(fmt::format("the full copy: {}", own.error().to_string()));
  co_return rebuilt;
}

// The verified bytes of a range of a data shard, whatever it takes.
Task<Result<SharedBytes>> obtain(StatePointer state, uint32_t stripe, unsigned shard, Range range) {
  const Redundancy redundancy = state->layout.redundancy;
  if (redundancy.kind == RedundancyKind::whole) co_return co_await obtain_copy(std::move(state), stripe, range);
  if (redundancy.kind == RedundancyKind::mirror) shard = choose_copy(*state);
  Drive* drive = state->drive_of(shard);
  const bool elsewhere = redundancy.m > 0;
  if (!elsewhere) {
    Result<SharedBytes> only = co_await read_own(state, stripe, shard, range);
    if (!only && worth_repair(only.error())) state->ask_for_repair();  // it counts what is lost
    if (!only && only.error().code() == Code::not_found) {             // the object is there; its bytes are not
      co_return fail(Code::data_lost, "write {}: its only copy is gone ({})", state->layout.write_id, only.error().context());
    }
    co_return only;
  }
  auto race = std::make_shared<Race>();
  const bool around = drive == nullptr ? state->members.size() <= shard || state->members[shard].before.empty()
                                       : drive->slow.load(std::memory_order_relaxed);
  if (around) {
    race->rebuilding = true;
    Result<SharedBytes> rebuilt = co_await rebuild(state, stripe, shard, range);
    if (rebuilt) co_return rebuilt;
    if (drive == nullptr) co_return rebuilt;
    race->rebuild_error = std::move(rebuilt).error();
  }
  // A read that nobody races needs no machinery.
  if (!state->plane.tuning.hedge_reads || race->rebuilding) {
    Result<SharedBytes> direct = fail(Code::internal, "not run");
    if (range.offset == 0 && range.length == state->layout.stored_size(stripe, shard)) {
      FetchPointer fetch = direct_fetch(state, stripe, shard, range);
      co_await fetch->done.wait();
      direct = *fetch->result;
    } else {
      direct = co_await read_own(state, stripe, shard, range);
    }
    if (direct) co_return direct;
    if (worth_repair(direct.error())) state->ask_for_repair();
    if (race->rebuilding)
      co_return fail(Code::data_lost, "{}; its own place: {}", race->rebuild_error->context(), direct.error().to_string());
    co_return co_await rebuild(state, stripe, shard, range);
  }
  state->plane.background.spawn_here(race_direct(state, stripe, shard, range, race));
  const TimePoint late = Executor::here().now() + hedge_delay(*state, shard);
  bool in_time = race->bytes || race->direct_error;
  if (!in_time) in_time = co_await race->finished.wait_until(late);
  if (race->bytes) co_return *race->bytes;
  if (!in_time && !state->plane.may_hedge(uint64_t{range.length} * redundancy.k)) {
    while (!race->bytes && !race->direct_error) co_await race->finished.wait();
    if (race->bytes) co_return *race->bytes;
  }
  if (!race->direct_error) hedged_reads().add();
  state->plane.background.spawn_here(race_rebuild(state, stripe, shard, range, race));
  while (!race->bytes && !(race->direct_error && race->rebuild_error)) co_await race->finished.wait();
  if (race->direct_error && worth_repair(*race->direct_error)) state->ask_for_repair();
  if (race->bytes) co_return *race->bytes;
  co_return fail(Code::data_lost, "{}; its own place: {}", race->rebuild_error->context(), race->direct_error->to_string());
}

// A piece of the range: a whole shard, or one cache block of it.
struct Slot {
  uint32_t stripe = 0;
  unsigned shard = 0;
  uint32_t block = kWholeShard;
  Range fetched;                // in the shard
  uint32_t begin = 0, end = 0;  // what the reader wants of it, in the shard
  bool cached = true;           // false: cut in a way that the cache does not know
  Event done;
  std::optional<Result<SharedBytes>> result;
  MemoryBudget* budget = nullptr;
  ~Slot() {
    if (budget != nullptr) budget->release(fetched.length);
  }
};
using SlotPointer = std::shared_ptr<Slot>;

// A write may be widened under its reader (widen.cc), and then its group of the wider layout moves for itself, while nothing explains
// chunks by the narrow one any more. The first of its shards and their ranges are the same. Null: it is as it was.
Task<StatePointer> find_wider(StatePointer state) {
  if (state->wider != nullptr) co_return state->wider;
  if (state->layout.redundancy.kind != RedundancyKind::mirror) co_return StatePointer();
  const Result<std::optional<std::string>> row = co_await state->plane.meta.get(keys::data(state->layout));
  if (!row || !*row) co_return StatePointer();
  Decoder in(**row);
  Result<DataLayout> present = DataLayout::decode(in);
  if (!present || *present == state->layout) co_return StatePointer();
  if (state->wider == nullptr) {  // else another piece was faster
    state->wider = std::make_shared<ReadState>(
        ReadState{.plane = state->plane, .layout = *present, .policy = state->policy, .topology = {}, .members = {}, .direct = {}});
    state->wider->refresh();
  }
  co_return state->wider;
}

Task<Result<SharedBytes>> obtain_now(StatePointer state, SlotPointer slot) {
  Result<SharedBytes> bytes = co_await obtain(state, slot->stripe, slot->shard, slot->fetched);
  if (bytes || state->plane.drives.topology() == state->topology) co_return bytes;
  state->refresh();  // the map changed meanwhile: once more by the new one
  state->direct.clear();
  co_return co_await obtain(state, slot->stripe, slot->shard, slot->fetched);
}

Task<void> fill_slot(StatePointer state, SlotPointer slot) {
  while (state->wider != nullptr) state = state->wider;
  Result<SharedBytes> bytes = co_await obtain_now(state, slot);
  if (!bytes) {
    const StatePointer wider = co_await find_wider(state);
    if (wider != nullptr) bytes = co_await obtain_now(wider, slot);
  }
  if (bytes && state->policy != CachePolicy::bypass) {
    state->plane.cache.insert(cache_key(state->layout, slot->stripe, slot->shard, slot->block), *bytes, state->policy == CachePolicy::pin);
  }
  slot->result = std::move(bytes);
  std::move(*slot->result).ignore("a reader that comes to it takes it; one that was read ahead of may never");
  slot->done.set();
}

class StripeReader final : public DataReader {
 public:
  StripeReader(Plane& plane, const DataLayout& layout, uint64_t offset, uint64_t length, CachePolicy policy)
      : plane_(plane), layout_(layout), policy_(policy), planned_(offset), end_(offset + length) {
    CHECK(end_ <= layout.size && end_ >= offset, "a read stays inside its layout");
    plane_.reads.begin(layout.write_id);
  }
  ~StripeReader() override { plane_.reads.end(layout_.write_id); }

  Task<Result<SharedBytes>> next(size_t max_bytes) override {
    CHECK(max_bytes > 0);
    if (!rest_.empty()) co_return take(max_bytes);
    if (window_.empty()) {
      if (planned_ == end_) co_return SharedBytes();
      SlotPointer slot = plan();
      if (auto cached = find_cached(*slot)) {
        rest_ = cached->slice(slot->begin - slot->fetched.offset, slot->end - slot->begin);
        co_return take(max_bytes);
      }
      launch(std::move(slot));
    }
    fill_window();
    SlotPointer slot = window_.front();
    if (!slot->done.is_set()) {
      slots_wanted_ = std::min(slots_wanted_ * 2, kSlotsMax);
      co_await slot->done.wait();
    }
    window_.pop_front();
    if (state_ != nullptr) {  // who needs this shard to rebuild another has taken it, or will find it in the cache
      state_->direct.erase({slot->stripe, slot->shard});
      state_->direct.erase(state_->direct.begin(), state_->direct.lower_bound({slot->stripe, 0}));
    }
    if (!*slot->result) co_return std::move(*slot->result).error();
    rest_ = (**slot->result).slice(slot->begin - slot->fetched.offset, slot->end - slot->begin);
    slot.reset();
    fill_window();
    co_return take(max_bytes);
  }

 private:
  SharedBytes take(size_t max_bytes) {
    const size_t size = std::min(max_bytes, rest_.size());
    SharedBytes piece = rest_.slice(0, size);
    rest_ = rest_.slice(size, rest_.size() - size);
    bytes_served().add(size);
    plane_.foreground_bytes.fetch_add(size, std::memory_order_relaxed);
    return piece;
  }

  // The piece at planned_; moves on behind it.
  SlotPointer plan() {
    const uint64_t stripe_bytes = layout_.stripe_bytes();
    auto slot = std::make_shared<Slot>();
    slot->stripe = static_cast<uint32_t>(planned_ / stripe_bytes);
    const uint64_t in_stripe = planned_ % stripe_bytes;
    const uint32_t shard_bytes = layout_.read_shard_size(slot->stripe);
    slot->shard = static_cast<unsigned>(in_stripe / shard_bytes);
    const uint32_t stored = layout_.stored_size(slot->stripe, slot->shard);
    slot->begin = static_cast<uint32_t>(in_stripe % shard_bytes);
    slot->end = static_cast<uint32_t>(std::min<uint64_t>(stored, slot->begin + (end_ - planned_)));
    if (layout_.redundancy.kind == RedundancyKind::whole && policy_ == CachePolicy::bypass) {
      slot->cached = false;
      slot->end = std::min(slot->end, slot->begin + kPieceMax);
      slot->fetched = {slot->begin, slot->end - slot->begin};
    } else if (stored <= 2 * kCacheBlockSize || uint64_t{slot->end - slot->begin} * 2 >= stored) {
      slot->fetched = {0, stored};
    } else {
      slot->block = slot->begin / kCacheBlockSize;
      slot->fetched.offset = slot->block * kCacheBlockSize;
      slot->fetched.length = std::min(kCacheBlockSize, stored - slot->fetched.offset);
      slot->end = std::min(slot->end, slot->fetched.offset + slot->fetched.length);
    }
    planned_ += slot->end - slot->begin;
    return slot;
  }

  std::optional<SharedBytes> find_cached(Slot& slot) {
    if (!slot.cached) return std::nullopt;
    auto cached = plane_.cache.find(cache_key(layout_, slot.stripe, slot.shard, slot.block));
    if (cached) {
      if (policy_ == CachePolicy::pin) plane_.cache.insert(cache_key(layout_, slot.stripe, slot.shard, slot.block), *cached, true);
      return cached;
    }
    if (slot.block != kWholeShard) {  // a piece of a shard that is there as a whole
      cached = plane_.cache.find(cache_key(layout_, slot.stripe, slot.shard, kWholeShard));
      if (cached) return cached->slice(slot.fetched.offset, slot.fetched.length);
    }
    return std::nullopt;
  }

  void launch(SlotPointer slot) {
    if (state_ == nullptr) {
      state_ = std::make_shared<ReadState>(
          ReadState{.plane = plane_, .layout = layout_, .policy = policy_, .topology = {}, .members = {}, .direct = {}});
      state_->keep_direct = layout_.redundancy.kind == RedundancyKind::erasure;
      state_->refresh();
    }
    window_.push_back(slot);
    plane_.background.spawn_here(fill_slot(state_, std::move(slot)));
  }

  void fill_window() {
    while (window_.size() < slots_wanted_ && planned_ < end_) {
      const uint64_t before = planned_;
      SlotPointer slot = plan();
      if (auto cached = find_cached(*slot)) {
        slot->result = std::move(*cached);
        slot->done.set();
        window_.push_back(std::move(slot));
        continue;
      }
      if (!plane_.read_ahead.try_acquire(slot->fetched.length)) {
        planned_ = before;
        break;
      }
      slot->budget = &plane_.read_ahead;
      launch(std::move(slot));
    }
  }

  Plane& plane_;
  const DataLayout layout_;
  const CachePolicy policy_;
  uint64_t planned_;
  const uint64_t end_;
  size_t slots_wanted_ = kSlotsFirst;
  std::deque<SlotPointer> window_;
  SharedBytes rest_;
  StatePointer state_;  // made with the first piece that is not in the cache
};

}  // namespace

std::unique_ptr<DataReader> make_stripe_reader(Plane& plane, const DataLayout& layout, uint64_t offset, uint64_t length,
                                               CachePolicy policy) {
  if (policy == CachePolicy::normal && plane.drives.any_files() && lies_in_files(*plane.drives.topology(), layout)) {
    policy = CachePolicy::bypass;
  }
  return std::make_unique<StripeReader>(plane, layout, offset, length, policy);
}

Task<Result<SharedBytes>> rebuild_shard(Plane& plane, DataLayout layout, uint32_t stripe, unsigned shard, bool avoid_own) {
  auto state = std::make_shared<ReadState>(ReadState{.plane = plane,
                                                     .layout = layout,
                                                     .policy = CachePolicy::bypass,
                                                     .topology = {},
                                                     .members = {},
                                                     .direct = {},
                                                     .keep_direct = false,
                                                     .repair_asked = true});
  state->refresh();
  const Range whole{0, layout.stored_size(stripe, shard)};
  std::string own_error;
  Reason reason = Reason::none;
  if (!avoid_own) {
    Result<SharedBytes> own = co_await read_own(state, stripe, shard, whole);
    if (own) co_return own;
    own_error = " (" + own.error().context() + ")";
    reason = own.error().reason();
  }
  if (layout.redundancy.losses() == 0) {
    co_return fail(Code::data_lost, "stripe {} of write {}: shard {} is gone and there is no parity{}", stripe, layout.write_id, shard,
                   own_error)
        .because(reason);
  }
  co_return co_await rebuild(state, stripe, shard, whole);
}

}  // namespace quarry::cluster
