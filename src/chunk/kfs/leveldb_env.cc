#include "chunk/kfs/leveldb_env.h"

#include <algorithm>
#include <charconv>

namespace quarry::chunk::kfs {
namespace {

constexpr size_t kWriteBuffer = 128 * kKiB, kWritebackStep = kMiB;
constexpr auto kThreadIdle = std::chrono::seconds(5);
constexpr auto kLogGrace = std::chrono::milliseconds(100);  // before a log is synced that LevelDB is about to remove

using leveldb::Slice;
using leveldb::Status;

ByteView view_of(const Slice& slice) { return {reinterpret_cast<const uint8_t*>(slice.data()), slice.size()}; }

class EnvWritable : public leveldb::WritableFile {
 public:
  // env: of a log, is given the file if it ends unsynced; null: not a log.
  EnvWritable(std::unique_ptr<Files::Writable> file, BucketEnv* env, std::string path)
      : file_(std::move(file)), env_(env), path_(std::move(path)) {
    buffer_.reserve(kWriteBuffer);
  }
  ~EnvWritable() override {
    (void)write_out();  // as LevelDB's own: whoever needs it durable syncs
    if (env_ != nullptr && unsynced_) env_->ended(path_, std::move(file_));
  }

  Status Append(const Slice& data) override {
    if (!failed_.ok()) return failed_;
    if (buffer_.size() + data.size() <= kWriteBuffer) {
      buffer_.append(data.data(), data.size());
      return Status::OK();
    }
    if (Status flushed = write_out(); !flushed.ok()) return flushed;
    if (data.size() < kWriteBuffer) {
      buffer_.append(data.data(), data.size());
      return Status::OK();
    }
    unsynced_ = true;
    return note(file_->append(view_of(data)));
  }
  // LevelDB flushes its log after every fragment of a record, for writes that are acknowledged without a sync. There are none here.
  Status Flush() override { return env_ != nullptr ? failed_ : write_out(); }
  Status Sync() override {
    if (Status flushed = write_out(); !flushed.ok()) return flushed;
    const Status synced = note(file_->sync());
    if (synced.ok()) unsynced_ = false;
    return synced;
  }
  Status Close() override { return write_out(); }

 private:
  Status write_out() {
    if (!failed_.ok()) return failed_;
    if (buffer_.empty()) return Status::OK();
    unsynced_ = true;
    const Status written = note(file_->append(bytes_of(buffer_)));
    since_writeback_ += buffer_.size();
    buffer_.clear();
    if (env_ != nullptr && since_writeback_ >= kWritebackStep && env_->syncs_announced > 0) {
      since_writeback_ = 0;
      file_->begin_writeback();
    }
    return written;
  }
  Status note(const Result<void>& result) {
    if (!result) failed_ = to_status(result.error());
    return failed_;
  }
  std::unique_ptr<Files::Writable> file_;
  BucketEnv* const env_;
  const std::string path_;
  std::string buffer_;
  bool unsynced_ = false;
  size_t since_writeback_ = 0;
  Status failed_;
};

class EnvReadable : public leveldb::RandomAccessFile {
 public:
  explicit EnvReadable(std::unique_ptr<Files::Readable> file) : file_(std::move(file)) {}
  Status Read(uint64_t offset, size_t size, Slice* result, char* scratch) const override {
    const auto got = file_->read(offset, {reinterpret_cast<uint8_t*>(scratch), size});
    *result = Slice(scratch, got ? *got : 0);
    return got ? Status::OK() : to_status(got.error());
  }

 private:
  std::unique_ptr<Files::Readable> file_;
};

class EnvSequential : public leveldb::SequentialFile {
 public:
  explicit EnvSequential(std::unique_ptr<Files::Readable> file) : file_(std::move(file)) {}
  Status Read(size_t size, Slice* result, char* scratch) override {
    const auto got = file_->read(at_, {reinterpret_cast<uint8_t*>(scratch), size});
    *result = Slice(scratch, got ? *got : 0);
    if (!got) return to_status(got.error());
    at_ += *got;
    return Status::OK();
  }
  Status Skip(uint64_t size) override {
    at_ += size;
    return Status::OK();
  }

 private:
  std::unique_ptr<Files::Readable> file_;
  uint64_t at_ = 0;
};

// A file of the overlay. Appends come from one thread and end before anybody reads it.
class MemoryWritable : public Files::Writable {
 public:
  explicit MemoryWritable(BucketEnv::Content content) : content_(std::move(content)) {}
  Result<void> append(ByteView bytes) override {
    content_->append(text_of(bytes));
    return {};
  }
  Result<void> sync() override { return {}; }

