#include "wire/http1_parser.h"

#include <gtest/gtest.h>

namespace quarry {
namespace {

const Http1Limits kLimits;

Result<size_t> scan(std::string_view text, const Http1Limits& limits = kLimits) { return Http1HeadScanner(limits).scan(text); }

Code refusal(std::string_view text) {
  RequestHead head;
  const auto size = scan(text);
  if (!size) return size.error().code();
  EXPECT_GT(*size, 0u) << text;
  const auto result = parse_request_head(text.substr(0, *size), head);
  EXPECT_FALSE(result) << text;
  return result ? Code::internal : result.error().code();
}

TEST(Http1, parses_a_request_in_place) {
  const std::string text =
      "PUT /bucket/a%20b/c+d?partNumber=3&uploadId=x%2Fy&flag&e=&sp=a+b HTTP/1.1\r\n"
      "Host: s3.example:9000\r\nContent-Length: 42\r\nx-amz-meta-A:  v\xc3\xa9 \t\r\nExpect: 100-Continue\r\n\r\nrest";
  const auto size = scan(text);
  ASSERT_TRUE(size);
  EXPECT_EQ(text.substr(*size), "rest");
  RequestHead head;
  ASSERT_TRUE(parse_request_head(std::string_view(text).substr(0, *size), head));
  EXPECT_EQ(head.method, "PUT");
  EXPECT_EQ(head.raw_path, "/bucket/a%20b/c+d");
  EXPECT_EQ(head.path, "/bucket/a b/c+d");
  EXPECT_EQ(head.authority, "s3.example:9000");
  ASSERT_EQ(head.query.size(), 5u);
  EXPECT_EQ(head.find_query("uploadId")->value, "x/y");
  EXPECT_EQ(head.find_query("uploadId")->raw_value, "x%2Fy");
  EXPECT_FALSE(head.find_query("flag")->has_value);
  EXPECT_TRUE(head.find_query("e")->has_value);
  EXPECT_EQ(head.find_query("sp")->value, "a b");
  EXPECT_EQ(head.content_length, 42u);
  EXPECT_TRUE(head.expect_continue);
  EXPECT_TRUE(head.keep_alive);
  EXPECT_EQ(head.find("X-AMZ-META-a"), "v\xc3\xa9");
  EXPECT_EQ(head.headers.size(), 4u);
}

TEST(Http1, head_arrives_byte_by_byte) {
  const std::string text = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  Http1HeadScanner scanner(kLimits);
  for (size_t size = 1; size < text.size(); ++size) {
    const auto result = scanner.scan(std::string_view(text).substr(0, size));
    ASSERT_TRUE(result);
    EXPECT_EQ(*result, 0u);
  }
  EXPECT_EQ(*scanner.scan(text), text.size());
}

TEST(Http1, connection_and_version_decide_keep_alive) {
  const auto keeps = [](std::string_view text) {
    RequestHead head;
    EXPECT_TRUE(parse_request_head(text, head)) << text;
    return head.keep_alive;
  };
  EXPECT_TRUE(keeps("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_FALSE(keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo , Close\r\n\r\n"));
  EXPECT_FALSE(keeps("GET / HTTP/1.0\r\n\r\n"));
  EXPECT_TRUE(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

TEST(Http1, absolute_targets_name_the_host) {
  RequestHead head;
  ASSERT_TRUE(parse_request_head("GET http://b.s3:80/k?x=1 HTTP/1.1\r\nHost: other\r\n\r\n", head));
  EXPECT_EQ(head.authority, "b.s3:80");
  EXPECT_EQ(head.path, "/k");
  EXPECT_EQ(head.raw_query, "x=1");
}

TEST(Http1, a_badly_encoded_target_is_left_to_the_handler) {
  RequestHead head;
  ASSERT_TRUE(parse_request_head("GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n", head));
  EXPECT_TRUE(head.target_malformed);
  EXPECT_EQ(head.raw_path, "/a%zz");
  EXPECT_TRUE(head.path.empty());
}

TEST(Http1, refuses_what_others_might_read_differently) {
  const std::string ok = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (const std::string_view bad : {
           "GET / HTTP/1.1\nHost: a\n\n",  // bare LF
           "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n",  // obs-fold
           "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",  // space before colon
           "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",  // bare CR
           "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01 23456789012345678\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: \r\n\r\n",
           "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
           "GET / HTTP/1.1\r\n\r\n",  // no Host
           "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
           "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
           " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
           "GET / HTTP/11\r\nHost: a\r\n\r\n",
           "GET /\r\nHost: a\r\n\r\n",
           "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
       }) {
    EXPECT_EQ(refusal(bad), Code::malformed) << bad;
  }
  for (const std::string_view headers : {
           "Content-Length: 1\r\nContent-Length: 1\r\n",
           "Content-Length: 1\r\nContent-Length: 2\r\n",
           "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
           "Content-Length: +1\r\n",
           "Content-Length: -1\r\n",
           "Content-Length: 1, 1\r\n",
           "Content-Length: 0x1\r\n",
           "Content-Length:\r\n",
           "Content-Length: 99999999999999999999\r\n",
       }) {
    EXPECT_EQ(refusal(ok + std::string(headers) + "\r\n"), Code::malformed) << headers;
  }
  EXPECT_EQ(refusal(ok + "Transfer-Encoding: gzip, chunked\r\n\r\n"), Code::unsupported);
  EXPECT_EQ(refusal(ok + "Transfer-Encoding: xchunked\r\n\r\n"), Code::unsupported);
  EXPECT_EQ(refusal("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Code::unsupported);
  EXPECT_EQ(refusal("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"), Code::unsupported);
}

TEST(Http1, limits_hold_before_the_head_is_complete) {
  EXPECT_EQ(scan(std::string(70'000, 'a')).error().code(), Code::too_large);
  std::string many = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 200; ++i) many += "a: b\r\n";
  EXPECT_EQ(scan(many).error().code(), Code::too_large);
  EXPECT_TRUE(scan("GET / HTTP/1.1\r\n" + std::string(60'000, 'a')));
}

TEST(Http1, response_heads) {
  ClientResponseHead head;
  ASSERT_TRUE(parse_response_head("HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n", head));
  EXPECT_EQ(head.status, 206);
  EXPECT_EQ(head.content_length, 5u);
  EXPECT_EQ(head.find("etag"), "\"x\"");
  EXPECT_TRUE(parse_response_head("HTTP/1.1 200\r\n\r\n", head));
  EXPECT_FALSE(parse_response_head("HTTP/1.1 20 OK\r\n\r\n", head));
  EXPECT_FALSE(parse_response_head("HTTP/1.1 abc OK\r\n\r\n", head));
  EXPECT_FALSE(parse_response_head("ICY 200 OK\r\n\r\n", head));
}

// Decodes `text` given in pieces of `step` bytes; nullopt on an error.
std::optional<std::string> decode(std::string_view text, size_t step, bool* done = nullptr) {
  ChunkedDecoder decoder;
  std::string out, waiting;
  for (size_t at = 0; at < text.size() || !waiting.empty();) {
    waiting += text.substr(at, step);
    const bool last = at >= text.size();
    at += std::min(step, text.size() - at);
    for (;;) {
      const auto result = decoder.next(waiting);
      if (!result) return std::nullopt;
      out += result->payload;
      const size_t consumed = result->consumed;
      waiting.erase(0, consumed);
      if (result->done || consumed == 0) break;
    }
    if (decoder.done() || last) break;
  }
  if (done != nullptr) *done = decoder.done();
  return out;
}

TEST(Chunked, decodes_at_every_split) {
  const std::string text = "4\r\nWiki\r\nA;ext=\"1\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
  for (size_t step = 1; step <= text.size(); ++step) {
    bool done = false;
    EXPECT_EQ(decode(text, step, &done), "Wiki0123456789") << step;
    EXPECT_TRUE(done);
  }
}

TEST(Chunked, refuses_bad_framing) {
  for (const std::string_view bad :
       {"4\nWiki\r\n", "g\r\n", "-1\r\n", "\r\n", " 4\r\nWiki\r\n", "4 \r\nWiki\r\n", "4\r\nWikiX\r\n", "4\r\nWiki\rX",
        "ffffffffffffffff1\r\n", "8000000000000000\r\n", "0\r\nbad trailer\r\n\r\n", "0\r\nA: b\n\r\n", "4;\x01\r\nWiki\r\n"}) {
    EXPECT_EQ(decode(bad, 1000), std::nullopt) << bad;
    EXPECT_EQ(decode(bad, 1), std::nullopt) << bad;
  }
  EXPECT_EQ(decode("4;" + std::string(2000, 'a'), 100), std::nullopt);
  EXPECT_EQ(decode("0\r\n" + std::string(10'000, 'a'), 100), std::nullopt);
}

TEST(Chunked, payload_may_be_taken_past_the_decoder) {
  ChunkedDecoder decoder;
  const auto step = *decoder.next("a\r\n012");
  EXPECT_EQ(step.payload, "012");
  EXPECT_EQ(decoder.payload_left(), 7u);
  decoder.skip_payload(7);
  EXPECT_EQ(decoder.payload_left(), 0u);
  EXPECT_TRUE(decoder.next("\r\n0\r\n\r\n")->done || decoder.done());
}

}  // namespace
}  // namespace quarry
