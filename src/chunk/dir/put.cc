// Puts: a chunk of its own becomes one file, synced and renamed into place; chunks of a file go where they belong in it, and finish_file
// makes the file whole: record, sync, rename out of .quarry/unfinished.
#include "chunk/dir/dir_store_impl.h"

namespace quarry::chunk::dir {
namespace {

std::string scratch_name(const char* kind, ChunkId id) { return fmt::format("{}/{}-{}", kUnfinished, kind, id.to_string()); }

// Writes a chunk's file under its name; the name is not durable yet.
Result<void> write_chunk_file(FileSystem& files, ChunkId id, uint8_t stream, uint32_t size, const std::vector<ByteView>& parts) {
  const std::string scratch = scratch_name("c", id);
  const auto write = [&]() -> Result<void> {
    ChunkHeader header{id, size, stream, checksums_of(id, parts)};
    const std::string head = encode_chunk_header(header);
    std::vector<ByteView> pieces = {bytes_of(head)};
    pieces.insert(pieces.end(), parts.begin(), parts.end());
    TRY_ASSIGN(const auto file, files.open(scratch, OpenMode::create));
    TRY(file->write_at(0, pieces));
    TRY(file->sync());
    return files.rename(scratch, place_of(kChunks, id));
  };
  auto written = write();
  if (!written) files.remove(scratch).ignore("open removes it; the first error is the one to tell");
  return written;
}

}  // namespace

Task<Result<void>> DirStoreImpl::put(ChunkId id, std::vector<ByteView> parts, PutOptions options) {
  CO_TRY(writable());
  Use use(*this);
  uint64_t size = 0;
  for (const ByteView part : parts) size += part.size();
  if (size > kChunkSizeMax) co_return fail(Code::too_large, "a chunk of {} bytes: at most {}", size, kChunkSizeMax);
  if (removing_.contains(id)) co_return fail(Code::already_exists, "chunk {} is just being removed", id.to_string());
  if (options.file) {
    auto result = co_await put_in_file(id, std::move(parts), static_cast<uint32_t>(size), *options.file);
    co_return result;
  }
  if (index_.find(id) || !putting_.insert(id).second) co_return fail(Code::already_exists, "chunk {}", id.to_string());
  auto result = co_await put_chunk(id, std::move(parts), static_cast<uint32_t>(size), static_cast<uint8_t>(options.stream));
  putting_.erase(id);
  co_return result;
}

Task<Result<void>> DirStoreImpl::ensure_shelf(const char* directory, ChunkId id) {
  std::string shelf = fmt::format("{}/{}", directory, shelf_of(id));
  if (shelves_.contains(shelf)) co_return Result<void>{};
  auto files = files_;
  auto made = co_await blocking(*pool_, [files, shelf] { return ensure_directory(*files, shelf); });
  if (made) shelves_.insert(shelf);
  co_return made;
}

Task<Result<void>> DirStoreImpl::put_chunk(ChunkId id, std::vector<ByteView> parts, uint32_t size, uint8_t stream) {
  auto result = co_await ensure_shelf(kChunks, id);
  if (result) {
    result = co_await blocking(*pool_, [this, id, stream, size, &parts] {
      auto written = write_chunk_file(*files_, id, stream, size, parts);
      refresh_space();
      return written;
    });
  }
  if (result) result = co_await directory_sync_->sync(fmt::format("{}/{}", kChunks, shelf_of(id)));
  if (!result) {
    // Its name may be there all the same: an unacknowledged chunk must leave no trace.
    const std::string path = place_of(kChunks, id);
    auto files = files_;
    auto removed = co_await blocking(*pool_, [files, path] { return files->remove(path); });
    std::move(removed).ignore("the first error is the one to tell");
    Error error = co_await noted(std::move(result).error(), true);
    co_return error;
  }
  index_.add_chunk(id, size);
  count(1, size, static_cast<int64_t>(stored_bytes(chunk_header_bytes(size) + size)));
  co_return result;
}

Task<Result<void>> DirStoreImpl::put_in_file(ChunkId id, std::vector<ByteView> parts, uint32_t size, FilePlace place) {
  CO_TRY(check_shape(place.first, static_cast<uint64_t>(place.index) * place.chunk_size + size, place.chunk_size, place.stride));
  if (size > place.chunk_size || place.index >= kChunksPerFileMax || id.high != place.first.high ||
      id.low != place.first.low + place.index * place.stride) {
    co_return fail(Code::invalid_argument, "chunk {} of {} bytes is not chunk {} of file {}", id.to_string(), size, place.index,
                   place.first.to_string());
  }
  const ChunkId first = place.first;
  FileEntry* entry = index_.file(first);
  if (entry != nullptr && !entry->unfinished) co_return fail(Code::already_exists, "file {} is finished", first.to_string());
  if (entry == nullptr) {
    if (index_.find(first)) co_return fail(Code::already_exists, "chunk {}", first.to_string());
    if (unfinished_ >= options_.unfinished_max)
      co_return fail(Code::overloaded, "{}: {} files are being written: wait for some to end", files_->root(), unfinished_);
    CO_TRY(path_of_key(place.directory, place.name, PathForm::yielding));
    auto fresh = std::make_unique<FileEntry>();
    fresh->first = first;
    fresh->stride = place.stride;
    fresh->chunk_size = place.chunk_size;
    fresh->path = scratch_name("f", first);
    fresh->name = std::make_unique<BucketAndKey>(std::string(place.directory), std::string(place.name));
    fresh->unfinished = std::make_shared<Unfinished>();
    entry = &index_.add(std::move(fresh));
    ++unfinished_;
    const auto created = entry->unfinished;
    auto files = files_;
    auto opened = co_await blocking(*pool_, [files, path = scratch_name("f", first)] { return files->open(path, OpenMode::create); });
    if (opened) {
      created->file = std::move(*opened);
    } else {
      created->error = co_await noted(std::move(opened).error(), true);
      // Nothing was acknowledged, and another put may try again.
      entry = index_.file(first);
      if (entry != nullptr && entry->unfinished == created) {
        index_.erase(first);
        --unfinished_;
      }
    }
    created->created.set();
    if (created->error) co_return *created->error;
  }
  entry = index_.file(first);
  const auto unfinished = entry != nullptr ? entry->unfinished : nullptr;
  if (!unfinished) co_return fail(Code::io_error, "file {} could not be made", first.to_string());
  if (entry->chunk_size != place.chunk_size || entry->stride != place.stride)
    co_return fail(Code::invalid_argument, "file {} has chunks of {} bytes", first.to_string(), entry->chunk_size);
  co_await unfinished->created.wait();
  if (unfinished->error) co_return *unfinished->error;
  if (unfinished->finishing) co_return fail(Code::already_exists, "file {} is being finished", first.to_string());
  if (place.index >= unfinished->sizes.size()) {
    unfinished->sizes.resize(place.index + 1, -1);
    unfinished->checksums.resize(place.index + 1);
    unfinished->taken.resize(place.index + 1, false);
    if (FileEntry* now = index_.file(first)) index_.note_span(*now);
  }
  if (unfinished->taken[place.index]) co_return fail(Code::already_exists, "chunk {} of file {}", place.index, first.to_string());
  unfinished->taken[place.index] = true;
  ++unfinished->writes_in_flight;
  const uint64_t offset = static_cast<uint64_t>(place.index) * place.chunk_size;
  std::vector<uint32_t> checksums;
  auto written = co_await blocking(*pool_, [&unfinished, &parts, &checksums, id, offset, size, this] {
    checksums = checksums_of(id, parts);
    auto result = unfinished->file->write_at(offset, parts);
    if (result) unfinished->file->begin_writeback(offset, size);
    refresh_space();
    return result;
  });
  if (written) {
    unfinished->sizes[place.index] = size;
    unfinished->checksums[place.index] = std::move(checksums);
    const FileEntry* now = index_.file(first);
    if (now != nullptr && now->unfinished == unfinished) count(1, size, static_cast<int64_t>(stored_bytes(size)));
  } else {
    unfinished->error = written.error();
  }
  if (--unfinished->writes_in_flight == 0) unfinished->idle.pulse();
  if (!written) {
    Error error = co_await noted(std::move(written).error(), true);
    co_return error;
  }
  co_return written;
}

Task<Result<void>> DirStoreImpl::finish_file(ChunkId first, uint64_t size) {
  CO_TRY(writable());
  Use use(*this);
  FileEntry* entry = index_.file(first);
  if (entry == nullptr) co_return fail(Code::not_found, "no file {}", first.to_string());
  if (!entry->unfinished) {
    if (entry->size == size) co_return Result<void>{};
    co_return fail(Code::precondition_failed, "file {} has {} bytes, not {}", first.to_string(), entry->size, size);
  }
  const auto unfinished = entry->unfinished;
  if (unfinished->finishing) co_return fail(Code::busy, "file {} is being finished", first.to_string());
  unfinished->finishing = true;
  co_await unfinished->created.wait();
  while (unfinished->writes_in_flight > 0) co_await unfinished->idle.wait();
  Result<void> result;
  if (unfinished->error) result = *unfinished->error;
  FileRecord record;
  entry = index_.file(first);
  if (result && (entry == nullptr || entry->unfinished != unfinished))
    result = fail(Code::not_found, "file {} was removed", first.to_string());
  if (result) result = check_shape(first, size, entry->chunk_size, entry->stride);
  if (result) {
    record.first = first;
    record.size = size;
    record.chunk_size = entry->chunk_size;
    record.stride = entry->stride;
    record.directory = entry->name->bucket;
    record.name = entry->name->key;
    const uint32_t chunks = record.chunk_count();
    if (unfinished->sizes.size() != chunks) {
      result = fail(Code::precondition_failed, "file {} of {} bytes needs {} chunks: {} were put", first.to_string(), size, chunks,
                    unfinished->sizes.size());
    }
    for (uint32_t i = 0; i < chunks && result; ++i) {
      if (unfinished->sizes[i] != record.size_of_chunk(i)) {
        result = fail(Code::precondition_failed, "chunk {} of file {} has {} bytes, not {}", i, first.to_string(), unfinished->sizes[i],
                      record.size_of_chunk(i));
      }
      record.checksums.insert(record.checksums.end(), unfinished->checksums[i].begin(), unfinished->checksums[i].end());
    }
  }
  if (!result) {
    unfinished->finishing = false;
    unfinished->idle.pulse();
    co_return result;
  }
  const std::string to = place_of(kHidden, first);
  result = co_await ensure_shelf(kHidden, first);
  RecordPlace place = RecordPlace::attribute;
  FileInfo info;
  if (result) {
    const std::string from = entry->path;
    result = co_await blocking(*pool_, [&]() -> Result<void> {
      TRY_ASSIGN(info, unfinished->file->info());
      if (info.size != record.size)
        return fail(Code::corrupt, "{} has {} bytes after {} were written: something else writes there", from, info.size, record.size);
      record.modified_ns = info.modified_ns;
      TRY_ASSIGN(place, records_.keep(*unfinished->file, record));
      TRY(unfinished->file->sync());
      TRY(files_->rename(from, to));
      refresh_space();
      return {};
    });
  }
  if (result) result = co_await directory_sync_->sync(fmt::format("{}/{}", kHidden, shelf_of(first)));
  entry = index_.file(first);
  CHECK(entry != nullptr && entry->unfinished == unfinished, "a file went while it was being finished");
  unfinished->finishing = false;
  if (!result) {
    // What did not reach the device may be lost though the operating system has forgotten that it was not written: never try again.
    unfinished->error = result.error();
    entry->path = to;  // or it still has its old name: abandon tries both
    unfinished->idle.pulse();
    Error error = co_await noted(std::move(result).error(), true);
    co_return error;
  }
  entry->size = size;
  entry->modified_ns = record.modified_ns;
  entry->inode = info.inode;
  entry->record_in_side_file = place == RecordPlace::side_file;
  entry->state = FileState::hidden;
  entry->path = to;
  entry->unfinished = nullptr;
  --unfinished_;
  unfinished->idle.pulse();
  co_return result;
}

Task<Result<void>> DirStoreImpl::abandon(ChunkId first) {
  FileEntry* entry = index_.file(first);
  const auto unfinished = entry->unfinished;
  if (!unfinished->error) unfinished->error = fail(Code::cancelled, "file {} was removed while it was written", first.to_string());
  co_await unfinished->created.wait();
  while (unfinished->writes_in_flight > 0 || unfinished->finishing) co_await unfinished->idle.wait();
  entry = index_.file(first);
  if (entry == nullptr || entry->unfinished != unfinished) co_return Result<void>{};
  count_file(*entry, -1);
  index_.erase(first);
  --unfinished_;
  auto removed = co_await blocking(*pool_, [this, first]() -> Result<void> {
    auto gone = files_->remove(scratch_name("f", first));
    if (!gone && gone.error().code() == Code::not_found) gone = files_->remove(place_of(kHidden, first));
    records_.forget(first, RecordPlace::side_file);
    refresh_space();
    if (!gone && gone.error().code() == Code::not_found) return {};
    return gone;
  });
  co_return removed;
}

}  // namespace quarry::chunk::dir
