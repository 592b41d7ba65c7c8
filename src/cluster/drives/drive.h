// Drive: one open drive of this node: its chunk store, the executor that owns it, and what is known of its health.
//
// Thread-safe: every call hops to the owner's executor and comes home. A Drive lives until the cluster is closed, also when it failed or
// was removed, so references to it stay valid; calls then answer device_gone.
// Errors are classified here: what says "the drive" (device_gone, a store that is failed) takes the drive down and tells the
// listener once; what says "this chunk" (not_found, corrupt, io_error of a read) is an erasure for the caller to work around.
//
// A drive may hang: calls that do not come back. The guard suspends such a drive and gives it up (give_up): its callers are answered
// device_gone at once, each on its executor, while what was asked of the store goes on behind them, on memory of its own, until the device
// lets go of it. Suspending is nobody's decision and in no map: once the drive answers it is resumed, and all is as it was.
#pragma once
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "chunk/chunk_store.h"
#include "cluster/data_plane.h"
#include "cluster/map/chunk_ids.h"
#include "io/executor.h"

namespace quarry::cluster {

enum class DriveCondition : uint8_t {
  up,
  read_only,  // reads and removals work, puts do not (full, or a write failed)
  down,       // gone, failed or closed
};

// Latency of one kind of call of one drive: a decaying histogram. Lock-free, any thread.
class LatencyStatistics {
 public:
  void observe(Duration duration);
  // Upper bound of the bucket in which the q-quantile lies; `fallback` until kSamplesMin samples were seen.
  Duration quantile(double q, Duration fallback) const;
  // Forgets all samples. Counts made meanwhile may stay.
  void reset();
  static constexpr uint32_t kSamplesMin = 32;

 private:
  static constexpr size_t kBuckets = 64;         // 2 per octave from 4 us
  static constexpr uint32_t kSamplesMax = 4096;  // then all counts are halved
  std::array<std::atomic<uint32_t>, kBuckets> counts_{};
  std::atomic<uint32_t> total_{0};
};

// What calls of a drive wait for (private to Drive). A call is in the list from its start until its answer was taken.
class CallList {
 public:
  struct Call : std::enable_shared_from_this<Call> {
    explicit Call(Executor& at) : home(at) {}
    virtual ~Call() = default;
    virtual bool is_answered() const = 0;
    virtual void answer_with(const Error& error) = 0;
    bool await_ready() const noexcept { return is_answered(); }
    void await_suspend(std::coroutine_handle<> handle) noexcept { waiter = handle; }
    void await_resume() const noexcept {}
    void wake() {  // on home
      if (waiter) std::exchange(waiter, {}).resume();
    }
    Executor& home;
    std::coroutine_handle<> waiter;
    TimePoint began{};
    bool is_put = false;
    Call* before = nullptr;
    Call* after = nullptr;
  };
  void add(Call& call);
  void remove(Call& call);
  // All that are in the list go on with this error, each on its executor; what the store says later is dropped. `left_behind` counts them.
  void give_up(const Error& error, std::atomic<size_t>& left_behind);
  std::optional<TimePoint> oldest(bool puts_only) const;  // when it began; nullopt: there is none

 private:
  static detail::Root tell(std::shared_ptr<Call> call, Error error, std::atomic<size_t>& left_behind);
  mutable std::mutex mutex_;
  Call* first_ = nullptr;
};

class Drive {
 public:
  static constexpr Duration kClosePatience = std::chrono::seconds(5);
  struct Identity {
    uint32_t number = 0;  // in the cluster map; never reused; 0 is no drive
    std::string path;
    std::string domain;  // failure domain
  };
  Drive(Identity identity, std::unique_ptr<chunk::ChunkStore> store, Executor& owner);
  ~Drive();
  Drive(const Drive&) = delete;

  uint32_t number() const { return identity_.number; }
  const std::string& path() const { return identity_.path; }
  const std::string& domain() const { return identity_.domain; }
  const Uuid& id() const { return id_; }
  bool keeps_files() const { return keeps_files_; }  // ChunkStore::keeps_files
  Executor& owner() const { return owner_; }

