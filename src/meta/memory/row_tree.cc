#include "meta/memory/row_tree.h"
#include "meta/row_batches.h"

namespace quarry::meta {

struct RowTree::Node {
  std::shared_ptr<const KeyValue> row;
  size_t priority = 0;
  Link left{}, right{};
  size_t rows = 1;
  uint64_t bytes = 0;  // of the whole subtree
};

RowTree::Link RowTree::make(const Node& like, Link left, Link right) {
  auto node = std::make_shared<Node>(Node{.row = like.row, .priority = like.priority, .left = std::move(left), .right = std::move(right)});
  node->bytes = node->row->key.size() + node->row->value.size();
  for (const Node* side : {node->left.get(), node->right.get()}) {
    if (side == nullptr) continue;
    node->rows += side->rows;
    node->bytes += side->bytes;
  }
  return node;
}

std::pair<RowTree::Link, RowTree::Link> RowTree::split(const Link& at, std::string_view key) {
  if (at == nullptr) return {};
  if (at->row->key < key) {
    auto [low, high] = split(at->right, key);
    return {make(*at, at->left, std::move(low)), std::move(high)};
  }
  auto [low, high] = split(at->left, key);
  return {std::move(low), make(*at, std::move(high), at->right)};
}

RowTree::Link RowTree::join(const Link& low, const Link& high) {
  if (low == nullptr) return high;
  if (high == nullptr) return low;
  if (low->priority > high->priority) return make(*low, low->left, join(low->right, high));
  return make(*high, join(low, high->left), high->right);
}

const std::string* RowTree::find(std::string_view key) const {
  for (const Node* at = root_.get(); at != nullptr;) {
    const int order = key.compare(at->row->key);
    if (order == 0) return &at->row->value;
    at = order < 0 ? at->left.get() : at->right.get();
  }
  return nullptr;
}

void RowTree::put(std::string_view key, std::string_view value) {
  auto [low, others] = split(root_, key);
  const auto [same, high] = split(others, key_after(std::string(key)));
  const Node fresh{.row = std::make_shared<const KeyValue>(KeyValue{std::string(key), std::string(value)}),
                   .priority = std::hash<std::string_view>()(key)};
  root_ = join(join(low, make(fresh, nullptr, nullptr)), high);
}

void RowTree::remove(std::string_view key) {
  if (find(key) != nullptr) remove_range(key, key_after(std::string(key)));
}

void RowTree::remove_range(std::string_view begin, std::string_view end) {
  const auto [low, others] = split(root_, begin);
  const auto [removed, high] = split(others, end);
  root_ = join(low, high);
}

// end null: none.
bool RowTree::walk(const Node* at, std::string_view begin, const std::string_view* end, bool forward, const Visit& visit) {
  if (at == nullptr) return true;
  const bool after_begin = at->row->key >= begin, before_end = end == nullptr || at->row->key < *end;
  const bool left = after_begin, right = before_end;  // whether anything can lie there
  const Node* first = forward ? at->left.get() : at->right.get();
  const Node* second = forward ? at->right.get() : at->left.get();
  if ((forward ? left : right) && !walk(first, begin, end, forward, visit)) return false;
  if (after_begin && before_end && !visit(*at->row)) return false;
  return !(forward ? right : left) || walk(second, begin, end, forward, visit);
}

void RowTree::visit(std::string_view begin, std::string_view end, Direction direction, const Visit& visit) const {
  if (begin < end) walk(root_.get(), begin, &end, direction == Direction::forward, visit);
}

void RowTree::visit_all(const Visit& visit) const { walk(root_.get(), {}, nullptr, true, visit); }

size_t RowTree::size() const { return root_ != nullptr ? root_->rows : 0; }
uint64_t RowTree::bytes() const { return root_ != nullptr ? root_->bytes : 0; }

}  // namespace quarry::meta
