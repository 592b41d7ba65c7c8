#include "meta/memory_commit_log.h"

namespace quarry::meta {
namespace {
Error gone() { return fail(Code::unavailable, "the memory log has crashed or failed"); }
}  // namespace

MemoryCommitLog::MemoryCommitLog(std::shared_ptr<MemoryLogMedia> media, MemoryLogFaults faults)
    : media_(std::move(media)), faults_(faults), random_(faults.seed), next_append_(media_->last_frame + 1) {}

void MemoryCommitLog::set_faults(MemoryLogFaults faults) {
  faults_ = faults;
  random_ = SeededRandom(faults.seed);
}

// Moves whole frames without a gap from flight into the media.
void MemoryCommitLog::settle() {
  const std::lock_guard lock(media_->mutex);
  for (auto at = in_flight_.begin(); at != in_flight_.end() && at->first == media_->last_frame + 1 && written_[at->first];) {
    media_->frames[at->first] = std::move(at->second);
    media_->last_frame = at->first;
    written_.erase(at->first);
    at = in_flight_.erase(at);
  }
}

Task<Result<void>> MemoryCommitLog::append(FrameNumber number, std::vector<ByteView> parts) {
  if (crashed_ || failed_) co_return gone();
  CHECK(number == next_append_ || (number < next_append_ && in_flight_.contains(number)), "frames are appended in order");
  next_append_ = std::max(next_append_, number + 1);
  ++appends_;
  std::string bytes;
  for (const ByteView part : parts) bytes.append(text_of(part));
  CHECK(!bytes.empty() && bytes.size() <= kFrameSizeMax);
  CHECK(!in_flight_.contains(number) || in_flight_[number] == bytes, "a frame is appended again with other bytes");
  in_flight_[number] = std::move(bytes);
  Duration delay = faults_.append_delay;
  if (faults_.append_jitter > Duration::zero()) {
    delay += Duration(static_cast<Duration::rep>(random_.below(static_cast<uint64_t>(faults_.append_jitter.count()))));
  }
  if (delay > Duration::zero()) co_await sleep_for(delay);
  if (crashed_ || failed_) co_return gone();
  if (faults_.full) co_return fail(Code::no_space, "no room for frame {}", number);
  if (faults_.fail_append && number >= *faults_.fail_append) {
    // It may have reached enough drives all the same.
    if (random_.below(2) == 0) {
      written_[number] = true;
      settle();
    }
    failed_ = true;
    co_return fail(Code::unavailable, "too few drives took frame {}", number);
  }
  written_[number] = true;
  settle();
  // Durable when it returns means readable at recovery: wait for the frames before it.
  while (media_->last_frame < number) {
    co_await sleep_for(std::chrono::microseconds(10));
    if (crashed_ || failed_) co_return gone();
    if (faults_.full) co_return fail(Code::no_space, "a frame before frame {} found no room", number);
  }
  co_return Result<void>();
}

void MemoryCommitLog::crash() {
  crashed_ = true;
  const uint64_t survivors = random_.below(in_flight_.size() + 1);
  uint64_t left = survivors;
  for (auto& [number, bytes] : in_flight_) {
    if (left-- == 0) break;
    written_[number] = true;
  }
  settle();
  in_flight_.clear();
}

FrameNumber MemoryCommitLog::last_frame() const { return media_->last_frame; }

Task<Result<Buffer>> MemoryCommitLog::read(FrameNumber number) {
  if (crashed_) co_return gone();
  const std::lock_guard lock(media_->mutex);
  if (const auto bad = media_->unreadable.find(number); bad != media_->unreadable.end()) {
    co_return fail(bad->second, "log frame {} cannot be read", number);
  }
  const auto at = media_->frames.find(number);
  if (at == media_->frames.end()) co_return fail(Code::not_found, "log frame {} is not there", number);
  co_return Buffer::copy_of(bytes_of(at->second));
}

Task<Result<CheckpointFile>> MemoryCommitLog::store_file(std::string name, uint64_t size, ReadPiece read_piece) {
  if (crashed_) co_return gone();
  if (faults_.fail_store_after && stores_ >= *faults_.fail_store_after) co_return fail(Code::no_space, "no room for '{}'", name);
  ++stores_;
  std::string bytes;
  while (bytes.size() < size) {
    const size_t length = std::min<uint64_t>(size - bytes.size(), 1u << 20);
    Result<Buffer> piece = Buffer();
    if (faults_.pool != nullptr) {
      const auto read = [&read_piece, offset = bytes.size(), length] { return read_piece(offset, length); };
      Task<Result<Buffer>> work = blocking(*faults_.pool, read);
      piece = co_await std::move(work);
    } else {
      piece = read_piece(bytes.size(), length);
    }
    if (!piece) co_return std::move(piece).error();
    CHECK(piece->size() == length, "a piece of a checkpoint file is short");
    bytes.append(text_of(piece->view()));
    if (crashed_) co_return gone();
  }
  const std::lock_guard lock(media_->mutex);
  for (const auto& [handle, file] : media_->files) CHECK(file.name != name, "a checkpoint file's name was used before");
  CheckpointFile file{name, size, media_->next_handle++};
  bytes_stored_ += size;
  media_->files[file.handle] = {std::move(name), std::move(bytes)};
  co_return file;
}

Task<Result<Buffer>> MemoryCommitLog::read_file(const CheckpointFile& file, uint64_t offset, size_t length) {
  if (crashed_) co_return gone();
  const std::lock_guard lock(media_->mutex);
  const auto at = media_->files.find(file.handle);
  if (at == media_->files.end() || at->second.name != file.name) co_return fail(Code::data_lost, "checkpoint file '{}' is gone", file.name);
  if (offset + length > at->second.bytes.size()) co_return fail(Code::out_of_range, "checkpoint file '{}' is shorter", file.name);
  co_return Buffer::copy_of(bytes_of(std::string_view(at->second.bytes).substr(offset, length)));
}

Task<Result<void>> MemoryCommitLog::publish_checkpoint(CheckpointManifest manifest) {
  if (crashed_) co_return gone();
  if (faults_.fail_publish) co_return fail(Code::no_space, "no room for the checkpoint's manifest");
  const std::lock_guard lock(media_->mutex);
  std::set<uint64_t> named;
  for (const auto& file : manifest.files) {
    CHECK(media_->files.contains(file.handle), "a checkpoint names a file that was never stored");
    named.insert(file.handle);
  }
  std::erase_if(media_->files, [&](const auto& file) { return !named.contains(file.first); });
  media_->frames.erase(media_->frames.begin(), media_->frames.upper_bound(manifest.frame));
  media_->manifest = std::move(manifest);
  co_return Result<void>();
}

Result<std::optional<CheckpointManifest>> MemoryCommitLog::checkpoint() const {
  const std::lock_guard lock(media_->mutex);
  return media_->manifest;
}

}  // namespace quarry::meta
