#include "meta/rocksdb/rocksdb_place.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "base/log.h"
#include "meta/rocksdb/checkpoint_files.h"
#include "meta/rocksdb/database.h"

namespace quarry::meta {
namespace {

namespace fs = std::filesystem;

constexpr char kDamagedName[] = "DAMAGED";

struct Paths {
  explicit Paths(const std::string& directory)
      : database(directory + "/db"),
        restoring(directory + "/restoring"),
        links(directory + "/checkpoint"),
        making_links(links + ".tmp"),  // RocksDB's
        set_aside(directory + "/set-aside"),
        damaged(directory + "/" + kDamagedName) {}
  std::string database, restoring, links, making_links, set_aside, damaged;
};

// no_space: another directory may have it.
Result<void> outcome(std::error_code error, std::string_view what) {
  if (!error) return {};
  const bool full = error.value() == ENOSPC || error.value() == EDQUOT;
  return fail(full ? Code::no_space : Code::misconfigured, "{}: {}", what, error.message());
}

Result<void> make_directory(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  return outcome(error, fmt::format("cannot make '{}'", path));
}

Result<void> remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return outcome(error, fmt::format("cannot remove '{}'", path));
}

Result<void> rename_tree(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::rename(from, to, error);
  return outcome(error, fmt::format("cannot rename '{}'", from));
}

// Leaves a note in the directory that the next open must not believe it. Blocks.
void mark_damaged(const std::string& directory, const std::string& what) {
  const Result<void> written = write_file_durably(directory + "/" + kDamagedName, what);
  LOG_ERROR("the metadata index is damaged; it is rebuilt from the drives at the next start", {"directory", directory}, {"what", what},
            {"noted", written.has_value()});
}

class RestoredDiskFile final : public RestoredFile {
 public:
  RestoredDiskFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  RestoredDiskFile(const RestoredDiskFile&) = delete;
  ~RestoredDiskFile() override { ::close(fd_); }
  Result<void> write(uint64_t offset, ByteView piece) override {
    size_t done = 0;
    while (done < piece.size()) {
      const ssize_t n = ::pwrite(fd_, piece.data() + done, piece.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno_error(errno, fmt::format("writing '{}'", path_));
      done += static_cast<size_t>(n);
    }
    return {};
  }
  Result<void> sync() override {
    if (::fsync(fd_) != 0) return errno_error(errno, fmt::format("syncing '{}'", path_));
    return {};
  }

 private:
  const std::string path_;
  const int fd_;
};

class RocksdbPlace final : public IndexPlace {
 public:
  // meant: where the index should be, if this is not it.
  RocksdbPlace(const RocksdbMetaOptions& options, std::string directory, std::string meant)
      : directory_(std::move(directory)),
        meant_(std::move(meant)),
        paths_(directory_),
        settings_{.path = paths_.database,
                  .links = paths_.links,
                  .pool = options.pool,
                  .block_cache_bytes = options.block_cache_bytes,
                  .memtable_bytes = options.memtable_bytes,
                  .table_file_bytes = options.table_file_bytes,
                  .open_files_max = options.open_files_max,
                  .background_jobs = options.background_jobs,
                  .blob_size_min = options.blob_size_min} {}
  RocksdbPlace(const RocksdbPlace&) = delete;
  ~RocksdbPlace() override {
    if (meant_.empty()) return;
    std::error_code ignored;  // the next start does it
    fs::remove_all(directory_, ignored);
  }

  std::string name() const override { return directory_; }
  std::string trouble() const override {
    if (meant_.empty()) return {};
    return fmt::format("there is no room for it in '{}': until a start that finds some it is in '{}'", meant_, directory_);
  }

  // The directory as it is: opens, and has an applied row.
  Result<Found> look(OnIndexDamage on_damage) override {
    TRY(make_directory(directory_));
    TRY(remove_tree(paths_.links));
    TRY(remove_tree(paths_.making_links));
    TRY(remove_tree(paths_.restoring));
    Found found;
    std::error_code error;
    if (fs::exists(paths_.damaged, error)) {
      found.reason = "it was found damaged: " + read_small_file(paths_.damaged, 64 << 10).value_or("unknown");
      return found;
    }
    if (!fs::exists(paths_.database + "/CURRENT", error)) {
      found.reason = "there is none";
      return found;
    }
    auto database = Database::open(settings(std::move(on_damage)), false);
    if (!database) {
      // A lock or a full disk is no reason to throw the directory away.
      const Code code = database.error().code();
      if (code == Code::busy || code == Code::no_space) return std::move(database).error();
      found.reason = "it does not open: " + database.error().to_string();
      return found;
    }
    auto applied = (*database)->applied();
    if (!applied || !*applied) {
      found.reason = !applied ? "it cannot be read: " + applied.error().to_string() : "it is empty";
      return found;
    }
    found.applied = **applied;
    found.index = std::move(*database);
    return found;
  }

  Result<void> discard(bool keep_aside) override {
    std::error_code error;
    if (keep_aside && fs::exists(paths_.database, error)) {
      TRY(remove_tree(paths_.set_aside));
      TRY(rename_tree(paths_.database, paths_.set_aside));
    }
    TRY(remove_tree(paths_.database));
    fs::remove(paths_.damaged, error);
    TRY(sync_directory(directory_));
    return {};
  }

  Result<void> begin_restore() override { return make_directory(paths_.restoring); }
  Result<std::shared_ptr<RestoredFile>> restore_file(const std::string& name) override {
    std::string path = paths_.restoring + "/" + name;
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return errno_error(errno, fmt::format("creating '{}'", path));
    return std::make_shared<RestoredDiskFile>(std::move(path), fd);
  }
  Result<void> end_restore() override {
    TRY(sync_directory(paths_.restoring));
    TRY(rename_tree(paths_.restoring, paths_.database));
    return sync_directory(directory_);
  }

  Result<std::shared_ptr<Index>> open(bool fresh, OnIndexDamage on_damage) override {
    TRY_ASSIGN(std::shared_ptr<Database> database, Database::open(settings(std::move(on_damage)), fresh));
    return std::shared_ptr<Index>(std::move(database));
  }

 private:
  Database::Settings settings(OnIndexDamage on_damage) const {
    Database::Settings settings = settings_;
    settings.on_damage = [directory = directory_, told = std::move(on_damage)](const std::string& what) {
      mark_damaged(directory, what);
      told(what);
    };
    return settings;
  }

  const std::string directory_, meant_;
  const Paths paths_;
  const Database::Settings settings_;
};

}  // namespace

std::unique_ptr<IndexPlace> make_rocksdb_place(const RocksdbMetaOptions& options) {
  return std::make_unique<RocksdbPlace>(options, options.directory, "");
}

std::unique_ptr<IndexPlace> make_spare_rocksdb_place(const RocksdbMetaOptions& options, const std::string& directory) {
  return std::make_unique<RocksdbPlace>(options, directory, options.directory);
}

}  // namespace quarry::meta
