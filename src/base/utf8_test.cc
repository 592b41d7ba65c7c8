#include "base/utf8.h"

#include <gtest/gtest.h>

namespace quarry {
namespace {

TEST(Utf8, text_is_text_and_nothing_else) {
  for (const std::string_view good : {"", "plain ascii of more than eight bytes", "\xc3\xa9", "\xe6\x97\xa5\xe6\x9c\xac",
                                      "\xf0\x9f\x93\x88", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf", "12345678\xc3\xa9"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  const std::string_view bad[] = {
      "\xae\x8a-",             // no lead
      "\xc0\xaf",              // overlong '/'
      "\xe0\x80\xaf",          // overlong '/'
      "\xf0\x80\x80\xaf",      // overlong '/'
      "\xc1\xbf",              // overlong
      "\xed\xa0\x80",          // a surrogate
      "\xed\xbf\xbf",          // a surrogate
      "\xf4\x90\x80\x80",      // beyond U+10FFFF
      "\xf8\x88\x80\x80\x80",  // five bytes
      "\xc3",                  // cut off
      "a\xe6\x97",             // cut off
      "12345678\xff",
  };
  for (const std::string_view text : bad) EXPECT_FALSE(is_utf8(text)) << text;
}

TEST(Utf8, characters_are_read) {
  EXPECT_EQ(utf8_character("a", 0, 1), U'a');
  EXPECT_EQ(utf8_character("\xc3\xa9", 0, 2), U'\u00e9');
  EXPECT_EQ(utf8_character("x\xe6\x97\xa5", 1, 3), U'\u65e5');
  EXPECT_EQ(utf8_character("\xf0\x9f\x93\x88", 0, 4), U'\U0001f4c8');
}

}  // namespace
}  // namespace quarry
