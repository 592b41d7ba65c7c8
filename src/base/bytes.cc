#include "base/bytes.h"

#include <atomic>

#include "base/buffer_arena.h"
#include "base/check.h"

namespace quarry {
namespace {
// Sharded by thread so that counting costs no shared cache line.
struct alignas(64) Counter {
  std::atomic<int64_t> bytes{0};
};
constexpr size_t kShards = 16;
Counter counters[kShards];
Counter& my_counter() {
  static std::atomic<uint32_t> next{0};
  thread_local Counter& mine = counters[next.fetch_add(1, std::memory_order_relaxed) % kShards];
  return mine;
}
}  // namespace

Buffer::Buffer(size_t size) : size_(size), capacity_(round_up(size, kBufferAlignment)) {
  if (capacity_ == 0) return;
  data_ = buffer_allocate(capacity_);
  my_counter().bytes.fetch_add(static_cast<int64_t>(buffer_allocation_size(capacity_)), std::memory_order_relaxed);
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  my_counter().bytes.fetch_sub(static_cast<int64_t>(buffer_allocation_size(capacity_)), std::memory_order_relaxed);
  buffer_release(data_, capacity_);
}

Buffer Buffer::copy_of(ByteView bytes) {
  Buffer buffer(bytes.size());
  if (!bytes.empty()) std::memcpy(buffer.data(), bytes.data(), bytes.size());
  return buffer;
}

void Buffer::resize(size_t size) {
  CHECK(size <= capacity_);
  size_ = size;
}

uint64_t buffer_bytes_in_use() {
  int64_t total = 0;
  for (const auto& counter : counters) total += counter.bytes.load(std::memory_order_relaxed);
  return total > 0 ? static_cast<uint64_t>(total) : 0;
}

SharedBytes::SharedBytes(Buffer buffer) : owner_(std::make_shared<const Buffer>(std::move(buffer))) { view_ = owner_->view(); }

SharedBytes SharedBytes::copy_of(ByteView bytes) { return SharedBytes(Buffer::copy_of(bytes)); }

SharedBytes SharedBytes::slice(size_t offset, size_t length) const {
  CHECK(offset <= view_.size() && length <= view_.size() - offset);
  SharedBytes part(*this);
  part.view_ = view_.subspan(offset, length);
  return part;
}

}  // namespace quarry
