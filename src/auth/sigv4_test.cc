// Signature V4 against the examples that AWS publishes for S3 (Authenticating Requests, "Examples: Signature Calculations"), and against
// itself.
#include "auth/sigv4.h"

#include <gtest/gtest.h>

#include "auth/canonical_request.h"
#include "base/coding.h"
#include "wire/http1_parser.h"

namespace quarry::auth {
namespace {

constexpr std::string_view kKey = "AKIAIOSFODNN7EXAMPLE";
constexpr std::string_view kSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
constexpr WallTime kExampleTime = 1369353600LL * 1'000'000'000;  // 20130524T000000Z

SigningCredentials example_credentials() { return {std::string(kKey), std::string(kSecret), "us-east-1"}; }

// A head as the server has it; the text it borrows lives beside it.
struct Parsed {
  std::string text;
  RequestHead head;
  explicit Parsed(std::string request) : text(std::move(request)) {
    const auto parsed = parse_request_head(text, head);
    EXPECT_TRUE(parsed) << parsed.error().to_string();
  }
};

Checked<ChunkSigningContext> check(const RequestHead& head, WallTime now = kExampleTime, std::string_view secret = kSecret,
                                   std::string_view region = "us-east-1") {
  auto signature = parse_signature(head, {region, now});
  if (!signature) return std::unexpected(signature.error());
  return verify_signature(head, *signature, derive_signing_key(secret, signature->date, signature->region, "s3"));
}

std::string request_text(std::string_view method, std::string_view target, std::string_view host, const HeaderBlock& headers) {
  return fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\n{}\r\n", method, target, host, headers.serialized());
}

Parsed signed_get(std::string_view path = "/bucket/key", std::string_view query = {}, WallTime now = kExampleTime) {
  HeaderBlock headers;
  sign_request(example_credentials(), {"GET", "127.0.0.1:9000", path, query}, headers, kEmptySha256, now);
  return Parsed(request_text("GET", query.empty() ? std::string(path) : fmt::format("{}?{}", path, query), "127.0.0.1:9000", headers));
}

TEST(SigV4, get_object_example_of_aws) {
  Parsed request(
      "GET /test.txt HTTP/1.1\r\nHost: examplebucket.s3.amazonaws.com\r\nRange: bytes=0-9\r\n"
      "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\nx-amz-date: 20130524T000000Z\r\n"
      "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
      "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
      "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41\r\n\r\n");
  EXPECT_TRUE(check(request.head));
}

TEST(SigV4, put_object_example_of_aws) {
  Parsed request(
      "PUT /test%24file.text HTTP/1.1\r\nHost: examplebucket.s3.amazonaws.com\r\nDate: Fri, 24 May 2013 00:00:00 GMT\r\n"
      "x-amz-date: 20130524T000000Z\r\nx-amz-storage-class: REDUCED_REDUNDANCY\r\n"
      "x-amz-content-sha256: 44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072\r\n"
      "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
      "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,"
      "Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd\r\n\r\n");
  EXPECT_TRUE(check(request.head));
}

TEST(SigV4, query_examples_of_aws) {
  Parsed lifecycle(
      "GET /?lifecycle HTTP/1.1\r\nHost: examplebucket.s3.amazonaws.com\r\nx-amz-date: 20130524T000000Z\r\n"
      "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n"
      "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
      "SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature="
      "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543\r\n\r\n");
  EXPECT_TRUE(check(lifecycle.head));
  Parsed list(
      "GET /?prefix=J&max-keys=2 HTTP/1.1\r\nHost: examplebucket.s3.amazonaws.com\r\nx-amz-date: 20130524T000000Z\r\n"
      "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n"
      "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
      "SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature="
      "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7\r\n\r\n");
  EXPECT_TRUE(check(list.head));
}

TEST(SigV4, presigned_example_of_aws) {
  const std::string target =
      "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
      "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
      "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
  Parsed request("GET " + target + " HTTP/1.1\r\nHost: examplebucket.s3.amazonaws.com\r\n\r\n");
  EXPECT_TRUE(check(request.head));
  EXPECT_TRUE(check(request.head, kExampleTime + 86'400LL * 1'000'000'000));
  const auto late = check(request.head, kExampleTime + 86'401LL * 1'000'000'000);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, "AccessDenied");
  EXPECT_EQ(late.error().message, "Request has expired.");
  EXPECT_EQ(presign_query(example_credentials(), {"GET", "examplebucket.s3.amazonaws.com", "/test.txt", ""}, {}, 86400, kExampleTime),
            target.substr(target.find('?') + 1));
}

TEST(SigV4, chunk_example_of_aws) {
  // "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks": 64 KiB + 1 KiB of 'a'.
  ChunkSigningContext context;
  context.key = derive_signing_key(kSecret, "20130524", "us-east-1", "s3");
  context.timestamp = "20130524T000000Z";
  context.scope = "20130524/us-east-1/s3/aws4_request";
  context.previous_signature = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
  EXPECT_EQ(sign_chunk(context, sha256(bytes_of(std::string(65536, 'a')))),
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648");
  EXPECT_EQ(sign_chunk(context, sha256(bytes_of(std::string(1024, 'a')))),
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497");
  EXPECT_EQ(sign_chunk(context, sha256({})), "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9");
}

TEST(SigV4, what_we_sign_we_accept) {
  for (const std::string_view path : {"/", "/bucket/key", "/bucket/a%20b%2Bc%2F%25", "/bucket/%E6%97%A5%E6%9C%AC", "/bucket//x/../y"}) {
    for (const std::string_view query : {"", "uploads=", "prefix=a%2Fb&list-type=2&delimiter=%2F", "a=2&a=1&b"}) {
      const Parsed request = signed_get(path, query);
      const auto checked = check(request.head);
      EXPECT_TRUE(checked) << path << "?" << query << ": " << checked.error().message;
    }
  }
}

TEST(SigV4, unencoded_path_and_query_are_signed_in_canonical_form) {
  // Clients that send "!" raw sign "%21".
  HeaderBlock headers;
  sign_request(example_credentials(), {"GET", "h", "/b/my%21key", "prefix=x%21"}, headers, kEmptySha256, kExampleTime);
  const Parsed request(request_text("GET", "/b/my!key?prefix=x!", "h", headers));
  EXPECT_TRUE(check(request.head));
}

TEST(SigV4, any_change_to_what_is_signed_is_refused) {
  const std::string good = signed_get("/bucket/key", "x=1").text;
  ASSERT_TRUE(check(Parsed(good).head));
  const std::pair<std::string_view, std::string_view> changes[] = {
      {"GET /", "PUT /"}, {"/bucket/key", "/bucket/kez"}, {"x=1", "x=2"}, {"127.0.0.1:9000", "127.0.0.1:9001"}, {"000000Z", "000001Z"}};
  for (const auto& [from, to] : changes) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    const auto checked = check(Parsed(text).head);
    ASSERT_FALSE(checked) << from;
    EXPECT_EQ(checked.error().code, "SignatureDoesNotMatch") << from;
  }
  const auto other_secret = check(Parsed(good).head, kExampleTime, "another secret");
  ASSERT_FALSE(other_secret);
  EXPECT_EQ(other_secret.error().code, "SignatureDoesNotMatch");
}

TEST(SigV4, unsigned_amz_headers_are_refused_by_name) {
  std::string text = signed_get().text;
  text.insert(text.find("Authorization"), "x-amz-copy-source: a/b\r\nX-Amz-Tagging: c\r\nx-other: d\r\n");
  const auto checked = check(Parsed(text).head);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, "AccessDenied");
  ASSERT_EQ(checked.error().details.size(), 1u);
  EXPECT_EQ(checked.error().details[0].second, "x-amz-copy-source, x-amz-tagging");
}

TEST(SigV4, clock_skew_of_more_than_15_minutes_is_refused) {
  const Parsed request = signed_get();
  constexpr WallTime kSecond = 1'000'000'000;
  EXPECT_TRUE(check(request.head, kExampleTime + 900 * kSecond));
  EXPECT_TRUE(check(request.head, kExampleTime - 900 * kSecond));
  for (const WallTime now : {kExampleTime + 901 * kSecond, kExampleTime - 901 * kSecond}) {
    const auto checked = check(request.head, now);
    ASSERT_FALSE(checked);
    EXPECT_EQ(checked.error().code, "RequestTimeTooSkewed");
  }
}

TEST(SigV4, a_wrong_region_is_answered_with_the_right_one) {
  const auto checked = check(signed_get().head, kExampleTime, kSecret, "eu-west-1");
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, "AuthorizationHeaderMalformed");
  EXPECT_EQ(checked.error().message, "The authorization header is malformed; the region \"us-east-1\" is wrong; expecting \"eu-west-1\"");
  ASSERT_EQ(checked.error().details.size(), 1u);
  EXPECT_EQ(checked.error().details[0], (std::pair<std::string, std::string>("Region", "eu-west-1")));
}

