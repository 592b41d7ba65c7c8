// Pins what `quarry device inspect` prints of a small device, so that a structure that is not printed, or printed wrong, shows.
#include <gtest/gtest.h>

#include <regex>

#include "chunk/raw/raw_store.h"
#include "chunk/test_payload.h"
#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {
namespace {

class RawInspect : public testing::Test {
 protected:
  void SetUp() override {
    disk = SimDisk::create({.size = 64 * kMiB});
    auto device = disk->open();
    ASSERT_TRUE(executor.run(RawStore::format(*device, {.cluster = Uuid{{0xc1}}, .drive = Uuid{{0xd1}}, .label = "secret"})));
    executor.run(device->close());
    device.reset();
    auto store = executor.run(RawStore::open(disk->open(), {.background = false}));
    ASSERT_TRUE(store);
    const std::string small = test_payload(1, 1000), large = test_payload(2, 100'000);
    ASSERT_TRUE(executor.run((*store)->put({0, 1}, {bytes_of(small)}, {})));
    ASSERT_TRUE(executor.run((*store)->put({0, 2}, {bytes_of(large)}, {Stream::metadata})));
    ASSERT_TRUE(executor.run((*store)->put({0, 3}, {bytes_of(small)}, {})));
    ASSERT_TRUE(executor.run((*store)->remove({{0, 3}})));
    ASSERT_TRUE(executor.run((*store)->close()));
  }
  // Checksums depend on the salt that is drawn at format.
  std::string inspect(const std::string& what) {
    auto device = disk->open();
    auto text = executor.run(inspect_raw_device(*device, what));
    executor.run(device->close());
    if (!text) return text.error().to_string();
    EXPECT_EQ(text->find("secret"), std::string::npos) << "the label's text holds a key";
    const std::string masked = std::regex_replace(*text, std::regex("\"[0-9a-f]{8}\""), "\"########\"");
    return std::regex_replace(masked, std::regex("\"fencing_epoch\": [1-9][0-9]*"), "\"fencing_epoch\": #");  // partly random
  }
  // The part of `text` from `key` on.
  static std::string from(const std::string& text, const std::string& key) {
    const size_t at = text.find("\"" + key + "\"");
    return at == std::string::npos ? "no " + key + " in " + text : text.substr(at);
  }

  SimExecutor executor;
  std::shared_ptr<SimDisk> disk;
};

TEST_F(RawInspect, prints_superblocks_labels_segments_and_log) {
  const std::string all = inspect("all");
  EXPECT_EQ(all, R"({
  "superblocks": [
    {"offset": 0, "format_version": 1, "sequence": 4, "identity": "########", "previous": "########", "drive": "d1000000-0000-0000-0000-000000000000", "cluster": "c1000000-0000-0000-0000-000000000000", "device_bytes": 67108864, "segment_bytes": 2097152, "segments": 31, "log_segment": 0, "clean": false, "log_epoch": 1, "mounts": 1, "fencing_epoch": #, "pack_limit": 65535, "features": [0, 0, 0]},
    {"offset": 4096, "format_version": 1, "sequence": 5, "identity": "########", "previous": "########", "drive": "d1000000-0000-0000-0000-000000000000", "cluster": "c1000000-0000-0000-0000-000000000000", "device_bytes": 67108864, "segment_bytes": 2097152, "segments": 31, "log_segment": 0, "clean": true, "log_epoch": 3, "mounts": 1, "fencing_epoch": #, "pack_limit": 65535, "features": [0, 0, 0]},
    {"offset": 17039360, "format_version": 1, "sequence": 4, "identity": "########", "previous": "########", "drive": "d1000000-0000-0000-0000-000000000000", "cluster": "c1000000-0000-0000-0000-000000000000", "device_bytes": 67108864, "segment_bytes": 2097152, "segments": 31, "log_segment": 0, "clean": false, "log_epoch": 1, "mounts": 1, "fencing_epoch": #, "pack_limit": 65535, "features": [0, 0, 0]},
    {"offset": 17043456, "format_version": 1, "sequence": 5, "identity": "########", "previous": "########", "drive": "d1000000-0000-0000-0000-000000000000", "cluster": "c1000000-0000-0000-0000-000000000000", "device_bytes": 67108864, "segment_bytes": 2097152, "segments": 31, "log_segment": 0, "clean": true, "log_epoch": 3, "mounts": 1, "fencing_epoch": #, "pack_limit": 65535, "features": [0, 0, 0]},
    {"offset": 66846720, "format_version": 1, "sequence": 4, "identity": "########", "previous": "########", "drive": "d1000000-0000-0000-0000-000000000000", "cluster": "c1000000-0000-0000-0000-000000000000", "device_bytes": 67108864, "segment_bytes": 2097152, "segments": 31, "log_segment": 0, "clean": false, "log_epoch": 1, "mounts": 1, "fencing_epoch": #, "pack_limit": 65535, "features": [0, 0, 0]},
    {"offset": 66850816, "format_version": 1, "sequence": 5, "identity": "########", "previous": "########", "drive": "d1000000-0000-0000-0000-000000000000", "cluster": "c1000000-0000-0000-0000-000000000000", "device_bytes": 67108864, "segment_bytes": 2097152, "segments": 31, "log_segment": 0, "clean": true, "log_epoch": 3, "mounts": 1, "fencing_epoch": #, "pack_limit": 65535, "features": [0, 0, 0]}
  ],
  "labels": [
    {"offset": 77824, "sequence": 1, "drive": "d1000000-0000-0000-0000-000000000000", "bytes": 6},
    {"offset": 17117184, "sequence": 1, "drive": "d1000000-0000-0000-0000-000000000000", "bytes": 6},
    {"offset": 66924544, "sequence": 1, "drive": "d1000000-0000-0000-0000-000000000000", "bytes": 6}
  ],
  "segments": [
    {"segment": 0, "role": "log", "state": "open", "generation": 1, "slot_sequence": 1, "stream": 0, "through": 0, "epoch": 0},
    {"segment": 1, "role": "packed", "state": "open", "generation": 1, "slot_sequence": 2, "stream": 0, "through": 6, "epoch": 3, "data_end_block": 3, "next_frame": 3, "items": 2, "dead": 1},
    {"segment": 2, "role": "extent", "state": "open", "generation": 1, "slot_sequence": 2, "stream": 2, "through": 6, "epoch": 3, "extents": 1}
  ],
  "log": {"epoch": 3, "damaged": false, "damage": "", "frames": [
      {"epoch": 2, "number": 0, "lane": 0, "block": 0, "blocks": 1, "first_record": 2, "records": 1, "settled": 1, "crc": "########"},
      {"epoch": 2, "number": 1, "lane": 0, "block": 1, "blocks": 1, "first_record": 3, "records": 1, "settled": 2, "crc": "########"},
      {"epoch": 2, "number": 2, "lane": 0, "block": 2, "blocks": 1, "first_record": 4, "records": 1, "settled": 3, "crc": "########"},
      {"epoch": 2, "number": 3, "lane": 0, "block": 3, "blocks": 1, "first_record": 5, "records": 1, "settled": 4, "crc": "########"},
      {"epoch": 2, "number": 4, "lane": 0, "block": 4, "blocks": 1, "first_record": 6, "records": 1, "settled": 5, "crc": "########"},
      {"epoch": 3, "number": 0, "lane": 1, "block": 0, "blocks": 1, "first_record": 7, "records": 1, "settled": 6, "crc": "########"}
    ], "records": [
      {"sequence": 7, "table_from": 0, "entries": 3, "total": 3}
    ]}
})");
}

TEST_F(RawInspect, prints_the_frames_of_a_packed_segment) {
  EXPECT_EQ(from(inspect("segment 1"), "slots"), R"("slots": [
    {"segment": 1, "role": "packed", "state": "open", "generation": 1, "slot_sequence": 2, "stream": 0, "through": 6, "epoch": 3, "data_end_block": 3, "next_frame": 3, "items": 2, "dead": 1, "entries": [
      {"inventory_block": 2, "blocks": 1}
    ]},
    {"segment": 1, "role": "packed", "state": "open", "generation": 1, "slot_sequence": 1, "stream": 0, "through": 2, "epoch": 2, "data_end_block": 0, "next_frame": 0, "items": 0, "dead": 0, "entries": []}
  ],
  "contents": {"unreadable_bytes": 0, "found": [
      {"frame": 0, "kind": "items", "block": 0, "blocks": 1, "chain": "########", "crc": "########", "after": 3, "items": [
        {"chunk": "00000000000000000000000000000001", "offset": 128, "bytes": 1000, "crc": "########"}
      ]},
      {"frame": 1, "kind": "items", "block": 1, "blocks": 1, "chain": "########", "crc": "########", "after": 5, "items": [
        {"chunk": "00000000000000000000000000000003", "offset": 128, "bytes": 1000, "crc": "########"}
      ]},
      {"frame": 2, "kind": "inventory", "block": 2, "blocks": 1, "chain": "########", "crc": "########", "after": 6, "items": [
        {"chunk": "00000000000000000000000000000001", "offset": 128, "bytes": 1000, "crc": "########"},
        {"chunk": "00000000000000000000000000000003", "offset": 4224, "bytes": 1000, "crc": "########"}
      ]}
    ]}
})");
}
TEST_F(RawInspect, prints_the_chunk_headers_of_an_extent_segment) {
  EXPECT_EQ(from(inspect("segment 2"), "slots"), R"("slots": [
    {"segment": 2, "role": "extent", "state": "open", "generation": 1, "slot_sequence": 2, "stream": 2, "through": 6, "epoch": 3, "extents": 1, "entries": [
      {"chunk": "00000000000000000000000000000002", "block": 0, "blocks": 26, "bytes": 100000, "header_crc": "########", "run": 0, "runs": 1}
    ]},
    {"segment": 2, "role": "extent", "state": "open", "generation": 1, "slot_sequence": 1, "stream": 2, "through": 3, "epoch": 2, "extents": 0, "entries": []}
  ],
  "contents": {"unreadable_bytes": 0, "found": [
      {"chunk_header": "00000000000000000000000000000002", "block": 0, "blocks": 26, "bytes": 100000, "crc": "########", "runs": 1, "checksums": 7, "after": 4, "epoch": 2}
    ]}
})");
}
TEST_F(RawInspect, prints_a_chunk) {
  EXPECT_EQ(
      from(inspect("chunk " + ChunkId{0, 2}.to_string()), "chunk"),
      R"("chunk": {"chunk": "00000000000000000000000000000002", "bytes": 100000, "offset": 4456448, "kind": "extent", "stream": 2, "crc": "########", "header_valid": true, "runs": [
    {"block": 1088, "blocks": 26}
  ], "checksums": [
    "########",
    "########",
    "########",
    "########",
    "########",
    "########",
    "########"
  ]}
})");
}

TEST_F(RawInspect, prints_what_is_damaged_as_the_error_it_gives) {
  disk->flip_bit(100, 1);
  disk->flip_bit(77824 + 40, 1);
  const std::string all = inspect("all");
  EXPECT_NE(all.find("{\"offset\": 0, \"error\": \"corrupt: "), std::string::npos);
  EXPECT_NE(all.find("{\"offset\": 77824, \"error\": \"corrupt: "), std::string::npos);
  EXPECT_NE(inspect("nonsense").find("cannot be inspected"), std::string::npos);
}

}  // namespace
}  // namespace quarry::chunk
