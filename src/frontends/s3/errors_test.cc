// The error table: every code of Quarry has an answer, and the answers are S3's.
#include "frontends/s3/errors.h"

#include <gtest/gtest.h>

namespace quarry::frontends::s3 {
namespace {

TEST(S3Errors, every_code_of_quarry_has_an_answer_of_its_class) {
  constexpr Code kAll[] = {
#define X(name, number, cls, text) Code::name,
      QUARRY_ERROR_CODES(X)
#undef X
  };
  for (const Code code : kAll) {
    const S3Error error = to_s3_error(Error(code, "context"), {.bucket = "b", .key = "k"});
    EXPECT_FALSE(error.code().empty()) << code_name(code);
    EXPECT_FALSE(error.message().empty()) << code_name(code);
    EXPECT_GE(error.status(), 400) << code_name(code);
    switch (code_class(code)) {
      case ErrorClass::corrupt:
      case ErrorClass::unknown_outcome: EXPECT_EQ(error.status(), 500) << code_name(code); break;
      default: break;
    }
  }
}

TEST(S3Errors, internal_text_never_reaches_the_client) {
  for (const Code code : {Code::io_error, Code::corrupt, Code::internal, Code::misconfigured, Code::device_gone, Code::data_lost}) {
    const S3Error error = to_s3_error(Error(code, "drive 3 at /dev/secret"), {});
    EXPECT_EQ(error_document(error, "/b", "1", "2").find("secret"), std::string::npos) << code_name(code);
  }
}

TEST(S3Errors, what_is_missing_is_named) {
  const auto code = [](const char* context, ErrorSubject subject) {
    return std::string(to_s3_error(Error(Code::not_found, context), subject).code());
  };
  EXPECT_EQ(code("bucket 'b'", {.bucket = "b", .key = "k"}), "NoSuchBucket");
  EXPECT_EQ(code("key 'k'", {.bucket = "b", .key = "k"}), "NoSuchKey");
  EXPECT_EQ(code("delete marker 3", {.bucket = "b", .key = "k"}), "NoSuchKey");
  EXPECT_EQ(code("upload 'u'", {.bucket = "b", .key = "k", .upload_id = "u"}), "NoSuchUpload");
  EXPECT_EQ(code("version 'v' of key 'k'", {.bucket = "b", .key = "k", .version_id = "v"}), "NoSuchVersion");
}

TEST(S3Errors, a_document_is_escaped) {
  const std::string document = error_document(S3Error(E::no_such_key).detail("Key", "a<b>&\x01"), "/b/a<b>", "ID", "HOST");
  EXPECT_NE(document.find("<Key>a&lt;b&gt;&amp;&#x1;</Key>"), std::string::npos) << document;
  EXPECT_NE(document.find("<RequestId>ID</RequestId>"), std::string::npos);
}

TEST(S3Errors, refusals_of_signatures_are_in_the_table) {
  for (const std::string_view code : {"AccessDenied", "AuthorizationHeaderMalformed", "AuthorizationQueryParametersError",
                                      "InvalidArgument", "InvalidRequest", "InvalidToken", "NotImplemented", "RequestTimeTooSkewed",
                                      "SignatureDoesNotMatch", "IncompleteBody", "MalformedTrailerError", "InvalidChunkSizeError"}) {
    EXPECT_EQ(S3Error(auth::Refusal{code, "m", {}}).code(), code);
  }
}

}  // namespace
}  // namespace quarry::frontends::s3
