// Format, identify, open: what a mountpath says about itself, and what open makes of what a crash left.
//
//   found at open                                      means                                      done
//   .quarry/unfinished/*                               a write that was not acknowledged          removed
//   a record's side file, its file nowhere             removed, or never finished                 removed
//   one file under hidden/ and in the readable tree    showing it was cut short (two names)       it is shown; the hidden name goes
//   a list of removed chunks, its file nowhere         removed                                    removed
//   a record in the tree at a path not its own         somebody moved it                          served from there, told
//   the same record twice in the tree                  somebody copied it                         the one in its place is ours, the other
//   foreign
#include "base/log.h"
#include "chunk/dir/dir_store_impl.h"
#include "chunk/dir/tree_walk.h"
#include "chunk/fencing.h"

namespace quarry::chunk {

using namespace dir;

namespace {

constexpr uint64_t kSmallFileMax = 128 * kKiB;  // descriptor and label

Result<Descriptor> read_descriptor(FileSystem& files) {
  auto content = read_whole(files, kDescriptorFile, kSmallFileMax);
  if (!content && content.error().code() == Code::not_found) return fail(Code::not_found, "{} is not a mountpath of Quarry", files.root());
  if (!content) return std::move(content).error();
  auto descriptor = decode_descriptor(bytes_of(*content));
  if (!descriptor) return std::move(descriptor).error().with(files.root());
  return descriptor;
}

Result<std::string> read_label(FileSystem& files) {
  auto content = read_whole(files, kLabelFile, kSmallFileMax);
  if (!content && content.error().code() == Code::not_found) return std::string();
  if (!content) return std::move(content).error();
  auto label = decode_label(bytes_of(*content));
  if (!label) return std::move(label).error().with(files.root());
  return label;
}

Result<Uuid> make_mountpath(const std::string& path, DirFormatOptions options) {
  std::string above = path;
  while (above.size() > 1 && above.ends_with('/')) above.pop_back();
  auto files = posix_file_system(path);
  if (!files && files.error().code() == Code::not_found) {
    auto parent = posix_file_system(parent_of(above).empty() ? (above.starts_with('/') ? "/" : ".") : parent_of(above));
    if (!parent) return std::move(parent).error();
    const std::string name = above.substr(above.rfind('/') + 1);
    TRY((*parent)->make_directory(name));
    TRY((*parent)->sync_directory(""));
    files = posix_file_system(path);
  }
  if (!files) return std::move(files).error();
  // A mountpath in a mountpath: each would take the other's files for its own.
  std::string real = path;
  if (char* resolved = ::realpath(path.c_str(), nullptr)) {
    real = resolved;
    ::free(resolved);
  }
  for (std::string outer = parent_of(real); !outer.empty(); outer = parent_of(outer)) {
    const auto outer_files = posix_file_system(outer);
    if (!outer_files || !(*outer_files)->info(kDescriptorFile)) continue;
    // A file system of its own that is mounted there is none of the outer one's.
    TRY_ASSIGN(const FileInfo of_outer, (*outer_files)->info(""));
    TRY_ASSIGN(const FileInfo of_inner, (*files)->info(""));
    if (same_file_system(of_outer, of_inner)) return fail(Code::invalid_argument, "{} lies inside the mountpath {}", path, outer);
  }
  return format_mountpath(**files, std::move(options));
}

}  // namespace

namespace dir {
namespace {

// Two keys must never meet in one name. Errors: invalid_argument (they would on this file system).
Result<void> check_names_are_exact(FileSystem& files) {
  struct Pair {
    const char *made, *other, *what;
  };
  constexpr Pair kPairs[] = {{"names-Quarry", "names-qUARRY", "takes upper and lower case for the same"},
                             {"names-\xc3\xa9", "names-e\xcc\x81", "takes different forms of a letter with an accent for the same"}};
  for (const Pair& pair : kPairs) {
    const std::string made = fmt::format("{}/{}", kUnfinished, pair.made);
    auto file = files.open(made, OpenMode::create);
    if (!file && file.error().code() != Code::already_exists) return std::move(file).error();
    const auto met = files.info(fmt::format("{}/{}", kUnfinished, pair.other));
    TRY(files.remove(made));
    if (met) {
      return fail(Code::invalid_argument,
                  "{}: its file system {} in names: objects would take each other's place; use a directory of another file system "
                  "(one without case folding), or kfs:",
                  files.root(), pair.what);
    }
  }
  return {};
}

}  // namespace

namespace {

// Empties a directory, and the directories in it.
Result<void> remove_below(FileSystem& files, const std::string& directory) {
  const auto entries = files.list(directory);
  if (!entries && entries.error().code() == Code::not_found) return {};
  if (!entries) return entries.error();
  for (const auto& entry : *entries) {
    const std::string path = directory + "/" + entry.name;
    if (entry.kind != FileKind::directory) {
      TRY(files.remove(path));
      continue;
    }
    TRY(remove_below(files, path));
    TRY(files.remove_directory(path));
  }
  return {};
}

// A mountpath becomes none: the descriptor goes first. What lies under displaced/ was somebody else's and stays.
Result<void> unmake_mountpath(FileSystem& files) {
  if (!files.info(kOwn)) return {};
  TRY_ASSIGN(const auto lock, files.lock(kLockFile));
  for (const char* file : {kDescriptorFile, kLabelFile, kCleanFile}) {
    const auto removed = files.remove(file);
    if (!removed && removed.error().code() != Code::not_found) return removed.error();
    TRY(files.sync_directory(kOwn));
  }
  for (const char* directory : {kUnfinished, kChunks, kHidden, kRecords, kAbsent}) TRY(remove_below(files, directory));
  return {};
}

Result<bool> any_file_below(FileSystem& files, const std::string& directory) {
  const auto entries = files.list(directory);
  if (!entries && entries.error().code() == Code::not_found) return false;
  if (!entries) return entries.error();
  for (const auto& entry : *entries) {
    if (entry.kind != FileKind::directory) return true;
    TRY_ASSIGN(const bool inside, any_file_below(files, directory + "/" + entry.name));
    if (inside) return true;
  }
  return false;
}

}  // namespace

Result<Uuid> format_mountpath(FileSystem& files, DirFormatOptions options) {
  if (options.force) TRY(unmake_mountpath(files));
  const auto existing = read_descriptor(files);
  if (existing) return fail(Code::already_exists, "{} is a mountpath already (drive {})", files.root(), existing->drive.to_string());
  if (existing.error().code() != Code::not_found)
    return fail(Code::already_exists, "{} holds a mountpath that cannot be read: {}", files.root(), existing.error().to_string());
  Descriptor descriptor;
  descriptor.drive = options.drive.is_nil() ? system_random().uuid() : options.drive;
  descriptor.cluster = options.cluster;
  TRY(ensure_directory(files, kOwn));
  for (const char* directory : {kUnfinished, kChunks, kHidden, kRecords, kAbsent}) {
    const auto made = files.make_directory(directory);
    if (!made && made.error().code() != Code::already_exists) return made.error();
  }
  TRY(files.sync_directory(kOwn));
  TRY(check_names_are_exact(files));
  TRY(replace_whole(files, kLabelFile, fmt::format("{}/label", kUnfinished), encode_label(options.label)));
  // Last: without it there is no mountpath.
  TRY(replace_whole(files, kDescriptorFile, fmt::format("{}/descriptor", kUnfinished), encode_descriptor(descriptor)));
  return descriptor.drive;
}

}  // namespace dir

Task<Result<Uuid>> DirStore::format(std::string path, DirFormatOptions options) {
  ThreadPool pool("dir-format", 1);
  auto made = co_await blocking(pool, [&] { return make_mountpath(path, options); });
  co_return made;
}

Result<DirStore::Identity> DirStore::identify(const std::string& path) {
  TRY_ASSIGN(const auto files, posix_file_system(path));
  TRY_ASSIGN(const Descriptor descriptor, read_descriptor(*files));
  TRY_ASSIGN(std::string label, read_label(*files));
  return Identity{descriptor.drive, descriptor.cluster, descriptor.version, descriptor.fencing_epoch, files->info(kCleanFile).has_value(),
                  std::move(label)};
}

Result<std::string> DirStore::remains(const std::string& path) {
  const auto files = posix_file_system(path);
  if (!files && files.error().code() == Code::not_found) return std::string();
  if (!files) return files.error();
  for (const char* directory : {kChunks, kHidden, kRecords, kAbsent}) {
    TRY_ASSIGN(const bool any, any_file_below(**files, directory));
    if (any) return fmt::format("what a drive kept in {} is there, and its descriptor is not", directory);
  }
  return std::string();
}

Task<Result<std::unique_ptr<DirStore>>> DirStore::open(std::string path, DirStoreOptions options) {
  if (!options.file_system) {
    auto files = co_await blocking_apart([path] { return posix_file_system(path); });  // the file system may hang
    if (!files) co_return std::move(files).error();
    options.file_system = std::move(*files);
  }
  auto files = options.file_system;
  auto store = std::make_unique<DirStoreImpl>(std::move(files), std::move(options));
  auto mounted = co_await store->mount();
  if (mounted) co_return std::unique_ptr<DirStore>(std::move(store));
  Error error = std::move(mounted).error();
  auto closed = co_await store->close();
  std::move(closed).ignore("it never opened; the first error is the one to tell");
  co_return error;
}

namespace dir {

Task<Result<void>> DirStoreImpl::mount() {
  TreeWalkResult walked;
  uint64_t unfinished_removed = 0;
  bool read_only = false;
  auto read = co_await blocking(*pool_, [&]() -> Result<void> {
    TRY_ASSIGN(descriptor_, read_descriptor(*files_));
    if (options_.cluster && !descriptor_.cluster.is_nil() && descriptor_.cluster != *options_.cluster) {
      return fail(Code::wrong_owner, "{}: drive {} belongs to cluster {}, not to {}", files_->root(), descriptor_.drive.to_string(),
                  descriptor_.cluster.to_string(), options_.cluster->to_string());
    }
    records_.set_drive(descriptor_.drive);
    TRY_ASSIGN(lock_, files_->lock(kLockFile));
    TRY_ASSIGN(label_, read_label(*files_));
    report_.clean = files_->info(kCleanFile).has_value();
    const auto dirty = report_.clean ? files_->remove(kCleanFile) : Result<void>();
    read_only = !dirty && (dirty.error().code() == Code::read_only || dirty.error().code() == Code::permission_denied);
    TRY_ASSIGN(const auto leftovers, files_->list(kUnfinished));
    for (const auto& entry : leftovers) {
      const auto removed = files_->remove(fmt::format("{}/{}", kUnfinished, entry.name));
      if (removed) ++unfinished_removed;
      if (!removed) read_only |= removed.error().code() == Code::read_only || removed.error().code() == Code::permission_denied;
    }
    refresh_space();
    const auto space = files_->space();
    read_only |= space && space->read_only;
    if (read_only) return {};
    Descriptor mine = descriptor_;
    mine.fencing_epoch = next_fencing_epoch(mine.fencing_epoch, system_random().u64());
    auto raised = replace_whole(*files_, kDescriptorFile, fmt::format("{}/descriptor", kUnfinished), encode_descriptor(mine));
    const Code refused = raised ? Code{} : raised.error().code();
    if (raised) descriptor_ = mine;
    read_only = refused == Code::read_only || refused == Code::permission_denied;
    if (!raised && !read_only && refused != Code::no_space) return raised;  // a full one still serves reads and removals
    return {};
  });
  if (!read) co_return read;
  report_.unfinished_removed = unfinished_removed;
  const TimePoint begin = Executor::here().now();
  auto found = co_await blocking(*pool_, [this] { return walk_tree(*files_, records_, *pool_, options_.threads - 1); });
  if (!found) co_return std::move(found).error();
  report_.walk = Executor::here().now() - begin;
  if (read_only) become(StoreState::read_only, "the file system takes no changes: is it mounted read-only, or owned by somebody else?");
  for (const auto& line : found->not_entered) LOG_WARNING("a directory inside a mountpath is not its own", {"path", full(line)});
  // Nobody else has the store yet, and many files take long.
  const std::vector<std::string> superfluous = co_await blocking(*pool_, [&] { return take_in(std::move(*found)); });
  if (!read_only && !superfluous.empty()) {
    auto files = files_;
    CO_TRY(co_await blocking(*pool_, [files, superfluous]() -> Result<void> {
      std::set<std::string> parents;
      for (const auto& path : superfluous) {
        files->remove(path).ignore("tried again at the next open");
        parents.insert(parent_of(path));
      }
      // A second name that came back after a crash would bring back a file that was removed meanwhile.
      for (const auto& path : parents) {
        TRY(files->sync_directory(path));
      }
      return {};
    }));
  }
  co_return Result<void>{};
}

// Fills the index; returns what is to be removed.
std::vector<std::string> DirStoreImpl::take_in(TreeWalkResult walked) {
  std::vector<std::string> superfluous;
  const bool read_all = walked.damage.empty();  // else a file that was not found may be there all the same
  report_.damage = std::move(walked.damage);
  report_.foreign_files = walked.foreign_files;
  for (auto& shelf : walked.shelves) shelves_.insert(std::move(shelf));
  for (const auto& path : walked.strange) report_.damage.push_back(path + " does not belong there; it was left alone");
  for (const auto& chunk : walked.chunks) {
    index_.add_chunk(chunk.id, chunk.size);
    count(1, chunk.size, static_cast<int64_t>(stored_bytes(chunk_header_bytes(chunk.size) + chunk.size)));
  }
  const auto own_path = [](const WalkedFile& file) {
    return file.hidden || file.path == file.recorded_path || (file.recorded_path.empty() && file.directory.empty());
  };
  // Files that lie where their record says come first, so that copies and moved ones find them.
  std::sort(walked.files.begin(), walked.files.end(), [&](const WalkedFile& a, const WalkedFile& b) {
    return a.first != b.first ? a.first < b.first : std::pair(!a.hidden, !own_path(a)) < std::pair(!b.hidden, !own_path(b));
  });
  const auto add = [&](WalkedFile& file) {
    auto entry = std::make_unique<FileEntry>();
    entry->first = file.first;
    entry->size = file.size;
    entry->stride = file.stride;
    entry->chunk_size = file.chunk_size;
    entry->modified_ns = file.modified_ns;
    entry->inode = file.inode;
    entry->record_in_side_file = file.in_side_file;
    BucketAndKey key{std::move(file.directory), std::move(file.name)};
    if (key.bucket.empty()) {
      if (auto said = parse_path(file.path)) key = std::move(*said);
    }
    FileEntry& added = index_.add(std::move(entry));
    if (file.hidden) {
      added.state = FileState::hidden;
      added.path = std::move(file.path);
      added.name = std::make_unique<BucketAndKey>(std::move(key));
    } else {
      index_.show(added, std::move(file.path), key);
    }
    report_.records_in_side_files += added.record_in_side_file;
  };
  for (size_t i = 0; i < walked.files.size(); ++i) {
    WalkedFile& file = walked.files[i];
    FileEntry* known = index_.file(file.first);
    if (known == nullptr) {
      const bool moved = !own_path(file);
      const std::string path = file.path;
      add(file);
      if (moved) report_.damage.push_back(path + " was moved there behind Quarry's back; it is served, but not where it should be");
      continue;
    }
    if (known->state == FileState::hidden && known->inode == file.inode) {  // one file, two names
      superfluous.push_back(known->path);
      const BucketAndKey key = *known->name;
      index_.show(*known, std::move(file.path), key);
      continue;
    }
    ++report_.foreign_files;
    report_.damage.push_back(fmt::format("{} is a copy of {} with its attributes; the copy was left alone", file.path, known->path));
  }
  // Records in side files whose files did not say so themselves.
  std::unordered_map<std::string, const UnsaidFile*> unsaid;
  for (const auto& file : walked.unsaid) unsaid[file.path] = &file;
  std::vector<WalkedFile*> candidates;
  for (auto& record : walked.side_records) candidates.push_back(&record);
  // Where two records mean one path, the file's size and time tell.
  const auto fits = [](const WalkedFile& record, const UnsaidFile& file) {
    return record.size == file.info.size && record.modified_ns == file.info.modified_ns;
  };
  const auto candidate_paths = [](const WalkedFile& record) {
    std::vector<std::string> paths;
    if (!record.recorded_path.empty()) paths.push_back(record.recorded_path);
    for (const PathForm form : {PathForm::plain, PathForm::yielding}) {
      if (auto path = path_of_key(record.directory, record.name, form)) paths.push_back(std::move(*path));
    }
    return paths;
  };
  for (const bool must_fit : {true, false}) {
    for (WalkedFile* record : candidates) {
      FileEntry* known = index_.file(record->first);
      for (const auto& path : candidate_paths(*record)) {
        const auto at = unsaid.find(path);
        if (at == unsaid.end()) continue;
        if (known != nullptr) {  // under hidden/: perhaps this is its other name
          if (known->state != FileState::hidden || known->inode != at->second->info.inode) continue;
          superfluous.push_back(known->path);
          const BucketAndKey key = *known->name;
          index_.show(*known, path, key);
          unsaid.erase(at);
          break;
        }
        if (must_fit && !fits(*record, *at->second)) continue;
        WalkedFile file = *record;
        file.path = path;
        file.inode = at->second->info.inode;
        unsaid.erase(at);
        add(file);
        break;
      }
    }
  }
  report_.foreign_files += unsaid.size();
  for (const WalkedFile* record : candidates) {
    if (index_.file(record->first) == nullptr && read_all) superfluous.push_back(place_of(kRecords, record->first));
  }
  for (auto& list : walked.absent) {
    FileEntry* entry = index_.file(list.first);
    if (entry == nullptr) {
      if (read_all) superfluous.push_back(place_of(kAbsent, list.first));
    } else if (list.absent.size() == entry->chunk_count()) {
      entry->absent = std::make_unique<std::vector<bool>>(std::move(list.absent));
    } else {
      report_.damage.push_back(
          fmt::format("{} lists {} chunks, the file has {}", place_of(kAbsent, list.first), list.absent.size(), entry->chunk_count()));
    }
  }
  for (const auto& [first, entry] : index_.files()) count_file(*entry, 1);
  report_.files = index_.files().size();
  report_.chunks = chunk_count_;
  return superfluous;
}

}  // namespace dir
}  // namespace quarry::chunk
