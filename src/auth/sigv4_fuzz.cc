// Feeds hostile request heads to the signature parser and verifier: whatever comes in, an answer comes out, and nothing unsigned is
// accepted.
#include "auth/sigv4.h"
#include "wire/http1_parser.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quarry;
  using namespace quarry::auth;
  std::string text(reinterpret_cast<const char*>(data), size);
  if (text.find("Host:") == std::string::npos) {
    text = fmt::format(
        "GET /bucket/key?{} HTTP/1.1\r\nHost: h\r\nx-amz-date: 20130524T000000Z\r\nx-amz-content-sha256: "
        "UNSIGNED-PAYLOAD\r\nAuthorization: {}\r\n\r\n",
        text.substr(0, text.find('\n')), text);
  }
  RequestHead head;
  if (!parse_request_head(text, head)) return 0;
  const auto signature = parse_signature(head, {"us-east-1", 1369353600LL * 1'000'000'000});
  if (!signature || signature->place == SignaturePlace::none) return 0;
  const auto key = derive_signing_key("secret", signature->date, signature->region, "s3");
  (void)verify_signature(head, *signature, key).has_value();
  return 0;
}
