#include "cluster/stripes/stripe_writer.h"

#include "base/log.h"
#include "cluster/map/keys.h"
#include "cluster/stripes/group_choice.h"
#include "cluster/stripes/plane.h"
#include "codec/erasure.h"
#include "io/pace.h"
#include "observe/metrics.h"

namespace quarry::cluster {
namespace {

constexpr size_t kAdoptMin = 64 * 1024;       // smaller pieces are copied together
constexpr size_t kCollectSize = 1024 * 1024;  // into buffers of this size
constexpr uint32_t kShardMin = 64 * 1024;
constexpr uint64_t kCopyChunkMax = 4 * kMiB;  // of a full copy beside slices: stripes of many slices have small ones
constexpr uint32_t kStripesInFlightMax = 4;   // per writer
constexpr int kBeginAgainMax = 3;             // elsewhere, of a write whose drives turned out to be full
constexpr uint64_t kCachedShare = 4;          // of one write at most one part of so many of the read cache is kept in it
constexpr size_t kZerosSize = 1024 * 1024;
constexpr uint64_t kPermitShare = 16;  // of the memory that is left, a write takes at most one part of so many
constexpr Duration kMemoryPatience = std::chrono::seconds(15);
constexpr Duration kMemoryRetry = std::chrono::milliseconds(10);

const Counter& bytes_written() {
  static const Counter counter = metrics::counter("cluster_data_bytes_written_total", "Bytes of object data accepted for writing");
  return counter;
}
const Counter& shards_missed() {
  static const Counter counter =
      metrics::counter("cluster_shards_missed_total", "Shards of acknowledged writes that could not be put and wait for repair");
  return counter;
}

ByteView zeros() {
  static const Buffer buffer = [] {
    Buffer b(kZerosSize);
    std::memset(b.data(), 0, b.size());
    return b;
  }();
  return buffer.view();
}

// A run of data as it came in, cut into pieces of consecutive memory.
using Pieces = std::vector<SharedBytes>;

std::vector<ByteView> slice_views(const Pieces& pieces, uint64_t begin, uint64_t end) {
  std::vector<ByteView> views;
  uint64_t at = 0;
  for (const SharedBytes& piece : pieces) {
    const uint64_t from = std::max(begin, at), to = std::min(end, at + piece.size());
    if (from < to) views.push_back(piece.view().subspan(from - at, to - from));
    at += piece.size();
    if (at >= end) break;
  }
  return views;
}

// Parity over shards that are lists of views: encodes column by column where all of them are consecutive in memory. The references outlive
// it.
Task<void> encode_parity(const ErasureCode& code, const std::vector<std::vector<ByteView>>& data, std::vector<Buffer>& parity,
                         size_t shard_bytes) {
  const size_t k = data.size();
  std::vector<size_t> index(k), offset(k);
  std::vector<const uint8_t*> from(k);
  std::vector<uint8_t*> to(parity.size());
  if (shard_bytes > ErasureCode::kRunMax) co_await Executor::here().yield();  // whoever gathered this stripe may have one more ready
  Pace pace;
  for (size_t column = 0; column < shard_bytes;) {
    size_t run = std::min(shard_bytes - column, ErasureCode::kRunMax);
    for (size_t i = 0; i < k; ++i) {
      if (index[i] == data[i].size()) {  // behind the end of the data: zeros
        from[i] = zeros().data();
        run = std::min(run, kZerosSize);
      } else {
        from[i] = data[i][index[i]].data() + offset[i];
        run = std::min(run, data[i][index[i]].size() - offset[i]);
      }
    }
    for (size_t j = 0; j < parity.size(); ++j) {
      to[j] = parity[j].data() + column;
      to[j][0] = to[j][run - 1] = 0;  // the system makes the page now, one between two looks at the pace
      co_await pace;
    }
    code.encode(from, to, run);
    for (size_t i = 0; i < k; ++i) {
      if (index[i] == data[i].size()) continue;
      offset[i] += run;
      if (offset[i] == data[i][index[i]].size()) {
        ++index[i];
        offset[i] = 0;
      }
    }
    column += run;
  }
}

// Shared by the writer and its stripes in flight, which may outlive it. Confined to the writer's executor.
struct WriteState {
  WriteState(Plane& p, WriteOptions o) : plane(p), options(o), executor(Executor::here()) {}
  ~WriteState() {
    if (id && stripes == 0) id->set_decided();  // nothing was put
    if (permit > 0) plane.write_memory.release(permit);
    if (topology != nullptr) plane.writes.end(topology->map.epoch);
  }

