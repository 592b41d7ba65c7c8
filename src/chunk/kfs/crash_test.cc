// Power cuts, by rebuilding the directories they may leave (recording_files.h), and processes that are killed. QUARRY_IMAGES sets how many
// directories are looked at, QUARRY_SEED the luck of each.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "chunk/kfs/kfs_chunk_store.h"
#include "chunk/kfs/kfs_store.h"
#include "chunk/kfs/recording_files.h"
#include "chunk/kfs/temporary_directory.h"
#include "chunk/test_payload.h"
#include "codec/digest.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {
namespace {

namespace fs = std::filesystem;
using kfs::RecordingFiles;

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// When each write and unlink was begun and acknowledged, in steps of the recording.
struct Life {
  uint64_t seed = 0;
  size_t size = 0;
  size_t written = SIZE_MAX;  // acknowledged
  size_t unlink_begun = SIZE_MAX;
  size_t unlinked = SIZE_MAX;  // acknowledged
};

// Small buffers, so that logs rotate and tables are compacted all the time.
KfsTuning small_tuning() {
  return {.instances_max = 8, .write_buffer_bytes = 128 * kKiB, .table_bytes = 128 * kKiB, .compact_after_bytes = kMiB, .reserve_bytes = 0};
}

class KfsCrash : public testing::Test {
 protected:
  void SetUp() override { set_log_level(LogLevel::error); }
  void TearDown() override { set_log_level(LogLevel::info); }

