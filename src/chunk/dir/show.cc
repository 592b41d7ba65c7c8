// Names: showing a file under the path of its key, and hiding it again. All that changes names in the readable tree runs here or in
// remove.cc, under naming_: one at a time, but for the syncs, which run outside and are shared.
//
// Showing a file over an older one of the same key: the older one first gets a second name under .quarry/hidden (a hard link), then the
// rename replaces it. At no moment is the key without a whole file, and at no moment is the older one without a name.
#include "base/log.h"
#include "chunk/dir/dir_store_impl.h"

namespace quarry::chunk::dir {
namespace {

// What stands in the way of a path, if anything.
struct Probe {
  std::vector<std::string> made;  // directories that were made
  std::string blocked_by;         // a file where a directory is needed; empty: none
  bool taken_by_file = false;     // something that is no directory lies at the path
  bool taken_by_directory = false;
};

// Errors: unsupported (another file system is mounted on the way).
Result<Probe> prepare(FileSystem& files, const std::string& path) {
  Probe probe;
  TRY_ASSIGN(const FileInfo root, files.info(""));
  for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const std::string directory = path.substr(0, slash);
    const auto made = files.make_directory(directory);
    if (made) {
      probe.made.push_back(directory);
      continue;
    }
    if (made.error().code() != Code::already_exists) return made.error();
    TRY_ASSIGN(const FileInfo info, files.info(directory));
    if (info.kind == FileKind::directory && !same_file_system(info, root)) {
      return fail(
          Code::unsupported,
          "{}/{}: another file system is mounted there, inside the mountpath: '{}' is kept, but cannot be shown; unmount it, or attach "
          "it as a mountpath of its own and use other keys",
          files.root(), directory, path);
    }
    if (info.kind == FileKind::directory) continue;
    probe.blocked_by = directory;
    return probe;
  }
  const auto info = files.info(path);
  if (!info && info.error().code() != Code::not_found) return info.error();
  probe.taken_by_directory = info && info->kind == FileKind::directory;
  probe.taken_by_file = info && !probe.taken_by_directory;
  return probe;
}

// Directories that became empty above a path, removed; each one's path.
std::vector<std::string> remove_empty_parents(FileSystem& files, const std::string& path) {
  std::vector<std::string> removed;
  for (std::string directory = parent_of(path); !directory.empty(); directory = parent_of(directory)) {
    if (!files.remove_directory(directory)) break;
    removed.push_back(directory);
  }
  return removed;
}

}  // namespace

void DirStoreImpl::note_removed_directories(const std::vector<std::string>& paths) {
  for (const auto& path : paths) new_directories_.erase(path);
  directory_sync_->note_removed(paths);
}

// A file must not leave a durable place for a directory that may not be there after a crash.
Task<Result<void>> DirStoreImpl::sync_new_directories(std::string path) {
  std::set<std::string> paths;
  for (std::string directory = parent_of(path); !directory.empty(); directory = parent_of(directory)) {
    if (new_directories_.contains(directory)) paths.insert(parent_of(directory));
  }
  if (paths.empty()) co_return Result<void>{};
  auto synced = co_await directory_sync_->sync_all(paths);
  if (synced) std::erase_if(new_directories_, [&](const std::string& one) { return paths.contains(parent_of(one)); });
  co_return synced;
}

Task<Result<Lies>> DirStoreImpl::look_at(const FileEntry& entry) {
  const std::string path = entry.path;
  const Expected expected = entry.expected();
  co_return co_await blocking(*pool_, [this, path, expected] { return records_.look(path, expected); });
}

