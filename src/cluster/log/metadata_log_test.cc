#include "cluster/log/metadata_log.h"

#include <gtest/gtest.h>

#include "cluster/testing/memory_chunk_store.h"
#include "io/sim/sim_executor.h"

namespace quarry::cluster {
namespace {

class MetadataLogTest : public ::testing::Test {
 protected:
  void make(size_t count) {
    for (size_t i = 0; i < count; ++i) media.push_back(std::make_shared<MemoryMedium>(i + 1));
  }
  // Opens over the drives whose media are not gone; the others count as absent.
  Result<void> open(unsigned copies, bool accept_loss = false) {
    close();
    MetadataLogOptions options;
    for (size_t i = 0; i < media.size(); ++i) {
      const auto number = static_cast<uint32_t>(i + 1);
      if (media[i]->gone) {
        options.absent.push_back({number, domain_of(number)});
        continue;
      }
      drives.push_back(std::make_unique<Drive>(Drive::Identity{number, fmt::format("mem{}", number), domain_of(number)},
                                               std::make_unique<MemoryChunkStore>(media[i]), executor));
      options.drives.push_back(drives.back().get());
    }
    options.copies = copies;
    options.blocking_pool = pool.get();
    options.accept_loss = accept_loss;
    auto opened = executor.run(MetadataLog::open(std::move(options)));
    if (!opened) return std::move(opened).error();
    log = std::move(*opened);
    return {};
  }
  void close() {
    log.reset();
    drives.clear();
  }
  std::string domain_of(uint32_t number) const {
    return number <= domains.size() ? std::string(1, domains[number - 1]) : fmt::format("d{}", number);
  }
  Result<void> append(meta::FrameNumber number, std::string text) { return executor.run(log->append(number, {bytes_of(text)})); }
  std::string read(meta::FrameNumber number) {
    auto bytes = executor.run(log->read(number));
    return bytes ? std::string(text_of(*bytes)) : bytes.error().to_string();
  }
  size_t holders(ChunkKind kind, uint64_t serial) {
    size_t count = 0;
    for (auto& medium : media) {
      if (medium->gone) continue;
      for (ChunkId id : medium->of_kind(kind)) count += chunk_name(id).serial == serial;
    }
    return count;
  }
  Result<meta::CheckpointFile> store(std::string name, std::string content) {
    return executor.run(log->store_file(std::move(name), content.size(), [content](uint64_t offset, size_t length) -> Result<Buffer> {
      return Buffer::copy_of(bytes_of(std::string_view(content).substr(offset, length)));
    }));
  }

