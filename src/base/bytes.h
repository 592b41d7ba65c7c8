// Views and owners of raw memory.
//   ByteView / MutableByteView  borrow; never keep one across a suspension whose owner may die.
//   Buffer                      owns memory aligned to 4096 (fits O_DIRECT), move-only, fixed capacity, variable size.
//   SharedBytes                 an immutable, reference-counted slice; for caches, and for data sent to many.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quarry {

using ByteView = std::span<const uint8_t>;
using MutableByteView = std::span<uint8_t>;

inline constexpr size_t kBufferAlignment = 4096;
inline constexpr size_t kKiB = 1024, kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB, kTiB = 1024 * kGiB;

inline ByteView bytes_of(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }
inline std::string_view text_of(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
constexpr uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }
constexpr uint64_t round_down(uint64_t value, uint64_t unit) { return value / unit * unit; }
constexpr uint64_t div_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit; }

class Buffer {
 public:
  Buffer() = default;
  // size bytes, uninitialised; capacity is size rounded up to 4096.
  explicit Buffer(size_t size);
  static Buffer copy_of(ByteView bytes);
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  size_t capacity() const { return capacity_; }
  void resize(size_t size);  // size <= capacity
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }
  ByteView view() const { return {data_, size_}; }
  MutableByteView mutable_view() { return {data_, size_}; }
  operator ByteView() const { return view(); }  // NOLINT: a Buffer is readable wherever bytes are

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

// Memory held by all live Buffers of this process, bytes (with what size classes waste: base/buffer_arena.h). For the memory bound and for
// metrics.
uint64_t buffer_bytes_in_use();

class SharedBytes {
 public:
  SharedBytes() = default;
  explicit SharedBytes(Buffer buffer);
  static SharedBytes copy_of(ByteView bytes);
  SharedBytes slice(size_t offset, size_t length) const;  // inside the bounds, checked
  ByteView view() const { return view_; }
  size_t size() const { return view_.size(); }
  bool empty() const { return view_.empty(); }
  operator ByteView() const { return view_; }  // NOLINT
  // The whole buffer behind this slice: what the slice keeps alive, bytes.
  size_t retained_bytes() const { return owner_ ? owner_->capacity() : 0; }

 private:
  std::shared_ptr<const Buffer> owner_;
  ByteView view_;
};

}  // namespace quarry
