// What is decided before a wait and carried out after it, when something changed in between: names that were taken and are not gone for
// good yet, ids that are just being removed, files that are just being adopted. A call of the file system is held where a test wants it;
// each test sees that the two sides met.
#include <condition_variable>
#include <thread>

#include "chunk/dir/testing/store_fixture.h"

namespace quarry::chunk::dir {
namespace {

using testing::IsEmpty;

// A file system some of whose calls ("sync_directory b") wait, in the order in which they came, until they are let go.
class GatedFiles final : public FileSystem {
 public:
  explicit GatedFiles(std::shared_ptr<MemoryFileSystem> below) : below_(std::move(below)) {}
  void hold(const std::string& call) {
    const std::lock_guard lock(mutex_);
    gates_[call] = {};
  }
  void let_one(const std::string& call) {
    const std::lock_guard lock(mutex_);
    ++gates_[call].passing;
    wake_.notify_all();
  }
  void let_all() {
    const std::lock_guard lock(mutex_);
    gates_.clear();
    wake_.notify_all();
  }
  size_t held(const std::string& call) {
    const std::lock_guard lock(mutex_);
    const auto gate = gates_.find(call);
    return gate == gates_.end() ? 0 : gate->second.came - std::min(gate->second.came, gate->second.passing);
  }

  const std::string& root() const override { return below_->root(); }
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    TRY_ASSIGN(auto file, below_->open(path, mode));
    return std::make_unique<GatedFile>(*this, std::move(file), path);
  }
  Result<FileInfo> info(const std::string& path) override { return below_->info(path); }
  Result<std::vector<DirectoryEntry>> list(const std::string& path) override { return below_->list(path); }
  Result<void> make_directory(const std::string& path) override { return below_->make_directory(path); }
  Result<void> remove_directory(const std::string& path) override { return below_->remove_directory(path); }
  Result<void> rename(const std::string& from, const std::string& to) override { return below_->rename(from, to); }
  Result<void> link(const std::string& from, const std::string& to) override { return below_->link(from, to); }
  Result<void> remove(const std::string& path) override {
    pass("remove " + path);
    return below_->remove(path);
  }
  Result<void> sync_directory(const std::string& path) override {
    pass("sync_directory " + path);
    return below_->sync_directory(path);
  }
  Result<FileSystemSpace> space() override { return below_->space(); }
  Result<void> check_root() override { return below_->check_root(); }
  Result<std::unique_ptr<File>> lock(const std::string& path) override { return below_->lock(path); }

 private:
  struct Gate {
    size_t came = 0, passing = 0;
  };
  class GatedFile final : public File {
   public:
    GatedFile(GatedFiles& files, std::unique_ptr<File> file, std::string path)
        : files_(files), file_(std::move(file)), path_(std::move(path)) {}
    Result<size_t> read_at(uint64_t offset, MutableByteView into) override { return file_->read_at(offset, into); }
    Result<void> write_at(uint64_t offset, std::span<const ByteView> parts) override { return file_->write_at(offset, parts); }
    Result<void> sync() override {
      files_.pass("sync " + path_);
      return file_->sync();
    }
    Result<FileInfo> info() override { return file_->info(); }
    Result<std::optional<std::string>> attribute(const char* name) override { return file_->attribute(name); }
    Result<void> set_attribute(const char* name, std::string_view value) override { return file_->set_attribute(name, value); }

   private:
    GatedFiles& files_;
    const std::unique_ptr<File> file_;
    const std::string path_;
  };
  void pass(const std::string& call) {
    std::unique_lock lock(mutex_);
    const auto gate = gates_.find(call);
    if (gate == gates_.end()) return;
    const size_t mine = gate->second.came++;
    wake_.wait(lock, [&] {
      const auto now = gates_.find(call);
      return now == gates_.end() || mine < now->second.passing;
    });
  }

