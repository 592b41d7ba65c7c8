#include "client/s3_client.h"

#include <gtest/gtest.h>

#include "client/testing/scripted_server.h"

namespace quarry::client {
namespace {

class S3ClientTest : public ::testing::Test {
 protected:
  S3ClientTest() : s3_(server_.http(), {.url = server_.url(), .credentials = {"AKID", "secret"}, .region = "eu-north-7"}, system_clock()) {}
  Code code_of(int status, std::string_view s3_code) {
    server_.say({.status = status, .body = fmt::format("<Error><Code>{}</Code><Message>why</Message></Error>", s3_code)});
    const auto removed = server_.run(s3_.remove("b", "k"));
    return removed ? Code::internal : removed.error().code();
  }
  ScriptedServer server_;
  S3Client s3_;
};

TEST_F(S3ClientTest, names_and_queries_are_encoded_once_and_signed) {
  server_.say({.status = 204, .body = ""});
  ASSERT_TRUE(server_.run(s3_.remove("bucket", "a b/ä+?", "v&1")));
  ASSERT_EQ(server_.seen.size(), 1u);
  EXPECT_EQ(server_.seen[0].query, "versionId=v%261");
  EXPECT_EQ(server_.seen[0].path, "/bucket/a%20b/%C3%A4%2B%3F");
  EXPECT_NE(server_.seen[0].header("authorization").find("/eu-north-7/s3/aws4_request"), std::string::npos);
}

TEST_F(S3ClientTest, errors_of_any_server_become_codes) {
  EXPECT_EQ(code_of(404, "NoSuchKey"), Code::not_found);
  EXPECT_EQ(code_of(404, "NoSuchUpload"), Code::not_found);
  EXPECT_EQ(code_of(409, "BucketAlreadyOwnedByYou"), Code::already_exists);
  EXPECT_EQ(code_of(409, "BucketNotEmpty"), Code::not_empty);
  EXPECT_EQ(code_of(409, "OperationAborted"), Code::busy);
  EXPECT_EQ(code_of(400, "BadDigest"), Code::checksum_mismatch);
  EXPECT_EQ(code_of(400, "EntityTooSmall"), Code::invalid_argument);
  EXPECT_EQ(code_of(403, "SignatureDoesNotMatch"), Code::permission_denied);
  EXPECT_EQ(code_of(412, "PreconditionFailed"), Code::precondition_failed);
  EXPECT_EQ(code_of(416, "InvalidRange"), Code::out_of_range);
  EXPECT_EQ(code_of(503, "SlowDown"), Code::unavailable);
  EXPECT_EQ(code_of(507, "InsufficientStorage"), Code::no_space);
  EXPECT_EQ(code_of(500, "InternalError"), Code::internal);
}

TEST_F(S3ClientTest, an_error_without_a_document_still_says_what_was_asked) {
  server_.say({.status = 502, .body = "<html>"});
  const auto broken = server_.run(s3_.remove("b", "k"));
  ASSERT_FALSE(broken);
  EXPECT_NE(broken.error().context().find("DELETE b/k: HTTP 502"), std::string::npos) << broken.error().context();
  server_.say({.status = 404, .body = ""});
  const auto head = server_.run(s3_.head("b", "k"));
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().code(), Code::not_found);
}

TEST_F(S3ClientTest, a_copy_that_fails_after_200_has_failed) {
  server_.say({.status = 200, .body = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>too late</Message></Error>"});
  const auto copied = server_.run(s3_.copy("a", "k", "b", "k"));
  ASSERT_FALSE(copied);
  EXPECT_NE(copied.error().context().find("too late"), std::string::npos);
}

TEST_F(S3ClientTest, parts_are_listed_over_all_pages) {
  const auto page = [](std::string_view parts, std::string_view end) {
    return ScriptedServer::Answer{.body = fmt::format("<ListPartsResult>{}{}</ListPartsResult>", parts, end)};
  };
  server_.say(page("<Part><PartNumber>1</PartNumber><Size>5</Size><ETag>\"e1\"</ETag></Part>",
                   "<IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>"));
  server_.say(page("<Part><PartNumber>7</PartNumber><Size>6</Size><ETag>e7</ETag></Part>", "<IsTruncated>false</IsTruncated>"));
  const auto parts = server_.run(s3_.list_parts("b", "k", "id"));
  ASSERT_TRUE(parts) << parts.error().to_string();
  ASSERT_EQ(parts->size(), 2u);
  EXPECT_EQ((*parts)[0].etag, "e1");
  EXPECT_EQ((*parts)[1].number, 7u);
  EXPECT_EQ((*parts)[1].etag, "e7");
  EXPECT_NE(server_.seen[1].query.find("part-number-marker=1"), std::string::npos);
}

TEST_F(S3ClientTest, a_list_of_parts_that_never_ends_is_an_error) {
  for (int i = 0; i < 10; ++i) {
    server_.say(
        {.body = "<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>3</NextPartNumberMarker></ListPartsResult>"});
  }
  const auto parts = server_.run(s3_.list_parts("b", "k", "id"));
  ASSERT_FALSE(parts);
  EXPECT_EQ(parts.error().code(), Code::malformed);
  EXPECT_EQ(server_.seen.size(), 2u);
}

TEST_F(S3ClientTest, objects_that_could_not_be_removed_are_told_one_by_one) {
  server_.say({.body = "<DeleteResult><Error><Key>k1</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"});
  const auto errors = server_.run(s3_.remove_many("b", {{"k1"}, {"k<2>", "v"}}));
  ASSERT_TRUE(errors) << errors.error().to_string();
  EXPECT_EQ(*errors, std::vector<std::string>{"k1: AccessDenied no"});
  EXPECT_NE(server_.seen[0].body.find("k&lt;2&gt;"), std::string::npos) << server_.seen[0].body;
  EXPECT_FALSE(server_.seen[0].header("x-amz-checksum-crc64nvme").empty());
}

TEST_F(S3ClientTest, an_upload_without_a_name_is_refused) {
  server_.say({.body = "<InitiateMultipartUploadResult/>"});
  const auto upload = server_.run(s3_.create_upload("b", "k", ""));
  ASSERT_FALSE(upload);
  EXPECT_EQ(upload.error().code(), Code::malformed);
}

}  // namespace
}  // namespace quarry::client