  SimExecutor executor;
  const std::unique_ptr<BlockingPool> pool = executor.make_pool("test", 1);
  std::string domains;  // by drive, a letter each; of others: each its own
  std::vector<std::shared_ptr<MemoryMedium>> media;
  std::vector<std::unique_ptr<Drive>> drives;
  std::unique_ptr<MetadataLog> log;
};

TEST_F(MetadataLogTest, frames_come_back_in_order_after_a_reopen) {
  make(5);
  ASSERT_TRUE(open(3));
  EXPECT_EQ(log->last_frame(), 0u);
  for (int i = 1; i <= 20; ++i) ASSERT_TRUE(append(i, fmt::format("frame {}", i)));
  for (int i = 1; i <= 20; ++i) EXPECT_EQ(holders(ChunkKind::metadata_frame, i), 3u);
  ASSERT_TRUE(open(3));
  ASSERT_EQ(log->last_frame(), 20u);
  for (int i = 1; i <= 20; ++i) EXPECT_EQ(read(i), fmt::format("frame {}", i));
}

TEST_F(MetadataLogTest, acknowledged_frames_survive_the_loss_of_any_m_drives) {
  make(5);
  ASSERT_TRUE(open(3));
  for (int i = 1; i <= 12; ++i) ASSERT_TRUE(append(i, fmt::format("frame {}", i)));
  close();
  for (size_t a = 0; a < 5; ++a) {
    for (size_t b = a + 1; b < 5; ++b) {
      media[a]->gone = media[b]->gone = true;
      ASSERT_TRUE(open(3)) << a << b;
      EXPECT_EQ(log->last_frame(), 12u);
      for (int i = 1; i <= 12; ++i) {
        EXPECT_EQ(read(i), fmt::format("frame {}", i));
        EXPECT_EQ(holders(ChunkKind::metadata_frame, i), 3u) << "brought back to three copies before it is served";
      }
      media[a]->gone = media[b]->gone = false;
    }
  }
}

TEST_F(MetadataLogTest, too_many_absent_drives_are_refused_with_their_names) {
  make(5);
  ASSERT_TRUE(open(3));
  ASSERT_TRUE(append(1, "x"));
  for (int i : {0, 2, 4}) media[i]->gone = true;
  auto refused = open(3);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::data_lost);
  EXPECT_NE(refused.error().context().find("drives 1, 3, 5 are absent"), std::string::npos) << refused.error().to_string();
  EXPECT_NE(refused.error().context().find("at least 1 of them"), std::string::npos) << refused.error().to_string();
}

TEST_F(MetadataLogTest, a_frame_on_a_single_surviving_drive_is_kept_and_copied) {
  make(4);
  ASSERT_TRUE(open(3));
  ASSERT_TRUE(append(1, "acknowledged"));
  // The crash comes when one of three copies is there.
  for (size_t i = 1; i < 4; ++i) media[i]->fail_puts = 100;
  // The rotation decides who is first: one drive succeeds at most, and the append fails.
  EXPECT_FALSE(append(2, "in flight"));
  const size_t landed = holders(ChunkKind::metadata_frame, 2);
  ASSERT_EQ(landed, 1u);
  for (auto& medium : media) medium->fail_puts = 0;
  ASSERT_TRUE(open(3));
  EXPECT_EQ(log->last_frame(), 2u);
  EXPECT_EQ(holders(ChunkKind::metadata_frame, 2), 3u);
  EXPECT_EQ(read(2), "in flight");
}

TEST_F(MetadataLogTest, a_returning_drive_does_not_bring_back_frames_of_an_older_epoch) {
  make(4);
  ASSERT_TRUE(open(2));
  ASSERT_TRUE(append(1, "one"));
  // Frame 2 lands on drive 1 alone; then drive 1 is away.
  for (size_t i = 1; i < 4; ++i) media[i]->fail_puts = 100;
  EXPECT_FALSE(append(2, "stale two"));
  ASSERT_EQ(media[0]->of_kind(ChunkKind::metadata_frame).back(),
            chunk_id({.kind = ChunkKind::metadata_frame, .serial = 2, .generation = 1}));
  for (auto& medium : media) medium->fail_puts = 0;
  media[0]->gone = true;
  ASSERT_TRUE(open(2));
  ASSERT_EQ(log->last_frame(), 1u);
  ASSERT_TRUE(append(2, "true two"));
  ASSERT_TRUE(append(3, "true three"));
  close();
  media[0]->gone = false;
  ASSERT_TRUE(open(2));
  EXPECT_EQ(log->last_frame(), 3u);
  EXPECT_EQ(read(2), "true two");
  for (ChunkId id : media[0]->of_kind(ChunkKind::metadata_frame))
    EXPECT_NE(chunk_name(id).generation == 1 && chunk_name(id).serial == 2, true);
}

TEST_F(MetadataLogTest, an_epoch_that_wrote_nothing_still_outdates_what_was_away) {
  make(4);
  ASSERT_TRUE(open(2));
  ASSERT_TRUE(append(1, "one"));
  for (size_t i = 1; i < 4; ++i) media[i]->fail_puts = 100;
  EXPECT_FALSE(append(2, "stale two"));
  for (auto& medium : media) medium->fail_puts = 0;
  media[0]->gone = true;
  ASSERT_TRUE(open(2));  // served a state without frame 2, wrote nothing
  close();
  media[0]->gone = false;
  ASSERT_TRUE(open(2));
  EXPECT_EQ(log->last_frame(), 1u);
}

TEST_F(MetadataLogTest, stale_frames_beyond_a_checkpoint_are_recognised) {
  make(4);
  ASSERT_TRUE(open(2));
  ASSERT_TRUE(append(1, "one"));
  for (size_t i = 1; i < 4; ++i) media[i]->fail_puts = 1000;
  std::string payload = "stale";
  std::vector<Task<Result<void>>> appends;
  for (meta::FrameNumber n = 2; n <= 6; ++n) appends.push_back(log->append(n, {bytes_of(payload)}));
  for (auto& result : executor.run(when_all(std::move(appends)))) EXPECT_FALSE(result);
  for (auto& medium : media) medium->fail_puts = 0;
  ASSERT_EQ(media[0]->of_kind(ChunkKind::metadata_frame).size(),
            5u + chunk_name(media[0]->of_kind(ChunkKind::metadata_frame)[0]).serial % 2);
  media[0]->gone = true;
  ASSERT_TRUE(open(2));
  ASSERT_TRUE(append(2, "two"));
  ASSERT_TRUE(append(3, "three"));
  ASSERT_TRUE(executor.run(log->publish_checkpoint({.frame = 3, .files = {}, .extra = "state"})));
  close();
  media[0]->gone = false;
  ASSERT_TRUE(open(2));
  EXPECT_EQ(log->last_frame(), 3u) << "frames 4..6 of the old epoch are on drive 1";
  EXPECT_EQ((*log->checkpoint())->extra, "state");
  EXPECT_TRUE(media[0]->of_kind(ChunkKind::metadata_frame).empty());
}

TEST_F(MetadataLogTest, an_interrupted_open_has_no_effect) {
  make(4);
  ASSERT_TRUE(open(2));
  for (int i = 1; i <= 5; ++i) ASSERT_TRUE(append(i, "old"));
  close();
  // Opens that die while they prepare leave roots of higher and higher epochs on drive 1 alone.
  for (int attempt = 0; attempt < 3; ++attempt) {
    for (size_t i = 1; i < 4; ++i) media[i]->fail_puts = 100;
    EXPECT_FALSE(open(2));
    for (auto& medium : media) medium->fail_puts = 0;
  }
  close();
  media[0]->gone = true;
  ASSERT_TRUE(open(2));
  for (int i = 6; i <= 9; ++i) ASSERT_TRUE(append(i, "new"));
  close();
  media[0]->gone = false;
  ASSERT_TRUE(open(2));
  EXPECT_EQ(log->last_frame(), 9u);
  EXPECT_EQ(read(9), "new");
  EXPECT_GT(log->epoch(), 4u);
}

TEST_F(MetadataLogTest, appends_overlap_and_are_acknowledged_in_order) {
  make(3);
  ASSERT_TRUE(open(2));
  media[0]->put_delay = std::chrono::milliseconds(5);
  media[1]->put_delay = std::chrono::milliseconds(1);
  std::vector<meta::FrameNumber> acknowledged;
  static std::string payload = "x";
  struct Run {
    static Task<Result<void>> one(MetadataLog* log, meta::FrameNumber n, std::vector<meta::FrameNumber>* done) {
      Result<void> result = co_await log->append(n, {bytes_of(payload)});
      done->push_back(n);
      co_return result;
    }
  };
  std::vector<Task<Result<void>>> tasks;
  for (meta::FrameNumber n = 1; n <= 10; ++n) tasks.push_back(Run::one(log.get(), n, &acknowledged));
  for (auto& result : executor.run(when_all(std::move(tasks)))) EXPECT_TRUE(result);
  ASSERT_EQ(acknowledged.size(), 10u);
  EXPECT_TRUE(std::ranges::is_sorted(acknowledged));
}

TEST_F(MetadataLogTest, a_failing_drive_is_left_and_the_frame_goes_elsewhere) {
  make(4);
  ASSERT_TRUE(open(3));
  media[1]->puts_until_gone = 2;
  for (int i = 1; i <= 10; ++i) ASSERT_TRUE(append(i, fmt::format("frame {}", i)));
  EXPECT_TRUE(media[1]->gone);
  for (int i = 1; i <= 10; ++i) EXPECT_GE(holders(ChunkKind::metadata_frame, i), i < 4 ? 2u : 3u);
  ASSERT_TRUE(executor.run(log->restore_copies()));
  for (int i = 1; i <= 10; ++i) EXPECT_EQ(holders(ChunkKind::metadata_frame, i), 3u);
  EXPECT_EQ(log->status().copies_min, 3u);
}

TEST_F(MetadataLogTest, with_too_few_drives_it_refuses_to_acknowledge) {
  make(2);
  ASSERT_TRUE(open(2));
  ASSERT_TRUE(append(1, "one"));
  media[1]->gone = true;
  auto refused = append(2, "two");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::unavailable);
  // It opens for reading, and a third drive makes it writable.
  ASSERT_TRUE(open(2));
  EXPECT_FALSE(log->writable());
  EXPECT_EQ(read(1), "one");
  EXPECT_EQ(append(log->last_frame() + 1, "x").error().code(), Code::unavailable);
  media.push_back(std::make_shared<MemoryMedium>(3));
  drives.push_back(std::make_unique<Drive>(Drive::Identity{3, "mem3", "d3"}, std::make_unique<MemoryChunkStore>(media[2]), executor));
  ASSERT_TRUE(executor.run(log->add_drive(*drives.back())));
  EXPECT_TRUE(log->writable());
  EXPECT_EQ(holders(ChunkKind::metadata_frame, 1), 2u);
  EXPECT_TRUE(append(log->last_frame() + 1, "next"));
}

