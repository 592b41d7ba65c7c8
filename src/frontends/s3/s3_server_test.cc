// Requests through the whole front end over memory: who may do what, how things are addressed, and each operation once.
#include "frontends/s3/testing/fake_exchange.h"
#include "observe/usage.h"

namespace quarry::frontends::s3 {
namespace {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct S3 : testing::Test {
  S3Harness s3;
  void SetUp() override { ASSERT_EQ(s3.put("/bucket", "").status, 200); }
};

TEST_F(S3, put_get_head_delete) {
  const Answer put =
      s3.put("/bucket/a/b", "hello", {{"Content-Type", "text/plain"}, {"x-amz-meta-Color", "blue"}, {"x-amz-tagging", "k=v"}});
  ASSERT_EQ(put.status, 200) << put.body;
  EXPECT_EQ(put.header("ETag"), "\"5d41402abc4b2a76b9719d911017c592\"");
  EXPECT_EQ(put.header("x-amz-checksum-crc64nvme"), "M3eFcAZSQlc=");

  const Answer got = s3.get("/bucket/a/b", {}, {{"x-amz-checksum-mode", "ENABLED"}});
  EXPECT_EQ(got.status, 200);
  EXPECT_EQ(got.body, "hello");
  EXPECT_EQ(got.content_length, 5u);
  EXPECT_EQ(got.header("Content-Type"), "text/plain");
  EXPECT_EQ(got.header("x-amz-meta-color"), "blue");
  EXPECT_EQ(got.header("x-amz-tagging-count"), "1");
  EXPECT_EQ(got.header("x-amz-checksum-crc64nvme"), "M3eFcAZSQlc=");
  EXPECT_FALSE(got.header("x-amz-request-id").empty());

  const Answer head = s3.ask({.method = "HEAD", .path = "/bucket/a/b"});
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.content_length, 5u);
  EXPECT_EQ(head.body, "");

  EXPECT_EQ(s3.remove("/bucket/a/b").status, 204);
  EXPECT_EQ(s3.remove("/bucket/a/b").status, 204);  // what is not there can be deleted
  EXPECT_EQ(s3.get("/bucket/a/b").code(), "NoSuchKey");
  EXPECT_EQ(s3.store.violations(), std::vector<std::string>());
}

TEST_F(S3, object_lock_is_refused_while_nothing_keeps_it) {
  const Answer refused = s3.put("/locked", "", {{"x-amz-bucket-object-lock-enabled", "true"}});
  EXPECT_EQ(refused.code(), "NotImplemented");
  EXPECT_EQ(refused.element("Header"), "x-amz-bucket-object-lock-enabled");
  EXPECT_EQ(s3.get("/locked").code(), "NoSuchBucket");
  EXPECT_EQ(s3.put("/plain", "", {{"x-amz-bucket-object-lock-enabled", "false"}}).status, 200);
}

TEST_F(S3, usage_is_counted_for_whom_a_request_names) {
  const Headers job = {{"x-quarry-attribution", "team=vision;job=s3-usage-test;rank=3"}};
  EXPECT_EQ(s3.put("/bucket/k", "hello", job).status, 200);
  EXPECT_EQ(s3.get("/bucket/k", {}, job).status, 200);
  EXPECT_EQ(s3.get("/bucket/none", {}, job).status, 404);
  const auto rows = usage();
  const auto row = std::ranges::find_if(rows, [](const UsageRow& r) { return r.attribution.job == "s3-usage-test"; });
  ASSERT_NE(row, rows.end());
  EXPECT_EQ(row->user, "admin");
  EXPECT_EQ(row->attribution.team, "vision");
  const auto of = [&](UsageKind kind) { return row->counts[static_cast<size_t>(kind)]; };
  EXPECT_EQ(of(UsageKind::write).requests, 1u);
  EXPECT_EQ(of(UsageKind::write).bytes_in, 5u);
  EXPECT_EQ(of(UsageKind::read).requests, 2u);
  EXPECT_EQ(of(UsageKind::read).errors, 1u);
  EXPECT_GE(of(UsageKind::read).bytes_out, 5u);
}

TEST_F(S3, ranges_and_conditions_on_reads) {
  const std::string etag = s3.put("/bucket/k", "0123456789").header("ETag");
  const Answer part = s3.get("/bucket/k", {}, {{"Range", "bytes=2-4"}});
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, "234");
  EXPECT_EQ(part.header("Content-Range"), "bytes 2-4/10");
  const Answer beyond = s3.get("/bucket/k", {}, {{"Range", "bytes=10-"}});
  EXPECT_EQ(beyond.status, 416);
  EXPECT_EQ(beyond.code(), "InvalidRange");
  EXPECT_EQ(s3.get("/bucket/k", {}, {{"If-None-Match", etag}}).status, 304);
  EXPECT_EQ(s3.get("/bucket/k", {}, {{"If-Match", "\"other\""}}).status, 412);
  EXPECT_EQ(s3.get("/bucket/k", "response-content-type=text%2Fx").header("Content-Type"), "text/x");
}

