// The aws-chunked decoder: every way to cut the input gives the same payload, and every damage is refused.
#include "auth/aws_chunked.h"

#include <gtest/gtest.h>

#include "base/coding.h"

namespace quarry::auth {
namespace {

struct Decoded {
  std::string payload;
  std::optional<std::string> trailer;
  std::string refusal;  // code, or empty
};

// Feeds `body` in pieces of `step` bytes, as a connection would.
Decoded decode(const std::string& body, AwsChunkedOptions options, size_t step) {
  AwsChunkedDecoder decoder(std::move(options));
  Decoded out;
  size_t at = 0;
  while (!decoder.done()) {
    if (at == body.size()) {
      out.refusal = decoder.cut_short().code;
      return out;
    }
    const std::string_view piece = std::string_view(body).substr(at, step);
    if (decoder.payload_left() > 0) {
      const std::string_view data = piece.substr(0, decoder.payload_left());
      out.payload.append(data);
      at += data.size();
      if (auto taken = decoder.payload(bytes_of(data)); !taken) {
        out.refusal = taken.error().code;
        return out;
      }
      continue;
    }
    auto used = decoder.framing(piece);
    if (!used) {
      out.refusal = used.error().code;
      return out;
    }
    at += *used;
  }
  out.trailer = decoder.trailer_value();
  return out;
}

ChunkSigningContext signing() {
  ChunkSigningContext context;
  context.key = derive_signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3");
  context.timestamp = "20130524T000000Z";
  context.scope = "20130524/us-east-1/s3/aws4_request";
  context.previous_signature = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
  return context;
}

std::string signed_body(const std::vector<std::string>& chunks, std::string_view trailer_name = {}, std::string_view trailer_value = {}) {
  ChunkSigningContext context = signing();
  std::string body;
  for (const auto& chunk : chunks) {
    body += fmt::format("{:x};chunk-signature={}\r\n{}\r\n", chunk.size(), sign_chunk(context, sha256(bytes_of(chunk))), chunk);
  }
  body += fmt::format("0;chunk-signature={}\r\n", sign_chunk(context, sha256({})));
  if (!trailer_name.empty()) {
    const std::string canonical = fmt::format("{}:{}\n", trailer_name, trailer_value);
    body += fmt::format("{}:{}\r\nx-amz-trailer-signature:{}\r\n", trailer_name, trailer_value,
                        sign_trailer(context, sha256(bytes_of(canonical))));
  }
  return body + "\r\n";
}

AwsChunkedOptions signed_options(uint64_t length) { return {PayloadKind::streaming_signed, length, "", signing(), "AK"}; }

TEST(AwsChunked, signed_chunks_decode_however_they_are_cut) {
  const std::vector<std::string> chunks = {std::string(65536, 'a'), std::string(1024, 'a')};
  const std::string body = signed_body(chunks);
  EXPECT_NE(body.find("ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"), std::string::npos);  // AWS's example
  for (const size_t step : {size_t{1}, size_t{7}, size_t{90}, size_t{4096}, body.size()}) {
    const Decoded decoded = decode(body, signed_options(66560), step);
    EXPECT_EQ(decoded.refusal, "");
    EXPECT_EQ(decoded.payload, chunks[0] + chunks[1]);
  }
}

TEST(AwsChunked, each_flipped_byte_of_a_signed_body_is_refused) {
  const std::string body = signed_body({"some random data"}, "x-amz-checksum-crc32", "AAAAAA==");
  AwsChunkedOptions options = signed_options(16);
  options.kind = PayloadKind::streaming_signed_trailer;
  options.trailer = "x-amz-checksum-crc32";
  ASSERT_EQ(decode(body, options, 1000).refusal, "");
  EXPECT_EQ(decode(body, options, 1000).trailer, "AAAAAA==");
  for (size_t i = 0; i < body.size(); ++i) {
    std::string bad = body;
    bad[i] ^= 0x01;
    EXPECT_NE(decode(bad, options, 1000).refusal, "") << "byte " << i;
  }
}

TEST(AwsChunked, every_truncation_is_an_incomplete_body) {
  const std::string body = signed_body({std::string(9000, 'x'), "tail"});
  for (size_t size = 0; size < body.size(); size += 37) {
    EXPECT_EQ(decode(body.substr(0, size), signed_options(9004), 500).refusal, "IncompleteBody") << size;
  }
}

TEST(AwsChunked, only_the_last_chunk_may_be_small) {
  AwsChunkedOptions options{PayloadKind::streaming_unsigned_trailer, 20, "", {}, ""};
  EXPECT_EQ(decode("a\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", options, 100).refusal, "InvalidChunkSizeError");
}

TEST(AwsChunked, length_must_be_as_announced) {
  const auto options = [](uint64_t length) { return AwsChunkedOptions{PayloadKind::streaming_unsigned_trailer, length, "", {}, ""}; };
  EXPECT_EQ(decode("b\r\nabcdefghijk\r\n0\r\n\r\n", options(11), 100).payload, "abcdefghijk");
  EXPECT_EQ(decode("b\r\nabcdefghijk\r\n0\r\n\r\n", options(5), 100).refusal, "IncompleteBody");
  EXPECT_EQ(decode("b\r\nabcdefghijk\r\n0\r\n\r\n", options(200), 100).refusal, "IncompleteBody");
  EXPECT_EQ(decode("0\r\n\r\n", options(0), 100).refusal, "");
}

TEST(AwsChunked, trailers_must_be_the_announced_ones) {
  AwsChunkedOptions options{PayloadKind::streaming_unsigned_trailer, 5, "x-amz-checksum-crc64nvme", {}, ""};
  const auto refusal = [&](const std::string& tail) { return decode("5\r\nhello\r\n0\r\n" + tail, options, 100).refusal; };
  EXPECT_EQ(refusal("x-amz-checksum-crc64nvme:M3eFcAZSQlc=\r\n\r\n"), "");
  EXPECT_EQ(refusal("\r\n"), "MalformedTrailerError");
  EXPECT_EQ(refusal(":M3eFcAZSQlc=\r\n\r\n"), "MalformedTrailerError");
  EXPECT_EQ(refusal("invalid_trailer:M3eFcAZSQlc=\r\n\r\n"), "MalformedTrailerError");
  EXPECT_EQ(refusal("x-amz-checksum-crc64nvme:M3eFcAZSQlc=\r\n"), "IncompleteBody");
  options.trailer.clear();
  EXPECT_EQ(refusal("x-amz-checksum-crc64nvme:M3eFcAZSQlc=\r\n\r\n"), "MalformedTrailerError");
}

TEST(AwsChunked, garbage_needs_bounded_memory) {
  AwsChunkedOptions options{PayloadKind::streaming_unsigned_trailer, 5, "", {}, ""};
  EXPECT_EQ(decode(std::string(100'000, '1'), options, 4096).refusal, "IncompleteBody");
}

}  // namespace
}  // namespace quarry::auth
