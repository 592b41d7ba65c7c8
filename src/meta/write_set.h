// What a transaction wants to change: an ordered list of operations, kept in the very bytes that go into a log frame
// (docs/formats/metadata-log.md, section 3), and, built only when the transaction reads after writing, an overlay that answers
// reads from its own writes. Shared by all backends. A value type, used by one task at a time.
//
// Rows: a backend keeps more than the users' keys. The first byte of a row key is its space (Space below), the rest the key.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "meta/meta_store.h"

namespace quarry::meta {

// First byte of every row key. Frozen: in log frames and checkpoints.
namespace space {
inline constexpr char kSystem = 0x01;  // the backend's own rows; never in a frame
inline constexpr char kUser = 0x10;
inline constexpr char kLease = 0x20;
}  // namespace space

std::string row_key(char space, std::string_view key);
KeyRange row_range(char space, const KeyRange& range);

// Errors: invalid_argument (empty), too_large.
Result<void> check_key(std::string_view key);
Result<void> check_value(std::string_view value);

// A counter is 8 bytes, little-endian, two's complement. A value of another size counts as 0 (an add replaces it). Wraps around.
int64_t counter_of(std::string_view value);
std::string counter_bytes(int64_t value);
inline int64_t counter_sum(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }

// Numbers are frozen. The last two exist only before the version is known; frames hold the first four.
enum class OpKind : uint8_t { put = 1, remove = 2, remove_range = 3, add = 4, put_stamped_value = 5, put_stamped_key = 6 };

struct Op {
  OpKind kind = OpKind::put;
  std::string_view key;    // row key; remove_range: begin
  std::string_view value;  // put*: value; remove_range: end (never empty)
  int64_t delta = 0;       // add
  uint32_t offset = 0;     // put_stamped_*: place of the stamp in the value or in the row key
};

// Reads encoded operations, front to back, without copying. Hostile input is safe: after a malformed operation next() is false
// and ok() too.
class OpReader {
 public:
  explicit OpReader(std::string_view ops) : rest_(ops) {}
  bool next(Op& op);
  bool ok() const { return ok_; }
  size_t remaining() const { return rest_.size(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

// Own writes as a reader sees them: entries win over removed ranges, these over the snapshot.
struct Overlay {
  struct Entry {
    enum class Kind : uint8_t { value, absent, add, unreadable } kind = Kind::absent;
    std::string value{};
    int64_t delta = 0;
  };
  std::map<std::string, Entry, std::less<>> entries;               // by row key
  std::map<std::string, std::string, std::less<>> removed_ranges;  // begin -> end, disjoint
  bool removed(std::string_view key) const;
  void apply(const Op& op);
};

class WriteSet {
 public:
  explicit WriteSet(char space) : space_(space) {}

  void put(std::string_view key, std::string_view value);
  void remove(std::string_view key);
  void remove_range(const KeyRange& range);
  void add(std::string_view key, int64_t delta);
  void put_versionstamped(std::string_view key, std::string_view value, uint32_t offset);
  void put_at_versionstamped_key(std::string_view key, uint32_t offset, std::string_view value);

  bool empty() const { return ops_.empty(); }
  bool has_stamps() const { return has_stamps_; }
  std::string_view ops() const { return ops_; }
  size_t op_count() const { return op_count_; }
  // The first limit that was violated: too_large or invalid_argument.
  Result<void> check() const;
  // ops() with the stamps put in place: plain puts only.
  std::string stamped_ops(Version version) const;
  const Overlay& overlay();

 private:
  // Encoded, many tiny operations are larger than their keys and values: the bound that keeps a transaction inside one frame.
  static constexpr size_t kEncodedMax = 6u << 20;
  bool admit(std::string_view key, size_t bytes);
  char space_;
  bool has_stamps_ = false;
  std::string ops_;
  size_t op_count_ = 0;
  size_t bytes_ = 0;  // of keys and values
  std::optional<Error> error_;
  Overlay overlay_;
  size_t overlay_upto_ = 0;  // bytes of ops_ already in overlay_
};

}  // namespace quarry::meta
