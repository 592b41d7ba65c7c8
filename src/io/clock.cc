#include "io/clock.h"

#include <sys/random.h>
#include <time.h>

#include "base/check.h"

namespace quarry {
namespace {
class SystemClock : public Clock {
 public:
  WallTime wall_now() const override {
    timespec t{};
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1'000'000'000ll + t.tv_nsec;
  }
};
class SystemRandom : public Random {
 public:
  void fill(MutableByteView out) override {
    while (!out.empty()) {
      const ssize_t n = getrandom(out.data(), out.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      CHECK(n > 0, "getrandom failed");
      out = out.subspan(static_cast<size_t>(n));
    }
  }
};
}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}
Random& system_random() {
  static SystemRandom random;
  return random;
}

uint64_t Random::u64() {
  uint8_t raw[8];
  fill(raw);
  uint64_t value;
  std::memcpy(&value, raw, 8);
  return value;
}
uint64_t Random::below(uint64_t bound) {
  CHECK(bound > 0);
  const uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
  uint64_t value = u64();
  while (value >= limit) value = u64();
  return value % bound;
}
Uuid Random::uuid() {
  Uuid id;
  fill(id.bytes);
  id.bytes[6] = static_cast<uint8_t>((id.bytes[6] & 0x0f) | 0x40);
  id.bytes[8] = static_cast<uint8_t>((id.bytes[8] & 0x3f) | 0x80);
  return id;
}

void SeededRandom::fill(MutableByteView out) {
  for (size_t i = 0; i < out.size(); i += 8) {
    // splitmix64 (Steele, Lea, Flood 2014)
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    std::memcpy(out.data() + i, &z, std::min<size_t>(8, out.size() - i));
  }
}

}  // namespace quarry
