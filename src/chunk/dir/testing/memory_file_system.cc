#include "chunk/dir/testing/memory_file_system.h"

#include <set>

#include "base/check.h"

namespace quarry::chunk::dir {
namespace {
constexpr uint64_t kSector = 512;
constexpr uint64_t kRoot = 1;
}  // namespace

class MemoryFile : public File {
 public:
  MemoryFile(std::shared_ptr<MemoryFileSystem> files, uint64_t number, std::string path, bool locks = false)
      : files_(std::move(files)), number_(number), path_(std::move(path)), locks_(locks) {}
  ~MemoryFile() override {
    const std::lock_guard lock(files_->mutex_);
    if (locks_) files_->locked_ = false;
  }
  Result<size_t> read_at(uint64_t offset, MutableByteView into) override {
    const std::lock_guard lock(files_->mutex_);
    TRY(files_->enter("read", path_));
    const std::string& content = node().content;
    if (offset >= content.size()) return size_t{0};
    const size_t take = std::min<uint64_t>(into.size(), content.size() - offset);
    if (take > 0) std::memcpy(into.data(), content.data() + offset, take);
    return take;
  }
  Result<void> write_at(uint64_t offset, std::span<const ByteView> parts) override {
    const std::lock_guard lock(files_->mutex_);
    TRY(files_->enter("write", path_));
    MemoryFileSystem::Write write{offset, {}};
    for (const ByteView part : parts) write.bytes.append(text_of(part));
    if (write.bytes.empty()) return {};
    auto& content = node().content;
    if (content.size() < offset + write.bytes.size()) content.resize(offset + write.bytes.size());
    content.replace(offset, write.bytes.size(), write.bytes);
    node().writes.push_back(std::move(write));
    node().modified_ns = node().changed_ns = ++files_->clock_ns_;
    return {};
  }
  // A write of zeros, as it may be lost or kept; the time is set back by a step of its own in a real one.
  Result<void> punch_hole(uint64_t offset, uint64_t length) override {
    const std::string zeros(length, '\0');
    const int64_t modified_ns = info() ? info()->modified_ns : 0;
    const ByteView parts[] = {bytes_of(zeros)};
    TRY(write_at(offset, parts));
    const std::lock_guard lock(files_->mutex_);
    node().modified_ns = modified_ns;
    return {};
  }
  Result<void> sync() override {
    const std::lock_guard lock(files_->mutex_);
    TRY(files_->enter("sync", path_));
    node().durable_content = node().content;
    node().durable_attributes = node().attributes;
    node().writes.clear();
    node().attribute_steps.clear();
    return {};
  }
  Result<FileInfo> info() override {
    const std::lock_guard lock(files_->mutex_);
    return info_of(node());
  }
  Result<std::optional<std::string>> attribute(const char* name) override {
    const std::lock_guard lock(files_->mutex_);
    if (!files_->attributes_supported_) return fail(Code::unsupported, "attributes");
    const auto at = node().attributes.find(name);
    if (at == node().attributes.end()) return std::optional<std::string>();
    return std::optional(at->second);
  }
  Result<void> set_attribute(const char* name, std::string_view value) override {
    const std::lock_guard lock(files_->mutex_);
    TRY(files_->enter("set_attribute", path_));
    if (!files_->attributes_supported_) return fail(Code::unsupported, "attributes");
    node().attributes[name] = value;
    node().attribute_steps.push_back(node().attributes);
    node().changed_ns = ++files_->clock_ns_;
    return {};
  }
  static FileInfo info_of(const MemoryFileSystem::Node& node) {
    FileInfo info;
    info.kind = node.directory ? FileKind::directory : FileKind::file;
    info.size = node.content.size();
    info.allocated = round_up(node.content.size(), 4096);
    info.inode = node.number;
    info.links = node.links;
    info.modified_ns = node.modified_ns;
    info.changed_ns = node.changed_ns;
    return info;
  }