TEST_F(MetadataLogTest, a_frame_that_found_no_room_is_appended_again) {
  make(2);
  ASSERT_TRUE(open(2));
  ASSERT_TRUE(append(1, "one"));
  const uint64_t capacity = std::exchange(media[1]->capacity, 0);
  const auto both = [this](meta::FrameNumber from) {
    static const std::string texts[] = {"two", "three", "four"};
    std::vector<Task<Result<void>>> tasks;
    for (meta::FrameNumber n = from; n <= 4; ++n) tasks.push_back(log->append(n, {bytes_of(texts[n - 2])}));
    return executor.run(when_all(std::move(tasks)));
  };
  for (auto& result : both(2)) EXPECT_EQ(result.error().code(), Code::no_space);
  for (auto& result : both(2)) EXPECT_EQ(result.error().code(), Code::no_space);
  EXPECT_EQ(holders(ChunkKind::metadata_frame, 2), 1u);
  media[1]->capacity = capacity;
  EXPECT_EQ(append(3, "three").error().code(), Code::no_space) << "frame 2 is missing still";
  EXPECT_TRUE(append(2, "two"));
  for (auto& result : both(3)) EXPECT_TRUE(result) << result.error().to_string();
  EXPECT_TRUE(append(5, "five"));
  for (int i = 2; i <= 5; ++i) EXPECT_EQ(holders(ChunkKind::metadata_frame, i), 2u);
  for (auto& medium : media) {
    medium->gone = true;
    ASSERT_TRUE(open(2));
    EXPECT_EQ(log->last_frame(), 5u);
    EXPECT_EQ(read(2), "two");
    EXPECT_EQ(read(4), "four");
    medium->gone = false;
  }
}