  const std::shared_ptr<MemoryFileSystem> below_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::string, Gate> gates_;
};

class DirOutlived : public testing::Test {
 public:
  void SetUp() override {
    ASSERT_TRUE(format_mountpath(*files, {}));
    DirStoreOptions options;
    options.threads = 4;
    options.health_timeout = Duration::zero();
    options.file_system = gated;
    auto opened = executor.run(DirStore::open("memory", options));
    ASSERT_TRUE(opened) << opened.error().to_string();
    store = std::move(*opened);
  }
  void TearDown() override {
    gated->let_all();
    if (store) ASSERT_TRUE(executor.run(store->close()));
  }
  void put_and_show(ChunkId first, const std::string& key, const std::string& content) {
    ASSERT_TRUE(executor.run(put_whole_file(*store, first, "b", key, content)));
    ASSERT_TRUE(executor.run(store->show_file(first, {})));
  }
  using Done = std::optional<Result<void>>;
  static Task<void> keep(Task<Result<void>> task, Done* done) { *done = co_await std::move(task); }
  // In real time, since what is waited for is in threads. false: it did not come.
  static Task<bool> comes(std::function<bool()> what, int milliseconds = 10'000) {
    for (int i = 0; i < milliseconds; ++i) {
      if (what()) co_return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      co_await Executor::here().yield();
    }
    co_return what();
  }
  // `second` begins while `first` is held at `call`. pictures: looks at what a power cut would leave, should `second` be done by then.
  static Task<void> meet(DirOutlived* t, std::string call, Task<Result<void>> first, Task<Result<void>> second,
                         std::function<void(MemoryFileSystem&)> look) {
    TaskGroup group;
    Done one, other;
    t->gated->hold(call);
    group.spawn(keep(std::move(first), &one));
    const bool held = co_await comes([&] { return t->gated->held(call) == 1; });
    EXPECT_TRUE(held) << "they did not meet";
    EXPECT_FALSE(one);
    group.spawn(keep(std::move(second), &other));
    const bool early = co_await comes([&] { return other.has_value(); }, 100);
    if (early && *other) t->look_at_power_cuts(look);
    t->gated->let_all();
    co_await group.join();
    EXPECT_TRUE(*one) << one->error().to_string();
    EXPECT_TRUE(*other) << other->error().to_string();
    t->look_at_power_cuts(look);
  }
  void look_at_power_cuts(const std::function<void(MemoryFileSystem&)>& look) {
    for (uint64_t seed = 0; seed < 64 && !HasFailure(); ++seed) look(*files->crash(seed, seed % 2 == 0));
  }

