#include "daemon/root_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace quarry::daemon {
namespace {

constexpr std::string_view kStore = "# store ", kCreating = "# creating ";

std::string list_of(const std::string& root) { return root + "/drives.list"; }

Result<void> sync(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) return errno_error(errno, path);
  const int failed = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (failed != 0) return errno_error(failed, path);
  return {};
}

}  // namespace

Result<RootMemory> read_root_memory(const std::string& root) {
  RootMemory memory;
  const std::string path = list_of(root);
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) return memory;
  std::ifstream in(path);
  if (!in) return fail(Code::io_error, "{} cannot be read", path);
  for (std::string line; std::getline(in, line);) {
    if (line.empty()) continue;
    if (line[0] != '#') {
      memory.drives.push_back(line);
      continue;
    }
    const bool creating = line.starts_with(kCreating);
    if (!creating && !line.starts_with(kStore)) continue;
    auto id = Uuid::parse(std::string_view(line).substr((creating ? kCreating : kStore).size()));
    if (!id) return fail(Code::corrupt, "{}: '{}' names no store", path, line);
    memory.store = *id;
    memory.stage = creating ? RootMemory::Stage::creating : RootMemory::Stage::made;
  }
  if (in.bad()) return fail(Code::io_error, "{} cannot be read", path);
  if (memory.stage == RootMemory::Stage::nothing && !memory.drives.empty()) memory.stage = RootMemory::Stage::made;
  return memory;
}

Result<void> write_root_memory(const std::string& root, const RootMemory& memory) {
  const std::string path = list_of(root), fresh = path + ".new";
  {
    std::ofstream out(fresh, std::ios::trunc);
    out << "# The drives of the node in this directory, one a line; kept by Quarry: quarry device add, replace, remove.\n";
    if (!memory.store.is_nil())
      out << (memory.stage == RootMemory::Stage::creating ? kCreating : kStore) << memory.store.to_string() << '\n';
    for (const auto& drive : memory.drives) out << drive << '\n';
    out.flush();
    if (!out) return fail(Code::io_error, "{} cannot be written", fresh);
  }
  TRY(sync(fresh, O_RDONLY));
  std::error_code error;
  std::filesystem::rename(fresh, path, error);
  if (error) return fail(Code::io_error, "{}: {}", path, error.message());
  return sync(root, O_RDONLY | O_DIRECTORY);
}

bool has_index(const std::string& root) {
  std::error_code error;
  const std::filesystem::directory_iterator entries(root + "/metadata", error);
  return !error && entries != std::filesystem::directory_iterator();
}

}  // namespace quarry::daemon