TEST_F(MetadataLogTest, a_frame_goes_on_when_a_drive_comes_back) {
  make(2);
  ASSERT_TRUE(open(2));
  ASSERT_TRUE(append(1, "one"));
  media[1]->gone = true;
  ASSERT_EQ(append(2, "two").error().code(), Code::unavailable);
  media[1]->gone = false;
  drives.push_back(std::make_unique<Drive>(Drive::Identity{2, "mem2", "d2"}, std::make_unique<MemoryChunkStore>(media[1]), executor));
  ASSERT_TRUE(executor.run(log->add_drive(*drives.back())));
  EXPECT_TRUE(append(2, "two"));
  EXPECT_TRUE(append(3, "three"));
  EXPECT_EQ(holders(ChunkKind::metadata_frame, 2), 2u);
  ASSERT_TRUE(open(2));
  EXPECT_EQ(log->last_frame(), 3u);
  EXPECT_EQ(read(2), "two");
}

TEST_F(MetadataLogTest, three_copies_on_three_drives_go_on_with_two) {
  make(3);
  ASSERT_TRUE(open(3));
  ASSERT_TRUE(append(1, "one"));
  media[2]->gone = true;
  EXPECT_TRUE(append(2, "two"));
  ASSERT_TRUE(open(3));
  EXPECT_TRUE(log->writable());
  EXPECT_EQ(read(2), "two");
  // Drive 3 alone cannot know about frame 2.
  media[0]->gone = media[1]->gone = true;
  media[2]->gone = false;
  EXPECT_EQ(open(3).error().code(), Code::data_lost);
}

