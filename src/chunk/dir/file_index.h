// FileIndex: what a mountpath holds, in memory: files by the id of their first chunk, by path and by name; anonymous chunks by id.
// About 250 bytes a file besides its path, 80 an anonymous chunk. Confined to its loop.
#pragma once
#include <map>
#include <memory>
#include <unordered_set>

#include "chunk/chunk_store.h"
#include "chunk/dir/directory_sync.h"
#include "chunk/dir/escape.h"
#include "chunk/dir/file_system.h"
#include "chunk/dir/format.h"
#include "chunk/dir/records.h"
#include "io/sync.h"

namespace quarry::chunk::dir {

enum class FileState : uint8_t { unfinished, hidden, shown };

// A file open for reading, with what its bytes must be. Immutable after construction but for what concerns the file itself.
struct ReadableFile {
  std::unique_ptr<File> file;
  FileInfo info;  // when it was opened and found right
  FileRecord record;
};

// A file that is being written.
struct Unfinished {
  std::unique_ptr<File> file;
  Event created;               // set when file is there, or `error`
  std::optional<Error> error;  // the first failure: the file will never be finished
  uint32_t writes_in_flight = 0;
  Event idle;                                    // pulsed when writes_in_flight falls to 0
  std::vector<std::vector<uint32_t>> checksums;  // by chunk
  std::vector<int64_t> sizes;                    // by chunk; negative: not there
  std::vector<bool> taken;                       // a put of this chunk has begun
  bool finishing = false;
};

struct FileEntry {
  ChunkId first;
  uint64_t size = 0;
  uint64_t stride = 0;
  int64_t modified_ns = 0;
  uint64_t inode = 0;
  uint32_t chunk_size = 0;
  FileState state = FileState::unfinished;
  bool record_in_side_file = false;
  std::string path;                                          // where it lies now
  std::unique_ptr<BucketAndKey> name;                        // null: it is what the path says
  std::shared_ptr<DirectorySync::Taken> leaving;             // the readable name that it had, until that is gone for good
  std::shared_ptr<Unfinished> unfinished;                    // while it is written
  std::unique_ptr<std::vector<bool>> absent;                 // chunks that were removed while others were not
  std::unique_ptr<std::pair<int64_t, std::string>> verdict;  // found wrong as of that ctime: what is wrong

  uint32_t chunk_count() const;  // indexes in use; of an unfinished file: up to the last one put
  // Payload bytes of chunk `index`; none if it is not there (not yet, or removed).
  std::optional<uint32_t> chunk(uint32_t index) const;
  // The index of the chunk with this id, were it part of the file.
  std::optional<uint32_t> index_of(ChunkId id) const;
  ChunkId chunk_id(uint32_t index) const { return {first.high, first.low + index * stride}; }
  BucketAndKey key() const { return name ? *name : *parse_path(path); }
  Expected expected() const { return {first, size, modified_ns}; }
  uint64_t payload() const;  // bytes of the chunks that are there
  uint64_t chunks() const;   // how many are there
};

class FileIndex {
 public:
  struct Found {
    FileEntry* file = nullptr;  // null: an anonymous chunk
    uint32_t index = 0;
    uint32_t size = 0;
  };
  std::optional<Found> find(ChunkId id);
  FileEntry* file(ChunkId first);

  // The entry stays where it is until erased.
  FileEntry& add(std::unique_ptr<FileEntry> entry);
  void erase(ChunkId first);
  void add_chunk(ChunkId id, uint32_t size);
  bool erase_chunk(ChunkId id);

  // Changes of a file that other views depend on go through these.
  void show(FileEntry& entry, std::string path, const BucketAndKey& key);  // key: as its record has it
  void hide(FileEntry& entry, std::string path);
  void move(FileEntry& entry, std::string path);  // of a shown file
  void note_span(const FileEntry& entry);         // it has more chunks now

  FileEntry* shown_at(std::string_view path);
  FileEntry* shown_as(std::string_view bucket, std::string_view key);

  // Chunks with from <= id < to in order, until visit returns false.
  void visit(ChunkId from, ChunkId to, const std::function<bool(ChunkId, const Found&)>& visit);
  const std::map<ChunkId, std::unique_ptr<FileEntry>>& files() const { return files_; }
  const std::map<ChunkId, uint32_t>& chunks() const { return chunks_; }

 private:
  struct PathHash {
    using is_transparent = void;
    size_t operator()(std::string_view path) const { return std::hash<std::string_view>()(path); }
    size_t operator()(const FileEntry* entry) const { return (*this)(std::string_view(entry->path)); }
  };
  struct PathEqual {
    using is_transparent = void;
    static std::string_view path(std::string_view path) { return path; }
    static std::string_view path(const FileEntry* entry) { return entry->path; }
    template <class A, class B>
    bool operator()(const A& a, const B& b) const {
      return path(a) == path(b);
    }
  };
  void forget_name(FileEntry& entry);

  std::map<ChunkId, std::unique_ptr<FileEntry>> files_;
  std::map<ChunkId, uint32_t> chunks_;                                   // anonymous: payload bytes
  std::unordered_set<FileEntry*, PathHash, PathEqual> by_path_;          // shown files
  std::map<std::pair<std::string, std::string>, FileEntry*> odd_names_;  // shown files whose path is not that of their key
  uint64_t span_max_ = 0;                                                // the furthest that any file's last id lay from its first
};

}  // namespace quarry::chunk::dir