  Plane& plane;
  const WriteOptions options;
  Executor& executor;
  std::shared_ptr<const Topology> topology;
  std::optional<TakenId> id;  // of layout.write_id
  DataLayout layout;
  uint64_t permit = 0;  // bytes of write memory held for the stripe that is gathered
  uint32_t in_flight = 0;
  Event changed;
  std::optional<Error> error;
  uint32_t stripes = 0;              // dispatched
  unsigned missing_max = 0;          // shards that one stripe lacks at most
  uint32_t incomplete = 0;           // bit i: member i lacks a stripe
  unsigned slices_min = UINT32_MAX;  // shards that are no copies, of the stripe that has the fewest
  // Member i keeps the write as a file.
  bool is_file(unsigned shard, const Drive& drive) const {
    return shard < layout.redundancy.width() && layout.redundancy.is_copy(shard) && !options.file.empty() && drive.keeps_files();
  }
};
using StatePointer = std::shared_ptr<WriteState>;

// [begin, end) in one piece of memory, and hardly more kept alive by it: as it came in, or copied together.
SharedBytes in_one_piece(const Pieces& pieces, uint64_t begin, uint64_t end) {
  uint64_t at = 0;
  for (const SharedBytes& piece : pieces) {
    if (begin >= at && end <= at + piece.size() && piece.retained_bytes() <= (end - begin) * 5 / 4)
      return piece.slice(begin - at, end - begin);
    at += piece.size();
    if (at >= end) break;
  }
  Buffer whole(end - begin);
  size_t filled = 0;
  for (const ByteView view : slice_views(pieces, begin, end)) {
    std::memcpy(whole.data() + filled, view.data(), view.size());
    filled += view.size();
  }
  return SharedBytes(std::move(whole));
}

// The data shards of a stripe as a reader will look for them. The references outlive it.
Task<void> keep_in_cache(const WriteState& state, uint32_t stripe, const Pieces& pieces, uint64_t bytes, uint64_t shard_bytes) {
  ReadCache& cache = state.plane.cache;
  const DataLayout& layout = state.layout;
  if (!cache.enabled() || !state.plane.tuning.cache_writes || bytes == 0 || lies_in_files(*state.topology, layout)) co_return;
  // The beginning of what is too large for the cache would be gone before it is read.
  if (stripe * layout.stripe_bytes() > cache.capacity() / kCachedShare) co_return;
  const bool striped = layout.redundancy.kind == RedundancyKind::erasure;
  const uint64_t length = striped ? shard_bytes : bytes;
  Pace pace;
  for (uint64_t begin = 0, shard = 0; begin < bytes; begin += length, ++shard) {
    co_await pace;
    cache.insert(cache_key(layout, stripe, static_cast<unsigned>(shard), kWholeShard),
                 in_one_piece(pieces, begin, std::min(bytes, begin + length)));
  }
}

// What the puts of a stripe read. A drive that hangs may come back to it long after the stripe was given up (Drive::give_up).
struct StripeBytes {
  Pieces pieces;
  std::vector<Buffer> parity;
  FileName file;
};

// The drive answered that it has no room; nor have those that share its file system.
void note_full(const Topology& topology, Drive& drive) {
  drive.note_full();
  if (topology.sharers(drive.number()) < 2) return;
  const std::string& file_system = topology.file_system[drive.number()];
  for (uint32_t other = 0; other < topology.file_system.size(); ++other) {
    Drive* sharer = topology.file_system[other] == file_system ? topology.drive(other) : nullptr;
    if (sharer != nullptr) sharer->note_full();
  }
}

Task<Result<void>> put_shard(Drive* drive, ChunkId id, std::vector<ByteView> parts, chunk::PutOptions options,
                             std::shared_ptr<const void> hold) {
  size_t size = 0;
  for (ByteView part : parts) size += part.size();
  if (!drive->reserve(size)) {
    co_return fail(Code::no_space, "drive {} ({}) is full: add a drive or delete data", drive->number(), drive->path());
  }
  Task<Result<void>> put = drive->put(id, std::move(parts), options, std::move(hold));
  if (!options.file) put = drive->timed(std::move(put));  // of a file finishing it says how long it takes
  co_return co_await std::move(put);
}

Task<void> put_stripe(StatePointer state, uint32_t stripe, Pieces gathered, uint64_t bytes, uint64_t permit) {
  const auto held = std::make_shared<StripeBytes>();
  held->pieces = std::move(gathered);
  held->file = state->options.file;
  const Pieces& pieces = held->pieces;
  std::vector<Buffer>& parity = held->parity;
  const DataLayout& layout = state->layout;
  const Redundancy redundancy = layout.redundancy;
  const unsigned width = redundancy.width();
  const bool mirror = redundancy.kind == RedundancyKind::mirror;
  const uint64_t shard_bytes = bytes == layout.stripe_bytes() ? layout.shard_size : shard_size_for(bytes, redundancy.k);
  std::vector<std::vector<ByteView>> data(redundancy.k);
  for (unsigned i = 0; i < redundancy.k; ++i)
    data[i] = slice_views(pieces, std::min(bytes, i * shard_bytes), std::min(bytes, (i + 1) * shard_bytes));
  if (!mirror && redundancy.m > 0 && bytes > 0) {
    for (unsigned j = 0; j < redundancy.m; ++j) parity.emplace_back(shard_bytes);
    auto code = ErasureCode::get(redundancy.k, redundancy.m);
    CHECK(code, "layouts name codes that exist");
    co_await encode_parity(**code, data, parity, shard_bytes);
  }
  const Members members = state->topology->map.members(static_cast<uint8_t>(width), layout.group);
  std::vector<Task<Result<void>>> puts;
  std::vector<unsigned> put_of;  // the shard of each
  std::vector<Drive*> drive_of;  // and where it goes
  unsigned durable = 0, slices = 0, missing = 0;
  for (unsigned i = 0; i < width; ++i) {
    const unsigned coded = i - redundancy.first_slice();  // if it is no copy: which shard of the code
    std::vector<ByteView> parts;
    if (redundancy.is_copy(i)) {
      parts = slice_views(pieces, 0, bytes);
    } else if (coded < redundancy.k) {
      parts = data[coded];
    } else if (bytes > 0) {
      parts.push_back(parity[coded - redundancy.k].view());
    }
    Drive* drive = state->topology->drive(members[i].at.drive);
    const bool empty_file = bytes == 0 && drive != nullptr && state->is_file(i, *drive);
    if (parts.empty() && !empty_file) {  // behind the end of the data: known to be zeros, not stored
      ++durable;
      slices += !redundancy.is_copy(i);
      continue;
    }
    if (drive == nullptr || !drive->writable()) {
      ++missing;
      state->incomplete |= 1u << i;
      continue;
    }
    chunk::PutOptions options;
    if (state->is_file(i, *drive)) options.file = file_place(layout, stripe, i, members[i].at.term, 0, held->file);
    put_of.push_back(i);
    drive_of.push_back(drive);
    puts.push_back(put_shard(drive, chunk_id(shard_name(layout, stripe, i, members[i].at.term)), std::move(parts), options, held));
  }
  std::vector<Result<void>> results = co_await when_all(std::move(puts));
  std::optional<Error> error;
  bool full = false;
  for (size_t at = 0; at < results.size(); ++at) {
    auto& result = results[at];
    if (result) {
      ++durable;
      slices += !redundancy.is_copy(put_of[at]);
      continue;
    }
    ++missing;
    state->incomplete |= 1u << put_of[at];
    if (result.error().code() == Code::no_space) {
      full = true;
      note_full(*state->topology, *drive_of[at]);
    }
    if (!error || result.error().code() == Code::no_space) error = std::move(result).error();
  }
  if (!state->error) {
    if (full) {
      state->error = std::move(error);
    } else if (durable < redundancy.durable_min()) {
      state->error = fail(Code::unavailable, "only {} of the {} drives needed by {} took the data ({})", durable, redundancy.durable_min(),
                          redundancy.to_string(), error ? error->to_string() : "the others are down");
    }
  }
  if (!state->error) co_await keep_in_cache(*state, stripe, pieces, bytes, shard_bytes);
  if (missing > 0) shards_missed().add(missing);
  state->missing_max = std::max(state->missing_max, missing);
  state->slices_min = std::min(state->slices_min, slices);
  if (permit > 0) state->plane.write_ahead.release(permit);
  --state->in_flight;
  state->changed.pulse();
}

Task<void> wait_for_stripes(StatePointer state, uint32_t at_most) {
  while (state->in_flight > at_most) co_await state->changed.wait();
}

// Removes what was written of a write that will not be committed.
Task<void> discard(StatePointer state) {
  Executor& home = Executor::here();
  co_await state->executor.enter();
  co_await wait_for_stripes(state, 0);
  co_await home.enter();
  DataLayout layout = state->layout;
  layout.size = state->stripes == 0 ? 0 : std::max<uint64_t>(layout.size, state->stripes * layout.stripe_bytes());
  co_await forget_cached(state->plane, layout);
  Removal removal;
  const bool reachable = removal.add(*state->plane.drives.topology(), layout);
  Result<void> removed = co_await removal.run(true);
  if (!removed || !reachable) {
    // Some of it stays where it is: the id is left open, so the next start looks again.
    LOG_DEBUG("an abandoned write could not be removed everywhere", {"write", layout.write_id},
              {"error", removed ? "a drive is away" : removed.error().to_string()});
  } else if (state->id) {
    state->id->set_decided();
  }
  co_await state->executor.enter();
  state.reset();  // its events belong to that executor
  co_await home.enter();
}

// Until it is certain what became of the commit, the write counts as one under way: what the map says of its group is not forgotten, since
// the row may come to light behind a repair that looked for rows.
Task<void> decide(StatePointer state) {
  Plane& plane = state->plane;
  const std::string key = keys::data(state->layout);
  const Result<void> certain = co_await until_commits_are_certain(plane);
  if (!certain) co_return;  // left open: the next start looks
  Result<std::optional<std::string>> row = co_await plane.meta.get(key);
  if (!row) co_return;
  if (*row) {
    state->id->set_decided();
  } else {
    co_await discard(std::move(state));
  }
}

class StripeWriter final : public DataWriter {
 public:
  StripeWriter(Plane& plane, const WriteOptions& options) : state_(std::make_shared<WriteState>(plane, options)) {}
  ~StripeWriter() override {
    if (state_ == nullptr) return;
    forget_degraded();
    if (named_) state_->plane.file_names.forget(state_->layout.write_id);
    if (!decided_) abandon();
  }

