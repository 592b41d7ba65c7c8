#include "meta/log_frame.h"

#include <gtest/gtest.h>

#include "base/coding.h"
#include "codec/crc32c.h"
#include "meta/checkpoint.h"
#include "meta/log_store/conflict_window.h"
#include "meta/write_set.h"

namespace quarry::meta {
namespace {

std::string example_frame() {
  LogFrameWriter writer;
  WriteSet first(space::kUser), second(space::kUser);
  first.put("b/photos", "v1");
  first.add("n", 2);
  second.remove("a");
  second.remove_range({"t/", "t0"});
  writer.add(first.ops());
  writer.add(second.ops());
  LogFrameHeader header;
  header.number = 7;
  header.first_version = 41;
  header.previous_check = 0x11223344;
  for (size_t i = 0; i < 16; ++i) header.store.bytes[i] = static_cast<uint8_t>(i);
  return writer.seal(header);
}

// The worked example of docs/formats/metadata-log.md. If this changes, old logs cannot be read.
TEST(LogFrame, has_the_bytes_that_the_format_page_shows) {
  EXPECT_EQ(to_hex(bytes_of(example_frame())),
            "514d463101000000290000000200000007000000000000002900000000000000"
            "000102030405060708090a0b0c0d0e0f44332211657155b80000000047b5abbd"
            "1a010910622f70686f746f730276310402106e02000000000000000d02021061"
            "030310742f03107430");
}

TEST(LogFrame, comes_back_as_it_was) {
  const std::string bytes = example_frame();
  const auto frame = decode_log_frame(bytes_of(bytes));
  ASSERT_TRUE(frame) << frame.error().to_string();
  EXPECT_EQ(frame->header.number, 7u);
  EXPECT_EQ(frame->header.first_version, 41u);
  EXPECT_EQ(frame->header.previous_check, 0x11223344u);
  ASSERT_EQ(frame->transactions.size(), 2u);
  OpReader reader(frame->transactions[0]);
  Op op;
  ASSERT_TRUE(reader.next(op));
  EXPECT_EQ(op.kind, OpKind::put);
  EXPECT_EQ(op.key, row_key(space::kUser, "b/photos"));
  EXPECT_EQ(op.value, "v1");
  ASSERT_TRUE(reader.next(op));
  EXPECT_EQ(op.kind, OpKind::add);
  EXPECT_EQ(op.delta, 2);
  EXPECT_FALSE(reader.next(op));
  EXPECT_TRUE(reader.ok());
}

TEST(LogFrame, every_flipped_bit_and_every_cut_is_noticed) {
  const std::string bytes = example_frame();
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(decode_log_frame(bytes_of(damaged))) << "bit " << bit;
  }
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(decode_log_frame(bytes_of(bytes).first(size)));
  EXPECT_FALSE(decode_log_frame(bytes_of(bytes + '\0')));
}

// With both checksums put right, so that only the checks of structure stand between the bytes and the database.
std::string sealed_again(std::string bytes) {
  auto* at = reinterpret_cast<uint8_t*>(bytes.data());
  store_le(at + 8, static_cast<uint32_t>(bytes.size() - kLogFrameHeaderSize));
  store_le(at + 52, crc32c(0, bytes_of(bytes).subspan(kLogFrameHeaderSize)));
  store_le(at + 60, crc32c(0, bytes_of(bytes).first(60)));
  return bytes;
}

TEST(LogFrame, bytes_that_lie_with_good_checksums_are_refused) {
  const std::string bytes = example_frame();
  ASSERT_TRUE(decode_log_frame(bytes_of(sealed_again(bytes))));
  const auto changed = [&bytes](size_t at, uint8_t value) {
    std::string copy = bytes;
    copy[at] = static_cast<char>(value);
    return decode_log_frame(bytes_of(sealed_again(copy)));
  };
  EXPECT_EQ(changed(4, 2).error().code(), Code::incompatible);
  EXPECT_EQ(changed(6, 1).error().code(), Code::incompatible);
  EXPECT_EQ(changed(12, 3).error().code(), Code::corrupt);  // more transactions than there are
  EXPECT_EQ(changed(12, 1).error().code(), Code::corrupt);  // fewer
  EXPECT_EQ(changed(16, 0).error().code(), Code::corrupt);  // frame 0
  EXPECT_EQ(changed(56, 1).error().code(), Code::corrupt);  // reserved
  EXPECT_EQ(changed(65, 9).error().code(), Code::corrupt);  // unknown operation
  EXPECT_EQ(changed(65, 5).error().code(), Code::corrupt);  // a stamp that was never filled in
  EXPECT_EQ(changed(67, 1).error().code(), Code::corrupt);  // a row of the system's space
  EXPECT_FALSE(decode_log_frame(bytes_of(sealed_again(bytes + "x"))));
}

TEST(CheckpointExtra, comes_back_and_notices_damage) {
  CheckpointExtra extra;
  extra.applied.frame = 9;
  extra.applied.version = 99;
  extra.applied.check = 5;
  extra.files = {{"000007.sst", "000007.sst.ab", 1234, 77}, {"CURRENT", "CURRENT.ab", 16, 1}};
  const std::string bytes = extra.encode();
  const auto back = CheckpointExtra::decode(bytes);
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(back->applied.encode(), extra.applied.encode());
  ASSERT_EQ(back->files.size(), 2u);
  EXPECT_EQ(back->files[0].stored, "000007.sst.ab");
  EXPECT_EQ(back->files[0].crc, 77u);
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    EXPECT_FALSE(CheckpointExtra::decode(damaged)) << i;
    EXPECT_FALSE(CheckpointExtra::decode(std::string_view(bytes).substr(0, i)));
  }
  for (const char* name : {"", ".", "..", "../x", "a/b", "/etc/passwd"}) {
    CheckpointExtra hostile = extra;
    hostile.files[0].name = name;
    EXPECT_EQ(CheckpointExtra::decode(hostile.encode()).error().code(), Code::corrupt) << name;
  }
}

