#include "chunk/dir/directory_sync.h"

namespace quarry::chunk::dir {

Task<Result<void>> DirectorySync::sync(std::string path) {
  if (const auto next = slots_[path].next) {
    co_await next->done.wait();
    co_return next->result;
  }
  const auto wave = std::make_shared<Wave>();
  if (const auto running = slots_[path].running) {
    // What we wait for may have come after the running one began: lead the next.
    slots_[path].next = wave;
    co_await running->done.wait();
    slots_[path].next = nullptr;
  }
  slots_[path].running = wave;
  auto files = files_;
  wave->result = co_await blocking(pool_, [files, path] { return files->sync_directory(path); });
  Slot& slot = slots_[path];
  slot.running = nullptr;
  if (!slot.next) slots_.erase(path);
  wave->done.set();
  co_return wave->result;
}

Task<Result<void>> DirectorySync::sync_taken(std::string path) {
  Taken taken(*this, std::move(path));
  auto synced = co_await sync_taken(taken);
  co_return synced;
}

Task<Result<void>> DirectorySync::sync_taken(Taken& taken) {
  for (;;) {
    const std::string path = taken.directory_;
    Result<void> synced = co_await sync(path);
    if (!synced && (synced.error().code() != Code::not_found || path.empty())) co_return synced;
    if (taken.directory_ != path) continue;  // what was synced may be another directory of that path
    if (synced) co_return synced;
    taken.directory_ = parent_of(path);
  }
}

void DirectorySync::note_removed(const std::vector<std::string>& paths) {
  for (const auto& path : paths) {
    for (Taken* taken : taken_) {
      if (taken->directory_ == path) taken->directory_ = parent_of(path);
    }
  }
}

Task<Result<void>> DirectorySync::sync_moved(std::string from, std::string to) {
  CO_TRY(co_await sync(std::move(to)));
  co_return co_await sync_taken(std::move(from));
}

Task<Result<void>> DirectorySync::sync_all(std::set<std::string> paths) {
  if (paths.size() == 1) {
    auto only = co_await sync(*paths.begin());
    co_return only;
  }
  std::vector<Task<Result<void>>> tasks;
  for (const auto& path : paths) tasks.push_back(sync(path));
  auto results = co_await when_all(std::move(tasks));
  co_return first_error(results);
}

}  // namespace quarry::chunk::dir
