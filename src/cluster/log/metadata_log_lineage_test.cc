// Starts and checkpoints of the metadata log that die anywhere, while drives go and come back: what was acknowledged is there, and what a
// start cut off never returns.
#include <gtest/gtest.h>

#include "base/coding.h"
#include "base/log.h"
#include "cluster/log/metadata_log.h"
#include "cluster/testing/memory_chunk_store.h"
#include "io/sim/sim_executor.h"

namespace quarry::cluster {
namespace {

constexpr uint64_t kNoCrash = UINT64_MAX;

// The drives, and what somebody who used them remembers.
struct World {
  std::vector<std::shared_ptr<MemoryMedium>> media;
  std::map<meta::FrameNumber, std::string> sure;             // acknowledged or served: stays
  std::map<meta::FrameNumber, std::set<std::string>> maybe;  // written without an answer, and not yet cut off
  int version = 0;

  // Equal for worlds in which the same will happen.
  std::string signature() const {
    std::string text;
    for (const auto& medium : media) {
      for (const auto& [id, bytes] : medium->chunks) text += fmt::format("{} {} ", id.to_string(), *bytes);
      text += '|';
    }
    for (const auto& [number, what] : sure) text += fmt::format("{} {} ", number, what);
    for (const auto& [number, texts] : maybe) {
      for (const std::string& each : texts) text += fmt::format("{} {} ", number, each);
    }
    return text;
  }
  World copy() const {
    World other = *this;
    for (auto& medium : other.media) medium = std::make_shared<MemoryMedium>(*medium);
    return other;
  }
};

class MetadataLogLineage : public ::testing::Test {
 protected:
  void make(size_t count) {
    for (size_t i = 0; i < count; ++i) world.media.push_back(std::make_shared<MemoryMedium>(i + 1));
  }
  void close() {
    log.reset();
    drives.clear();
  }
  Result<void> open(bool accept_loss = false) {
    close();
    MetadataLogOptions options;
    for (size_t i = 0; i < world.media.size(); ++i) {
      const auto number = static_cast<uint32_t>(i + 1);
      if (world.media[i]->gone) {
        options.absent.push_back({number, fmt::format("d{}", number)});
        continue;
      }
      drives.push_back(std::make_unique<Drive>(Drive::Identity{number, fmt::format("mem{}", number), fmt::format("d{}", number)},
                                               std::make_unique<MemoryChunkStore>(world.media[i]), executor));
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
  // Only the drive with this index is away; -1: none.
  void away(int index) {
    for (size_t i = 0; i < world.media.size(); ++i) world.media[i]->gone = static_cast<int>(i) == index;
  }
  void die_after(uint64_t steps) {
    const auto left = steps == kNoCrash ? nullptr : std::make_shared<uint64_t>(steps);
    for (auto& medium : world.media) medium->steps_left = left;
  }
  bool dead() const { return world.media[0]->steps_left != nullptr && *world.media[0]->steps_left == 0; }
  // Puts of the first drives land before those of the last, or the other way round.
  void order(bool forward) {
    for (size_t i = 0; i < world.media.size(); ++i)
      world.media[i]->put_delay = std::chrono::microseconds(forward ? i : world.media.size() - i);
  }
  size_t holders(ChunkKind kind, uint64_t serial, std::optional<uint32_t> stripe, size_t* last = nullptr) {
    size_t count = 0;
    for (size_t i = 0; i < world.media.size(); ++i) {
      for (const ChunkId id : world.media[i]->of_kind(kind)) {
        if (chunk_name(id).serial != serial || (stripe && chunk_name(id).stripe != *stripe)) continue;
        ++count;
        if (last != nullptr) *last = i;
      }
    }
    return count;
  }
  Result<void> append(meta::FrameNumber number, std::string text) { return executor.run(log->append(number, {bytes_of(text)})); }
  std::string read(meta::FrameNumber number) {
    auto bytes = executor.run(log->read(number));
    return bytes ? std::string(text_of(*bytes)) : bytes.error().to_string();
  }
  Result<meta::CheckpointFile> store(std::string content) {
    return executor.run(log->store_file("f", content.size(), [content](uint64_t offset, size_t length) -> Result<Buffer> {
      return Buffer::copy_of(bytes_of(std::string_view(content).substr(offset, length)));
    }));
  }
  Result<void> publish(meta::FrameNumber frame, const meta::CheckpointFile& file, std::string extra) {
    return executor.run(log->publish_checkpoint({.frame = frame, .files = {file}, .extra = std::move(extra)}));
  }

  // What is seen after a start. Empty: all is right. The checkpoint of frame n says the text of frame n, also in its file.
  std::string look() {
    const meta::FrameNumber last = log->last_frame();
    if (!world.sure.empty() && last < world.sure.rbegin()->first)
      return fmt::format("the log ends at {}, but frame {} was acknowledged", last, world.sure.rbegin()->first);
    const auto right = [&](meta::FrameNumber n, const std::string& text) {
      const auto sure = world.sure.find(n);
      return sure != world.sure.end() ? sure->second == text : world.maybe[n].contains(text);
    };
    const auto checkpoint = *log->checkpoint();
    const meta::FrameNumber base = checkpoint ? checkpoint->frame : 0;
    if (checkpoint) {
      if (!right(base, checkpoint->extra)) return fmt::format("the checkpoint of frame {} says '{}'", base, checkpoint->extra);
      auto file = executor.run(log->read_file(checkpoint->files[0], 0, checkpoint->files[0].size));
      if (!file) return file.error().to_string();
      if (text_of(*file) != checkpoint->extra) return fmt::format("the file of the checkpoint says '{}'", text_of(*file));
      world.sure[base] = checkpoint->extra;
    }
    for (meta::FrameNumber n = base + 1; n <= last; ++n) {
      const std::string text = read(n);
      if (!right(n, text)) return fmt::format("frame {} is '{}'", n, text);
      world.sure[n] = text;
    }
    world.maybe.erase(world.maybe.upper_bound(last), world.maybe.end());  // cut off
    return {};
  }
  bool write_one() {
    const meta::FrameNumber n = log->last_frame() + 1;
    const std::string text = fmt::format("frame {} v{}", n, ++world.version);
    world.maybe[n].insert(text);
    if (!append(n, text)) return false;
    world.sure[n] = text;
    return true;
  }
  // Start, frame, checkpoint, frame; or as far as it comes.
  std::string live() {
    const Result<void> opened = open();
    if (!opened) return dead() ? std::string() : opened.error().to_string();
    std::string problem = look();
    if (!problem.empty() || dead()) return problem;
    if (!write_one()) return dead() ? "" : "append failed";
    const meta::FrameNumber n = log->last_frame();
    auto file = store(world.sure[n]);
    if (!file) return dead() ? "" : "store failed";
    if (!publish(n, *file, world.sure[n])) return dead() ? "" : "publish failed";
    if (!write_one()) return dead() ? "" : "append failed";
    return {};
  }
  std::string live(const World& from, int index, uint64_t steps, bool forward) {
    world = from.copy();
    away(index);
    order(forward);
    die_after(steps);
    std::string problem = live();
    close();
    return problem;
  }

  SimExecutor executor;
  const std::unique_ptr<BlockingPool> pool = executor.make_pool("test", 1);
  World world;
  unsigned copies = 2;
  std::vector<std::unique_ptr<Drive>> drives;
  std::unique_ptr<MetadataLog> log;
};

TEST_F(MetadataLogLineage, a_start_that_was_given_up_takes_no_frames_from_the_one_that_went_on) {
  make(4);
  ASSERT_TRUE(open());
  ASSERT_TRUE(append(1, "one"));
  const World first = world.copy();
  // A frame is on a single drive; a start without that drive dies when its root is on a single other drive.
  size_t holder = 0, rooted = 0;
  bool met = false;
  for (uint64_t steps = 1; steps < 30 && !met; ++steps) {
    close();
    world = first.copy();
    away(-1);
    ASSERT_TRUE(open());
    die_after(1);
    EXPECT_FALSE(append(2, "two"));
    ASSERT_EQ(holders(ChunkKind::metadata_frame, 2, {}, &holder), 1u);
    away(static_cast<int>(holder));
    die_after(steps);
    const bool opened = open().has_value();
    const uint64_t epoch = 3;
    met = !opened && holders(ChunkKind::metadata_root, epoch, 1, &rooted) == 1;
  }
  ASSERT_TRUE(met) << "no start died with its root on one drive";
  ASSERT_NE(holder, rooted);
  die_after(kNoCrash);
  away(static_cast<int>(rooted));
  ASSERT_TRUE(open());
  ASSERT_EQ(log->last_frame(), 2u);
  EXPECT_EQ(read(2), "two");
  ASSERT_TRUE(append(3, "three"));
  away(-1);
  ASSERT_TRUE(open());
  ASSERT_EQ(log->last_frame(), 3u) << "frame 3 was acknowledged";
  EXPECT_EQ(read(2), "two");
  EXPECT_EQ(read(3), "three");
}

TEST_F(MetadataLogLineage, a_checkpoint_that_landed_on_one_drive_does_not_outrank_the_one_that_was_gone_on_with) {
  make(4);
  ASSERT_TRUE(open());
  ASSERT_TRUE(append(1, "one"));
  auto old_file = store("one");
  ASSERT_TRUE(old_file);
  ASSERT_TRUE(publish(1, *old_file, "one"));
  ASSERT_TRUE(append(2, "two"));
  auto new_file = store("two");
  ASSERT_TRUE(new_file);
  die_after(1);
  EXPECT_FALSE(publish(2, *new_file, "two"));
  size_t holder = 0;
  ASSERT_EQ(holders(ChunkKind::metadata_root, 1, 3, &holder), 1u);
  die_after(kNoCrash);
  away(static_cast<int>(holder));
  ASSERT_TRUE(open());
  EXPECT_EQ((*log->checkpoint())->frame, 1u);
  ASSERT_TRUE(append(3, "three"));
  away(-1);
  const auto opened = open();
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_EQ(log->last_frame(), 3u);
  EXPECT_EQ(read(3), "three");
  auto checkpoint = *log->checkpoint();
  EXPECT_EQ(checkpoint->extra, "one");
  EXPECT_TRUE(executor.run(log->read_file(checkpoint->files[0], 0, 3)));
}

// Stores of earlier programs: roots of version 1, which do not say what they recovered from.
class MetadataLogVersion1 : public MetadataLogLineage {
 protected:
  void put(size_t index, const ChunkName& name, std::string bytes) {
    world.media[index]->ever.insert(chunk_id(name));
    world.media[index]->chunks[chunk_id(name)] = std::make_shared<const std::string>(std::move(bytes));
  }
  static std::string root(uint64_t epoch, uint32_t sequence, meta::FrameNumber first,
                          const std::optional<meta::CheckpointManifest>& manifest = {}) {
    std::string out;
    Encoder e(out);
    e.u32(0x54524d51).u16(1).u16(0).u64(epoch).u32(sequence).u64(first).u8(manifest ? 1 : 0);
    if (!manifest) return out;
    e.u64(manifest->frame).text(manifest->extra).varint(manifest->files.size());
    for (const meta::CheckpointFile& file : manifest->files) e.text(file.name).varint(file.size).varint(file.handle);
    return out;
  }
  void put_root(size_t index, uint64_t epoch, uint32_t sequence, std::string bytes) {
    put(index, {.kind = ChunkKind::metadata_root, .serial = epoch, .stripe = sequence}, std::move(bytes));
  }
  void put_frame(size_t index, uint64_t epoch, meta::FrameNumber number, std::string_view text) {
    std::string bytes;
    Encoder(bytes).u32(0x52464d51).u16(1).u16(0).u64(epoch).u64(number).u64(text.size());
    put(index, {.kind = ChunkKind::metadata_frame, .serial = number, .generation = static_cast<uint16_t>(epoch)}, bytes.append(text));
  }
  void put_file(size_t index, uint64_t handle, std::string text) {
    put(index, {.kind = ChunkKind::metadata_file, .serial = handle}, std::move(text));
  }
  void expect_version_2() {
    size_t roots = 0;
    for (auto& medium : world.media) {
      for (const ChunkId id : medium->of_kind(ChunkKind::metadata_root)) {
        EXPECT_EQ(medium->chunks.at(id)->at(4), 2);
        ++roots;
      }
    }
    EXPECT_EQ(roots, 2u);
  }
};

TEST_F(MetadataLogVersion1, is_read_and_written_anew) {
  make(3);
  const meta::CheckpointManifest manifest{.frame = 1, .files = {{"f", 3, 1 << 24 | 1}}, .extra = "one"};
  for (const size_t drive : {0, 1}) {
    put_root(drive, 1, 2, root(1, 2, 1, manifest));
    put_file(drive, 1 << 24 | 1, "one");
    put_frame(drive, 1, 2, "two");
    put_root(drive, 2, 1, root(2, 1, 3));
    put_frame(drive, 2, 3, "three");
  }
  put_frame(2, 1, 3, "stale");
  for (int again = 0; again < 2; ++again) {
    const auto opened = open();
    ASSERT_TRUE(opened) << opened.error().to_string();
    EXPECT_EQ(log->last_frame(), 3u);
    EXPECT_EQ((*log->checkpoint())->extra, "one");
    EXPECT_EQ(read(2), "two");
    EXPECT_EQ(read(3), "three");
    expect_version_2();
  }
}

TEST_F(MetadataLogVersion1, gets_back_what_a_start_that_was_given_up_would_have_taken) {
  make(3);
  for (const size_t drive : {0, 1}) {
    put_root(drive, 1, 1, root(1, 1, 1));
    put_frame(drive, 1, 1, "one");
    put_frame(drive, 1, 2, "two");
    put_root(drive, 3, 1, root(3, 1, 3));
    put_frame(drive, 3, 3, "three");
  }
  put_root(2, 2, 1, root(2, 1, 2));
  for (int again = 0; again < 2; ++again) {
    const auto opened = open();
    ASSERT_TRUE(opened) << opened.error().to_string();
    ASSERT_EQ(log->last_frame(), 3u);
    EXPECT_EQ(read(2), "two");
    EXPECT_EQ(read(3), "three");
    expect_version_2();
  }
}

TEST_F(MetadataLogVersion1, does_not_go_back_to_a_checkpoint_whose_files_are_gone) {
  make(3);
  const meta::CheckpointManifest old{.frame = 1, .files = {{"old", 3, 1 << 24 | 1}}, .extra = "one"};
  const meta::CheckpointManifest lost{.frame = 2, .files = {{"new", 3, 1 << 24 | 2}}, .extra = "two"};
  for (const size_t drive : {0, 1}) {
    put_root(drive, 1, 2, root(1, 2, 1, old));
    put_file(drive, 1 << 24 | 1, "one");
    put_frame(drive, 1, 2, "two");
    put_root(drive, 2, 1, root(2, 1, 3));
  }
  put_root(2, 1, 3, root(1, 3, 1, lost));
  const World before = world.copy();
  const auto opened = open();
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_EQ(log->last_frame(), 2u);
  EXPECT_EQ((*log->checkpoint())->extra, "one");
  EXPECT_EQ(read(2), "two");
  expect_version_2();
  // Not so where the frames are gone that would lead on from it: what was committed is not taken back.
  close();
  world = before.copy();
  for (auto& medium : world.media)
    std::erase_if(medium->chunks, [](const auto& chunk) { return chunk_name(chunk.first).kind == ChunkKind::metadata_frame; });
  EXPECT_EQ(open().error().code(), Code::data_lost);
}

TEST_F(MetadataLogLineage, a_gap_in_the_line_is_a_loss_and_not_the_end_of_the_log) {
  make(3);
  ASSERT_TRUE(open());
  for (int n = 1; n <= 3; ++n) ASSERT_TRUE(append(n, "x"));
  ASSERT_TRUE(open());
  close();
  for (auto& medium : world.media)
    std::erase_if(medium->chunks, [](const auto& chunk) {
      return chunk_name(chunk.first).kind == ChunkKind::metadata_frame && chunk_name(chunk.first).serial == 2;
    });
  const auto refused = open();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::data_lost);
  EXPECT_NE(refused.error().to_string().find("frame 2"), std::string::npos) << refused.error().to_string();
}

// An operator goes on without drives that hold newer epochs, and has them back later: the same numbers are never given twice.
TEST_F(MetadataLogLineage, an_accepted_loss_outranks_what_comes_back) {
  make(4);
  ASSERT_TRUE(open());
  ASSERT_TRUE(append(1, "one"));
  world.media[0]->gone = true;
  for (int start = 0; start < 5; ++start) ASSERT_TRUE(open());
  ASSERT_TRUE(append(2, "given up"));
  for (size_t i = 0; i < 4; ++i) world.media[i]->gone = i == 1 || i == 2;
  ASSERT_EQ(open().error().code(), Code::data_lost);
  const auto opened = open(true);
  ASSERT_TRUE(opened) << opened.error().to_string();
  const meta::FrameNumber next = log->last_frame() + 1;
  ASSERT_TRUE(append(next, "went on"));
  away(-1);
  ASSERT_TRUE(open());
  EXPECT_EQ(log->last_frame(), next);
  EXPECT_EQ(read(next), "went on");
}

// Every place where a start or a checkpoint can die, twice in a row, each time with each drive away that may be; then a whole life with
// each drive away, and one with all of them.
class MetadataLogDeaths : public MetadataLogLineage, public ::testing::WithParamInterface<unsigned> {
 protected:
  void SetUp() override { set_log_level(LogLevel::error); }  // each death is told many times
  void TearDown() override { set_log_level(LogLevel::info); }
};

TEST_P(MetadataLogDeaths, no_death_and_no_drive_that_comes_back_takes_what_was_acknowledged) {
  copies = GetParam();
  make(3);
  ASSERT_EQ(live(world, -1, kNoCrash, true), "");
  const World start = world.copy();
  size_t deaths = 0, abandoned = 0;
  std::set<std::string> seen;
  const auto after_two_deaths = [&](const World& second, const std::string& how) {
    for (int third = -1; third < 3; ++third) {
      ASSERT_EQ(live(second, third, kNoCrash, true), "") << how << ", then drive " << third << " away";
      const World left = world.copy();
      ASSERT_EQ(live(left, -1, kNoCrash, true), "") << how << ", then drive " << third << " away, then all there";
    }
  };
  for (int first = -1; first < 3; ++first) {
    for (uint64_t steps = 1;; ++steps) {
      ASSERT_EQ(live(start, first, steps, true), "") << first << " " << steps;
      if (!dead()) break;
      const World once = world.copy();
      for (int second = -1; second < 3; ++second) {
        for (uint64_t more = 1;; ++more) {
          const std::string how =
              fmt::format("drive {} away, death after {} steps, drive {} away, death after {}", first, steps, second, more);
          ASSERT_EQ(live(once, second, more, false), "") << how;
          if (!dead()) break;
          ++deaths;
          // A root on a single drive, which will be away next.
          size_t holder = 0;
          uint64_t newest = 0;
          for (auto& medium : world.media) {
            for (const ChunkId id : medium->of_kind(ChunkKind::metadata_root)) newest = std::max(newest, chunk_name(id).serial);
          }
          abandoned += holders(ChunkKind::metadata_root, newest, 1, &holder) == 1;
          if (!seen.insert(world.signature()).second) continue;
          const World twice = world.copy();
          after_two_deaths(twice, how);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
  EXPECT_GT(deaths, 1000u);
  EXPECT_GT(abandoned, 50u);
}
INSTANTIATE_TEST_SUITE_P(Copies, MetadataLogDeaths, ::testing::Values(2u, 3u));

}  // namespace
}  // namespace quarry::cluster
