// A device whose metadata was scribbled over: opening, checking and reading it must end in answers, never in a crash or in wrong bytes. The
// input is a list of edits (place, length, bytes) to a small store that was closed properly, or was running.
#include <cstdlib>

#include "chunk/raw/raw_store.h"
#include "chunk/test_payload.h"
#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"

using namespace quarry;         // NOLINT
using namespace quarry::chunk;  // NOLINT

namespace {

struct Images {
  std::shared_ptr<SimDisk> running, closed;
  std::vector<std::pair<ChunkId, size_t>> chunks;
};

Images make_images() {
  Images images;
  SimExecutor executor;
  auto disk = SimDisk::create({.size = 64 * kMiB, .discard = SimDiscard::zeros});
  auto device = disk->open();
  if (!executor.run(RawStore::format(*device, {}))) std::abort();
  executor.run(device->close());
  device.reset();
  auto store = executor.run(RawStore::open(disk->open(), {}));
  for (uint64_t n = 0; n < 20; ++n) {
    const size_t size = n % 4 == 0 ? 70'000 + n : 100 + n * 50;
    const std::string text = test_payload(n, size);
    if (!executor.run((*store)->put({1, n}, {bytes_of(text)}, {}))) std::abort();
    images.chunks.push_back({{1, n}, size});
    if (n == 12 && !executor.run((*store)->checkpoint())) std::abort();
  }
  images.running = disk->copy();
  if (!executor.run((*store)->close())) std::abort();
  images.closed = disk->copy();
  return images;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Images images = make_images();
  if (size < 2) return 0;
  SimExecutor executor;
  auto disk = (data[0] % 2 == 0 ? images.closed : images.running)->copy();
  ++data;
  --size;
  // Structures live in the first 8 MiB: zones, log, slots and the first segments.
  while (size >= 6) {
    const uint64_t at = (data[0] | data[1] << 8 | data[2] << 16 | static_cast<uint64_t>(data[3] & 0x7f) << 24) % (8 * kMiB);
    const size_t length = std::min<size_t>({static_cast<size_t>(data[4]), size - 5, 8 * kMiB - at});
    if (data[4] == 255) {
      disk->swap_ranges(round_down(at, 4096), round_down(at, 4096) + 4096, 4096);
      data += 5;
      size -= 5;
      continue;
    }
    disk->poke(at, {data + 5, length});
    data += 5 + length;
    size -= 5 + length;
  }
  auto store = executor.run(RawStore::open(disk->open(), {.background = false}));
  if (!store) return 0;
  (executor.run((*store)->fsck())).ignore("any answer will do");
  for (const auto& [id, bytes] : images.chunks) {
    auto got = executor.run((*store)->get(id, 0, kChunkSizeMax));
    if (got && text_of(got->view()) != test_payload(id.low, bytes)) std::abort();
  }
  const std::string text = "something new";
  (executor.run((*store)->put({9, 9}, {bytes_of(text)}, {}))).ignore("a damaged store may refuse");
  (executor.run((*store)->close())).ignore("or fail");
  return 0;
}