 private:
  BucketEnv::Content content_;
};
class MemoryReadable : public Files::Readable {
 public:
  explicit MemoryReadable(BucketEnv::Content content) : content_(std::move(content)) {}
  Result<size_t> read(uint64_t offset, MutableByteView into) const override {
    if (offset >= content_->size()) return size_t{0};
    const size_t size = std::min<size_t>(into.size(), content_->size() - offset);
    std::memcpy(into.data(), content_->data() + offset, size);
    return size;
  }

 private:
  BucketEnv::Content content_;
};

class NoLock : public leveldb::FileLock {};
class NoLogger : public leveldb::Logger {
 public:
  void Logv(const char*, std::va_list) override {}
};

}  // namespace

leveldb::Logger* null_logger() {
  static NoLogger* logger = new NoLogger();
  return logger;
}

// "IO error: E<code>: <context>"
Status to_status(const Error& error) {
  if (error.code() == Code::not_found) return Status::NotFound(error.context());
  return Status::IOError(fmt::format("E{}", static_cast<unsigned>(error.code())), error.context());
}

Error from_status(const Status& status, std::string_view what) {
  const std::string text = status.ToString();
  if (status.IsNotFound()) return fail(Code::not_found, "{}: {}", what, text);
  if (status.IsCorruption() || status.IsInvalidArgument()) return fail(Code::corrupt, "{}: {}", what, text);
  constexpr std::string_view kMark = "IO error: E";
  if (text.starts_with(kMark)) {
    unsigned number = 0;
    const char* end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data() + kMark.size(), end, number);
    if (error == std::errc{} && at + 2 <= end && at[0] == ':')
      return Error(static_cast<Code>(number), fmt::format("{}: {}", what, std::string_view(at + 2, end)));
  }
  return fail(Code::io_error, "{}: {}", what, text);
}

ElasticThreads::~ElasticThreads() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  wake_.notify_all();
  ended_.wait(lock, [this] { return threads_ == 0; });
}

void ElasticThreads::submit(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  queue_.push_back(std::move(work));
  if (idle_ < queue_.size() && threads_ < threads_max_) {
    ++threads_;
    std::thread([this] { run(); }).detach();  // counted: the destructor waits for it
  } else {
    wake_.notify_one();
  }
}

void ElasticThreads::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (queue_.empty()) {
      if (stopping_) break;
      ++idle_;
      const bool woken = wake_.wait_for(lock, kThreadIdle, [this] { return stopping_ || !queue_.empty(); });
      --idle_;
      if (!woken) break;
      continue;
    }
    auto work = std::move(queue_.front());
    queue_.erase(queue_.begin());
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
  }
  --threads_;
  ended_.notify_all();
}

BucketEnv::Content BucketEnv::overlaid(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const auto at = memory_.find(path);
  return at == memory_.end() ? nullptr : at->second;
}

Status BucketEnv::NewSequentialFile(const std::string& path, leveldb::SequentialFile** result) {
  *result = nullptr;
  if (auto content = overlaid(path)) {
    *result = new EnvSequential(std::make_unique<MemoryReadable>(std::move(content)));
    return Status::OK();
  }
  auto file = files_.open(path);
  if (!file) return to_status(file.error());
  *result = new EnvSequential(std::move(*file));
  return Status::OK();
}

Status BucketEnv::NewRandomAccessFile(const std::string& path, leveldb::RandomAccessFile** result) {
  *result = nullptr;
  if (auto content = overlaid(path)) {
    *result = new EnvReadable(std::make_unique<MemoryReadable>(std::move(content)));
    return Status::OK();
  }
  auto file = files_.open(path);
  if (!file) return to_status(file.error());
  *result = new EnvReadable(std::move(*file));
  return Status::OK();
}

Status BucketEnv::NewWritableFile(const std::string& path, leveldb::WritableFile** result) {
  *result = nullptr;
  if (frozen_) return to_status(fail(Code::read_only, "{}: the bucket is open for reading only", path));
  if (overlay_) {
    auto content = std::make_shared<std::string>();
    const std::lock_guard lock(mutex_);
    memory_[path] = content;
    *result = new EnvWritable(std::make_unique<MemoryWritable>(std::move(content)), nullptr, path);
    return Status::OK();
  }
  auto file = files_.create(path);
  if (!file) {
    // A directory that went away is not "this file does not exist", which LevelDB takes for an answer.
    if (file.error().code() == Code::not_found) return to_status(fail(Code::device_gone, "{}: its directory is gone", path));
    return to_status(file.error());
  }
  *result = new EnvWritable(std::move(*file), path.ends_with(".log") ? this : nullptr, path);
  return Status::OK();
}

