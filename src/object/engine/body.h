// BodyReceiver: takes the bytes of one object or part, hashes them, and puts them where they belong: into memory while they may
// still go inline, else into the data plane. Hashing of a piece overlaps with the data plane's work on the piece before it.
// One task at a time.
#pragma once
#include "object/engine/engine.h"

namespace quarry::object {

struct BodyLimits {
  uint32_t inline_limit = 0;  // bodies up to this stay in memory; 0: none does
  uint64_t size_max = kObjectSizeMax;
  std::optional<uint64_t> size;  // promised
  cluster::Redundancy redundancy;
  uint32_t pack_limit = 0;
  cluster::FileName file = {};  // the object, where drives keep it as a file
  bool whole_file = false;      // every drive does: also an empty body is written
};

struct Body {
  uint64_t size = 0;
  BodyDigest::Values digests;
  PayloadKind kind = PayloadKind::none;       // none, inlined, data
  std::optional<cluster::DataLayout> layout;  // data
};

class BodyReceiver {
 public:
  BodyReceiver(Engine& engine, BodyLimits limits, ChecksumAlgorithm checksum, bool with_sha256)
      : engine_(engine), limits_(std::move(limits)), digest_(checksum, with_sha256) {}
  Task<Result<void>> write(Buffer data);
  // All bytes are hashed and durable (those that are not inline). Checks size and digests. Errors: checksum_mismatch,
  // invalid_argument (another size than promised), and those of the data plane.
  Task<Result<Body>> finish(Expected expected);

  ByteView inline_bytes() const { return bytes_of(inline_); }
  // After the commit: it is known to have happened; or nobody knows. Without either the data goes.
  void keep() {
    if (writer_) writer_->keep();
  }
  void settle() {
    if (writer_) writer_->settle();
  }

 private:
  Result<void> begin_data();
  Engine& engine_;
  const BodyLimits limits_;
  BodyDigest digest_;
  uint64_t size_ = 0;
  std::string inline_;
  std::unique_ptr<cluster::DataWriter> writer_;
  Buffer pending_;  // hashed, not yet appended
  bool failed_ = false;
};

}  // namespace quarry::object
