// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing beyond U+10FFFF. Pure, any thread.
#pragma once
#include <cstddef>
#include <string_view>

namespace quarry {

// The size of the valid sequence at text[at], or 0.
size_t utf8_sequence(std::string_view text, size_t at);

bool is_utf8(std::string_view text);

// The character of a valid sequence of `size` bytes at text[at].
char32_t utf8_character(std::string_view text, size_t at, size_t size);

inline constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";  // U+FFFD: in place of a byte that is no text

}  // namespace quarry
