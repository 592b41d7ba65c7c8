// MemoryFileSystem: a file system in memory that knows what would survive a power cut, and can fail on demand.
//
// What is durable: bytes, size and attributes of a file after its sync; a name after the sync of its directory. What is not durable may or
// may not have reached the disk when the power goes:
//   - names of one directory in the order in which they changed (a journal keeps a prefix), independently of other directories;
//     after a rename between two directories the old name may still be there beside the new one, never neither of them (a journal does
//     both at once; btrfs, whose log of a synced directory holds just what it needs, does not);
//   - writes of one file in any combination, each cut to sectors; its size and attributes independently of its bytes.
// This is weaker than what ext4 does with its one journal, so what survives here survives there. crash() makes one such state, drawn
// from a seed. Thread-safe.
#pragma once
#include <functional>
#include <map>
#include <mutex>

#include "chunk/dir/file_system.h"
#include "io/clock.h"

namespace quarry::chunk::dir {

class MemoryFileSystem : public FileSystem, public std::enable_shared_from_this<MemoryFileSystem> {
 public:
  static std::shared_ptr<MemoryFileSystem> create() { return std::make_shared<MemoryFileSystem>(); }
  MemoryFileSystem();

  // A copy as a power cut at this moment could have left it. ordered: names of all directories keep one common order, as with one journal.
  std::shared_ptr<MemoryFileSystem> crash(uint64_t seed, bool ordered);

  // Called before each operation; an error makes it fail. "write", "sync", "rename", ...; null: none.
  using Hook = std::function<Result<void>(const char* operation, const std::string& path)>;
  void set_hook(Hook hook);
  void set_attributes_supported(bool supported);
  // As somebody else would, behind the back of who keeps open files. Durable.
  void poke(const std::string& path, const std::function<void(std::string& content)>& change, bool keep_time);
  // Every plain file and its bytes.
  std::map<std::string, std::string> all();
  uint64_t operations();  // so far

  const std::string& root() const override { return root_; }
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Result<FileInfo> info(const std::string& path) override;
  Result<std::vector<DirectoryEntry>> list(const std::string& path) override;
  Result<void> make_directory(const std::string& path) override;
  Result<void> remove_directory(const std::string& path) override;
  Result<void> rename(const std::string& from, const std::string& to) override;
  Result<void> link(const std::string& from, const std::string& to) override;
  Result<void> remove(const std::string& path) override;
  Result<void> sync_directory(const std::string& path) override;
  Result<FileSystemSpace> space() override { return FileSystemSpace{kGiB, kGiB / 2, false}; }
  Result<void> check_root() override;
  Result<std::unique_ptr<File>> lock(const std::string& path) override;

 private:
  friend class MemoryFile;
  struct Write {
    uint64_t offset = 0;
    std::string bytes;
  };
  struct Node {
    uint64_t number = 0;
    bool directory = false;
    int64_t modified_ns = 0, changed_ns = 0;
    uint64_t links = 0;
    // A file: as it is, as it is durable, and the writes in between.
    std::string content, durable_content;
    std::map<std::string, std::string> attributes, durable_attributes;
    std::vector<std::map<std::string, std::string>> attribute_steps;
    std::vector<Write> writes;
    // A directory.
    std::map<std::string, uint64_t> names, durable_names;
  };
  // One change of names; of two names for a rename within a directory.
  struct NameChange {
    struct Side {
      uint64_t directory = 0;
      std::string name;
      uint64_t node = 0;  // 0: the name goes
    };
    std::vector<Side> sides;
    uint64_t emptied = 0;   // the directory that this removes: it can be gone only if all that was in it is
    uint64_t moved_to = 0;  // the old name goes: only if the new one has come to this directory
  };
  Result<void> enter(const char* operation, const std::string& path);
  Node* find(const std::string& path);
  Result<std::pair<Node*, std::string>> parent_and_name(const std::string& path);
  void change(NameChange change);
  void apply(const NameChange& change, bool durable);
  std::shared_ptr<MemoryFileSystem> copy();

  const std::string root_ = "memory";
  std::recursive_mutex mutex_;  // a hook may take a picture
  Hook hook_;
  bool attributes_supported_ = true;
  bool locked_ = false;
  int64_t clock_ns_ = 1'700'000'000'000'000'000;
  uint64_t operations_ = 0;
  uint64_t next_ = 2;  // 1 is the root
  std::map<uint64_t, Node> nodes_;
  std::vector<NameChange> pending_;  // not durable in all their directories, in order
};

}  // namespace quarry::chunk::dir
