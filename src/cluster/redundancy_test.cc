#include "cluster/redundancy.h"

#include <gtest/gtest.h>

namespace quarry::cluster {
namespace {

std::string parsed(std::string_view text, unsigned domains) {
  auto r = parse_redundancy(text, domains);
  return r ? r->to_string() : std::string(code_name(r.error().code()));
}

TEST(Redundancy, profiles_use_the_widest_code_that_the_domains_allow) {
  EXPECT_EQ(parsed("kamikaze", 1), "mirror:1");
  EXPECT_EQ(parsed("kamikaze", 4), "ec:4+0");
  EXPECT_EQ(parsed("economy", 2), "mirror:2");
  EXPECT_EQ(parsed("economy", 3), "ec:2+1");
  EXPECT_EQ(parsed("standard", 4), "ec:2+2");
  EXPECT_EQ(parsed("standard", 6), "ec:4+2");
  EXPECT_EQ(parsed("standard", 100), "ec:8+2");
  EXPECT_EQ(parsed("resilient", 100), "ec:12+3");
  EXPECT_EQ(parsed("fortress", 100), "ec:16+4");
  EXPECT_EQ(parsed("fortress", 5), "mirror:5");
}

TEST(Redundancy, explicit_forms_are_read_back) {
  EXPECT_EQ(parsed("ec:8+3", 11), "ec:8+3");
  EXPECT_EQ(parsed("mirror:3", 3), "mirror:3");
  EXPECT_EQ(parsed("ec:28+4", 32), "ec:28+4");
}

TEST(Redundancy, bad_ones_are_refused) {
  for (auto text : {"", "ec:", "ec:4", "ec:+2", "ec:0+2", "ec:30+3", "ec:4+2x", "mirror:0", "mirror:33", "mirror:", "gold", "ec:-1+2"}) {
    EXPECT_EQ(parsed(text, 64), "malformed") << text;
  }
  EXPECT_EQ(parsed("ec:4+2", 5), "misconfigured");
  EXPECT_EQ(parsed("mirror:3", 2), "misconfigured");
  EXPECT_EQ(parsed("standard", 2), "misconfigured");
}

TEST(Redundancy, every_default_profile_fits) {
  for (unsigned domains = 1; domains <= 40; ++domains) EXPECT_TRUE(parse_redundancy(default_profile(domains), domains)) << domains;
}

}  // namespace
}  // namespace quarry::cluster
