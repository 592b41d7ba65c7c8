#include "cluster/stripes/activity.h"

namespace quarry::cluster {

struct ActiveReads::Guard : ReadGuard {
  Guard(ActiveReads& all, std::atomic<uint64_t>& counter) : reads(all), count(&counter) {}
  ~Guard() override {
    if (count != nullptr) count->fetch_sub(1);
    for (const WriteId id : writes) reads.end(id);
  }
  void narrow(std::vector<WriteId> ids) override {
    CHECK(count != nullptr, "a guard is narrowed once");
    writes = std::move(ids);
    for (const WriteId id : writes) reads.begin(id);
    std::exchange(count, nullptr)->fetch_sub(1);  // last: the sweeper sees either this or them
  }
  ActiveReads& reads;
  std::atomic<uint64_t>* count;  // of its epoch; null: narrowed
  std::vector<WriteId> writes;
};

std::unique_ptr<ReadGuard> ActiveReads::guard() {
  for (;;) {
    const uint64_t epoch = epoch_.load();
    std::atomic<uint64_t>& count = guards_[epoch & 1];
    count.fetch_add(1);
    if (epoch_.load() == epoch) return std::make_unique<Guard>(*this, count);
    count.fetch_sub(1);  // the epoch turned between: the sweeper may not have seen us
  }
}

void ActiveReads::begin(WriteId id) {
  Part& part = parts_[id % parts_.size()];
  std::lock_guard lock(part.mutex);
  ++part.readers[id];
}

void ActiveReads::end(WriteId id) {
  Part& part = parts_[id % parts_.size()];
  std::lock_guard lock(part.mutex);
  auto found = part.readers.find(id);
  if (--found->second == 0) part.readers.erase(found);
}

bool ActiveReads::reading(WriteId id) const {
  const Part& part = parts_[id % parts_.size()];
  std::lock_guard lock(part.mutex);
  return part.readers.contains(id);
}

std::shared_ptr<const Topology> ActiveWrites::begin() {
  std::lock_guard lock(mutex_);  // held over both steps: who asks any_before after a publish sees every writer of the older topology
  auto topology = drives_.topology();
  epochs_.insert(topology->map.epoch);
  return topology;
}

void ActiveWrites::end(uint64_t map_epoch) {
  std::lock_guard lock(mutex_);
  epochs_.erase(epochs_.find(map_epoch));
}

bool ActiveWrites::any_before(uint64_t map_epoch) const {
  std::lock_guard lock(mutex_);
  return !epochs_.empty() && *epochs_.begin() < map_epoch;
}

size_t ActiveWrites::count() const {
  std::lock_guard lock(mutex_);
  return epochs_.size();
}

}  // namespace quarry::cluster