  // The contract of each is that of ChunkStore. What is put is copied, unless `hold` keeps alive all that parts and options borrow: the
  // store may still be reading it when a caller was sent on (give_up).
  Task<Result<void>> put(ChunkId id, std::vector<ByteView> parts, chunk::Stream stream);
  Task<Result<void>> put(ChunkId id, std::vector<ByteView> parts, chunk::PutOptions options, std::shared_ptr<const void> hold = nullptr);
  Task<Result<SharedBytes>> get(ChunkId id, uint32_t offset, uint32_t length);
  // Awaits a put, or finish_file, that a request waits for and that ends when something is durable; notes how long it took. What the
  // background writes is not timed: a drive that is being filled answers late, and is not slow.
  Task<Result<void>> timed(Task<Result<void>> write);
  Task<Result<void>> remove(std::vector<ChunkId> ids);
  Task<Result<chunk::ChunkStat>> stat(ChunkId id);
  Task<Result<std::vector<chunk::ChunkStat>>> list(ChunkId from, ChunkId to, size_t limit);
  Task<Result<chunk::ScrubProgress>> scrub(ChunkId from, uint64_t budget_bytes);
  Task<Result<chunk::FsckReport>> fsck();
  Task<Result<void>> set_label(std::string label);
  Task<Result<std::string>> label();
  Task<Result<void>> finish_file(ChunkId first, uint64_t size);
  Task<Result<void>> show_file(ChunkId first, std::vector<std::pair<std::string, std::string>> attributes);
  Task<Result<void>> hide_file(ChunkId first);
  Task<Result<void>> check_health();  // also of a drive that is suspended
  // For what one kind of store can do beyond the interface (chunk::DirStore::adopt). `make` runs on the owner's thread, and owns what the
  // task it makes looks at.
  template <class Make>
  auto with_store(Make make) -> std::invoke_result_t<Make&, chunk::ChunkStore&> {
    return call(std::move(make));
  }

  // Data shards: the chunk of `name` is whichever of its rewrites 0..kRewritesMax exists and can be read
  // (docs/formats/chunk-ids.md). name.generation holds the term in its upper bits and rewrite 0.
  Task<Result<SharedBytes>> get_shard(ChunkName name, uint32_t offset, uint32_t length);
  // Size of the shard's chunk, without reading it. not_found if no rewrite exists.
  Task<Result<uint32_t>> stat_shard(ChunkName name);
  // Puts the shard under the first rewrite number that was not used on this drive, then removes earlier ones.
  Task<Result<void>> rewrite_shard(ChunkName name, std::vector<ByteView> parts);
  // The file of the shard, whichever rewrite it is: name is that of stripe 0. Not there, or no file: nothing to do.
  Task<Result<void>> show_shard_file(ChunkName name, FileAttributes attributes);
  Task<Result<void>> hide_shard_file(ChunkName name);
  // Writes that were never committed: ChunkStore::disown.
  Task<Result<void>> disown(std::vector<ChunkId> ids);
  Task<Result<void>> disown_shards(std::vector<ChunkName> names);
  // The rewrites of a shard that exist.
  Task<Result<std::vector<ChunkId>>> rewrites(ChunkName name);
  // Removes every rewrite of each shard.
  Task<Result<void>> remove_shards(std::vector<ChunkName> names);

  // Closes the store, once; from then on the drive is down. Waits for calls in progress; of a drive that hangs only for `patience`:
  // timed_out then, and the store stays as it is.
  Task<Result<void>> close(Duration patience = kClosePatience);
  bool closing() const { return closed_.load(std::memory_order_acquire); }  // or closed
  bool closed() const { return store_closed_.load(std::memory_order_acquire); }
  static constexpr Duration kTroubleLasts = std::chrono::minutes(10);  // calls that failed are told for so long