  Task<Result<void>> append(Buffer data) override {
    Result<void> taken = co_await take(std::move(data));
    if (!taken) co_return co_await as_told(std::move(taken).error());
    co_return taken;
  }

  Task<Result<DataLayout>> finish() override {
    CHECK(!finished_);
    close_collected();
    // Of a write of one stripe everything is still here: should a drive be full, it begins again elsewhere, and nobody notices.
    const bool whole = state_->stripes == 0;
    const Pieces all = whole ? pieces_ : Pieces();
    Result<DataLayout> done = co_await finish_once();
    for (int tries = 0; whole && !done && done.error().code() == Code::no_space && tries < kBeginAgainMax; ++tries) {
      const bool elsewhere = co_await is_room_elsewhere();
      if (!elsewhere) break;
      abandon();
      state_ = std::make_shared<WriteState>(state_->plane, state_->options);
      done = co_await write_again(all);
    }
    if (!done) co_return co_await as_told(std::move(done).error());
    co_return done;
  }

  void keep() override {
    decided_ = true;
    if (state_->id) state_->id->set_decided();
    if (degraded_) state_->plane.wake_repair();
  }

  void settle() override {
    decided_ = true;
    if (state_->permit > 0) state_->plane.write_memory.release(std::exchange(state_->permit, 0));
    state_->plane.background.spawn(decide(state_));
  }