Task<Result<std::string>> DirStoreImpl::find_place(BucketAndKey key, int depth) {
  CO_TRY_ASSIGN(const std::string plain, path_of_key(key.bucket, key.key, PathForm::plain));
  CO_TRY_ASSIGN(const std::string yielding, path_of_key(key.bucket, key.key, PathForm::yielding));
  for (size_t attempt = 0; attempt < 2 * kPathMax; ++attempt) {  // each attempt clears one name on the way
    auto files = files_;
    auto probed = co_await blocking(*pool_, [files, plain] { return prepare(*files, plain); });
    if (!probed) co_return std::move(probed).error();
    new_directories_.insert(probed->made.begin(), probed->made.end());
    if (!probed->blocked_by.empty()) {
      CO_TRY(co_await make_way(probed->blocked_by, depth + 1));
    } else if (probed->taken_by_file) {
      CO_TRY(co_await make_way(plain, depth + 1));
    } else if (!probed->taken_by_directory) {
      CO_TRY(co_await sync_new_directories(plain));
      co_return plain;
    } else {
      auto taken = co_await blocking(*pool_, [files, yielding] { return files->info(yielding); });
      if (!taken && taken.error().code() == Code::not_found) co_return yielding;
      if (!taken) co_return std::move(taken).error();
      CO_TRY(co_await make_way(yielding, depth + 1));
    }
  }
  co_return fail(Code::busy, "{}: something else keeps making files there", full(plain));
}

Task<Result<void>> DirStoreImpl::make_way(std::string path, int depth) {
  if (depth > kMakeWayMax) co_return fail(Code::busy, "{}: too many files would have to yield", full(path));
  FileEntry* entry = index_.shown_at(path);
  std::string to;
  if (entry != nullptr) {
    CO_TRY_ASSIGN(const Lies lies, co_await look_at(*entry));
    entry = index_.shown_at(path);
    if (entry != nullptr && lies != Lies::ours) {
      const ChunkId gone = entry->first;
      index_.hide(*entry, place_of(kHidden, gone));
      forget_open(gone);
      entry = nullptr;
    }
    if (lies == Lies::nothing) co_return Result<void>{};
  }
  if (entry != nullptr) {
    const ChunkId first = entry->first;
    const BucketAndKey key = entry->key();
    const auto plain = path_of_key(key.bucket, key.key, PathForm::plain);
    if (plain && *plain == path) {  // in its own place, where a directory must be
      CO_TRY_ASSIGN(to, path_of_key(key.bucket, key.key, PathForm::yielding));
      auto files = files_;
      auto taken = co_await blocking(*pool_, [files, to] { return files->info(to); });
      if (taken) CO_TRY(co_await make_way(to, depth + 1));
    } else {  // adopted under a path that is another key's
      auto place = co_await find_place(key, depth + 1);
      if (!place) co_return std::move(place).error();
      to = std::move(*place);
    }
    auto moved = co_await blocking(*pool_, [this, path, to, first] {
      auto renamed = files_->rename(path, to);
      if (!renamed) return renamed;
      // Records in side files find their files by path.
      const auto file = files_->open(to, OpenMode::write);
      if (!file) return Result<void>();
      auto record = records_.find(**file, first);
      if (!record || !*record || (**record).record.path.empty()) return Result<void>();
      (**record).record.path.clear();
      const auto kept = records_.keep(**file, (**record).record);
      return kept ? (*file)->sync() : Result<void>(kept.error());
    });
    if (!moved) co_return moved;
    entry = index_.file(first);
    CHECK(entry != nullptr, "a file went while its name was held");
    index_.move(*entry, to);
    forget_open(first);
  } else {
    const size_t slash = path.rfind('/');
    to = fmt::format("{}/{}-{}", kDisplaced, system_random().uuid().to_string(),
                     path.substr(slash == std::string::npos ? 0 : slash + 1, 200));
    auto files = files_;
    CO_TRY(co_await blocking(*pool_, [files, path, to]() -> Result<void> {
      TRY(ensure_directory(*files, kDisplaced));
      return files->rename(path, to);
    }));
    LOG_WARNING("a file that Quarry does not know lay where an object had to go; it was moved aside", {"path", full(path)},
                {"to", full(to)});
  }
  co_return co_await directory_sync_->sync_moved(parent_of(path), parent_of(to));
}