  DriveCondition condition() const {
    const bool out_of_use = disabled_.load(std::memory_order_acquire) || suspended_.load(std::memory_order_acquire);
    return out_of_use ? DriveCondition::down : condition_.load(std::memory_order_acquire);
  }
  bool readable() const { return condition() != DriveCondition::down; }
  bool writable() const { return condition() == DriveCondition::up; }
  std::string reason() const;          // why it is not up; empty while up
  void take_down(std::string reason);  // from now on every call answers device_gone
  // Not to be used for reads or writes until it is enabled, although its store is open; calls answer device_gone.
  void disable(std::string reason);
  void enable();
  bool disabled() const { return disabled_.load(std::memory_order_acquire); }
  // Not to be used while it hangs.
  void suspend(std::string reason);
  void resume();
  bool suspended() const { return suspended_.load(std::memory_order_acquire); }
  // Answers device_gone to everybody who waits for it. To be suspended, disabled or taken down first. Any thread.
  void give_up();
  // Calls that callers were sent on from and that the store has not come back from: it must not be destroyed.
  bool hangs() const { return left_behind_.load(std::memory_order_acquire) > 0; }
  // When the oldest put, or call, that is under way began; nullopt: there is none.
  std::optional<TimePoint> oldest_put() const { return calls_.oldest(true); }
  std::optional<TimePoint> oldest_call() const { return calls_.oldest(false); }
  // Its store said that the device, or what it lies on, is not there any more, or is not ours.
  bool gone() const { return gone_.load(std::memory_order_acquire); }
  // Another node has opened it.
  bool taken() const { return taken_.load(std::memory_order_acquire); }
  // Its store takes writes, as far as is known.
  bool sound() const { return condition_.load(std::memory_order_acquire) == DriveCondition::up; }
  // The store itself is of no more use: only opening it anew can help.
  bool broken() const { return condition_.load(std::memory_order_acquire) == DriveCondition::down; }
  // Errors of the kind that may mean that the path fails were seen since this was last asked.
  bool suspicious() { return suspicious_.exchange(false); }
  // What people should know of a drive that is in use all the same.
  struct Trouble {
    std::string unwell;        // why its health checks fail
    uint64_t failed = 0;       // calls that failed lately, damage not counted,
    std::string last_error;    // and how the last of them did
    uint64_t shrunk_from = 0;  // bytes that it had; 0: it is as large as ever
  };
  Trouble trouble(TimePoint now) const;
  void note_unwell(std::string why);  // empty: well again
  // Called once per worsening, on any thread, without locks held.
  void set_listener(std::function<void(Drive&)> listener) { listener_ = std::move(listener); }

  // As last seen; refresh() asks the store.
  chunk::SpaceReport space() const;
  chunk::StoreHealth health() const;
  Task<void> refresh();

  // Room for new data, by the last refresh and what was put since: part of the drive is kept for metadata and repair.
  // false: too full. What was reserved and not put comes back with the next refresh.
  bool reserve(uint64_t bytes);
  uint64_t room() const;
  // It answered that it has no room: none is expected until the next refresh.
  void note_full() { room_.store(0, std::memory_order_relaxed); }
  // What is below: looked at now and then on a thread of its own, which may never come back. share_below: among so many drives.
  void set_look_below(std::function<Result<SpaceBelow>()> look);
  void look_below();
  std::string file_system_below() const;  // empty: nothing is known, or nothing is below
  void share_below(unsigned drives) { sharers_below_.store(std::max(drives, 1u), std::memory_order_relaxed); }
  // Bytes that can be written until the space below ends, by this drive's share of it; UINT64_MAX: there is no such end.
  uint64_t room_below() const;
  uint64_t size_bytes() const { return size_.load(std::memory_order_relaxed); }  // of the device, by the last refresh
  // Slower than its peers by far (judged by the cluster once a second): reads go around it where they can.
  std::atomic<bool> slow{false};
  std::atomic<bool> slow_writes{false};  // the same of what it takes until something is durable; nothing goes around that

  LatencyStatistics read_latency, write_latency;
  std::atomic<uint64_t> reads_in_flight{0};

