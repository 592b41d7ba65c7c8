#include "chunk/conformance.h"

#include "chunk/raw/raw_store.h"
#include "io/sim/sim_block_device.h"

namespace quarry::chunk {
namespace {

class RawPlace : public ConformancePlace {
 public:
  RawPlace(SimExecutor& executor, SimDisk::Options options) : disk_(SimDisk::create(std::move(options))) {
    auto device = disk_->open();
    const auto formatted = executor.run(RawStore::format(*device, {}));
    EXPECT_TRUE(formatted);
    executor.run(device->close());
  }
  std::unique_ptr<ChunkStore> open(SimExecutor& executor) override {
    auto opened = executor.run(RawStore::open(disk_->open(), {}));
    EXPECT_TRUE(opened) << opened.error().to_string();
    if (!opened) return nullptr;
    EXPECT_TRUE((*opened)->open_report().damage.empty());
    return std::move(*opened);
  }

 private:
  std::shared_ptr<SimDisk> disk_;
};

ConformanceSetup setup(std::string name, SimDisk::Options options) {
  return {std::move(name), [options](SimExecutor& executor) { return std::make_unique<RawPlace>(executor, options); }, options.size};
}

INSTANTIATE_TEST_SUITE_P(
    Raw, ChunkStoreConformance,
    testing::Values(setup("nvme", {.size = 64 * kMiB}),
                    setup("slow_file", {.size = 100 * kMiB,
                                        .drive_class = DriveClass::file,
                                        .latency_min = std::chrono::microseconds(10),
                                        .latency_max = std::chrono::microseconds(500)}),
                    setup("hdd", {.size = 300 * kMiB, .volatile_cache = false, .supports_discard = false, .drive_class = DriveClass::hdd})),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace quarry::chunk