// took_from: the file whose name it took, if there is one.
Task<Result<void>> DirStoreImpl::place_file(ChunkId first, std::optional<ChunkId>* took_from) {
  FileEntry* entry = index_.file(first);
  if (entry == nullptr) co_return fail(Code::not_found, "no file {}", first.to_string());
  if (entry->unfinished) co_return fail(Code::precondition_failed, "file {} is not finished", first.to_string());
  if (entry->state == FileState::shown) co_return Result<void>{};
  if (const auto leaving = entry->leaving) {  // else two of its names could be on their way out
    CO_TRY(co_await directory_sync_->sync_taken(*leaving));
    forget_leaving(first, leaving);
    entry = index_.file(first);
    CHECK(entry != nullptr, "a file went while its name was held");
  }
  const BucketAndKey key = entry->key();
  FileEntry* older = index_.shown_as(key.bucket, key.key);
  if (older != nullptr) {
    CO_TRY_ASSIGN(const Lies lies, co_await look_at(*older));
    older = index_.shown_as(key.bucket, key.key);
    if (older != nullptr && lies == Lies::others) {  // it is moved aside like any file that is in the way
      const ChunkId gone = older->first;
      index_.hide(*older, place_of(kHidden, gone));
      forget_open(gone);
      older = nullptr;
    }
  }
  const ChunkId older_first = older != nullptr ? older->first : ChunkId{};
  std::string target;
  std::string aside;
  if (older != nullptr) {
    target = older->path;
    aside = place_of(kHidden, older_first);
    CO_TRY(co_await ensure_shelf(kHidden, older_first));
  } else {
    auto place = co_await find_place(key, 0);
    if (!place) co_return std::move(place).error();
    target = std::move(*place);
  }
  const std::string from = place_of(kHidden, first);
  const bool odd_path = older != nullptr && older->name != nullptr;
  auto renamed = co_await blocking(*pool_, [this, from, target, aside, first, odd_path]() -> Result<void> {
    if (odd_path) {  // an adopted file's path is not the key's: a record in a side file must say it
      TRY_ASSIGN(const auto file, files_->open(from, OpenMode::write));
      TRY_ASSIGN(auto record, records_.find(*file, first));
      if (!record) return fail(Code::corrupt, "{} has lost its record", full(from));
      record->record.path = target;
      TRY(records_.keep(*file, record->record));
      TRY(file->sync());
    }
    bool second_name = false;
    if (!aside.empty()) {
      auto linked = files_->link(target, aside);
      if (!linked && linked.error().code() == Code::already_exists) {  // of an attempt that was cut short
        TRY(files_->remove(aside));
        linked = files_->link(target, aside);
      }
      second_name = linked.has_value();
      // Somebody removed the older file, or the file system has no hard links.
      if (!linked && linked.error().code() != Code::not_found) linked = files_->rename(target, aside);
      if (!linked && linked.error().code() != Code::not_found) return linked;
      // Durable before it loses its other name: nothing orders the two directories.
      if (linked) TRY(files_->sync_directory(parent_of(aside)));
    }
    auto moved = files_->rename(from, target);
    if (!moved && second_name) files_->remove(aside).ignore("remove_file and open remove it");
    return moved;
  });
  if (!renamed && renamed.error().code() == Code::not_found && older != nullptr) {
    // The directory of the older one is gone: find a place anew.
    auto place = co_await find_place(key, 0);
    if (!place) co_return std::move(place).error();
    target = std::move(*place);
    auto files = files_;
    renamed = co_await blocking(*pool_, [files, from, target] { return files->rename(from, target); });
  }
  if (!renamed) co_return renamed;
  older = older_first == ChunkId{} ? nullptr : index_.file(older_first);
  if (older != nullptr) {
    index_.hide(*older, aside);
    forget_open(older_first);
    *took_from = older_first;
  }
  entry = index_.file(first);
  CHECK(entry != nullptr, "a file went while its name was held");
  index_.show(*entry, target, key);
  co_return Result<void>{};
}

