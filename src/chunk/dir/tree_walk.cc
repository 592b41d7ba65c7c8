#include "chunk/dir/tree_walk.h"

#include <latch>
#include <unordered_set>

#include "chunk/dir/escape.h"

namespace quarry::chunk::dir {
namespace {

constexpr size_t kBatch = 512;  // names of one work item

enum class Zone : uint8_t { tree, hidden, chunks, records, absent };

struct WorkItem {
  Zone zone = Zone::tree;
  std::string directory;
  std::vector<std::string> names;  // empty: list the directory
};

std::string join(const std::string& directory, const std::string& name) { return directory.empty() ? name : directory + "/" + name; }

// In the root of ext file systems, for fsck, and for the superuser alone: nobody's objects.
constexpr const char* kLostAndFound = "lost+found";
constexpr const char* kAnotherFileSystem = "another file system is mounted there";

// Why a directory of the readable tree is not of this mountpath. Empty: it is.
std::string why_not_enter(FileSystem& files, const std::string& directory, const std::vector<DirectoryEntry>& entries,
                          const FileInfo& root) {
  const auto info = files.info(directory);
  if (info && !same_file_system(*info, root))
    return fmt::format("{}: nothing of this mountpath can lie there; attach it as a mountpath of its own, or unmount it",
                       kAnotherFileSystem);
  const bool has_own = std::ranges::any_of(entries, [](const auto& e) { return e.kind == FileKind::directory && e.name == kOwn; });
  if (has_own && files.info(join(directory, kDescriptorFile))) return "a mountpath of its own";
  return {};
}

class Walker {
 public:
  Walker(FileSystem& files, Records& records, const FileInfo& root) : files_(files), records_(records), root_(root) {}

  void add(WorkItem item) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(item));
    wake_.notify_one();
  }

