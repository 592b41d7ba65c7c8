// Hostile bytes in everything the cluster layer reads back: layouts, labels, rows of the map, roots and frames of the metadata log. The
// first byte chooses. Nothing may crash, hang, or take much memory.
#include "base/log.h"
#include "cluster/drives/drive_label.h"
#include "cluster/log/metadata_log.h"
#include "cluster/map/cluster_map.h"
#include "cluster/map/data_layout.h"
#include "cluster/testing/memory_chunk_store.h"
#include "io/sim/sim_executor.h"

using namespace quarry;
using namespace quarry::cluster;

namespace {

void fuzz_map(std::string_view bytes) {
  std::vector<meta::KeyValue> rows;
  Decoder in(bytes);
  while (in.ok() && in.remaining() > 0 && rows.size() < 64) {
    meta::KeyValue row;
    row.key = in.text(16);
    row.value = in.text(512);
    rows.push_back(std::move(row));
  }
  auto map = ClusterMap::decode(rows);
  if (!map || !*map || (*map)->group_count > 256) return;
  (*map)->replan();
  static_cast<void>((*map)->rows());
}

void fuzz_log(std::string_view bytes) {
  SimExecutor executor;
  const std::unique_ptr<BlockingPool> pool = executor.make_pool("fuzz", 1);
  auto medium = std::make_shared<MemoryMedium>(1);
  const size_t half = bytes.size() / 2;
  medium->chunks.emplace(chunk_id({.kind = ChunkKind::metadata_root, .serial = 1, .stripe = 1}),
                         std::make_shared<const std::string>(bytes.substr(0, half)));
  medium->chunks.emplace(chunk_id({.kind = ChunkKind::metadata_frame, .serial = 1, .generation = 1}),
                         std::make_shared<const std::string>(bytes.substr(half)));
  Drive drive({1, "fuzz", "fuzz"}, std::make_unique<MemoryChunkStore>(medium), executor);
  MetadataLogOptions options;
  options.drives = {&drive};
  options.blocking_pool = pool.get();
  auto log = executor.run(MetadataLog::open(std::move(options)));
  if (!log) return;
  executor.run((*log)->read(1)).ignore("any answer will do");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool quiet = [] {
    set_log_level(LogLevel::error);
    return true;
  }();
  static_cast<void>(quiet);
  if (size == 0) return 0;
  const std::string_view bytes = text_of({data + 1, size - 1});
  switch (data[0] % 4) {
    case 0: {
      Decoder in(bytes);
      auto layout = DataLayout::decode(in);
      if (!layout || layout->stripe_count() == 0) return 0;
      std::string again;
      layout->encode(again);
      Decoder second(again);
      auto same = DataLayout::decode(second);
      CHECK(same && *same == *layout);
      static_cast<void>(layout->stored_bytes());
      break;
    }
    case 1: {
      auto label = DriveLabel::decode(bytes);
      if (label) CHECK(label->encode() == bytes);
      break;
    }
    case 2: fuzz_map(bytes); break;
    default: fuzz_log(bytes);
  }
  return 0;
}
