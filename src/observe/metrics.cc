// Layout: a series is a range of slots; a thread that counts has its own array of all slots (512 KiB of address space, of which only
// touched pages exist). Reading sums the arrays of live threads and of "retired", into which a thread's array is folded at its end.
#include "observe/metrics.h"

#include <sys/mman.h>

#include <mutex>

#include "base/check.h"

namespace quarry {
namespace {

constexpr size_t kSlotArrayBytes = kMetricSlotsMax * sizeof(uint64_t);
constexpr uint32_t kHistogramSlots = kHistogramBuckets + 1;  // buckets, then the sum in ns
// Slots that always exist.
constexpr uint32_t kOverflowCounter = 0;
constexpr uint32_t kOverflowHistogram = 1;
constexpr uint32_t kFirstFreeSlot = kOverflowHistogram + kHistogramSlots;

enum class Kind : uint8_t { counter, histogram };

struct Series {
  std::string labels;  // as exposed
  uint32_t slot;
};
struct Family {
  std::string name, help;
  Kind kind;
  std::vector<std::string> label_names;
  std::vector<Series> series;
  std::unordered_map<std::string, size_t> index;  // label values joined by 0x1f -> series
};
struct GaugeEntry {
  std::string name, help, labels;
  std::function<double()> read;
};

struct Registry {
  std::mutex mutex;
  std::vector<Family> families;
  std::map<std::string, size_t, std::less<>> by_name;
  std::map<uint64_t, GaugeEntry> gauges;
  std::vector<std::function<std::vector<metrics::CollectedFamily>()>> collectors;
  uint64_t next_gauge = 1;
  uint32_t next_slot = kFirstFreeSlot;
  std::vector<uint64_t*> live;
  std::vector<uint64_t> retired = std::vector<uint64_t>(kMetricSlotsMax);
  uint64_t dropped = 0;
};

// Never destroyed: threads may still count while the process ends.
Registry& registry() {
  static Registry* const instance = new Registry;
  return *instance;
}

uint64_t* new_slot_array() {
  void* const memory = mmap(nullptr, kSlotArrayBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED, "out of memory");
  return static_cast<uint64_t*>(memory);
}

uint64_t slot_sum(const Registry& r, uint32_t slot) {
  uint64_t sum = r.retired[slot];
  for (uint64_t* slots : r.live) sum += __atomic_load_n(slots + slot, __ATOMIC_RELAXED);
  return sum;
}

thread_local bool thread_is_ending = false;

struct ThreadSlots {
  uint64_t* slots = new_slot_array();
  ThreadSlots() {
    Registry& r = registry();
    const std::lock_guard lock(r.mutex);
    r.live.push_back(slots);
  }
  ~ThreadSlots() {
    thread_is_ending = true;
    detail::metric_slots = nullptr;
    Registry& r = registry();
    {
      const std::lock_guard lock(r.mutex);
      for (size_t i = 0; i < r.next_slot; ++i) r.retired[i] += slots[i];
      std::erase(r.live, slots);
    }
    munmap(slots, kSlotArrayBytes);
  }
};

constexpr auto kBounds = [] {
  std::array<uint64_t, kHistogramBuckets - 1> bounds{};
  for (size_t i = 0; i < bounds.size(); ++i) {
    const uint64_t octave = uint64_t{8'000} << (i / 2);
    bounds[i] = i % 2 == 0 ? octave : octave * 1414 / 1000;
  }
  return bounds;
}();

void escape_label(std::string_view value, std::string& out) {
  for (const char c : value) {
    if (c == '\\')
      out += "\\\\";
    else if (c == '"')
      out += "\\\"";
    else if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
}

bool valid_name(std::string_view name) {
  return !name.empty() && !(name[0] >= '0' && name[0] <= '9') &&
         std::ranges::all_of(name, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
}

uint32_t family_of(std::string_view name, std::string_view help, Kind kind, std::vector<std::string> label_names) {
  CHECK(valid_name(name), "metric names are lower case, digits and _");
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  if (const auto found = r.by_name.find(name); found != r.by_name.end()) {
    const Family& family = r.families[found->second];
    CHECK(family.kind == kind && family.label_names == label_names, "a metric is registered twice in different shape");
    return static_cast<uint32_t>(found->second);
  }
  r.families.push_back({std::string(name), std::string(help), kind, std::move(label_names), {}, {}});
  r.by_name.emplace(name, r.families.size() - 1);
  return static_cast<uint32_t>(r.families.size() - 1);
}

uint32_t series_slot(uint32_t family_index, std::span<const std::string_view> values) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  Family& family = r.families[family_index];
  CHECK(values.size() == family.label_names.size(), "a label value for each label name");
  std::string key;
  for (const std::string_view value : values) {
    key += value;
    key += '\x1f';
  }
  if (const auto found = family.index.find(key); found != family.index.end()) return family.series[found->second].slot;

  std::vector<std::string_view> labels(values.begin(), values.end());
  if (family.series.size() + 1 >= kSeriesPerFamilyMax && !values.empty()) {
    // The last place of a family is for everything that has no place of its own.
    ++r.dropped;
    key.clear();
    for (auto& label : labels) {
      label = "other";
      key += "other\x1f";
    }
    if (const auto found = family.index.find(key); found != family.index.end()) return family.series[found->second].slot;
  }
  const uint32_t need = family.kind == Kind::counter ? 1 : kHistogramSlots;
  if (r.next_slot + need > kMetricSlotsMax) {
    ++r.dropped;
    return family.kind == Kind::counter ? kOverflowCounter : kOverflowHistogram;
  }
  Series series{{}, r.next_slot};
  r.next_slot += need;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (i > 0) series.labels += ',';
    series.labels += family.label_names[i];
    series.labels += "=\"";
    escape_label(labels[i], series.labels);
    series.labels += '"';
  }
  family.index.emplace(std::move(key), family.series.size());
  family.series.push_back(std::move(series));
  return family.series.back().slot;
}

std::string number(double value) {
  if (value == static_cast<double>(static_cast<int64_t>(value)) && value < 1e15 && value > -1e15) {
    return fmt::format("{}", static_cast<int64_t>(value));
  }
  if (value != value) return "NaN";
  if (value > 1e308) return "+Inf";
  if (value < -1e308) return "-Inf";
  return fmt::format("{}", value);
}

std::string joined(std::string_view labels, std::string_view more) {
  if (labels.empty()) return std::string(more);
  return fmt::format("{},{}", labels, more);
}

std::string labels_text(const std::vector<std::pair<std::string, std::string>>& labels) {
  std::string text;
  for (const auto& [key, value] : labels) {
    if (!text.empty()) text += ',';
    text += key;
    text += "=\"";
    escape_label(value, text);
    text += '"';
  }
  return text;
}

struct Exposed {
  std::string name, help, type;
  std::vector<metrics::Sample> samples;
};

// Called with the lock held.
std::vector<Exposed> expose(Registry& r) {
  std::vector<Exposed> all;
  for (const Family& family : r.families) {
    Exposed exposed{family.name, family.help, family.kind == Kind::counter ? "counter" : "histogram", {}};
    for (const Series& series : family.series) {
      if (family.kind == Kind::counter) {
        exposed.samples.push_back({family.name, series.labels, static_cast<double>(slot_sum(r, series.slot))});
        continue;
      }
      uint64_t cumulative = 0;
      for (uint32_t i = 0; i < kHistogramBuckets; ++i) {
        cumulative += slot_sum(r, series.slot + i);
        const std::string bound = i < kBounds.size() ? fmt::format("{:.6g}", static_cast<double>(kBounds[i]) / 1e9) : "+Inf";
        exposed.samples.push_back(
            {family.name + "_bucket", joined(series.labels, fmt::format("le=\"{}\"", bound)), static_cast<double>(cumulative)});
      }
      exposed.samples.push_back(
          {family.name + "_sum", series.labels, static_cast<double>(slot_sum(r, series.slot + kHistogramBuckets)) / 1e9});
      exposed.samples.push_back({family.name + "_count", series.labels, static_cast<double>(cumulative)});
    }
    if (!exposed.samples.empty()) all.push_back(std::move(exposed));
  }
  std::map<std::string_view, Exposed> gauges;
  for (const auto& [id, gauge] : r.gauges) {
    Exposed& exposed = gauges[gauge.name];
    exposed.name = gauge.name;
    exposed.help = gauge.help;
    exposed.type = "gauge";
    exposed.samples.push_back({gauge.name, gauge.labels, gauge.read()});
  }
  for (auto& [name, exposed] : gauges) all.push_back(std::move(exposed));
  for (const auto& collect : r.collectors) {
    for (auto& family : collect()) {
      Exposed exposed{family.name, family.help, "counter", {}};
      for (const auto& sample : family.samples) exposed.samples.push_back({family.name, labels_text(sample.labels), sample.value});
      if (!exposed.samples.empty()) all.push_back(std::move(exposed));
    }
  }
  all.push_back({"metrics_series_dropped_total",
                 "Label sets that found no place of their own",
                 "counter",
                 {{"metrics_series_dropped_total", "", static_cast<double>(r.dropped)}}});
  return all;
}

}  // namespace

namespace detail {

constinit thread_local uint64_t* metric_slots = nullptr;

uint64_t* attach_metric_slots() {
  // Destructors of other thread-locals may still count after ours has run; that goes to a heap nobody reads.
  if (thread_is_ending) {
    static uint64_t* const kUnread = new_slot_array();
    return kUnread;
  }
  thread_local ThreadSlots mine;
  metric_slots = mine.slots;
  return metric_slots;
}

uint32_t histogram_bucket(uint64_t nanoseconds) {
  if (nanoseconds <= kBounds[0]) return 0;
  const auto octave = static_cast<uint32_t>(63 - __builtin_clzll(nanoseconds / kBounds[0]));
  uint32_t bucket = octave * 2;
  while (bucket < kBounds.size() && nanoseconds > kBounds[bucket]) ++bucket;
  return std::min<uint32_t>(bucket, kHistogramBuckets - 1);
}

}  // namespace detail

uint64_t Counter::value() const {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  return slot_sum(r, slot_);
}

uint64_t Histogram::count() const {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < kHistogramBuckets; ++i) sum += slot_sum(r, slot_ + i);
  return sum;
}
double Histogram::sum_seconds() const {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  return static_cast<double>(slot_sum(r, slot_ + kHistogramBuckets)) / 1e9;
}
double Histogram::quantile_seconds(double q) const {
  const uint64_t total = count();
  if (total == 0) return 0;
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  uint64_t cumulative = 0;
  for (uint32_t i = 0; i < kBounds.size(); ++i) {
    cumulative += slot_sum(r, slot_ + i);
    if (static_cast<double>(cumulative) >= q * static_cast<double>(total)) return static_cast<double>(kBounds[i]) / 1e9;
  }
  return std::numeric_limits<double>::infinity();
}

struct MetricsAccess {
  static Gauge make(uint64_t id) {
    Gauge gauge;
    gauge.id_ = id;
    return gauge;
  }
};
Gauge::Gauge(Gauge&& other) noexcept : id_(std::exchange(other.id_, 0)) {}
Gauge& Gauge::operator=(Gauge&& other) noexcept {
  std::swap(id_, other.id_);
  return *this;
}
Gauge::~Gauge() {
  if (id_ == 0) return;
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  r.gauges.erase(id_);
}

Counter CounterFamily::with(LabelValues values) const { return Counter(series_slot(family_, {values.begin(), values.size()})); }
Histogram HistogramFamily::with(LabelValues values) const { return Histogram(series_slot(family_, {values.begin(), values.size()})); }

namespace metrics {

Counter counter(std::string_view name, std::string_view help) { return CounterFamily(family_of(name, help, Kind::counter, {})).with({}); }
CounterFamily counter_family(std::string_view name, std::string_view help, std::vector<std::string> label_names) {
  return CounterFamily(family_of(name, help, Kind::counter, std::move(label_names)));
}
Histogram histogram(std::string_view name, std::string_view help) {
  return HistogramFamily(family_of(name, help, Kind::histogram, {})).with({});
}
HistogramFamily histogram_family(std::string_view name, std::string_view help, std::vector<std::string> label_names) {
  return HistogramFamily(family_of(name, help, Kind::histogram, std::move(label_names)));
}

Gauge gauge(std::string_view name, std::string_view help, std::vector<std::pair<std::string, std::string>> labels,
            std::function<double()> read) {
  CHECK(valid_name(name), "metric names are lower case, digits and _");
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const uint64_t id = r.next_gauge++;
  r.gauges.emplace(id, GaugeEntry{std::string(name), std::string(help), labels_text(labels), std::move(read)});
  return MetricsAccess::make(id);
}

void collector(std::function<std::vector<CollectedFamily>()> collect) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  r.collectors.push_back(std::move(collect));
}

std::vector<Sample> samples() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  std::vector<Sample> all;
  for (auto& exposed : expose(r)) std::ranges::move(exposed.samples, std::back_inserter(all));
  return all;
}

std::string prometheus_text() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  std::string out;
  for (const auto& exposed : expose(r)) {
    fmt::format_to(std::back_inserter(out), "# HELP {} {}\n# TYPE {} {}\n", exposed.name, exposed.help, exposed.name, exposed.type);
    for (const Sample& sample : exposed.samples) {
      if (sample.labels.empty()) {
        fmt::format_to(std::back_inserter(out), "{} {}\n", sample.name, number(sample.value));
      } else {
        fmt::format_to(std::back_inserter(out), "{}{{{}}} {}\n", sample.name, sample.labels, number(sample.value));
      }
    }
  }
  return out;
}

}  // namespace metrics
}  // namespace quarry
