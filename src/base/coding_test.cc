#include "base/coding.h"

#include <gtest/gtest.h>

namespace quarry {
namespace {

std::string key_of(std::string_view text) {
  std::string key;
  Encoder(key).key_text(text);
  return key;
}

TEST(Coding, key_text_keeps_the_order_of_the_texts) {
  const std::string texts[] = {
      "", std::string("\0", 1), std::string("\0\xff", 2), "\x01", "a", std::string("a\0b", 3), "a\x01", "ab", "b", "\xff"};
  for (const auto& a : texts) {
    for (const auto& b : texts) EXPECT_EQ(a < b, key_of(a) < key_of(b));
    const auto key = key_of(a);
    Decoder in{std::string_view(key)};
    EXPECT_EQ(in.key_text(), a);
    EXPECT_TRUE(in.done());
  }
}

TEST(Coding, decoder_fails_once_and_for_good_when_input_runs_out) {
  const std::string two = "\x01\x02";
  Decoder in{std::string_view(two)};
  EXPECT_EQ(in.u32(), 0u);
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.u8(), 0u);
  EXPECT_FALSE(in.check("thing"));
}

TEST(Coding, varint_round_trips_and_refuses_overlong_input) {
  for (const uint64_t value : {uint64_t{0}, uint64_t{127}, uint64_t{128}, uint64_t{300}, UINT64_MAX}) {
    std::string out;
    Encoder(out).varint(value);
    Decoder in{std::string_view(out)};
    EXPECT_EQ(in.varint(), value);
    EXPECT_TRUE(in.done());
  }
  Decoder in{std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")};
  in.varint();
  EXPECT_FALSE(in.ok());
}

TEST(Coding, base64_is_strict) {
  EXPECT_EQ(to_base64(bytes_of("hello")), "aGVsbG8=");
  EXPECT_EQ(*from_base64("aGVsbG8="), "hello");
  EXPECT_FALSE(from_base64("aGVsbG8"));
  EXPECT_FALSE(from_base64("aGVsbG9="));
  EXPECT_FALSE(from_base64("a=Vs"));
}

TEST(Coding, prefix_end_is_the_next_key_after_all_with_the_prefix) {
  EXPECT_EQ(prefix_end("ab"), "ac");
  EXPECT_EQ(prefix_end("a\xff"), "b");
  EXPECT_EQ(prefix_end("\xff\xff"), "");
}

}  // namespace
}  // namespace quarry
