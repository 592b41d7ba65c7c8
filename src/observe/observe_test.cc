#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "observe/metrics.h"
#include "observe/request_context.h"
#include "observe/usage.h"

namespace quarry {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using testing::HasSubstr;

TEST(Metrics, counts_of_all_threads_add_up_also_after_they_ended) {
  const Counter counter = metrics::counter("test_threads_total", "counts");
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([counter] {
      for (int i = 0; i < 10'000; ++i) counter.add();
    });
  }
  counter.add(5);
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(counter.value(), 80'005u);
  EXPECT_EQ(metrics::counter("test_threads_total", "counts").value(), 80'005u);
}

TEST(Metrics, a_histogram_sorts_durations_into_its_buckets) {
  const Histogram histogram = metrics::histogram("test_wait_seconds", "waits");
  for (int i = 0; i < 90; ++i) histogram.observe(microseconds(100));
  for (int i = 0; i < 10; ++i) histogram.observe(milliseconds(50));
  EXPECT_EQ(histogram.count(), 100u);
  EXPECT_NEAR(histogram.sum_seconds(), 0.509, 1e-9);
  EXPECT_GE(histogram.quantile_seconds(0.5), 100e-6);
  EXPECT_LE(histogram.quantile_seconds(0.5), 142e-6);
  EXPECT_GE(histogram.quantile_seconds(0.99), 0.050);
  EXPECT_LE(histogram.quantile_seconds(0.99), 0.071);
}

TEST(Metrics, buckets_are_monotone_and_cover_everything) {
  uint32_t previous = 0;
  for (uint64_t ns = 0; ns < 200'000'000'000; ns += 1 + ns / 50) {
    const uint32_t bucket = detail::histogram_bucket(ns);
    ASSERT_GE(bucket, previous);
    ASSERT_LT(bucket, kHistogramBuckets);
    previous = bucket;
  }
  EXPECT_EQ(previous, kHistogramBuckets - 1);
  EXPECT_EQ(detail::histogram_bucket(8'000), 0u);
  EXPECT_EQ(detail::histogram_bucket(8'001), 1u);
  EXPECT_EQ(detail::histogram_bucket(UINT64_MAX), kHistogramBuckets - 1);
}

TEST(Metrics, exposition_is_prometheus_text) {
  const auto family = metrics::counter_family("test_requests_total", "Requests", {"operation", "status"});
  family.with({"put_object", "200"}).add(3);
  family.with({"a\"b\\c\nd", "500"}).add();
  const Histogram histogram = metrics::histogram_family("test_request_seconds", "Time", {"operation"}).with({"get"});
  histogram.observe(microseconds(10));
  Gauge gauge = metrics::gauge("test_depth", "Depth", {{"queue", "a"}}, [] { return 2.5; });
  const std::string text = metrics::prometheus_text();
  EXPECT_THAT(text, HasSubstr("# HELP test_requests_total Requests\n# TYPE test_requests_total counter\n"));
  EXPECT_THAT(text, HasSubstr("test_requests_total{operation=\"put_object\",status=\"200\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("test_requests_total{operation=\"a\\\"b\\\\c\\nd\",status=\"500\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("test_request_seconds_bucket{operation=\"get\",le=\"8e-06\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("test_request_seconds_bucket{operation=\"get\",le=\"+Inf\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("test_request_seconds_count{operation=\"get\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE test_depth gauge\ntest_depth{queue=\"a\"} 2.5\n"));
  gauge = Gauge();
  EXPECT_THAT(metrics::prometheus_text(), testing::Not(HasSubstr("test_depth{")));
}

TEST(Metrics, label_sets_are_bounded) {
  const auto family = metrics::counter_family("test_bounded_total", "Bounded", {"name"});
  for (int i = 0; i < 2000; ++i) family.with({fmt::format("n{}", i)}).add();
  size_t series = 0;
  double total = 0;
  for (const auto& sample : metrics::samples()) {
    if (sample.name != "test_bounded_total") continue;
    ++series;
    total += sample.value;
  }
  EXPECT_EQ(series, kSeriesPerFamilyMax);
  EXPECT_EQ(total, 2000);
}

TEST(RequestContext, ids_differ_and_print) {
  const RequestId a = new_request_id(), b = new_request_id();
  EXPECT_FALSE(a == b);
  EXPECT_EQ(a.to_string().size(), 32u);
  EXPECT_EQ(a.short_id().size(), 16u);
  EXPECT_EQ((RequestId{0x1234abcd, 1}).short_id(), "000000001234ABCD");
}

TEST(RequestContext, a_deadline_expires) {
  RequestContext context = RequestContext::system("test");
  EXPECT_EQ(context.work_class, WorkClass::background);
  EXPECT_FALSE(context.expired(RequestContext::TimePoint(std::chrono::hours(1000))));
  context.deadline = RequestContext::TimePoint(std::chrono::seconds(5));
  EXPECT_FALSE(context.expired(RequestContext::TimePoint(std::chrono::seconds(4))));
  EXPECT_TRUE(context.expired(RequestContext::TimePoint(std::chrono::seconds(5))));
}

RequestContext by(std::string user, std::string job) {
  RequestContext context;
  context.identity.user = std::move(user);
  context.attribution.job = std::move(job);
  return context;
}
const UsageRow* row_of(const std::vector<UsageRow>& rows, std::string_view user, std::string_view job) {
  for (const auto& row : rows) {
    if (row.user == user && row.attribution.job == job) return &row;
  }
  return nullptr;
}

TEST(Usage, adds_up_over_threads_and_kinds) {
  const auto count = [] { count_usage(by("ann", "train"), UsageKind::read, {.requests = 1, .bytes_out = 10, .microseconds = 5}); };
  count();
  std::thread(count).join();
  count_usage(by("ann", "train"), UsageKind::write, {.requests = 1, .errors = 1, .bytes_in = 7});
  const auto rows = usage();
  const UsageRow* row = row_of(rows, "ann", "train");
  ASSERT_NE(row, nullptr);
  EXPECT_EQ(row->counts[0].requests, 2u);
  EXPECT_EQ(row->sum().requests, 3u);
  EXPECT_EQ(row->sum().errors, 1u);
  EXPECT_EQ(row->sum().bytes_in, 7u);
  EXPECT_EQ(row->sum().bytes_out, 20u);
  EXPECT_THAT(metrics::prometheus_text(),
              HasSubstr("job_sent_bytes_total{user=\"ann\",tenant=\"\",team=\"\",project=\"\",job=\"train\",operation=\"read\"} 20\n"));
}

TEST(Usage, rows_are_bounded_and_sums_stay_true) {
  const auto total = [] {
    uint64_t requests = 0;
    for (const auto& row : usage()) requests += row.sum().requests;
    return requests;
  };
  const uint64_t before = total();
  std::thread([] {
    for (int round = 0; round < 3; ++round) {
      for (int job = 0; job < 1000; ++job) {
        count_usage(by("bob", "job-" + std::to_string(job)), UsageKind::read, {.requests = 1});
        count_usage(by("bob", "busy"), UsageKind::read, {.requests = 1});
      }
    }
  }).join();
  EXPECT_EQ(total(), before + 6000);
  const auto rows = usage();
  EXPECT_LE(rows.size(), 2 * kUsageRowsMax + 1);
  ASSERT_NE(row_of(rows, "bob", "busy"), nullptr);
  EXPECT_EQ(row_of(rows, "bob", "busy")->sum().requests, 3000u);  // what is used stays
  ASSERT_NE(row_of(rows, kUsageOther, kUsageOther), nullptr);
}

TEST(Usage, an_anonymous_claim_is_not_believed) {
  count_usage(by("", "forged"), UsageKind::read, {.requests = 1});
  EXPECT_EQ(row_of(usage(), "", "forged"), nullptr);
}

}  // namespace
}  // namespace quarry