TEST(SigV4, malformed_authorization_headers_get_their_own_answers) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"nonsense", "InvalidArgument"},
      {"AWS key:signature", "InvalidRequest"},
      {"AWS5-HMAC x", "InvalidArgument"},
      {"AWS4-HMAC-SHA256 Credential=a/20130524/us-east-1/s3/aws4_request,Signature=x", "AuthorizationHeaderMalformed"},
      {"AWS4-HMAC-SHA256 Credential=a/20130524/us-east-1/ec2/aws4_request,SignedHeaders=host,Signature=x", "AuthorizationHeaderMalformed"},
      {"AWS4-HMAC-SHA256 Credential=a/2013/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=x", "AuthorizationHeaderMalformed"},
      {"AWS4-HMAC-SHA256 Credential=a/20130525/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=x", "AuthorizationHeaderMalformed"},
      {"AWS4-HMAC-SHA256 Credential=,SignedHeaders=,Signature=", "AuthorizationHeaderMalformed"},
  };
  for (const auto& [authorization, code] : cases) {
    const Parsed request(fmt::format(
        "GET / HTTP/1.1\r\nHost: h\r\nx-amz-date: 20130524T000000Z\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\nAuthorization: {}\r\n\r\n",
        authorization));
    const auto checked = check(request.head);
    ASSERT_FALSE(checked) << authorization;
    EXPECT_EQ(checked.error().code, code) << authorization;
  }
}

