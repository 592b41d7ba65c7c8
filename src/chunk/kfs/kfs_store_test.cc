// KfsStore as its users see it: round trips, limits, removal and space, damage and repair.
#include "chunk/kfs/kfs_store.h"

#include <gtest/gtest.h>
#include <leveldb/db.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "base/coding.h"
#include "chunk/kfs/bucket_set.h"
#include "chunk/kfs/directory.h"
#include "chunk/kfs/temporary_directory.h"
#include "chunk/test_payload.h"
#include "codec/digest.h"

namespace quarry::chunk {
namespace {

namespace fs = std::filesystem;

class KfsStoreTest : public testing::Test {
 protected:
  std::string path() const { return directory.path() + "/store"; }
  void create(KfsCreateOptions options = {.key = "k", .hash = KfsHash::sha256}) {
    auto made = KfsStore::create(path(), std::move(options), tuning);
    ASSERT_TRUE(made) << made.error().to_string();
    store = std::move(*made);
  }
  void reopen() {
    store.reset();
    auto opened = KfsStore::open(path(), tuning);
    ASSERT_TRUE(opened) << opened.error().to_string();
    store = std::move(*opened);
  }
  Result<KfsFile> write(const std::string& text, bool known = false, size_t piece = 100'000) {
    std::optional<std::string> hash;
    if (known) hash = sha256_hex(bytes_of(text));
    TRY_ASSIGN(auto writer, store->write(hash));
    for (size_t at = 0; at < text.size(); at += piece) TRY(writer->append(bytes_of(std::string_view(text).substr(at, piece))));
    return writer->finish();
  }
  std::string must_write(const std::string& text, bool known = false) {
    const auto file = write(text, known);
    EXPECT_TRUE(file) << file.error().to_string();
    return file ? file->hash : "";
  }
  Result<std::string> read(std::string_view hash, uint64_t offset = 0, uint64_t length = UINT64_MAX) {
    std::string text;
    TRY(store->read(hash, offset, length, [&text](ByteView piece) -> Result<void> {
      text += text_of(piece);
      return {};
    }));
    return text;
  }
  Code read_error(std::string_view hash) {
    const auto got = read(hash);
    return got ? Code{0} : got.error().code();
  }
  // Text that goes to a bucket that `first`'s text also goes to.
  std::string sibling_of(const std::string& hash, uint64_t& seed, size_t size) {
    for (;; ++seed) {
      std::string text = test_payload(seed, size);
      if (sha256_hex(bytes_of(text)).substr(0, 2) == hash.substr(0, 2)) return text;
    }
  }