  // Works until nothing is left and nobody works any more.
  void work() {
    TreeWalkResult found;
    for (;;) {
      WorkItem item;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return !queue_.empty() || working_ == 0; });
        if (queue_.empty()) break;
        item = std::move(queue_.back());  // the newest: depth first keeps the queue short
        queue_.pop_back();
        ++working_;
      }
      if (item.names.empty()) {
        list(item, found);
      } else {
        for (const auto& name : item.names) look(item, name, found);
      }
      const std::lock_guard lock(mutex_);
      if (--working_ == 0 && queue_.empty()) wake_.notify_all();
    }
    const std::lock_guard lock(mutex_);
    found_.append(std::move(found));
  }

  void run(ThreadPool& pool, size_t helpers) {
    std::latch done(static_cast<ptrdiff_t>(helpers));
    for (size_t i = 0; i < helpers; ++i) {
      pool.submit([this, &done] {
        work();
        done.count_down();
      });
    }
    work();
    done.wait();
  }

  TreeWalkResult take() { return std::move(found_); }
  void set_claimed(std::unordered_set<std::string> claimed) { claimed_ = std::move(claimed); }
  std::optional<Error> error() {
    const std::lock_guard lock(mutex_);
    return error_;
  }

 private:
  void list(const WorkItem& item, TreeWalkResult& found) {
    auto listed = files_.list(item.directory);
    if (!listed) {
      if (listed.error().code() == Code::not_found) return;  // not made yet, or just removed
      if (item.zone == Zone::tree && listed.error().code() == Code::permission_denied) {
        found.damage.push_back(fmt::format("{} cannot be read: {}", item.directory, listed.error().to_string()));
        return;
      }
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = listed.error();
      return;
    }
    if (item.zone == Zone::tree && !item.directory.empty()) {
      if (std::string why = why_not_enter(files_, item.directory, *listed, root_); !why.empty()) {
        found.not_entered.push_back(fmt::format("{}: {}", item.directory, why));
        return;
      }
    }
    WorkItem batch{item.zone, item.directory, {}};
    const bool shelves = item.zone != Zone::tree && std::count(item.directory.begin(), item.directory.end(), '/') == 1;
    for (auto& entry : *listed) {
      if (entry.kind == FileKind::directory) {
        if (item.directory.empty() && (entry.name == kOwn || entry.name == kLostAndFound)) continue;
        if (item.zone != Zone::tree && !shelves) {
          found.strange.push_back(join(item.directory, entry.name));
          continue;
        }
        if (item.zone != Zone::tree) found.shelves.push_back(join(item.directory, entry.name));
        add({item.zone, join(item.directory, entry.name), {}});
        continue;
      }
      if (shelves) {
        found.strange.push_back(join(item.directory, entry.name));
        continue;
      }
      if (entry.kind != FileKind::file) {
        if (item.zone == Zone::tree) ++found.foreign_files;
        continue;
      }
      batch.names.push_back(std::move(entry.name));
      if (batch.names.size() == kBatch) {
        add(batch);
        batch.names.clear();
      }
    }
    for (const auto& name : batch.names) look(batch, name, found);
  }

  void look(const WorkItem& item, const std::string& name, TreeWalkResult& found) {
    const std::string path = join(item.directory, name);
    if (item.zone == Zone::tree) return look_at_tree(path, found);
    const auto id = ChunkId::parse(name);
    if (!id || item.directory.substr(item.directory.size() - 2) != shelf_of(*id) || id->to_string() != name) {
      found.strange.push_back(path);
      return;
    }
    switch (item.zone) {
      case Zone::chunks: {
        const auto info = files_.info(path);
        if (!info) return problem(info.error(), path, found);
        const auto size = payload_of_file_size(info->size);
        if (!size) {
          found.damage.push_back(fmt::format("{} has {} bytes: no chunk has", path, info->size));
          return;
        }
        found.chunks.push_back({*id, *size});
        return;
      }
      case Zone::records: {
        auto record = records_.from_side_file(*id);
        if (!record) return problem(record.error(), path, found);
        found.side_records.push_back(describe(*record, std::string(), true));
        return;
      }
      case Zone::absent: {
        const auto content = read_whole(files_, path, kRecordBytesMax);
        if (!content) return problem(content.error(), path, found);
        auto decoded = decode_absent(bytes_of(*content));
        if (!decoded || decoded->first != *id) {
          found.damage.push_back(fmt::format("{}: which chunks of the file were removed cannot be read", path));
          return;
        }
        found.absent.push_back(std::move(*decoded));
        return;
      }
      default: return look_at_hidden(path, *id, found);
    }
  }

  void look_at_hidden(const std::string& path, ChunkId id, TreeWalkResult& found) {
    const auto file = files_.open(path, OpenMode::read);
    if (!file) return problem(file.error(), path, found);
    const auto info = (*file)->info();
    if (!info) return problem(info.error(), path, found);
    auto record = records_.find(**file, id);
    if (!record) return problem(record.error(), path, found);
    if (!*record || (**record).record.first != id) {
      found.damage.push_back(fmt::format("{} has no record of its own", path));
      return;
    }
    WalkedFile walked = describe((**record).record, path, (**record).place == RecordPlace::side_file);
    walked.hidden = true;
    walked.inode = info->inode;
    found.files.push_back(std::move(walked));
  }

  void look_at_tree(const std::string& path, TreeWalkResult& found) {
    const auto file = files_.open(path, OpenMode::read);
    if (!file) return problem(file.error(), path, found);
    auto said = records_.from_attribute(**file);
    if (!said) return problem(said.error(), path, found);
    if (!*said && !claimed_.contains(path)) {
      ++found.foreign_files;
      return;
    }
    const auto info = (*file)->info();
    if (!info) return problem(info.error(), path, found);
    if (!*said) {
      found.unsaid.push_back({path, *info});
      return;
    }
    WalkedFile walked;
    if ((**said).is_pointer) {
      auto record = records_.from_side_file((**said).record.first);
      if (!record) return problem(record.error(), path, found);
      walked = describe(*record, path, true);
    } else {
      walked = describe((**said).record, path, false);
    }
    walked.inode = info->inode;
    found.files.push_back(std::move(walked));
  }

  static WalkedFile describe(const FileRecord& record, std::string path, bool in_side_file) {
    WalkedFile walked;
    walked.path = std::move(path);
    walked.first = record.first;
    walked.size = record.size;
    walked.stride = record.stride;
    walked.chunk_size = record.chunk_size;
    walked.modified_ns = record.modified_ns;
    walked.in_side_file = in_side_file;
    const auto said = parse_path(walked.path);
    if (!said || said->bucket != record.directory || said->key != record.name) {
      walked.directory = record.directory;
      walked.name = record.name;
    }
    walked.recorded_path = record.path;
    return walked;
  }

  void problem(const Error& error, const std::string& path, TreeWalkResult& found) {
    if (error.code() == Code::not_found) return;  // just removed
    found.damage.push_back(fmt::format("{}: {}", path, error.to_string()));
  }

  FileSystem& files_;
  Records& records_;
  const FileInfo root_;
  std::unordered_set<std::string> claimed_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<WorkItem> queue_;
  size_t working_ = 0;
  std::optional<Error> error_;
  TreeWalkResult found_;
};