TEST(SigV4, no_authorization_is_anonymous) {
  const Parsed request("GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n");
  const auto signature = parse_signature(request.head, {"us-east-1", kExampleTime});
  ASSERT_TRUE(signature);
  EXPECT_EQ(signature->place, SignaturePlace::none);
}

TEST(SigV4, times_that_64_bits_cannot_hold_are_refused) {
  constexpr WallTime kNow = 1'700'000'000LL * 1'000'000'000;
  const SigningCredentials credentials = example_credentials();
  const auto sign = [&](const std::string& timestamp, const std::string& expires) {
    // As whoever knows the secret would do by hand: the signer itself makes no such times.
    std::string query =
        fmt::format("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={}&X-Amz-Expires={}&X-Amz-SignedHeaders=host",
                    percent_encode(fmt::format("{}/{}/us-east-1/s3/aws4_request", kKey, timestamp.substr(0, 8))), timestamp, expires);
    const std::string canonical = fmt::format("GET\n/b/k\n{}\nhost:h\n\nhost\nUNSIGNED-PAYLOAD", query);
    const std::string to_sign = string_to_sign(timestamp, credential_scope(timestamp.substr(0, 8), "us-east-1"), canonical);
    const auto key = derive_signing_key(kSecret, timestamp.substr(0, 8), "us-east-1", "s3");
    query += "&X-Amz-Signature=" + to_hex(hmac_sha256(key, to_sign));
    return Parsed(fmt::format("GET /b/k?{} HTTP/1.1\r\nHost: h\r\n\r\n", query));
  };
  EXPECT_TRUE(check(sign("20231114T221320Z", "60").head, kNow));
  // 1000 and the others: their nanoseconds since 1970 overflow, some into the future.
  for (int year = 0; year < 10'000; year += year < 1900 || year > 2300 ? 97 : 9) {
    if (year > 1969 && year < 2200) continue;
    for (const std::string expires : {"1", "604800"}) {
      const auto checked = check(sign(fmt::format("{:04}0101T000000Z", year), expires).head, kNow);
      ASSERT_FALSE(checked) << year;
      EXPECT_EQ(checked.error().code, "AuthorizationQueryParametersError") << year;
    }
  }
  EXPECT_FALSE(check(sign("10000101T000000Z", "1").head, kNow));
  for (const std::string expires : {"9223372036854775807", "99999999999999999999", "-1"}) {
    EXPECT_FALSE(check(sign("20231114T221320Z", expires).head, kNow)) << expires;
  }
  for (const std::string_view date : {"Fri, 24 May 1000 00:00:00 GMT", "Sat, 24 May 9999 00:00:00 GMT", "10000524T000000Z"}) {
    const Parsed request(fmt::format("GET / HTTP/1.1\r\nHost: h\r\nDate: {}\r\nAuthorization: AWS4-HMAC-SHA256 x\r\n\r\n", date));
    const auto checked = check(request.head, kNow);
    ASSERT_FALSE(checked) << date;
    EXPECT_EQ(checked.error().code, "AccessDenied") << date;
  }
  const FormSignatureFields form{.algorithm = "AWS4-HMAC-SHA256",
                                 .credential = "k/10000524/us-east-1/s3/aws4_request",
                                 .date = "10000524T000000Z",
                                 .policy = "p",
                                 .signature = "s"};
  EXPECT_FALSE(parse_form_signature(form, {"us-east-1", kNow}));
}

TEST(SigV4, timestamps_round_trip) {
  EXPECT_EQ(amz_timestamp(kExampleTime), "20130524T000000Z");
  EXPECT_EQ(parse_amz_timestamp("20130524T000000Z").value(), 1369353600);
  EXPECT_EQ(parse_amz_timestamp(amz_timestamp(4102444799LL * 1'000'000'000)).value(), 4102444799);
  for (const std::string_view bad : {"", "20130524", "20131324T000000Z", "2013052aT000000Z", "20130524T000000", "20130524 000000Z"}) {
    EXPECT_FALSE(parse_amz_timestamp(bad)) << bad;
  }
}

TEST(SigV4, the_signing_key_cache_follows_a_changed_secret) {
  SigningKeyCache cache;
  const auto first = cache.get("a", "secret one", "20130524", "us-east-1");
  EXPECT_EQ(first, derive_signing_key("secret one", "20130524", "us-east-1", "s3"));
  EXPECT_EQ(cache.get("a", "secret one", "20130524", "us-east-1"), first);
  EXPECT_EQ(cache.get("a", "secret two", "20130524", "us-east-1"), derive_signing_key("secret two", "20130524", "us-east-1", "s3"));
}

}  // namespace
}  // namespace quarry::auth
