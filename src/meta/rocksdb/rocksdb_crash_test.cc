// What can be wrong with the files of a RocksDB index, and with the room for them. Deaths, and what is wrong with the log:
// log_store/crash_test.cc.
#include <sys/mount.h>

#include <thread>

#include "meta/crash_fixture.h"
#include "meta/rocksdb/rocksdb_place.h"

namespace quarry::meta {
namespace {

class RocksdbCheckpoint : public RocksdbCrash, public ::testing::WithParamInterface<bool> {};

TEST_P(RocksdbCheckpoint, a_second_checkpoint_stores_only_what_is_new) {
  options_.memtable_bytes = 8u << 20;
  open();
  fill(0, 1000);
  checkpoint();
  const uint64_t first = log_->bytes_stored();
  EXPECT_GT(first, 500'000u);
  fill(1000, 1010);
  checkpoint();
  const uint64_t second = log_->bytes_stored() - first;
  EXPECT_LT(second, first / 2) << "the second checkpoint stored " << second << " of " << first << ": " << stored_files();
  // RocksDB may compact the table of keys meanwhile, so what must not be stored twice is the blobs, more than half of the bytes.
  // Also across a restart, or across a restoration.
  close();
  const bool restored = GetParam();
  if (restored) fs::remove_all(path());
  open();
  EXPECT_EQ(store_->status().opened_by, restored ? "checkpoint" : "directory");
  fill(1010, 1030);
  checkpoint();
  EXPECT_LT(log_->bytes_stored(), first / 2) << stored_files();
  kill();
  fs::remove_all(path());
  open();
  expect_filled();
}
INSTANTIATE_TEST_SUITE_P(RestartOrRestoration, RocksdbCheckpoint, ::testing::Bool());

TEST_F(RocksdbCrash, damage_in_any_file_of_the_directory_is_found_and_repaired_from_the_log) {
  open();
  fill(0, 400);
  checkpoint();
  fill(400, 420);
  close();
  const std::string sound = directory_.path() + "/sound";
  copy_directory(path(), sound);
  SeededRandom random(5);
  int rebuilt = 0;
  for (const std::string suffix : {".sst", ".blob", "CURRENT", "MANIFEST"}) {
    for (const std::string how : {"flip", "truncate", "remove", "garbage"}) {
      SCOPED_TRACE(suffix + " " + how);
      fs::remove_all(path());
      copy_directory(sound, path());
      std::vector<std::string> targets;
      for (const auto& entry : fs::directory_iterator(path() + "/db")) {
        const std::string name = entry.path().filename().string();
        if (name.ends_with(suffix) || name.starts_with(suffix)) targets.push_back(entry.path().string());
      }
      ASSERT_FALSE(targets.empty());
      const std::string target = targets[random.below(targets.size())];
      const auto size = fs::file_size(target);
      if (how == "remove") fs::remove(target);
      if (how == "truncate") fs::resize_file(target, size / 2);
      if (how == "flip" || how == "garbage") {
        std::fstream file(target, std::ios::in | std::ios::out | std::ios::binary);
        const auto at = static_cast<std::streamoff>(how == "flip" ? random.below(size) : 0);
        std::string bytes(how == "flip" ? 1 : std::min<size_t>(size, 4096), '\0');
        file.seekg(at);
        file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        for (char& byte : bytes) byte = static_cast<char>(byte ^ 0x5a);
        file.seekp(at);
        file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
      }
      // Never a wrong byte: a start that notices rebuilds; one that does not gives right rows, or corrupt and a rebuild next time.
      open();
      const auto rows = executor_.run(store_->scan({KeyRange::prefix("row/"), SIZE_MAX, SIZE_MAX}));
      if (!rows) {
        EXPECT_EQ(rows.error().code(), Code::corrupt) << rows.error().to_string();
        EXPECT_TRUE(fs::exists(path() + "/DAMAGED"));
        kill();
        open();
      }
      if (store_->status().opened_by == "checkpoint") ++rebuilt;
      expect_filled();
      kill();
    }
  }
  EXPECT_GE(rebuilt, 10);
}

// Links keep files that the index has let go, in a file system that may be full.
TEST_F(RocksdbCrash, a_checkpoint_that_fails_or_dies_leaves_no_links) {
  const std::string links = path() + "/checkpoint";
  open();
  fill(0, 100);
  log_->set_faults({.fail_store_after = 1});
  EXPECT_EQ(executor_.run(store_->checkpoint()).error().code(), Code::no_space);
  EXPECT_FALSE(fs::exists(links));
  log_->set_faults({.fail_publish = true});
  EXPECT_EQ(executor_.run(store_->checkpoint()).error().code(), Code::no_space);
  EXPECT_FALSE(fs::exists(links));
  kill();
  options_.die_at = [](std::string_view at) { return at == "checkpoint.stored"; };
  open();
  EXPECT_FALSE(executor_.run(store_->checkpoint()));
  kill();
  EXPECT_TRUE(fs::exists(links)) << "it did not die as a process does";
  fs::copy(links, links + ".tmp");  // where RocksDB makes them
  options_.die_at = nullptr;
  open();
  EXPECT_FALSE(fs::exists(links));
  EXPECT_FALSE(fs::exists(links + ".tmp"));
  expect_filled();
}

// The log keeps what was stored until a checkpoint is published: attempts that store everything again would fill the drives.
TEST_F(RocksdbCrash, a_checkpoint_goes_on_with_what_failed_ones_have_stored) {
  options_.memtable_bytes = 8u << 20;  // one table and one file of blobs
  open();
  fill(0, 300);
  const auto fails = [this](MemoryLogFaults faults) {
    log_->set_faults(faults);
    const uint64_t before = log_->bytes_stored();
    EXPECT_EQ(executor_.run(store_->checkpoint()).error().code(), Code::no_space);
    return log_->bytes_stored() - before;
  };
  const uint64_t first_file = fails({.fail_store_after = 1}), rest = fails({.fail_publish = true});
  EXPECT_GT(first_file, 100'000u);
  EXPECT_GT(rest, 50'000u);
  EXPECT_LT(fails({.fail_publish = true}), 20'000u) << "MANIFEST, CURRENT and OPTIONS";
  log_->set_faults({});
  checkpoint();
  uint64_t named = 0;
  for (const auto& file : media_->manifest->files) named += file.size;
  EXPECT_LE(first_file + rest, named + 20'000);
  EXPECT_EQ(media_->files.size(), media_->manifest->files.size());
  kill();
  lose_index();
  open();
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  expect_filled();
}

TEST_F(RocksdbCrash, a_restore_blocks_the_pool_and_never_the_loop) {
  struct OnThePool final : IndexPlace {
    explicit OnThePool(std::unique_ptr<IndexPlace> beneath) : place(std::move(beneath)) {}
    IndexPlace& there() const {
      EXPECT_EQ(Executor::current(), nullptr);
      return *place;
    }
    std::string name() const override { return place->name(); }
    Result<Found> look(OnIndexDamage on_damage) override { return there().look(std::move(on_damage)); }
    Result<void> discard(bool keep_aside) override { return there().discard(keep_aside); }
    Result<void> begin_restore() override { return there().begin_restore(); }
    Result<std::shared_ptr<RestoredFile>> restore_file(const std::string& name) override { return there().restore_file(name); }
    Result<void> end_restore() override { return there().end_restore(); }
    Result<std::shared_ptr<Index>> open(bool fresh, OnIndexDamage on_damage) override { return there().open(fresh, std::move(on_damage)); }
    const std::unique_ptr<IndexPlace> place;
  };
  open();
  fill(0, 50);
  checkpoint();
  kill();
  lose_index();
  RocksdbMetaOptions options = options_;
  options.directory = path();
  options.need_pool();
  log_ = std::make_unique<MemoryCommitLog>(media_, log_faults_);
  auto store = executor_.run(LogMetaStore::open(options, std::make_unique<OnThePool>(make_rocksdb_place(options)), *log_));
  ASSERT_TRUE(store) << store.error().to_string();
  store_ = std::move(*store);
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  expect_filled();
}

// RocksDB 7.8 ends a scan without an error at a file whose first block is damaged, if it looks for range tombstones.
TEST_F(RocksdbCrash, a_scan_over_a_damaged_table_never_leaves_out_rows) {
  options_.table_file_bytes = 32u << 10;
  options_.blob_size_min = 1u << 20;
  options_.checkpoint_at_close_bytes = 0;
  open();
  fill(0, 1200);
  close();
  const auto tables = files(".sst");
  ASSERT_GT(tables.size(), 8u);
  const std::string sound = directory_.path() + "/sound";
  copy_directory(path(), sound);
  int noticed = 0;
  for (const auto& table : tables) {
    SCOPED_TRACE(table);
    copy_directory(sound, path());
    {
      std::fstream file(table, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(100);
      const char byte = static_cast<char>(file.get() ^ 1);
      file.seekp(100);
      file.put(byte);
    }
    open();
    if (store_->status().opened_by != "directory") {  // the row that says how far it is was in that block
      EXPECT_EQ(store_->stats().index_trouble, "") << "it was made anew";
      ++noticed;
      expect_filled();
      kill();
      continue;
    }
    for (const size_t limit : {size_t{20}, SIZE_MAX}) {
      for (const Direction direction : {Direction::forward, Direction::backward}) {
        // Pages from one end to the other: all rows, or corrupt.
        ScanOptions page{KeyRange::prefix("row/"), limit, SIZE_MAX, direction};
        int rows = 0;
        for (;;) {
          const auto got = executor_.run(store_->scan(page));
          if (!got) {
            EXPECT_EQ(got.error().code(), Code::corrupt);
            ++noticed;
            break;
          }
          rows += static_cast<int>(got->size());
          if (got->size() < limit) {
            EXPECT_EQ(rows, filled_);
            break;
          }
          if (direction == Direction::forward) {
            page.range.begin = got->back().key + '\0';
          } else {
            page.range.end = got->back().key;
          }
        }
      }
    }
    kill();
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_GE(noticed, static_cast<int>(tables.size()));
}

TEST_F(RocksdbCrash, an_index_without_room_refuses_and_goes_on_once_it_has_some) {
  if (::mount("tmpfs", directory_.path().c_str(), "tmpfs", 0, "size=16m") != 0) GTEST_SKIP() << "mounting is not permitted here";
  struct Unmount {
    std::string at;
    ~Unmount() { ::umount2(at.c_str(), MNT_DETACH); }
  } unmount{directory_.path()};
  open();
  fill(0, 10);
  const std::string ballast = directory_.path() + "/somebody-elses";
  {
    std::ofstream out(ballast, std::ios::binary);
    const std::string block(64 << 10, 'x');
    while (out.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  // Until a memtable can no longer become a table.
  int rows = 0;
  Result<Version> last = Version{0};
  for (; rows < 2000 && last; ++rows) {
    auto transaction = std::move(executor_.run(store_->begin()).value());
    transaction->put(fmt::format("full/{:06}", rows), value_of(rows));
    last = executor_.run(transaction->commit());
  }
  ASSERT_FALSE(last) << "it was never full: nothing was tested";
  EXPECT_EQ(last.error().code(), Code::unknown_outcome) << last.error().to_string();
  EXPECT_EQ(executor_.run(put_one(*store_, "late")).error().code(), Code::no_space);
  EXPECT_NE(store_->status().failure, "");
  expect_filled();

  fs::remove(ballast);
  // RocksDB looks at the free space every five seconds of the real clock.
  for (int i = 0; i < 600 && !store_->status().failure.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    executor_.run(sleep_for(std::chrono::milliseconds(600)));
  }
  EXPECT_EQ(store_->status().failure, "");
  EXPECT_GT(put("later", "1"), 0u);
  const auto expect = [&] {
    expect_filled();
    for (int i = 0; i < rows; ++i) {  // also the last: it was in the log
      const auto found = executor_.run(store_->get(fmt::format("full/{:06}", i)));
      ASSERT_TRUE(found && *found) << i;
      ASSERT_EQ(**found, value_of(i)) << i;
    }
    ASSERT_FALSE(executor_.run(store_->get("late")).value());
  };
  expect();
  kill();
  open();
  expect();
  kill();
}

}  // namespace
}  // namespace quarry::meta
