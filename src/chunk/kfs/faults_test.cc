// File systems that fail under a kfs chunk store: the caller gets a clear error, the rest keeps working, nothing acknowledged is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <leveldb/db.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <atomic>
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include "base/coding.h"
#include "chunk/kfs/bucket_set.h"
#include "chunk/kfs/directory.h"
#include "chunk/kfs/kfs_chunk_store.h"
#include "chunk/kfs/kfs_store.h"
#include "chunk/kfs/temporary_directory.h"
#include "chunk/test_payload.h"
#include "codec/digest.h"
#include "io/clock.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {
namespace {

namespace fs = std::filesystem;
using kfs::Files;

// The operating system's files, until told to fail.
class FaultyFiles : public Files {
 public:
  std::atomic<int> write_error{0};             // a Code: every change fails with it
  std::atomic<int64_t> bytes_left{INT64_MAX};  // then appends fail with no_space, half done
  std::atomic<int> read_error{0};
  std::atomic<bool> hold_reads{false};  // of tables: they wait until it is taken back
  mutable std::atomic<int> held_reads{0};
  std::atomic<bool> hold_appends{false};  // to logs: the same
  std::atomic<int> held_appends{0};
  std::atomic<bool> hold_second_sync{false};  // of a log, and all after it
  std::atomic<int> syncs_begun{0};

  Result<std::unique_ptr<Writable>> create(const std::string& path) override {
    TRY(may_write(path));
    TRY_ASSIGN(auto inner, posix().create(path));
    return std::make_unique<FaultyWritable>(*this, std::move(inner), path);
  }
  Result<std::unique_ptr<Readable>> open(const std::string& path) override {
    TRY_ASSIGN(auto inner, posix().open(path));
    return std::make_unique<FaultyReadable>(*this, std::move(inner), path);
  }
  bool exists(const std::string& path) override { return posix().exists(path); }
  Result<std::vector<std::string>> children(const std::string& directory) override { return posix().children(directory); }
  Result<uint64_t> size(const std::string& path) override { return posix().size(path); }
  Result<void> remove(const std::string& path) override {
    TRY(may_write(path));
    return posix().remove(path);
  }
  Result<void> make_directory(const std::string& path) override {
    TRY(may_write(path));
    return posix().make_directory(path);
  }
  Result<void> rename(const std::string& from, const std::string& to) override {
    TRY(may_write(to));
    return posix().rename(from, to);
  }
  Result<void> sync_directory(const std::string& path) override { return posix().sync_directory(path); }
  Result<Space> space(const std::string& path) override { return posix().space(path); }