TEST_F(S3, conditions_on_writes) {
  EXPECT_EQ(s3.put("/bucket/k", "1", {{"If-None-Match", "*"}}).status, 200);
  EXPECT_EQ(s3.put("/bucket/k", "2", {{"If-None-Match", "*"}}).code(), "PreconditionFailed");
  const std::string etag = s3.get("/bucket/k").header("ETag");
  EXPECT_EQ(s3.put("/bucket/k", "3", {{"If-Match", etag}}).status, 200);
  EXPECT_EQ(s3.put("/bucket/k", "4", {{"If-Match", etag}}).code(), "PreconditionFailed");
  EXPECT_EQ(s3.put("/bucket/none", "5", {{"If-Match", etag}}).code(), "NoSuchKey");
  EXPECT_EQ(s3.put("/bucket/k", "6", {{"If-None-Match", etag}}).code(), "NotImplemented");
  EXPECT_EQ(s3.get("/bucket/k").body, "3");
}

TEST_F(S3, digests_that_do_not_match_publish_nothing) {
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"Content-MD5", "XrY7u+Ae7tCTyyK7j1rNww=="}}).code(), "BadDigest");
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"Content-MD5", "nonsense"}}).code(), "InvalidDigest");
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-checksum-crc32", "AAAAAA=="}}).code(), "BadDigest");
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-checksum-crc32", "AA=="}}).code(), "InvalidRequest");
  EXPECT_EQ(s3.ask({.method = "PUT", .path = "/bucket/k", .body = "x", .payload_hash = std::string(auth::kEmptySha256)}).code(),
            "XAmzContentSHA256Mismatch");
  EXPECT_EQ(s3.get("/bucket/k").code(), "NoSuchKey");
  EXPECT_EQ(s3.store.violations(), std::vector<std::string>());
}