ReadSet reads(std::vector<std::string> keys, std::vector<KeyRange> ranges = {}) { return {std::move(keys), std::move(ranges)}; }
std::string put_of(std::string_view key) {
  WriteSet writes(space::kUser);
  writes.put(key, "v");
  return std::string(writes.ops());
}

TEST(ConflictWindow, finds_newer_writes_of_keys_and_ranges_only) {
  ConflictWindow window(10, 100, 1 << 20);
  const std::string a = row_key(space::kUser, "a"), b = row_key(space::kUser, "b"), c = row_key(space::kUser, "c");
  window.add(11, put_of("a"));
  window.add(12, put_of("c"));
  EXPECT_TRUE(window.conflicts(10, reads({a})));
  EXPECT_FALSE(window.conflicts(11, reads({a})));
  EXPECT_FALSE(window.conflicts(10, reads({b})));
  EXPECT_TRUE(window.conflicts(11, reads({}, {{b, row_key(space::kUser, "d")}})));
  EXPECT_FALSE(window.conflicts(11, reads({}, {{b, c}})));
  EXPECT_FALSE(window.conflicts(12, reads({a, b, c}, {{a, c}})));
  WriteSet removal(space::kUser);
  removal.remove_range({"b", "c"});
  window.add(13, removal.ops());
  EXPECT_TRUE(window.conflicts(12, reads({b})));
  EXPECT_FALSE(window.conflicts(12, reads({c})));
  EXPECT_TRUE(window.conflicts(12, reads({}, {{a, row_key(space::kUser, "b5")}})));
  EXPECT_FALSE(window.conflicts(12, reads({}, {{c, row_key(space::kUser, "z")}})));
}

TEST(ConflictWindow, forgets_the_oldest_and_then_takes_no_chance) {
  ConflictWindow window(0, 10, 1 << 20);
  for (Version version = 1; version <= 100; ++version) window.add(version, put_of(fmt::format("k{}", version % 7)));
  EXPECT_EQ(window.entries(), 10u);
  EXPECT_EQ(window.floor(), 90u);
  EXPECT_TRUE(window.conflicts(89, reads({row_key(space::kUser, "never")})));
  EXPECT_FALSE(window.conflicts(89, reads({})));  // writes alone need no window
  EXPECT_FALSE(window.conflicts(90, reads({row_key(space::kUser, "never")})));
  for (Version version = 90; version < 100; ++version) {
    for (int key = 0; key < 7; ++key) {
      bool newer = false;
      for (Version v = version + 1; v <= 100; ++v) newer |= static_cast<int>(v % 7) == key;
      EXPECT_EQ(window.conflicts(version, reads({row_key(space::kUser, fmt::format("k{}", key))})), newer);
    }
  }
}

TEST(ConflictWindow, many_writes_of_one_key_in_one_transaction_leave_nothing_behind) {
  ConflictWindow window(0, 4, 1 << 20);
  WriteSet writes(space::kUser);
  for (int i = 0; i < 20; ++i) writes.put("same", "v");
  window.add(1, writes.ops());
  EXPECT_EQ(window.floor(), 1u);
  for (Version version = 2; version < 10; ++version) window.add(version, put_of("other"));
  EXPECT_EQ(window.entries(), 4u);
  EXPECT_FALSE(window.conflicts(9, reads({row_key(space::kUser, "same"), row_key(space::kUser, "other")})));
}

}  // namespace
}  // namespace quarry::meta
