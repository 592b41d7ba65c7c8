#include "chunk/kfs/directory.h"

#include <filesystem>

namespace quarry::chunk::kfs {
namespace {

bool is_remnant(const std::string& name) {
  return name == "kfs.lock" || name.starts_with("kfs.probe") || name == std::string(kDescriptorName) + ".new";
}

}  // namespace

Result<Descriptor> read_descriptor(Files& files, const std::string& directory) {
  const std::string path = directory + "/" + std::string(kDescriptorName);
  auto bytes = read_whole_file(files, path, kDescriptorBytesMax);
  if (!bytes && bytes.error().code() == Code::too_large) return fail(Code::corrupt, "{}", bytes.error().context());
  if (!bytes && bytes.error().code() == Code::not_found) return fail(Code::not_found, "{} holds no kfs store", directory);
  if (!bytes) return std::move(bytes).error();
  auto descriptor = decode_descriptor(*bytes);
  if (!descriptor) return std::move(descriptor).error().with(path);
  return descriptor;
}

Result<std::optional<std::string>> content_of(Files& files, const std::string& directory) {
  const auto names = files.children(directory);
  if (!names && names.error().code() == Code::not_found) return std::optional<std::string>();
  if (!names) return names.error();
  for (const auto& name : *names) {
    if (name == kDescriptorName) return std::optional<std::string>("a kfs store");
  }
  for (const auto& name : *names) {
    if (name == "lost+found") continue;  // every new ext file system has one
    if (!is_remnant(name)) return std::optional<std::string>(fmt::format("{} entries, '{}' among them", names->size(), name));
  }
  return std::optional<std::string>();
}

Result<void> create_store(Files& files, const std::string& directory, const Descriptor& descriptor) {
  auto made = files.make_directory(directory);
  if (!made && made.error().code() == Code::not_found)
    return fail(Code::invalid_argument, "{} cannot be made: its parent directory does not exist", directory);
  if (!made) return made;
  auto names = files.children(directory);
  if (!names) return fail(Code::invalid_argument, "{} is not a directory that can be used: {}", directory, names.error().context());
  TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::take(directory));
  // Without its descriptor a store is none, so a creation cut short leaves something that is recognised as nothing.
  const std::string path = directory + "/" + std::string(kDescriptorName);
  if (files.exists(path)) {
    TRY(files.remove(path));
    TRY(files.sync_directory(directory));
  }
  std::error_code error;
  std::filesystem::remove_all(directory + "/buckets", error);
  if (error) return fail(Code::io_error, "{}/buckets: {}", directory, error.message());
  return replace_file(files, path, bytes_of(encode_descriptor(descriptor)));
}

}  // namespace quarry::chunk::kfs