 private:
  MemoryFileSystem::Node& node() { return files_->nodes_.at(number_); }
  std::shared_ptr<MemoryFileSystem> files_;
  const uint64_t number_;
  const std::string path_;
  const bool locks_;
};

MemoryFileSystem::MemoryFileSystem() {
  Node root;
  root.number = kRoot;
  root.directory = true;
  root.links = 1;
  nodes_[kRoot] = root;
}

void MemoryFileSystem::set_hook(Hook hook) {
  const std::lock_guard lock(mutex_);
  hook_ = std::move(hook);
}
void MemoryFileSystem::set_attributes_supported(bool supported) {
  const std::lock_guard lock(mutex_);
  attributes_supported_ = supported;
}
uint64_t MemoryFileSystem::operations() {
  const std::lock_guard lock(mutex_);
  return operations_;
}

Result<void> MemoryFileSystem::enter(const char* operation, const std::string& path) {
  ++operations_;
  return hook_ ? hook_(operation, path) : Result<void>();
}

MemoryFileSystem::Node* MemoryFileSystem::find(const std::string& path) {
  Node* node = &nodes_.at(kRoot);
  for (size_t at = 0; at < path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    if (!node->directory) return nullptr;
    const auto name = node->names.find(path.substr(at, slash - at));
    if (name == node->names.end()) return nullptr;
    node = &nodes_.at(name->second);
    at = slash + 1;
  }
  return node;
}

Result<std::pair<MemoryFileSystem::Node*, std::string>> MemoryFileSystem::parent_and_name(const std::string& path) {
  Node* parent = find(parent_of(path));
  if (parent == nullptr || !parent->directory) return fail(Code::not_found, "{}", path);
  std::string name = path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
  if (name.size() > 255) return fail(Code::too_large, "{}", path);
  if (name.empty() || name == "." || name == ".." || name.find('\0') != std::string::npos) return fail(Code::invalid_argument, "{}", path);
  return std::pair(parent, std::move(name));
}

void MemoryFileSystem::apply(const NameChange& change, bool durable) {
  for (const auto& side : change.sides) {
    auto& names = durable ? nodes_.at(side.directory).durable_names : nodes_.at(side.directory).names;
    if (side.node == 0) {
      names.erase(side.name);
    } else {
      names[side.name] = side.node;
    }
  }
}

void MemoryFileSystem::change(NameChange change) {
  for (const auto& side : change.sides) {
    auto& names = nodes_.at(side.directory).names;
    if (const auto old = names.find(side.name); old != names.end()) --nodes_.at(old->second).links;
    if (side.node != 0) ++nodes_.at(side.node).links;
  }
  apply(change, false);
  pending_.push_back(std::move(change));
}

Result<std::unique_ptr<File>> MemoryFileSystem::open(const std::string& path, OpenMode mode) {
  const std::lock_guard lock(mutex_);
  TRY(enter(mode == OpenMode::create ? "create" : "open", path));
  Node* node = find(path);
  if (mode == OpenMode::create) {
    if (node != nullptr) return fail(Code::already_exists, "{}", path);
    TRY_ASSIGN(const auto where, parent_and_name(path));
    Node fresh;
    fresh.number = next_++;
    fresh.modified_ns = fresh.changed_ns = ++clock_ns_;
    const uint64_t number = fresh.number;
    const uint64_t parent = where.first->number;
    nodes_[number] = std::move(fresh);
    change({{{parent, where.second, number}}});
    return std::make_unique<MemoryFile>(shared_from_this(), number, path);
  }
  if (node == nullptr) return fail(Code::not_found, "{}", path);
  if (node->directory) return fail(Code::io_error, "{} is a directory", path);
  return std::make_unique<MemoryFile>(shared_from_this(), node->number, path);
}

Result<FileInfo> MemoryFileSystem::info(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const Node* node = find(path);
  if (node == nullptr) return fail(Code::not_found, "{}", path);
  return MemoryFile::info_of(*node);
}

Result<std::vector<DirectoryEntry>> MemoryFileSystem::list(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TRY(enter("list", path));
  const Node* node = find(path);
  if (node == nullptr || !node->directory) return fail(Code::not_found, "{}", path);
  std::vector<DirectoryEntry> entries;
  for (const auto& [name, number] : node->names)
    entries.push_back({name, nodes_.at(number).directory ? FileKind::directory : FileKind::file});
  return entries;
}

Result<void> MemoryFileSystem::make_directory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TRY(enter("make_directory", path));
  if (find(path) != nullptr) return fail(Code::already_exists, "{}", path);
  TRY_ASSIGN(const auto where, parent_and_name(path));
  Node fresh;
  fresh.number = next_++;
  fresh.directory = true;
  const uint64_t number = fresh.number;
  const uint64_t parent = where.first->number;
  nodes_[number] = std::move(fresh);
  change({{{parent, where.second, number}}});
  return {};
}