 private:
  Task<Result<void>> take(Buffer data) {
    if (state_->error) co_return *state_->error;
    CHECK(!finished_ && !data.empty());
    CO_TRY(co_await start(data.size()));
    bytes_written().add(data.size());
    state_->plane.foreground_bytes.fetch_add(data.size(), std::memory_order_relaxed);
    const uint64_t stripe_bytes = state_->layout.stripe_bytes();
    const bool whole = total_ == 0 && data.size() == state_->options.size_hint;
    total_ += data.size();
    if (total_ > stripe_bytes * kStripesMax) co_return fail(Code::too_large, "a write of more than {} bytes", stripe_bytes * kStripesMax);
    if (data.size() < kAdoptMin && !whole) {
      ByteView rest = data.view();
      while (!rest.empty()) {
        const size_t taken = collect(rest);
        rest = rest.subspan(taken);
        if (gathered_ == stripe_bytes) CO_TRY(co_await dispatch());
      }
      co_return Result<void>();
    }
    close_collected();
    const SharedBytes bytes(std::move(data));
    co_return co_await gather(bytes);
  }

  Task<Result<void>> gather(SharedBytes bytes) {
    const uint64_t stripe_bytes = state_->layout.stripe_bytes();
    for (size_t at = 0; at < bytes.size();) {
      const size_t take = std::min<uint64_t>(bytes.size() - at, stripe_bytes - gathered_);
      pieces_.push_back(bytes.slice(at, take));
      gathered_ += take;
      at += take;
      if (gathered_ == stripe_bytes) CO_TRY(co_await dispatch());
    }
    co_return Result<void>();
  }

