// What a query asks for and the table does not know runs nothing: neither the plain operation, nor that of another method.
#include "frontends/s3/routes.h"

#include <map>
#include <set>

#include "frontends/s3/testing/fake_exchange.h"

namespace quarry::frontends::s3 {
namespace {

struct S3Routes : testing::Test {
  S3Harness s3;
  void SetUp() override {
    ASSERT_EQ(s3.put("/bucket", "").status, 200);
    ASSERT_EQ(s3.put("/bucket/key", "content").status, 200);
    ASSERT_EQ(s3.put("/empty", "").status, 200);
  }
  Answer ask(const std::string& method, const std::string& path, const std::string& query) {
    return s3.ask({.method = method, .path = path, .query = query, .body = method == "PUT" || method == "POST" ? "<x/>" : ""});
  }
  // Everything is as SetUp left it.
  void expect_unchanged(const std::string& what) {
    EXPECT_EQ(s3.get("/bucket/key").body, "content") << what;
    EXPECT_EQ(s3.get("/bucket", "list-type=2").element("KeyCount"), "1") << what;
    EXPECT_EQ(s3.ask({.method = "HEAD", .path = "/empty"}).status, 200) << what;
  }
};

TEST_F(S3Routes, names_that_no_operation_knows_change_nothing) {
  for (const std::string query : {"annotation=", "annotation=&annotationName=n", "abac=", "metadataConfiguration=", "nextYear",
                                  "nextYear=1", "tagginG=", "x=y", "Acl="}) {
    for (const std::string path : {"/bucket/key", "/bucket", "/empty", "/new-bucket", "/bucket/new"}) {
      for (const std::string method : {"PUT", "POST", "DELETE"}) {
        const Answer answer = ask(method, path, query);
        EXPECT_TRUE(answer.status == 501 || answer.status == 405) << method << " " << path << "?" << query << " " << answer.body;
      }
    }
    expect_unchanged(query);
  }
  for (const std::string query : {"abac=", "abac", "nextYear"}) {
    EXPECT_EQ(s3.get("/bucket", query).status, 501) << query;
    EXPECT_GE(s3.get("/bucket/key", query).status, 405) << query;
  }
}

TEST_F(S3Routes, a_sub_resource_of_another_method_runs_nothing) {
  // All that select an operation somewhere, on every method and at every place.
  std::set<std::string> names;
  for (const auto& operation : operations()) {
    if (!operation.query.empty()) names.emplace(operation.query);
  }
  EXPECT_GT(names.size(), 40u);
  for (const auto& name : names) {
    for (const auto& [scope, path] : std::map<Scope, std::string>{{Scope::bucket, "/empty"}, {Scope::object, "/bucket/key"}}) {
      for (const std::string method : {"PUT", "POST", "DELETE", "GET", "HEAD"}) {
        const auto mine = std::ranges::find_if(operations(), [&, here = scope](const Operation& operation) {
          return operation.method == method && operation.scope == here && operation.query == name;
        });
        if (mine != operations().end()) continue;
        if (scope == Scope::object && name == "partNumber" && (method == "GET" || method == "HEAD")) continue;  // a part of it is read
        const Answer answer = ask(method, path, name + "=");
        EXPECT_GE(answer.status, 400) << method << " " << path << "?" << name;
        EXPECT_NE(answer.status, 404) << method << " " << path << "?" << name;
      }
    }
    expect_unchanged(name);
  }
}

TEST_F(S3Routes, two_sub_resources_at_once_run_neither) {
  EXPECT_EQ(ask("DELETE", "/bucket/key", "tagging=&uploadId=x").status, 405);
  EXPECT_EQ(ask("DELETE", "/empty", "tagging=&policy=").status, 405);
  EXPECT_EQ(s3.get("/bucket", "versions=&uploads=").status, 405);
  expect_unchanged("");
}

TEST_F(S3Routes, what_belongs_to_a_request_passes) {
  EXPECT_EQ(ask("PUT", "/bucket/other", "x-id=PutObject").status, 200);
  EXPECT_EQ(ask("DELETE", "/bucket/other", "x-id=DeleteObject&versionId=null").status, 204);
  EXPECT_EQ(ask("PUT", "/bucket/key", "versionId=null").code(), "InvalidArgument");
  EXPECT_EQ(ask("DELETE", "/bucket/key", "versionId=null&nextYear=").status, 501);
  EXPECT_EQ(s3.get("/bucket/key", "v=20&response-expires=").body, "content");  // AWS lets readers add what they like
  EXPECT_EQ(s3.get("/bucket", "prefix=&delimiter=&marker=&encoding-type=&max-keys=").status, 200);
  EXPECT_EQ(s3.get("/bucket", "list-type=2&start-after=&fetch-owner=&continuation-token=&x-id=ListObjectsV2").status, 200);
  EXPECT_EQ(s3.get("/bucket", "versions&key-marker=&version-id-marker=").status, 200);
  EXPECT_EQ(s3.get("/bucket", "uploads&key-marker=&upload-id-marker=&max-uploads=").status, 200);
  const std::string upload = s3.post("/bucket/big", "uploads&x-id=CreateMultipartUpload", "").element("UploadId");
  EXPECT_EQ(ask("PUT", "/bucket/big", "partNumber=1&uploadId=" + upload + "&x-id=UploadPart").status, 200);
  EXPECT_EQ(s3.get("/bucket/big", "uploadId=" + upload + "&max-parts=&part-number-marker=").status, 200);
  EXPECT_EQ(ask("DELETE", "/bucket/big", "uploadId=" + upload + "&x-id=AbortMultipartUpload").status, 204);
  expect_unchanged("");
}

TEST_F(S3Routes, refusals_name_what_is_not_there) {
  EXPECT_EQ(ask("PUT", "/bucket", "lifecycle=").element("Message"), "PUT of ?lifecycle is not implemented.");
  EXPECT_EQ(ask("PUT", "/bucket/key", "annotation=").element("SubResource"), "annotation");
  EXPECT_EQ(ask("PUT", "/bucket/key", "nextYear=").element("QueryParameter"), "nextYear");
  EXPECT_EQ(ask("DELETE", "/bucket/key", "acl=").code(), "MethodNotAllowed");
}

}  // namespace
}  // namespace quarry::frontends::s3