Result<void> MemoryFileSystem::remove_directory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TRY(enter("remove_directory", path));
  const Node* node = find(path);
  if (node == nullptr || !node->directory) return fail(Code::not_found, "{}", path);
  if (!node->names.empty()) return fail(Code::not_empty, "{}", path);
  TRY_ASSIGN(const auto where, parent_and_name(path));
  change({{{where.first->number, where.second, 0}}, node->number});
  return {};
}

Result<void> MemoryFileSystem::rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  TRY(enter("rename", to));
  const Node* node = find(from);
  if (node == nullptr) return fail(Code::not_found, "{}", from);
  TRY_ASSIGN(const auto source, parent_and_name(from));
  TRY_ASSIGN(const auto target, parent_and_name(to));
  const Node* there = find(to);
  if (there != nullptr && there->directory) return fail(Code::io_error, "{} is a directory", to);
  if (there == node) return {};  // two names of one file: POSIX leaves both
  const uint64_t to_directory = target.first->number, from_directory = source.first->number, moved = node->number;
  if (to_directory == from_directory) {
    change({{{to_directory, target.second, moved}, {from_directory, source.second, 0}}});
    return {};
  }
  change({{{to_directory, target.second, moved}}});
  change({.sides = {{from_directory, source.second, 0}}, .moved_to = to_directory});
  return {};
}

Result<void> MemoryFileSystem::link(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  TRY(enter("link", to));
  const Node* node = find(from);
  if (node == nullptr) return fail(Code::not_found, "{}", from);
  if (find(to) != nullptr) return fail(Code::already_exists, "{}", to);
  TRY_ASSIGN(const auto target, parent_and_name(to));
  change({{{target.first->number, target.second, node->number}}});
  return {};
}

Result<void> MemoryFileSystem::remove(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TRY(enter("remove", path));
  const Node* node = find(path);
  if (node == nullptr) return fail(Code::not_found, "{}", path);
  if (node->directory) return fail(Code::io_error, "{} is a directory", path);
  TRY_ASSIGN(const auto where, parent_and_name(path));
  change({{{where.first->number, where.second, 0}}});
  return {};
}

Result<void> MemoryFileSystem::sync_directory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TRY(enter("sync_directory", path));
  const Node* node = find(path);
  if (node == nullptr || !node->directory) return fail(Code::not_found, "{}", path);
  // All changes of this directory up to the last, and those of others that they hang on.
  std::set<uint64_t> needed = {node->number};
  std::vector<bool> keep(pending_.size(), false);
  for (size_t i = pending_.size(); i-- > 0;) {
    const auto& sides = pending_[i].sides;
    keep[i] = std::any_of(sides.begin(), sides.end(), [&](const auto& side) { return needed.contains(side.directory); });
    if (!keep[i]) continue;
    for (const auto& side : sides) needed.insert(side.directory);
    if (pending_[i].emptied != 0) needed.insert(pending_[i].emptied);
    if (pending_[i].moved_to != 0) needed.insert(pending_[i].moved_to);
  }
  std::vector<NameChange> left;
  for (size_t i = 0; i < pending_.size(); ++i) {
    if (keep[i]) {
      apply(pending_[i], true);
    } else {
      left.push_back(std::move(pending_[i]));
    }
  }
  pending_ = std::move(left);
  return {};
}

Result<void> MemoryFileSystem::check_root() {
  const std::lock_guard lock(mutex_);
  return enter("check_root", "");
}

Result<std::unique_ptr<File>> MemoryFileSystem::lock(const std::string& path) {
  const std::lock_guard guard(mutex_);
  if (locked_) return fail(Code::busy, "{} is open", root_);
  locked_ = true;
  return std::make_unique<MemoryFile>(shared_from_this(), kRoot, path, true);
}

void MemoryFileSystem::poke(const std::string& path, const std::function<void(std::string& content)>& change, bool keep_time) {
  const std::lock_guard lock(mutex_);
  Node* node = find(path);
  CHECK(node != nullptr && !node->directory, path);
  change(node->content);
  node->durable_content = node->content;
  node->writes.clear();
  node->changed_ns = ++clock_ns_;
  if (!keep_time) node->modified_ns = clock_ns_;
}