  // The whole write once more, under another id; its stripes may be others than before.
  Task<Result<DataLayout>> write_again(Pieces all) {
    pieces_.clear();
    gathered_ = 0;
    CO_TRY(co_await start(total_));
    for (const SharedBytes& piece : all) {
      CO_TRY(co_await gather(piece));
    }
    co_return co_await finish_once();
  }

  Task<Result<DataLayout>> finish_once() {
    if (state_->error) co_return *state_->error;
    finished_ = true;
    CO_TRY(co_await start(total_));
    DataLayout& layout = state_->layout;
    const WriteOptions& options = state_->options;
    if (layout.redundancy.kind == RedundancyKind::erasure && state_->stripes == 0 && total_ > 0 && total_ <= options.pack_limit) {
      CO_TRY(co_await know_width(options.redundancy.m + 1u));
      layout.redundancy = {RedundancyKind::mirror, 1, options.redundancy.m};
      layout.shard_size = static_cast<uint32_t>(round_up(total_, kBufferAlignment));
    }
    layout.size = total_;
    if (total_ == 0) CO_TRY(co_await put_empty_files());
    if (gathered_ > 0) CO_TRY(co_await dispatch());
    co_await wait_for_stripes(state_, 0);
    if (state_->error) co_return *state_->error;
    CO_TRY(co_await finish_files());
    if (!options.file.empty() && layout.redundancy.has_copies() && state_->topology->any_files) {
      state_->plane.file_names.set(layout.write_id, options.file);
      named_ = true;
    }
    if (state_->missing_max > 0) {
      std::lock_guard lock(state_->plane.degraded_mutex);
      state_->plane.degraded[layout.write_id] =
          static_cast<uint8_t>(layout.redundancy.losses() - std::min(state_->missing_max, layout.redundancy.losses()));
      state_->plane.degraded_count.fetch_add(1);
      degraded_ = true;
    }
    co_return layout;
  }

