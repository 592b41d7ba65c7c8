#include "object/engine/hash_queue.h"

namespace quarry::object {
namespace {
char done_marker;
void* const kDone = &done_marker;

ChecksumKind kind_of(ChecksumAlgorithm algorithm) { return static_cast<ChecksumKind>(algorithm); }
static_assert(static_cast<int>(ChecksumAlgorithm::crc32) == static_cast<int>(ChecksumKind::crc32));
static_assert(static_cast<int>(ChecksumAlgorithm::crc32c) == static_cast<int>(ChecksumKind::crc32c));
static_assert(static_cast<int>(ChecksumAlgorithm::sha1) == static_cast<int>(ChecksumKind::sha1));
static_assert(static_cast<int>(ChecksumAlgorithm::sha256) == static_cast<int>(ChecksumKind::sha256));
static_assert(static_cast<int>(ChecksumAlgorithm::crc64nvme) == static_cast<int>(ChecksumKind::crc64nvme));
static_assert(static_cast<int>(ChecksumAlgorithm::xxhash128) == kChecksumKindLast);
}  // namespace

BodyDigest::BodyDigest(ChecksumAlgorithm checksum, bool with_sha256) : algorithm_(checksum), with_sha256_(with_sha256) {
  if (checksum == ChecksumAlgorithm::sha256 || with_sha256) sha256_.emplace(DigestKind::sha256);
  if (checksum != ChecksumAlgorithm::none && checksum != ChecksumAlgorithm::sha256) checksum_.emplace(kind_of(checksum));
}

void BodyDigest::update_others(ByteView bytes) {
  if (checksum_) checksum_->update(bytes);
  if (sha256_) sha256_->update(bytes);
}

void BodyDigest::update(ByteView bytes) {
  md5_.update(bytes);
  update_others(bytes);
}

BodyDigest::Values BodyDigest::finish() {
  Values values;
  values.md5 = text_of(md5_.finish());
  if (checksum_) values.checksum = text_of(checksum_->finish().view());
  if (sha256_) {
    const auto sha256 = sha256_->finish();
    if (with_sha256_) values.sha256 = text_of(sha256.view());
    if (algorithm_ == ChecksumAlgorithm::sha256) values.checksum = text_of(sha256.view());
  }
  return values;
}

void HashQueue::start(Job& job) {
  if (pool_ == nullptr || job.bytes_.size() < kSmallPiece) return;
  job.home_ = &Executor::here();
  job.started_ = true;
  bool drain_now = false;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->jobs.push_back(&job);
    drain_now = shared_->want_drain_locked();
    if (drain_now) ++shared_->draining;
    if (shared_->gathering && shared_->jobs.size() >= shared_->expected) shared_->came.notify_one();
  }
  if (drain_now) pool_->submit([shared = shared_] { shared->drain(); });
}

void HashQueue::Shared::gather(std::unique_lock<std::mutex>& lock) {
  if (gathering || slots == 1 || jobs.size() >= expected) return;
  gathering = true;
  came.wait_for(lock, kGatherMax, [this] { return jobs.size() >= expected; });
  gathering = false;
  expected = std::clamp<size_t>(jobs.size(), 1, slots);
}

void HashQueue::Shared::drain() {
  for (;;) {
    std::array<Job*, kSlotsMax> taken{};
    std::array<Md5Update, kSlotsMax> updates{};
    size_t count = 0;
    {
      std::unique_lock lock(mutex);
      gather(lock);
      for (; count < slots && !jobs.empty(); ++count) {
        taken[count] = jobs.front();
        jobs.pop_front();
        updates[count] = {&taken[count]->digest_.md5_, taken[count]->bytes_};
      }
      if (count == 0) {
        --draining;
        return;
      }
    }
    if (count == 1) {
      updates[0].stream->update(updates[0].bytes);
    } else {
      md5_update_many(std::span(updates).first(count));
    }
    for (size_t i = 0; i < count; ++i) taken[i]->digest_.update_others(taken[i]->bytes_);
    {
      // Before anybody is told: these bodies come again, and those that wait now are others.
      const std::lock_guard lock(mutex);
      expected = std::clamp(count + jobs.size(), expected, slots);
    }
    for (size_t i = 0; i < count; ++i) {
      Job& job = *taken[i];
      Executor* home = job.home_;
      void* waiter = job.state_.exchange(kDone, std::memory_order_acq_rel);  // from here the job may be gone
      if (waiter != nullptr) home->post(std::coroutine_handle<>::from_address(waiter));
    }
  }
}

Task<void> HashQueue::wait(Job& job) {
  if (!job.started_) {
    ByteView rest = job.bytes_;
    while (!rest.empty()) {
      const size_t size = std::min(rest.size(), kSlice);
      job.digest_.update(rest.first(size));
      rest = rest.subspan(size);
      if (!rest.empty()) co_await Executor::here().yield();
    }
    co_return;
  }
  struct Waiting {
    std::atomic<void*>& state;
    bool await_ready() const noexcept { return state.load(std::memory_order_acquire) == kDone; }
    bool await_suspend(std::coroutine_handle<> handle) const noexcept {
      void* expected = nullptr;
      return state.compare_exchange_strong(expected, handle.address(), std::memory_order_acq_rel);
    }
    void await_resume() const noexcept {}
  };
  co_await Waiting{job.state_};
}

}  // namespace quarry::object