 private:
  static Files& posix() { return kfs::posix_files(); }
  Result<void> may_write(const std::string& path) const {
    if (write_error != 0) return fail(static_cast<Code>(write_error.load()), "{}: injected", path);
    return {};
  }
  class FaultyWritable : public Writable {
   public:
    FaultyWritable(FaultyFiles& files, std::unique_ptr<Writable> inner, std::string path)
        : files_(files), inner_(std::move(inner)), path_(std::move(path)) {}
    Result<void> append(ByteView bytes) override {
      if (files_.hold_appends && path_.ends_with(".log")) {
        ++files_.held_appends;
        while (files_.hold_appends) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      TRY(files_.may_write(path_));
      const int64_t left = files_.bytes_left.fetch_sub(static_cast<int64_t>(bytes.size()));
      if (left >= static_cast<int64_t>(bytes.size())) return inner_->append(bytes);
      if (left > 0) TRY(inner_->append(bytes.first(static_cast<size_t>(left))));
      return fail(Code::no_space, "{}: injected", path_);
    }
    Result<void> sync() override {
      if (files_.hold_second_sync && path_.ends_with(".log") && ++files_.syncs_begun > 1) {
        while (files_.hold_second_sync) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      TRY(files_.may_write(path_));
      return inner_->sync();
    }

   private:
    FaultyFiles& files_;
    std::unique_ptr<Writable> inner_;
    const std::string path_;
  };
  class FaultyReadable : public Readable {
   public:
    FaultyReadable(FaultyFiles& files, std::unique_ptr<Readable> inner, std::string path)
        : files_(files), inner_(std::move(inner)), path_(std::move(path)) {}
    Result<size_t> read(uint64_t offset, MutableByteView into) const override {
      if (files_.read_error != 0 && path_.ends_with(".ldb"))
        return fail(static_cast<Code>(files_.read_error.load()), "{}: injected", path_);
      if (files_.hold_reads && path_.ends_with(".ldb")) {
        ++files_.held_reads;
        while (files_.hold_reads) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      return inner_->read(offset, into);
    }

   private:
    FaultyFiles& files_;
    std::unique_ptr<Readable> inner_;
    const std::string path_;
  };
};

class KfsFaults : public testing::Test {
 public:
  void SetUp() override {
    options.tuning = {.write_buffer_bytes = 256 * kKiB, .table_bytes = 256 * kKiB, .compact_after_bytes = kMiB, .reserve_bytes = 0};
    options.tuning.files = &files;
  }
  std::string path() const { return directory.path() + "/store"; }
  void create() {
    ASSERT_TRUE(executor.run(KfsChunkStore::format(path(), {.drive = drive})));
    open();
  }
  void open() {
    auto opened = executor.run(KfsChunkStore::open(path(), options));
    ASSERT_TRUE(opened) << opened.error().to_string();
    store = std::move(*opened);
  }
  void close() {
    if (store) executor.run(store->close()).ignore("the file system may be broken");
    store.reset();
  }
  void TearDown() override {
    files.write_error = 0;
    files.read_error = 0;
    files.hold_reads = false;
    files.hold_second_sync = false;
    close();
  }
  Result<void> put(uint64_t n, size_t size) {
    const std::string text = test_payload(n, size);
    auto result = executor.run(store->put({1, n}, {bytes_of(text)}, {}));
    if (result) sizes[n] = size;
    return result;
  }
  Result<void> remove(uint64_t n) {
    auto result = executor.run(store->remove({{1, n}}));
    if (result) sizes.erase(n);
    return result;
  }
  // 0 (and the right bytes), or the error.
  Code get(uint64_t n) {
    auto got = executor.run(store->get({1, n}, 0, kChunkSizeMax));
    if (!got) return got.error().code();
    EXPECT_TRUE(text_of(got->view()) == test_payload(n, sizes[n])) << n << ": wrong bytes";
    return Code{0};
  }
  void expect_all() {
    for (const auto& [n, size] : sizes) ASSERT_EQ(get(n), Code{0}) << n;
  }
  static uint64_t hash_of(uint64_t n) {  // chooses the bucket
    std::string bytes;
    Encoder(bytes).key_u64(1).key_u64(n);
    return hash64(bytes_of(bytes)) >> 56;
  }
  using Done = std::optional<Result<void>>;
  static Task<void> keep(Task<Result<void>> task, Done* done) { *done = co_await std::move(task); }
  bool comes_online() {
    for (int i = 0; i < 1200 && store->health().state != StoreState::online; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return store->health().state == StoreState::online;
  }

  const Uuid drive{{7, 1}};  // the same chunks meet in a bucket in every run
  SimExecutor executor{{.threads = true}};
  kfs::TemporaryDirectory directory;
  FaultyFiles files;
  KfsChunkStoreOptions options;
  std::unique_ptr<KfsChunkStore> store;
  std::map<uint64_t, size_t> sizes;
};

TEST_F(KfsFaults, a_store_that_another_node_has_opened_says_so) {
  create();
  EXPECT_TRUE(executor.run(store->check_health()));
  auto descriptor = kfs::read_descriptor(kfs::posix_files(), path());
  ASSERT_TRUE(descriptor);
  ++descriptor->mounts;  // as that one's open does
  const std::string file = path() + "/" + std::string(kfs::kDescriptorName), content = kfs::encode_descriptor(*descriptor);
  ASSERT_TRUE(kfs::replace_file(kfs::posix_files(), file, bytes_of(content)));
  const auto health = executor.run(store->check_health());
  ASSERT_FALSE(health);
  EXPECT_EQ(health.error().code(), Code::device_gone);
}

TEST_F(KfsFaults, no_space_at_any_byte_of_a_write_leaves_no_half_chunk_and_reads_go_on) {
  create();
  for (uint64_t n = 1; n <= 30; ++n) ASSERT_TRUE(put(n, 50'000));
  SeededRandom random(5);
  uint64_t n = 100, refused = 0;
  for (int round = 0; round < 40; ++round) {
    files.bytes_left = static_cast<int64_t>(random.below(400'000));
    const auto result = put(n, 200'000);
    if (!result) {
      ++refused;
      ASSERT_EQ(result.error().code(), Code::no_space) << result.error().to_string();
      EXPECT_EQ(get(n), Code::not_found);
      EXPECT_EQ(get(1 + n % 30), Code{0});
      EXPECT_EQ(store->health().state, StoreState::online);
    }
    files.bytes_left = INT64_MAX;
    if (!result) ASSERT_TRUE(put(n, 200'000)) << "there is room again, and the failed put left nothing";
    ++n;
  }
  EXPECT_GT(refused, 10u);
  expect_all();
  close();
  open();
  EXPECT_TRUE(store->open_report().damage.empty()) << store->open_report().damage[0];
  EXPECT_EQ(store->space().chunk_count, sizes.size());
  expect_all();
}

TEST_F(KfsFaults, a_full_file_system_reads_removes_and_takes_chunks_again) {
  ASSERT_EQ(::mkdir(path().c_str(), 0755), 0);
  if (::mount("tmpfs", path().c_str(), "tmpfs", 0, "size=96m") != 0) GTEST_SKIP() << "mounting is not permitted here";
  struct Unmount {
    std::string at;
    ~Unmount() { ::umount2(at.c_str(), MNT_DETACH); }
  } unmount{path()};
  options.tuning.files = nullptr;
  options.tuning.reserve_bytes = 256 * kMiB;  // a 20th of the file system: 4.8 MiB
  create();
  uint64_t n = 1;
  for (const size_t size : {1'000'000ul, 60'000ul}) {
    Result<void> result;
    while ((result = put(n, size))) ASSERT_LT(++n, 5000u);
    ASSERT_EQ(result.error().code(), Code::no_space) << result.error().to_string();
  }
  EXPECT_EQ(store->health().state, StoreState::online);
  EXPECT_GT(store->space().payload_bytes, 30 * kMiB);
  // Without the layers' own records nothing could be removed: there is room for them still.
  for (uint64_t i = 0; i < 100; ++i) ASSERT_TRUE(executor.run(store->put({7, i}, {bytes_of("a record")}, {.stream = Stream::log}))) << i;
  expect_all();
  const auto before = sizes;
  for (const auto& [number, size] : before) {
    if (number % 2 == 0) ASSERT_TRUE(remove(number)) << number;
  }
  // The space comes back by itself, though no bucket has much garbage; all that is left comes back when it is asked for.
  Result<void> again;
  for (int i = 0; i < 300 && !(again = put(10'000, 1'000'000)); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_TRUE(again) << again.error().to_string();
  const auto compacted = executor.run(store->compact());
  ASSERT_TRUE(compacted) << compacted.error().to_string();
  for (int i = 1; i < 5; ++i) EXPECT_TRUE(put(10'000 + static_cast<uint64_t>(i), 1'000'000));
  expect_all();
  close();
  open();
  expect_all();
  close();
}

TEST_F(KfsFaults, a_read_only_remount_keeps_reads_and_comes_back) {
  options.tuning.instances_max = 3;  // most buckets are closed and have to be opened while nothing can be written
  for (const Code code : {Code::read_only, Code::permission_denied, Code::io_error}) {
    if (!store) create();
    const uint64_t base = static_cast<uint64_t>(code) * 1000;
    for (uint64_t n = base; n < base + 20; ++n) ASSERT_TRUE(put(n, 80'000));
    files.write_error = static_cast<int>(code);
    const auto refused = put(base + 500, 1000);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), code == Code::io_error ? Code::io_error : Code::read_only) << refused.error().to_string();
    EXPECT_EQ(store->health().state, StoreState::read_only);
    EXPECT_FALSE(store->health().reason.empty());
    EXPECT_GT(store->health().write_errors, 0u);
    if (code != Code::io_error) expect_all();
    EXPECT_FALSE(remove(base));
    files.write_error = 0;
    ASSERT_TRUE(comes_online());
    EXPECT_TRUE(put(base + 500, 1000));
    expect_all();
  }
  close();
  open();
  expect_all();
}

TEST_F(KfsFaults, unreadable_tables_cost_their_chunks_only) {
  create();
  for (uint64_t n = 1; n <= 20; ++n) ASSERT_TRUE(put(n, 100'000));
  ASSERT_TRUE(executor.run(store->compact()));
  files.read_error = static_cast<int>(Code::io_error);
  EXPECT_EQ(get(1), Code::io_error);
  EXPECT_GT(store->health().read_errors, 0u);
  EXPECT_NE(store->health().state, StoreState::failed);
  files.read_error = 0;
  expect_all();
}

TEST_F(KfsFaults, a_bucket_directory_that_is_removed_under_load_costs_its_chunks_only) {
  // Every bucket stays open, whatever the limit of open files would say: one that was closed meanwhile is made anew unnoticed.
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < 2048) GTEST_SKIP() << "256 instances need more than " << limit.rlim_max << " open files";
  const rlimit raised{std::min<rlim_t>(limit.rlim_max, 8192), limit.rlim_max};
  if (limit.rlim_cur < raised.rlim_cur) ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &raised), 0);
  options.tuning.instances_max = 256;
  create();
  for (uint64_t n = 1; n <= 100; ++n) ASSERT_TRUE(put(n, 20'000));
  std::map<std::string, uint64_t> logs;
  for (const auto& entry : fs::recursive_directory_iterator(path() + "/buckets")) {
    if (entry.path().extension() == ".log") logs[entry.path().parent_path()] += entry.file_size();
  }
  const auto fullest = std::max_element(logs.begin(), logs.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  fs::remove_all(fullest->first);
  uint64_t failed = 0;
  std::map<uint64_t, size_t> later;
  for (uint64_t n = 1001; n <= 6000 && (failed == 0 || later.size() < 100); ++n) {
    const auto result = put(n, 5'000);
    if (!result) {
      ++failed;
      ASSERT_TRUE(put(n, 5'000)) << "the bucket is made anew";
    }
    later[n] = 5'000;
  }
  EXPECT_EQ(failed, 1u) << "the first write notices, and is not acknowledged";
  uint64_t lost = 0;
  for (uint64_t n = 1; n <= 100; ++n) {
    const Code code = get(n);
    EXPECT_TRUE(code == Code{0} || code == Code::corrupt) << n << ": " << static_cast<int>(code);
    lost += code == Code::corrupt;
  }
  EXPECT_GT(lost, 0u);
  EXPECT_LT(lost, 20u);
  EXPECT_EQ(store->health().state, StoreState::online);
  const auto report = executor.run(store->fsck());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->violations.size(), lost) << "each lost chunk is named";
  close();
  open();
  for (const auto& [n, size] : later) EXPECT_EQ(get(n), Code{0}) << n << " was acknowledged after the directory was removed";
}

TEST_F(KfsFaults, a_store_whose_directory_is_removed_has_failed) {
  create();
  for (uint64_t n = 1; n <= 5; ++n) ASSERT_TRUE(put(n, 20'000));
  fs::remove_all(path());
  Result<void> result;
  for (uint64_t n = 10; n < 13; ++n) {
    result = put(n, 1000);
    ASSERT_FALSE(result) << "a write into a deleted file is not acknowledged";
  }
  EXPECT_EQ(result.error().code(), Code::device_gone) << result.error().to_string();
  EXPECT_EQ(store->health().state, StoreState::failed);
  EXPECT_FALSE(store->health().reason.empty());
}

// The batches of a large file are not synced one by one, so a device that failed in between may have dropped some of them.
TEST_F(KfsFaults, a_large_file_does_not_survive_half_when_another_write_to_its_bucket_failed) {
  options.tuning.write_buffer_bytes = 64 * kKiB;
  auto created = KfsStore::create(path(), {.key = "k"}, options.tuning);
  ASSERT_TRUE(created) << created.error().to_string();
  KfsStore& files_store = **created;
  const std::string text = test_payload(1, 17'000'000), hash = sha256_hex(bytes_of(text));
  std::string other;
  for (uint64_t seed = 2; sha256_hex(bytes_of(other)).substr(0, 2) != hash.substr(0, 2); ++seed) other = test_payload(seed, 1000);
  auto writer = files_store.write(hash);
  ASSERT_TRUE(writer);
  ASSERT_TRUE((*writer)->append(bytes_of(text).first(14'000'000)));
  files.write_error = static_cast<int>(Code::io_error);
  {
    auto failing = files_store.write(sha256_hex(bytes_of(other)));
    ASSERT_TRUE(!failing || !(*failing)->append(bytes_of(other)) || !(*failing)->finish());
  }
  files.write_error = 0;
  const auto write_all = [&](const std::string& content) -> Result<KfsFile> {
    TRY_ASSIGN(auto again, files_store.write(sha256_hex(bytes_of(content))));
    TRY(again->append(bytes_of(content)));
    return again->finish();
  };
  for (int i = 0; i < 1200 && !write_all(other); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  // The bucket takes writes again; the large one must not be finished as if nothing had happened.
  const bool appended = (*writer)->append(bytes_of(text).subspan(14'000'000)).has_value();
  const auto finished = (*writer)->finish();
  ASSERT_FALSE(appended && finished);
  writer->reset();
  EXPECT_EQ(files_store.stat(hash).error().code(), Code::not_found);
  const auto again = write_all(text);
  ASSERT_TRUE(again) << again.error().to_string();
  const auto report = files_store.verify({.deep = true, .repair = true, .progress = {}});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->files, 2u);
  EXPECT_TRUE(report->damaged.empty());
}

// What a dropped writer could not remove must not be removed later, when somebody has written the file after all.
TEST_F(KfsFaults, a_file_written_after_a_dropped_writer_could_not_clean_up_stays) {
  options.tuning.write_buffer_bytes = 64 * kKiB;
  options.tuning.idle_close = std::chrono::seconds(1);
  auto created = KfsStore::create(path(), {.key = "k"}, options.tuning);
  ASSERT_TRUE(created) << created.error().to_string();
  KfsStore& files_store = **created;
  const std::string text = test_payload(1, 17'000'000), hash = sha256_hex(bytes_of(text));
  auto writer = files_store.write(hash);
  ASSERT_TRUE(writer);
  ASSERT_TRUE((*writer)->append(bytes_of(text).first(16'000'000)));
  files.read_error = static_cast<int>(Code::io_error);
  writer->reset();  // looks for the blocks in tables, which cannot be read
  files.read_error = 0;
  auto again = files_store.write(hash);
  ASSERT_TRUE(again) << again.error().to_string();
  ASSERT_TRUE((*again)->append(bytes_of(text)));
  ASSERT_TRUE((*again)->finish());
  std::this_thread::sleep_for(std::chrono::seconds(4));  // idle: closed, and opened by the next reader
  std::string got;
  const auto read = files_store.read(hash, 0, UINT64_MAX, [&got](ByteView piece) -> Result<void> {
    got += text_of(piece);
    return {};
  });
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_TRUE(got == text);
}

TEST_F(KfsFaults, directories_that_are_not_ours_are_refused) {
  const auto nothing = executor.run(KfsChunkStore::identify(path()));
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().code(), Code::not_found);
  fs::create_directory(path());
  EXPECT_FALSE(*KfsChunkStore::foreign_content(path()));
  std::ofstream(path() + "/thesis.txt") << "years of work";
  EXPECT_TRUE(*KfsChunkStore::foreign_content(path()));
  const auto refused = executor.run(KfsChunkStore::format(path(), {}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::already_exists);
  SeededRandom random(1);
  const Uuid ours = random.uuid(), theirs = random.uuid();
  ASSERT_TRUE(executor.run(KfsChunkStore::format(path(), {.force = true})));
  EXPECT_TRUE(fs::exists(path() + "/thesis.txt")) << "force destroys stores, not other files";
  open();
  ASSERT_TRUE(executor.run(store->set_cluster_id(ours)));
  EXPECT_EQ(executor.run(store->set_cluster_id(theirs)).error().code(), Code::wrong_owner);
  ASSERT_TRUE(executor.run(store->set_label("label")));
  ASSERT_TRUE(put(1, 10));
  EXPECT_EQ(executor.run(KfsChunkStore::identify(path())).error().code(), Code::busy);
  EXPECT_EQ(executor.run(KfsChunkStore::open(path(), {})).error().code(), Code::busy);
  close();
  const auto identity = executor.run(KfsChunkStore::identify(path()));
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->cluster, ours);
  EXPECT_EQ(identity->label, "label");
  EXPECT_TRUE(identity->clean);
  KfsChunkStoreOptions other;
  other.cluster = theirs;
  EXPECT_EQ(executor.run(KfsChunkStore::open(path(), other)).error().code(), Code::wrong_owner);
  EXPECT_EQ(KfsStore::open(path()).error().code(), Code::invalid_argument);
  open();
  EXPECT_EQ(get(1), Code{0});
  EXPECT_TRUE(store->open_report().clean);
}

TEST_F(KfsFaults, a_flipped_bit_costs_one_chunk_and_scrub_names_it) {
  create();
  for (uint64_t n = 1; n <= 40; ++n) ASSERT_TRUE(put(n, 100'000));
  ASSERT_TRUE(executor.run(store->compact()));
  close();
  const std::string needle = test_payload(7, 100'000).substr(50'000, 64);
  bool flipped = false;
  for (const auto& entry : fs::recursive_directory_iterator(path() + "/buckets")) {
    if (entry.path().extension() != ".ldb") continue;
    std::ifstream in(entry.path(), std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(in)), {});
    const size_t at = bytes.find(needle);
    if (at == std::string::npos) continue;
    bytes[at + 5] = static_cast<char>(bytes[at + 5] ^ 1);
    std::ofstream(entry.path(), std::ios::binary) << bytes;
    flipped = true;
  }
  ASSERT_TRUE(flipped);
  open();
  for (uint64_t n = 1; n <= 40; ++n) EXPECT_EQ(get(n), n == 7 ? Code::corrupt : Code{0}) << n;
  EXPECT_TRUE(executor.run(store->get({1, 7}, 70'000, 1000))) << "its other block is sound";
  const auto progress = executor.run(store->scrub({}, UINT64_MAX));
  ASSERT_TRUE(progress);
  ASSERT_EQ(progress->damaged.size(), 1u);
  EXPECT_EQ(progress->damaged[0].id, (ChunkId{1, 7}));
  EXPECT_GT(store->health().checksum_errors, 0u);
  EXPECT_TRUE(remove(7));
  EXPECT_TRUE(put(7, 100'000));
  EXPECT_EQ(get(7), Code{0});
}

// Two removals of one chunk are under way; it is put again when one of them has returned (repair does that). The other is not meant for it.
TEST_F(KfsFaults, a_removal_takes_nothing_that_was_put_after_another_removal_had_returned) {
  options.tuning.cache_bytes = 0;  // what lies in a table is read from the file
  options.threads = 4;
  create();
  const uint64_t early = 1;
  uint64_t late = 2;
  while (hash_of(late) != hash_of(early)) ++late;
  ASSERT_TRUE(put(early, 3000));
  close();
  open();  // now that one is in a table
  ASSERT_TRUE(put(late, 3000));
  const auto meet = [](KfsFaults& t, uint64_t slow, uint64_t n) -> Task<void> {
    const auto begin = [](KfsChunkStore& on, std::vector<ChunkId> ids, Done* done) -> Task<void> { *done = co_await on.remove(ids); };
    const auto comes = [](std::function<bool()> what, int milliseconds) -> Task<bool> {
      for (int i = 0; i < milliseconds && !what(); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        co_await Executor::here().yield();
      }
      co_return what();
    };
    TaskGroup group;
    Done first, second;
    t.files.hold_reads = true;
    group.spawn(begin(*t.store, {{1, slow}, {1, n}}, &first));  // it has to read of the first before it comes to the other
    const bool held = co_await comes([&] { return t.files.held_reads > 0; }, 10'000);
    EXPECT_TRUE(held && !first) << "they did not meet";
    group.spawn(begin(*t.store, {{1, n}}, &second));
    const bool early_end = co_await comes([&] { return second.has_value(); }, 100);
    const std::string text = test_payload(n, 2000);
    std::vector<ByteView> parts = {bytes_of(text)};
    if (!early_end) {
      t.files.hold_reads = false;
      co_await group.join();
    }
    auto stored = co_await t.store->put({1, n}, parts, {});
    EXPECT_TRUE(stored);
    t.files.hold_reads = false;
    co_await group.join();
    EXPECT_TRUE(*first && *second);
  };
  executor.run(meet(*this, early, late));
  sizes = {{late, 2000}};
  EXPECT_EQ(get(late), Code{0}) << "an acknowledged chunk is lost";
  close();
  open();
  EXPECT_EQ(get(late), Code{0}) << "an acknowledged chunk is lost";
  EXPECT_EQ(get(early), Code::not_found);
}

// The first is gone from its bucket, the second takes long; the table still lists both.
TEST_F(KfsFaults, what_a_removal_of_several_batches_has_taken_already_is_not_lost) {
  create();
  uint64_t second = 2;
  while (hash_of(second) != hash_of(1)) ++second;
  for (const uint64_t n : {uint64_t{1}, second}) ASSERT_TRUE(put(n, 13 * kMiB));  // both are more than go at once
  const auto meet = [](KfsFaults& t, uint64_t other) -> Task<void> {
    TaskGroup group;
    Done removed;
    t.files.hold_second_sync = true;
    group.spawn(keep(t.store->remove({{1, 1}, {1, other}}), &removed));
    while (t.files.syncs_begun < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const auto report = co_await t.store->fsck();
    const auto got = co_await t.store->get({1, 1}, 0, kChunkSizeMax);
    const auto scrubbed = co_await t.store->scrub({}, UINT64_MAX);
    EXPECT_FALSE(removed) << "they did not meet";
    EXPECT_EQ(report->chunks, 2u);
    EXPECT_THAT(report->violations, testing::IsEmpty());
    EXPECT_EQ(got.error().code(), Code::not_found);
    EXPECT_THAT(scrubbed->damaged, testing::IsEmpty());
    EXPECT_EQ(t.store->health().checksum_errors, 0u);
    t.files.hold_second_sync = false;
    co_await group.join();
    EXPECT_TRUE(*removed);
  };
  executor.run(meet(*this, second));
  EXPECT_THAT(executor.run(store->fsck())->violations, testing::IsEmpty());
}

// Two removals want the same chunks, in opposite order, and the store is closed meanwhile: one goes after the other, close after both.
TEST_F(KfsFaults, removals_of_the_same_chunks_in_any_order_end_and_close_waits_for_them) {
  options.threads = 4;
  create();
  for (uint64_t n = 1; n <= 3; ++n) ASSERT_TRUE(put(n, 3000));
  const auto meet = [](KfsFaults& t) -> Task<void> {
    TaskGroup group;
    Done first, second, third, closed;
    t.files.hold_appends = true;
    group.spawn(keep(t.store->remove({{1, 1}, {1, 2}, {1, 2}}), &first));
    while (t.files.held_appends == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    group.spawn(keep(t.store->remove({{1, 3}, {1, 2}, {1, 1}}), &second));
    group.spawn(keep(t.store->remove({{1, 2}, {1, 3}}), &third));
    group.spawn(keep(t.store->close(), &closed));
    EXPECT_FALSE(first || second || third || closed) << "they did not meet";
    t.files.hold_appends = false;
    co_await group.join();
    EXPECT_TRUE(*first && *second && *third && *closed);
  };
  executor.run(meet(*this));
  close();
  open();
  for (uint64_t n = 1; n <= 3; ++n) EXPECT_EQ(get(n), Code::not_found) << n;
}

class KfsBuckets : public KfsFaults {
 public:
  static constexpr uint8_t kBucket = 9;
  void make() {
    kfs::Descriptor descriptor;
    descriptor.key = "key";
    ASSERT_TRUE(kfs::create_store(files, path(), descriptor));
  }
  void open_set() {
    auto lock = kfs::DirectoryLock::take(path());
    ASSERT_TRUE(lock) << lock.error().to_string();
    auto opened = kfs::BucketSet::open(path(), *kfs::read_descriptor(files, path()), std::move(*lock), options.tuning);
    ASSERT_TRUE(opened) << opened.error().to_string();
    set = std::move(*opened);
  }
  Result<void> write(const std::string& name) {
    TRY_ASSIGN(auto writer, set->write(kBucket, name, bytes.size()));
    TRY(writer->add(bytes_of(bytes)));
    TRY(writer->finish());
    return {};
  }
  const std::string bytes = std::string(1000, 'x');
  std::unique_ptr<kfs::BucketSet> set;
};

// Verify with repair removes what is left of files without headers. Meanwhile somebody writes such a file anew, and another write to the
// bucket fails, so that the bucket must be opened anew first.
TEST_F(KfsBuckets, removing_leftovers_does_not_wait_for_a_writer_who_waits_for_it) {
  make();
  open_set();
  const std::string kept(64, '1'), first(64, '2'), second(64, '3'), failing(64, '4');
  ASSERT_TRUE(write(kept));
  ASSERT_TRUE(set->close());
  {
    leveldb::DB* opened = nullptr;
    ASSERT_TRUE(leveldb::DB::Open({}, kfs::bucket_path(path(), kBucket), &opened).ok());
    const std::unique_ptr<leveldb::DB> db(opened);
    for (const auto& name : {first, second}) ASSERT_TRUE(db->Put({}, kfs::block_key(name, 0), bytes).ok());
  }
  open_set();
  ASSERT_TRUE(set->prepare(kBucket));
  files.hold_appends = true;
  auto removing = std::async(std::launch::async, [&] { return set->remove_stray_runs(kBucket); });
  while (files.held_appends == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // it has found both
  auto writer = set->write(kBucket, second, bytes.size());
  ASSERT_TRUE(writer) << writer.error().to_string();
  ASSERT_TRUE((*writer)->add(bytes_of(bytes)));
  files.hold_appends = false;
  while (set->leftovers_removed() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(removing.wait_for(std::chrono::milliseconds(200)), std::future_status::timeout) << "they did not meet";
  auto writing = std::async(std::launch::async, [&]() -> Result<void> {
    files.bytes_left = 0;
    const auto failed = write(failing);
    files.bytes_left = INT64_MAX;
    if (failed || failed.error().code() != Code::no_space) return fail(Code::internal, "they did not meet");
    TRY((*writer)->finish());
    return {};
  });
  CHECK(writing.wait_for(std::chrono::seconds(20)) == std::future_status::ready, "they wait for each other");
  const auto written = writing.get();
  EXPECT_TRUE(written) << written.error().to_string();
  writer->reset();
  const auto removed = removing.get();
  ASSERT_TRUE(removed) << removed.error().to_string();
  EXPECT_EQ(*removed, 1u);
  for (const auto& name : {kept, second}) EXPECT_TRUE(set->header(kBucket, name)) << name;
  EXPECT_TRUE(set->close());
}

// Two calls come upon a lost bucket. One repairs it and writes; the other's repair comes after that, and is not needed any more.
TEST_F(KfsBuckets, damage_that_two_have_seen_is_repaired_once) {
  make();
  open_set();
  const std::string lost(64, '1'), fresh(64, '2');
  ASSERT_TRUE(write(lost));
  ASSERT_TRUE(set->close());
  fs::remove_all(kfs::bucket_path(path(), kBucket));
  open_set();
  std::array<uint64_t, 2> seen{};
  for (auto& one : seen) {
    one = set->repairs(kBucket);
    const auto opened = set->prepare(kBucket);
    ASSERT_FALSE(opened);
    ASSERT_EQ(opened.error().code(), Code::corrupt);
  }
  const auto first = set->repair(kBucket, seen[0]);
  ASSERT_TRUE(first) << first.error().to_string();
  EXPECT_FALSE(first->empty());
  ASSERT_TRUE(write(fresh));
  const auto second = set->repair(kBucket, seen[1]);
  ASSERT_TRUE(second) << second.error().to_string();
  EXPECT_TRUE(second->empty()) << second->front();
  EXPECT_EQ(set->repairs(kBucket), 1u);
  EXPECT_TRUE(set->header(kBucket, fresh));
  // Damage that is seen after that is.
  const auto third = set->repair(kBucket, set->repairs(kBucket));
  ASSERT_TRUE(third) << third.error().to_string();
  EXPECT_FALSE(third->empty());
  EXPECT_TRUE(set->header(kBucket, fresh));
  EXPECT_TRUE(set->close());
}

}  // namespace
}  // namespace quarry::chunk