  // A group with room for this write, as the drives say now; at need with a narrower layout.
  Task<bool> is_room_elsewhere() {
    co_await wait_for_stripes(state_, 0);  // looking for a place may need a newer map
    const WriteDemand demand{.redundancy = state_->options.redundancy,
                             .size = std::max<uint64_t>(state_->options.size_hint, total_),
                             .pack_limit = state_->options.pack_limit};
    const std::optional<Place> place = co_await find_place(demand, state_->layout.group);
    co_return place.has_value();
  }

  // That a drive filled up says nothing of the others: who asks again is sent to those that have room.
  Task<Error> as_told(Error error) {
    if (error.code() != Code::no_space) co_return error;
    const bool elsewhere = co_await is_room_elsewhere();
    if (!elsewhere) co_return error;
    co_return fail(Code::overloaded, "a drive filled up in the middle of this write, others have room: try again ({})", error.context());
  }

  // What was written will not be committed.
  void abandon() {
    if (!std::exchange(started_, false)) return;
    Plane& plane = state_->plane;
    plane.background.spawn(discard(state_));
  }

  // Before the first byte: an id, a place, memory.
  Task<Result<void>> start(size_t first_bytes) {
    if (started_) co_return Result<void>();
    Plane& plane = state_->plane;
    if (std::string reason = plane.read_only_reason(); !reason.empty())
      co_return fail(Code::unavailable, "the store is read-only: {}", reason);
    Redundancy redundancy = state_->options.redundancy;
    CO_TRY(co_await know_width(redundancy.width()));
    Result<WriteId> id = co_await plane.ids.take();
    if (!id) co_return std::move(id).error();
    state_->id.emplace(plane.ids, *id);
    state_->topology = plane.writes.begin();
    DataLayout& layout = state_->layout;
    layout.write_id = *id;
    layout.group = group_of(*id, state_->topology->map.group_count);
    layout.shard_size = plane.tuning.shard_bytes;
    const uint64_t hint = std::max<uint64_t>(state_->options.size_hint, first_bytes);
    const bool bounded = state_->options.size_hint > 0 || finished_;
    const WriteDemand demand{.redundancy = redundancy, .size = bounded ? hint : 0, .pack_limit = state_->options.pack_limit};
    if (judge_group(*state_->topology, demand, layout.group) != GroupFitness::good) {
      // The group that the id hashes to is short of drives or room. Where no other is better the drives say whether this one still fits.
      const std::optional<Place> place = co_await find_place(demand, layout.group);
      if (place) {
        layout.group = place->group;
        redundancy = place->redundancy;
      }
    }
    layout.redundancy = redundancy;
    CO_TRY(co_await take_memory(bounded ? hint : 0));
    co_return Result<void>();
  }

  struct Place {
    GroupId group = 0;
    Redundancy redundancy;
  };

  // The first group from `hashed` on that takes this write, at need a narrower layout with the same protection; none: all are full, or
  // nearly.
  Task<std::optional<Place>> find_place(WriteDemand demand, GroupId hashed) {
    std::optional<Redundancy> next = demand.redundancy;
    for (; next; next = narrower(*next)) {
      demand.redundancy = *next;
      const Result<void> known = co_await know_width(next->width());
      if (!known) continue;
      const auto topology = ground();
      const std::optional<GroupId> group = choose_group(*topology, demand, hashed);
      if (group) co_return Place{*group, *next};
    }
    co_return std::nullopt;
  }