 private:
  enum class Ask : uint8_t { call, put, health };
  Result<void> usable(Ask ask) const;
  template <class R>
  struct CallOf final : CallList::Call {
    using Call::Call;
    bool is_answered() const override { return answer.has_value(); }
    void answer_with(const Error& error) override { answer.emplace(error); }
    std::optional<R> answer;
  };
  template <class Make>
  auto call(Make make, Ask ask = Ask::call) -> std::invoke_result_t<Make&, chunk::ChunkStore&>;
  template <class Make, class R>
  detail::Root perform(std::shared_ptr<CallOf<R>> call, Make make);
  detail::Root close_store(std::shared_ptr<CallOf<Result<void>>> call);
  template <class R>
  void conclude(CallOf<R>& call, R answer);
  void judge(const Error& error);
  void worsen(DriveCondition condition, std::string reason);
  void fail_with(std::string reason, Reason because);  // the store did

  const Identity identity_;
  const Uuid id_;
  const bool keeps_files_;
  std::unique_ptr<chunk::ChunkStore> store_;  // of the owner's thread; null once it was closed
  size_t at_work_ = 0;                        // of the owner's thread: calls that the store has not come back from
  Executor& owner_;
  std::atomic<DriveCondition> condition_{DriveCondition::up};
  std::atomic<bool> disabled_{false}, suspended_{false};
  std::atomic<bool> gone_{false}, taken_{false};  // for good: it is opened anew then
  std::atomic<bool> suspicious_{false};
  std::atomic<bool> closed_{false}, store_closed_{false};
  CallList calls_;
  std::atomic<size_t> left_behind_{0};
  std::function<void(Drive&)> listener_;
  struct Below {
    std::function<Result<SpaceBelow>()> look;
    std::atomic<bool> looking{false};
    std::mutex mutex;
    std::optional<SpaceBelow> seen;  // guarded
  };
  std::shared_ptr<Below> below_;  // also of the thread that looks; set before the drive is used
  std::atomic<unsigned> sharers_below_{1};
  std::atomic<int64_t> room_{INT64_MAX};
  std::atomic<uint64_t> size_{0};
  mutable std::mutex mutex_;  // guards what follows
  std::string reason_;
  std::string disabled_reason_, suspended_reason_, unwell_, last_error_;
  uint64_t failed_ = 0;  // within kTroubleLasts of each other
  TimePoint failed_at_{};
  uint64_t size_max_ = 0;  // the largest that it was
  chunk::SpaceReport space_;
  chunk::StoreHealth health_;
};

template <class Make>
auto Drive::call(Make make, Ask ask) -> std::invoke_result_t<Make&, chunk::ChunkStore&> {
  using R = typename std::invoke_result_t<Make&, chunk::ChunkStore&>::value_type;
  CO_TRY(usable(ask));
  const auto mine = std::make_shared<CallOf<R>>(Executor::here());
  mine->began = mine->home.now();
  mine->is_put = ask == Ask::put;
  calls_.add(*mine);
  perform(mine, std::move(make));
  co_await *mine;
  calls_.remove(*mine);
  co_return std::move(*mine->answer);
}

// The task is made on the owner's thread too: a store may look at its state before it returns one.
template <class Make, class R>
detail::Root Drive::perform(std::shared_ptr<CallOf<R>> call, Make make) {
  Make own = std::move(make);
  co_await owner_.enter();
  if (store_ == nullptr) {  // closed on the way here
    co_await call->home.enter();
    conclude<R>(*call, fail(Code::device_gone, "drive {} ({}) is closed", number(), path()));
    co_return;
  }
  ++at_work_;
  auto result = co_await own(*store_);
  --at_work_;
  if (!result && store_ != nullptr) judge(result.error());
  co_await call->home.enter();
  conclude(*call, std::move(result));
}

template <class R>
void Drive::conclude(CallOf<R>& call, R answer) {  // on the caller's executor
  if (call.answer) {
    left_behind_.fetch_sub(1);
    return;
  }
  call.answer.emplace(std::move(answer));
  call.wake();
}

}  // namespace quarry::cluster
