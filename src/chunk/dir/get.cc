// Reads: every block that is touched is read whole and verified before a byte of it is returned. A file is examined when it is opened and
// before each read: what was changed behind our back is found by its size or time at once, and by its checksums in any case.
#include "base/log.h"
#include "chunk/dir/dir_store_impl.h"
#include "codec/crc32c.h"

namespace quarry::chunk::dir {
namespace {

constexpr uint32_t kVerifyStep = 4 * kMiB;

struct Span {
  uint32_t begin = 0, end = 0;  // bytes of the chunk that are read: whole blocks
};
Span span_of(uint32_t size, uint32_t offset, uint32_t length) {
  const uint64_t end = std::min<uint64_t>(size, uint64_t{offset} + length);
  return {static_cast<uint32_t>(round_down(offset, kBlock)), static_cast<uint32_t>(std::min<uint64_t>(size, round_up(end, kBlock)))};
}

// The first block of bytes [begin, begin + bytes.size()) of a chunk that fails; none if all are right.
std::optional<uint32_t> first_bad_block(ChunkId id, uint32_t begin, ByteView bytes, std::span<const uint32_t> checksums) {
  for (uint32_t block = begin / kBlock; !bytes.empty(); ++block) {
    const ByteView one = bytes.first(std::min<size_t>(kBlock, bytes.size()));
    if (crc32c(checksum_seed(id, block), one) != checksums[block]) return block;
    bytes = bytes.subspan(one.size());
  }
  return std::nullopt;
}

constexpr const char* kAdvice =
    "let Quarry rebuild it from its redundancy, or put the old content back, or delete the object and adopt the file as it is now";

// Reads a whole file, whose time is not the recorded one, against its record. Errors: corrupt (changed).
// absent: chunks that were removed, of which nothing need be left.
Result<void> verify_all(File& file, const FileRecord& record, const std::vector<bool>& absent, const std::string& path) {
  Buffer buffer(kVerifyStep);
  for (uint32_t index = 0; index < record.chunk_count() && record.size > 0; ++index) {
    if (index < absent.size() && absent[index]) continue;
    const uint32_t size = record.size_of_chunk(index);
    const auto checksums = std::span(record.checksums).subspan(static_cast<size_t>(index) * record.blocks_per_chunk());
    for (uint32_t at = 0; at < size; at += kVerifyStep) {
      const auto part = buffer.mutable_view().first(std::min<uint32_t>(kVerifyStep, size - at));
      TRY_ASSIGN(const size_t got, file.read_at(static_cast<uint64_t>(index) * record.chunk_size + at, part));
      if (got != part.size()) return fail(Code::corrupt, "{} is shorter than it was", path).because(Reason::changed);
      if (const auto bad = first_bad_block(record.chunk(index), at, part, checksums)) {
        return fail(Code::corrupt, "{} was changed behind Quarry's back: the 64 KiB at {} differ from what was stored; {}", path,
                    static_cast<uint64_t>(index) * record.chunk_size + static_cast<uint64_t>(*bad) * kBlock, kAdvice)
            .because(Reason::changed);
      }
    }
  }
  return {};
}

// What is expected of a file, and what was found.
struct Opening {
  std::string path;
  ChunkId first;
  uint64_t inode = 0;
  int64_t modified_ns = 0;
  bool in_side_file = false;
  bool may_write = false;
  std::vector<bool> absent;                                // chunks that were removed
  bool sure = false;                                       // nobody renames it meanwhile
  std::optional<std::pair<int64_t, std::string>> verdict;  // in: of an earlier look; out: changed
  std::shared_ptr<ReadableFile> found;
  bool touched = false;  // time or inode differed, content did not
  RecordPlace place = RecordPlace::attribute;
};

// Errors: not_found (nothing at this path; replaced: something that is not this file), corrupt, io_error.
Result<void> examine(FileSystem& files, Records& records, Opening& opening) {
  TRY_ASSIGN(auto file, files.open(opening.path, OpenMode::read));
  TRY_ASSIGN(const FileInfo info, file->info());
  if (info.kind != FileKind::file) return fail(Code::not_found, "{} is not a file any more", opening.path).because(Reason::replaced);
  // Without an attribute only the inode tells this file from a newer one under the same name.
  if (opening.in_side_file && info.inode != opening.inode && !opening.sure)
    return fail(Code::not_found, "{} is another file now", opening.path).because(Reason::replaced);
  auto record = records.find(*file, opening.in_side_file || info.inode == opening.inode ? std::optional(opening.first) : std::nullopt);
  if (!record) return std::move(record).error().with(opening.path);
  if (!*record || (**record).record.first != opening.first)
    return fail(Code::not_found, "{} is another file now", opening.path).because(Reason::replaced);
  const bool changed = info.modified_ns != opening.modified_ns || info.inode != opening.inode;
  auto found = std::make_shared<ReadableFile>();
  found->record = std::move((**record).record);
  opening.place = (**record).place;
  if (info.size != found->record.size) {
    return fail(Code::corrupt, "{} was changed behind Quarry's back: it has {} bytes, {} were stored; {}", opening.path, info.size,
                found->record.size, kAdvice)
        .because(Reason::changed);
  }
  if (changed || info.modified_ns != found->record.modified_ns) {
    if (opening.verdict && opening.verdict->first == info.changed_ns)
      return fail(Code::corrupt, "{}", opening.verdict->second).because(Reason::changed);
    const auto verified = verify_all(*file, found->record, opening.absent, opening.path);
    if (!verified) {
      if (verified.error().code() == Code::corrupt) opening.verdict.emplace(info.changed_ns, verified.error().context());
      return verified;
    }
    opening.touched = true;
    found->record.modified_ns = info.modified_ns;
    if (opening.may_write) {
      // Best effort: without it the file is verified once more after the next start.
      const auto writer = files.open(opening.path, OpenMode::write);
      if (writer) {
        const auto kept = records.keep(**writer, found->record);
        if (kept) opening.place = *kept;
      }
    }
  }
  found->info = info;
  found->file = std::move(file);
  opening.found = std::move(found);
  return {};
}

}  // namespace

Task<Result<SharedBytes>> DirStoreImpl::get(ChunkId id, uint32_t offset, uint32_t length) {
  CO_TRY(readable());
  Use use(*this);
  auto result = co_await read_any(id, offset, length, false);
  co_return result;
}

Task<Result<SharedBytes>> DirStoreImpl::read_any(ChunkId id, uint32_t offset, uint32_t length, bool from_device) {
  const auto found = index_.find(id);
  if (!found) co_return fail(Code::not_found, "chunk {}", id.to_string());
  if (offset > found->size) co_return fail(Code::out_of_range, "chunk {} has {} bytes, not {}", id.to_string(), found->size, offset);
  Result<SharedBytes> result = SharedBytes();
  if (found->file == nullptr) {
    result = co_await read_chunk(id, found->size, offset, length, from_device);
  } else {
    result = co_await read_from_file(*found, id, offset, length, from_device);
  }
  if (result) co_return result;
  if (!index_.find(id)) co_return fail(Code::not_found, "chunk {} was removed", id.to_string());
  if (result.error().code() == Code::corrupt) {
    ++health_.checksum_errors;
    co_return result;
  }
  Error error = co_await noted(std::move(result).error(), false);
  co_return error;
}

Task<Result<SharedBytes>> DirStoreImpl::read_chunk(ChunkId id, uint32_t size, uint32_t offset, uint32_t length, bool from_device) {
  auto files = files_;
  auto result = co_await blocking(*pool_, [files, id, size, offset, length, from_device]() -> Result<SharedBytes> {
    const std::string path = place_of(kChunks, id);
    auto opened = files->open(path, OpenMode::read);
    if (!opened && opened.error().code() == Code::not_found)
      return fail(Code::corrupt, "{} vanished behind Quarry's back", path).because(Reason::vanished);
    if (!opened) return std::move(opened).error();
    File& file = **opened;
    if (from_device) file.drop_cached();
    const auto header_size = static_cast<uint32_t>(chunk_header_bytes(size));
    const Span span = span_of(size, offset, length);
    // A small chunk comes with its header in one read.
    const bool together = span.begin == 0;
    Buffer buffer(header_size + (together ? span.end : 0));
    TRY_ASSIGN(const size_t got, file.read_at(0, buffer.mutable_view()));
    if (got != buffer.size()) return fail(Code::corrupt, "{} is shorter than it was", path).because(Reason::changed);
    auto header = decode_chunk_header(buffer.view().first(header_size));
    if (!header) return std::move(header).error().with(path).because(Reason::rot);
    if (header->id != id || header->size != size) return fail(Code::corrupt, "{} holds another chunk", path).because(Reason::replaced);
    ByteView bytes;
    size_t skip = offset - span.begin;
    if (together) {
      bytes = buffer.view().subspan(header_size);
      skip += header_size;
    } else {
      buffer = Buffer(span.end - span.begin);
      TRY_ASSIGN(const size_t more, file.read_at(header_size + span.begin, buffer.mutable_view()));
      if (more != buffer.size()) return fail(Code::corrupt, "{} is shorter than it was", path).because(Reason::changed);
      bytes = buffer.view();
    }
    if (const auto bad = first_bad_block(id, span.begin, bytes, header->checksums))
      return fail(Code::corrupt, "{}: block {} fails its checksum", path, *bad).because(Reason::rot);
    const SharedBytes whole{std::move(buffer)};
    return whole.slice(skip, std::min<size_t>(length, size - offset));
  });
  co_return result;
}

Task<Result<SharedBytes>> DirStoreImpl::read_from_file(FileIndex::Found found, ChunkId id, uint32_t offset, uint32_t length,
                                                       bool from_device) {
  const ChunkId first = found.file->first;
  const uint32_t size = found.size;
  const Span span = span_of(size, offset, length);
  const auto wanted = std::min<size_t>(length, size - offset);
  if (const auto unfinished = found.file->unfinished) {
    const uint64_t at = static_cast<uint64_t>(found.index) * found.file->chunk_size + span.begin;
    auto result = co_await blocking(
        *pool_, [unfinished, checksums = unfinished->checksums[found.index], id, at, span, offset, wanted]() -> Result<SharedBytes> {
          Buffer buffer(span.end - span.begin);
          TRY_ASSIGN(const size_t got, unfinished->file->read_at(at, buffer.mutable_view()));
          if (got != buffer.size() || first_bad_block(id, span.begin, buffer.view(), checksums))
            return fail(Code::corrupt, "chunk {} of an unfinished file", id.to_string()).because(Reason::rot);
          const SharedBytes whole{std::move(buffer)};
          return whole.slice(offset - span.begin, wanted);
        });
    co_return result;
  }
  for (int attempt = 0;; ++attempt) {
    auto opened = co_await open_file(first);
    if (!opened) co_return std::move(opened).error();
    const auto file = *opened;
    const uint32_t index = found.index;
    bool changed = false;
    auto result = co_await blocking(*pool_, [file, id, index, span, offset, wanted, from_device, &changed]() -> Result<SharedBytes> {
      TRY_ASSIGN(const FileInfo info, file->file->info());
      changed = info.size != file->info.size || info.modified_ns != file->info.modified_ns || info.links == 0;
      if (changed) return fail(Code::corrupt, "changed");
      if (from_device) file->file->drop_cached();
      Buffer buffer(span.end - span.begin);
      const FileRecord& record = file->record;
      TRY_ASSIGN(const size_t got,
                 file->file->read_at(static_cast<uint64_t>(index) * record.chunk_size + span.begin, buffer.mutable_view()));
      const auto checksums = std::span(record.checksums).subspan(static_cast<size_t>(index) * record.blocks_per_chunk());
      std::optional<uint32_t> bad = span.begin / kBlock;
      if (got == buffer.size()) bad = first_bad_block(id, span.begin, buffer.view(), checksums);
      if (bad) {
        return fail(Code::corrupt,
                    "{}/{}: the 64 KiB at {} fail their checksum: the file was changed behind Quarry's back, or the drive returns wrong "
                    "bytes; {}",
                    record.directory, record.name, static_cast<uint64_t>(index) * record.chunk_size + static_cast<uint64_t>(*bad) * kBlock,
                    kAdvice)
            .because(Reason::rot);
      }
      const SharedBytes whole{std::move(buffer)};
      return whole.slice(offset - span.begin, wanted);
    });
    if (!changed) co_return result;
    std::move(result).ignore("it is looked at anew");
    forget_open(first);
    if (attempt == 3)
      co_return fail(Code::corrupt, "{}/{} keeps changing behind Quarry's back: find out what writes there", file->record.directory,
                     file->record.name)
          .because(Reason::changed);
  }
}

void DirStoreImpl::forget_open(ChunkId first) {
  const auto at = open_by_id_.find(first);
  if (at == open_by_id_.end()) return;
  open_files_.erase(at->second);
  open_by_id_.erase(at);
}

void DirStoreImpl::remember_open(ChunkId first, std::shared_ptr<ReadableFile> file) {
  forget_open(first);
  open_files_.emplace_front(first, std::move(file));
  open_by_id_[first] = open_files_.begin();
  if (open_files_.size() <= options_.open_files_max) return;
  open_by_id_.erase(open_files_.back().first);
  open_files_.pop_back();
}

Task<Result<std::shared_ptr<ReadableFile>>> DirStoreImpl::open_file(ChunkId first) {
  if (const auto at = open_by_id_.find(first); at != open_by_id_.end()) {
    open_files_.splice(open_files_.begin(), open_files_, at->second);
    co_return at->second->second;
  }
  for (int attempt = 0;; ++attempt) {
    // A file may get another name while we look for it under the old one; who holds naming_ knows where it is.
    const bool alone = attempt == 1;
    if (alone) co_await naming_.acquire();
    FileEntry* entry = index_.file(first);
    Opening opening;
    Result<void> examined = fail(Code::not_found, "file {} was removed", first.to_string());
    const bool there = entry != nullptr && !entry->unfinished;
    if (there) {
      opening.path = entry->path;
      opening.first = first;
      opening.inode = entry->inode;
      opening.modified_ns = entry->modified_ns;
      opening.in_side_file = entry->record_in_side_file;
      opening.sure = alone;
      opening.may_write = health_.state == StoreState::online;
      if (entry->verdict) opening.verdict = *entry->verdict;
      if (entry->absent) opening.absent = *entry->absent;
      examined = co_await blocking(*pool_, [this, &opening] { return examine(*files_, records_, opening); });
    }
    if (alone) naming_.release();
    entry = index_.file(first);
    if (examined) {
      if (entry != nullptr && opening.touched) {
        LOG_WARNING("a file was touched behind our back; its content is right", {"path", full(opening.path)});
        entry->modified_ns = opening.found->info.modified_ns;
        entry->inode = opening.found->info.inode;
        entry->record_in_side_file = opening.place == RecordPlace::side_file;
        entry->verdict = nullptr;
      }
      if (entry != nullptr) remember_open(first, opening.found);
      co_return opening.found;
    }
    if (examined.error().code() == Code::not_found && there && !alone) continue;
    if (examined.error().code() == Code::not_found && there) {
      co_return fail(
          Code::corrupt,
          "{} was removed or replaced behind Quarry's back: let Quarry rebuild it from its redundancy, or put it back with its attributes",
          full(opening.path))
          .because(examined.error().reason() == Reason::replaced ? Reason::replaced : Reason::vanished);
    }
    if (examined.error().code() == Code::corrupt && entry != nullptr && opening.verdict) {
      entry->verdict = std::make_unique<std::pair<int64_t, std::string>>(*opening.verdict);
    }
    co_return std::move(examined).error();
  }
}

}  // namespace quarry::chunk::dir