  kfs::TemporaryDirectory directory;
  KfsTuning tuning{.write_buffer_bytes = 256 * kKiB, .table_bytes = 256 * kKiB};
  std::unique_ptr<KfsStore> store;
};

TEST_F(KfsStoreTest, files_of_any_size_read_back_whole_and_from_any_index) {
  create();
  for (const bool known : {false, true}) {
    for (const size_t size : {0ul, 1ul, 65'535ul, 65'536ul, 65'537ul, 1'000'000ul, 5'000'000ul, 20'000'000ul}) {
      const std::string text = test_payload(size * 2 + known, size);
      const auto file = write(text, known);
      ASSERT_TRUE(file) << file.error().to_string();
      EXPECT_EQ(file->hash, sha256_hex(bytes_of(text)));
      EXPECT_EQ(file->size, size);
      EXPECT_EQ(file->blocks, (size + 65'535) / 65'536);
      // The original rule: first byte of the hash XOR first byte of the key.
      EXPECT_EQ(file->bucket, std::stoi(file->hash.substr(0, 2), nullptr, 16) ^ 'k');
      EXPECT_TRUE(*read(file->hash) == text) << size;
      for (const uint64_t offset : {0ul, size / 3, size > 70'000 ? 65'536ul : size, size}) {
        for (const uint64_t length : {0ul, 1ul, 65'536ul, 300'000ul}) {
          const auto part = read(file->hash, offset, length);
          ASSERT_TRUE(part);
          EXPECT_TRUE(*part == text.substr(offset, length)) << size << " at " << offset << "+" << length;
        }
      }
      const auto beyond = read(file->hash, size + 1, 1);
      ASSERT_FALSE(beyond);
      EXPECT_EQ(beyond.error().code(), Code::out_of_range);
    }
  }
}

TEST_F(KfsStoreTest, a_file_is_invisible_until_it_is_finished_and_leaves_nothing_when_dropped) {
  create();
  const std::string text = test_payload(1, 12'000'000), hash = sha256_hex(bytes_of(text));
  {
    auto writer = store->write(hash);  // known: three batches go to the bucket before the end
    ASSERT_TRUE(writer);
    ASSERT_TRUE((*writer)->append(bytes_of(text)));
    EXPECT_EQ(read_error(hash), Code::not_found);
    ASSERT_TRUE(store->list([](const KfsFile&) {
      ADD_FAILURE() << "listed before it was finished";
      return true;
    }));
  }
  EXPECT_EQ(read_error(hash), Code::not_found);
  const auto report = store->verify({.deep = true, .repair = true, .progress = {}});
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->damaged.empty());
  EXPECT_EQ(report->leftovers_removed, 0u) << "the dropped writer removed its blocks itself";
  EXPECT_EQ(must_write(text, true), hash);
  EXPECT_TRUE(*read(hash) == text);
}

TEST_F(KfsStoreTest, a_wrong_promise_of_the_hash_stores_nothing) {
  create();
  const std::string text = test_payload(1, 6'000'000), other = sha256_hex(bytes_of("other"));
  auto writer = store->write(other);
  ASSERT_TRUE(writer);
  ASSERT_TRUE((*writer)->append(bytes_of(text)));
  const auto file = (*writer)->finish();
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code(), Code::checksum_mismatch);
  writer->reset();
  EXPECT_EQ(read_error(other), Code::not_found);
}

TEST_F(KfsStoreTest, the_same_content_is_stored_once) {
  create();
  const std::string text = test_payload(1, 300'000);
  EXPECT_FALSE(write(text)->existed);
  EXPECT_TRUE(write(text)->existed);
  EXPECT_TRUE(write(text, true)->existed);
  std::vector<std::thread> threads;
  const std::string big = test_payload(2, 9'000'000);
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { EXPECT_TRUE(write(big, true)); });
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(*read(sha256_hex(bytes_of(big))) == big);
  size_t files = 0;
  ASSERT_TRUE(store->list([&files](const KfsFile&) { return ++files, true; }));
  EXPECT_EQ(files, 2u);
}

TEST_F(KfsStoreTest, hash_key_and_bucket_size_are_recorded_in_the_store) {
  create({.key = std::string("\x80\0x", 3), .hash = KfsHash::sha512, .bucket_bytes = 3 * kMiB});
  const auto file = write("hello");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->hash, to_hex(sha512(bytes_of("hello"))));
  reopen();
  EXPECT_EQ(store->hash(), KfsHash::sha512);
  EXPECT_EQ(store->bucket_bytes(), 3 * kMiB);
  EXPECT_EQ(*read(file->hash), "hello");
  EXPECT_EQ(read_error("abcd"), Code::invalid_argument);
  const auto again = KfsStore::create(path(), {});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), Code::already_exists);
  const auto twice = KfsStore::open(path());
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code(), Code::busy);
}

