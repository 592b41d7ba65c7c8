#include "chunk/dir/file_index.h"

#include <queue>

namespace quarry::chunk::dir {

uint32_t FileEntry::chunk_count() const {
  if (unfinished) return static_cast<uint32_t>(unfinished->sizes.size());
  return size == 0 ? 1 : static_cast<uint32_t>(div_up(size, chunk_size));
}

std::optional<uint32_t> FileEntry::chunk(uint32_t index) const {
  if (index >= chunk_count()) return std::nullopt;
  if (unfinished) {
    if (unfinished->sizes[index] < 0) return std::nullopt;
    return static_cast<uint32_t>(unfinished->sizes[index]);
  }
  if (absent && (*absent)[index]) return std::nullopt;
  return static_cast<uint32_t>(std::min<uint64_t>(chunk_size, size - static_cast<uint64_t>(index) * chunk_size));
}

std::optional<uint32_t> FileEntry::index_of(ChunkId id) const {
  if (id.high != first.high || id.low < first.low) return std::nullopt;
  const uint64_t distance = id.low - first.low;
  if (distance == 0) return 0;
  if (stride == 0 || distance % stride != 0 || distance / stride >= chunk_count()) return std::nullopt;
  return static_cast<uint32_t>(distance / stride);
}

uint64_t FileEntry::payload() const {
  if (!unfinished && !absent) return size;
  uint64_t total = 0;
  for (uint32_t i = 0; i < chunk_count(); ++i) total += chunk(i).value_or(0);
  return total;
}
uint64_t FileEntry::chunks() const {
  if (!unfinished && !absent) return chunk_count();
  uint64_t count = 0;
  for (uint32_t i = 0; i < chunk_count(); ++i) count += chunk(i).has_value();
  return count;
}

std::optional<FileIndex::Found> FileIndex::find(ChunkId id) {
  if (const auto at = chunks_.find(id); at != chunks_.end()) return Found{nullptr, 0, at->second};
  for (auto at = files_.upper_bound(id); at != files_.begin();) {
    --at;
    FileEntry& entry = *at->second;
    if (entry.first.high != id.high || id.low - entry.first.low > span_max_) break;
    const auto index = entry.index_of(id);
    if (!index) continue;
    if (const auto size = entry.chunk(*index)) return Found{&entry, *index, *size};
  }
  return std::nullopt;
}

FileEntry* FileIndex::file(ChunkId first) {
  const auto at = files_.find(first);
  return at == files_.end() ? nullptr : at->second.get();
}

FileEntry& FileIndex::add(std::unique_ptr<FileEntry> entry) {
  FileEntry& added = *entry;
  CHECK(files_.emplace(added.first, std::move(entry)).second, "a file is indexed twice");
  note_span(added);
  return added;
}

void FileIndex::note_span(const FileEntry& entry) {
  if (const uint32_t count = entry.chunk_count(); count > 1) span_max_ = std::max(span_max_, (count - 1) * entry.stride);
}

void FileIndex::forget_name(FileEntry& entry) {
  if (entry.state != FileState::shown) return;
  by_path_.erase(&entry);
  if (!entry.name) return;
  const auto odd = odd_names_.find({entry.name->bucket, entry.name->key});
  if (odd != odd_names_.end() && odd->second == &entry) odd_names_.erase(odd);
}

void FileIndex::erase(ChunkId first) {
  const auto at = files_.find(first);
  if (at == files_.end()) return;
  forget_name(*at->second);
  files_.erase(at);
}

void FileIndex::add_chunk(ChunkId id, uint32_t size) { chunks_[id] = size; }
bool FileIndex::erase_chunk(ChunkId id) { return chunks_.erase(id) > 0; }

void FileIndex::show(FileEntry& entry, std::string path, const BucketAndKey& key) {
  forget_name(entry);
  entry.state = FileState::shown;
  entry.path = std::move(path);
  const auto said = parse_path(entry.path);
  if (said && *said == key) {
    entry.name.reset();
  } else {
    entry.name = std::make_unique<BucketAndKey>(key);
    odd_names_[{key.bucket, key.key}] = &entry;
  }
  by_path_.insert(&entry);
}

void FileIndex::hide(FileEntry& entry, std::string path) {
  if (entry.state == FileState::shown) {
    auto name = std::make_unique<BucketAndKey>(entry.key());
    forget_name(entry);
    entry.name = std::move(name);
  }
  entry.state = FileState::hidden;
  entry.path = std::move(path);
}

void FileIndex::move(FileEntry& entry, std::string path) {
  const BucketAndKey key = entry.key();
  show(entry, std::move(path), key);
}

FileEntry* FileIndex::shown_at(std::string_view path) {
  const auto at = by_path_.find(path);
  return at == by_path_.end() ? nullptr : *at;
}

FileEntry* FileIndex::shown_as(std::string_view bucket, std::string_view key) {
  const auto odd = odd_names_.find({std::string(bucket), std::string(key)});
  if (odd != odd_names_.end()) return odd->second;
  for (const PathForm form : {PathForm::plain, PathForm::yielding}) {
    const auto path = path_of_key(bucket, key, form);
    if (!path) continue;
    FileEntry* entry = shown_at(*path);
    if (entry != nullptr && !entry->name) return entry;
  }
  return nullptr;
}

void FileIndex::visit(ChunkId from, ChunkId to, const std::function<bool(ChunkId, const Found&)>& visit) {
  // Files whose chunks lie among others': the one with the smallest next id first.
  struct Walk {
    ChunkId next;
    FileEntry* file;
    uint32_t index;
    bool operator<(const Walk& other) const { return other.next < next; }
  };
  std::priority_queue<Walk> walks;
  const auto begin_walk = [&](FileEntry& file, uint32_t index) {
    while (index < file.chunk_count() && !file.chunk(index)) ++index;
    if (index < file.chunk_count()) walks.push({file.chunk_id(index), &file, index});
  };
  auto file = files_.lower_bound(from);
  for (auto before = file; before != files_.begin();) {
    --before;
    FileEntry& entry = *before->second;
    if (entry.first.high != from.high || from.low - entry.first.low > span_max_) break;
    if (entry.stride == 0) continue;
    begin_walk(entry, static_cast<uint32_t>(std::min<uint64_t>(div_up(from.low - entry.first.low, entry.stride), UINT32_MAX)));
  }
  auto chunk = chunks_.lower_bound(from);
  for (;;) {
    // A file joins the walk when its first id is the smallest of all that is left.
    while (file != files_.end() && (walks.empty() || file->first < walks.top().next) &&
           (chunk == chunks_.end() || file->first < chunk->first)) {
      if (file->first >= to) break;
      begin_walk(*file->second, 0);
      ++file;
    }
    const bool walk_first = !walks.empty() && (chunk == chunks_.end() || walks.top().next < chunk->first);
    if (walk_first) {
      Walk walk = walks.top();
      walks.pop();
      if (walk.next >= to) return;
      if (!visit(walk.next, {walk.file, walk.index, *walk.file->chunk(walk.index)})) return;
      begin_walk(*walk.file, walk.index + 1);
    } else {
      if (chunk == chunks_.end() || chunk->first >= to) return;
      if (!visit(chunk->first, {nullptr, 0, chunk->second})) return;
      ++chunk;
    }
  }
}

}  // namespace quarry::chunk::dir