  std::shared_ptr<MemoryFileSystem> files = MemoryFileSystem::create();
  std::shared_ptr<GatedFiles> gated = std::make_shared<GatedFiles>(files);
  SimExecutor executor{{.threads = true}};
  std::unique_ptr<DirStore> store;
};

// The first hiding has taken the name, and waits for the disk. The second finds it taken; it may not say so before it is gone for good.
TEST_F(DirOutlived, a_second_hiding_is_not_done_before_the_first_is_durable) {
  put_and_show({4, 1}, "y", "bytes");
  put_and_show({4, 2}, "z", "others");  // keeps the directory
  executor.run(meet(this, "sync_directory b", store->hide_file({4, 1}), store->hide_file({4, 1}),
                    [](MemoryFileSystem& after) { EXPECT_FALSE(after.info("b/y")) << "a hidden file is seen"; }));
}

TEST_F(DirOutlived, a_file_that_is_removed_while_it_is_hidden_does_not_come_back_under_its_name) {
  put_and_show({4, 1}, "y", "bytes");
  put_and_show({4, 2}, "z", "others");
  executor.run(meet(this, "sync_directory b", store->hide_file({4, 1}), store->remove({{4, 1}}),
                    [](MemoryFileSystem& after) { EXPECT_FALSE(after.info("b/y")) << "a removed file is back"; }));
}

// The newer version has taken the name of the older one, and waits for the disk; the older one is removed meanwhile.
TEST_F(DirOutlived, an_older_version_that_is_removed_while_the_newer_is_shown_does_not_come_back_under_its_name) {
  put_and_show({4, 1}, "y", "older");
  ASSERT_TRUE(executor.run(put_whole_file(*store, {4, 2}, "b", "y", "newer")));
  executor.run(meet(this, "sync_directory b", store->show_file({4, 2}, {}), store->remove({{4, 1}}),
                    [](MemoryFileSystem& after) { EXPECT_NE(after.all()["b/y"], "older") << "a removed file is back"; }));
  EXPECT_EQ(files->all()["b/y"], "newer");
}

// A file is removed, and its directory with it, while showing it waits for the disk: that is no error of the drive.
TEST_F(DirOutlived, a_showing_that_a_removal_overtakes_is_no_failed_write) {
  ASSERT_TRUE(executor.run(put_whole_file(*store, {4, 1}, "b", "x/y", "bytes")));
  executor.run(meet(this, "sync_directory b/x", store->show_file({4, 1}, {}), store->remove({{4, 1}}),
                    [](MemoryFileSystem& after) { EXPECT_FALSE(after.info("b/x/y")); }));
  EXPECT_FALSE(files->info("b"));
  EXPECT_EQ(store->health().write_errors, 0u);
}

// What is put while the same id is being removed is not the removal's to take.
TEST_F(DirOutlived, a_chunk_is_not_put_while_its_id_is_being_removed) {
  const ChunkId id{1, 7};
  const std::string path = place_of(kChunks, id), old = test_payload(1, 3000), fresh = test_payload(2, 4000);
  ASSERT_TRUE(executor.run(store->put(id, {bytes_of(old)}, {})));
  const auto meet_put = [](DirOutlived* t, ChunkId chunk, std::string call, std::string text) -> Task<void> {
    TaskGroup group;
    Done removed, put;
    t->gated->hold(call);
    group.spawn(keep(t->store->remove({chunk}), &removed));
    const bool held = co_await comes([&] { return t->gated->held(call) == 1; });
    EXPECT_TRUE(held) << "they did not meet";
    std::vector<ByteView> parts{bytes_of(text)};
    put = co_await t->store->put(chunk, parts, {});
    t->gated->let_all();
    co_await group.join();
    EXPECT_TRUE(*removed);
    if (!*put) {
      EXPECT_EQ(put->error().code(), Code::already_exists);
      put = co_await t->store->put(chunk, parts, {});
      EXPECT_TRUE(*put);
    }
    auto got = co_await t->store->get(chunk, 0, kChunkSizeMax);
    EXPECT_TRUE(got) << "an acknowledged chunk is lost: " << got.error().to_string();
    if (got) EXPECT_TRUE(text_of(got->view()) == text);
  };
  executor.run(meet_put(this, id, "remove " + path, fresh));
}

TEST_F(DirOutlived, a_second_removal_is_not_done_before_the_first_is_durable) {
  const ChunkId id{1, 7};
  ASSERT_TRUE(executor.run(store->put(id, {bytes_of("bytes")}, {})));
  executor.run(meet(this, fmt::format("sync_directory {}", parent_of(place_of(kChunks, id))), store->remove({id}), store->remove({id}),
                    [&](MemoryFileSystem& after) { EXPECT_FALSE(after.info(place_of(kChunks, id))) << "a removed chunk is back"; }));
}

// Removals that want the same chunks, in opposite order, and one of them twice; the store is closed meanwhile. Each takes all its ids or
// waits for all, so one goes after the other, and close after them.
TEST_F(DirOutlived, removals_of_the_same_chunks_in_any_order_end_and_close_waits_for_them) {
  const ChunkId a{1, 7}, b{1, 8}, c{1, 9};
  for (const ChunkId id : {a, b, c}) ASSERT_TRUE(executor.run(store->put(id, {bytes_of("bytes")}, {})));
  const auto meet_all = [](DirOutlived* t, ChunkId one, ChunkId two, ChunkId three) -> Task<void> {
    TaskGroup group;
    Done first, second, third, closed;
    const std::string call = "remove " + place_of(kChunks, two);
    t->gated->hold(call);
    group.spawn(keep(t->store->remove({one, two, two}), &first));
    const bool held = co_await comes([&] { return t->gated->held(call) == 1; });
    EXPECT_TRUE(held) << "they did not meet";
    group.spawn(keep(t->store->remove({three, two, one}), &second));
    group.spawn(keep(t->store->remove({two, three}), &third));
    group.spawn(keep(t->store->close(), &closed));
    EXPECT_FALSE(first || second || third || closed) << "they did not meet";
    t->gated->let_all();
    co_await group.join();
    EXPECT_TRUE(*first && *second && *third && *closed);
  };
  executor.run(meet_all(this, a, b, c));
  look_at_power_cuts([&](MemoryFileSystem& after) {
    for (const ChunkId id : {a, b, c}) EXPECT_FALSE(after.info(place_of(kChunks, id))) << "a removed chunk is back";
  });
}

// One chunk, or all, is removed after finish_file has seen that they are there, while it waits for the disk. (They were there again then.)
TEST_F(DirOutlived, what_is_removed_while_its_file_is_finished_stays_removed) {
  const auto meet_finish = [](DirOutlived* t, ChunkId file, std::vector<ChunkId> chunks) -> Task<void> {
    TaskGroup group;
    Done finished, removed;
    const std::string call = fmt::format("sync {}/f-{}", kUnfinished, file.to_string());
    t->gated->hold(call);
    group.spawn(keep(put_whole_file(*t->store, file, "b", "k", test_payload(1, 2 * kTestChunk)), &finished));
    const bool held = co_await comes([&] { return t->gated->held(call) == 1; });
    EXPECT_TRUE(held) << "they did not meet";
    group.spawn(keep(t->store->remove(std::move(chunks)), &removed));
    co_await comes([&] { return removed.has_value(); }, 100);
    t->gated->let_all();
    co_await group.join();
    EXPECT_TRUE(*finished && *removed);
  };
  for (const uint64_t removed : {1, 2}) {
    const ChunkId first{4, removed};
    const std::vector<ChunkId> chunks = chunks_of(first, 2 * kTestChunk);
    const uint64_t left = chunks.size() - removed;
    executor.run(meet_finish(this, first, {chunks.begin() + static_cast<ptrdiff_t>(left), chunks.end()}));
    for (size_t i = 0; i < chunks.size(); ++i) EXPECT_EQ(executor.run(store->get(chunks[i], 0, kChunkSizeMax)).has_value(), i < left) << i;
    EXPECT_EQ(store->space().chunk_count, left);
    EXPECT_EQ(store->space().payload_bytes, left * kTestChunk);
    EXPECT_THAT(executor.run(store->fsck())->violations, IsEmpty());
    ASSERT_TRUE(executor.run(store->remove(chunks)));
  }
}

class DirOutlivedAdoption : public DirOutlived {
 public:
  void make_file(const std::string& path, const std::string& content) {
    for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1))
      if (!files->info(path.substr(0, slash))) ASSERT_TRUE(files->make_directory(path.substr(0, slash)));
    auto file = files->open(path, OpenMode::create);
    ASSERT_TRUE(file);
    const ByteView parts[] = {bytes_of(content)};
    ASSERT_TRUE((*file)->write_at(0, parts));
    ASSERT_TRUE((*file)->sync());
  }
  Task<Result<void>> adopt(std::string path, ChunkId first, std::string key) {
    DirStore::Adoption adoption;
    adoption.path = std::move(path);
    adoption.first = first;
    adoption.chunk_size = kTestChunk;
    adoption.stride = kTestStride;
    adoption.directory = "b";
    adoption.name = std::move(key);
    auto adopted = co_await store->adopt(std::move(adoption));
    if (!adopted) co_return std::move(adopted).error();
    co_return Result<void>();
  }
  void expect_readable(const Done& done, ChunkId first, const std::string& content) {
    ASSERT_TRUE(done);
    if (!*done) return;
    auto got = executor.run(get_whole_file(*store, first, content.size()));
    ASSERT_TRUE(got) << "an adopted file cannot be read: " << got.error().to_string();
    EXPECT_TRUE(*got == content);
  }
};