  Task<Result<void>> finish_one(unsigned shard, Drive* drive, ChunkId first) {
    Result<void> finished = co_await drive->timed(drive->finish_file(first, state_->layout.size));
    if (!finished && finished.error().code() == Code::no_space) note_full(*state_->topology, *drive);
    if (!finished) state_->incomplete |= 1u << shard;
    co_return finished;
  }

  // Members that keep files make them whole and durable.
  Task<Result<void>> finish_files() {
    if (state_->options.file.empty() || !state_->topology->any_files) co_return Result<void>();
    const DataLayout& layout = state_->layout;
    const Members members = state_->topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
    std::vector<Task<Result<void>>> finishes;
    bool files = false;
    for (unsigned i = 0; i < members.size(); ++i) {
      Drive* drive = state_->topology->drive(members[i].at.drive);
      if (drive == nullptr || !state_->is_file(i, *drive)) continue;
      files = true;
      if ((state_->incomplete >> i & 1) == 0)
        finishes.push_back(finish_one(i, drive, chunk_id(shard_name(layout, 0, i, members[i].at.term))));
    }
    if (!files) co_return Result<void>();
    std::vector<Result<void>> results = co_await when_all(std::move(finishes));
    std::optional<Error> error;
    for (auto& result : results) {
      if (!result && (!error || result.error().code() == Code::no_space)) error = std::move(result).error();
    }
    // A file that lacks one stripe is no copy at all.
    unsigned copies = 0;
    for (unsigned i = 0; i < layout.redundancy.width(); ++i) copies += layout.redundancy.is_copy(i) && (state_->incomplete >> i & 1) == 0;
    const unsigned slices = state_->slices_min == UINT32_MAX ? 0 : state_->slices_min;
    const unsigned durable = copies + slices;
    state_->missing_max = std::max(state_->missing_max, layout.redundancy.width() - durable);
    if (error && error->code() == Code::no_space) {
      state_->error = std::move(error);
    } else if (durable < layout.redundancy.durable_min()) {
      state_->error =
          fail(Code::unavailable, "only {} of the {} copies or slices needed by {} are whole ({})", durable,
               layout.redundancy.durable_min(), layout.redundancy.to_string(), error ? error->to_string() : "the other drives are down");
    }
    if (state_->error) co_return *state_->error;
    co_return Result<void>();
  }

  // An object without bytes has no stripe; where drives keep files it is an empty file, so that it is seen there.
  Task<Result<void>> put_empty_files() {
    const DataLayout& layout = state_->layout;
    if (state_->options.file.empty() || !layout.redundancy.has_copies()) co_return Result<void>();
    ++state_->in_flight;
    ++state_->stripes;
    state_->plane.background.spawn_here(put_stripe(state_, 0, {}, 0, 0));
    co_await wait_for_stripes(state_, 0);
    co_return Result<void>();
  }

  // Takes the permit for one stripe. The more writes there are the smaller the shards, so that many find room and none waits for the
  // end of another that may take hours; beyond that a write waits, but not for ever.
  // bytes: of the whole write; 0: unknown.
  Task<Result<void>> take_memory(uint64_t bytes) {
    MemoryBudget& memory = state_->plane.write_memory;
    DataLayout& layout = state_->layout;
    const unsigned k = layout.redundancy.k, width = layout.redundancy.width();
    uint32_t largest = state_->plane.tuning.shard_bytes;
    if (layout.redundancy.kind == RedundancyKind::whole) {
      largest *= 2;  // slices are written and seldom read: fewer of them
      while (largest > kShardMin && uint64_t{largest} * k > kCopyChunkMax) largest /= 2;
    }
    const TimePoint deadline = Executor::here().now() + kMemoryPatience;
    for (;;) {
      for (layout.shard_size = largest;; layout.shard_size /= 2) {
        const bool smallest = layout.shard_size <= kShardMin;
        uint64_t permit = uint64_t{layout.shard_size} * width;
        if (bytes > 0) permit = std::min<uint64_t>(permit, div_up(bytes, k) * width);
        permit = std::min(permit, memory.capacity());
        if ((smallest || permit <= memory.available() / kPermitShare) && memory.try_acquire(permit)) {
          started_ = true;
          state_->permit = permit;
          co_return Result<void>();
        }
        if (smallest) break;
      }
      if (Executor::here().now() >= deadline)
        co_return fail(Code::overloaded, "too many writes at once: no memory for another; try again later");
      co_await sleep_for(kMemoryRetry);
    }
  }

