#include "chunk/conformance.h"

#include "chunk/dir/dir_store.h"
#include "chunk/dir/testing/temporary_directory.h"

namespace quarry::chunk {
namespace {

class DirPlace : public ConformancePlace {
 public:
  DirPlace(SimExecutor& executor, DirStoreOptions options) : options_(std::move(options)) {
    const auto formatted = executor.run(DirStore::format(directory_.path(), {}));
    EXPECT_TRUE(formatted) << formatted.error().to_string();
  }
  std::unique_ptr<ChunkStore> open(SimExecutor& executor) override {
    auto opened = executor.run(DirStore::open(directory_.path(), options_));
    EXPECT_TRUE(opened) << opened.error().to_string();
    if (!opened) return nullptr;
    EXPECT_THAT((*opened)->open_report().damage, testing::IsEmpty());
    return std::move(*opened);
  }

 private:
  dir::TemporaryDirectory directory_;
  DirStoreOptions options_;
};

ConformanceSetup setup(std::string name, DirStoreOptions options) {
  return {std::move(name), [options](SimExecutor& executor) { return std::make_unique<DirPlace>(executor, options); }, 64 * kMiB};
}

INSTANTIATE_TEST_SUITE_P(Dir, ChunkStoreConformance,
                         testing::Values(setup("attributes", {.health_timeout = {}}),
                                         setup("side_files", {.threads = 1, .use_attributes = false, .health_timeout = {}})),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace quarry::chunk
