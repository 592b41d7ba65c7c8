#include "io/sim/page_image.h"

#include <atomic>
#include <cstring>

#include "base/check.h"

namespace quarry {
namespace {
template <class T>
bool only_owner(const std::shared_ptr<T>& pointer) {
  const bool only = pointer.use_count() == 1;
  // A copy that another thread has just dropped must have finished its reads before we write.
  std::atomic_thread_fence(std::memory_order_acquire);
  return only;
}
}  // namespace

void PageImage::resize(uint64_t size) {
  if (size < size_ && size % kPageSize != 0) fill(size, std::min(size_, round_up(size, kPageSize)) - size, 0);
  size_ = size;
  const uint64_t pages = div_up(size, kPageSize);
  leaves_.resize(div_up(pages, kLeafPages));
  if (!leaves_.empty() && leaves_.back() != nullptr) {
    const uint64_t first = (leaves_.size() - 1) * kLeafPages;
    for (uint64_t page = pages; page < first + kLeafPages; ++page) {
      if (find(page) != nullptr) slot(page) = nullptr;
    }
  }
  allocated_pages_ = 0;
  for (const auto& leaf : leaves_) {
    if (leaf == nullptr) continue;
    for (const auto& page : leaf->pages) allocated_pages_ += page != nullptr;
  }
}

const PageImage::Page* PageImage::find(uint64_t page) const {
  const auto& leaf = leaves_[page / kLeafPages];
  return leaf == nullptr ? nullptr : leaf->pages[page % kLeafPages].get();
}

std::shared_ptr<PageImage::Page>& PageImage::slot(uint64_t page) {
  auto& leaf = leaves_[page / kLeafPages];
  if (leaf == nullptr) {
    leaf = std::make_shared<Leaf>();
  } else if (!only_owner(leaf)) {
    leaf = std::make_shared<Leaf>(*leaf);
  }
  return leaf->pages[page % kLeafPages];
}

PageImage::Page& PageImage::mutable_page(uint64_t page) {
  auto& pointer = slot(page);
  if (pointer == nullptr) {
    pointer = std::make_shared<Page>();
    pointer->fill(0);
    ++allocated_pages_;
  } else if (!only_owner(pointer)) {
    pointer = std::make_shared<Page>(*pointer);
  }
  return *pointer;
}

const std::shared_ptr<PageImage::Page>& PageImage::pattern_page(uint8_t value) {
  static const auto pages = [] {
    std::array<std::shared_ptr<Page>, 256> all;
    for (size_t i = 0; i < all.size(); ++i) {
      all[i] = std::make_shared<Page>();
      all[i]->fill(static_cast<uint8_t>(i));
    }
    return all;
  }();
  return pages[value];
}

void PageImage::read(uint64_t offset, MutableByteView into) const {
  CHECK(offset <= size_ && into.size() <= size_ - offset);
  while (!into.empty()) {
    const uint64_t inside = offset % kPageSize;
    const size_t length = std::min<uint64_t>(into.size(), kPageSize - inside);
    const Page* page = find(offset / kPageSize);
    if (page == nullptr) {
      std::memset(into.data(), 0, length);
    } else {
      std::memcpy(into.data(), page->data() + inside, length);
    }
    into = into.subspan(length);
    offset += length;
  }
}

void PageImage::write(uint64_t offset, ByteView from) {
  CHECK(offset <= size_ && from.size() <= size_ - offset);
  while (!from.empty()) {
    const uint64_t inside = offset % kPageSize;
    const size_t length = std::min<uint64_t>(from.size(), kPageSize - inside);
    std::memcpy(mutable_page(offset / kPageSize).data() + inside, from.data(), length);
    from = from.subspan(length);
    offset += length;
  }
}

void PageImage::fill(uint64_t offset, uint64_t length, uint8_t value) {
  CHECK(offset <= size_ && length <= size_ - offset);
  while (length > 0) {
    const uint64_t inside = offset % kPageSize;
    const uint64_t part = std::min(length, kPageSize - inside);
    if (part < kPageSize) {
      std::memset(mutable_page(offset / kPageSize).data() + inside, value, part);
    } else if (value != 0 || find(offset / kPageSize) != nullptr) {
      auto& pointer = slot(offset / kPageSize);
      allocated_pages_ -= pointer != nullptr;
      pointer = value == 0 ? nullptr : pattern_page(value);
      allocated_pages_ += pointer != nullptr;
    }
    offset += part;
    length -= part;
  }
}

uint64_t PageImage::allocated_bytes(uint64_t offset, uint64_t length) const {
  uint64_t pages = 0;
  for (uint64_t page = offset / kPageSize; page < div_up(offset + length, kPageSize); ++page) pages += find(page) != nullptr;
  return pages * kPageSize;
}

bool PageImage::operator==(const PageImage& other) const {
  if (size_ != other.size_) return false;
  static const Page zeros{};
  for (size_t leaf = 0; leaf < leaves_.size(); ++leaf) {
    if (leaves_[leaf] == other.leaves_[leaf]) continue;
    for (uint64_t page = leaf * kLeafPages; page < (leaf + 1) * kLeafPages; ++page) {
      const Page* mine = find(page);
      const Page* theirs = other.find(page);
      if (mine != theirs && (mine ? *mine : zeros) != (theirs ? *theirs : zeros)) return false;
    }
  }
  return true;
}

}  // namespace quarry
