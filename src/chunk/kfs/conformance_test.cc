// The store suite over kfs directories: many instances, few instances (so that buckets are closed and opened all the time), one thread.
#include "chunk/conformance.h"

#include "chunk/kfs/kfs_chunk_store.h"
#include "chunk/kfs/temporary_directory.h"

namespace quarry::chunk {
namespace {

class KfsPlace : public ConformancePlace {
 public:
  KfsPlace(SimExecutor& executor, KfsChunkStoreOptions options) : options_(options) {
    const auto formatted = executor.run(KfsChunkStore::format(path(), {}));
    EXPECT_TRUE(formatted) << formatted.error().to_string();
  }
  std::unique_ptr<ChunkStore> open(SimExecutor& executor) override {
    auto opened = executor.run(KfsChunkStore::open(path(), options_));
    EXPECT_TRUE(opened) << opened.error().to_string();
    if (!opened) return nullptr;
    EXPECT_TRUE((*opened)->open_report().damage.empty());
    return std::move(*opened);
  }

 private:
  std::string path() const { return directory_.path() + "/store"; }
  kfs::TemporaryDirectory directory_;
  KfsChunkStoreOptions options_;
};

ConformanceSetup setup(std::string name, KfsChunkStoreOptions options) {
  return {std::move(name), [options](SimExecutor& executor) { return std::make_unique<KfsPlace>(executor, options); }, 48 * kMiB};
}

INSTANTIATE_TEST_SUITE_P(Kfs, ChunkStoreConformance,
                         testing::Values(setup("default", {}), setup("few_instances", {.cluster = {},
                                                                                       .threads = 4,
                                                                                       .tuning = {.instances_max = 3,
                                                                                                  .write_buffer_bytes = 256 * kKiB,
                                                                                                  .table_bytes = kMiB,
                                                                                                  .compact_after_bytes = kMiB}})),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace quarry::chunk
