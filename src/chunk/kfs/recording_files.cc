#include "chunk/kfs/recording_files.h"

#include <filesystem>
#include <fstream>
#include <set>

namespace quarry::chunk::kfs {

class RecordingWritable : public Files::Writable {
 public:
  RecordingWritable(RecordingFiles& files, uint64_t file, std::unique_ptr<Files::Writable> inner)
      : files_(files), file_(file), inner_(std::move(inner)) {}
  // The step is recorded before it is done: a cut may come in between and find it half done.
  Result<void> append(ByteView bytes) override {
    files_.add({RecordingFiles::Kind::append, {}, {}, file_, std::string(text_of(bytes))});
    return inner_->append(bytes);
  }
  // A sync is recorded when it is done.
  Result<void> sync() override {
    TRY(inner_->sync());
    files_.add({RecordingFiles::Kind::sync_file, {}, {}, file_, {}});
    return {};
  }

 private:
  RecordingFiles& files_;
  const uint64_t file_;
  std::unique_ptr<Files::Writable> inner_;
};

void RecordingFiles::add(Step step) {
  const std::lock_guard lock(mutex_);
  steps_.push_back(std::move(step));
}

void RecordingFiles::adopt() {
  const std::lock_guard lock(mutex_);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root_)) {
    const std::string name = relative(entry.path().string());
    if (entry.is_directory()) {
      steps_.push_back({Kind::make_directory, name, {}, 0, {}});
      continue;
    }
    std::ifstream in(entry.path(), std::ios::binary);
    const uint64_t file = next_file_++;
    steps_.push_back({Kind::create, name, {}, file, {}});
    steps_.push_back({Kind::append, {}, {}, file, std::string(std::istreambuf_iterator<char>(in), {})});
    steps_.push_back({Kind::sync_file, {}, {}, file, {}});
  }
  steps_.push_back({Kind::sync_names, {}, {}, 0, {}});
  first_step_ = steps_.size();
}

size_t RecordingFiles::now() const {
  const std::lock_guard lock(mutex_);
  return steps_.size();
}

Result<std::unique_ptr<Files::Writable>> RecordingFiles::create(const std::string& path) {
  uint64_t file;
  {
    const std::lock_guard lock(mutex_);
    file = next_file_++;
    steps_.push_back({Kind::create, relative(path), {}, file, {}});
  }
  TRY_ASSIGN(auto inner, posix_files().create(path));
  return std::make_unique<RecordingWritable>(*this, file, std::move(inner));
}
Result<void> RecordingFiles::remove(const std::string& path) {
  if (posix_files().exists(path)) add({Kind::remove, relative(path), {}, 0, {}});
  return posix_files().remove(path);
}
Result<void> RecordingFiles::make_directory(const std::string& path) {
  if (!posix_files().exists(path)) add({Kind::make_directory, relative(path), {}, 0, {}});
  return posix_files().make_directory(path);
}
Result<void> RecordingFiles::rename(const std::string& from, const std::string& to) {
  add({Kind::rename, relative(from), relative(to), 0, {}});
  TRY(posix_files().rename(from, to));
  add({Kind::sync_names, {}, {}, 0, {}});
  return {};
}
Result<void> RecordingFiles::sync_directory(const std::string& path) {
  TRY(posix_files().sync_directory(path));
  add({Kind::sync_names, {}, {}, 0, {}});
  return {};
}

void RecordingFiles::build(size_t at, Random& random, const std::string& target) const {
  struct File {
    std::string bytes;
    size_t synced = 0;
  };
  std::map<uint64_t, File> files;
  const std::lock_guard lock(mutex_);
  // How far names survive: at least to the last sync, at most to the cut.
  size_t names_safe = 0;
  std::set<uint64_t> named;
  for (size_t i = 0; i < at; ++i) {
    const Step& step = steps_[i];
    if (step.kind == Kind::append) files[step.file].bytes += step.bytes;
    if (step.kind == Kind::sync_file) files[step.file].synced = files[step.file].bytes.size();
    // The first sync of a file syncs its directory too (kfs/files.cc).
    if (step.kind == Kind::sync_names || (step.kind == Kind::sync_file && named.insert(step.file).second)) names_safe = i + 1;
  }
  const size_t names_until = names_safe + random.below(at - names_safe + 1);
  std::map<std::string, uint64_t> names;
  std::vector<std::string> directories;
  for (size_t i = 0; i < names_until; ++i) {
    const Step& step = steps_[i];
    if (step.kind == Kind::create) names[step.path] = step.file;
    if (step.kind == Kind::remove) names.erase(step.path);
    if (step.kind == Kind::make_directory) directories.push_back(step.path);
    if (step.kind == Kind::rename) {
      names[step.to] = names[step.path];
      names.erase(step.path);
    }
  }
  for (const auto& directory : directories) std::filesystem::create_directories(target + "/" + directory);
  for (const auto& [path, number] : names) {
    const File& file = files[number];
    std::string bytes = file.bytes.substr(0, file.synced + random.below(file.bytes.size() - file.synced + 1));
    // Pages of the unsynced part may have been written in any order, or not at all.
    for (size_t page = file.synced / 4096 * 4096; page < bytes.size(); page += 4096) {
      const uint64_t luck = random.below(6);
      if (luck > 1) continue;
      for (size_t i = std::max(page, file.synced); i < std::min(page + 4096, bytes.size()); ++i)
        bytes[i] = luck == 0 ? '\0' : static_cast<char>(random.u64());
    }
    std::ofstream(target + "/" + path, std::ios::binary) << bytes;
  }
}

}  // namespace quarry::chunk::kfs