template <class T>
void move_to(std::vector<T>& to, std::vector<T>& from) {
  if (to.empty()) {
    to = std::move(from);
  } else {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  }
}

}  // namespace

void TreeWalkResult::append(TreeWalkResult&& other) {
  move_to(files, other.files);
  move_to(unsaid, other.unsaid);
  move_to(chunks, other.chunks);
  move_to(side_records, other.side_records);
  move_to(absent, other.absent);
  move_to(strange, other.strange);
  move_to(shelves, other.shelves);
  move_to(damage, other.damage);
  move_to(not_entered, other.not_entered);
  foreign_files += other.foreign_files;
}

Result<TreeWalkResult> walk_tree(FileSystem& files, Records& records, ThreadPool& pool, size_t helpers) {
  TRY_ASSIGN(const FileInfo root, files.info(""));
  Walker side(files, records, root);
  side.add({Zone::records, kRecords, {}});
  side.run(pool, helpers);
  if (auto error = side.error()) return *error;
  TreeWalkResult result = side.take();
  std::unordered_set<std::string> claimed;
  for (const auto& record : result.side_records) {
    if (!record.recorded_path.empty()) claimed.insert(record.recorded_path);
    for (const PathForm form : {PathForm::plain, PathForm::yielding}) {
      if (auto path = path_of_key(record.directory, record.name, form)) claimed.insert(std::move(*path));
    }
  }
  Walker rest(files, records, root);
  rest.set_claimed(std::move(claimed));
  rest.add({Zone::tree, "", {}});
  rest.add({Zone::absent, kAbsent, {}});
  rest.add({Zone::chunks, kChunks, {}});
  rest.add({Zone::hidden, kHidden, {}});
  rest.run(pool, helpers);
  if (auto error = rest.error()) return *error;
  result.append(rest.take());
  return result;
}

namespace {

Result<bool> visit_directory(FileSystem& files, const std::string& under, const std::string& after, const FileInfo& root,
                             const VisitFile& visit) {
  auto listed = files.list(under);
  if (!listed && listed.error().code() == Code::permission_denied && !under.empty())
    return under <= after || visit(under, "a directory that the user who runs quarry may not read");
  if (!listed) return std::move(listed).error();
  auto& entries = *listed;
  if (!under.empty()) {
    if (const std::string why = why_not_enter(files, under, entries, root); !why.empty()) return under <= after || visit(under, why);
  }
  // A directory sorts as its name with a slash, so that whole paths come in order.
  const auto key = [](const DirectoryEntry& entry) { return entry.kind == FileKind::directory ? entry.name + "/" : entry.name; };
  std::sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  for (const auto& entry : entries) {
    const std::string path = join(under, entry.name);
    bool go_on = true;
    if (entry.kind == FileKind::directory) {
      if (under.empty() && (entry.name == kOwn || entry.name == kLostAndFound)) continue;
      if (path + "/" < after && !after.starts_with(path + "/")) continue;  // all of it comes before
      TRY_ASSIGN(go_on, visit_directory(files, path, after, root, visit));
    } else if (path > after) {
      go_on = visit(path, entry.kind == FileKind::file ? "" : "a symbolic link or special file");
    }
    if (!go_on) return false;
  }
  return true;
}

}  // namespace

Result<void> check_one_file_system(FileSystem& files, const std::string& path) {
  TRY_ASSIGN(const FileInfo root, files.info(""));
  for (size_t slash = path.find('/');; slash = path.find('/', slash + 1)) {
    const std::string above = path.substr(0, slash);
    TRY_ASSIGN(const FileInfo info, files.info(above));
    if (info.kind != FileKind::directory) return {};  // of the file system of the directory that it lies in
    if (!same_file_system(info, root)) {
      return fail(Code::invalid_argument, "{}/{}: {}, inside the mountpath {}: attach it as a mountpath of its own", files.root(), above,
                  kAnotherFileSystem, files.root());
    }
    if (slash == std::string::npos) return {};
  }
}

Result<bool> visit_tree(FileSystem& files, const std::string& under, const std::string& after, const VisitFile& visit) {
  TRY(check_one_file_system(files, under));
  TRY_ASSIGN(const FileInfo root, files.info(""));
  return visit_directory(files, under, after, root, visit);
}

}  // namespace quarry::chunk::dir