Task<Result<void>> DirStoreImpl::update_attributes(ChunkId first, std::vector<std::pair<std::string, std::string>> attributes) {
  FileEntry* entry = index_.file(first);
  if (entry == nullptr) co_return fail(Code::not_found, "no file {}", first.to_string());
  const std::string path = entry->path;
  auto kept = co_await blocking(*pool_, [this, path, first, attributes = std::move(attributes)]() -> Result<RecordPlace> {
    TRY_ASSIGN(const auto file, files_->open(path, OpenMode::write));
    TRY_ASSIGN(auto record, records_.find(*file, first));
    if (!record || record->record.first != first) return fail(Code::corrupt, "{} has lost its record", full(path));
    Attributes wanted = attributes;
    for (const auto& one : record->record.attributes) {
      if (one.first.starts_with("quarry-")) wanted.push_back(one);  // what the store itself notes of the file stays
    }
    if (record->record.attributes == wanted) return record->place;
    record->record.attributes = std::move(wanted);
    TRY_ASSIGN(const RecordPlace place, records_.keep(*file, record->record));
    TRY(file->sync());
    return place;
  });
  if (!kept) co_return std::move(kept).error();
  entry = index_.file(first);
  if (entry != nullptr) entry->record_in_side_file = *kept == RecordPlace::side_file;
  co_return Result<void>{};
}

Task<Result<void>> DirStoreImpl::show_file(ChunkId first, std::vector<std::pair<std::string, std::string>> attributes) {
  CO_TRY(writable());
  Use use(*this);
  if (index_.file(first) == nullptr) co_return fail(Code::not_found, "no file {}", first.to_string());
  co_await naming_.acquire();
  std::optional<ChunkId> older;
  auto result = co_await place_file(first, &older);
  // What one file's name comes to, another's may leave. And should both leave it and the directory go, before this comes to its sync, there
  // is nothing to make durable but that.
  std::shared_ptr<DirectorySync::Taken> name;
  if (result) name = std::make_shared<DirectorySync::Taken>(*directory_sync_, parent_of(index_.file(first)->path));
  if (FileEntry* entry = older ? index_.file(*older) : nullptr; entry != nullptr) entry->leaving = name;
  if (result && !attributes.empty()) result = co_await update_attributes(first, std::move(attributes));
  naming_.release();
  // Also of a file that was shown before: whoever showed it may not have come to its sync yet.
  if (result) result = co_await directory_sync_->sync_taken(*name);
  if (result && older) forget_leaving(*older, name);
  if (!result) {
    Error error = co_await noted(std::move(result).error(), true);
    co_return error;
  }
  co_return result;
}

void DirStoreImpl::forget_leaving(ChunkId first, const std::shared_ptr<DirectorySync::Taken>& leaving) {
  FileEntry* entry = index_.file(first);
  if (entry != nullptr && entry->leaving == leaving) entry->leaving = nullptr;
}

Task<Result<void>> DirStoreImpl::hide_file(ChunkId first) {
  CO_TRY(writable());
  Use use(*this);
  auto result = co_await ensure_shelf(kHidden, first);
  co_await naming_.acquire();
  FileEntry* entry = index_.file(first);
  const bool there = entry != nullptr && !entry->unfinished;
  const std::string shelf = fmt::format("{}/{}", kHidden, shelf_of(first));
  // Of a file that is hidden already: whoever did it may not have come to its sync yet.
  std::shared_ptr<DirectorySync::Taken> leaving = there ? entry->leaving : nullptr;
  if (result && there && entry->state == FileState::shown) {
    const std::string from = entry->path;
    leaving = std::make_shared<DirectorySync::Taken>(*directory_sync_, parent_of(from));
    const std::string to = place_of(kHidden, first);
    const Expected expected = entry->expected();
    std::vector<std::string> removed;
    result = co_await blocking(*pool_, [this, from, to, expected, &removed]() -> Result<void> {
      TRY_ASSIGN(const Lies lies, records_.look(from, expected));
      if (lies != Lies::ours) return {};  // what is there now is not this file
      TRY(files_->rename(from, to));
      removed = remove_empty_parents(*files_, from);
      return {};
    });
    note_removed_directories(removed);
    entry = index_.file(first);
    if (result && entry != nullptr) {
      index_.hide(*entry, to);
      entry->leaving = leaving;
      forget_open(first);
    }
  }
  naming_.release();
  if (result && there) result = co_await directory_sync_->sync(shelf);
  if (result && leaving) result = co_await directory_sync_->sync_taken(*leaving);
  if (result && leaving) forget_leaving(first, leaving);
  if (!result) {
    Error error = co_await noted(std::move(result).error(), true);
    co_return error;
  }
  co_return result;
}

}  // namespace quarry::chunk::dir
