// What tests of the directory store share: whole files put, finished, shown and read back through the chunk interface.
#pragma once
#include "chunk/dir/dir_store_impl.h"
#include "chunk/dir/testing/memory_file_system.h"
#include "chunk/dir/testing/temporary_directory.h"
#include "chunk/test_payload.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk::dir {

inline constexpr uint32_t kTestChunk = 100'000;  // of files in tests: no multiple of a block
inline constexpr uint64_t kTestStride = 1u << 24;

inline ChunkId chunk_of(ChunkId first, uint32_t index) { return {first.high, first.low + index * kTestStride}; }

inline Task<Result<void>> put_whole_file(DirStore& store, ChunkId first, std::string bucket, std::string key, std::string content) {
  const auto chunks = static_cast<uint32_t>(std::max<size_t>(1, div_up(content.size(), kTestChunk)));
  for (uint32_t i = chunks; i-- > 0;) {  // any order will do
    const ByteView all = bytes_of(content);
    const size_t begin = static_cast<size_t>(i) * kTestChunk;
    std::vector<ByteView> parts = {all.subspan(begin, std::min<size_t>(kTestChunk, all.size() - begin))};
    PutOptions options;
    options.file = FilePlace{first, i, kTestChunk, kTestStride, bucket, key};
    auto put = co_await store.put(chunk_of(first, i), std::move(parts), options);
    if (!put) co_return put;
  }
  auto finished = co_await store.finish_file(first, content.size());
  co_return finished;
}

inline Task<Result<std::string>> get_whole_file(DirStore& store, ChunkId first, size_t size) {
  std::string content;
  for (uint32_t i = 0; i == 0 || content.size() < size; ++i) {
    auto got = co_await store.get(chunk_of(first, i), 0, kTestChunk);
    if (!got) co_return std::move(got).error();
    content += text_of(got->view());
    if (got->empty()) break;
  }
  co_return content;
}

inline std::vector<ChunkId> chunks_of(ChunkId first, size_t size) {
  std::vector<ChunkId> ids;
  for (uint32_t i = 0; i < std::max<size_t>(1, div_up(size, kTestChunk)); ++i) ids.push_back(chunk_of(first, i));
  return ids;
}

// Every plain file below a directory outside .quarry, with its bytes.
inline std::map<std::string, std::string> tree_of(const std::string& root) {
  std::map<std::string, std::string> found;
  namespace fs = std::filesystem;
  for (auto at = fs::recursive_directory_iterator(root); at != fs::recursive_directory_iterator(); ++at) {
    const std::string path = at->path().string().substr(root.size() + 1);
    if (path == ".quarry") {
      at.disable_recursion_pending();
      continue;
    }
    if (!at->is_regular_file()) continue;
    std::ifstream in(at->path(), std::ios::binary);
    found[path] = std::string(std::istreambuf_iterator<char>(in), {});
  }
  return found;
}

class DirStoreTest : public testing::Test {
 protected:
  DirStoreOptions options;
  TemporaryDirectory directory;
  SimExecutor executor{{.threads = true}};
  std::unique_ptr<DirStore> store;

  void SetUp() override {
    options.threads = 2;
    options.health_timeout = Duration::zero();
    ASSERT_TRUE(executor.run(DirStore::format(directory.path(), {})));
    open();
  }
  void TearDown() override { close(); }
  void open() {
    auto opened = executor.run(DirStore::open(directory.path(), options));
    ASSERT_TRUE(opened) << opened.error().to_string();
    store = std::move(*opened);
  }
  void close() {
    if (store) executor.run(store->close()).ignore("some tests break the store");
    store.reset();
  }
  void reopen() {
    close();
    open();
  }
  Result<void> put(ChunkId first, const std::string& key, const std::string& content, const std::string& bucket = "b") {
    return executor.run(put_whole_file(*store, first, bucket, key, content));
  }
  Result<void> show(ChunkId first) { return executor.run(store->show_file(first, {})); }
  void put_and_show(ChunkId first, const std::string& key, const std::string& content, const std::string& bucket = "b") {
    const auto done = put(first, key, content, bucket);
    ASSERT_TRUE(done) << done.error().to_string();
    const auto shown = show(first);
    ASSERT_TRUE(shown) << shown.error().to_string();
  }
  std::string get(ChunkId first, size_t size) {
    auto got = executor.run(get_whole_file(*store, first, size));
    EXPECT_TRUE(got) << got.error().to_string();
    return got ? *got : std::string();
  }
  Result<void> read(ChunkId first, size_t size) {
    auto got = executor.run(get_whole_file(*store, first, size));
    if (!got) return std::move(got).error();
    return {};
  }
  Result<void> remove(ChunkId first, size_t size) { return executor.run(store->remove(chunks_of(first, size))); }
  std::map<std::string, std::string> tree() { return tree_of(directory.path()); }
  void expect_sound() {
    auto report = executor.run(store->fsck());
    ASSERT_TRUE(report) << report.error().to_string();
    EXPECT_THAT(report->violations, testing::IsEmpty());
  }
};

}  // namespace quarry::chunk::dir