TEST_F(KfsStoreTest, a_full_bucket_refuses_with_its_number_and_the_others_go_on) {
  create({.key = "k", .hash = KfsHash::sha256, .bucket_bytes = kMiB});
  const std::string first = must_write(test_payload(1, 700'000));
  uint64_t seed = 2;
  const std::string second = sibling_of(first, seed, 500'000);
  for (const bool known : {false, true}) {
    const auto refused = write(second, known);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::no_space);
    const auto number = fmt::format("S-bucket {}", store->stat(first)->bucket);
    EXPECT_NE(refused.error().context().find(number), std::string::npos) << refused.error().context();
    EXPECT_NE(refused.error().context().find("%"), std::string::npos) << refused.error().context();
  }
  EXPECT_EQ(read_error(sha256_hex(bytes_of(second))), Code::not_found);
  for (uint64_t i = 100; i < 104; ++i) {
    const std::string text = test_payload(i, 200'000);
    if (sha256_hex(bytes_of(text)).substr(0, 2) != first.substr(0, 2)) EXPECT_TRUE(write(text));
  }
  ASSERT_TRUE(store->unlink(first));
  EXPECT_TRUE(write(second));
}

TEST_F(KfsStoreTest, unlinking_frees_the_space_and_is_remembered) {
  tuning.compact_after_bytes = kMiB;
  create();
  const std::string text = test_payload(1, 30'000'000);
  const std::string big = must_write(text, true), small = must_write("small");
  const uint8_t bucket = store->stat(big)->bucket;
  const uint64_t before = store->bucket(bucket)->stored_bytes;
  EXPECT_GT(before, 30'000'000u);
  ASSERT_TRUE(store->unlink(big));
  EXPECT_EQ(read_error(big), Code::not_found);
  EXPECT_EQ(store->unlink(big).error().code(), Code::not_found);
  // The compaction that was scheduled comes by itself.
  uint64_t after = before;
  for (int i = 0; i < 1200 && after > kMiB; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    after = store->bucket(bucket)->stored_bytes;
  }
  EXPECT_LT(after, kMiB);
  reopen();
  EXPECT_EQ(read_error(big), Code::not_found);
  EXPECT_EQ(*read(small), "small");
  EXPECT_EQ(must_write(text), big);
  ASSERT_TRUE(store->unlink(big));
  ASSERT_TRUE(store->compact(bucket));
  EXPECT_LT(store->bucket(bucket)->stored_bytes, kMiB);
}

TEST_F(KfsStoreTest, few_instances_serve_many_buckets_from_many_threads) {
  tuning.instances_max = 2;
  create();
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 20; ++i) {
        const std::string text = test_payload(t * 100 + i, 10'000 + i * 1000);
        const auto file = write(text);
        const auto back = file ? read(file->hash) : Result<std::string>(file.error());
        if (back && *back == text) ++good;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 80);
  EXPECT_TRUE(store->verify({})->damaged.empty());
}

TEST_F(KfsStoreTest, buckets_are_made_when_the_first_file_is_sorted_into_them) {
  create();
  EXPECT_TRUE(store->buckets().empty());
  EXPECT_FALSE(fs::exists(path() + "/buckets"));
  must_write("one file");
  EXPECT_EQ(store->buckets().size(), 1u);
}

// A store of version 1: headers at /NAME, and a mark at +NAME for a run that is none.
TEST_F(KfsStoreTest, a_store_of_version_1_is_converted_bucket_by_bucket) {
  create();
  std::map<std::string, std::string> texts;
  for (uint64_t i = 0; i < 6; ++i) {
    const std::string text = test_payload(i, i == 0 ? 0 : 300'000 * i);
    texts[must_write(text)] = text;
  }
  const uint8_t number = store->stat(texts.rbegin()->first)->bucket;
  store.reset();
  const std::string file = path() + "/" + std::string(kfs::kDescriptorName), unfinished = texts.rbegin()->first.substr(0, 62) + "00";
  auto descriptor = *kfs::decode_descriptor(*kfs::read_whole_file(kfs::posix_files(), file, kMiB));
  EXPECT_EQ(descriptor.version, 2);
  EXPECT_FALSE(descriptor.counts.empty());
  size_t moved = 0;
  for (size_t bucket = 0; bucket < kKfsBuckets; ++bucket) {
    if (!descriptor.has_bucket(bucket)) continue;
    leveldb::DB* opened = nullptr;
    ASSERT_TRUE(leveldb::DB::Open({}, kfs::bucket_path(path(), bucket), &opened).ok());
    const std::unique_ptr<leveldb::DB> db(opened);
    const std::unique_ptr<leveldb::Iterator> it(db->NewIterator({}));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      const std::string key = it->key().ToString();
      if (!key.ends_with('!')) continue;
      ASSERT_TRUE(db->Put({}, "/" + key.substr(0, key.size() - 1), it->value()).ok());
      ASSERT_TRUE(db->Delete({}, key).ok());
      ++moved;
    }
    if (bucket != number) continue;
    ASSERT_TRUE(db->Put({}, "+" + unfinished, "").ok());
    ASSERT_TRUE(db->Put({}, kfs::block_key(unfinished, 0), std::string(65536, 'x')).ok());
  }
  EXPECT_EQ(moved, texts.size());
  descriptor.version = 1;
  std::ofstream(file, std::ios::binary) << kfs::encode_descriptor(descriptor);

  for (int round = 0; round < 2; ++round) {
    reopen();
    for (const auto& [hash, text] : texts) {
      const auto got = read(hash);
      ASSERT_TRUE(got) << got.error().to_string();
      EXPECT_TRUE(*got == text);
    }
    EXPECT_EQ(read_error(unfinished), Code::not_found);
    const auto report = store->verify({.deep = true, .repair = true, .progress = {}});
    ASSERT_TRUE(report);
    EXPECT_EQ(report->files, texts.size());
    EXPECT_TRUE(report->damaged.empty());
    EXPECT_EQ(report->leftovers_removed, 0u) << "the first opening removed it";
    EXPECT_EQ(store->bucket(number)->payload_bytes, texts.rbegin()->second.size());
  }
  store.reset();
  descriptor = *kfs::decode_descriptor(*kfs::read_whole_file(kfs::posix_files(), file, kMiB));
  EXPECT_EQ(descriptor.version, 2);
  EXPECT_EQ(descriptor.counts.size(), texts.size()) << "each file has a bucket of its own here";
}

TEST_F(KfsStoreTest, what_is_in_the_buckets_is_known_again_after_a_close_and_counted_after_a_crash) {
  create();
  const std::string text = test_payload(1, 17'000'000), hash = must_write(text), small = must_write("small");
  const uint8_t bucket = store->stat(hash)->bucket;
  const auto expect_counts = [&](uint64_t files, uint64_t bytes) {
    uint64_t found_files = 0, found_bytes = 0;
    for (const uint8_t number : store->buckets()) {
      found_files += store->bucket(number)->files;
      found_bytes += store->bucket(number)->payload_bytes;
    }
    EXPECT_EQ(found_files, files);
    EXPECT_EQ(found_bytes, bytes);
  };
  expect_counts(2, 17'000'005);
  reopen();
  expect_counts(2, 17'000'005);
  // As if the process had been killed now: the same directories, and a descriptor that says "in use".
  fs::copy(path(), path() + "-killed", fs::copy_options::recursive);
  store.reset();
  fs::remove_all(path());
  fs::rename(path() + "-killed", path());
  reopen();
  expect_counts(2, 17'000'005);
  EXPECT_TRUE(*read(hash) == text);
  ASSERT_TRUE(store->unlink(hash));
  EXPECT_EQ(store->bucket(bucket)->files, store->stat(small)->bucket == bucket ? 1u : 0u);
  reopen();
  expect_counts(1, 5);
}

// Flips a bit in the middle of each file of the bucket with this ending; returns how many.
size_t flip_bits(const std::string& bucket, const std::string& ending) {
  size_t flipped = 0;
  for (const auto& entry : fs::directory_iterator(bucket)) {
    if (!entry.path().string().ends_with(ending) || entry.file_size() < 100) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    const auto at = static_cast<std::streamoff>(entry.file_size() / 2);
    file.seekg(at);
    char c = static_cast<char>(file.get());
    file.seekp(at);
    file.put(static_cast<char>(c ^ 4));
    ++flipped;
  }
  return flipped;
}

class KfsDamageTest : public KfsStoreTest {
 protected:
  void SetUp() override {
    create();
    for (uint64_t i = 0; i < 60; ++i) {
      const std::string text = test_payload(i, 200'000);
      texts[must_write(text)] = text;
    }
    victim = texts.begin()->first;
    bucket = store->stat(victim)->bucket;
    bucket_directory = kfs::bucket_path(path(), bucket);
  }
  // Every file outside the bucket is as it was; those in it too, or they say that they are not.
  void expect_others_sound() {
    for (const auto& [hash, text] : texts) {
      const bool inside = hash.substr(0, 2) == victim.substr(0, 2);
      const auto got = read(hash);
      if (got) {
        EXPECT_TRUE(*got == text) << hash << ": wrong bytes";
      } else {
        EXPECT_TRUE(inside) << hash << ": " << got.error().to_string();
      }
    }
  }
  std::map<std::string, std::string> texts;
  std::string victim, bucket_directory;
  uint8_t bucket = 0;
};

TEST_F(KfsDamageTest, a_flipped_bit_in_a_table_costs_files_of_that_bucket_and_is_reported_by_file) {
  ASSERT_TRUE(store->compact(bucket));  // out of the log, into tables
  store.reset();
  ASSERT_GT(flip_bits(bucket_directory, ".ldb"), 0u);
  reopen();
  EXPECT_EQ(read_error(victim), Code::corrupt);
  expect_others_sound();
  auto report = store->verify({});
  ASSERT_TRUE(report);
  ASSERT_GE(report->damaged.size(), 1u);
  for (const auto& damage : report->damaged) EXPECT_EQ(damage.bucket, bucket);
  EXPECT_TRUE(std::any_of(report->damaged.begin(), report->damaged.end(), [&](const chunk::KfsDamage& d) { return d.hash == victim; }));
  report = store->verify({.deep = true, .repair = true, .progress = {}});
  ASSERT_TRUE(report);
  report = store->verify({});
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->damaged.empty()) << report->damaged[0].what;
  EXPECT_EQ(must_write(texts[victim]), victim);
  EXPECT_TRUE(*read(victim) == texts[victim]);
}

TEST_F(KfsDamageTest, a_flipped_bit_in_a_log_never_gives_wrong_bytes) {
  store.reset();
  ASSERT_GT(flip_bits(bucket_directory, ".log"), 0u);
  reopen();
  expect_others_sound();
  EXPECT_NE(read_error(victim), Code{0});
  EXPECT_FALSE(store->events().empty()) << "damage after a clean end is said";
  ASSERT_TRUE(store->verify({.deep = true, .repair = true, .progress = {}}));
  expect_others_sound();
  EXPECT_TRUE(store->verify({})->damaged.empty());
}

TEST_F(KfsDamageTest, a_lost_manifest_is_rebuilt_by_repair) {
  ASSERT_TRUE(store->compact(bucket));
  store.reset();
  for (const auto& entry : fs::directory_iterator(bucket_directory)) {
    const std::string name = entry.path().filename();
    if (name == "CURRENT" || name.starts_with("MANIFEST")) fs::remove(entry.path());
  }
  reopen();
  EXPECT_EQ(read_error(victim), Code::corrupt);
  expect_others_sound();
  const auto damaged = store->verify({});
  ASSERT_TRUE(damaged);
  ASSERT_EQ(damaged->damaged.size(), 1u);
  EXPECT_EQ(damaged->damaged[0].hash, "");
  const auto report = store->verify({.deep = true, .repair = true, .progress = {}});
  ASSERT_TRUE(report);
  EXPECT_FALSE(report->repaired.empty());
  EXPECT_TRUE(*read(victim) == texts[victim]) << "the tables were there, so nothing is lost";
  expect_others_sound();
}

TEST_F(KfsDamageTest, a_lost_bucket_directory_is_told_and_made_anew_by_repair) {
  store.reset();
  fs::remove_all(bucket_directory);
  reopen();
  EXPECT_EQ(read_error(victim), Code::corrupt);
  const auto refused = write(texts[victim]);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::corrupt) << "nothing is quietly started afresh";
  expect_others_sound();
  ASSERT_TRUE(store->verify({.deep = true, .repair = true, .progress = {}}));
  EXPECT_EQ(read_error(victim), Code::not_found);
  EXPECT_EQ(must_write(texts[victim]), victim);
}

TEST_F(KfsDamageTest, exchanged_bucket_directories_are_noticed) {
  std::string other;
  for (const uint8_t number : store->buckets()) {
    if (number != bucket) other = kfs::bucket_path(path(), number);
  }
  store.reset();
  fs::rename(bucket_directory, path() + "/x");
  fs::rename(other, bucket_directory);
  fs::rename(path() + "/x", other);
  reopen();
  EXPECT_EQ(read_error(victim), Code::corrupt);
}

TEST_F(KfsDamageTest, a_damaged_or_newer_descriptor_is_refused) {
  store.reset();
  const std::string file = path() + "/" + std::string(kfs::kDescriptorName);
  std::string bytes = *kfs::read_whole_file(kfs::posix_files(), file, kMiB);
  auto descriptor = *kfs::decode_descriptor(bytes);
  for (size_t i = 8; i < bytes.size(); ++i) {
    std::string flipped = bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ 16);
    const auto decoded = kfs::decode_descriptor(flipped);
    ASSERT_FALSE(decoded) << i;
    EXPECT_EQ(decoded.error().code(), Code::corrupt);
    EXPECT_FALSE(kfs::decode_descriptor(std::string_view(bytes).substr(0, i)));
  }
  descriptor.version = 3;
  std::ofstream(file, std::ios::binary) << kfs::encode_descriptor(descriptor);
  const auto opened = KfsStore::open(path());
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::incompatible);
}

