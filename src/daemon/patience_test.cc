#include "daemon/patience.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "io/needs_ring.h"

namespace quarry::daemon {
namespace {

using std::chrono::milliseconds;

// A directory that answers, and work on it that comes back when the test says so.
class Patience : public NeedsRing {
 public:
  void SetUp() override {
    NeedsRing::SetUp();
    if (IsSkipped()) return;
    auto loop = RingExecutor::create();
    ASSERT_TRUE(loop) << loop.error().to_string();
    loop_ = std::move(*loop);
    std::string name = "/var/tmp/quarry-patience-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    auto spec = parse_drive_spec("dir:" + folder_);
    ASSERT_TRUE(spec) << spec.error().to_string();
    spec_ = *spec;
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
    NeedsRing::TearDown();
  }

  struct Drive {
    Event answers;
    Duration silent{};  // as its device says
    int opened = 0, closed = 0;
  };
  static Task<Result<int>> open(Drive* drive) {
    co_await drive->answers.wait();
    ++drive->opened;
    co_return 7;
  }
  static Task<Result<int>> fails(Drive*) { co_return fail(Code::corrupt, "no store there"); }
  Task<Result<int>> attempt(Drive* drive, Task<Result<int>> work, Duration patience, const Event* ending = nullptr) {
    return while_it_answers<int>(
        spec_, *loop_, patience, std::move(work),
        [drive](int) -> Task<void> {
          return [](Drive* which) -> Task<void> {
            ++which->closed;
            co_return;
          }(drive);
        },
        [drive] { return drive->silent; }, ending);
  }

  std::unique_ptr<RingExecutor> loop_;
  std::string folder_;
  DriveSpec spec_;
};

TEST_F(Patience, a_drive_that_answers_is_opened_or_its_error_told) {
  Drive drive;
  drive.answers.set();
  const Result<int> opened = loop_->run(attempt(&drive, open(&drive), std::chrono::seconds(60)));
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_EQ(*opened, 7);
  const Result<int> failed = loop_->run(attempt(&drive, fails(&drive), std::chrono::seconds(60)));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), Code::corrupt);
  EXPECT_EQ(drive.closed, 0);
  EXPECT_EQ(WorkApart::under_way(), 0u);
}

TEST_F(Patience, opening_may_take_any_time_while_the_drive_answers) {
  Drive drive;
  const Result<int> opened = loop_->run([](Patience* self, Drive* which) -> Task<Result<int>> {
    TaskGroup later;
    later.spawn([](Drive* one) -> Task<void> {
      co_await sleep_for(milliseconds(400));
      one->answers.set();
    }(which));
    Result<int> result = co_await self->attempt(which, open(which), milliseconds(10));
    co_await later.join();
    co_return result;
  }(this, &drive));
  ASSERT_TRUE(opened) << opened.error().to_string();
}

TEST_F(Patience, a_drive_that_hangs_is_left_alone_refused_and_closed_when_it_comes_back) {
  Drive drive;
  drive.silent = std::chrono::seconds(100);
  const Result<int> hung = loop_->run(attempt(&drive, open(&drive), std::chrono::seconds(50)));
  ASSERT_FALSE(hung);
  EXPECT_EQ(hung.error().code(), Code::timed_out) << hung.error().to_string();
  EXPECT_EQ(WorkApart::under_way(), 1u) << "the process can only end at once";

  Drive second;
  const Result<int> refused = loop_->run(attempt(&second, open(&second), std::chrono::seconds(50)));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::busy) << "two openings of one drive would be open at once when it comes back";
  EXPECT_EQ(second.opened, 0);

  loop_->run([](Drive* which) -> Task<void> {
    which->answers.set();
    for (int i = 0; i < 10'000 && WorkApart::under_way() > 0; ++i) co_await sleep_for(milliseconds(1));
  }(&drive));
  EXPECT_EQ(WorkApart::under_way(), 0u);
  EXPECT_EQ(drive.opened, 1);
  EXPECT_EQ(drive.closed, 1) << "what came too late is closed";

  Drive third;
  third.answers.set();
  const Result<int> opened = loop_->run(attempt(&third, open(&third), std::chrono::seconds(50)));
  EXPECT_TRUE(opened) << opened.error().to_string();
}

TEST_F(Patience, ends_with_the_node_for_a_drive_that_has_been_silent_for_a_moment) {
  Drive drive;
  drive.silent = 2 * kEndPatience;
  Event ending;
  const Result<int> left = loop_->run([](Patience* self, Drive* which, Event* end) -> Task<Result<int>> {
    TaskGroup later;
    later.spawn([](Event* one) -> Task<void> {
      co_await sleep_for(milliseconds(300));
      one->set();
    }(end));
    Result<int> result = co_await self->attempt(which, open(which), std::chrono::hours(1), end);
    co_await later.join();
    co_return result;
  }(this, &drive, &ending));
  ASSERT_FALSE(left);
  EXPECT_EQ(left.error().code(), Code::timed_out) << left.error().to_string();
  loop_->run([](Drive* which) -> Task<void> {
    which->answers.set();
    for (int i = 0; i < 10'000 && WorkApart::under_way() > 0; ++i) co_await sleep_for(milliseconds(1));
  }(&drive));
  EXPECT_EQ(WorkApart::under_way(), 0u);
  EXPECT_EQ(drive.closed, 1) << "what came too late is closed";

  Drive sound;  // silent for no moment
  sound.answers.set();
  const Result<int> opened = loop_->run(attempt(&sound, open(&sound), std::chrono::hours(1), &ending));
  EXPECT_TRUE(opened) << opened.error().to_string();
}

TEST_F(Patience, a_path_that_is_not_there_answers_too) {
  std::filesystem::remove_all(folder_);
  Drive drive;
  const Result<int> failed = loop_->run(attempt(&drive, fails(&drive), std::chrono::seconds(60)));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), Code::corrupt) << "the opening says what is wrong, not the pulse";
}

TEST_F(Patience, a_pulse_is_silent_only_while_a_beat_is_under_way) {
  loop_->run([](DriveSpec spec) -> Task<void> {
    Pulse pulse(spec);
    for (int i = 0; i < 10'000 && !pulse.answered(); ++i) co_await sleep_for(milliseconds(1));
    EXPECT_TRUE(pulse.answered());
    EXPECT_LT(pulse.silent_for(Executor::here().now()), std::chrono::seconds(20));
  }(spec_));
}

}  // namespace
}  // namespace quarry::daemon