  // What a place is looked for in. A write of which something was put goes by the topology in which that was done to its end, and counts as
  // one of it: else the map forgets where its chunks lie, and nobody removes them.
  std::shared_ptr<const Topology> ground() const {
    return state_->topology != nullptr && state_->stripes == 0 ? state_->topology : state_->plane.drives.topology();
  }

  Task<Result<void>> know_width(unsigned width) {
    Plane& plane = state_->plane;
    if (ground()->map.knows_width(static_cast<uint8_t>(width))) co_return Result<void>();
    CO_TRY(co_await on(plane.background.home(), plane.register_width(static_cast<uint8_t>(width))));
    if (state_->topology != nullptr && state_->stripes == 0) {
      auto newer = plane.writes.begin();
      plane.writes.end(state_->topology->map.epoch);
      state_->topology = std::move(newer);
    }
    co_return Result<void>();
  }

  size_t collect(ByteView bytes) {
    const uint64_t room = state_->layout.stripe_bytes() - gathered_;
    if (collected_.empty()) {
      const uint64_t hint = state_->options.size_hint;
      collected_ = Buffer(std::min<uint64_t>(room, hint > 0 ? std::clamp<uint64_t>(hint, bytes.size(), kCollectSize) : kCollectSize));
      collected_used_ = 0;
    }
    const size_t take = std::min<uint64_t>({bytes.size(), collected_.size() - collected_used_, room});
    std::memcpy(collected_.data() + collected_used_, bytes.data(), take);
    collected_used_ += take;
    gathered_ += take;
    if (collected_used_ == collected_.size()) close_collected();
    return take;
  }
  void close_collected() {
    if (collected_used_ > 0) pieces_.push_back(SharedBytes(std::move(collected_)).slice(0, collected_used_));
    collected_ = Buffer();
    collected_used_ = 0;
  }

  Task<Result<void>> dispatch() {
    close_collected();
    Plane& plane = state_->plane;
    co_await wait_for_stripes(state_, kStripesInFlightMax - 1);
    uint64_t permit = 0;
    const uint64_t stripe_memory = uint64_t{state_->layout.shard_size} * state_->layout.redundancy.width();
    if (!finished_) {  // gather the next stripe while this one is written, if memory is to be had; else wait until it is done
      if (plane.write_ahead.try_acquire(stripe_memory)) permit = stripe_memory;
    }
    const bool wait = permit == 0;
    ++state_->in_flight;
    const uint32_t stripe = state_->stripes++;
    plane.background.spawn_here(put_stripe(state_, stripe, std::exchange(pieces_, {}), std::exchange(gathered_, 0), permit));
    if (wait) co_await wait_for_stripes(state_, 0);
    if (state_->error) co_return *state_->error;
    co_return Result<void>();
  }

  void forget_degraded() {
    if (!degraded_) return;
    std::lock_guard lock(state_->plane.degraded_mutex);
    if (state_->plane.degraded.erase(state_->layout.write_id) > 0) state_->plane.degraded_count.fetch_sub(1);
  }

  StatePointer state_;
  Pieces pieces_;
  uint64_t gathered_ = 0;
  Buffer collected_;
  size_t collected_used_ = 0;
  uint64_t total_ = 0;
  bool started_ = false;
  bool finished_ = false;
  bool decided_ = false;
  bool degraded_ = false;
  bool named_ = false;
};

}  // namespace

std::unique_ptr<DataWriter> make_stripe_writer(Plane& plane, const WriteOptions& options) {
  return std::make_unique<StripeWriter>(plane, options);
}

}  // namespace quarry::cluster