  // Every file acknowledged at the cut is there byte for byte; what is there is whole; nothing is left behind.
  void check(const std::string& directory, const std::map<std::string, Life>& lives, size_t at) {
    auto opened = KfsStore::open(directory, {.instances_max = 8, .reserve_bytes = 0});
    ASSERT_TRUE(opened) << opened.error().to_string();
    KfsStore& store = **opened;
    for (const auto& [hash, life] : lives) {
      std::string text;
      const auto got = store.read(hash, 0, UINT64_MAX, [&text](ByteView piece) -> Result<void> {
        text += text_of(piece);
        return {};
      });
      if (got) {
        ASSERT_TRUE(text == test_payload(life.seed, life.size)) << hash << " is not what was written";
        ASSERT_FALSE(life.unlinked <= at) << hash << " came back after it was unlinked";
      } else {
        ASSERT_EQ(got.error().code(), Code::not_found) << got.error().to_string();
        ASSERT_FALSE(life.written <= at && life.unlink_begun > at) << hash << " was acknowledged and is lost";
      }
    }
    // Opening has removed all leftovers, so a search for stray blocks finds none; and what is there is sound.
    const auto before = store.verify({});
    ASSERT_TRUE(before);
    for (const auto& damage : before->damaged) ADD_FAILURE() << damage.hash << ": " << damage.what;
    const auto report = store.verify({.deep = true, .repair = true, .progress = {}});
    ASSERT_TRUE(report);
    ASSERT_EQ(report->leftovers_removed, 0u) << "blocks without a file were left behind";
    ASSERT_TRUE(store.list([&, last = std::string()](const KfsFile& file) {
      EXPECT_TRUE(lives.contains(file.hash));
      return true;
    }));
  }
};

TEST_F(KfsCrash, every_acknowledged_file_survives_every_power_cut_and_no_half_file_is_there) {
  kfs::TemporaryDirectory directory;
  const std::string root = directory.path() + "/live";
  RecordingFiles files(directory.path());
  std::map<std::string, Life> lives;
  {
    KfsTuning tuning = small_tuning();
    tuning.files = &files;
    fs::create_directory(root);
    auto created = KfsStore::create(root, {.key = "crash"}, tuning);
    ASSERT_TRUE(created) << created.error().to_string();
    KfsStore& store = **created;
    std::mutex mutex;
    // Two threads, few buckets (four first bytes), files of one and of several batches, and removals of some, at once and from behind.
    const auto work = [&](uint64_t thread) {
      std::vector<std::string> mine;
      std::string large;
      uint64_t seed = thread * 100'000;
      for (int i = 0; i < 14; ++i) {
        const size_t size = i % 7 == 3 ? 17'000'000 + static_cast<size_t>(i) * 1000 : 20'000 + static_cast<size_t>(i) * 30'000;
        std::string text, hash;
        do {
          text = test_payload(++seed, size);
          hash = sha256_hex(bytes_of(text));
        } while (size < 1'000'000 && hash[0] > '3');
        {
          const std::lock_guard lock(mutex);
          lives[hash] = {seed, size};
        }
        auto writer = store.write(i % 2 == 0 ? std::optional(hash) : std::nullopt);
        ASSERT_TRUE(writer) << writer.error().to_string();
        ASSERT_TRUE((*writer)->append(bytes_of(text)));
        ASSERT_TRUE((*writer)->finish());
        {
          const std::lock_guard lock(mutex);
          lives[hash].written = files.now();
        }
        mine.push_back(hash);
        if (size > 16'000'000 && large.empty()) large = hash;
        if (i % 4 != 3) continue;
        const std::string victim = i == 7 ? large : mine[mine.size() / 2];
        {
          const std::lock_guard lock(mutex);
          lives[victim].unlink_begun = std::min(lives[victim].unlink_begun, files.now());
        }
        ASSERT_TRUE(store.unlink(victim));
        const std::lock_guard lock(mutex);
        lives[victim].unlinked = files.now();
        std::erase(mine, victim);
      }
    };
    std::thread other(work, 1);
    work(2);
    other.join();
    created->reset();
  }
  const size_t steps = files.now();
  ASSERT_GT(steps, 500u);
  // Cuts all over the recording; each with its own luck.
  const size_t cuts = number_from("QUARRY_IMAGES", 60);
  SeededRandom random(number_from("QUARRY_SEED", 4711));
  for (size_t cut = 0; cut < cuts; ++cut) {
    const size_t at = 20 + (steps - 20) * cut / cuts + random.below((steps - 20) / cuts + 1);
    const std::string target = directory.path() + "/cut";
    fs::create_directory(target);
    files.build(std::min(at, steps), random, target);
    if (!fs::exists(target + "/live/kfs.store")) {
      fs::remove_all(target);
      continue;  // before the store was made
    }
    SCOPED_TRACE(fmt::format("cut after step {} of {}", at, steps));
    check(target + "/live", lives, at);
    if (HasFatalFailure()) return;
    fs::remove_all(target);
  }
}

// LevelDB's background work falls behind.
class SlowTables : public RecordingFiles {
 public:
  using RecordingFiles::RecordingFiles;
  std::atomic<bool> slow{false};
  Result<std::unique_ptr<Writable>> create(const std::string& path) override {
    if (slow && path.ends_with(".ldb")) std::this_thread::sleep_for(std::chrono::milliseconds(400));
    return RecordingFiles::create(path);
  }
};

// The blocks of a large file are in logs that LevelDB ended without a sync and has not made tables of yet. The last batch is small, so that
// the header does not wait for a table anyway.
TEST_F(KfsCrash, a_large_file_is_durable_when_its_tables_are_late) {
  kfs::TemporaryDirectory directory;
  SlowTables files(directory.path());
  fs::create_directory(directory.path() + "/live");
  std::map<std::string, Life> lives;
  const std::string text = test_payload(1, 16 * kMiB + 50'000), hash = sha256_hex(bytes_of(text));
  lives[hash] = {1, text.size()};
  size_t begun = 0, acknowledged = 0;
  {
    KfsTuning tuning = small_tuning();
    tuning.files = &files;
    auto created = KfsStore::create(directory.path() + "/live", {.key = "x"}, tuning);
    ASSERT_TRUE(created);
    files.slow = true;
    auto writer = (*created)->write(hash);
    ASSERT_TRUE(writer);
    ASSERT_TRUE((*writer)->append(bytes_of(text)));
    begun = files.now();
    ASSERT_TRUE((*writer)->finish());
    acknowledged = lives[hash].written = files.now();
  }
  SeededRandom random(number_from("QUARRY_SEED", 3));
  const uint64_t cuts = number_from("QUARRY_IMAGES", 30);
  for (uint64_t cut = 0; cut < cuts; ++cut) {
    // Around the end of the write, and right at its acknowledgement.
    const size_t at = cut % 3 == 0 ? acknowledged : begun + random.below(acknowledged + 20 - begun);
    const std::string target = directory.path() + "/cut";
    fs::create_directory(target);
    files.build(std::min(at, files.now()), random, target);
    SCOPED_TRACE(fmt::format("cut after step {}; the write ended at {}", at, acknowledged));
    check(target + "/live", lives, at);
    if (HasFatalFailure()) return;
    fs::remove_all(target);
  }
}

TEST_F(KfsCrash, a_second_cut_during_recovery_loses_nothing) {
  kfs::TemporaryDirectory directory;
  RecordingFiles files(directory.path());
  fs::create_directory(directory.path() + "/live");
  const std::string text = test_payload(1, 13'500'000), hash = sha256_hex(bytes_of(text)), kept = test_payload(2, 100'000),
                    kept_hash = sha256_hex(bytes_of(kept));
  size_t middle = 0;
  {
    KfsTuning tuning = small_tuning();
    tuning.files = &files;
    auto created = KfsStore::create(directory.path() + "/live", {.key = "x"}, tuning);
    ASSERT_TRUE(created);
    auto first = (*created)->write();
    ASSERT_TRUE((*first)->append(bytes_of(kept)));
    ASSERT_TRUE((*first)->finish());
    auto writer = (*created)->write(hash);
    ASSERT_TRUE((*writer)->append(bytes_of(text)));
    middle = files.now();  // two batches are in the bucket, no header
  }
  SeededRandom random(7);
  for (int round = 0; round < 12; ++round) {
    const std::string once = directory.path() + "/once", twice = directory.path() + "/twice";
    fs::create_directory(once);
    files.build(middle, random, once);
    RecordingFiles again(once);
    // What is there at the start is certain.
    again.adopt();
    {
      KfsTuning tuning = small_tuning();
      tuning.files = &again;
      auto opened = KfsStore::open(once + "/live", tuning);
      ASSERT_TRUE(opened) << opened.error().to_string();
      ASSERT_TRUE((*opened)->verify({}));  // opens every bucket: leftovers are removed
    }
    for (int cut = 0; cut < 6; ++cut) {
      fs::create_directory(twice);
      again.build(again.first_step() + random.below(again.now() - again.first_step() + 1), random, twice);
      std::map<std::string, Life> lives;
      lives[kept_hash] = {2, kept.size(), 0};
      lives[hash] = {1, text.size()};
      check(twice + "/live", lives, 1);
      if (HasFatalFailure()) return;
      fs::remove_all(twice);
    }
    fs::remove_all(once);
  }
}

// A child writes and removes chunks and files, and says so through a pipe; it is killed at some moment; all that it said is true.
TEST_F(KfsCrash, kill_9_of_a_writing_process_loses_nothing_acknowledged) {
  kfs::TemporaryDirectory directory;
  const std::string path = directory.path() + "/store";
  ASSERT_TRUE(KfsStore::create(path, {.key = "kill"}, small_tuning()));
  std::map<std::string, Life> lives;
  SeededRandom random(99);
  for (uint64_t round = 0; round < 25; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(::pipe(pipe_fds), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(pipe_fds[0]);
      auto opened = KfsStore::open(path, small_tuning());
      if (!opened) ::_exit(3);
      for (uint64_t i = 0;; ++i) {
        const uint64_t seed = round * 1'000'000 + i;
        const size_t size = i % 5 == 4 ? 13'000'000 : 50'000 + i % 7 * 40'000;
        const std::string text = test_payload(seed, size);
        auto writer = (*opened)->write(sha256_hex(bytes_of(text)));
        if (!writer || !(*writer)->append(bytes_of(text)) || !(*writer)->finish()) ::_exit(4);
        const uint64_t said[2] = {seed, size};
        if (::write(pipe_fds[1], said, sizeof said) != sizeof said) ::_exit(5);
      }
    }
    ::close(pipe_fds[1]);
    // On a slow machine the child would never come to say anything.
    pollfd said_something{.fd = pipe_fds[0], .events = POLLIN, .revents = 0};
    if (round % 2 == 0) ASSERT_GE(::poll(&said_something, 1, 10'000), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + random.below(150)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself with " << WEXITSTATUS(status);
    uint64_t said[2];
    while (::read(pipe_fds[0], said, sizeof said) == sizeof said) {
      lives[sha256_hex(bytes_of(test_payload(said[0], said[1])))] = {said[0], said[1], 0};
    }
    ::close(pipe_fds[0]);
    auto opened = KfsStore::open(path, small_tuning());
    ASSERT_TRUE(opened) << opened.error().to_string();
    for (const auto& [hash, life] : lives) {
      const auto stat = (*opened)->stat(hash);
      ASSERT_TRUE(stat) << "round " << round << ": " << stat.error().to_string();
    }
    const auto report = (*opened)->verify({.deep = round % 6 == 5, .repair = false, .progress = {}});
    ASSERT_TRUE(report);
    for (const auto& damage : report->damaged) ADD_FAILURE() << damage.hash << ": " << damage.what;
    // At most one more than was said: acknowledged, but not told yet.
    ASSERT_LE(report->files, lives.size() + round + 1);
  }
  EXPECT_GT(lives.size(), 12u);
  auto opened = KfsStore::open(path, small_tuning());
  const auto report = (*opened)->verify({.deep = true, .repair = true, .progress = {}});
  EXPECT_EQ(report->leftovers_removed, 0u) << "the opening removed them all";
}

}  // namespace
}  // namespace quarry::chunk