// A start goes on with one domain absent, so no frame may be in one domain alone.
TEST_F(MetadataLogTest, a_frame_that_reached_one_domain_alone_is_not_acknowledged) {
  make(4);
  domains = "aabb";
  ASSERT_TRUE(open(2));
  ASSERT_TRUE(append(1, "one"));
  media[2]->gone = media[3]->gone = true;
  const bool acknowledged = append(2, "two").has_value();
  ASSERT_EQ(holders(ChunkKind::metadata_frame, 2) > 0, true) << "nothing was tried";
  media[0]->gone = media[1]->gone = true;
  media[2]->gone = media[3]->gone = false;
  auto opened = open(2);
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_GE(log->last_frame(), acknowledged ? 2u : 1u);
  EXPECT_FALSE(acknowledged);
}

TEST_F(MetadataLogTest, three_copies_in_three_domains_go_on_with_two) {
  make(6);
  domains = "aabbcc";
  ASSERT_TRUE(open(3));
  ASSERT_TRUE(append(1, "one"));
  media[4]->gone = media[5]->gone = true;
  auto second = append(2, "two");
  EXPECT_TRUE(second) << second.error().to_string();
  EXPECT_EQ(holders(ChunkKind::metadata_frame, 2), 3u) << "no domain is left for the third copy, a drive is";
  close();
  media[4]->gone = media[5]->gone = false;
  for (const size_t domain : {0, 2}) {
    media[domain]->gone = media[domain + 1]->gone = true;
    auto opened = open(3);
    ASSERT_TRUE(opened) << opened.error().to_string();
    EXPECT_EQ(log->last_frame(), 2u);
    EXPECT_EQ(read(2), "two");
    close();
    media[domain]->gone = media[domain + 1]->gone = false;
  }
}

// Also where fewer drives are absent than would need it: the start that accepted the loss may have come to its end in the middle.
TEST_F(MetadataLogTest, a_loss_is_accepted_wherever_it_shows) {
  make(3);
  ASSERT_TRUE(open(2));
  for (int i = 1; i <= 3; ++i) ASSERT_TRUE(append(i, "x"));
  ASSERT_TRUE(open(2));  // its root says that there were three
  close();
  for (auto& medium : media) {
    for (const ChunkId id : medium->of_kind(ChunkKind::metadata_frame)) {
      if (chunk_name(id).serial == 2) medium->chunks.erase(id);
    }
  }
  EXPECT_EQ(open(2).error().code(), Code::data_lost);
  auto opened = open(2, true);
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_EQ(log->last_frame(), 1u);
  EXPECT_TRUE(log->loss_accepted());
  EXPECT_GT(log->epoch(), 1000u);
}

TEST_F(MetadataLogTest, checkpoint_files_are_mirrored_and_replace_the_frames) {
  make(5);
  ASSERT_TRUE(open(3));
  for (int i = 1; i <= 4; ++i) ASSERT_TRUE(append(i, "x"));
  std::string big(19 * kMiB + 5, 'a');
  for (size_t i = 0; i < big.size(); i += 1000) big[i] = static_cast<char>(i / 1000);
  auto file = store("000001.sst", big);
  ASSERT_TRUE(file);
  auto dropped = store("000002.sst", "not in the manifest");
  ASSERT_TRUE(dropped);
  ASSERT_TRUE(executor.run(log->publish_checkpoint({.frame = 3, .files = {*file}, .extra = "e"})));
  ASSERT_TRUE(append(5, "five"));
  for (int i = 1; i <= 3; ++i) EXPECT_EQ(holders(ChunkKind::metadata_frame, i), 0u);
  EXPECT_EQ(holders(ChunkKind::metadata_file, file->handle), 9u);
  EXPECT_EQ(holders(ChunkKind::metadata_file, dropped->handle), 0u);
  media[0]->gone = media[3]->gone = true;
  ASSERT_TRUE(open(3));
  EXPECT_EQ(log->last_frame(), 5u);
  auto checkpoint = *log->checkpoint();
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(checkpoint->frame, 3u);
  auto bytes = executor.run(log->read_file(checkpoint->files[0], 8 * kMiB - 10, 11 * kMiB));
  ASSERT_TRUE(bytes) << bytes.error().to_string();
  EXPECT_EQ(text_of(*bytes), std::string_view(big).substr(8 * kMiB - 10, 11 * kMiB));
}

