#include "meta/write_set.h"

#include "base/coding.h"

namespace quarry::meta {
namespace {

void append_text(std::string& out, std::string_view text) { Encoder(out).text(text); }

void append_row_key(std::string& out, char space, std::string_view key) {
  Encoder(out).varint(key.size() + 1);
  out.push_back(space);
  out.append(key);
}

void append_kind(std::string& out, OpKind kind) { out.push_back(static_cast<char>(kind)); }

void put_stamp(char* to, Version version) {
  const uint64_t big = std::byteswap(version);
  std::memcpy(to, &big, sizeof big);
}

}  // namespace

KeyRange KeyRange::prefix(std::string_view prefix) { return {std::string(prefix), prefix_end(prefix)}; }

std::string row_key(char space, std::string_view key) {
  std::string row;
  row.reserve(key.size() + 1);
  row.push_back(space);
  row.append(key);
  return row;
}

KeyRange row_range(char space, const KeyRange& range) {
  return {row_key(space, range.begin), range.end.empty() ? std::string(1, static_cast<char>(space + 1)) : row_key(space, range.end)};
}

Result<void> check_key(std::string_view key) {
  if (key.empty()) return fail(Code::invalid_argument, "a metadata key is empty");
  if (key.size() > kKeySizeMax) return fail(Code::too_large, "a metadata key of {} bytes (limit {})", key.size(), kKeySizeMax);
  return {};
}

Result<void> check_value(std::string_view value) {
  if (value.size() > kValueSizeMax) return fail(Code::too_large, "a metadata value of {} bytes (limit {})", value.size(), kValueSizeMax);
  return {};
}

int64_t counter_of(std::string_view value) {
  if (value.size() != sizeof(int64_t)) return 0;
  return load_le<int64_t>(reinterpret_cast<const uint8_t*>(value.data()));
}

std::string counter_bytes(int64_t value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

bool OpReader::next(Op& op) {
  if (!ok_ || rest_.empty()) return false;
  Decoder in(rest_);
  const uint8_t kind = in.u8();
  op = Op{};
  op.kind = static_cast<OpKind>(kind);
  switch (op.kind) {
    case OpKind::put:
      op.key = in.text(kKeySizeMax + 1);
      op.value = in.text(kValueSizeMax);
      break;
    case OpKind::remove: op.key = in.text(kKeySizeMax + 1); break;
    case OpKind::remove_range:
      op.key = in.text(kKeySizeMax + 1);
      op.value = in.text(kKeySizeMax + 1);
      if (in.ok() && op.value <= op.key) ok_ = false;
      break;
    case OpKind::add:
      op.key = in.text(kKeySizeMax + 1);
      op.delta = static_cast<int64_t>(in.u64());
      break;
    case OpKind::put_stamped_value:
    case OpKind::put_stamped_key: {
      op.key = in.text(kKeySizeMax + 1);
      op.value = in.text(kValueSizeMax);
      op.offset = in.u32();
      const size_t room = op.kind == OpKind::put_stamped_value ? op.value.size() : op.key.size();
      if (in.ok() && uint64_t{op.offset} + 8 > room) ok_ = false;
      break;
    }
    default: ok_ = false;
  }
  if (!in.ok() || op.key.empty()) ok_ = false;
  if (!ok_) return false;
  rest_ = text_of(in.rest());
  return true;
}

bool Overlay::removed(std::string_view key) const {
  auto at = removed_ranges.upper_bound(key);
  if (at == removed_ranges.begin()) return false;
  return key < std::prev(at)->second;
}

void Overlay::apply(const Op& op) {
  switch (op.kind) {
    case OpKind::put: entries[std::string(op.key)] = {Entry::Kind::value, std::string(op.value), 0}; return;
    case OpKind::remove: entries[std::string(op.key)] = {}; return;
    case OpKind::put_stamped_value: entries[std::string(op.key)] = {Entry::Kind::unreadable, {}, 0}; return;
    case OpKind::put_stamped_key: return;  // its key is not known yet: own reads do not see it
    case OpKind::add: {
      auto at = entries.find(op.key);
      if (at == entries.end()) {
        Entry entry;
        if (removed(op.key)) {
          entry = {Entry::Kind::value, counter_bytes(op.delta), 0};
        } else {
          entry = {Entry::Kind::add, {}, op.delta};
        }
        entries.emplace(std::string(op.key), std::move(entry));
        return;
      }
      Entry& entry = at->second;
      switch (entry.kind) {
        case Entry::Kind::value: entry.value = counter_bytes(counter_sum(counter_of(entry.value), op.delta)); return;
        case Entry::Kind::absent: entry = {Entry::Kind::value, counter_bytes(op.delta), 0}; return;
        case Entry::Kind::add: entry.delta = counter_sum(entry.delta, op.delta); return;
        case Entry::Kind::unreadable: return;
      }
      return;
    }
    case OpKind::remove_range: {
      entries.erase(entries.lower_bound(op.key), entries.lower_bound(op.value));
      std::string begin(op.key), end(op.value);
      auto at = removed_ranges.upper_bound(begin);
      if (at != removed_ranges.begin() && std::prev(at)->second >= begin) --at;
      while (at != removed_ranges.end() && at->first <= end) {
        begin = std::min(begin, at->first);
        end = std::max(end, at->second);
        at = removed_ranges.erase(at);
      }
      removed_ranges.emplace(std::move(begin), std::move(end));
      return;
    }
  }
}

bool WriteSet::admit(std::string_view key, size_t bytes) {
  if (error_) return false;
  if (auto valid = check_key(key); !valid) {
    error_ = std::move(valid).error();
    return false;
  }
  bytes_ += bytes;
  constexpr size_t kOverheadMax = 32;  // of one operation, encoded
  if (bytes_ > kTransactionSizeMax || ops_.size() + bytes + kOverheadMax > kEncodedMax) {
    error_ = fail(Code::too_large, "a transaction writes more than {} bytes, or about a million rows: split it", kTransactionSizeMax);
    return false;
  }
  ++op_count_;
  return true;
}

void WriteSet::put(std::string_view key, std::string_view value) {
  if (auto valid = check_value(value); !valid && !error_) error_ = std::move(valid).error();
  if (!admit(key, key.size() + value.size())) return;
  append_kind(ops_, OpKind::put);
  append_row_key(ops_, space_, key);
  append_text(ops_, value);
}

void WriteSet::remove(std::string_view key) {
  if (!admit(key, key.size())) return;
  append_kind(ops_, OpKind::remove);
  append_row_key(ops_, space_, key);
}

void WriteSet::remove_range(const KeyRange& range) {
  if (range.begin.size() > kKeySizeMax || range.end.size() > kKeySizeMax) {
    if (!error_) error_ = fail(Code::too_large, "a bound of a range is longer than {} bytes", kKeySizeMax);
    return;
  }
  const KeyRange rows = row_range(space_, range);
  if (rows.end <= rows.begin) return;
  if (!admit("x", rows.begin.size() + rows.end.size())) return;
  append_kind(ops_, OpKind::remove_range);
  append_text(ops_, rows.begin);
  append_text(ops_, rows.end);
}

void WriteSet::add(std::string_view key, int64_t delta) {
  if (!admit(key, key.size() + sizeof delta)) return;
  append_kind(ops_, OpKind::add);
  append_row_key(ops_, space_, key);
  Encoder(ops_).u64(static_cast<uint64_t>(delta));
}

void WriteSet::put_versionstamped(std::string_view key, std::string_view value, uint32_t offset) {
  if (auto valid = check_value(value); !valid && !error_) error_ = std::move(valid).error();
  if (uint64_t{offset} + 8 > value.size() && !error_)
    error_ = fail(Code::invalid_argument, "the version stamp does not fit into the value");
  if (!admit(key, key.size() + value.size())) return;
  has_stamps_ = true;
  append_kind(ops_, OpKind::put_stamped_value);
  append_row_key(ops_, space_, key);
  append_text(ops_, value);
  Encoder(ops_).u32(offset);
}

void WriteSet::put_at_versionstamped_key(std::string_view key, uint32_t offset, std::string_view value) {
  if (auto valid = check_value(value); !valid && !error_) error_ = std::move(valid).error();
  if (uint64_t{offset} + 8 > key.size() && !error_) error_ = fail(Code::invalid_argument, "the version stamp does not fit into the key");
  if (!admit(key, key.size() + value.size())) return;
  has_stamps_ = true;
  append_kind(ops_, OpKind::put_stamped_key);
  append_row_key(ops_, space_, key);
  append_text(ops_, value);
  Encoder(ops_).u32(offset + 1);  // past the space byte
}

Result<void> WriteSet::check() const {
  if (error_) return *error_;
  return {};
}

std::string WriteSet::stamped_ops(Version version) const {
  std::string out;
  out.reserve(ops_.size());
  OpReader reader(ops_);
  Op op;
  size_t before = ops_.size();
  while (reader.next(op)) {
    const std::string_view raw = std::string_view(ops_).substr(ops_.size() - before, before - reader.remaining());
    before = reader.remaining();
    if (op.kind != OpKind::put_stamped_value && op.kind != OpKind::put_stamped_key) {
      out.append(raw);
      continue;
    }
    append_kind(out, OpKind::put);
    append_text(out, op.key);
    if (op.kind == OpKind::put_stamped_key) put_stamp(out.data() + out.size() - op.key.size() + op.offset, version);
    append_text(out, op.value);
    if (op.kind == OpKind::put_stamped_value) put_stamp(out.data() + out.size() - op.value.size() + op.offset, version);
  }
  CHECK(reader.ok(), "own operations do not parse");
  return out;
}

const Overlay& WriteSet::overlay() {
  OpReader reader(std::string_view(ops_).substr(overlay_upto_));
  Op op;
  while (reader.next(op)) overlay_.apply(op);
  overlay_upto_ = ops_.size();
  return overlay_;
}

}  // namespace quarry::meta
