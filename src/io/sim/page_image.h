// PageImage: the contents of a simulated drive: sparse pages of 4 KiB, shared between copies until one of them writes. Copying an
// image of a 1 GiB drive copies 512 pointers, so thousands of crash images of one drive cost only what differs between them.
// Values; one thread per image, but copies that share pages may live on different threads.
#pragma once
#include <array>
#include <memory>
#include <vector>

#include "base/bytes.h"

namespace quarry {

class PageImage {
 public:
  static constexpr uint64_t kPageSize = 4096;
  explicit PageImage(uint64_t size = 0) { resize(size); }

  uint64_t size() const { return size_; }
  void resize(uint64_t size);  // new bytes are zero
  // All ranges must lie inside the image (CHECKed); no alignment is needed.
  void read(uint64_t offset, MutableByteView into) const;
  void write(uint64_t offset, ByteView from);
  // Every byte becomes `value`; whole pages are shared, so that filling a large range costs no memory.
  void fill(uint64_t offset, uint64_t length, uint8_t value);
  // Pages that hold anything, in all and inside a range.
  uint64_t allocated_bytes(uint64_t offset, uint64_t length) const;
  uint64_t allocated_bytes() const { return allocated_pages_ * kPageSize; }
  bool operator==(const PageImage& other) const;

 private:
  static constexpr uint64_t kLeafPages = 512;
  using Page = std::array<uint8_t, kPageSize>;
  struct Leaf {
    std::array<std::shared_ptr<Page>, kLeafPages> pages;
  };
  const Page* find(uint64_t page) const;
  std::shared_ptr<Page>& slot(uint64_t page);  // of a leaf that only this image has
  Page& mutable_page(uint64_t page);
  static const std::shared_ptr<Page>& pattern_page(uint8_t value);

  uint64_t size_ = 0;
  uint64_t allocated_pages_ = 0;
  std::vector<std::shared_ptr<Leaf>> leaves_;
};

}  // namespace quarry
