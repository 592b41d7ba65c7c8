// A chunk store in memory with faults, for tests of the layers above. Two classes: MemoryMedium is the drive, kept by the test; the store
// is a handle on it that code under test owns. What was put and acknowledged survives closing and reopening.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <set>

#include "base/coding.h"
#include "chunk/chunk_store.h"
#include "cluster/map/chunk_ids.h"
#include "io/clock.h"
#include "io/executor.h"

namespace quarry::cluster {

struct MemoryMedium {
  explicit MemoryMedium(uint64_t number, uint64_t bytes = 256 * kMiB) : capacity(bytes) {
    store_le(id.bytes.data(), number * 0x9e3779b97f4a7c15ull + 1);
  }
  Uuid id;
  uint64_t capacity;
  std::map<ChunkId, std::shared_ptr<const std::string>> chunks;
  std::set<ChunkId> ever;     // ids are never reused: a second put of one stops the test
  std::set<ChunkId> corrupt;  // reads of these fail
  Reason corrupt_reason = Reason::rot;
  std::string file_system;  // OpenedDrive::file_system
  std::string label;
  // A drive that keeps files (chunk/dir): mirrored writes have names.
  bool files = false;
  struct File {
    uint64_t stride = 0;
    bool finished = false;
    std::string path;  // directory/name
  };
  std::map<ChunkId, File> open_files;                        // by first chunk; shown or not
  std::map<std::string, ChunkId> tree;                       // path -> first chunk of the file that is shown there
  std::string text_of_file(const std::string& path) const {  // its content; "?" if it is not whole
    auto shown = tree.find(path);
    if (shown == tree.end()) return "?";
    const File& file = open_files.at(shown->second);
    std::string text;
    for (ChunkId at = shown->second; chunks.contains(at); at.low += file.stride) text += *chunks.at(at);
    return text;
  }
  bool is_unfinished(ChunkId chunk) const {
    for (const auto& [first, file] : open_files) {
      const bool part = chunk.high == first.high && chunk.low >= first.low && (chunk.low - first.low) % file.stride == 0;
      if (part && !file.finished) return true;
    }
    return false;
  }
  // What a start does: files that were not finished are gone.
  void forget_unfinished() {
    for (auto it = open_files.begin(); it != open_files.end();) {
      if (it->second.finished) {
        ++it;
        continue;
      }
      for (ChunkId at = it->first; chunks.contains(at); at.low += it->second.stride) {
        chunks.erase(at);
        ever.erase(at);
      }
      it = open_files.erase(it);
    }
  }
  std::string unhealthy;  // health checks fail with this
  // Faults.
  bool gone = false;
  bool read_only = false;
  bool hangs = false;    // puts, reads and checks do not come back until it is false again
  bool freezes = false;  // as a frozen file system: puts and checks do not, reads do
  Duration delay{0};     // of every read
  Duration put_delay{0};
  Duration list_delay{0};
  bool fail_removes = false;              // with io_error
  bool labels_fail = false;               // the same
  uint64_t fail_puts = 0;                 // so many next puts fail with io_error
  uint64_t puts_until_gone = UINT64_MAX;  // the drive dies in the middle of the put after so many
  // For stopping exactly between two steps of what is tested: awaited when a call reaches the store, before it does anything. id: of the
  // first chunk; of a list: where it begins.
  Duration check_time{0};  // that a health check takes
  enum class Call : uint8_t { put, get, stat, list, remove, label, close };
  std::function<Task<void>(Call call, ChunkId id)> on_call;
  // Of all drives that share it: so many further puts and removals of a chunk land, then the process is dead and none does.
  std::shared_ptr<uint64_t> steps_left;
  bool take_step() { return steps_left == nullptr || (*steps_left > 0 && (*steps_left)-- > 0); }
  size_t holders = 0;  // stores that have it open: real ones hold a lock
  // Seen.
  uint64_t puts = 0, gets = 0, removes = 0;
  uint64_t listed = 0;  // chunks

  uint64_t ballast = 0;  // bytes that others take
  uint64_t used() const {
    uint64_t sum = ballast;
    for (const auto& [chunk, bytes] : chunks) sum += bytes->size();
    return sum;
  }
  std::vector<ChunkId> of_kind(ChunkKind kind) const {
    std::vector<ChunkId> ids;
    const auto [from, to] = chunk_range(kind);
    for (auto it = chunks.lower_bound(from); it != chunks.end() && it->first < to; ++it) ids.push_back(it->first);
    return ids;
  }
};

class MemoryChunkStore : public chunk::ChunkStore {
 public:
  explicit MemoryChunkStore(std::shared_ptr<MemoryMedium> medium) : m_(std::move(medium)) {
    m_->forget_unfinished();
    ++m_->holders;
  }
  ~MemoryChunkStore() override {
    if (holds_) --m_->holders;
  }

