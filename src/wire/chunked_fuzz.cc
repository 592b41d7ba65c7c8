// The chunked coding gives the same bytes, end and verdict however the input is cut.
#include "base/check.h"
#include "wire/http1_parser.h"

namespace {
struct Outcome {
  std::string payload;
  bool done = false, failed = false;
};

Outcome decode(std::string_view input, size_t step) {
  quarry::ChunkedDecoder decoder;
  Outcome outcome;
  std::string waiting;
  for (size_t at = 0; at < input.size() && !outcome.done;) {
    const size_t size = std::min(step, input.size() - at);
    waiting += input.substr(at, size);
    at += size;
    for (;;) {
      const auto result = decoder.next(waiting);
      if (!result) {
        outcome.failed = true;
        return outcome;
      }
      CHECK(result->consumed <= waiting.size() && result->payload.size() <= result->consumed);
      outcome.payload += result->payload;
      const size_t consumed = result->consumed;
      outcome.done = decoder.done();
      waiting.erase(0, consumed);
      if (outcome.done || consumed == 0) break;
    }
  }
  return outcome;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const Outcome whole = decode(input, size + 1);
  for (const size_t step : {1, 3, 17}) {
    const Outcome cut = decode(input, step);
    CHECK(cut.failed == whole.failed && cut.done == whole.done);
    // A refusal may come before or after payload that stands in front of it was handed out.
    if (!whole.failed) CHECK(cut.payload == whole.payload);
  }
  return 0;
}