void BucketEnv::ended(const std::string& path, std::unique_ptr<Files::Writable> file) {
  const std::lock_guard lock(mutex_);
  ended_[path] = std::move(file);
}

Result<void> BucketEnv::sync_ended_logs() {
  const std::lock_guard one_at_a_time(syncing_);
  std::unique_lock lock(mutex_);
  // LevelDB is writing their content into tables just now.
  removed_.wait_for(lock, kLogGrace, [this] { return ended_.empty(); });
  while (!ended_.empty()) {
    const auto [path, file] = *ended_.begin();
    lock.unlock();
    auto synced = file->sync();
    lock.lock();
    const auto at = ended_.find(path);
    if (at == ended_.end()) continue;  // removed meanwhile
    if (!synced) return synced;
    ended_.erase(at);
  }
  return {};
}

bool BucketEnv::FileExists(const std::string& path) {
  if (overlay_) {
    const std::lock_guard lock(mutex_);
    const auto at = memory_.find(path);
    if (at != memory_.end()) return at->second != nullptr;
  }
  return files_.exists(path);
}

Status BucketEnv::GetChildren(const std::string& directory, std::vector<std::string>* result) {
  auto names = files_.children(directory);
  if (!names) return to_status(names.error());
  *result = std::move(*names);
  const std::lock_guard lock(mutex_);
  for (const auto& [path, content] : memory_) {
    if (!path.starts_with(directory + "/")) continue;
    const std::string name = path.substr(directory.size() + 1);
    std::erase(*result, name);
    if (content) result->push_back(name);
  }
  return Status::OK();
}

Status BucketEnv::RemoveFile(const std::string& path) {
  if (overlay_) {
    const std::lock_guard lock(mutex_);
    memory_[path] = nullptr;
    return Status::OK();
  }
  if (path.ends_with(".log")) {
    const std::lock_guard lock(mutex_);
    if (ended_.erase(path) != 0) removed_.notify_all();
  }
  const auto removed = files_.remove(path);
  return removed ? Status::OK() : to_status(removed.error());
}

Status BucketEnv::CreateDir(const std::string& path) {
  if (overlay_) return Status::OK();
  const auto made = files_.make_directory(path);
  return made ? Status::OK() : to_status(made.error());
}

Status BucketEnv::RemoveDir(const std::string& path) { return to_status(fail(Code::unsupported, "{}: directories are not removed", path)); }

Status BucketEnv::GetFileSize(const std::string& path, uint64_t* size) {
  *size = 0;
  if (const auto content = overlaid(path)) {
    *size = content->size();
    return Status::OK();
  }
  const auto got = files_.size(path);
  if (!got) return to_status(got.error());
  *size = *got;
  return Status::OK();
}

Status BucketEnv::RenameFile(const std::string& from, const std::string& to) {
  if (overlay_) {
    Content content = overlaid(from);
    if (!content) {
      auto text = read_whole_file(files_, from, SIZE_MAX);
      if (!text) return to_status(text.error());
      content = std::make_shared<std::string>(std::move(*text));
    }
    const std::lock_guard lock(mutex_);
    memory_[to] = std::move(content);
    memory_[from] = nullptr;
    return Status::OK();
  }
  const auto renamed = files_.rename(from, to);
  return renamed ? Status::OK() : to_status(renamed.error());
}

Status BucketEnv::LockFile(const std::string&, leveldb::FileLock** lock) {
  *lock = new NoLock();
  return Status::OK();
}
Status BucketEnv::UnlockFile(leveldb::FileLock* lock) {
  delete lock;
  return Status::OK();
}

void BucketEnv::Schedule(void (*function)(void*), void* argument) {
  threads_.submit([function, argument] { function(argument); });
}
void BucketEnv::StartThread(void (*function)(void*), void* argument) { Schedule(function, argument); }

Status BucketEnv::GetTestDirectory(std::string* path) {
  path->clear();
  return to_status(fail(Code::unsupported, "no test directory"));
}
Status BucketEnv::NewLogger(const std::string&, leveldb::Logger** result) {
  *result = new NoLogger();
  return Status::OK();
}

// Statistics of LevelDB's compactions, and its pauses of 1 ms when level 0 grows: nothing that we decide.
uint64_t BucketEnv::NowMicros() { return leveldb::Env::Default()->NowMicros(); }
void BucketEnv::SleepForMicroseconds(int microseconds) { leveldb::Env::Default()->SleepForMicroseconds(microseconds); }

}  // namespace quarry::chunk::kfs
