// S3 requests without a network: signed by the client's own signer, handled by the real server over the memory twins, answered into memory.
#pragma once
#include <gtest/gtest.h>

#include "auth/sigv4.h"
#include "base/coding.h"
#include "frontends/s3/s3_server.h"
#include "object/testing/harness.h"
#include "wire/http1_parser.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {

// Bytes of a body that are there, and what happens after them.
class FakeBody : public BodyReader {
 public:
  FakeBody(std::string bytes, std::optional<uint64_t> declared, std::optional<Code> failure)
      : bytes_(std::move(bytes)), declared_(declared), failure_(failure) {}
  std::optional<uint64_t> length() const override { return declared_; }
  uint64_t bytes_read() const override { return at_; }
  Task<Result<size_t>> read_into(MutableByteView into) override {
    const size_t take = std::min(into.size(), bytes_.size() - at_);
    std::memcpy(into.data(), bytes_.data() + at_, take);
    at_ += take;
    if (take < into.size() && failure_) co_return fail(*failure_, "the test says so");
    co_return take;
  }
  Task<Result<SharedBytes>> read(size_t max) override {
    Buffer buffer(std::min(max, bytes_.size() - at_));
    auto got = co_await read_into(buffer.mutable_view());
    if (!got) co_return std::move(got).error();
    if (*got == 0 && failure_) co_return fail(*failure_, "the test says so");
    co_return SharedBytes(std::move(buffer));
  }

 private:
  std::string bytes_;
  std::optional<uint64_t> declared_;
  std::optional<Code> failure_;
  size_t at_ = 0;
};

class FakeResponse : public ResponseWriter {
 public:
  Task<Result<void>> send_head(ResponseHead head) override {
    EXPECT_FALSE(sent_) << "one head an answer";
    sent_ = true;
    head_ = std::move(head);
    co_return Result<void>();
  }
  Task<Result<void>> write(std::vector<SharedBytes> parts) override {
    for (const auto& part : parts) body_.append(text_of(part));
    co_return Result<void>();
  }
  Task<Result<void>> flush() override { co_return Result<void>(); }
  Task<Result<void>> finish() override {
    finished_ = true;
    co_return Result<void>();
  }
  Task<Result<void>> respond(ResponseHead head, std::string body) override {
    auto sent = co_await send_head(std::move(head));
    body_ = std::move(body);
    finished_ = true;
    co_return sent;
  }
  bool head_sent() const override { return sent_; }
  void abort() override { aborted_ = true; }

  ResponseHead head_;
  std::string body_;
  bool sent_ = false, finished_ = false, aborted_ = false;
};

struct Answer {
  int status = 0;
  std::string body;
  HeaderBlock headers;
  std::optional<uint64_t> content_length;
  bool aborted = false;

  std::string header(std::string_view name) const { return std::string(headers.find(name).value_or("")); }
  std::string code() const { return element("Code"); }
  // Text of the first element of this name directly under the root.
  std::string element(std::string_view name) const {
    const auto root = parse_xml(body);
    return root ? std::string(root->child_text(name)) : std::string();
  }
};

struct Ask {
  std::string method = "GET", path = "/", query;  // raw
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string host = "127.0.0.1:9000";
  std::string access_key = "admin-access", secret_key = "admin-secret-key";
  std::string payload_hash;  // empty: of the body
  bool anonymous = false;
  std::optional<uint64_t> content_length;  // empty: of the body
  std::optional<Code> body_failure;        // after the body's bytes
  std::string raw_query_only;              // presigned: used instead of signing
};

struct S3Harness {
  explicit S3Harness(S3Options options = {})
      : identities(auth::make_identity_store(*store.meta, std::string(32, 'k'), system_clock(), system_random())),
        server(*store.engine, *identities, store.clock, std::move(options)) {
    for (const std::string name : {"admin", "alice", "bob"}) {
      EXPECT_TRUE(store.executor.run(identities->create_user(name, name == "admin")));
      EXPECT_TRUE(store.executor.run(identities->create_key(name, name + "-access", name + "-secret-key")));
    }
  }

  Answer ask(Ask wanted) {
    HeaderBlock headers;
    for (const auto& [name, value] : wanted.headers) headers.add(name, value);
    std::string query = wanted.query;
    if (!wanted.raw_query_only.empty()) {
      query = wanted.raw_query_only;
    } else if (!wanted.anonymous) {
      const std::string hash = wanted.payload_hash.empty() ? sha256_hex(bytes_of(wanted.body)) : wanted.payload_hash;
      auth::sign_request({wanted.access_key, wanted.secret_key, "us-east-1"}, {wanted.method, wanted.host, wanted.path, wanted.query},
                         headers, hash, store.clock.wall_now());
    }
    const uint64_t length = wanted.content_length.value_or(wanted.body.size());
    std::string text = fmt::format("{} {}{}{} HTTP/1.1\r\nHost: {}\r\n{}", wanted.method, wanted.path, query.empty() ? "" : "?", query,
                                   wanted.host, headers.serialized());
    if (wanted.method == "PUT" || wanted.method == "POST" || length > 0) text += fmt::format("Content-Length: {}\r\n", length);
    text += "\r\n";
    RequestHead head;
    const auto parsed = parse_request_head(text, head);
    EXPECT_TRUE(parsed) << text;
    const SocketAddress peer{"127.0.0.1", 1};
    FakeBody body(wanted.body, length, wanted.body_failure);
    FakeResponse response;
    HttpExchange exchange{head, peer, false, body, response};
    store.executor.run(server.handle(exchange));
    EXPECT_TRUE(response.sent_);
    EXPECT_TRUE(response.finished_ || response.aborted_);
    return {response.head_.status, std::move(response.body_), std::move(response.head_.headers), response.head_.content_length,
            response.aborted_};
  }

  Answer put(std::string path, std::string body, std::vector<std::pair<std::string, std::string>> headers = {}) {
    return ask({.method = "PUT", .path = std::move(path), .body = std::move(body), .headers = std::move(headers)});
  }
  Answer get(std::string path, std::string query = {}, std::vector<std::pair<std::string, std::string>> headers = {}) {
    return ask({.path = std::move(path), .query = std::move(query), .headers = std::move(headers)});
  }
  Answer remove(std::string path, std::string query = {}) {
    return ask({.method = "DELETE", .path = std::move(path), .query = std::move(query)});
  }
  Answer post(std::string path, std::string query, std::string body, std::vector<std::pair<std::string, std::string>> headers = {}) {
    return ask(
        {.method = "POST", .path = std::move(path), .query = std::move(query), .body = std::move(body), .headers = std::move(headers)});
  }

  object::Harness store;
  std::unique_ptr<auth::IdentityStore> identities;
  S3Server server;
};

}  // namespace quarry::frontends::s3
