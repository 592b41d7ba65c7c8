#include "observe/request_context.h"

#include <sys/random.h>

#include "base/check.h"

namespace quarry {

std::string RequestId::to_string() const { return fmt::format("{:016x}{:016x}", high, low); }
std::string RequestId::short_id() const { return fmt::format("{:016X}", high); }

RequestContext RequestContext::system(std::string_view operation) {
  RequestContext context;
  context.id = new_request_id();
  context.operation = operation;
  context.work_class = WorkClass::background;
  return context;
}

RequestId new_request_id() {
  // xoshiro256** (Blackman, Vigna): ids need to be distinct, not secret.
  struct Generator {
    uint64_t state[4];
    Generator() { CHECK(getrandom(state, sizeof state, 0) == sizeof state, "no randomness from the operating system"); }
    static uint64_t rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }
    uint64_t next() {
      const uint64_t result = rotate(state[1] * 5, 7) * 9;
      const uint64_t t = state[1] << 17;
      state[2] ^= state[0];
      state[3] ^= state[1];
      state[1] ^= state[2];
      state[0] ^= state[3];
      state[2] ^= t;
      state[3] = rotate(state[3], 45);
      return result;
    }
  };
  thread_local Generator generator;
  RequestId id;
  id.high = generator.next();
  id.low = generator.next();
  return id;
}

}  // namespace quarry
