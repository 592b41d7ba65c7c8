// Feeds hostile aws-chunked bodies to the decoder: it ends, it stays inside the announced length, and it never reads past its input.
#include "auth/aws_chunked.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quarry;
  using namespace quarry::auth;
  if (size < 3) return 0;
  AwsChunkedOptions options;
  options.kind = static_cast<PayloadKind>(3 + data[0] % 3);
  options.decoded_length = data[1];
  if (data[0] & 0x40) options.trailer = "x-amz-checksum-crc32";
  options.signing.previous_signature = std::string(64, '0');
  const size_t step = 1 + data[2] % 64;
  AwsChunkedDecoder decoder(options);
  size_t at = 3;
  while (!decoder.done() && at < size) {
    const size_t piece = std::min(step, size - at);
    if (decoder.payload_left() > 0) {
      const size_t take = std::min<uint64_t>(piece, decoder.payload_left());
      at += take;
      if (!decoder.payload({data + at - take, take})) return 0;
    } else {
      const auto used = decoder.framing({reinterpret_cast<const char*>(data) + at, piece});
      if (!used) return 0;
      CHECK(*used <= piece);
      CHECK(*used > 0);
      at += *used;
    }
    CHECK(decoder.decoded_bytes() <= options.decoded_length);
  }
  return 0;
}
