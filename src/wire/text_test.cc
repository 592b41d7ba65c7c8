// URI, XML, JSON, dates, header blocks.
#include <gtest/gtest.h>

#include "wire/http_message.h"
#include "wire/json.h"
#include "wire/uri.h"
#include "wire/xml.h"

namespace quarry {
namespace {

TEST(Uri, percent_coding) {
  EXPECT_EQ(*percent_decode("a%20b%2fc+d"), "a b/c+d");
  EXPECT_EQ(*percent_decode("a+b", PlusSign::is_space), "a b");
  EXPECT_EQ(*percent_decode("%00%ff"), std::string("\0\xff", 2));
  for (const std::string_view bad : {"%", "%1", "%g1", "a%1g", "100%"}) EXPECT_FALSE(percent_decode(bad)) << bad;
  EXPECT_EQ(percent_encode("a b/c~*\xc3\xa9"), "a%20b%2Fc~%2A%C3%A9");
  EXPECT_EQ(percent_encode("a b/c", true), "a%20b/c");
  EXPECT_EQ(s3_encode_key("a b/c*+\xc3\xa9"), "a+b/c*%2B%C3%A9");
  std::string every;
  for (int c = 0; c < 256; ++c) every += static_cast<char>(c);
  EXPECT_EQ(*percent_decode(percent_encode(every)), every);
}

TEST(Uri, queries_keep_order_and_are_bounded) {
  const auto query = *parse_query("b=2&a=1&&b=%33&x");
  ASSERT_EQ(query.size(), 4u);
  EXPECT_EQ(query[0].name, "b");
  EXPECT_EQ(query[2].value, "3");
  EXPECT_FALSE(query[3].has_value);
  std::string many;
  for (size_t i = 0; i <= kQueryParametersMax; ++i) many += "a&";
  EXPECT_FALSE(parse_query(many));
}

TEST(Uri, urls_and_hosts) {
  const Url url = *parse_url("https://[::1]:9443/x/y");
  EXPECT_TRUE(url.is_tls);
  EXPECT_EQ(url.host, "::1");
  EXPECT_EQ(url.port, 9443);
  EXPECT_EQ(url.path, "/x/y");
  EXPECT_EQ(url.authority(), "[::1]:9443");
  EXPECT_EQ(parse_url("http://a")->authority(), "a");
  for (const std::string_view bad : {"ftp://a", "http://", "http://:80", "http://a:b", "http://a:70000", "http://[::1"})
    EXPECT_FALSE(parse_url(bad)) << bad;
}

TEST(Xml, reads_a_document_and_ignores_prefixes) {
  const auto root = *parse_xml(
      "<?xml version=\"1.0\"?><s:Delete xmlns:s=\"http://x\"><Quiet>true</Quiet><Object><Key>a&amp;b&#65;</Key></Object>"
      "<Object><Key><![CDATA[<c>]]></Key></Object><Grantee xsi:type=\"Group\"/></s:Delete>");
  EXPECT_EQ(root.name, "Delete");
  EXPECT_EQ(root.child_text("Quiet"), "true");
  EXPECT_EQ(root.count("Object"), 2u);
  EXPECT_EQ(root.children[1].child_text("Key"), "a&bA");
  EXPECT_EQ(root.children[2].child_text("Key"), "<c>");
  EXPECT_EQ(root.child("Grantee")->attribute("type"), "Group");
  EXPECT_EQ(root.child("None"), nullptr);
  EXPECT_FALSE(root.optional_text("None"));
}

TEST(Xml, refuses_hostile_documents) {
  const auto code = [](std::string_view text, XmlLimits limits = {}) {
    const auto result = parse_xml(text, limits);
    return result ? Code::internal : result.error().code();
  };
  EXPECT_EQ(code(""), Code::malformed);
  EXPECT_EQ(code("<a>"), Code::malformed);
  EXPECT_EQ(code("<a></b>"), Code::malformed);
  EXPECT_EQ(code("<a>&lol;</a>"), Code::malformed);
  EXPECT_EQ(code("<a>\xff</a>"), Code::malformed);
  EXPECT_EQ(code("<a>&#0;</a>"), Code::malformed);
  EXPECT_EQ(code("<a/><b/>"), Code::malformed);
  EXPECT_EQ(code("<!DOCTYPE a [<!ENTITY l \"x\"><!ENTITY m \"&l;&l;\">]><a>&m;</a>"), Code::malformed);
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "<a>";
  EXPECT_EQ(code(deep), Code::too_large);
  std::string wide = "<a>";
  for (int i = 0; i < 300; ++i) wide += "<b/>";
  XmlLimits small;
  small.nodes_max = 200;
  EXPECT_EQ(code(wide + "</a>", small), Code::too_large);
  small.bytes_max = 10;
  EXPECT_EQ(code("<a>01234567890</a>", small), Code::too_large);
}

TEST(Xml, writes_what_it_reads) {
  XmlWriter xml;
  xml.open_with_namespace("List", "http://s3").element("Key", "a<b>&\"c\x01\n").element("Size", uint64_t{7}).flag("More", false);
  xml.open("Empty").close().close();
  const std::string text = xml.take();
  EXPECT_EQ(text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<List xmlns=\"http://s3\"><Key>a&lt;b&gt;&amp;&quot;c&#x1;&#xa;</Key>"
            "<Size>7</Size><More>false</More><Empty></Empty></List>");
}

TEST(Xml, documents_are_well_formed_whatever_bytes_are_in_them) {
  XmlWriter xml;
  xml.open("List").element("Key", "\xae\x8a-").element("Key", "a\xed\xa0\x80").element("Key", "\xe6\x97\xa5\xff").close();
  const auto root = parse_xml(xml.take());
  ASSERT_TRUE(root);
  EXPECT_EQ(root->children[0].text, "\xef\xbf\xbd\xef\xbf\xbd-");
  EXPECT_EQ(root->children[1].text, "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(root->children[2].text, "\xe6\x97\xa5\xef\xbf\xbd");
  for (const std::string_view carried : {"", "a b", "\t\n\r", "\xe6\x97\xa5", "\xef\xbf\xbd"}) {
    EXPECT_TRUE(xml_carries(carried)) << carried;
    XmlWriter one;
    one.open("K").text(carried).close();
    EXPECT_EQ(parse_xml(one.take())->text, carried);
  }
  for (const std::string_view lost : {"\x01", "\xff", "\xef\xbf\xbf", "\xed\xa0\x80"}) EXPECT_FALSE(xml_carries(lost)) << lost;
}

TEST(Json, reads_and_finds) {
  const auto root = *parse_json(R"({"a":[1,-2,3.5,true,null,"x\u00e9"],"b":{"c":18446744073709551615}})");
  const auto& items = root.find("a")->items();
  ASSERT_EQ(items.size(), 6u);
  EXPECT_EQ(items[0].as_u64(), 1u);
  EXPECT_EQ(items[1].as_i64(), -2);
  EXPECT_EQ(items[1].as_u64(), std::nullopt);
  EXPECT_EQ(items[2].as_double(), 3.5);
  EXPECT_EQ(items[3].as_bool(), true);
  EXPECT_TRUE(items[4].is_null());
  EXPECT_EQ(items[5].as_string(), "x\xc3\xa9");
  EXPECT_EQ(root.find("b")->u64_at("c").value(), UINT64_MAX);
  EXPECT_EQ(root.string_at("none").error().code(), Code::malformed);
}

TEST(Json, refuses_hostile_documents) {
  for (const std::string_view bad : {"", "{", "[1,]", "{\"a\":}", "nul", "\"\xff\"", "1 2", "[1e999999]"})
    EXPECT_FALSE(parse_json(bad)) << bad;
  EXPECT_FALSE(parse_json(std::string(1000, '[')));
  JsonLimits limits;
  limits.nodes_max = 3;
  EXPECT_EQ(parse_json("[1,2,3]", limits).error().code(), Code::too_large);
  limits.bytes_max = 3;
  EXPECT_EQ(parse_json("[1,2]", limits).error().code(), Code::too_large);
}

TEST(Json, writes_what_it_reads) {
  JsonWriter json;
  json.begin_object().field("t", "q\"\\\n\x01\xff").field("n", uint64_t{7}).field("f", 1.5).key("a").begin_array();
  json.value(true).null().begin_object().end_object().end_array().end_object();
  EXPECT_EQ(json.str(), "{\"t\":\"q\\\"\\\\\\n\\u0001\xef\xbf\xbd\",\"n\":7,\"f\":1.5,\"a\":[true,null,{}]}");
  EXPECT_TRUE(parse_json(json.str()));
  JsonWriter pretty(2);
  pretty.begin_object().field("a", 1).key("b").begin_array().value("x").end_array().end_object();
  EXPECT_EQ(pretty.str(), "{\n  \"a\": 1,\n  \"b\": [\n    \"x\"\n  ]\n}");
}

TEST(HttpDate, three_forms_in_one_out) {
  EXPECT_EQ(http_date(784111777), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(*parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777);
  EXPECT_EQ(*parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT"), 784111777);
  EXPECT_EQ(*parse_http_date("Sun Nov  6 08:49:37 1994"), 784111777);
  for (const std::string_view bad :
       {"", "Sun", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 25:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMTx"}) {
    EXPECT_FALSE(parse_http_date(bad)) << bad;
  }
}

TEST(HeaderBlock, values_cannot_split_a_response) {
  HeaderBlock headers;
  headers.add("x-amz-meta-a", "v\r\nEvil: 1").add("Content-Range", "bytes 0-1/2").add("N", uint64_t{12});
  EXPECT_EQ(headers.serialized(), "x-amz-meta-a: v  Evil: 1\r\nContent-Range: bytes 0-1/2\r\nN: 12\r\n");
  EXPECT_EQ(headers.find("content-RANGE"), "bytes 0-1/2");
  EXPECT_EQ(headers.at(2).value, "12");
}

}  // namespace
}  // namespace quarry
