#include "cluster/map/redundancy.h"

#include <gtest/gtest.h>

#include <bit>

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
  EXPECT_EQ(parsed("whole:2+1", 4), "whole:2+1");
  EXPECT_EQ(parsed("whole:1+0", 2), "whole:1+0");
  EXPECT_EQ(parsed("whole:28+3", 32), "whole:28+3");
}

TEST(Redundancy, bad_ones_are_refused) {
  for (auto text : {"", "ec:", "ec:4", "ec:+2", "ec:0+2", "ec:30+3", "ec:4+2x", "mirror:0", "mirror:33", "mirror:", "gold", "ec:-1+2",
                    "whole:", "whole:2", "whole:0+2", "whole:29+3", "whole:2+1 "}) {
    EXPECT_EQ(parsed(text, 64), "malformed") << text;
  }
  EXPECT_EQ(parsed("ec:4+2", 5), "misconfigured");
  EXPECT_EQ(parsed("mirror:3", 2), "misconfigured");
  EXPECT_EQ(parsed("whole:2+1", 3), "misconfigured");
  EXPECT_EQ(parsed("standard", 2), "misconfigured");
}

TEST(Redundancy, losses_are_what_any_set_of_shards_of_that_size_proves) {
  for (const char* text : {"ec:4+2", "ec:3+0", "mirror:1", "mirror:3", "whole:2+1", "whole:3+0", "whole:1+1", "whole:4+3"}) {
    const Redundancy r = *parse_redundancy(text, 32);
    const uint32_t all = (1u << r.width()) - 1;
    unsigned survives = r.width();
    for (uint32_t lost = 0; lost <= all; ++lost) {
      const auto count = static_cast<unsigned>(std::popcount(lost));
      if (!r.readable_from(all & ~lost)) survives = std::min(survives, count - 1);
      // Any durable_min shards can be read, and lose any one more where there is redundancy.
      if (std::popcount(all & ~lost) < static_cast<int>(r.durable_min())) continue;
      EXPECT_TRUE(r.readable_from(all & ~lost)) << text;
      for (unsigned i = 0; i < r.width() && r.losses() > 0; ++i) EXPECT_TRUE(r.readable_from(all & ~lost & ~(1u << i))) << text;
    }
    EXPECT_EQ(r.losses(), survives) << text;
  }
}

TEST(Redundancy, every_default_profile_fits) {
  for (unsigned domains = 1; domains <= 40; ++domains) EXPECT_TRUE(parse_redundancy(default_profile(domains), domains)) << domains;
}

}  // namespace
}  // namespace quarry::cluster
