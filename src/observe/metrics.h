// Metrics: counters, latency histograms and gauges in one process-wide registry, exposed in Prometheus' text format.
// Counting touches only memory of the calling thread (1-2 ns, no shared cache line); reading sums over the threads.
// Names are `module_noun_unit`: chunk_bytes_written_total, s3_request_seconds, io_queue_depth. Counters end in _total.
//
//   static const Counter bytes = metrics::counter("chunk_bytes_written_total", "Payload bytes written to drives");
//   bytes.add(n);
//   static const CounterFamily requests = metrics::counter_family("s3_requests_total", "Requests answered", {"operation", "status"});
//   requests.with({"put_object", "200"}).add();     // a map look-up under a lock: keep the Counter where the path is hot
//
// Handles are small values; they stay valid for the life of the process. Thread-safe throughout.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"

namespace quarry {

// Slots (8 bytes per thread each): a counter takes 1, a histogram kHistogramBuckets + 1. When they are used up, further series share one
// "overflow" slot of their kind and metrics_series_dropped_total counts them.
inline constexpr size_t kMetricSlotsMax = 64 * 1024;
// Series in one family; beyond it, with() answers the series whose labels are all "other".
inline constexpr size_t kSeriesPerFamilyMax = 512;
// Upper bounds 8 us * 2^(i/2), rounded: 2 per octave up to 67 s, then +Inf.
inline constexpr size_t kHistogramBuckets = 48;

namespace detail {
extern constinit thread_local uint64_t* metric_slots;  // this thread's slots, or null before its first count
uint64_t* attach_metric_slots();
inline void count(uint32_t slot, uint64_t n) {
  uint64_t* slots = metric_slots;
  if (slots == nullptr) [[unlikely]]
    slots = attach_metric_slots();
  // Only this thread writes the slot, others read it: a relaxed store of a plain sum is enough.
  __atomic_store_n(slots + slot, __atomic_load_n(slots + slot, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
uint32_t histogram_bucket(uint64_t nanoseconds);
}  // namespace detail

// Only grows.
class Counter {
 public:
  explicit Counter(uint32_t slot) : slot_(slot) {}
  void add(uint64_t n = 1) const { detail::count(slot_, n); }
  uint64_t value() const;  // summed over threads: for tests and status pages

 private:
  uint32_t slot_;
};

// Distribution of a duration.
class Histogram {
 public:
  explicit Histogram(uint32_t first_slot) : slot_(first_slot) {}
  void observe(Duration duration) const {
    const uint64_t ns = duration.count() > 0 ? static_cast<uint64_t>(duration.count()) : 0;
    detail::count(slot_ + detail::histogram_bucket(ns), 1);
    detail::count(slot_ + kHistogramBuckets, ns);
  }
  uint64_t count() const;
  double sum_seconds() const;
  // Upper bound of the bucket in which the q-quantile lies, seconds; 0 when empty.
  double quantile_seconds(double q) const;

 private:
  uint32_t slot_;
};

// A number asked for at scrape time. Unregisters when destroyed; the callback runs on the scraping thread, under the registry's lock,
// and must not call into the registry.
class Gauge {
 public:
  Gauge() = default;
  Gauge(Gauge&&) noexcept;
  Gauge& operator=(Gauge&&) noexcept;
  ~Gauge();

 private:
  friend struct MetricsAccess;
  uint64_t id_ = 0;
};

using LabelValues = std::initializer_list<std::string_view>;

class CounterFamily {
 public:
  explicit CounterFamily(uint32_t family) : family_(family) {}
  Counter with(LabelValues values) const;  // as many as the family has label names

 private:
  uint32_t family_;
};
class HistogramFamily {
 public:
  explicit HistogramFamily(uint32_t family) : family_(family) {}
  Histogram with(LabelValues values) const;

 private:
  uint32_t family_;
};

namespace metrics {

// Registering a name again gives the same series; with another kind or other label names it is a bug (CHECK).
Counter counter(std::string_view name, std::string_view help);
CounterFamily counter_family(std::string_view name, std::string_view help, std::vector<std::string> label_names);
Histogram histogram(std::string_view name, std::string_view help);
HistogramFamily histogram_family(std::string_view name, std::string_view help, std::vector<std::string> label_names);
// labels: name, value pairs.
Gauge gauge(std::string_view name, std::string_view help, std::vector<std::pair<std::string, std::string>> labels,
            std::function<double()> read);

// Counters that live elsewhere and are asked for at scrape time, with their labels (name, value). For sets that come and go.
struct CollectedSample {
  std::vector<std::pair<std::string, std::string>> labels;
  double value = 0;
};
struct CollectedFamily {
  std::string name, help;
  std::vector<CollectedSample> samples;
};
// Registered for the life of the process. The callback runs on the scraping thread and must not call into the registry.
void collector(std::function<std::vector<CollectedFamily>()> collect);

// One sample as exposed, for JSON and tests.
struct Sample {
  std::string name;    // with suffix: x_bucket, x_sum, x_count for histograms
  std::string labels;  // `operation="put_object",le="0.001"`, escaped, or empty
  double value = 0;
};
std::vector<Sample> samples();

// Prometheus text exposition format 0.0.4; content type kPrometheusContentType.
std::string prometheus_text();
inline constexpr std::string_view kPrometheusContentType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace metrics
}  // namespace quarry
