// Forms as browsers send them, in pieces of every size, and what is refused.
#include "frontends/s3/form_data.h"

#include <gtest/gtest.h>

namespace quarry::frontends::s3 {
namespace {

std::string decode(std::string_view body, size_t piece) {
  FormDecoder decoder("xx");
  std::string out;
  size_t begin = 0, end = 0;
  for (;;) {
    auto step = decoder.step(body.substr(begin, end - begin));
    if (!step) return out + "malformed";
    begin += step->consumed;
    switch (step->kind) {
      case FormDecoder::Kind::end: return out + "end";
      case FormDecoder::Kind::head: out.append("<").append(step->text).append(">"); break;
      case FormDecoder::Kind::data: out.append(step->text); break;
      case FormDecoder::Kind::part_end: out.append("|"); break;
      case FormDecoder::Kind::need_more:
        if (end == body.size()) return out + "cut";
        end = std::min(end + piece, body.size());
        break;
    }
  }
}

TEST(FormDecoder, gives_the_same_parts_whatever_the_pieces) {
  const std::string body =
      "--xx\r\nA: 1\r\nB: 2\r\n\r\nvalue\r\n--xx\r\nC: 3\r\n\r\n\r\n--xx\r\nD: 4\r\n\r\n\r\n--x\r\n-\r\n--xy--xx\r\r\n--xx--\r\ntail --xx";
  for (size_t piece = 1; piece <= body.size(); ++piece) {
    EXPECT_EQ(decode(body, piece), "<A: 1\r\nB: 2>value|<C: 3>|<D: 4>\r\n--x\r\n-\r\n--xy--xx\r|end") << piece;
  }
}

TEST(FormDecoder, tells_garbage_and_what_is_cut_off) {
  EXPECT_EQ(decode("", 8), "cut");
  EXPECT_EQ(decode("--x", 8), "cut");
  EXPECT_EQ(decode("--xy", 8), "malformed");
  EXPECT_EQ(decode("preamble", 8), "malformed");
  EXPECT_EQ(decode("--xx garbage", 99), "malformed");
  EXPECT_EQ(decode("--xx\r\nA: 1\r\n\r\nvalue", 99), "<A: 1>cut");
  EXPECT_EQ(decode("--xx\r\n" + std::string(kFormPartHeadMax + 1, 'h') + "\r\n\r\n", 99), "malformed");
  EXPECT_EQ(decode("--xx--", 8), "end");
}

TEST(FormData, boundaries_of_a_content_type) {
  EXPECT_EQ(*parse_form_boundary("multipart/form-data; boundary=abc"), "abc");
  EXPECT_EQ(*parse_form_boundary("Multipart/Form-Data; charset=utf-8;boundary=\"a b\""), "a b");
  EXPECT_EQ(*parse_form_boundary("application/json"), "");
  EXPECT_EQ(*parse_form_boundary(""), "");
  for (const std::string bad : {"multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"a"}) {
    EXPECT_FALSE(parse_form_boundary(bad).has_value()) << bad;
  }
  EXPECT_FALSE(parse_form_boundary("multipart/form-data; boundary=" + std::string(kFormBoundaryMax + 1, 'x')).has_value());
}

TEST(FormData, names_and_files_of_a_part) {
  const auto part =
      parse_form_part_head("content-type: text/plain\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a \\\"b\\\".txt\"");
  ASSERT_TRUE(part.has_value());
  EXPECT_EQ(part->name, "file");
  EXPECT_TRUE(part->has_filename);
  EXPECT_EQ(part->filename, "a \"b\".txt");
  EXPECT_EQ(parse_form_part_head("Content-Disposition: form-data; name=key")->name, "key");
  EXPECT_EQ(parse_form_part_head("Content-Disposition: form-data; name=\"f\"; filename=\"C:\\dir\\x\"")->filename, "C:\\dir\\x");
  for (const std::string bad :
       {"", "Content-Type: text/plain", "Content-Disposition: attachment; name=\"k\"", "no colon", "Content-Disposition: form-data",
        "Content-Disposition: form-data; name=\"k", "Content-Disposition: form-data; name=\"\"",
        "Content-Disposition: form-data; name=\"a\"; name=\"b\"", "Content-Disposition: form-data; name=\"a\" rubbish"}) {
    EXPECT_FALSE(parse_form_part_head(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace quarry::frontends::s3
