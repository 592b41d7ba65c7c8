// Browser form uploads through the whole front end: who may, what a policy allows, what is answered, and that a refused form leaves
// nothing.
#include "frontends/s3/testing/fake_exchange.h"

namespace quarry::frontends::s3 {
namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

struct FormAsk {
  std::string conditions;  // further ones: `,["eq", "$x", "y"]`
  Fields fields;           // further ones; a value for a signed field replaces it, "-" leaves it out
  std::string file = "hello";
  std::string filename = "photo.jpg";
  std::string key = "album/photo";
  std::string user = "alice";
  std::string policy;  // whole, instead of the made one
  std::string after_file;
  std::optional<Code> body_failure;
  int64_t expires_in = 600;
};

struct PostObject : testing::Test {
  S3Harness s3;
  void SetUp() override {
    const Answer made = s3.ask({.method = "PUT", .path = "/bucket", .access_key = "alice-access", .secret_key = "alice-secret-key"});
    ASSERT_EQ(made.status, 200);
  }

  Answer send(const FormAsk& ask) {
    const WallTime now = s3.store.clock.wall_now();
    const std::string timestamp = auth::amz_timestamp(now);
    const std::string date = timestamp.substr(0, 8);
    const std::string scope = ask.user + "-access/" + date + "/us-east-1/s3/aws4_request";
    const std::string until = auth::amz_timestamp(now + ask.expires_in * 1'000'000'000);
    const std::string iso = until.substr(0, 4) + "-" + until.substr(4, 2) + "-" + until.substr(6, 2) + "T" + until.substr(9, 2) + ":" +
                            until.substr(11, 2) + ":" + until.substr(13, 2) + "Z";
    std::string policy = ask.policy;
    if (policy.empty()) {
      policy = fmt::format(R"({{"expiration": "{}", "conditions": [{{"bucket": "bucket"}}, ["starts-with", "$key", "album/"],)"
                           R"({{"x-amz-algorithm": "AWS4-HMAC-SHA256"}}, {{"X-Amz-Credential": "{}"}}, {{"x-amz-date": "{}"}}{}]}})",
                           iso, scope, timestamp, ask.conditions);
    }
    policy = to_base64(bytes_of(policy));
    const auto key = auth::derive_signing_key(ask.user + "-secret-key", date, "us-east-1", "s3");
    Fields fields = {{"key", ask.key},
                     {"x-amz-algorithm", "AWS4-HMAC-SHA256"},
                     {"X-Amz-Credential", scope},
                     {"x-amz-date", timestamp},
                     {"Policy", policy},
                     {"x-amz-signature", to_hex(hmac_sha256(key, policy))}};
    for (const auto& [name, value] : ask.fields) {
      const auto same = std::ranges::find_if(fields, [&](const auto& field) { return equal_ignoring_case(field.first, name); });
      if (same == fields.end()) {
        fields.emplace_back(name, value);
      } else if (value == "-") {
        fields.erase(same);
      } else {
        same->second = value;
      }
    }
    std::string body;
    for (const auto& [name, value] : fields) {
      body += fmt::format("--form\r\nContent-Disposition: form-data; name=\"{}\"\r\n\r\n{}\r\n", name, value);
    }
    body += fmt::format("--form\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\nContent-Type: image/jpeg\r\n\r\n{}",
                        ask.filename, ask.file);
    if (!ask.body_failure) body += "\r\n--form" + (ask.after_file.empty() ? "--\r\n" : ask.after_file);
    return s3.ask({.method = "POST",
                   .path = "/bucket",
                   .body = std::move(body),
                   .headers = {{"Content-Type", "multipart/form-data; boundary=form"}},
                   .anonymous = true,
                   .body_failure = ask.body_failure});
  }
};

TEST_F(PostObject, uploads_what_the_policy_allows) {
  const Answer answer = send({.conditions = R"(,["eq", "$Content-Type", "text/plain"], ["starts-with", "$x-amz-meta-color", "b"],
                                              ["starts-with", "$tagging", ""], ["content-length-range", 5, 5], {"x-amz-checksum-crc32": "NhCmhg=="})",
                              .fields = {{"content-type", "text/plain"},
                                         {"x-amz-meta-color", "blue"},
                                         {"tagging", "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"},
                                         {"x-ignore-me", "yes"},
                                         {"x-amz-checksum-crc32", "NhCmhg=="}}});
  ASSERT_EQ(answer.status, 204) << answer.body;
  EXPECT_EQ(answer.header("ETag"), "\"5d41402abc4b2a76b9719d911017c592\"");
  EXPECT_EQ(answer.header("Location"), "http://127.0.0.1:9000/bucket/album/photo");
  const Answer got = s3.get("/bucket/album/photo", {}, {{"x-amz-checksum-mode", "ENABLED"}});
  EXPECT_EQ(got.body, "hello");
  EXPECT_EQ(got.header("Content-Type"), "text/plain");
  EXPECT_EQ(got.header("x-amz-meta-color"), "blue");
  EXPECT_EQ(got.header("x-amz-tagging-count"), "1");
  EXPECT_EQ(got.header("x-amz-checksum-crc32"), "NhCmhg==");
}

TEST_F(PostObject, takes_files_of_every_size_around_its_buffers) {
  for (const size_t size : {0ul, 1ul, 100'000ul, 1'048'575ul, 1'048'576ul, 1'048'577ul, 3'500'001ul}) {
    std::string file(size, '\0');
    for (size_t i = 0; i < size; ++i) file[i] = static_cast<char>(i * 2654435761u >> 23);
    if (size > 20) file.replace(size / 2, 9, "\r\n--for\r\n");
    EXPECT_EQ(send({.file = file, .after_file = "--tail that nobody reads"}).status, 204) << size;
    EXPECT_EQ(s3.get("/bucket/album/photo").body, file) << size;
  }
}

TEST_F(PostObject, answers_as_the_form_wishes) {
  const std::string any = R"(,["starts-with", "$success_action_status", ""], ["starts-with", "$success_action_redirect", ""])";
  EXPECT_EQ(send({.conditions = any, .fields = {{"success_action_status", "200"}, {"success_action_redirect", ""}}}).status, 200);
  const Answer made = send({.conditions = any, .fields = {{"success_action_status", "201"}, {"success_action_redirect", "no url"}}});
  EXPECT_EQ(made.status, 201);
  EXPECT_EQ(made.element("Key"), "album/photo");
  EXPECT_EQ(made.element("Bucket"), "bucket");
  EXPECT_EQ(made.element("ETag"), made.header("ETag"));
  EXPECT_EQ(send({.conditions = any, .fields = {{"success_action_status", "404"}, {"success_action_redirect", ""}}}).status, 204);
  const Answer there =
      send({.conditions = any, .fields = {{"success_action_status", "200"}, {"success_action_redirect", "http://example.org/done?a=b"}}});
  EXPECT_EQ(there.status, 303);
  EXPECT_EQ(there.header("Location"),
            "http://example.org/done?a=b&bucket=bucket&key=album%2Fphoto&etag=%225d41402abc4b2a76b9719d911017c592%22");
}

TEST_F(PostObject, the_key_may_come_from_the_file_name) {
  EXPECT_EQ(send({.filename = "C:\\pictures\\cat.png", .key = "album/${filename}"}).status, 204);
  EXPECT_EQ(s3.get("/bucket/album/cat.png").body, "hello");
  EXPECT_EQ(send({.filename = "../../etc/passwd", .key = "album/${filename}"}).status, 204);
  EXPECT_EQ(s3.get("/bucket/album/passwd").body, "hello");
}

TEST_F(PostObject, refuses_what_the_policy_does_not_allow_and_keeps_nothing) {
  struct {
    FormAsk ask;
    std::string code, message;
  } const cases[] = {
      {{.key = "other"}, "AccessDenied", R"(Invalid according to Policy: Policy Condition failed: ["starts-with","$key","album/"])"},
      {{.fields = {{"x-amz-meta-a", "b"}}}, "AccessDenied", "Invalid according to Policy: Extra input fields: x-amz-meta-a"},
      {{.expires_in = -1}, "AccessDenied", "Invalid according to Policy: Policy expired."},
      {{.conditions = R"(,{"acl": "private"})"},
       "AccessDenied",
       R"(Invalid according to Policy: Policy Condition failed: ["eq", "$acl", "private"])"},
      {{.conditions = R"(,["content-length-range", 0, 4])"}, "EntityTooLarge", ""},
      {{.conditions = R"(,["content-length-range", "6", "9"])"}, "EntityTooSmall", ""},
      {{.conditions = R"(,["content-length-range", 0, 2000000])", .file = std::string(2'000'001, 'x')}, "EntityTooLarge", ""},
      {{.conditions = R"(,["content-length-range", -1, 9])"}, "InvalidPolicyDocument", "Invalid Policy: Invalid JSON."},
      {{.conditions = R"(,["near", "$key", "a"])"},
       "InvalidPolicyDocument",
       "Invalid Policy: Invalid Condition: unknown operation 'near'."},
      {{.conditions = R"(,["eq", "$key"])"}, "InvalidPolicyDocument", "Invalid Policy: Invalid eq: wrong number of arguments."},
      {{.policy = R"({"conditions": []})"}, "InvalidPolicyDocument", "Invalid Policy: Policy missing expiration."},
      {{.policy = R"({"expiration": "2099-01-01T00:00:00Z"})"}, "InvalidPolicyDocument", "Invalid Policy: Policy missing conditions."},
      {{.policy = R"({"expiration": "2099-01-01T00:00:00Z", "CONDITIONS": []})"},
       "InvalidPolicyDocument",
       "Invalid Policy: Unexpected: \"CONDITIONS\""},
      {{.policy = R"({"expiration": "2099-01-01T00:00:00Z", "conditions": []})"}, "AccessDenied", ""},
      {{.fields = {{"x-amz-signature", "00"}}}, "SignatureDoesNotMatch", ""},
      {{.fields = {{"x-amz-signature", "-"}}}, "InvalidArgument", ""},
      {{.fields = {{"key", "-"}}}, "InvalidArgument", ""},
      {{.fields = {{"x-amz-algorithm", "AWS4-HMAC-SHA1"}}}, "InvalidArgument", "Only AWS4-HMAC-SHA256 is supported"},
      {{.fields = {{"x-amz-date", "yesterday"}}}, "InvalidArgument", ""},
      {{.fields = {{"AWSAccessKeyId", "alice-access"}, {"signature", "x"}}}, "InvalidRequest", ""},
      {{.user = "bob"}, "AccessDenied", "Access Denied."},
      {{.user = "nobody"}, "InvalidAccessKeyId", ""},
      {{.key = "album/../../x"}, "400", ""},
      {{.key = "album/" + std::string(1100, 'k')}, "KeyTooLongError", ""},
      {{.conditions = R"(,["starts-with", "$tagging", ""])", .fields = {{"tagging", "rubbish"}}}, "MalformedXML", ""},
      {{.conditions = R"(,["starts-with", "$x-amz-checksum-crc32", ""])", .fields = {{"x-amz-checksum-crc32", "AAAAAA=="}}},
       "BadDigest",
       ""},
      {{.conditions = R"(,["starts-with", "$x-amz-server-side-encryption", ""])", .fields = {{"x-amz-server-side-encryption", "AES256"}}},
       "NotImplemented",
       ""},
      {{.fields = {{"x-ignore-big", std::string(30'000, 'x')}}}, "MaxPostPreDataLengthExceeded", ""},
      {{.after_file = "xx"}, "MalformedPOSTRequest", ""},
      {{.file = std::string(2'000'000, 'x'), .body_failure = Code::connection_closed}, "IncompleteBody", ""},
  };
  for (size_t i = 0; i < std::size(cases); ++i) {
    const Answer answer = send(cases[i].ask);
    EXPECT_EQ(answer.code(), cases[i].code) << i << answer.body;
    if (!cases[i].message.empty()) EXPECT_EQ(answer.element("Message"), cases[i].message) << i;
    EXPECT_EQ(s3.get("/bucket/album/photo").code(), "NoSuchKey") << i;
  }
  EXPECT_EQ(s3.store.violations(), std::vector<std::string>());
}

TEST_F(PostObject, refuses_other_bodies) {
  const auto post = [&](std::string type, std::string body) {
    return s3.ask(
        {.method = "POST", .path = "/bucket", .body = std::move(body), .headers = {{"Content-Type", std::move(type)}}, .anonymous = true});
  };
  const Answer json = post("application/json", "{}");
  EXPECT_EQ(json.status, 412);
  EXPECT_EQ(json.element("Condition"), "Bucket POST must be of the enclosure-type multipart/form-data");
  EXPECT_EQ(post("multipart/form-data", "x").code(), "MalformedPOSTRequest");
  EXPECT_EQ(post("multipart/form-data; boundary=b", "x").code(), "MalformedPOSTRequest");
  EXPECT_EQ(post("multipart/form-data; boundary=b", "").code(), "MalformedPOSTRequest");
  EXPECT_EQ(post("multipart/form-data; boundary=b", "--b--").code(), "IncorrectNumberOfFilesInPostRequest");
  EXPECT_EQ(post("multipart/form-data; boundary=b",
                 "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--b\r\n"
                 "Content-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b--")
                .code(),
            "AccessDenied");
  const Answer is_signed = s3.post("/bucket", "", "--b--", {{"Content-Type", "multipart/form-data; boundary=b"}});
  EXPECT_EQ(is_signed.code(), "InvalidArgument");
}

}  // namespace
}  // namespace quarry::frontends::s3
