// Removals. A file goes with its last chunk; while some of its chunks are removed and others are not, a small list under .quarry/absent
// says which. Then a hidden file gives back the space of what is removed. One that is shown stays as it is: it is somebody's to read as
// well, and a hole in it would be a wrong byte; so does one that has another name (a hard link that somebody made).
#include "base/log.h"
#include "chunk/dir/dir_store_impl.h"
#include "chunk/dir/tree_walk.h"

namespace quarry::chunk::dir {

Task<Result<void>> DirStoreImpl::remove(std::vector<ChunkId> ids) {
  CO_TRY(readable());
  Use use(*this);
  const auto is_removing = [this](const ChunkId& id) { return removing_.contains(id); };
  while (std::ranges::any_of(ids, is_removing)) co_await removed_.wait();
  std::erase_if(ids, [this](const ChunkId& id) { return !index_.find(id); });
  removing_.insert(ids.begin(), ids.end());
  Result<void> removed = co_await remove_those_there(ids);
  for (const ChunkId id : ids) removing_.erase(id);
  removed_.pulse();
  if (removed) co_return Result<void>{};
  Error error = co_await noted(std::move(removed).error(), true);
  co_return error;
}

Task<Result<void>> DirStoreImpl::remove_those_there(std::vector<ChunkId> ids) {
  std::vector<ChunkId> chunks;
  std::map<ChunkId, std::vector<uint32_t>> of_files;
  for (const ChunkId id : ids) {
    const auto found = index_.find(id);
    if (!found) continue;
    if (found->file == nullptr) {
      chunks.push_back(id);
    } else {
      of_files[found->file->first].push_back(found->index);
    }
  }
  std::sort(chunks.begin(), chunks.end());
  chunks.erase(std::unique(chunks.begin(), chunks.end()), chunks.end());
  std::vector<Task<Result<void>>> tasks;
  if (!chunks.empty()) tasks.push_back(remove_chunks(std::move(chunks)));
  for (auto& [first, indexes] : of_files) tasks.push_back(remove_of_file(first, std::move(indexes)));
  auto results = co_await when_all(std::move(tasks));
  co_return first_error(results);
}

Task<Result<void>> DirStoreImpl::remove_chunks(std::vector<ChunkId> ids) {
  std::map<ChunkId, uint32_t> sizes;
  for (const ChunkId id : ids) {
    const auto found = index_.find(id);
    if (!found) continue;
    sizes[id] = found->size;
    index_.erase_chunk(id);
    count(-1, -static_cast<int64_t>(found->size), -static_cast<int64_t>(stored_bytes(chunk_header_bytes(found->size) + found->size)));
  }
  std::set<std::string> shelves;
  for (const auto& [id, size] : sizes) shelves.insert(fmt::format("{}/{}", kChunks, shelf_of(id)));
  auto result = co_await blocking(*pool_, [this, &sizes]() -> Result<void> {
    for (const auto& [id, size] : sizes) {
      const auto removed = files_->remove(place_of(kChunks, id));
      if (!removed && removed.error().code() != Code::not_found) return removed;
    }
    refresh_space();
    return {};
  });
  if (result) result = co_await directory_sync_->sync_all(std::move(shelves));
  if (!result) {
    // Whether they are gone is not known: they stay listed, so that they can be removed again.
    for (const auto& [id, size] : sizes) {
      index_.add_chunk(id, size);
      count(1, size, static_cast<int64_t>(stored_bytes(chunk_header_bytes(size) + size)));
    }
  }
  co_return result;
}

Task<Result<void>> DirStoreImpl::remove_of_file(ChunkId first, std::vector<uint32_t> indexes) {
  co_await naming_.acquire();
  FileEntry* entry = index_.file(first);
  // Which chunks it has was decided when finishing it began.
  while (entry != nullptr && entry->unfinished && entry->unfinished->finishing) {
    const auto unfinished = entry->unfinished;
    naming_.release();
    co_await unfinished->idle.wait();
    co_await naming_.acquire();
    entry = index_.file(first);
  }
  if (entry == nullptr) {
    naming_.release();
    co_return Result<void>{};
  }
  uint64_t left = entry->chunks();
  std::sort(indexes.begin(), indexes.end());
  indexes.erase(std::unique(indexes.begin(), indexes.end()), indexes.end());
  for (const uint32_t index : indexes) left -= entry->chunk(index).has_value();
  Result<void> result;
  if (entry->unfinished) {
    naming_.release();
    if (left == 0) {
      result = co_await abandon(first);
      co_return result;
    }
    for (const uint32_t index : indexes) {
      const auto size = entry->chunk(index);
      if (!size) continue;
      count(-1, -static_cast<int64_t>(*size), -static_cast<int64_t>(stored_bytes(*size)));
      entry->unfinished->sizes[index] = -1;
    }
    co_return result;
  }
  if (left == 0) {
    result = co_await remove_file(first);
    co_return result;
  }
  // Some stay: the list first, durably.
  std::vector<bool> absent(entry->chunk_count(), false);
  if (entry->absent) absent = *entry->absent;
  for (const uint32_t index : indexes) absent[index] = true;
  result = co_await ensure_shelf(kAbsent, first);
  if (result) {
    auto files = files_;
    result = co_await blocking(*pool_, [files, first, list = encode_absent(first, absent)] {
      return replace_whole(*files, place_of(kAbsent, first), fmt::format("{}/a-{}", kUnfinished, first.to_string()), list);
    });
  }
  entry = index_.file(first);
  if (result && entry != nullptr) {
    count_file(*entry, -1);
    entry->absent = std::make_unique<std::vector<bool>>(std::move(absent));
    count_file(*entry, 1);
    if (entry->state == FileState::hidden) co_await punch_out(first, std::move(indexes));
  }
  naming_.release();
  co_return result;
}

// With naming_ held. Best effort: what stays goes with the file.
Task<void> DirStoreImpl::punch_out(ChunkId first, std::vector<uint32_t> indexes) {
  const FileEntry& entry = *index_.file(first);
  const std::string path = entry.path;
  const uint64_t chunk_size = entry.chunk_size, size = entry.size;
  auto files = files_;
  co_await blocking(*pool_, [this, files, path, chunk_size, size, indexes = std::move(indexes)] {
    const auto file = files->open(path, OpenMode::write);
    if (!file) return false;
    const auto info = (*file)->info();
    if (!info || info->links != 1 || info->size != size) return false;
    for (const uint32_t index : indexes) {
      const uint64_t begin = index * chunk_size;
      if (begin >= size) continue;
      if (!(*file)->punch_hole(begin, std::min(chunk_size, size - begin))) return false;
    }
    refresh_space();
    return true;
  });
}

// A file that stays, without its record. Blocks. Best effort: an immutable file keeps even that, and is ours again at the next open.
Result<void> DirStoreImpl::leave_to_others(const std::string& path, ChunkId first, RecordPlace place) {
  const auto file = files_->open(path, OpenMode::write);
  if (!file) return file.error().code() == Code::permission_denied ? Result<void>() : Result<void>(file.error());
  const auto erased = records_.erase(**file, first, place);
  if (!erased) return erased.error().code() == Code::permission_denied ? Result<void>() : erased;
  return (*file)->sync();
}

// With naming_ held; releases it.
Task<Result<void>> DirStoreImpl::remove_file(ChunkId first) {
  FileEntry* entry = index_.file(first);
  const std::string path = entry->path;
  const bool shown = entry->state == FileState::shown;
  const bool listed = entry->absent != nullptr;
  const auto leaving = entry->leaving;
  const Expected expected = entry->expected();
  const RecordPlace place = entry->record_in_side_file ? RecordPlace::side_file : RecordPlace::attribute;
  std::vector<std::string> gone;  // directories
  auto result = co_await blocking(*pool_, [this, path, shown, first, expected, place, &gone]() -> Result<void> {
    Lies lies = Lies::ours;
    if (shown) {
      TRY_ASSIGN(lies, records_.look(path, expected));
    }
    if (lies == Lies::ours) {
      const auto removed = files_->remove(path);
      if (!removed && shown && removed.error().code() == Code::permission_denied && !files_->check_writable(parent_of(path))) {
        // Its owner has closed the directory: the object goes, the file is theirs.
        TRY(leave_to_others(path, first, place));
        LOG_WARNING("the file of a removed object may not be removed: it stays, as a file that Quarry does not know", {"path", full(path)});
      } else if (!removed && removed.error().code() != Code::not_found) {
        return removed;
      }
    }
    if (shown && check_one_file_system(*files_, parent_of(path))) {
      // A second name, if showing something over it failed half way: it would bring the file back at the next open.
      files_->remove(place_of(kHidden, first)).ignore("mostly there is none");
      for (std::string directory = parent_of(path); !directory.empty(); directory = parent_of(directory)) {
        const auto removed = files_->remove_directory(directory);
        if (!removed && removed.error().code() != Code::not_found) break;
        gone.push_back(directory);
      }
    }
    return {};
  });
  DirectorySync::Taken taken(*directory_sync_, parent_of(path));
  note_removed_directories(gone);
  if (result) {
    entry = index_.file(first);
    count_file(*entry, -1);
    index_.erase(first);
    forget_open(first);
  }
  naming_.release();
  if (!result) co_return result;
  auto synced = co_await directory_sync_->sync_taken(taken);
  // It was hidden before it was shown, and nobody has waited until that name was gone for good.
  if (synced && shown) synced = co_await directory_sync_->sync_taken(parent_of(place_of(kHidden, first)));
  // Or the other way round.
  if (synced && leaving) synced = co_await directory_sync_->sync_taken(*leaving);
  if (!synced) co_return synced;
  co_await blocking(*pool_, [this, first, place, listed] {
    records_.forget(first, place);
    if (listed) files_->remove(place_of(kAbsent, first)).ignore("without its file it is removed at open");
    refresh_space();
    return true;
  });
  co_return synced;
}

}  // namespace quarry::chunk::dir
