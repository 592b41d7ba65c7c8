// Files of the index that rot on their disk: they are not stored as a checkpoint, whose publication would let go of the log that can make
// them anew.
#include <rocksdb/db.h>
#include <rocksdb/options.h>

#include "meta/checkpoint.h"
#include "meta/crash_fixture.h"

namespace quarry::meta {
namespace {

class RottenIndex : public RocksdbCrash {
 protected:
  RottenIndex() {
    options_.checkpoint_at_close_bytes = 0;
    options_.memtable_bytes = 8u << 20;  // no compactions, which would notice too
  }
  static void flip(const std::string& path, uint64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const char byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
    ASSERT_TRUE(file.flush());
  }
  std::set<std::string> known() {  // files that the last checkpoint holds
    std::set<std::string> names;
    for (const auto& entry : CheckpointExtra::decode(media_->manifest->extra)->files) names.insert(path() + "/db/" + entry.name);
    return names;
  }
  // As an earlier program would have written them: without checksums of their own.
  void rewrite_files_without_sums() {
    ::rocksdb::DB* raw = nullptr;
    ::rocksdb::Options options;
    options.disable_auto_compactions = true;
    ASSERT_TRUE(::rocksdb::DB::Open(options, path() + "/db", &raw).ok());
    const std::unique_ptr<::rocksdb::DB> db(raw);
    ::rocksdb::CompactRangeOptions all;
    all.bottommost_level_compaction = ::rocksdb::BottommostLevelCompaction::kForce;
    ASSERT_TRUE(db->CompactRange(all, nullptr, nullptr).ok());
    ASSERT_TRUE(db->Close().ok());
  }
};

TEST_F(RottenIndex, is_refused_as_a_checkpoint_and_rebuilt) {
  for (const std::string suffix : {".sst", ".blob"}) {
    for (const bool after_a_checkpoint : {false, true}) {
      SCOPED_TRACE(suffix + (after_a_checkpoint ? " after a checkpoint" : " before any"));
      media_ = std::make_shared<MemoryLogMedia>();
      filled_ = 0;
      fs::remove_all(path());
      open();
      std::set<std::string> before;
      if (after_a_checkpoint) {
        fill(0, 300);
        checkpoint();
        before = known();
      }
      fill(filled_, filled_ + 400);
      close();  // flushes; makes no checkpoint
      const auto frames = media_->frames.size();
      const auto manifest = media_->manifest ? media_->manifest->extra : "";
      ASSERT_GE(frames, 400u);
      std::string target;
      for (const std::string& file : files(suffix)) {
        if (!before.contains(file) && (target.empty() || fs::file_size(file) > fs::file_size(target))) target = file;
      }
      ASSERT_FALSE(target.empty());
      flip(target, fs::file_size(target) / 3);
      open();
      ASSERT_EQ(store_->status().opened_by, "directory") << "the damage was noticed too early: nothing is tested";
      EXPECT_EQ(store_->stats().index_trouble, "");
      const auto made = executor_.run(store_->checkpoint());
      ASSERT_FALSE(made) << "a rotten file was published";
      EXPECT_EQ(made.error().code(), Code::corrupt) << made.error().to_string();
      EXPECT_NE(made.error().to_string().find(fs::path(target).filename().string()), std::string::npos) << made.error().to_string();
      EXPECT_EQ(media_->frames.size(), frames) << "the log was let go";
      EXPECT_EQ(media_->manifest ? media_->manifest->extra : "", manifest);
      EXPECT_NE(store_->stats().index_trouble, "") << "the status says so";
      EXPECT_NE(store_->status().checkpoint_error, "");
      kill();
      open();
      EXPECT_EQ(store_->status().opened_by, after_a_checkpoint ? "checkpoint" : "log");
      EXPECT_NE(store_->status().reason.find("damaged"), std::string::npos) << store_->status().reason;
      EXPECT_EQ(store_->stats().index_trouble, "");
      expect_filled();
      checkpoint();
      kill();
      fs::remove_all(path());
      open();
      expect_filled();
      kill();
    }
  }
}

TEST_F(RottenIndex, that_the_last_checkpoint_holds_is_named_from_there) {
  open();
  fill(0, 400);
  checkpoint();
  const auto held = known();
  std::string target;
  for (const std::string& file : files(".blob")) {
    if (held.contains(file)) target = file;
  }
  ASSERT_FALSE(target.empty());
  flip(target, fs::file_size(target) / 2);
  fill(400, 420);
  checkpoint();
  kill();
  fs::remove_all(path());
  open();
  expect_filled();
}

// The second reading of a file, the one that is stored, differs from the first.
TEST_F(RottenIndex, that_rots_between_two_readings_is_refused_too) {
  auto flipped = std::make_shared<std::atomic<bool>>(false);
  const std::string links = path() + "/checkpoint";
  options_.die_at = [flipped, links](std::string_view at) {
    if (at != "checkpoint.storing" || flipped->exchange(true)) return false;
    for (const auto& entry : fs::directory_iterator(links)) {
      if (entry.path().string().ends_with(".sst")) flip(entry.path().string(), 10);
    }
    return false;
  };
  open();
  fill(0, 400);
  const auto made = executor_.run(store_->checkpoint());
  ASSERT_TRUE(flipped->load());
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), Code::corrupt);
  EXPECT_EQ(media_->manifest, std::nullopt);
  kill();
  options_.die_at = nullptr;
  open();
  expect_filled();
}

TEST_F(RottenIndex, of_an_earlier_program_is_read_through_before_it_is_stored) {
  for (const bool rots : {false, true}) {
    media_ = std::make_shared<MemoryLogMedia>();
    filled_ = 0;
    fs::remove_all(path());
    open();
    fill(0, 400);
    close();
    rewrite_files_without_sums();
    const auto tables = files(".sst");
    ASSERT_FALSE(tables.empty());
    if (rots) flip(tables[0], fs::file_size(tables[0]) / 3);
    open();
    ASSERT_EQ(store_->status().opened_by, "directory");
    const auto made = executor_.run(store_->checkpoint());
    EXPECT_EQ(made.has_value(), !rots) << (made ? "" : made.error().to_string());
    kill();
    if (!rots) fs::remove_all(path());
    open();
    expect_filled();
    kill();
  }
}

}  // namespace
}  // namespace quarry::meta
