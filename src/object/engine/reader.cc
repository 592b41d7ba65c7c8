#include "object/engine/reader.h"

#include "io/sync.h"

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
  if (found_.record.layout) found_.parts.clear();  // ranges of the one layout
  for (const auto& part : found_.parts) {
    const uint64_t begin = std::max(start, offset_), end = std::min(start + part.size, offset_ + left_);
    if (begin < end) pieces_.push_back({*part.layout, begin - start, end - begin});  // a part with bytes has a layout: records.cc checks
    start += part.size;
  }
  found_.parts.clear();
  if (pieces_.empty()) return;
  piece_left_ = pieces_.front().length;
  reader_ = read_piece(0);
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
    ++piece_;
    if (piece_ == pieces_.size()) co_return fail(Code::corrupt, "key '{}': its parts end {} bytes early", info_.key, left_);
    piece_left_ = pieces_[piece_].length;
    reader_ = next_reader_ ? std::move(next_reader_) : read_piece(piece_);
  }
  auto bytes = co_await take(max_bytes);
  if (!bytes) co_return std::move(bytes).error().with(fmt::format("key '{}'", info_.key));
  if (bytes->empty()) co_return fail(Code::corrupt, "key '{}': its data ends {} bytes early", info_.key, left_);
  if (bytes->size() > piece_left_) co_return fail(Code::corrupt, "key '{}': its data is longer than its record says", info_.key);
  piece_left_ -= bytes->size();
  left_ -= bytes->size();
  co_return std::move(*bytes);
}

std::unique_ptr<cluster::DataReader> Reader::read_piece(size_t piece) {
  const Piece& p = pieces_[piece];
  return data_.read(p.layout, p.offset, p.length, cluster::CachePolicy::normal);
}

Task<Result<SharedBytes>> Reader::take(size_t max_bytes) {
  if (primed_ && primed_piece_ == piece_) {
    auto first = std::move(*primed_);
    primed_.reset();
    co_return first;
  }
  const bool prime_next = !primed_ && piece_left_ <= max_bytes && piece_ + 1 < pieces_.size();
  if (!prime_next) {
    auto bytes = co_await reader_->next(max_bytes);
    co_return bytes;
  }
  if (!next_reader_) next_reader_ = read_piece(piece_ + 1);
  std::vector<Task<Result<SharedBytes>>> tasks;
  tasks.push_back(reader_->next(max_bytes));
  tasks.push_back(next_reader_->next(max_bytes));
  auto both = co_await when_all(std::move(tasks));
  // This piece may not be at its end yet (max_bytes is a hint); what was read ahead waits until it is.
  // An error is not kept: that piece is asked again in its turn, if it comes to that.
  if (both[1]) {
    primed_.emplace(std::move(both[1]));
    primed_piece_ = piece_ + 1;
  }
  co_return std::move(both[0]);
}

}  // namespace quarry::object
