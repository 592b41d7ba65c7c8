// Reading: headers, verified blocks, listings, sizes.
#include "chunk/kfs/instance.h"

namespace quarry::chunk::kfs {
namespace {

constexpr uint64_t kIterateFromBlocks = 3;  // fewer are read by key: an iterator costs a seek in every table of the range
constexpr size_t kVisitPage = 256;          // headers read under one lease

Result<void> check_block(std::string_view name, const Header& header, uint32_t index, ByteView block) {
  if (block.size() != header.block_size(index)) {
    return fail(Code::corrupt, "block {} of {} has {} bytes instead of {}", index, name, block.size(), header.block_size(index));
  }
  if (block_checksum(name, index, block) != header.checksums[index])
    return fail(Code::corrupt, "block {} of {} fails its checksum", index, name);
  return {};
}

}  // namespace

void HeaderCursor::load() {
  valid_ = has_header_ = false;
  if (kind_ == StoreKind::chunks) {
    if (!it_->Valid() || !text_of(it_->key()).starts_with('/')) return;
    name_ = text_of(it_->key()).substr(1);
    header_ = text_of(it_->value());
    valid_ = has_header_ = true;
    it_->Next();
    return;
  }
  for (; it_->Valid(); it_->Next()) {
    name_ = name_of_run_key(text_of(it_->key()));
    if (!name_.empty()) break;
  }
  if (!it_->Valid()) return;
  valid_ = true;
  const std::string key = header_key(kind_, name_);
  if (text_of(it_->key()) != key) it_->Seek(key);
  if (!it_->Valid() || text_of(it_->key()) != key) return;
  header_ = text_of(it_->value());
  has_header_ = true;
  it_->Next();
}

Result<Header> BucketSet::header(uint8_t bucket, std::string_view name) {
  auto lease = acquire(bucket, For::reading);
  if (!lease) {
    if (lease.error().code() == Code::not_found) return fail(Code::not_found, "{}", name);
    return std::move(lease).error();
  }
  std::string value;
  const auto found = lease->db().Get(reading_records(), header_key(kind_, name), &value);
  if (found.IsNotFound()) return fail(Code::not_found, "{}", name);
  if (!found.ok()) return note_read_error(from_status(found, name));
  auto header = decode_header(name, value);
  if (!header) return note_read_error(std::move(header).error());
  return header;
}

Result<void> BucketSet::read(uint8_t bucket, std::string_view name, uint64_t offset, uint64_t length, const Piece& piece) {
  auto lease = acquire(bucket, For::reading);
  if (!lease) {
    if (lease.error().code() == Code::not_found) return fail(Code::not_found, "{}", name);
    return std::move(lease).error();
  }
  leveldb::DB& db = lease->db();
  const Snapshot snapshot(db);  // a removal meanwhile does not show
  std::string value;
  const auto found = db.Get(reading_records(snapshot.get()), header_key(kind_, name), &value);
  if (found.IsNotFound()) return fail(Code::not_found, "{}", name);
  if (!found.ok()) return note_read_error(from_status(found, name));
  const auto header = decode_header(name, value);
  if (!header) return note_read_error(header.error());
  if (offset > header->size) return fail(Code::out_of_range, "{} has {} bytes, asked for offset {}", name, header->size, offset);
  const uint64_t end = offset + std::min(length, header->size - offset);
  if (end == offset) return {};
  const auto first = static_cast<uint32_t>(offset / kKfsBlock), last = static_cast<uint32_t>((end - 1) / kKfsBlock);
  const auto give = [&](uint32_t index, ByteView block) -> Result<void> {
    if (auto sound = check_block(name, *header, index, block); !sound) return note_read_error(std::move(sound).error());
    const uint64_t start = uint64_t{index} * kKfsBlock;
    const uint64_t from = std::max(offset, start) - start, to = std::min<uint64_t>(end - start, block.size());
    return piece(block.subspan(from, to - from));
  };
  const auto missing = [&](uint32_t index, const leveldb::Status& status) {
    if (!status.ok() && !status.IsNotFound()) return note_read_error(from_status(status, fmt::format("block {} of {}", index, name)));
    return note_read_error(fail(Code::corrupt, "block {} of {} is missing", index, name));
  };
  if (last - first + 1 < kIterateFromBlocks) {
    for (uint32_t index = first; index <= last; ++index) {
      const auto got = db.Get(reading_blocks(snapshot.get()), block_key(name, index), &value);
      if (!got.ok()) return missing(index, got);
      TRY(give(index, quarry::bytes_of(value)));
    }
    return {};
  }
  const std::unique_ptr<leveldb::Iterator> it(db.NewIterator(reading_blocks(snapshot.get())));
  it->Seek(block_key(name, first));
  for (uint32_t index = first; index <= last; ++index, it->Next()) {
    if (!it->Valid() || text_of(it->key()) != block_key(name, index)) return missing(index, it->status());
    TRY(give(index, bytes_of(it->value())));
  }
  return {};
}

Result<void> BucketSet::visit(uint8_t bucket, std::string_view from, const Visit& visit) {
  std::string next(from);
  for (;;) {
    std::vector<std::pair<std::string, Result<Header>>> page;
    bool more = false;
    leveldb::Status status;
    {
      auto lease = acquire(bucket, For::reading);
      if (!lease) {
        if (lease.error().code() == Code::not_found) return {};
        return std::move(lease).error();
      }
      HeaderCursor at(lease->db(), kind_, kind_ == StoreKind::files ? reading_blocks() : reading_records());
      for (at.seek(next); at.valid(); at.next()) {
        if (!at.has_header()) continue;  // being written, or being removed
        if (page.size() == kVisitPage) {
          next = at.name();
          more = true;
          break;
        }
        page.emplace_back(at.name(), decode_header(at.name(), at.header()));
      }
      status = at.status();
    }
    bool goes_on = true;
    for (auto& [name, header] : page) {
      goes_on = goes_on && visit(name, header);
      std::move(header).ignore("whom it concerns has looked");
    }
    if (!goes_on) return {};
    if (!status.ok()) return note_read_error(from_status(status, bucket_title(bucket)));
    if (!more) return {};
  }
}

Result<uint64_t> BucketSet::disk_bytes(uint8_t bucket) {
  if (!created_[bucket]) return uint64_t{0};
  const std::string path = bucket_path(directory_, bucket);
  TRY_ASSIGN(const auto names, files_.children(path));
  uint64_t bytes = 0;
  for (const auto& name : names) {
    const auto size = files_.size(path + "/" + name);
    if (size) bytes += *size;  // compaction may have removed it meanwhile
  }
  return bytes;
}

}  // namespace quarry::chunk::kfs
