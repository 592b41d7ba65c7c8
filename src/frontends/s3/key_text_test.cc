// Names that are no UTF-8 do not come in; those that came into stores of former versions can be listed, read and removed.
#include "frontends/s3/header_text.h"
#include "frontends/s3/testing/fake_exchange.h"

namespace quarry::frontends::s3 {
namespace {

// %XX forms: no lead byte, overlong '/', a surrogate, beyond U+10FFFF, cut off.
constexpr std::string_view kBad[] = {"%AE%8A-", "a%C0%AFb", "%E0%80%AF", "%ED%A0%80", "%F4%90%80%80", "x%C3"};

struct S3KeyText : testing::Test {
  S3Harness s3;
  void SetUp() override { ASSERT_EQ(s3.put("/bucket", "").status, 200); }
};

TEST_F(S3KeyText, nothing_that_is_no_utf8_gets_in) {
  ASSERT_EQ(s3.put("/bucket/source", "x").status, 200);
  for (const std::string_view text : kBad) {
    const std::string bad(text);
    EXPECT_EQ(s3.put("/bucket/" + bad, "x").code(), "InvalidURI") << bad;
    EXPECT_EQ(s3.put("/bucket/" + bad, "", {{"x-amz-copy-source", "/bucket/source"}}).code(), "InvalidURI") << bad;
    EXPECT_EQ(s3.post("/bucket/" + bad, "uploads=", "").code(), "InvalidURI") << bad;
    EXPECT_EQ(s3.get("/bucket/" + bad).code(), "InvalidURI") << bad;
    EXPECT_EQ(s3.ask({.method = "HEAD", .path = "/bucket/" + bad}).status, 400) << bad;
    EXPECT_EQ(s3.remove("/bucket/" + bad).code(), "InvalidURI") << bad;
    EXPECT_EQ(s3.get("/bucket/" + bad, "tagging=").code(), "InvalidURI") << bad;
    for (const std::string name : {"prefix", "marker", "delimiter"})
      EXPECT_EQ(s3.get("/bucket", name + "=" + bad).code(), "InvalidURI") << bad;
    EXPECT_EQ(s3.get("/bucket", "list-type=2&start-after=" + bad).code(), "InvalidURI") << bad;
    EXPECT_EQ(s3.get("/bucket", "versions=&key-marker=" + bad).code(), "InvalidURI") << bad;
    EXPECT_EQ(s3.get("/bucket", "uploads=&key-marker=" + bad).code(), "InvalidURI") << bad;
    EXPECT_EQ(s3.get("/", "prefix=" + bad).code(), "InvalidURI") << bad;
    EXPECT_EQ(s3.put("/bucket/copy", "", {{"x-amz-copy-source", "/bucket/" + bad}}).code(), "InvalidArgument") << bad;
    EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-tagging", "k=" + bad}}).code(), "InvalidArgument") << bad;
    EXPECT_EQ(s3.put("/bucket/k", "x", {{"x-amz-meta-m", *percent_decode(bad)}}).code(), "InvalidArgument") << bad;
    EXPECT_EQ(s3.ask({.method = "PUT",
                      .path = "/bucket/source",
                      .query = "tagging=",
                      .body = "<Tagging><TagSet><Tag><Key>a</Key><Value>" + *percent_decode(bad) + "</Value></Tag></TagSet></Tagging>"})
                  .code(),
              "MalformedXML")
        << bad;
    const std::string list = "<Delete><Object><Key>" + *percent_decode(bad) + "</Key></Object></Delete>";
    EXPECT_EQ(s3.post("/bucket", "delete=", list, {{"Content-MD5", to_base64(md5(bytes_of(list)))}}).code(), "MalformedXML") << bad;
  }
  EXPECT_EQ(s3.get("/bucket", "list-type=2").element("KeyCount"), "1");
  EXPECT_EQ(s3.put("/bucket/%E6%97%A5%F0%9F%93%88", "x").status, 200);  // all else is a name
}

TEST_F(S3KeyText, what_came_in_before_can_be_listed_read_and_removed) {
  const std::vector<std::string> old = {"\xae\x8a-", "a\xc0\xaf", "dir\xff/x"};
  for (const auto& key : old) ASSERT_TRUE(s3.store.put("bucket", key, "old " + key.substr(0, 1)));
  ASSERT_TRUE(s3.store.create_upload("bucket", "up\xfe"));
  ASSERT_EQ(s3.put("/bucket/good", "x").status, 200);
  for (const std::string query : {"", "list-type=2", "versions=", "uploads=", "list-type=2&delimiter=%2F", "delimiter=%2F"}) {
    const Answer listed = s3.get("/bucket", query);
    EXPECT_EQ(listed.status, 200) << query;
    EXPECT_TRUE(parse_xml(listed.body)) << query << listed.body;
    const Answer encoded = s3.get("/bucket", query + (query.empty() ? "" : "&") + "encoding-type=url");
    EXPECT_TRUE(parse_xml(encoded.body)) << query;
    if (query != "uploads=") EXPECT_NE(encoded.body.find("<Key>%AE%8A-</Key>"), std::string::npos) << encoded.body;
  }
  // Paging over them, in each listing.
  const auto page_through = [&](const std::string& query, const std::string& next, const std::string& marker) {
    std::set<std::string> seen;
    std::string at;
    for (int i = 0; i < 10; ++i) {
      const Answer page = s3.get("/bucket", query + "encoding-type=url&max-keys=1" + (at.empty() ? "" : "&" + marker + "=" + at));
      const auto root = parse_xml(page.body);
      if (!root) break;
      for (const auto& node : root->children) {
        if (node.name == "Contents" || node.name == "Version") seen.emplace(node.child_text("Key"));
      }
      if (root->child_text("IsTruncated") != "true") break;
      at = percent_encode(*percent_decode(root->child_text(next), next == "NextContinuationToken" ? PlusSign::stays : PlusSign::is_space));
    }
    return seen.size();
  };
  EXPECT_EQ(page_through("", "NextMarker", "marker"), 4u);
  EXPECT_EQ(page_through("list-type=2&", "NextContinuationToken", "continuation-token"), 4u);
  EXPECT_EQ(page_through("versions=&", "NextKeyMarker", "key-marker"), 4u);
  EXPECT_EQ(s3.get("/bucket", "prefix=dir%FF").status, 200);

  EXPECT_EQ(s3.get("/bucket/%AE%8A-").body, "old \xae");
  EXPECT_EQ(s3.ask({.method = "HEAD", .path = "/bucket/%AE%8A-"}).status, 200);
  EXPECT_EQ(s3.put("/bucket/%AE%8A-", "new").code(), "InvalidURI");  // none is written, also where one is
  EXPECT_EQ(s3.get("/bucket/a%C0").code(), "InvalidURI");            // a beginning of a name is none
  for (const auto& key : old) EXPECT_EQ(s3.remove("/bucket/" + percent_encode(key)).status, 204);
  EXPECT_EQ(s3.get("/bucket/%AE%8A-").code(), "InvalidURI");
  const auto uploads = s3.store.executor.run(s3.store.engine->list_uploads(s3.store.ctx, "bucket", {}));
  ASSERT_TRUE(uploads);
  EXPECT_EQ(s3.remove("/bucket/up%FE", "uploadId=" + uploads->uploads.at(0).upload_id).status, 204);
  EXPECT_EQ(s3.remove("/bucket/good").status, 204);
  EXPECT_EQ(s3.remove("/bucket").status, 204);
  EXPECT_EQ(s3.store.violations(), std::vector<std::string>());
}

TEST(S3HeaderText, latin1_or_nothing) {
  EXPECT_EQ(to_latin1("plain"), "plain");
  EXPECT_EQ(to_latin1("caf\xc3\xa9"), "caf\xe9");
  EXPECT_EQ(to_latin1("\xe6\x97\xa5"), std::nullopt);
  EXPECT_EQ(to_latin1("\xe9"), std::nullopt);
}

TEST(S3HeaderText, user_metadata_is_mail_safe) {
  EXPECT_EQ(mail_safe("plain =?x"), "plain =?x");
  EXPECT_EQ(mail_safe("Mini\xc3\xb6 a_b"), "=?UTF-8?Q?Mini=C3=B6_a=5Fb?=");
  std::string long_text;
  for (int i = 0; i < 40; ++i) long_text += "\xe6\x97\xa5";
  const std::string encoded = mail_safe(long_text);
  for (size_t at = 0; at < encoded.size();) {  // words of at most 75 characters, none of which tears a character apart
    const size_t end = std::min(encoded.find(' ', at), encoded.size());
    EXPECT_LE(end - at, 75u);
    EXPECT_TRUE(encoded.substr(at, end - at).ends_with("=A5?=")) << encoded;
    at = end + 1;
  }
}

}  // namespace
}  // namespace quarry::frontends::s3
