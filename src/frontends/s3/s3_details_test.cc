// What answers say, and which words of a request count, where it is easy to be nearly right.
#include "frontends/s3/testing/fake_exchange.h"
#include "wire/uri.h"

namespace quarry::frontends::s3 {
namespace {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct S3Details : testing::Test {
  S3Harness s3;
  void SetUp() override { ASSERT_EQ(s3.put("/bucket", "").status, 200); }

  Answer presigned(std::string method, std::string path, std::string query, std::string body = {}) {
    const Ask plain;
    Ask ask{.method = method, .path = path, .body = std::move(body)};
    ask.raw_query_only = auth::presign_query({plain.access_key, plain.secret_key, "us-east-1"}, {method, plain.host, path, query}, {}, 60,
                                             s3.store.clock.wall_now());
    return s3.ask(std::move(ask));
  }
  // An object of the given parts; numbers as they come.
  void upload(const std::string& path, const std::vector<std::pair<int, std::string>>& parts, Headers headers = {}) {
    const bool composite = std::ranges::any_of(headers, [](const auto& header) { return header.second == "COMPOSITE"; });
    const std::string id = s3.post(path, "uploads=", "", std::move(headers)).element("UploadId");
    std::string list;
    for (const auto& [number, body] : parts) {
      Headers sent;
      const std::string sum = to_base64(sha256(bytes_of(body)));
      if (composite) sent.emplace_back("x-amz-checksum-sha256", sum);
      const Answer part = s3.ask({.method = "PUT",
                                  .path = path,
                                  .query = fmt::format("partNumber={}&uploadId={}", number, id),
                                  .body = body,
                                  .headers = std::move(sent)});
      ASSERT_EQ(part.status, 200) << part.body;
      list += fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag>{}</Part>", number, part.header("ETag"),
                          composite ? "<ChecksumSHA256>" + sum + "</ChecksumSHA256>" : "");
    }
    const Answer done = s3.post(path, "uploadId=" + id, "<CompleteMultipartUpload>" + list + "</CompleteMultipartUpload>");
    ASSERT_EQ(done.status, 200) << done.body;
    ASSERT_EQ(done.code(), "") << done.body;
  }
};

TEST_F(S3Details, a_resumed_download_never_mixes_two_versions) {
  const std::string first = s3.put("/bucket/k", "0123456789").header("ETag");
  const Answer old = s3.get("/bucket/k");
  const auto resume = [&](std::string validator) {
    return s3.get("/bucket/k", {}, {{"Range", "bytes=5-"}, {"If-Range", std::move(validator)}});
  };
  EXPECT_EQ(resume(first).status, 206);
  EXPECT_EQ(resume(first).body, "56789");
  EXPECT_EQ(resume(old.header("Last-Modified")).body, "56789");
  s3.store.clock.advance(5'000'000'000);
  ASSERT_EQ(s3.put("/bucket/k", "abcdefghij").status, 200);
  for (const std::string& validator :
       {first, "W/" + first, old.header("Last-Modified"), std::string("\"none\""), std::string("nonsense")}) {
    const Answer whole = resume(validator);
    EXPECT_EQ(whole.status, 200) << validator;
    EXPECT_EQ(whole.body, "abcdefghij") << validator;
    EXPECT_EQ(whole.header("Content-Range"), "") << validator;
  }
  EXPECT_EQ(resume("W/" + s3.get("/bucket/k").header("ETag")).status, 200);  // RFC 9110 13.1.5: weak validators never match
  EXPECT_EQ(s3.ask({.method = "HEAD", .path = "/bucket/k", .headers = {{"Range", "bytes=5-"}, {"If-Range", first}}}).content_length, 10u);
}

TEST_F(S3Details, headers_in_the_query_of_a_presigned_url_apply) {
  const Answer put =
      presigned("PUT", "/bucket/k", "x-amz-meta-color=bl%C3%BCe&x-amz-storage-class=STANDARD_IA&x-amz-tagging=a%3Db%26c%3Dd", "x");
  ASSERT_EQ(put.status, 200) << put.body;
  const Answer got = s3.get("/bucket/k");
  EXPECT_EQ(got.header("x-amz-meta-color"), "=?UTF-8?Q?bl=C3=BCe?=");
  EXPECT_EQ(got.header("x-amz-storage-class"), "STANDARD_IA");
  EXPECT_EQ(got.header("x-amz-tagging-count"), "2");
  // Checksums there are not looked at: the JavaScript SDK presigns that of an empty body.
  EXPECT_EQ(presigned("PUT", "/bucket/k", "x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32", "y").status, 200);
  EXPECT_EQ(s3.get("/bucket/k").body, "y");
  // What must not be dropped is not dropped.
  EXPECT_EQ(presigned("PUT", "/bucket/k", "x-amz-server-side-encryption-customer-key=a2V5", "z").code(), "NotImplemented");
  ASSERT_EQ(presigned("PUT", "/bucket/copy", "x-amz-copy-source=bucket%2Fk").status, 200);
  EXPECT_EQ(s3.get("/bucket/copy").body, "y");
  EXPECT_EQ(presigned("GET", "/bucket/k", "attributes=&x-amz-object-attributes=ObjectSize").element("ObjectSize"), "1");
  EXPECT_EQ(
      s3.ask({.method = "PUT", .path = "/bucket/k", .query = "x-amz-meta-a=query", .body = "y", .headers = {{"x-amz-meta-a", "header"}}})
          .status,
      200);
  EXPECT_EQ(s3.get("/bucket/k").header("x-amz-meta-a"), "header");
}

TEST_F(S3Details, an_empty_part_has_no_range) {
  ASSERT_EQ(s3.put("/bucket/empty", "").status, 200);
  upload("/bucket/empty-part", {{1, ""}});
  upload("/bucket/empty-end", {{1, std::string(5 << 20, 'a')}, {2, ""}});
  for (const std::string path : {"/bucket/empty", "/bucket/empty-part"}) {
    const Answer part = s3.get(path, "partNumber=1");
    EXPECT_EQ(part.status, 200) << path;
    EXPECT_EQ(part.header("Content-Range"), "") << path;
    EXPECT_EQ(part.content_length, 0u) << path;
  }
  const Answer end = s3.get("/bucket/empty-end", "partNumber=2");
  EXPECT_EQ(end.header("Content-Range"), "");
  EXPECT_EQ(end.content_length, 0u);
  EXPECT_EQ(end.header("x-amz-mp-parts-count"), "2");
}

TEST_F(S3Details, parts_are_numbered_by_their_place_everywhere) {
  const std::string one(5 << 20, 'a'), two = "tail";
  upload("/bucket/k", {{1, one}, {3, two}}, {{"x-amz-checksum-algorithm", "SHA256"}, {"x-amz-checksum-type", "COMPOSITE"}});
  EXPECT_EQ(s3.get("/bucket/k", "partNumber=2").body, two);
  EXPECT_EQ(s3.ask({.method = "HEAD", .path = "/bucket/k", .query = "partNumber=2"}).content_length, two.size());
  EXPECT_EQ(s3.get("/bucket/k", "partNumber=3").status, 416);
  const auto attributes = [&](Headers headers) {
    headers.emplace_back("x-amz-object-attributes", "ObjectParts");
    return s3.get("/bucket/k", "attributes=", std::move(headers)).body;
  };
  EXPECT_NE(attributes({}).find("<PartNumber>2</PartNumber><Size>4</Size>"), std::string::npos) << attributes({});
  EXPECT_EQ(attributes({}).find("<PartNumber>3</PartNumber>"), std::string::npos);
  const std::string first_page = attributes({{"x-amz-max-parts", "1"}});
  EXPECT_NE(first_page.find("<NextPartNumberMarker>1</NextPartNumberMarker><MaxParts>1</MaxParts><IsTruncated>true"), std::string::npos)
      << first_page;
  const std::string second_page = attributes({{"x-amz-part-number-marker", "1"}});
  EXPECT_NE(second_page.find("<PartNumber>2</PartNumber>"), std::string::npos) << second_page;
  EXPECT_NE(second_page.find("<IsTruncated>false"), std::string::npos) << second_page;
  EXPECT_NE(attributes({{"x-amz-part-number-marker", "9"}}).find("<IsTruncated>false"), std::string::npos);
}

TEST_F(S3Details, checksums_of_parts_are_told_as_aws_tells_them) {
  const std::string one(5 << 20, 'a'), two = "tail";
  const Headers mode = {{"x-amz-checksum-mode", "ENABLED"}};
  upload("/bucket/composite", {{1, one}, {2, two}}, {{"x-amz-checksum-algorithm", "SHA256"}, {"x-amz-checksum-type", "COMPOSITE"}});
  const Answer part = s3.get("/bucket/composite", "partNumber=2", mode);
  EXPECT_EQ(part.header("x-amz-checksum-sha256"), to_base64(sha256(bytes_of(two))));
  EXPECT_EQ(part.header("x-amz-checksum-type"), "COMPOSITE");
  const std::string whole = s3.get("/bucket/composite", {}, mode).header("x-amz-checksum-sha256");
  ASSERT_TRUE(whole.ends_with("-2")) << whole;
  const std::string attributes = s3.get("/bucket/composite", "attributes=", {{"x-amz-object-attributes", "Checksum,ObjectParts"}}).body;
  EXPECT_NE(attributes.find("<ChecksumSHA256>" + whole.substr(0, whole.size() - 2) + "</ChecksumSHA256>"), std::string::npos) << attributes;
  EXPECT_EQ(attributes.find("-2</Checksum"), std::string::npos) << attributes;
  EXPECT_NE(attributes.find(to_base64(sha256(bytes_of(two)))), std::string::npos) << attributes;

  upload("/bucket/full", {{1, one}, {2, two}}, {{"x-amz-checksum-algorithm", "CRC32"}, {"x-amz-checksum-type", "FULL_OBJECT"}});
  const Answer of_full = s3.get("/bucket/full", "partNumber=2", mode);
  EXPECT_EQ(of_full.status, 206);
  EXPECT_EQ(of_full.header("x-amz-checksum-crc32"), "");
  EXPECT_EQ(of_full.header("x-amz-checksum-type"), "");
  const std::string full = s3.get("/bucket/full", "attributes=", {{"x-amz-object-attributes", "ObjectParts"}}).body;
  EXPECT_EQ(full.find("<ChecksumCRC32>"), std::string::npos) << full;
  upload("/bucket/single", {{1, two}}, {{"x-amz-checksum-algorithm", "CRC32"}, {"x-amz-checksum-type", "FULL_OBJECT"}});
  EXPECT_EQ(s3.get("/bucket/single", "partNumber=1", mode).header("x-amz-checksum-type"), "FULL_OBJECT");
}

TEST_F(S3Details, copy_sources_come_in_every_encoding) {
  ASSERT_EQ(s3.put("/bucket/a%20b%2Bc/d", "spaced").status, 200);
  for (const std::string source : {"/bucket/a%20b%2Bc/d", "bucket/a+b%2Bc/d", "bucket%2Fa+b%2Bc%2Fd", "%2Fbucket%2Fa%20b%2Bc%2Fd",
                                   "bucket/a b%2bc/d", "bucket/a+b%2Bc/d?versionId=null"}) {
    EXPECT_EQ(s3.put("/bucket/copy", "", {{"x-amz-copy-source", source}}).status, 200) << source;
    EXPECT_EQ(s3.get("/bucket/copy").body, "spaced") << source;
    EXPECT_EQ(s3.remove("/bucket/copy").status, 204);
  }
}

TEST_F(S3Details, errors_of_a_bucket_tell_its_region) {
  EXPECT_EQ(s3.ask({.method = "HEAD", .path = "/bucket/none"}).header("x-amz-bucket-region"), "us-east-1");
  HeaderBlock headers;
  const Ask plain;
  auth::sign_request({plain.access_key, plain.secret_key, "eu-west-1"}, {"HEAD", plain.host, "/bucket", ""}, headers, auth::kEmptySha256,
                     s3.store.clock.wall_now());
  Headers sent;
  for (size_t i = 0; i < headers.size(); ++i) sent.emplace_back(headers.at(i).name, headers.at(i).value);
  const Answer wrong = s3.ask({.method = "HEAD", .path = "/bucket", .headers = sent, .anonymous = true});
  EXPECT_EQ(wrong.status, 400);
  EXPECT_EQ(wrong.header("x-amz-bucket-region"), "us-east-1");
  const std::string query = auth::presign_query({plain.access_key, plain.secret_key, "eu-west-1"}, {"GET", plain.host, "/bucket/k", ""}, {},
                                                60, s3.store.clock.wall_now());
  const Answer presigned_wrong = s3.ask({.path = "/bucket/k", .raw_query_only = query});
  EXPECT_EQ(presigned_wrong.element("Region"), "us-east-1");
  EXPECT_EQ(presigned_wrong.header("x-amz-bucket-region"), "us-east-1");
  EXPECT_EQ(s3.get("/nowhere").header("x-amz-bucket-region"), "");
}

TEST_F(S3Details, values_that_headers_cannot_carry_are_refused_or_encoded) {
  ASSERT_EQ(
      s3.put("/bucket/k", "x", {{"x-amz-meta-name", "caf\xc3\xa9"}, {"Content-Disposition", "attachment; filename=\"\xc3\xa9\""}}).status,
      200);
  const Answer got = s3.get("/bucket/k", "response-content-language=caf%C3%A9");
  EXPECT_EQ(got.header("Content-Language"), "caf\xe9");  // ISO-8859-1
  EXPECT_EQ(got.header("x-amz-meta-name"), "=?UTF-8?Q?caf=C3=A9?=");
  EXPECT_EQ(got.header("Content-Disposition"), "attachment; filename=\"\xc3\xa9\"");  // bytes of a header, as they came
  for (const std::string name :
       {"content-type", "content-language", "expires", "cache-control", "content-disposition", "content-encoding"}) {
    const Answer refused = s3.get("/bucket/k", "response-" + name + "=%E6%97%A5");
    EXPECT_EQ(refused.code(), "InvalidArgument") << name;
    EXPECT_EQ(refused.element("ArgumentName"), "response-" + name);
  }
}

TEST_F(S3Details, header_values_return_as_they_came) {
  const Headers sent = {{"Content-Encoding", "gzip , br;q=0.5"},
                        {"Cache-Control", "no-cache,  max-age=0"},
                        {"Expires", "whenever"},
                        {"Content-Language", "de,en"},
                        {"Content-Type", "Text/HTML; Charset=UTF-8"}};
  ASSERT_EQ(s3.put("/bucket/k", "x", sent).status, 200);
  const Answer got = s3.get("/bucket/k");
  for (const auto& [name, value] : sent) EXPECT_EQ(got.header(name), value);
}

TEST_F(S3Details, what_would_be_promised_is_refused) {
  for (const std::string name :
       {"x-amz-server-side-encryption", "x-amz-server-side-encryption-customer-key", "x-amz-server-side-encryption-customer-key-MD5",
        "x-amz-server-side-encryption-context", "x-amz-server-side-encryption-aws-kms-key-id"}) {
    const Answer refused = s3.put("/bucket/secret", "plain", {{name, "value"}});
    EXPECT_EQ(refused.code(), "NotImplemented") << name;
    EXPECT_NE(refused.element("Message").find("server-side encryption"), std::string::npos) << refused.body;
    EXPECT_EQ(s3.post("/bucket/secret", "uploads=", "", {{name, "value"}}).code(), "NotImplemented") << name;
    EXPECT_EQ(s3.get("/bucket/secret").code(), "NoSuchKey");
  }
  EXPECT_EQ(
      s3.put("/bucket/secret", "", {{"x-amz-copy-source", "bucket/k"}, {"x-amz-copy-source-server-side-encryption-customer-key", "k"}})
          .code(),
      "NotImplemented");
  const std::string upload = s3.post("/bucket/big", "uploads=", "").element("UploadId");
  EXPECT_EQ(s3.ask({.method = "PUT",
                    .path = "/bucket/big",
                    .query = "partNumber=1&uploadId=" + upload,
                    .body = "plain",
                    .headers = {{"x-amz-server-side-encryption-customer-key", "k"}}})
                .code(),
            "NotImplemented");
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-object-lock-event-hold", "ON"}}).code(), "InvalidRequest");
  ASSERT_EQ(s3.put("/bucket/k", "x").status, 200);
  EXPECT_EQ(s3.get("/bucket/k", {}, {{"x-amz-server-side-encryption-customer-key", "k"}}).code(), "InvalidRequest");
}

TEST_F(S3Details, conditions_that_cannot_be_read_are_not_left_out) {
  ASSERT_EQ(s3.put("/bucket/k", "1").status, 200);
  EXPECT_EQ(s3.put("/bucket/k", "2", {{"If-Match", "*"}}).code(), "NotImplemented");
  EXPECT_EQ(s3.put("/bucket/k", "2", {{"If-Match", "\"\""}}).code(), "PreconditionFailed");
  EXPECT_EQ(s3.put("/bucket/k", "2", {{"If-Match", ""}}).code(), "PreconditionFailed");
  const auto remove = [&](std::string name, std::string value) {
    return s3.ask({.method = "DELETE", .path = "/bucket/k", .headers = {{std::move(name), std::move(value)}}});
  };
  EXPECT_EQ(remove("If-Match", "").code(), "PreconditionFailed");
  EXPECT_EQ(remove("x-amz-if-match-size", "one").code(), "InvalidArgument");
  EXPECT_EQ(remove("x-amz-if-match-last-modified-time", "yesterday").code(), "InvalidArgument");
  EXPECT_EQ(remove("x-amz-if-match-last-modified-time", "Mon, 01 Jan 9999 00:00:00 GMT").status, 412);
  EXPECT_EQ(s3.get("/bucket/k").body, "1");
}

TEST_F(S3Details, system_tags_are_nobodys_to_set) {
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-tagging", "aws:a=b"}}).code(), "InvalidTag");
  EXPECT_EQ(s3.ask({.method = "PUT",
                    .path = "/bucket",
                    .query = "tagging=",
                    .body = "<Tagging><TagSet><Tag><Key>AWS:x</Key><Value>b</Value></Tag></TagSet></Tagging>"})
                .code(),
            "InvalidTag");
  std::string long_name;  // lengths are of characters
  for (int i = 0; i < 128; ++i) long_name += "%E6%97%A5";
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-tagging", long_name + "=v"}}).status, 200);
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-tagging", long_name + "a=v"}}).code(), "InvalidTag");
}

TEST_F(S3Details, anonymous_requests_learn_which_buckets_are_not_there) {
  EXPECT_EQ(s3.ask({.path = "/nowhere/k", .anonymous = true}).code(), "NoSuchBucket");
  EXPECT_EQ(s3.ask({.path = "/bucket/k", .anonymous = true}).code(), "AccessDenied");
}

TEST_F(S3Details, ones_own_bucket_can_be_made_again_in_the_oldest_region) {
  ASSERT_EQ(s3.put("/bucket/k", "x").status, 200);
  EXPECT_EQ(s3.put("/bucket", "").status, 200);
  EXPECT_EQ(s3.get("/bucket/k").body, "x");
  const std::string tags = "<CreateBucketConfiguration><Tags><Tag><Key>a</Key><Value>b</Value></Tag></Tags></CreateBucketConfiguration>";
  EXPECT_EQ(s3.put("/bucket", tags).code(), "BucketAlreadyOwnedByYou");
  EXPECT_EQ(s3.ask({.method = "PUT", .path = "/bucket", .access_key = "bob-access", .secret_key = "bob-secret-key"}).code(),
            "BucketAlreadyExists");
}

TEST_F(S3Details, owners_have_one_name_everywhere) {
  ASSERT_EQ(s3.put("/bucket/k", "x").status, 200);
  const std::string upload = s3.post("/bucket/big", "uploads=", "").element("UploadId");
  const std::pair<std::string, std::string> places[] = {{"/", ""},
                                                        {"/bucket", ""},
                                                        {"/bucket", "list-type=2&fetch-owner=true"},
                                                        {"/bucket", "versions="},
                                                        {"/bucket", "uploads="},
                                                        {"/bucket", "acl="},
                                                        {"/bucket/k", "acl="},
                                                        {"/bucket/big", "uploadId=" + upload}};
  for (const auto& [path, query] : places) {
    const std::string body = s3.get(path, query).body;
    size_t names = 0;
    for (size_t at = 0; (at = body.find("<DisplayName>", at)) != std::string::npos; ++at, ++names) {
      EXPECT_EQ(body.substr(at, 26), "<DisplayName>admin</Displa") << path << query << body;
    }
    EXPECT_GT(names, 0u) << path << query << body;
  }
}

TEST_F(S3Details, version_two_signatures_are_told_what_to_set) {
  const Answer query = s3.ask({.path = "/bucket/k", .raw_query_only = "AWSAccessKeyId=a&Signature=b&Expires=1"});
  EXPECT_EQ(query.code(), "InvalidRequest");
  EXPECT_NE(query.element("Hint").find("s3v4"), std::string::npos) << query.body;
  const std::tuple<std::string, std::string, std::string> schemes[] = {
      {"AWS key:signature", "InvalidRequest", "Please use AWS4-HMAC-SHA256"},
      {"Basic dTpw", "InvalidArgument", "Unsupported Authorization Type"},
      {"Bearer token", "InvalidArgument", "Unsupported Authorization Type"}};
  for (const auto& [authorization, code, message] : schemes) {  // no date: none of them has to send one
    const Answer answer = s3.ask({.path = "/bucket/k", .headers = {{"Authorization", authorization}}, .anonymous = true});
    EXPECT_EQ(answer.code(), code) << authorization;
    EXPECT_NE(answer.element("Message").find(message), std::string::npos) << answer.body;
  }
}

}  // namespace
}  // namespace quarry::frontends::s3