// Both have looked, and found nobody else's record; whose record is written last stays.
TEST_F(DirOutlivedAdoption, of_two_that_adopt_one_file_at_most_one_is_told_that_it_has_it) {
  make_file("b/k", "bytes");
  Done one, other;
  const auto meet_other = [](DirOutlivedAdoption* t, Done* first, Done* second) -> Task<void> {
    TaskGroup group;
    t->gated->hold("sync b/k");
    group.spawn(keep(t->adopt("b/k", {4, 1}, "k"), first));
    const bool held = co_await comes([&] { return t->gated->held("sync b/k") == 1; });
    EXPECT_TRUE(held) << "they did not meet";
    group.spawn(keep(t->adopt("b/k", {4, 2}, "k"), second));
    co_await comes([&] { return second->has_value() || t->gated->held("sync b/k") == 2; });
    t->gated->let_one("sync b/k");
    co_await comes([&] { return first->has_value(); });
    t->gated->let_all();
    co_await group.join();
  };
  executor.run(meet_other(this, &one, &other));
  ASSERT_TRUE(one && other);
  EXPECT_NE(one->has_value(), other->has_value());
  expect_readable(one, {4, 1}, "bytes");
  expect_readable(other, {4, 2}, "bytes");
}

// The file is moved aside, for a key whose directory must be where it lies, after its checksums were read and recorded.
TEST_F(DirOutlivedAdoption, a_file_that_is_moved_aside_while_it_is_adopted_is_not_adopted) {
  make_file("b/a", "bytes");
  ASSERT_TRUE(executor.run(put_whole_file(*store, {4, 2}, "b", "a/c", "another")));
  Done adopted, shown;
  const auto meet_showing = [](DirOutlivedAdoption* t, Done* first, Done* second) -> Task<void> {
    TaskGroup group;
    t->gated->hold("sync b/a");
    group.spawn(keep(t->adopt("b/a", {4, 1}, "a"), first));
    const bool held = co_await comes([&] { return t->gated->held("sync b/a") == 1; });
    EXPECT_TRUE(held) << "they did not meet";
    group.spawn(keep(t->store->show_file({4, 2}, {}), second));
    co_await comes([&] { return second->has_value(); });
    t->gated->let_all();
    co_await group.join();
  };
  executor.run(meet_showing(this, &adopted, &shown));
  ASSERT_TRUE(shown && *shown) << shown->error().to_string();
  expect_readable(adopted, {4, 1}, "bytes");
  EXPECT_THAT(executor.run(store->fsck())->violations, IsEmpty());
}

}  // namespace
}  // namespace quarry::chunk::dir