  Uuid drive_id() const override { return m_->id; }
  std::string description() const override { return "memory"; }

  Task<Result<void>> put(ChunkId id, std::vector<ByteView> parts, chunk::PutOptions options) override {
    co_await hang();
    // Names are valid until the put returns.
    const std::string path = options.file ? fmt::format("{}/{}", options.file->directory, options.file->name) : std::string();
    std::string bytes;
    for (ByteView part : parts) bytes.append(text_of(part));
    co_await reached(MemoryMedium::Call::put, id);
    co_await sleep_for(m_->put_delay);
    CO_TRY(usable());
    if (m_->read_only) co_return fail(Code::read_only, "memory drive refuses writes");
    ++m_->puts;
    if (m_->fail_puts > 0) {
      --m_->fail_puts;
      co_return fail(Code::io_error, "put of {} fails by order of the test", id.to_string());
    }
    if (m_->puts_until_gone != UINT64_MAX && m_->puts_until_gone-- == 0) {
      m_->puts_until_gone = UINT64_MAX;
      m_->gone = true;
      co_return fail(Code::device_gone, "the drive died by order of the test");
    }
    if (m_->chunks.contains(id)) co_return fail(Code::already_exists, "{}", id.to_string());
    if (!m_->take_step()) co_return fail(Code::io_error, "the process is dead by order of the test");
    CHECK(m_->ever.insert(id).second, fmt::format("chunk id {} was reused", id.to_string()));
    if (m_->used() + bytes.size() > m_->capacity) {
      m_->ever.erase(id);
      co_return fail(Code::no_space, "memory drive is full");
    }
    m_->chunks.emplace(id, std::make_shared<const std::string>(std::move(bytes)));
    if (options.file && m_->files) {
      CHECK(path == fmt::format("{}/{}", options.file->directory, options.file->name), "the name of a file lives as long as its put");
      m_->open_files.try_emplace(options.file->first, MemoryMedium::File{.stride = options.file->stride, .path = path});
    }
    co_return Result<void>();
  }

  bool keeps_files() const override { return m_->files; }
  Task<Result<void>> finish_file(ChunkId first, uint64_t size) override {
    co_await sleep_for(m_->put_delay);
    CO_TRY(usable());
    auto file = m_->open_files.find(first);
    if (file == m_->open_files.end()) co_return fail(Code::not_found, "{} is no file", first.to_string());
    uint64_t bytes = 0;
    for (ChunkId id = first; m_->chunks.contains(id); id.low += file->second.stride) bytes += m_->chunks.at(id)->size();
    CHECK(bytes == size, fmt::format("file {} has {} bytes, not {}", file->second.path, bytes, size));
    file->second.finished = true;
    co_return Result<void>();
  }
  Task<Result<void>> show_file(ChunkId first, std::vector<std::pair<std::string, std::string>>) override {
    co_await Executor::here().yield();
    CO_TRY(usable());
    auto file = m_->open_files.find(first);
    if (file == m_->open_files.end()) co_return fail(Code::not_found, "{} is no file", first.to_string());
    if (!file->second.finished) co_return fail(Code::precondition_failed, "{} is not finished", first.to_string());
    m_->tree[file->second.path] = first;
    co_return Result<void>();
  }
  Task<Result<void>> hide_file(ChunkId first) override {
    co_await Executor::here().yield();
    CO_TRY(usable());
    std::erase_if(m_->tree, [&](const auto& entry) { return entry.second == first; });
    co_return Result<void>();
  }
  Task<Result<void>> check_health() override {
    co_await hang();
    if (m_->check_time > Duration(0)) co_await sleep_for(m_->check_time);
    if (!m_->unhealthy.empty()) co_return fail(Code::io_error, "{}", m_->unhealthy);
    co_return usable();
  }

  Task<Result<SharedBytes>> get(ChunkId id, uint32_t offset, uint32_t length) override {
    co_await reached(MemoryMedium::Call::get, id);
    if (m_->chunks.contains(id)) co_await sleep_for(m_->delay);
    CO_TRY(usable());
    co_await hang(true);
    ++m_->gets;
    auto found = m_->chunks.find(id);
    if (found == m_->chunks.end()) co_return fail(Code::not_found, "{}", id.to_string());
    if (m_->corrupt.contains(id)) {
      co_return fail(Code::corrupt, "{} is damaged by order of the test", id.to_string()).because(m_->corrupt_reason);
    }
    if (offset > found->second->size()) co_return fail(Code::out_of_range, "{}", id.to_string());
    co_return SharedBytes::copy_of(bytes_of(*found->second).subspan(offset, std::min<size_t>(length, found->second->size() - offset)));
  }

