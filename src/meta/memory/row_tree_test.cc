#include "meta/memory/row_tree.h"

#include <gtest/gtest.h>

#include <map>

#include "io/clock.h"

namespace quarry::meta {
namespace {

using Model = std::map<std::string, std::string>;

std::string text(const Model& rows) {
  std::string out;
  for (const auto& [key, value] : rows) out += key + "=" + value + " ";
  return out;
}
std::string text(const RowTree& rows) {
  std::string out;
  rows.visit_all([&out](const KeyValue& row) {
    out += row.key + "=" + row.value + " ";
    return true;
  });
  return out;
}

TEST(RowTree, holds_what_a_map_holds_and_copies_stay_as_they_were) {
  SeededRandom random(3);
  const auto key = [&random] { return fmt::format("{:03}", random.below(200)); };
  RowTree rows;
  Model model;
  std::vector<std::pair<RowTree, Model>> copies;
  for (int step = 0; step < 5000; ++step) {
    const uint64_t dice = random.below(100);
    const std::string at = key();
    if (dice < 60) {
      rows.put(at, std::to_string(step));
      model[at] = std::to_string(step);
    } else if (dice < 95) {
      rows.remove(at);
      model.erase(at);
    } else {
      const std::string end = key();
      rows.remove_range(at, end);
      if (at < end) model.erase(model.lower_bound(at), model.lower_bound(end));
    }
    if (random.below(100) == 0) copies.emplace_back(rows, model);
    const std::string* found = rows.find(at);
    ASSERT_EQ(found != nullptr ? *found : "none", model.contains(at) ? model.at(at) : "none");
    const std::string begin = key(), end = key();
    const Direction direction = random.below(2) == 0 ? Direction::forward : Direction::backward;
    const size_t limit = 1 + random.below(20);
    std::vector<std::string> seen, expected;
    rows.visit(begin, end, direction, [&seen, limit](const KeyValue& row) {
      seen.push_back(row.key);
      return seen.size() < limit;
    });
    if (begin < end) {
      for (auto row = model.lower_bound(begin); row != model.lower_bound(end); ++row) expected.push_back(row->first);
    }
    if (direction == Direction::backward) std::ranges::reverse(expected);
    if (expected.size() > limit) expected.resize(limit);
    ASSERT_EQ(seen, expected) << begin << " to " << end;
  }
  EXPECT_GT(copies.size(), 20u);
  copies.emplace_back(rows, model);
  for (const auto& [copy, then] : copies) {
    EXPECT_EQ(text(copy), text(then));
    EXPECT_EQ(copy.size(), then.size());
    uint64_t bytes = 0;
    for (const auto& [k, v] : then) bytes += k.size() + v.size();
    EXPECT_EQ(copy.bytes(), bytes);
  }
}

}  // namespace
}  // namespace quarry::meta
