#include "io/sim/crash_recorder.h"

#include "base/check.h"

namespace quarry {
namespace {
constexpr uint64_t kNever = UINT64_MAX;

uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
}  // namespace

struct CrashTimeline::Recorded : SimDiskObserver {
  struct Write {
    SimWrite write;
    uint64_t issued = 0;  // event index
    uint64_t completed = kNever;
    bool ok = false;
    uint64_t stable = kNever;  // the event that made it stable
  };
  struct Flush {
    uint64_t number = 0;
    uint64_t issued = 0;
  };
  CrashTimeline& timeline;
  SimDisk* disk;
  uint32_t index;
  SimDisk::Options options;
  PageImage base;
  std::vector<Write> writes;  // in order of issue
  std::vector<Flush> flushes;

  Recorded(CrashTimeline& t, SimDisk& d, uint32_t i) : timeline(t), disk(&d), index(i), options(d.options()), base(d.contents()) {
    options.size = base.size();
    for (const SimWrite& write : d.writes_in_flight()) write_issued(write);
    d.set_observer(this);
  }
  ~Recorded() override { stop(); }
  void stop() {
    if (disk != nullptr) disk->set_observer(nullptr);
    disk = nullptr;
  }
  Write* find(uint64_t number) {
    const auto it =
        std::lower_bound(writes.begin(), writes.end(), number, [](const Write& w, uint64_t wanted) { return w.write.number < wanted; });
    return it != writes.end() && it->write.number == number ? &*it : nullptr;
  }
  uint64_t add_event(Kind kind, bool ok, uint64_t event_index) {
    timeline.events_.push_back({kind, ok, index, event_index});
    return timeline.events_.size() - 1;
  }

  void write_issued(const SimWrite& write) override {
    const uint64_t event = add_event(Kind::write_issued, true, writes.size());
    writes.push_back({write, event});
  }
  void write_completed(uint64_t number, bool ok) override {
    Write* write = find(number);
    if (write == nullptr) return;  // issued before recording began
    write->completed = add_event(Kind::write_completed, ok, static_cast<uint64_t>(write - writes.data()));
    write->ok = ok;
    if (ok && (write->write.durability == Durability::durable || !options.volatile_cache)) write->stable = write->completed;
  }
  void flush_issued(uint64_t number) override {
    const uint64_t event = add_event(Kind::flush_issued, true, flushes.size());
    flushes.push_back({number, event});
  }
  void flush_completed(uint64_t number, bool ok) override {
    const auto it = std::find_if(flushes.rbegin(), flushes.rend(), [number](const Flush& flush) { return flush.number == number; });
    if (it == flushes.rend()) return;
    const uint64_t event = add_event(Kind::flush_completed, ok, static_cast<uint64_t>(&*it - flushes.data()));
    if (!ok) return;
    for (auto write = writes.rbegin(); write != writes.rend(); ++write) {
      if (write->ok && write->completed < it->issued && write->stable == kNever) write->stable = event;
    }
  }
};

CrashTimeline::CrashTimeline() = default;
CrashTimeline::~CrashTimeline() = default;

size_t CrashTimeline::record(SimDisk& disk) {
  disks_.push_back(std::make_unique<Recorded>(*this, disk, static_cast<uint32_t>(disks_.size())));
  return disks_.size() - 1;
}
void CrashTimeline::stop_recording() {
  for (auto& disk : disks_) disk->stop();
}
void CrashTimeline::note(std::string text, uint64_t tag) {
  notes_.push_back({events_.size(), std::move(text), tag});
  events_.push_back({Kind::note, true, 0, notes_.size() - 1});
}

bool CrashImage::noted(std::string_view text) const {
  return std::any_of(notes.begin(), notes.end(), [text](const CrashNote& note) { return note.text == text; });
}
bool CrashImage::noted(uint64_t tag) const {
  return std::any_of(notes.begin(), notes.end(), [tag](const CrashNote& note) { return note.tag == tag; });
}

// ---------------------------------------------------------------- enumeration

// The remains of the pending writes of one cut, in the order of Cut::pending.
struct CrashEnumerator::Choice {
  std::vector<TornWrite> remains;
};

struct CrashEnumerator::Cut {
  uint64_t at = 0;
  uint64_t notes = 0;
  struct Pending {
    uint32_t disk;
    uint64_t write;
  };
  std::vector<Pending> pending;
  std::vector<uint64_t> stable_prefix;  // per disk: that many leading writes are all stable
};

struct CrashEnumerator::State {
  static constexpr uint64_t kCheckpointEvery = 64;
  std::vector<uint64_t> order;  // of cuts, shuffled
  size_t position = 0;          // in order
  uint64_t round = 0;           // 0: all kept, all dropped; 1: all subsets; 2..: samples
  uint64_t step = 0;            // within this cut and round
  uint64_t found_in_round = 0;
  std::optional<Cut> cut;
  std::unordered_set<uint64_t> seen;
  // Per disk: contents after the first i * kCheckpointEvery writes.
  std::vector<std::vector<PageImage>> checkpoints;

