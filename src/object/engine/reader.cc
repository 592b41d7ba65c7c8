#include "object/engine/reader.h"

namespace quarry::object {

void Reader::set_range(uint64_t offset, uint64_t length) {
  CHECK(!opened_, "set_range after next");
  offset_ = std::min(offset, found_.record.size);
  left_ = std::min(length, found_.record.size - offset_);
}

void Reader::open() {
  opened_ = true;
  if (found_.record.layout) pieces_.push_back({*found_.record.layout, offset_, left_});
  uint64_t start = 0;
  for (const auto& part : found_.parts) {
    const uint64_t begin = std::max(start, offset_), end = std::min(start + part.size, offset_ + left_);
    if (begin < end) pieces_.push_back({*part.layout, begin - start, end - begin});  // a part with bytes has a layout: records.cc checks
    start += part.size;
  }
  found_.parts.clear();
  for (size_t i = 0; i < std::min(pieces_.size(), kReadersAheadMax); ++i) {
    readers_.push_back(data_.read(pieces_[i].layout, pieces_[i].offset, pieces_[i].length, cluster::CachePolicy::normal));
  }
  if (readers_.size() == pieces_.size()) guard_.reset();
  if (!pieces_.empty()) piece_left_ = pieces_.front().length;
}

Task<Result<SharedBytes>> Reader::next(size_t max_bytes) {
  if (!opened_ && left_ > 0 && found_.record.payload != PayloadKind::inlined) open();
  if (left_ == 0) {
    guard_.reset();
    co_return SharedBytes();
  }
  if (found_.record.payload == PayloadKind::inlined) {
    opened_ = true;
    guard_.reset();
    const size_t size = std::min<uint64_t>(left_, std::max<size_t>(max_bytes, 1));
    SharedBytes bytes = found_.payload.slice(offset_, size);
    offset_ += size;
    left_ -= size;
    co_return bytes;
  }
  while (piece_left_ == 0) {
    readers_[piece_].reset();
    ++piece_;
    if (piece_ == pieces_.size()) co_return fail(Code::corrupt, "key '{}': its parts end {} bytes early", info_.key, left_);
    piece_left_ = pieces_[piece_].length;
    if (piece_ == readers_.size()) {
      const Piece& piece = pieces_[piece_];
      readers_.push_back(data_.read(piece.layout, piece.offset, piece.length, cluster::CachePolicy::normal));
      if (readers_.size() == pieces_.size()) guard_.reset();
    }
  }
  auto bytes = co_await readers_[piece_]->next(max_bytes);
  if (!bytes) co_return std::move(bytes).error().with(fmt::format("key '{}'", info_.key));
  if (bytes->empty()) co_return fail(Code::corrupt, "key '{}': its data ends {} bytes early", info_.key, left_);
  if (bytes->size() > piece_left_) co_return fail(Code::corrupt, "key '{}': its data is longer than its record says", info_.key);
  piece_left_ -= bytes->size();
  left_ -= bytes->size();
  co_return std::move(*bytes);
}

}  // namespace quarry::object
