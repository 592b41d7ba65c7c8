#include "io/sim/sim_block_device.h"

#include "base/check.h"

namespace quarry {
namespace {
constexpr uint8_t kDiscardPattern = 0xdb;

// splitmix64 (Steele, Lea, Flood 2014)
uint64_t next_random(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

const char* verb_of(SimRequestKind kind) {
  switch (kind) {
    case SimRequestKind::read: return "read";
    case SimRequestKind::write: return "write";
    case SimRequestKind::flush: return "flush";
    case SimRequestKind::discard: return "discard";
  }
  return "?";
}
}  // namespace

// ---------------------------------------------------------------- writes and their remains

std::string TornWrite::to_string() const {
  switch (kind) {
    case Kind::dropped: return "dropped";
    case Kind::kept: return "kept";
    case Kind::prefix: return fmt::format("torn: first {}x{} landed", sectors, sector);
    case Kind::suffix: return fmt::format("torn: last {}x{} landed", sectors, sector);
    case Kind::scattered: return fmt::format("torn: sectors of {} scattered by seed {}", sector, seed);
  }
  return "?";
}

TornWrite TornWrite::draw(uint64_t seed, uint64_t length, uint32_t atomic_write) {
  uint64_t state = seed;
  TornWrite torn;
  const uint64_t dice = next_random(state) % 20;
  torn.sector = atomic_write >= 4096 || next_random(state) % 2 == 0 ? 4096 : 512;
  const uint64_t sectors = length / torn.sector;
  if (dice < 6 || length <= atomic_write || sectors < 2) {
    torn.kind = dice % 2 == 0 ? Kind::kept : Kind::dropped;
  } else if (dice < 11) {
    torn.kind = Kind::prefix;
    torn.sectors = 1 + next_random(state) % (sectors - 1);
  } else if (dice < 14) {
    torn.kind = Kind::suffix;
    torn.sectors = 1 + next_random(state) % (sectors - 1);
  } else {
    torn.kind = Kind::scattered;
    torn.seed = next_random(state);
  }
  return torn;
}

void SimWrite::apply(PageImage& image, const TornWrite& torn) const {
  if (keeps_old || length == 0) return;
  const auto put = [&](uint64_t from, uint64_t to) {
    if (from >= to) return;
    if (data == nullptr) {
      image.fill(offset + from, to - from, fill);
    } else {
      image.write(offset + from, data->view().subspan(from, to - from));
    }
  };
  const uint64_t part = std::min(length, torn.sectors * torn.sector);
  switch (torn.kind) {
    case TornWrite::Kind::dropped: return;
    case TornWrite::Kind::kept: put(0, length); return;
    case TornWrite::Kind::prefix: put(0, part); return;
    case TornWrite::Kind::suffix: put(length - part, length); return;
    case TornWrite::Kind::scattered: {
      uint64_t state = torn.seed;
      for (uint64_t at = 0; at < length; at += torn.sector) {
        if (next_random(state) % 2 == 0) put(at, std::min<uint64_t>(length, at + torn.sector));
      }
      return;
    }
  }
}

// ---------------------------------------------------------------- the disk

SimDisk::SimDisk(Options options, PageImage contents)
    : options_(std::move(options)), visible_(std::move(contents)), random_state_(options_.seed) {
  CHECK(options_.block_size >= 512 && std::has_single_bit(options_.block_size));
  CHECK(options_.size % options_.block_size == 0, "the size of a SimDisk is a multiple of its block size");
  if (visible_.size() < options_.size) visible_.resize(options_.size);
  stable_ = visible_;
}
SimDisk::~SimDisk() { CHECK(stats_.in_flight == 0, "a SimDisk dies under its requests"); }

std::shared_ptr<SimDisk> SimDisk::create(Options options) { return create(std::move(options), PageImage()); }
std::shared_ptr<SimDisk> SimDisk::create(Options options, PageImage contents) {
  return std::shared_ptr<SimDisk>(new SimDisk(std::move(options), std::move(contents)));
}

std::unique_ptr<BlockDevice> SimDisk::open() { return std::make_unique<SimBlockDevice>(shared_from_this()); }

void SimDisk::add_bad_range(uint64_t offset, uint64_t length) {
  heal(offset, length);
  if (length > 0) bad_[offset] = offset + length;
}
void SimDisk::heal(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  auto it = bad_.lower_bound(offset);
  if (it != bad_.begin() && std::prev(it)->second > offset) --it;
  while (it != bad_.end() && it->first < end) {
    const auto [from, to] = *it;
    it = bad_.erase(it);
    if (from < offset) bad_[from] = offset;
    if (to > end) it = bad_.emplace(end, to).first;
  }
}

void SimDisk::fail_next_reads(uint64_t count, Code code) { fail_reads_ = {count, code, 0}; }
void SimDisk::fail_next_writes(uint64_t count, Code code, uint64_t landed) { fail_writes_ = {count, code, landed}; }
void SimDisk::fail_next_flushes(uint64_t count, Code code) { fail_flushes_ = {count, code, 0}; }

Buffer SimDisk::peek(uint64_t offset, uint64_t length) const {
  Buffer out(length);
  visible_.read(offset, out.mutable_view());
  return out;
}
void SimDisk::poke(uint64_t offset, ByteView bytes) {
  visible_.write(offset, bytes);
  stable_.write(offset, bytes);
  for (auto& unstable : unstable_) {
    SimWrite& write = unstable.write;
    const uint64_t from = std::max(offset, write.offset), to = std::min(offset + bytes.size(), write.offset + write.length);
    if (from >= to || write.data == nullptr) continue;
    Buffer changed = Buffer::copy_of(*write.data);
    std::memcpy(changed.data() + (from - write.offset), bytes.data() + (from - offset), to - from);
    write.data = std::make_shared<const Buffer>(std::move(changed));
  }
}
void SimDisk::flip_bit(uint64_t offset, unsigned bit) {
  uint8_t byte = 0;
  visible_.read(offset, {&byte, 1});
  byte ^= static_cast<uint8_t>(1u << (bit % 8));
  poke(offset, {&byte, 1});
}
void SimDisk::swap_ranges(uint64_t a, uint64_t b, uint64_t length) {
  const Buffer first = peek(a, length), second = peek(b, length);
  poke(a, second);
  poke(b, first);
}
void SimDisk::grow(uint64_t size) {
  CHECK(size >= visible_.size() && size % options_.block_size == 0);
  visible_.resize(size);
  stable_.resize(size);
}

void SimDisk::cut(uint64_t size) {
  CHECK(size <= visible_.size() && size % options_.block_size == 0);
  visible_.resize(size);
  stable_.resize(size);
}

SimRequest SimDisk::start_request(SimRequestKind kind, uint64_t offset, uint64_t length, Durability durability) {
  switch (kind) {
    case SimRequestKind::read: ++stats_.reads; break;
    case SimRequestKind::write: ++(durability == Durability::durable ? stats_.durable_writes : stats_.writes); break;
    case SimRequestKind::flush: ++stats_.flushes; break;
    case SimRequestKind::discard: ++stats_.discards; break;
  }
  return {kind, offset, length, durability, next_number_++};
}

Result<void> SimDisk::check_request(const SimRequest& request, uintptr_t memory_bits) const {
  const uint64_t size = visible_.size();
  if (request.offset > size || request.length > size - request.offset) {
    return fail(Code::out_of_range, "{}: {} of {} bytes at {} passes the end at {}", options_.path, verb_of(request.kind), request.length,
                request.offset, size);
  }
  if (request.length == 0 || (request.offset | request.length) % options_.block_size != 0 || memory_bits % kBufferAlignment != 0) {
    return fail(Code::invalid_argument, "{}: {} of {} bytes at {}: offset, length and memory must be aligned to {} (memory: {})",
                options_.path, verb_of(request.kind), request.length, request.offset, options_.block_size, kBufferAlignment);
  }
  return {};
}

SimFault SimDisk::draw_fault(const SimRequest& request) {
  SimFault fault;
  if (hook_) fault = hook_(request);
  const auto take = [&fault](FailNext& next) {
    if (next.count == 0) return;
    --next.count;
    fault.fail = next.code;
    fault.landed_before_failure = next.landed;
  };
  switch (request.kind) {
    case SimRequestKind::read: take(fail_reads_); break;
    case SimRequestKind::flush: take(fail_flushes_); break;
    case SimRequestKind::discard: break;
    case SimRequestKind::write: {
      take(fail_writes_);
      if (fault.fail) break;
      if (lose_writes_ > 0) {
        --lose_writes_;
        fault.lose = true;
      } else if (!misdirect_writes_.empty()) {
        fault.misdirect = misdirect_writes_.front();
        misdirect_writes_.pop_front();
      }
      const uint64_t fresh = request.length - std::min(request.length, visible_.allocated_bytes(request.offset, request.length));
      if (fresh > 0 && visible_.allocated_bytes() + fresh > space_limit_) fault.fail = Code::no_space;
      if (read_only_) fault.fail = Code::read_only;
      break;
    }
  }
  return fault;
}

Duration SimDisk::draw_latency(const SimFault& fault) {
  const int64_t span = (options_.latency_max - options_.latency_min).count();
  const int64_t jitter = span > 0 ? static_cast<int64_t>(next_random(random_state_) % static_cast<uint64_t>(span + 1)) : 0;
  return options_.latency_min + Duration(jitter) + delay_ + fault.delay;
}

std::optional<Error> SimDisk::failure(const SimFault& fault, const SimRequest& request) const {
  if (gone_) return fail(Code::device_gone, "{}: the device is gone", options_.path);
  if (fault.fail) {
    return fail(*fault.fail, "{}: {} of {} bytes at {} failed (simulated)", options_.path, verb_of(request.kind), request.length,
                request.offset);
  }
  if (request.kind == SimRequestKind::read) {
    auto it = bad_.upper_bound(request.offset);
    if (it != bad_.begin() && std::prev(it)->second > request.offset) --it;
    if (it != bad_.end() && it->first < request.offset + request.length) {
      return fail(Code::io_error, "{}: read of {} bytes at {} failed: bad sector at {}", options_.path, request.length, request.offset,
                  std::max(it->first, request.offset));
    }
  }
  return std::nullopt;
}

namespace {
// Always a suspension, so that nothing completes inside the call.
Task<void> device_latency(Duration latency) {
  if (latency > Duration{0}) {
    co_await sleep_for(latency);
  } else {
    co_await Executor::here().yield();
  }
}
}  // namespace

Task<Result<void>> SimDisk::read(uint64_t offset, MutableByteView into) {
  const SimRequest request = start_request(SimRequestKind::read, offset, into.size(), Durability::volatile_);
  CO_TRY(check_request(request, reinterpret_cast<uintptr_t>(into.data())));
  const SimFault fault = draw_fault(request);
  const Duration latency = draw_latency(fault);
  co_await device_latency(latency);
  if (auto error = failure(fault, request)) co_return std::move(*error);
  uint64_t from = fault.misdirect.value_or(offset);
  if (from > visible_.size() - into.size()) from = visible_.size() - into.size();
  visible_.read(from, into);
  if (fault.flip_bit) into[(*fault.flip_bit / 8) % into.size()] ^= static_cast<uint8_t>(1u << (*fault.flip_bit % 8));
  stats_.bytes_read += into.size();
  co_return Result<void>();
}

SimDisk::Unstable* SimDisk::find_unstable(uint64_t number) {
  const auto it = std::lower_bound(unstable_.begin(), unstable_.end(), number,
                                   [](const Unstable& unstable, uint64_t wanted) { return unstable.write.number < wanted; });
  return it != unstable_.end() && it->write.number == number ? &*it : nullptr;
}

std::vector<SimWrite> SimDisk::writes_in_flight() const {
  std::vector<SimWrite> writes;
  for (const auto& unstable : unstable_) {
    if (!unstable.completed) writes.push_back(unstable.write);
  }
  return writes;
}

void SimDisk::issue_write(const SimWrite& write) {
  unstable_.push_back({write});
  if (observer_ != nullptr) observer_->write_issued(write);
}

void SimDisk::complete_write(const SimWrite& write, const std::optional<Error>& error, uint64_t landed) {
  TornWrite how;
  if (error) how = {TornWrite::Kind::prefix, 1, std::min(landed, write.length), 0};
  write.apply(visible_, how);
  if (!error) heal(write.offset, write.length);
  if (Unstable* unstable = find_unstable(write.number)) {
    unstable->completed = true;
    unstable->failed = error.has_value();
    unstable->stable = !error && (write.durability == Durability::durable || !options_.volatile_cache);
    settle();
  }
  if (observer_ != nullptr) observer_->write_completed(write.number, !error);
}

void SimDisk::settle() {
  // In order of issue: what is settled can no longer be shadowed by an older write.
  while (!unstable_.empty() && (unstable_.front().stable || (unstable_.size() > kUnstableWritesMax && unstable_.front().completed))) {
    if (!unstable_.front().failed) unstable_.front().write.apply(stable_);
    unstable_.pop_front();
  }
}

Task<Result<void>> SimDisk::write(uint64_t offset, std::vector<ByteView> parts, Durability durability) {
  uint64_t length = 0;
  uintptr_t memory_bits = 0;
  for (const ByteView part : parts) {
    length += part.size();
    memory_bits |= reinterpret_cast<uintptr_t>(part.data());
    if (part.size() % options_.block_size != 0) memory_bits |= 1;
  }
  if (durability == Durability::volatile_ && !options_.volatile_cache) durability = Durability::durable;
  const SimRequest request = start_request(SimRequestKind::write, offset, length, durability);
  CO_TRY(check_request(request, memory_bits));
  const SimFault fault = draw_fault(request);
  const Duration latency = draw_latency(fault);

  SimWrite write{.number = request.number, .offset = offset, .length = length, .durability = durability};
  Buffer data(length);
  uint64_t at = 0;
  for (const ByteView part : parts) {
    std::memcpy(data.data() + at, part.data(), part.size());
    at += part.size();
  }
  std::shared_ptr<const Buffer> as_issued = std::make_shared<const Buffer>(std::move(data));
  write.data = as_issued;
  if (fault.flip_bit) {
    Buffer flipped = Buffer::copy_of(*as_issued);
    flipped.data()[(*fault.flip_bit / 8) % length] ^= static_cast<uint8_t>(1u << (*fault.flip_bit % 8));
    write.data = std::make_shared<const Buffer>(std::move(flipped));
  }
  if (fault.misdirect) write.offset = std::min(*fault.misdirect, visible_.size() - length);

  const auto after = writing_.lower_bound(offset);
  CHECK(after == writing_.end() || after->first >= offset + length, "two writes to one block are in flight");
  CHECK(after == writing_.begin() || std::prev(after)->second <= offset, "two writes to one block are in flight");
  writing_[offset] = offset + length;
  const bool reaches_disk = !fault.lose && !gone_ && !(fault.fail && fault.landed_before_failure == 0);
  if (reaches_disk) issue_write(write);
  co_await device_latency(latency);

  writing_.erase(offset);
  at = 0;
  for (const ByteView part : parts) {
    CHECK(std::memcmp(as_issued->data() + at, part.data(), part.size()) == 0, "the bytes of a write changed while it was in flight");
    at += part.size();
  }
  auto error = failure(fault, request);
  if (reaches_disk) complete_write(write, error, fault.landed_before_failure);
  if (error) co_return std::move(*error);
  stats_.bytes_written += length;
  co_return Result<void>();
}

Task<Result<void>> SimDisk::flush() {
  const SimRequest request = start_request(SimRequestKind::flush, 0, 0, Durability::durable);
  const SimFault fault = draw_fault(request);
  const Duration latency = draw_latency(fault);
  std::vector<uint64_t> covered;
  for (const auto& unstable : unstable_) {
    if (unstable.completed && !unstable.failed && !unstable.stable) covered.push_back(unstable.write.number);
  }
  if (observer_ != nullptr) observer_->flush_issued(request.number);
  co_await device_latency(latency);
  auto error = failure(fault, request);
  if (!error) {
    for (const uint64_t number : covered) {
      if (Unstable* unstable = find_unstable(number)) unstable->stable = true;
    }
    settle();
  }
  if (observer_ != nullptr) observer_->flush_completed(request.number, !error);
  if (error) co_return std::move(*error);
  co_return Result<void>();
}

Task<Result<void>> SimDisk::discard(uint64_t offset, uint64_t length) {
  const SimRequest request = start_request(SimRequestKind::discard, offset, length, Durability::volatile_);
  CO_TRY(check_request(request, 0));
  const SimFault fault = draw_fault(request);
  const Duration latency = draw_latency(fault);
  SimWrite write{.number = request.number, .offset = offset, .length = length};
  write.fill = options_.discard == SimDiscard::pattern ? kDiscardPattern : 0;
  write.keeps_old = options_.discard == SimDiscard::nothing || !options_.supports_discard;
  const bool reaches_disk = !write.keeps_old && !fault.lose && !gone_ && !fault.fail;
  if (reaches_disk) issue_write(write);
  co_await device_latency(latency);
  auto error = failure(fault, request);
  if (reaches_disk) complete_write(write, error, 0);
  if (error) co_return std::move(*error);
  stats_.bytes_discarded += length;
  co_return Result<void>();
}

std::shared_ptr<SimDisk> SimDisk::reduced(const std::function<TornWrite(const Unstable&)>& choose) const {
  PageImage image = stable_;
  for (const auto& unstable : unstable_) {
    unstable.write.apply(image, unstable.stable ? TornWrite{} : choose(unstable));
  }
  Options options = options_;
  options.size = image.size();
  return create(std::move(options), std::move(image));
}
std::shared_ptr<SimDisk> SimDisk::crash_image(uint64_t seed) const {
  return reduced([seed, this](const Unstable& unstable) {
    uint64_t state = seed ^ (unstable.write.number * 0xd1342543de82ef95ull);
    return TornWrite::draw(next_random(state), unstable.write.length, options_.atomic_write);
  });
}
std::shared_ptr<SimDisk> SimDisk::stable_copy() const {
  return reduced([](const Unstable&) { return TornWrite{.kind = TornWrite::Kind::dropped}; });
}
std::shared_ptr<SimDisk> SimDisk::copy() const {
  Options options = options_;
  options.size = visible_.size();
  return create(std::move(options), visible_);
}

// ---------------------------------------------------------------- the handle

SimBlockDevice::SimBlockDevice(std::shared_ptr<SimDisk> disk) : disk_(std::move(disk)) {
  CHECK(!disk_->open_, "a SimDisk is already open: close the other device first");
  disk_->open_ = true;
  const auto& options = disk_->options_;
  info_ = {.path = options.path,
           .size = disk_->visible_.size(),
           .block_size = options.block_size,
           .atomic_write = options.atomic_write,
           .volatile_cache = options.volatile_cache,
           .supports_discard = options.supports_discard,
           .drive_class = options.drive_class};
}
SimBlockDevice::~SimBlockDevice() {
  CHECK(in_flight_ == 0, "a SimBlockDevice dies under its requests: close it first");
  if (!closed_) disk_->open_ = false;
}

Result<void> SimBlockDevice::usable() const {
  if (closed_) return fail(Code::device_gone, "{}: the device is closed", info_.path);
  return {};
}

Task<Result<void>> SimBlockDevice::tracked(Task<Result<void>> task, uint64_t* nanoseconds) {
  CO_TRY(usable());
  const TimePoint start = Executor::here().now();
  ++in_flight_;
  auto& stats = disk_->stats_;
  stats.in_flight_max = std::max(stats.in_flight_max, ++stats.in_flight);
  Result<void> result = co_await std::move(task);
  stats.errors += !result;
  *nanoseconds += static_cast<uint64_t>((Executor::here().now() - start).count());
  --stats.in_flight;
  if (--in_flight_ == 0) idle_.pulse();
  co_return result;
}

Task<Result<void>> SimBlockDevice::read(uint64_t offset, MutableByteView into) {
  return tracked(disk_->read(offset, into), &disk_->stats_.read_ns);
}
Task<Result<void>> SimBlockDevice::write(uint64_t offset, ByteView from, Durability durability) {
  return tracked(disk_->write(offset, {from}, durability), &disk_->stats_.write_ns);
}
Task<Result<void>> SimBlockDevice::write_gather(uint64_t offset, std::vector<ByteView> parts, Durability durability) {
  return tracked(disk_->write(offset, std::move(parts), durability), &disk_->stats_.write_ns);
}
Task<Result<void>> SimBlockDevice::flush() { return tracked(disk_->flush(), &disk_->stats_.flush_ns); }
Task<Result<void>> SimBlockDevice::discard(uint64_t offset, uint64_t length) {
  return tracked(disk_->discard(offset, length), &disk_->stats_.write_ns);
}
DeviceStats SimBlockDevice::stats() const {
  const SimDiskStats& s = disk_->stats_;
  return {.reads = s.reads,
          .writes = s.writes + s.durable_writes,
          .flushes = s.flushes,
          .discards = s.discards,
          .errors = s.errors,
          .bytes_read = s.bytes_read,
          .bytes_written = s.bytes_written,
          .read_ns = s.read_ns,
          .write_ns = s.write_ns,
          .flush_ns = s.flush_ns,
          .in_flight = s.in_flight,
          .in_flight_max = s.in_flight_max};
}
Task<Result<uint64_t>> SimBlockDevice::refresh_size() {
  CO_TRY(usable());
  co_await Executor::here().yield();
  info_.size = disk_->visible_.size();
  co_return info_.size;
}
Task<void> SimBlockDevice::close() {
  while (in_flight_ > 0) co_await idle_.wait();
  if (closed_) co_return;
  closed_ = true;
  disk_->open_ = false;
}

}  // namespace quarry
