// Arithmetic of reflected CRC polynomials, for combining and for the folding constants. Internal to codec.
// A W-bit word stands for a polynomial over GF(2) of degree < W, bit i being the coefficient of x^(W-1-i).
#pragma once
#include <array>
#include <cstdint>

namespace quarry::detail {

// a * b mod P; kPoly is the reflected polynomial without its leading term.
template <class Word, Word kPoly>
constexpr Word multiply_mod(Word a, Word b) {
  Word product = 0;
  for (Word bit = Word{1} << (sizeof(Word) * 8 - 1); bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b & 1) ? (b >> 1) ^ kPoly : b >> 1;  // b * x
  }
  return product;
}

// x^n mod P.
template <class Word, Word kPoly>
constexpr Word power_of_x(uint64_t n) {
  constexpr Word kOne = Word{1} << (sizeof(Word) * 8 - 1);
  Word result = kOne;
  Word square = kOne >> 1;  // x
  for (; n != 0; n >>= 1) {
    if (n & 1) result = multiply_mod<Word, kPoly>(result, square);
    square = multiply_mod<Word, kPoly>(square, square);
  }
  return result;
}

// Checksum of a ++ b: that of a moved up by the length of b, plus that of b. The inversions before and after cancel out.
template <class Word, Word kPoly>
Word combine(Word first, Word second, uint64_t second_bytes) {
  // x^(2^i) for all i that can occur, so that combining costs at most 64 multiplications.
  static constexpr auto kSquares = [] {
    std::array<Word, 64> squares{};
    squares[0] = Word{1} << (sizeof(Word) * 8 - 2);
    for (size_t i = 1; i < squares.size(); ++i) squares[i] = multiply_mod<Word, kPoly>(squares[i - 1], squares[i - 1]);
    return squares;
  }();
  constexpr Word kOne = Word{1} << (sizeof(Word) * 8 - 1);
  Word shift = kOne;
  for (size_t i = 3; second_bytes != 0; ++i, second_bytes >>= 1) {  // bytes are 2^3 bits; lengths stay below 2^61
    if (second_bytes & 1) shift = multiply_mod<Word, kPoly>(shift, kSquares[i % 64]);
  }
  return multiply_mod<Word, kPoly>(shift, first) ^ second;
}

}  // namespace quarry::detail