TEST_F(S3, a_client_that_vanishes_leaves_nothing) {
  for (const size_t size : {size_t{100}, size_t{200'000}, size_t{3'000'000}}) {
    const Answer answer = s3.ask({.method = "PUT",
                                  .path = "/bucket/k",
                                  .body = std::string(size, 'x'),
                                  .payload_hash = "UNSIGNED-PAYLOAD",
                                  .content_length = size + 1'000'000,
                                  .body_failure = Code::connection_closed});
    EXPECT_EQ(answer.code(), "IncompleteBody");
    EXPECT_EQ(s3.get("/bucket/k").code(), "NoSuchKey");
  }
  EXPECT_EQ(s3.store.violations(), std::vector<std::string>());
}

TEST_F(S3, trailing_checksums_of_unsigned_chunks) {
  const Headers headers = {
      {"x-amz-decoded-content-length", "5"}, {"x-amz-trailer", "x-amz-checksum-crc64nvme"}, {"Content-Encoding", "aws-chunked,gzip"}};
  const auto put = [&](std::string trailer) {
    return s3.ask({.method = "PUT",
                   .path = "/bucket/k",
                   .body = "5\r\nhello\r\n0\r\nx-amz-checksum-crc64nvme:" + trailer + "\r\n\r\n",
                   .headers = headers,
                   .payload_hash = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"});
  };
  EXPECT_EQ(put("QFRKMGE3tuw=").code(), "BadDigest");
  EXPECT_EQ(put("M3eFcAZSQlc=").status, 200);
  EXPECT_EQ(s3.get("/bucket/k").body, "hello");
  EXPECT_EQ(s3.get("/bucket/k").header("Content-Encoding"), "gzip");
}

TEST_F(S3, large_bodies_arrive_whole_in_every_framing) {
  std::string body(2'500'000, '\0');
  for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 2654435761u >> 24);
  EXPECT_EQ(s3.put("/bucket/plain", body).status, 200);
  EXPECT_EQ(s3.get("/bucket/plain").body, body);
  std::string chunked;
  for (size_t at = 0; at < body.size(); at += 70'000) {
    const std::string_view chunk = std::string_view(body).substr(at, 70'000);
    chunked += fmt::format("{:x}\r\n{}\r\n", chunk.size(), chunk);
  }
  chunked += "0\r\n\r\n";
  EXPECT_EQ(s3.ask({.method = "PUT",
                    .path = "/bucket/chunked",
                    .body = chunked,
                    .headers = {{"x-amz-decoded-content-length", std::to_string(body.size())}},
                    .payload_hash = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"})
                .status,
            200);
  EXPECT_EQ(s3.get("/bucket/chunked").body, body);
}

TEST_F(S3, virtual_host_style_addresses_the_same_objects) {
  S3Options options;
  options.virtual_hosts = {"s3.example.org"};
  S3Harness hosted(options);
  ASSERT_EQ(hosted.ask({.method = "PUT", .path = "/", .host = "my-bucket.s3.example.org"}).status, 200);
  ASSERT_EQ(hosted.ask({.method = "PUT", .path = "/a/b", .body = "x", .host = "my-bucket.s3.example.org:9000"}).status, 200);
  EXPECT_EQ(hosted.ask({.path = "/a/b", .host = "My-Bucket.S3.Example.org"}).body, "x");
  EXPECT_EQ(hosted.ask({.path = "/my-bucket/a/b", .host = "s3.example.org"}).body, "x");
  EXPECT_EQ(hosted.ask({.path = "/my-bucket/a/b", .host = "127.0.0.1:9000"}).body, "x");
  EXPECT_EQ(hosted.ask({.path = "/a/b", .host = "my-bucket.localhost:9000"}).body, "x");
  EXPECT_EQ(hosted.ask({.path = "/my-bucket/a/b", .host = "localhost:9000"}).body, "x");
}

TEST_F(S3, users_have_their_own_buckets_and_nobody_elses) {
  const auto as = [&](std::string who, std::string method, std::string path, std::string body = {}) {
    return s3.ask({.method = std::move(method),
                   .path = std::move(path),
                   .body = std::move(body),
                   .access_key = who + "-access",
                   .secret_key = who + "-secret-key"});
  };
  ASSERT_EQ(as("alice", "PUT", "/alices").status, 200);
  EXPECT_EQ(as("alice", "PUT", "/alices/k", "v").status, 200);
  EXPECT_EQ(as("bob", "GET", "/alices/k").code(), "AccessDenied");
  EXPECT_EQ(as("bob", "PUT", "/alices/k", "w").code(), "AccessDenied");
  EXPECT_EQ(as("bob", "DELETE", "/alices").code(), "AccessDenied");
  EXPECT_EQ(as("bob", "PUT", "/alices").code(), "BucketAlreadyExists");
  EXPECT_EQ(as("alice", "PUT", "/alices").status, 200);
  EXPECT_EQ(as("admin", "GET", "/alices/k").body, "v");
  EXPECT_EQ(as("bob", "GET", "/").body.find("alices"), std::string::npos);
  EXPECT_NE(as("alice", "GET", "/").body.find("alices"), std::string::npos);
  EXPECT_EQ(s3.ask({.path = "/alices/k", .anonymous = true}).code(), "AccessDenied");
  // A copy reads its source with the same eyes.
  ASSERT_EQ(as("bob", "PUT", "/bobs").status, 200);
  EXPECT_EQ(s3.ask({.method = "PUT",
                    .path = "/bobs/k",
                    .headers = {{"x-amz-copy-source", "/alices/k"}},
                    .access_key = "bob-access",
                    .secret_key = "bob-secret-key"})
                .code(),
            "AccessDenied");
}

TEST_F(S3, authentication_errors) {
  EXPECT_EQ(s3.ask({.path = "/bucket", .access_key = "nobody"}).code(), "InvalidAccessKeyId");
  EXPECT_EQ(s3.ask({.path = "/bucket", .secret_key = "wrong-secret"}).code(), "SignatureDoesNotMatch");
  EXPECT_TRUE(s3.store.executor.run(s3.identities->set_key_enabled("alice-access", false)));
  EXPECT_EQ(s3.ask({.path = "/", .access_key = "alice-access", .secret_key = "alice-secret-key"}).code(), "InvalidAccessKeyId");
  const Ask plain;
  const std::string query = auth::presign_query({plain.access_key, plain.secret_key, "us-east-1"}, {"GET", plain.host, "/bucket", ""}, {},
                                                60, s3.store.clock.wall_now());
  EXPECT_EQ(s3.ask({.path = "/bucket", .raw_query_only = query}).status, 200);
  s3.store.clock.advance(61'000'000'000);
  EXPECT_EQ(s3.ask({.path = "/bucket", .raw_query_only = query}).code(), "AccessDenied");
}

TEST_F(S3, listings_page_and_group) {
  for (const std::string key : {"a", "b/1", "b/2", "c", "d%20e"}) ASSERT_EQ(s3.put("/bucket/" + key, "x").status, 200);
  const Answer first = s3.get("/bucket", "list-type=2&delimiter=%2F&max-keys=2");
  EXPECT_EQ(first.element("KeyCount"), "2");
  EXPECT_EQ(first.element("IsTruncated"), "true");
  EXPECT_NE(first.body.find("<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>"), std::string::npos) << first.body;
  const Answer second = s3.get(
      "/bucket", "list-type=2&delimiter=%2F&max-keys=2&continuation-token=" + percent_encode(first.element("NextContinuationToken")));
  EXPECT_EQ(second.element("IsTruncated"), "false");
  EXPECT_NE(second.body.find("<Key>d e</Key>"), std::string::npos) << second.body;
  EXPECT_NE(s3.get("/bucket", "encoding-type=url").body.find("<Key>d+e</Key>"), std::string::npos);
  EXPECT_EQ(s3.get("/bucket", "max-keys=-1").code(), "InvalidArgument");
  EXPECT_EQ(s3.get("/bucket", "max-keys=0").element("IsTruncated"), "false");
  EXPECT_EQ(s3.get("/nowhere", "list-type=2").code(), "NoSuchBucket");
}

TEST_F(S3, versions_and_markers) {
  ASSERT_EQ(s3.ask({.method = "PUT",
                    .path = "/bucket",
                    .query = "versioning=",
                    .body = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"})
                .status,
            200);
  EXPECT_EQ(s3.get("/bucket", "versioning=").element("Status"), "Enabled");
  const std::string one = s3.put("/bucket/k", "1").header("x-amz-version-id");
  const std::string two = s3.put("/bucket/k", "2").header("x-amz-version-id");
  EXPECT_NE(one, two);
  EXPECT_EQ(s3.get("/bucket/k", "versionId=" + one).body, "1");
  const Answer deleted = s3.remove("/bucket/k");
  EXPECT_EQ(deleted.header("x-amz-delete-marker"), "true");
  const Answer gone = s3.get("/bucket/k");
  EXPECT_EQ(gone.status, 404);
  EXPECT_EQ(gone.header("x-amz-delete-marker"), "true");
  EXPECT_EQ(s3.get("/bucket/k", "versionId=" + deleted.header("x-amz-version-id")).status, 405);
  const Answer listed = s3.get("/bucket", "versions=");
  EXPECT_NE(listed.body.find("<DeleteMarker>"), std::string::npos);
  EXPECT_EQ(s3.remove("/bucket/k", "versionId=" + deleted.header("x-amz-version-id")).status, 204);
  EXPECT_EQ(s3.get("/bucket/k").body, "2");
  EXPECT_EQ(s3.get("/bucket/k", "versionId=no_id").code(), "InvalidArgument");
}

TEST_F(S3, multi_delete_answers_for_each_key) {
  for (const std::string key : {"a", "b"}) ASSERT_EQ(s3.put("/bucket/" + key, "x").status, 200);
  const std::string document =
      "<Delete><Object><Key>a</Key></Object><Object><Key>none</Key></Object><Object><Key>b</Key><ETag>\"other\"</ETag></Object></Delete>";
  EXPECT_EQ(s3.post("/bucket", "delete=", document).code(), "InvalidRequest");  // no digest
  const Answer answer = s3.post("/bucket", "delete=", document, {{"Content-MD5", to_base64(md5(bytes_of(document)))}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  const auto root = parse_xml(answer.body);
  ASSERT_TRUE(root);
  EXPECT_EQ(root->count("Deleted"), 2u);
  EXPECT_EQ(root->count("Error"), 1u);
  EXPECT_EQ(s3.get("/bucket/b").body, "x");
  EXPECT_EQ(s3.get("/bucket/a").code(), "NoSuchKey");
  std::string many = "<Delete>";
  for (int i = 0; i < 1001; ++i) many += "<Object><Key>x</Key></Object>";
  many += "</Delete>";
  EXPECT_EQ(s3.post("/bucket", "delete=", many, {{"Content-MD5", to_base64(md5(bytes_of(many)))}}).code(), "MalformedXML");
}

TEST_F(S3, copies_keep_or_replace) {
  ASSERT_EQ(s3.put("/bucket/src", "data", {{"x-amz-meta-a", "1"}, {"x-amz-tagging", "t=1"}, {"Content-Type", "text/plain"}}).status, 200);
  const Answer copied = s3.put("/bucket/dst", "", {{"x-amz-copy-source", "bucket/src"}});
  ASSERT_EQ(copied.status, 200) << copied.body;
  EXPECT_FALSE(copied.element("ETag").empty());
  const Answer kept = s3.get("/bucket/dst");
  EXPECT_EQ(kept.body, "data");
  EXPECT_EQ(kept.header("x-amz-meta-a"), "1");
  EXPECT_EQ(kept.header("x-amz-tagging-count"), "1");
  ASSERT_EQ(s3.put("/bucket/dst", "", {{"x-amz-copy-source", "bucket/src"}, {"x-amz-metadata-directive", "REPLACE"}, {"x-amz-meta-b", "2"}})
                .status,
            200);
  EXPECT_EQ(s3.get("/bucket/dst").header("x-amz-meta-a"), "");
  EXPECT_EQ(s3.get("/bucket/dst").header("x-amz-meta-b"), "2");
  EXPECT_EQ(s3.put("/bucket/src", "", {{"x-amz-copy-source", "bucket/src"}}).code(), "InvalidRequest");
  EXPECT_EQ(s3.put("/bucket/dst", "", {{"x-amz-copy-source", "bucket/none"}}).code(), "NoSuchKey");
  EXPECT_EQ(s3.put("/bucket/dst", "", {{"x-amz-copy-source", "bucket/src"}, {"x-amz-copy-source-if-match", "\"no\""}}).code(),
            "PreconditionFailed");
  EXPECT_EQ(s3.put("/bucket", "", {{"x-amz-copy-source", "bucket/src"}}).status, 200);
}

TEST_F(S3, multipart_upload_from_creation_to_object) {
  const Answer created =
      s3.post("/bucket/big", "uploads=", "", {{"x-amz-checksum-algorithm", "CRC32"}, {"x-amz-checksum-type", "FULL_OBJECT"}});
  const std::string upload = created.element("UploadId");
  ASSERT_FALSE(upload.empty()) << created.body;
  const std::string one(5 << 20, 'a'), two = "tail";
  const auto part = [&](int number, const std::string& body) {
    return s3.ask(
        {.method = "PUT", .path = "/bucket/big", .query = fmt::format("partNumber={}&uploadId={}", number, upload), .body = body});
  };
  const Answer first = part(1, one), second = part(2, two);
  ASSERT_EQ(first.status, 200) << first.body;
  EXPECT_EQ(s3.get("/bucket/big", "uploadId=" + upload).body.find("<PartNumber>2</PartNumber>") == std::string::npos, false);
  EXPECT_NE(s3.get("/bucket", "uploads=").body.find(upload), std::string::npos);
  EXPECT_EQ(part(0, two).code(), "InvalidArgument");
  const auto complete = [&](std::string parts) {
    return s3.post("/bucket/big", "uploadId=" + upload, "<CompleteMultipartUpload>" + parts + "</CompleteMultipartUpload>");
  };
  const auto listed = [](int number, const std::string& etag) {
    return fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", number, etag);
  };
  EXPECT_EQ(complete(listed(2, second.header("ETag")) + listed(1, first.header("ETag"))).code(), "InvalidPartOrder");
  EXPECT_EQ(complete(listed(1, "\"0000\"")).code(), "InvalidPart");
  EXPECT_EQ(complete("").code(), "MalformedXML");
  const Answer done = complete(listed(1, first.header("ETag")) + listed(2, second.header("ETag")));
  ASSERT_EQ(done.status, 200) << done.body;
  EXPECT_TRUE(done.element("ETag").ends_with("-2\"")) << done.body;
  EXPECT_EQ(done.element("ChecksumType"), "FULL_OBJECT");
  const Answer whole = s3.get("/bucket/big");
  EXPECT_EQ(whole.body, one + two);
  const Answer second_part = s3.get("/bucket/big", "partNumber=2");
  EXPECT_EQ(second_part.status, 206);
  EXPECT_EQ(second_part.body, two);
  EXPECT_EQ(second_part.header("x-amz-mp-parts-count"), "2");
  EXPECT_EQ(s3.get("/bucket/big", "partNumber=3").status, 416);
  const Answer attributes = s3.get("/bucket/big", "attributes=", {{"x-amz-object-attributes", "ETag,ObjectSize,ObjectParts,Checksum"}});
  EXPECT_EQ(attributes.element("ObjectSize"), std::to_string(one.size() + two.size()));
  EXPECT_EQ(s3.post("/bucket/big", "uploadId=" + std::string(32, '0'),
                    "<CompleteMultipartUpload>" + listed(1, "\"x\"") + "</CompleteMultipartUpload>")
                .code(),
            "NoSuchUpload");
  EXPECT_EQ(s3.store.violations(), std::vector<std::string>());
}

TEST_F(S3, upload_parts_can_be_copied_and_uploads_aborted) {
  ASSERT_EQ(s3.put("/bucket/src", "0123456789").status, 200);
  const std::string upload = s3.post("/bucket/k", "uploads=", "").element("UploadId");
  const std::string query = "partNumber=1&uploadId=" + upload;
  const Answer copied = s3.ask({.method = "PUT",
                                .path = "/bucket/k",
                                .query = query,
                                .headers = {{"x-amz-copy-source", "bucket/src"}, {"x-amz-copy-source-range", "bytes=2-4"}}});
  ASSERT_EQ(copied.status, 200) << copied.body;
  EXPECT_EQ(copied.element("ETag"), fmt::format("\"{}\"", to_hex(md5(bytes_of("234")))));
  EXPECT_EQ(s3.ask({.method = "PUT",
                    .path = "/bucket/k",
                    .query = query,
                    .headers = {{"x-amz-copy-source", "bucket/src"}, {"x-amz-copy-source-range", "bytes=2-10"}}})
                .code(),
            "InvalidArgument");
  EXPECT_EQ(s3.remove("/bucket/k", "uploadId=" + upload).status, 204);
  EXPECT_EQ(s3.remove("/bucket/k", "uploadId=" + upload).code(), "NoSuchUpload");
  EXPECT_EQ(s3.store.violations(), std::vector<std::string>());
}

TEST_F(S3, bucket_settings) {
  EXPECT_EQ(s3.get("/bucket", "location=").status, 200);
  EXPECT_EQ(s3.get("/bucket", "tagging=").code(), "NoSuchTagSet");
  ASSERT_EQ(s3.ask({.method = "PUT",
                    .path = "/bucket",
                    .query = "tagging=",
                    .body = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"})
                .status,
            204);
  EXPECT_NE(s3.get("/bucket", "tagging=").body.find("<Key>a</Key>"), std::string::npos);
  EXPECT_EQ(s3.remove("/bucket", "tagging=").status, 204);
  EXPECT_NE(s3.get("/bucket", "acl=").body.find("FULL_CONTROL"), std::string::npos);
  EXPECT_EQ(s3.ask({.method = "HEAD", .path = "/bucket"}).header("x-amz-bucket-region"), "us-east-1");
  const std::pair<std::string, std::string> probes[] = {{"policy", "NoSuchBucketPolicy"},
                                                        {"cors", "NoSuchCORSConfiguration"},
                                                        {"lifecycle", "NoSuchLifecycleConfiguration"},
                                                        {"encryption", "ServerSideEncryptionConfigurationNotFoundError"},
                                                        {"object-lock", "ObjectLockConfigurationNotFoundError"},
                                                        {"replication", "ReplicationConfigurationNotFoundError"},
                                                        {"website", "NoSuchWebsiteConfiguration"}};
  for (const auto& [query, code] : probes) {
    EXPECT_EQ(s3.get("/bucket", query + "=").code(), code);
    EXPECT_EQ(s3.ask({.method = "PUT", .path = "/bucket", .query = query + "=", .body = "<x/>"}).code(), "NotImplemented");
    EXPECT_EQ(s3.get("/nowhere", query + "=").code(), "NoSuchBucket");
  }
  ASSERT_EQ(s3.put("/bucket/k", "x").status, 200);
  EXPECT_EQ(s3.remove("/bucket").code(), "BucketNotEmpty");
  EXPECT_EQ(s3.remove("/bucket/k").status, 204);
  EXPECT_EQ(s3.remove("/bucket").status, 204);
  EXPECT_EQ(s3.put("/Bad_Name", "").code(), "InvalidBucketName");
}

TEST_F(S3, object_tagging) {
  ASSERT_EQ(s3.put("/bucket/k", "x").status, 200);
  ASSERT_EQ(s3.ask({.method = "PUT",
                    .path = "/bucket/k",
                    .query = "tagging=",
                    .body = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"})
                .status,
            200);
  EXPECT_NE(s3.get("/bucket/k", "tagging=").body.find("<Value>b</Value>"), std::string::npos);
  EXPECT_EQ(s3.remove("/bucket/k", "tagging=").status, 204);
  EXPECT_EQ(s3.get("/bucket/k", "tagging=").body.find("<Tag>"), std::string::npos);
  EXPECT_EQ(s3.ask({.method = "PUT", .path = "/bucket/k", .query = "tagging=", .body = "<Tagging><broken"}).code(), "MalformedXML");
}

TEST_F(S3, bad_input_gets_s3s_answers) {
  EXPECT_EQ(s3.get("/bucket/%zz").code(), "InvalidURI");
  EXPECT_EQ(s3.put("/bucket/" + std::string(1025, 'k'), "x").code(), "KeyTooLongError");
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-meta-big", std::string(2100, 'm')}}).code(), "MetadataTooLarge");
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-meta-big", std::string(9000, 'm')}}).code(), "RequestHeaderSectionTooLarge");
  EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-server-side-encryption", "AES256"}}).code(), "NotImplemented");
  EXPECT_EQ(s3.put("/bucket/..%2F..%2Fx", "x").status, 400);
  EXPECT_EQ(s3.ask({.method = "PATCH", .path = "/bucket/k"}).code(), "MethodNotAllowed");
  EXPECT_EQ(s3.ask({.method = "PUT", .path = "/bucket", .query = "tagging=", .body = std::string(5 << 20, 'x')}).code(),
            "MaxMessageLengthExceeded");
  EXPECT_EQ(s3.ask({.method = "PUT", .path = "/bucket/k", .payload_hash = "UNSIGNED-PAYLOAD", .content_length = 6ull << 30}).code(),
            "EntityTooLarge");
}

}  // namespace
}  // namespace quarry::frontends::s3
