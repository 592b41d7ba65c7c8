// Hostile forms: the decoder must see the same parts whatever the pieces it is shown, never go past its window, and end; the parsers of
// part heads, boundaries and policies must hold on any text.
#include "base/check.h"
#include "base/coding.h"
#include "frontends/s3/form_data.h"
#include "frontends/s3/post_policy.h"

namespace {

using namespace quarry::frontends::s3;

// What a form says, when it is shown in pieces of `piece` bytes.
std::string transcript(std::string_view body, size_t piece) {
  FormDecoder decoder("b");
  std::string out, data;
  size_t begin = 0, end = 0;
  for (;;) {
    auto step = decoder.step(body.substr(begin, end - begin));
    if (!step) return out + "!";
    CHECK(step->consumed <= end - begin);
    CHECK(step->kind != FormDecoder::Kind::need_more || end - begin < decoder.window_min() || end == body.size());
    begin += step->consumed;
    if (step->kind == FormDecoder::Kind::end) return out + ".";
    if (step->kind == FormDecoder::Kind::data) CHECK(!step->text.empty());
    if (step->kind == FormDecoder::Kind::data) data.append(step->text);
    if (step->kind == FormDecoder::Kind::part_end) {
      out.append("[").append(data).append("]");
      data.clear();
    }
    if (step->kind == FormDecoder::Kind::head) out.append("<").append(step->text).append(">");
    if (step->kind != FormDecoder::Kind::need_more) continue;
    if (end == body.size()) return out + "?";
    end = std::min(end + piece, body.size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  switch (bytes[0] % 4) {
    case 0: {
      const std::string body = "--b\r\n" + std::string(text);
      CHECK(transcript(body, body.size()) == transcript(body, 1 + bytes[0] / 4));
      break;
    }
    case 1: (void)parse_form_part_head(text).has_value(); break;
    case 2: (void)parse_form_boundary("multipart/form-data" + std::string(text)).has_value(); break;
    case 3: {
      const auto policy = parse_post_policy(quarry::to_base64(quarry::bytes_of(text)));
      if (policy) (void)check_post_policy(*policy, {{"key", "k"}, {"content-type", "a,b"}}, 1).has_value();
      break;
    }
  }
  return 0;
}