TEST_F(MetadataLogTest, an_unpublished_file_is_removed_at_the_next_open) {
  make(3);
  ASSERT_TRUE(open(2));
  auto file = store("x", "content");
  ASSERT_TRUE(file);
  ASSERT_TRUE(open(2));
  EXPECT_EQ(holders(ChunkKind::metadata_file, file->handle), 0u);
}

TEST_F(MetadataLogTest, a_file_without_a_copy_is_named) {
  make(3);
  ASSERT_TRUE(open(2));
  auto file = store("important.sst", "content");
  ASSERT_TRUE(executor.run(log->publish_checkpoint({.frame = 0, .files = {*file}, .extra = ""})));
  close();
  for (auto& medium : media) {
    for (ChunkId id : medium->of_kind(ChunkKind::metadata_file)) medium->chunks.erase(id);
  }
  auto lost = open(2);
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code(), Code::data_lost);
  EXPECT_NE(lost.error().context().find("important.sst"), std::string::npos);
}

TEST_F(MetadataLogTest, a_damaged_copy_is_read_around_and_scrubbed_away) {
  make(3);
  ASSERT_TRUE(open(2));
  ASSERT_TRUE(append(1, "one"));
  ASSERT_TRUE(append(2, "two"));
  size_t damaged = 0;
  for (auto& medium : media) {
    for (ChunkId id : medium->of_kind(ChunkKind::metadata_frame)) {
      if (chunk_name(id).serial == 1 && damaged++ == 0) medium->corrupt.insert(id);
    }
  }
  for (int i = 0; i < 6; ++i) EXPECT_EQ(read(1), "one");
  auto result = executor.run(log->scrub());
  ASSERT_TRUE(result);
  EXPECT_EQ(result->damaged, 1u);
  EXPECT_EQ(result->repaired, 1u);
  for (auto& medium : media) EXPECT_TRUE(medium->corrupt.empty());
  EXPECT_EQ(executor.run(log->scrub())->damaged, 0u);
  ASSERT_TRUE(open(2));
  EXPECT_EQ(read(1), "one");
  EXPECT_EQ(holders(ChunkKind::metadata_frame, 1), 2u);
}

TEST_F(MetadataLogTest, damage_of_every_copy_is_an_error_not_a_shorter_log) {
  make(3);
  ASSERT_TRUE(open(2));
  ASSERT_TRUE(append(1, "one"));
  ASSERT_TRUE(append(2, "two"));
  for (auto& medium : media) {
    for (ChunkId id : medium->of_kind(ChunkKind::metadata_frame)) {
      if (chunk_name(id).serial == 2) medium->corrupt.insert(id);
    }
  }
  ASSERT_TRUE(open(2));
  EXPECT_EQ(log->last_frame(), 2u);
  EXPECT_EQ(executor.run(log->read(2)).error().code(), Code::corrupt);
}