  Cut make_cut(const CrashTimeline& timeline, uint64_t at) const;
  uint64_t steps(const Options& options) const;
  Choice choose(const CrashTimeline& timeline, const Options& options) const;
  uint64_t key(const CrashTimeline& timeline, const Choice& choice) const;
  CrashImage build(const CrashTimeline& timeline, const Choice& choice) const;
};

CrashEnumerator::CrashEnumerator(const CrashTimeline& timeline, Options options)
    : timeline_(timeline), options_(options), state_(std::make_unique<State>()) {
  for (uint64_t at = options.first_cut; at <= timeline.events(); ++at) state_->order.push_back(at);
  for (size_t i = state_->order.size(); i > 1; --i) std::swap(state_->order[i - 1], state_->order[mix(options.seed ^ i) % i]);
  for (const auto& disk : timeline.disks_) {
    PageImage image = disk->base;
    std::vector<PageImage> checkpoints;
    for (uint64_t i = 0; i < disk->writes.size(); ++i) {
      if (i % State::kCheckpointEvery == 0) checkpoints.push_back(image);
      disk->writes[i].write.apply(image);
    }
    if (disk->writes.size() % State::kCheckpointEvery == 0) checkpoints.push_back(image);
    state_->checkpoints.push_back(std::move(checkpoints));
  }
}
CrashEnumerator::~CrashEnumerator() = default;

CrashEnumerator::Cut CrashEnumerator::State::make_cut(const CrashTimeline& timeline, uint64_t at) const {
  Cut made;
  made.at = at;
  for (const auto& note : timeline.notes_) made.notes += note.event < at;
  for (const auto& disk : timeline.disks_) {
    uint64_t prefix = 0;
    bool all_stable = true;
    for (uint64_t i = 0; i < disk->writes.size() && disk->writes[i].issued < at; ++i) {
      if (disk->writes[i].stable < at) {
        if (all_stable) prefix = i + 1;
        continue;
      }
      all_stable = false;
      made.pending.push_back({disk->index, i});
    }
    made.stable_prefix.push_back(prefix);
  }
  return made;
}

uint64_t CrashEnumerator::State::steps(const Options& options) const {
  const size_t pending = cut->pending.size();
  if (round == 0) return pending == 0 ? 1 : 2;
  if (pending == 0) return 0;
  if (round == 1) return pending <= options.exhaustive_pending_max ? 1ull << pending : 0;
  return options.samples_per_cut;
}

CrashEnumerator::Choice CrashEnumerator::State::choose(const CrashTimeline& timeline, const Options& options) const {
  Choice choice;
  const uint64_t seed = mix(mix(options.seed ^ cut->at) ^ (round << 32) ^ step);
  const uint64_t keep_of_16 = std::array<uint64_t, 4>{2, 8, 8, 14}[seed % 4];
  for (size_t i = 0; i < cut->pending.size(); ++i) {
    TornWrite torn;
    if (round == 0) {
      torn.kind = step == 0 ? TornWrite::Kind::kept : TornWrite::Kind::dropped;
    } else if (round == 1) {
      torn.kind = (step >> i) & 1 ? TornWrite::Kind::kept : TornWrite::Kind::dropped;
    } else {
      const auto& disk = *timeline.disks_[cut->pending[i].disk];
      const uint64_t dice = mix(seed + i);
      torn.kind = dice % 16 < keep_of_16 ? TornWrite::Kind::kept : TornWrite::Kind::dropped;
      // With few pending writes most of them tear, with many about one in four: a store is to see torn and whole ones mixed.
      const uint64_t tear_of_16 = cut->pending.size() <= 4 ? 12 : 4;
      if (options.tear && (dice >> 8) % 16 < tear_of_16) {
        torn = TornWrite::draw(mix(dice), disk.writes[cut->pending[i].write].write.length, disk.options.atomic_write);
      }
    }
    choice.remains.push_back(torn);
  }
  return choice;
}

// Equal keys: equal contents and notes. Writes that stayed whole count the same whether they were stable or pending.
uint64_t CrashEnumerator::State::key(const CrashTimeline& timeline, const Choice& choice) const {
  uint64_t key = mix(cut->notes);
  size_t next = 0;
  for (const auto& disk : timeline.disks_) {
    for (uint64_t i = 0; i < disk->writes.size() && disk->writes[i].issued < cut->at; ++i) {
      TornWrite torn;
      if (next < cut->pending.size() && cut->pending[next].disk == disk->index && cut->pending[next].write == i)
        torn = choice.remains[next++];
      if (torn.kind == TornWrite::Kind::dropped) continue;
      uint64_t part = mix((static_cast<uint64_t>(disk->index) << 48) ^ i);
      if (torn.kind != TornWrite::Kind::kept) {
        part = mix(part ^ static_cast<uint64_t>(torn.kind) ^ (static_cast<uint64_t>(torn.sector) << 8) ^ (torn.sectors << 24) ^
                   mix(torn.seed));
      }
      key ^= part;
    }
  }
  return key;
}

CrashImage CrashEnumerator::State::build(const CrashTimeline& timeline, const Choice& choice) const {
  CrashImage image;
  image.cut = cut->at;
  image.notes.assign(timeline.notes_.begin(), timeline.notes_.begin() + static_cast<ptrdiff_t>(cut->notes));
  image.description = fmt::format("cut {} of {}", cut->at, timeline.events());
  size_t next = 0;
  for (const auto& disk : timeline.disks_) {
    const uint64_t prefix = cut->stable_prefix[disk->index];
    const uint64_t checkpoint = prefix / kCheckpointEvery;
    PageImage contents = checkpoints[disk->index][checkpoint];
    for (uint64_t i = checkpoint * kCheckpointEvery; i < disk->writes.size() && disk->writes[i].issued < cut->at; ++i) {
      TornWrite torn;
      if (next < cut->pending.size() && cut->pending[next].disk == disk->index && cut->pending[next].write == i) {
        torn = choice.remains[next++];
        const auto& write = disk->writes[i].write;
        image.description += fmt::format("; {} {} #{} at {}+{} {}", disk->options.path, write.data ? "write" : "discard", write.number,
                                         write.offset, write.length, torn.to_string());
      }
      disk->writes[i].write.apply(contents, torn);
    }
    image.disks.push_back(SimDisk::create(disk->options, std::move(contents)));
  }
  return image;
}

std::optional<CrashImage> CrashEnumerator::next() {
  State& s = *state_;
  while (produced_ < options_.images_max) {
    if (s.position == s.order.size()) {
      // A round of samples that found nothing new: the space is exhausted, or as good as.
      if (s.round >= 2 && s.found_in_round == 0) return std::nullopt;
      ++s.round;
      s.position = 0;
      s.found_in_round = 0;
      s.cut.reset();
      if (s.order.empty()) return std::nullopt;
    }
    if (!s.cut) {
      s.cut = s.make_cut(timeline_, s.order[s.position]);
      s.step = 0;
    }
    if (s.step >= s.steps(options_)) {
      ++s.position;
      s.cut.reset();
      continue;
    }
    const Choice choice = s.choose(timeline_, options_);
    ++s.step;
    if (!s.seen.insert(s.key(timeline_, choice)).second) continue;
    ++s.found_in_round;
    ++produced_;
    return s.build(timeline_, choice);
  }
  return std::nullopt;
}

}  // namespace quarry
