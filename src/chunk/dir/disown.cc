// Disown: writes that were never committed, or that are let go. Files that were adopted, and files that somebody changed, are not ours to
// delete: they lose their record and stay where they lie, as foreign files that adopt may take in (again).
#include "chunk/dir/dir_store_impl.h"

namespace quarry::chunk::dir {

Task<Result<void>> DirStoreImpl::disown(std::vector<ChunkId> ids) {
  CO_TRY(readable());
  Use use(*this);
  std::vector<ChunkId> ours;
  std::map<ChunkId, std::vector<ChunkId>> shown;
  for (const ChunkId id : ids) {
    const auto found = index_.find(id);
    if (found && found->file != nullptr && found->file->state == FileState::shown) {
      shown[found->file->first].push_back(id);
    } else {
      ours.push_back(id);
    }
  }
  for (const auto& [first, of_file] : shown) {
    auto kept = co_await let_go(first);
    if (!kept) {
      Error error = co_await noted(std::move(kept).error(), true);
      co_return error;
    }
    if (!*kept) ours.insert(ours.end(), of_file.begin(), of_file.end());
  }
  auto removed = co_await remove(std::move(ours));
  co_return removed;
}

// false: the file is what was written here, and nobody else's.
Task<Result<bool>> DirStoreImpl::let_go(ChunkId first) {
  co_await naming_.acquire();
  FileEntry* entry = index_.file(first);
  if (entry == nullptr || entry->state != FileState::shown) {
    naming_.release();
    co_return false;
  }
  const std::string path = entry->path;
  RecordPlace place = entry->record_in_side_file ? RecordPlace::side_file : RecordPlace::attribute;
  auto kept = co_await blocking(*pool_, [this, path, first, &place]() -> Result<bool> {
    auto file = files_->open(path, OpenMode::write);
    if (!file) return file.error().code() == Code::not_found ? Result<bool>(false) : Result<bool>(std::move(file).error());
    TRY_ASSIGN(const FileInfo info, (*file)->info());
    auto found = records_.find(**file, first);
    if (!found || !*found || (**found).record.first != first) return false;  // somebody else's: remove leaves it alone
    const FileRecord& record = (**found).record;
    place = (**found).place;
    const bool adopted =
        std::any_of(record.attributes.begin(), record.attributes.end(), [](const auto& one) { return one.first == kAdoptedAttribute; });
    if (!adopted && info.size == record.size && info.modified_ns == record.modified_ns) return false;
    TRY(records_.erase(**file, first, place));
    TRY((*file)->sync());
    return true;
  });
  if (kept && *kept) {
    entry = index_.file(first);
    if (entry != nullptr) {
      count_file(*entry, -1);
      index_.erase(first);
      forget_open(first);
    }
  }
  naming_.release();
  co_return kept;
}

}  // namespace quarry::chunk::dir
