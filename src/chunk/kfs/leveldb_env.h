// BucketEnv: LevelDB's view of the file system for one S-bucket, over Files. Differences to LevelDB's own:
//   - a file that failed a write or a sync fails every later one, so nothing is ever appended behind a torn record;
//   - the first sync of a file makes its name durable too, and a deleted file is noticed;
//   - a log that LevelDB ends without a sync can be synced afterwards, as long as LevelDB has not removed it;
//   - background work of each instance has a thread of its own, so that one bucket's compaction never delays another's;
//   - no lock file and no info log (the store holds one lock for all buckets);
//   - frozen: no file can be made any more. An instance over a file system that takes no writes stays readable.
#pragma once
#include <leveldb/env.h>
#include <leveldb/status.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "chunk/kfs/files.h"

namespace quarry::chunk::kfs {

// Errors cross LevelDB inside its Status and come out as they went in.
leveldb::Status to_status(const Error& error);
Error from_status(const leveldb::Status& status, std::string_view what);

// Threads that are made when there is work and none is free, and end after some idle time. At most `threads_max`; more work waits.
class ElasticThreads {
 public:
  explicit ElasticThreads(size_t threads_max) : threads_max_(threads_max) {}
  ~ElasticThreads();  // runs what is queued, then ends
  void submit(std::function<void()> work);

 private:
  void run();
  const size_t threads_max_;
  std::mutex mutex_;
  std::condition_variable wake_, ended_;
  std::vector<std::function<void()>> queue_;
  size_t threads_ = 0, idle_ = 0;
  bool stopping_ = false;
};

class BucketEnv : public leveldb::Env {
 public:
  BucketEnv(Files& files, ElasticThreads& threads) : files_(files), threads_(threads) {}

  leveldb::Status NewSequentialFile(const std::string& path, leveldb::SequentialFile** result) override;
  leveldb::Status NewRandomAccessFile(const std::string& path, leveldb::RandomAccessFile** result) override;
  leveldb::Status NewWritableFile(const std::string& path, leveldb::WritableFile** result) override;
  bool FileExists(const std::string& path) override;
  leveldb::Status GetChildren(const std::string& directory, std::vector<std::string>* result) override;
  leveldb::Status RemoveFile(const std::string& path) override;
  leveldb::Status CreateDir(const std::string& path) override;
  leveldb::Status RemoveDir(const std::string& path) override;
  leveldb::Status GetFileSize(const std::string& path, uint64_t* size) override;
  leveldb::Status RenameFile(const std::string& from, const std::string& to) override;
  leveldb::Status LockFile(const std::string& path, leveldb::FileLock** lock) override;
  leveldb::Status UnlockFile(leveldb::FileLock* lock) override;
  void Schedule(void (*function)(void*), void* argument) override;
  void StartThread(void (*function)(void*), void* argument) override;
  leveldb::Status GetTestDirectory(std::string* path) override;
  leveldb::Status NewLogger(const std::string& path, leveldb::Logger** result) override;
  uint64_t NowMicros() override;
  void SleepForMicroseconds(int microseconds) override;

  // New files live in memory and nothing below changes: for file systems that take no writes. Set before the instance is opened.
  void use_overlay() { overlay_ = true; }
  // Logs that were ended without a sync, and are not removed yet (their content is then in synced tables), become durable. Any thread.
  Result<void> sync_ended_logs();
  // Of a file that was ended: takes it over.
  void ended(const std::string& path, std::unique_ptr<Files::Writable> file);

  // While the count is above zero, logs are handed to the device as they grow, because a sync follows.
  std::atomic<int> syncs_announced{0};

  // From now on no file can be made (overlay: compaction would fill the memory). Reads go on.
  void freeze() { frozen_ = true; }

  using Content = std::shared_ptr<std::string>;

 private:
  Content overlaid(const std::string& path);
  Files& files_;
  ElasticThreads& threads_;
  bool overlay_ = false;
  std::atomic<bool> frozen_{false};
  std::mutex mutex_;
  std::map<std::string, Content> memory_;  // overlay: files made here; null: removed here
  std::map<std::string, std::shared_ptr<Files::Writable>> ended_;
  std::condition_variable removed_;
  std::mutex syncing_;  // held while ended logs are synced
};

leveldb::Logger* null_logger();

}  // namespace quarry::chunk::kfs
