// Who waits for changes under which prefix, and the recent changes, so that a watch that starts late misses none.
// Thread-safe: the committer publishes from its thread, watchers wait on their own executors.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "io/executor.h"
#include "meta/meta_store.h"

namespace quarry::meta {

class WatchHub {
 public:
  // Changes remembered for late watchers. One that asks for older ones is answered at once with the newest version: it must look.
  static constexpr size_t kHistoryMax = 8192;
  static constexpr size_t kWatchersMax = 65536;  // more: overloaded

  explicit WatchHub(Version start) : newest_(start), floor_(start) {}
  WatchHub(const WatchHub&) = delete;
  ~WatchHub();

  // One transaction's operations, in order of versions; call when its effect is visible. ops: encoded, without stamps.
  void publish(Version version, std::string_view ops);
  // The contract of MetaStore::watch; prefix is a row prefix. The task shares the hub, since its timer may come after the store's end.
  static Task<Result<Version>> watch(std::shared_ptr<WatchHub> hub, std::string prefix, Version after, TimePoint deadline);
  // Ends all waits, and later ones, with this error.
  void close(Error error);
  size_t watching() const;

 private:
  struct Waiter;
  struct Change {
    Version version;
    std::string begin;
    std::string end;  // empty: the one key `begin`
  };
  void wake(Waiter& waiter, Result<Version> result);
  void forget(Waiter& waiter);

  mutable std::mutex mutex_;
  Version newest_;
  Version floor_;  // changes with version > floor_ are all in history_
  std::deque<Change> history_;
  std::multimap<std::string, Waiter*, std::less<>> waiters_;
  std::map<size_t, size_t> lengths_;  // prefix length -> waiters with it
  std::optional<Error> closed_;
};

}  // namespace quarry::meta