TEST(KfsBucketSet, where_a_name_belongs_does_not_change_while_the_descriptor_does) {
  kfs::TemporaryDirectory directory;
  kfs::Descriptor descriptor;
  descriptor.key = "key";
  ASSERT_TRUE(kfs::create_store(kfs::posix_files(), directory.path(), descriptor));
  auto lock = kfs::DirectoryLock::take(directory.path());
  ASSERT_TRUE(lock);
  auto set = kfs::BucketSet::open(directory.path(), descriptor, std::move(*lock), {});
  ASSERT_TRUE(set);
  std::atomic<bool> done = false;
  std::thread changer([&] {
    for (int i = 0; i < 500; ++i)
      EXPECT_TRUE((*set)->change_descriptor([i](kfs::Descriptor& d) { d.label = std::string(static_cast<size_t>(i), 'l'); }));
    done = true;
  });
  while (!done) ASSERT_EQ((*set)->bucket_of(0), 'k');
  changer.join();
}

TEST(KfsFormat, the_worked_example_of_the_page_holds) {
  kfs::Header header;
  header.size = 5;
  header.checksums = {kfs::block_checksum("00ff", 0, bytes_of("hello"))};
  EXPECT_EQ(kfs::header_key(kfs::StoreKind::files, "00ff"), "00ff!");
  EXPECT_EQ(kfs::header_key(kfs::StoreKind::chunks, "00ff"), "/00ff");
  EXPECT_EQ(kfs::block_key("00ff", 671), "00ff 000671");
  const std::string record = kfs::encode_header("00ff", header);
  EXPECT_EQ(record.size(), 24u);
  EXPECT_EQ(to_hex(bytes_of(record).first(16)), "01000000010000000500000000000000");
  const auto back = kfs::decode_header("00ff", record);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->size, 5u);
  EXPECT_FALSE(kfs::decode_header("00fe", record)) << "the checksum names the file";
}

}  // namespace
}  // namespace quarry::chunk
