// Reader: the bytes of one version, whatever happens to its key meanwhile. One task at a time.
//
// At the end of one part the beginning of the next is read already, so that its own read-ahead is under way when it is reached.
#pragma once
#include "object/engine/lookup.h"

namespace quarry::object {

class Reader final : public ObjectReader {
 public:
  Reader(cluster::DataPlane& data, std::unique_ptr<cluster::ReadGuard> guard, Found found, ObjectInfo info)
      : data_(data), guard_(std::move(guard)), found_(std::move(found)), info_(std::move(info)), left_(found_.record.size) {}
  const ObjectInfo& info() const override { return info_; }
  void set_range(uint64_t offset, uint64_t length) override;
  Task<Result<SharedBytes>> next(size_t max_bytes) override;

 private:
  void open();
  std::unique_ptr<cluster::DataReader> read_piece(size_t piece);
  Task<Result<SharedBytes>> take(size_t max_bytes);
  struct Piece {
    cluster::DataLayout layout;
    uint64_t offset = 0, length = 0;
  };
  cluster::DataPlane& data_;
  std::unique_ptr<cluster::ReadGuard> guard_;  // narrowed to what is read; null: nothing needs to be kept
  Found found_;
  ObjectInfo info_;
  uint64_t offset_ = 0, left_;
  bool opened_ = false;
  std::vector<Piece> pieces_;
  size_t piece_ = 0;
  std::unique_ptr<cluster::DataReader> reader_, next_reader_;  // of this piece, and of the one behind it
  uint64_t piece_left_ = 0;
  std::optional<Result<SharedBytes>> primed_;  // first bytes of piece primed_piece_
  size_t primed_piece_ = 0;
};

}  // namespace quarry::object