  Task<Result<void>> remove(std::vector<ChunkId> ids) override {
    if (!ids.empty()) co_await reached(MemoryMedium::Call::remove, ids.front());
    co_await Executor::here().yield();
    CO_TRY(usable());
    if (m_->fail_removes) co_return fail(Code::io_error, "removals fail by order of the test");
    for (ChunkId id : ids) {  // what a start would forget may be put again
      if (m_->is_unfinished(id)) m_->ever.erase(id);
    }
    for (ChunkId id : ids) {
      if (m_->chunks.contains(id) && !m_->take_step()) co_return fail(Code::io_error, "the process is dead by order of the test");
      m_->removes += m_->chunks.erase(id);
      if (m_->open_files.erase(id) > 0) std::erase_if(m_->tree, [&](const auto& entry) { return entry.second == id; });
      m_->corrupt.erase(id);
    }
    co_return Result<void>();
  }

  Task<Result<chunk::ChunkStat>> stat(ChunkId id) override {
    co_await reached(MemoryMedium::Call::stat, id);
    CO_TRY(usable());
    auto found = m_->chunks.find(id);
    if (found == m_->chunks.end()) co_return fail(Code::not_found, "{}", id.to_string());
    co_return stat_of(*found);
  }

  Task<Result<std::vector<chunk::ChunkStat>>> list(ChunkId from, ChunkId to, size_t limit) override {
    co_await reached(MemoryMedium::Call::list, from);
    if (m_->list_delay > Duration(0)) co_await sleep_for(m_->list_delay);
    CO_TRY(usable());
    std::vector<chunk::ChunkStat> stats;
    for (auto it = m_->chunks.lower_bound(from); it != m_->chunks.end() && it->first < to && stats.size() < limit; ++it)
      stats.push_back(stat_of(*it));
    m_->listed += stats.size();
    co_return stats;
  }

  Task<Result<chunk::ScrubProgress>> scrub(ChunkId from, uint64_t budget_bytes) override {
    co_await Executor::here().yield();
    CO_TRY(usable());
    chunk::ScrubProgress progress;
    auto it = m_->chunks.lower_bound(from);
    for (; it != m_->chunks.end() && progress.bytes_checked < budget_bytes; ++it) {
      ++progress.chunks_checked;
      progress.bytes_checked += it->second->size();
      if (m_->corrupt.contains(it->first)) progress.damaged.push_back({it->first, "damaged by order of the test", m_->corrupt_reason});
    }
    progress.complete = it == m_->chunks.end();
    if (!progress.complete) progress.next = it->first;
    co_return progress;
  }

  Task<Result<chunk::FsckReport>> fsck() override {
    CO_TRY(usable());
    chunk::FsckReport report;
    report.chunks = m_->chunks.size();
    report.space = space();
    co_return report;
  }

  chunk::SpaceReport space() const override {
    chunk::SpaceReport report;
    report.device_bytes = m_->capacity;
    report.used_bytes = report.payload_bytes = m_->used();
    report.free_bytes = m_->capacity - report.used_bytes;
    report.chunk_count = m_->chunks.size();
    return report;
  }
  chunk::StoreHealth health() const override {
    chunk::StoreHealth health;
    if (m_->read_only) health = {.state = chunk::StoreState::read_only, .reason = "a write failed"};
    if (m_->gone || closed_) health = {.state = chunk::StoreState::failed, .reason = "gone"};
    return health;
  }

  Task<Result<void>> set_label(std::string label) override {
    co_await reached(MemoryMedium::Call::label, {});
    co_await Executor::here().yield();
    CO_TRY(usable());
    if (m_->labels_fail) co_return fail(Code::io_error, "the label fails by order of the test");
    m_->label = std::move(label);
    co_return Result<void>();
  }
  std::string label() const override { return m_->label; }

  Task<Result<void>> close() override {
    closed_ = true;
    co_await reached(MemoryMedium::Call::close, {});
    if (std::exchange(holds_, false)) --m_->holders;
    co_return Result<void>();
  }

 private:
  Task<void> reached(MemoryMedium::Call call, ChunkId id) {
    const auto on_call = m_->on_call;  // it may take itself away
    if (on_call) co_await on_call(call, id);
  }
  Task<void> hang(bool reads = false) {
    while (m_->hangs || (m_->freezes && !reads)) co_await sleep_for(std::chrono::milliseconds(10));
  }
  Result<void> usable() const {
    if (m_->gone || closed_) return fail(Code::device_gone, "memory drive is gone");
    return {};
  }
  static chunk::ChunkStat stat_of(const std::pair<const ChunkId, std::shared_ptr<const std::string>>& entry) {
    const auto size = static_cast<uint32_t>(entry.second->size());
    return {entry.first, size, size};
  }

  std::shared_ptr<MemoryMedium> m_;
  bool closed_ = false, holds_ = true;
};

}  // namespace quarry::cluster