std::map<std::string, std::string> MemoryFileSystem::all() {
  const std::lock_guard lock(mutex_);
  std::map<std::string, std::string> found;
  const std::function<void(const Node&, const std::string&)> walk = [&](const Node& node, const std::string& path) {
    if (!node.directory) {
      found[path] = node.content;
      return;
    }
    for (const auto& [name, number] : node.names) walk(nodes_.at(number), path.empty() ? name : path + "/" + name);
  };
  walk(nodes_.at(kRoot), "");
  return found;
}

std::shared_ptr<MemoryFileSystem> MemoryFileSystem::copy() {
  auto made = create();
  made->attributes_supported_ = attributes_supported_;
  made->clock_ns_ = clock_ns_;
  made->next_ = next_;
  made->nodes_ = nodes_;
  return made;
}

std::shared_ptr<MemoryFileSystem> MemoryFileSystem::crash(uint64_t seed, bool ordered) {
  const std::lock_guard lock(mutex_);
  auto made = copy();
  SeededRandom random(seed);
  // Names: a prefix of what is pending, of each directory or of all.
  std::map<uint64_t, size_t> cut;  // of a directory: the first change that is lost
  if (ordered) {
    const size_t at = random.below(pending_.size() + 1);
    for (size_t i = at; i < pending_.size(); ++i) {
      for (const auto& side : pending_[i].sides) cut.emplace(side.directory, i);
    }
    for (size_t i = 0; i < at; ++i) made->apply(pending_[i], true);
  } else {
    for (size_t i = 0; i < pending_.size(); ++i) {
      for (const auto& side : pending_[i].sides) {
        if (random.below(6) == 0) cut.emplace(side.directory, i);
      }
    }
    // What is lost in one directory is lost in the other, and so is all that came after it there.
    std::vector<bool> kept(pending_.size(), true);
    for (bool again = true; again;) {
      again = false;
      for (size_t i = 0; i < pending_.size(); ++i) {
        const auto& sides = pending_[i].sides;
        const auto is_cut = [&](uint64_t number) { return cut.contains(number) && cut[number] <= i; };
        const bool lost = is_cut(pending_[i].emptied) || is_cut(pending_[i].moved_to) ||
                          std::any_of(sides.begin(), sides.end(), [&](const auto& side) { return is_cut(side.directory); });
        kept[i] = !lost;
        if (!lost) continue;
        for (const auto& side : sides) {
          const auto at = cut.find(side.directory);
          if (at != cut.end() && at->second <= i) continue;
          cut[side.directory] = i;
          again = true;
        }
      }
    }
    for (size_t i = 0; i < pending_.size(); ++i) {
      if (kept[i]) made->apply(pending_[i], true);
    }
  }
  // Bytes: any of the sectors written since the last sync; the size is that of the furthest that was kept, or less, or more (zeros).
  for (auto& [number, node] : made->nodes_) {
    if (node.directory) {
      node.names = node.durable_names;
      continue;
    }
    std::string content = node.durable_content;
    const uint64_t style = random.below(4);  // all, none, some
    for (const auto& write : node.writes) {
      for (uint64_t at = 0; at < write.bytes.size(); at += kSector) {
        if (style == 1 || (style > 1 && random.below(2) == 0)) continue;
        const std::string_view piece = std::string_view(write.bytes).substr(at, kSector);
        const uint64_t end = write.offset + at + piece.size();
        if (content.size() < end) content.resize(end);
        content.replace(write.offset + at, piece.size(), piece);
      }
    }
    if (!node.writes.empty() && random.below(4) == 0) content.resize(std::max(content.size(), node.content.size()));
    node.content = node.durable_content = std::move(content);
    node.writes.clear();
    const size_t step = random.below(node.attribute_steps.size() + 1);
    if (step < node.attribute_steps.size()) node.durable_attributes = node.attribute_steps[step];
    node.attributes = node.durable_attributes;
    node.attribute_steps.clear();
  }
  for (auto& [number, node] : made->nodes_) node.links = 0;
  made->nodes_.at(kRoot).links = 1;
  for (auto& [number, node] : made->nodes_) {
    for (const auto& [name, child] : node.names) ++made->nodes_.at(child).links;
  }
  return made;
}

}  // namespace quarry::chunk::dir
