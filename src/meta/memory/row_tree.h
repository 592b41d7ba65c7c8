// RowTree: rows in order, whose copies cost nothing: a copy shares everything, and a change makes anew only the path to what it changes.
// A treap: ordered by key, and a heap by a hash of the key, so that one set of keys has one shape whatever its history.
// A value type. Copies may be used on different threads.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "meta/meta_store.h"

namespace quarry::meta {

class RowTree {
 public:
  const std::string* find(std::string_view key) const;  // as long as this copy is there, unchanged
  void put(std::string_view key, std::string_view value);
  void remove(std::string_view key);
  void remove_range(std::string_view begin, std::string_view end);
  // The rows of [begin, end), in order, until `visit` says false.
  using Visit = std::function<bool(const KeyValue& row)>;
  void visit(std::string_view begin, std::string_view end, Direction direction, const Visit& visit) const;
  void visit_all(const Visit& visit) const;
  size_t size() const;
  uint64_t bytes() const;  // of keys and values

 private:
  struct Node;
  using Link = std::shared_ptr<const Node>;
  static Link make(const Node& like, Link left, Link right);
  static std::pair<Link, Link> split(const Link& at, std::string_view key);  // those below the key, and the others
  static Link join(const Link& low, const Link& high);
  static bool walk(const Node* at, std::string_view begin, const std::string_view* end, bool forward, const Visit& visit);
  Link root_;
};

}  // namespace quarry::meta
