// What is left of the store: its state, its figures, its superblock, opening and closing.
#include "base/check.h"
#include "base/log.h"
#include "base/units.h"
#include "chunk/raw/raw_store_impl.h"
#include "chunk/raw/recovery.h"
#include "io/clock.h"

namespace quarry::chunk {

Task<Result<std::unique_ptr<RawStore>>> RawStore::open(std::unique_ptr<BlockDevice> device, RawStoreOptions options) {
  auto loaded = co_await raw::SuperblockSet::load(*device);
  std::optional<Error> error;
  if (!loaded) {
    error = std::move(loaded).error();
  } else {
    const raw::Superblock& s = loaded->superblock();
    if (options.cluster && !s.cluster.is_nil() && s.cluster != *options.cluster) {
      error = fail(Code::wrong_owner, "{}: drive {} belongs to cluster {}, not to {}", device->info().path, s.drive.to_string(),
                   s.cluster.to_string(), options.cluster->to_string());
    }
    if ((s.read_only & ~raw::kKnownReadOnly) != 0 && !options.read_only) {
      LOG_WARNING("the drive uses features this program can only read", {"device", device->info().path});
      options.read_only = true;
    }
  }
  if (!error) {
    auto store = std::make_unique<raw::RawStoreImpl>(std::move(device), options, std::move(*loaded));
    auto mounted = co_await store->mount();
    if (mounted) co_return std::unique_ptr<RawStore>(std::move(store));
    error = std::move(mounted).error();
    (co_await store->close()).ignore("it never opened; the first error is the one to tell");
    co_return std::move(*error);
  }
  co_await device->close();
  co_return std::move(*error);
}

Task<Result<RawStore::Identity>> RawStore::identify(BlockDevice& device) {
  CO_TRY_ASSIGN(const auto set, co_await raw::SuperblockSet::load(device));
  const raw::Superblock& s = set.superblock();
  Identity identity{s.drive,  s.cluster,       s.device_size, s.segment_size, s.segment_count,
                    s.mounts, s.fencing_epoch, s.version,     s.clean,        set.label()};
  co_return identity;
}

namespace raw {

RawStoreImpl::RawStoreImpl(std::unique_ptr<BlockDevice> device, RawStoreOptions options, SuperblockSet supers)
    : device_(std::move(device)), options_(options), supers_(std::move(supers)) {
  for (uint8_t i = 0; i < kStreams; ++i) streams_.push_back(std::make_unique<PackedStream>(*this, i));
  journal_.set_on_full([this] { request_checkpoint(); });
  journal_.set_look([this] { return owner_look_due(); }, [this] { return look_at_owner(); });
}

RawStoreImpl::~RawStoreImpl() { CHECK(active_requests_ == 0, "a store dies under its callers"); }

std::string RawStoreImpl::description() const { return fmt::format("raw store on {}", device_->info().path); }

Result<void> RawStoreImpl::readable() const {
  if (closing_ || closed_) return fail(Code::device_gone, "{}: the store is closed", device_->info().path);
  if (health_.state == StoreState::failed)
    return fail(Code::device_gone, "{}: {}", device_->info().path, health_.reason).because(health_.because);
  return {};
}

Result<void> RawStoreImpl::writable() const {
  TRY(readable());
  if (health_.state == StoreState::read_only) return fail(Code::read_only, "{}: {}", device_->info().path, health_.reason);
  return {};
}

void RawStoreImpl::become(StoreState state, std::string reason) {
  if (static_cast<int>(state) <= static_cast<int>(health_.state)) return;
  LOG_ERROR("a drive's store can no longer be fully served", {"device", device_->info().path},
            {"state", state == StoreState::failed ? "failed" : "read_only"}, {"reason", reason});
  health_.state = state;
  health_.reason = std::move(reason);
}

Error RawStoreImpl::noted(Error error, bool write) {
  note_error(error, write);
  return error;
}

void RawStoreImpl::note_error(const Error& error, bool write) {
  switch (error.code()) {
    case Code::device_gone:
      if (health_.state != StoreState::failed) health_.because = error.reason();
      become(StoreState::failed, error.to_string());
      if (!journal_.error()) journal_.fail_all(error);
      break;
    case Code::io_error:
      ++(write ? health_.write_errors : health_.read_errors);
      if (write && health_.write_errors > kWriteErrorsMax) become(StoreState::read_only, "too many write errors: " + error.to_string());
      break;
    default: break;
  }
  if (journal_.error() && health_.state == StoreState::online) {
    become(StoreState::read_only, "the log cannot be written: " + journal_.error()->to_string());
  }
}

Task<Result<void>> RawStoreImpl::update_superblock(Superblock next) {
  if (mounted_) CO_TRY(co_await look_at_owner_now());
  auto updated = co_await supers_.update(*device_, std::move(next));
  if (!updated) co_return noted(std::move(updated).error(), true);
  co_return Result<void>{};
}

Task<Result<void>> RawStoreImpl::set_label(std::string label) {
  CO_TRY(writable());
  if (label.size() > kLabelMax) co_return fail(Code::too_large, "a label of {} bytes: at most {}", label.size(), kLabelMax);
  Use use(*this);
  co_await super_turn_.acquire();
  auto set = co_await look_at_owner_now();
  if (set) set = co_await supers_.set_label(*device_, std::move(label));
  super_turn_.release();
  if (!set) co_return noted(std::move(set).error(), true);
  co_return Result<void>{};
}

Task<Result<void>> RawStoreImpl::set_cluster_id(Uuid cluster) {
  CO_TRY(writable());
  Use use(*this);
  co_await super_turn_.acquire();
  Superblock next = supers_.superblock();
  Result<void> result;
  if (next.cluster.is_nil()) {
    next.cluster = cluster;
    result = co_await update_superblock(std::move(next));
  } else if (next.cluster != cluster) {
    result = fail(Code::wrong_owner, "drive {} belongs to cluster {}", next.drive.to_string(), next.cluster.to_string());
  }
  super_turn_.release();
  co_return result;
}

Task<Result<uint64_t>> RawStoreImpl::grow() {
  CO_TRY(writable());
  Use use(*this);
  co_await super_turn_.acquire();
  Result<uint64_t> size = co_await device_->refresh_size();
  if (size) {
    Superblock next = supers_.superblock();
    auto layout = grow_layout({next.zones, next.spans, next.segment_count}, next.device_size, *size, next.segment_size);
    if (!layout) {
      size = std::move(layout).error();
    } else if (2 * lane_reserve(layout->segments) > lane_size(next.segment_size)) {
      size = fail(Code::invalid_argument, "{} segments are more than the log can list: move the data to a freshly formatted device",
                  layout->segments);
    } else if (layout->segments > next.segment_count) {
      next.device_size = *size;
      next.zones = layout->zones;
      next.spans = layout->spans;
      next.segment_count = layout->segments;
      // Zones new to the device get both slots, then the label.
      std::string text = supers_.label();
      auto updated = co_await update_superblock(next);
      if (updated) updated = co_await update_superblock(next);
      if (updated) updated = co_await supers_.set_label(*device_, std::move(text));
      if (updated) {
        space_.grow(Geometry(supers_.superblock()));
        journal_.set_reserve(lane_reserve(space_.segments()));
      } else {
        size = std::move(updated).error();
      }
    }
  }
  super_turn_.release();
  co_return size;
}

// Errors of the device are seen where they occur. That a part of it went away (a truncated file, a reduced volume) would be seen late.
Task<Result<void>> RawStoreImpl::check_health() {
  CO_TRY(readable());
  Use use(*this);
  CO_TRY_ASSIGN(const uint64_t size, co_await device_->refresh_size());
  const uint64_t had = supers_.superblock().device_size;
  if (size < had)
    co_return fail(Code::io_error, "{} has shrunk from {} to {}: what lay behind is gone", device_->info().path, format_size(had),
                   format_size(size));
  if (options_.read_only) co_return Result<void>{};
  auto looked = co_await look_at_owner();
  co_return looked;
}

SpaceReport RawStoreImpl::space() const {
  SpaceReport report;
  const Geometry& geometry = space_.geometry();
  report.device_bytes = device_->info().size;
  report.used_bytes = stored_bytes_;
  report.payload_bytes = payload_bytes_;
  report.chunk_count = index_.size();
  uint64_t usable = 0, unwritten = 0, dead = 0;
  for (uint32_t i = 0; i < space_.segments(); ++i) {
    const Segment& s = space_[i];
    if (s.role == Role::log || (s.role != Role::packed && s.state == SegmentState::retired)) continue;
    usable += geometry.data_bytes();
    if (s.role == Role::packed) {
      dead += s.used_bytes - s.live_bytes;
      if (s.state == SegmentState::open) unwritten += static_cast<uint64_t>(geometry.data_blocks() - s.data_end) * kBlock;
    }
  }
  const uint32_t reserve = kReserveCompaction + kReserveMetadata;
  const uint64_t free_segments = space_.free_segments() > reserve ? space_.free_segments() - reserve : 0;
  report.overhead_bytes = report.device_bytes - std::min(report.device_bytes, usable);
  report.garbage_bytes = dead + quarantined_blocks_ * kBlock;
  report.free_bytes = free_segments * geometry.data_bytes() + space_.free_run_blocks() * kBlock + unwritten;
  return report;
}

RawStoreStats RawStoreImpl::stats() const {
  RawStoreStats stats = stats_;
  stats.index_bytes = index_.bytes() + space_.bytes();
  stats.index_bytes += multi_.size() * (64 + sizeof(ChunkId) + sizeof(std::vector<Run>) + 2 * sizeof(Run));  // mostly two
  stats.log_frames = journal_.frames();
  stats.log_records = journal_.records();
  return stats;
}

Task<Result<void>> RawStoreImpl::close() {
  if (closed_ || closing_) co_return Result<void>{};
  closing_ = true;
  stop_.set();
  hurry_.set();
  while (active_requests_ > 0) {
    quiet_.reset();
    co_await quiet_.wait();
  }
  co_await background_.join();
  for (auto& stream : streams_) co_await stream->drain();
  Result<void> result;
  if (mounted_ && !options_.read_only && health_.state == StoreState::online) {
    co_await run_checkpoint(true);
    result = checkpoint_result_;
    if (result) {
      Superblock next = supers_.superblock();
      next.clean = true;
      next.clean_sequence = journal_.durable();
      next.log_epoch = journal_.epoch();
      result = co_await update_superblock(std::move(next));
    }
  }
  co_await background_.join();
  co_await journal_.drain();
  closed_ = true;
  co_await device_->close();
  co_return result;
}

}  // namespace raw
}  // namespace quarry::chunk
