#include "client/admin_client.h"

#include <gtest/gtest.h>

#include "client/testing/scripted_server.h"

namespace quarry::client {
namespace {

class AdminClientTest : public ::testing::Test {
 protected:
  Result<std::string> call(std::string method, std::string path, std::string body = {}) {
    AdminClient client(server_.http(), server_.url(), {"AKID", "secret"}, "eu-north-7", system_clock());
    return server_.run(client.call(std::move(method), std::move(path), std::move(body)));
  }
  Error error_of(ScriptedServer::Answer answer) {
    server_.say(std::move(answer));
    auto result = call("GET", "/v1/drives");
    if (result) return Error(Code::internal, "no error but: " + *result);
    return std::move(result).error();
  }
  ScriptedServer server_;
};

TEST_F(AdminClientTest, a_call_is_signed_and_its_answer_returned_as_it_is) {
  server_.say({.body = R"({"drives": []})"});
  const auto answer = call("POST", "/v1/drives?dry=1", R"({"path": "/dev/sdb"})");
  ASSERT_TRUE(answer) << answer.error().to_string();
  EXPECT_EQ(*answer, R"({"drives": []})");
  ASSERT_EQ(server_.seen.size(), 1u);
  const auto& request = server_.seen[0];
  EXPECT_EQ(request.method + " " + request.path + "?" + request.query, "POST /v1/drives?dry=1");
  EXPECT_EQ(request.body, R"({"path": "/dev/sdb"})");
  EXPECT_EQ(request.header("content-type"), "application/json");
  EXPECT_EQ(request.header("authorization").find("AWS4-HMAC-SHA256 Credential=AKID/"), 0u);
  EXPECT_NE(request.header("authorization").find("/eu-north-7/s3/aws4_request"), std::string::npos);
}

TEST_F(AdminClientTest, an_error_of_the_node_keeps_its_code_and_sentence) {
  const Error busy = error_of({.status = 409, .body = R"({"code": "busy", "message": "drive 3 is being drained"})"});
  EXPECT_EQ(busy.code(), Code::busy);
  EXPECT_EQ(busy.context(), "drive 3 is being drained");
  const Error unknown = error_of({.status = 503, .body = R"({"code": "unknown_outcome", "message": "it may have happened"})"});
  EXPECT_EQ(unknown.code(), Code::unknown_outcome) << "whoever asks must not take it for a failure";
}

TEST_F(AdminClientTest, every_code_of_the_list_comes_back){
#define X(name, number, cls, text) \
  EXPECT_EQ(error_of({.status = 400, .body = R"({"code": ")" #name R"(", "message": "m"})"}).code(), Code::name);
    QUARRY_ERROR_CODES(X)
#undef X
}

TEST_F(AdminClientTest, an_answer_that_is_no_error_of_ours_is_still_an_error) {
  EXPECT_EQ(error_of({.status = 400, .body = R"({"code": "of_a_newer_node", "message": "m"})"}).code(), Code::internal);
  EXPECT_EQ(error_of({.status = 404, .body = R"({})"}).code(), Code::internal);
  const Error proxy = error_of({.status = 502, .body = "<html>Bad gateway</html>"});
  EXPECT_EQ(proxy.code(), Code::internal);
  EXPECT_NE(proxy.context().find("502"), std::string::npos);
  EXPECT_NE(proxy.context().find("/v1/drives"), std::string::npos);
}

TEST_F(AdminClientTest, a_node_that_is_not_there_is_named) {
  AdminClient client(server_.http(), "http://elsewhere:1", {"AKID", "secret"}, "us-east-1", system_clock());
  const auto answer = server_.run(client.call("GET", "/v1/status"));
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().to_string().find("admin http://elsewhere:1"), std::string::npos) << answer.error().to_string();
  AdminClient nonsense(server_.http(), "elsewhere", {"AKID", "secret"}, "us-east-1", system_clock());
  EXPECT_FALSE(server_.run(nonsense.call("GET", "/v1/status")));
}

}  // namespace
}  // namespace quarry::client