TEST_F(MetadataLogTest, a_drive_can_leave_and_the_rest_suffices) {
  make(5);
  ASSERT_TRUE(open(3));
  auto file = store("f", std::string(100'000, 'f'));
  for (int i = 1; i <= 6; ++i) ASSERT_TRUE(append(i, fmt::format("{}", i)));
  ASSERT_TRUE(executor.run(log->publish_checkpoint({.frame = 2, .files = {*file}, .extra = ""})));
  ASSERT_TRUE(executor.run(log->leave_drive(2)));
  log->forget_drive(2);
  media[1]->gone = true;
  media.erase(media.begin() + 1);
  EXPECT_EQ(log->status().copies_min, 3u);
  for (int i = 7; i <= 9; ++i) ASSERT_TRUE(append(i, fmt::format("{}", i)));
  for (int i = 3; i <= 9; ++i) EXPECT_EQ(holders(ChunkKind::metadata_frame, i), 3u);
  EXPECT_EQ(holders(ChunkKind::metadata_file, file->handle), 3u);
}

Task<Result<void>> until_appended(MetadataLog* log, meta::FrameNumber number, const std::string* text) {
  for (int attempt = 0;; ++attempt) {
    Result<void> done = co_await log->append(number, {bytes_of(*text)});
    if (done || attempt == 200) co_return done;
    co_await sleep_for(std::chrono::milliseconds(1));
  }
}

// A drive hangs under one copy, is given up, and does what it was given when it goes on. The copy is no part of the log, and no orphan: it
// may still come when an audit looks, and nobody puts it again.
Task<Result<void>> give_up_later(Drive* drive, MemoryMedium* medium, Task<Result<void>> work) {
  TaskGroup group;
  Result<void> result;
  group.spawn(
      [](Task<Result<void>> task, Result<void>* into) -> Task<void> { *into = co_await std::move(task); }(std::move(work), &result));
  co_await sleep_for(std::chrono::milliseconds(10));
  drive->suspend("it hangs by order of the test");
  drive->give_up();
  co_await group.join();
  medium->hangs = false;
  co_await sleep_for(std::chrono::milliseconds(50));
  drive->resume();
  co_return result;
}

TEST_F(MetadataLogTest, a_copy_that_lands_after_it_was_given_up_stays_until_nobody_wants_its_name) {
  make(4);
  ASSERT_TRUE(open(3));
  const auto late_copies = [&](ChunkKind kind) {
    std::vector<ChunkId> late;
    for (const ChunkId id : media[0]->of_kind(kind)) {
      if (!log->uses(1, id)) late.push_back(id);
    }
    return late;
  };
  for (int i = 1; i <= 4; ++i) {
    media[0]->hangs = true;
    const std::string text = fmt::format("frame {}", i);
    ASSERT_TRUE(executor.run(give_up_later(drives[0].get(), media[0].get(), log->append(i, {bytes_of(text)}))));
  }
  const auto frames = late_copies(ChunkKind::metadata_frame);
  ASSERT_GT(frames.size(), 0u) << "no copy was given up: nothing was tested";
  for (const ChunkId id : frames) EXPECT_TRUE(log->in_flight(id)) << id.to_string();
  for (int i = 1; i <= 4; ++i) EXPECT_EQ(read(i), fmt::format("frame {}", i));
  std::vector<ChunkId> roots;
  for (int i = 1; i <= 4; ++i) {
    auto file = store("f", "content");
    ASSERT_TRUE(file);
    media[0]->hangs = true;
    ASSERT_TRUE(
        executor.run(give_up_later(drives[0].get(), media[0].get(), log->publish_checkpoint({.frame = 4, .files = {*file}, .extra = ""}))));
    for (const ChunkId id : late_copies(ChunkKind::metadata_root)) {
      EXPECT_TRUE(log->in_flight(id)) << id.to_string();
      roots.push_back(id);
    }
  }
  ASSERT_GT(roots.size(), 0u) << "no copy of a root was given up: nothing was tested";
  auto file = store("f", "content");
  ASSERT_TRUE(file);
  ASSERT_TRUE(executor.run(log->publish_checkpoint({.frame = 4, .files = {*file}, .extra = ""})));
  for (const ChunkKind kind : {ChunkKind::metadata_frame, ChunkKind::metadata_file, ChunkKind::metadata_root})
    EXPECT_TRUE(late_copies(kind).empty()) << static_cast<int>(kind);
  for (const ChunkId id : roots) EXPECT_FALSE(log->in_flight(id));
  for (const MetadataLog::Entry& entry : log->entries()) EXPECT_TRUE(media[entry.drives[0] - 1]->chunks.contains(entry.id));
  ASSERT_TRUE(open(3));
  EXPECT_EQ((*log->checkpoint())->frame, 4u);
}

// While the current root lacks one copy the late one is taken for it.
TEST_F(MetadataLogTest, a_late_copy_counts_where_one_is_lacking) {
  make(3);
  ASSERT_TRUE(open(3));
  media[0]->hangs = true;
  ASSERT_TRUE(executor.run(give_up_later(drives[0].get(), media[0].get(), log->append(1, {bytes_of("one")}))));
  const ChunkId id = media[0]->of_kind(ChunkKind::metadata_frame).back();
  EXPECT_FALSE(log->uses(1, id));
  ASSERT_TRUE(executor.run(log->restore_copies()));
  EXPECT_TRUE(log->uses(1, id));
  EXPECT_FALSE(log->in_flight(id));
  EXPECT_EQ(holders(ChunkKind::metadata_frame, 1), 3u);
}

// Random appends, checkpoints, crashes (a handful of puts land), and drives that go and come back, at most m at a time.
TEST_F(MetadataLogTest, random_failures_never_lose_an_acknowledged_frame) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    SeededRandom random(seed);
    close();
    media.clear();
    const unsigned copies = 2 + static_cast<unsigned>(random.below(2));
    make(2 * copies - 1 + random.below(2));
    std::map<meta::FrameNumber, std::string> oracle;  // acknowledged
    std::map<meta::FrameNumber, std::set<std::string>> attempted;
    uint64_t version = 0;
    for (int round = 0; round < 12; ++round) {
      for (auto& medium : media) {
        medium->gone = false;
        medium->fail_puts = 0;
        medium->puts_until_gone = UINT64_MAX;
      }
      for (unsigned i = 0; i + 1 < copies; ++i) media[random.below(media.size())]->gone = random.below(2) == 0;
      if (random.below(2) == 0) {  // a start that is cut short, or not, without another set of drives
        for (auto& medium : media) medium->fail_puts = random.below(8);
        open(copies).ignore("whatever came of it, the next one has to be right");
        for (auto& medium : media) {
          medium->fail_puts = 0;
          medium->gone = false;
        }
        for (unsigned i = 0; i + 1 < copies; ++i) media[random.below(media.size())]->gone = random.below(2) == 0;
      }
      auto opened = open(copies);
      ASSERT_TRUE(opened) << opened.error().to_string();
      const meta::FrameNumber acknowledged = oracle.empty() ? 0 : oracle.rbegin()->first;
      ASSERT_GE(log->last_frame(), acknowledged);
      auto checkpoint = *log->checkpoint();
      const meta::FrameNumber base = checkpoint ? checkpoint->frame : 0;
      for (meta::FrameNumber n = base + 1; n <= log->last_frame(); ++n) {
        const std::string text = read(n);
        if (oracle.contains(n)) {
          ASSERT_EQ(text, oracle[n]) << "frame " << n;
        } else {
          ASSERT_TRUE(attempted[n].contains(text)) << n << " " << text;
          oracle[n] = text;  // served from now on: must stay
        }
      }
      oracle.erase(oracle.upper_bound(log->last_frame()), oracle.end());
      const uint64_t steps = random.below(8);
      for (uint64_t step = 0; step < steps; ++step) {
        const meta::FrameNumber n = log->last_frame() + 1;
        const std::string text = fmt::format("v{}", ++version);
        attempted[n].insert(text);
        auto done = append(n, text);
        ASSERT_TRUE(done) << done.error().to_string();
        oracle[n] = text;
        if (random.below(4) == 0) {
          auto file = store(fmt::format("f{}", version), text);
          ASSERT_TRUE(file);
          ASSERT_TRUE(executor.run(log->publish_checkpoint({.frame = n, .files = {*file}, .extra = text})));
        }
      }
      // The crash: several appends in flight, each put lands or not.
      for (auto& medium : media) medium->fail_puts = random.below(3) == 0 ? 0 : random.below(40);
      std::vector<Task<Result<void>>> tasks;
      std::vector<std::string> texts(3);
      const meta::FrameNumber first = log->last_frame() + 1;
      for (size_t i = 0; i < texts.size(); ++i) {
        texts[i] = fmt::format("v{}", ++version);
        attempted[first + i].insert(texts[i]);
        tasks.push_back(log->append(first + i, {bytes_of(texts[i])}));
      }
      auto results = executor.run(when_all(std::move(tasks)));
      for (size_t i = 0; i < results.size(); ++i) {
        if (results[i]) oracle[first + i] = texts[i];
      }
      if (random.below(2) == 0) continue;
      // No crash after all: what failed is appended again until it works.
      std::vector<Task<Result<void>>> again;
      for (size_t i = 0; i < results.size(); ++i) {
        if (!results[i]) again.push_back(until_appended(log.get(), first + i, &texts[i]));
      }
      for (auto& result : executor.run(when_all(std::move(again)))) ASSERT_TRUE(result) << result.error().to_string();
      for (size_t i = 0; i < results.size(); ++i) oracle[first + i] = texts[i];
    }
  }
}

}  // namespace
}  // namespace quarry::cluster
