// Adoption: files that were there before Quarry become objects where they lie. Nothing is moved or copied; each is read once.
#include "base/log.h"
#include "chunk/dir/dir_store_impl.h"
#include "chunk/dir/tree_walk.h"
#include "codec/crc32c.h"
#include "codec/digest.h"

namespace quarry::chunk::dir {
namespace {

constexpr uint32_t kReadStep = 4 * kMiB;

// "a/b" and no more: inside the mountpath, outside .quarry.
Result<void> check_path(const std::string& path) {
  if (path.size() > kPathMax) return fail(Code::too_large, "a path of {} bytes: at most {}", path.size(), kPathMax);
  size_t at = 0;
  for (bool first = true;; first = false) {
    const size_t slash = path.find('/', at);
    const std::string_view component = std::string_view(path).substr(at, slash == std::string::npos ? slash : slash - at);
    if (component.empty() || component == "." || component == ".." || component.find('\0') != std::string_view::npos ||
        (first && component == kOwn)) {
      return fail(Code::invalid_argument, "'{}' is no path of a file that can be adopted", path);
    }
    if (slash == std::string::npos) return {};
    at = slash + 1;
  }
}

// Fills in the checksums. Errors: busy (it changes).
Result<void> read_checksums(File& file, FileRecord& record, std::string* md5) {
  Buffer buffer(kReadStep);
  Digest digest(DigestKind::md5);
  for (uint32_t index = 0; index < record.chunk_count() && record.size > 0; ++index) {
    const uint32_t size = record.size_of_chunk(index);
    for (uint32_t at = 0; at < size; at += kReadStep) {
      const auto part = buffer.mutable_view().first(std::min<uint32_t>(kReadStep, size - at));
      TRY_ASSIGN(const size_t got, file.read_at(static_cast<uint64_t>(index) * record.chunk_size + at, part));
      if (got != part.size()) return fail(Code::busy, "it shrank while it was read");
      if (md5 != nullptr) digest.update(part);
      for (size_t done = 0; done < part.size(); done += kBlock) {
        const ByteView block = ByteView(part).subspan(done, std::min<size_t>(kBlock, part.size() - done));
        record.checksums.push_back(crc32c(checksum_seed(record.chunk(index), static_cast<uint32_t>((at + done) / kBlock)), block));
      }
    }
  }
  if (md5 != nullptr) {
    const auto bytes = digest.finish();
    *md5 = std::string(text_of(bytes.view()));
  }
  return {};
}

}  // namespace

Task<Result<DirStore::Adopted>> DirStoreImpl::adopt(Adoption adoption) {
  CO_TRY(writable());
  Use use(*this);
  CO_TRY(check_path(adoption.path));
  CO_TRY(path_of_key(adoption.directory, adoption.name, PathForm::yielding));
  if (index_.find(adoption.first) || index_.file(adoption.first) != nullptr)
    co_return fail(Code::already_exists, "chunk {}", adoption.first.to_string());
  if (index_.shown_at(adoption.path) != nullptr) co_return fail(Code::already_exists, "{} is an object already", full(adoption.path));
  if (const FileEntry* other = index_.shown_as(adoption.directory, adoption.name)) {
    co_return fail(Code::already_exists, "the object '{}' of bucket '{}' is the file {} already: delete that object first", adoption.name,
                   adoption.directory, full(other->path));
  }
  // Of two that write a record into one file the later one's stays.
  if (!adopting_.insert(adoption.path).second) co_return fail(Code::busy, "{} is just being adopted", full(adoption.path));
  struct Adopting {
    std::unordered_set<std::string>& paths;
    const std::string path;
    ~Adopting() { paths.erase(path); }
  } adopting{adopting_, adoption.path};
  Adopted adopted;
  FileRecord record;
  FileInfo info;
  RecordPlace place = RecordPlace::attribute;
  auto done = co_await blocking(*pool_, [&]() -> Result<void> {
    // Opened for writing where that is allowed: attributes need no more than the owner's right, but a file that we may not write is
    // a file that we could not replace either.
    auto opened = files_->open(adoption.path, OpenMode::write);
    if (!opened && opened.error().code() == Code::permission_denied) {
      return fail(Code::permission_denied, "{}: the user who runs quarry may not read and write it: chmod or chown it, then adopt again",
                  full(adoption.path));
    }
    if (!opened) return std::move(opened).error();
    const auto file = std::move(*opened);
    TRY(check_one_file_system(*files_, adoption.path));
    // Else the object could be neither replaced nor deleted.
    if (!files_->check_writable(parent_of(adoption.path))) {
      return fail(
          Code::permission_denied,
          "{}: the user who runs quarry may not write into its directory, so it could be neither replaced nor deleted: chmod or chown "
          "the directory (chattr -i), then adopt again",
          full(adoption.path));
    }
    TRY_ASSIGN(info, file->info());
    if (info.kind != FileKind::file) return fail(Code::invalid_argument, "{} is not a plain file", full(adoption.path));
    // Its other names would go on changing its bytes, and deleting or replacing the object would change theirs.
    if (info.links > 1) {
      return fail(Code::invalid_argument,
                  "{} has {} names (hard links), and the object could not keep its content from the others: give it bytes of its own (cp "
                  "it, and move the copy into its place), then adopt again",
                  full(adoption.path), info.links);
    }
    if (info.size > adoption.size_max)
      return fail(Code::too_large, "{} has {} bytes: at most {} are possible", full(adoption.path), info.size, adoption.size_max);
    TRY(check_shape(adoption.first, info.size, adoption.chunk_size, adoption.stride));
    record.first = adoption.first;
    record.size = info.size;
    record.chunk_size = adoption.chunk_size;
    record.stride = adoption.stride;
    record.modified_ns = info.modified_ns;
    record.directory = adoption.directory;
    record.name = adoption.name;
    record.attributes = adoption.attributes;
    record.attributes.emplace_back(kAdoptedAttribute, "1");
    const auto means = parse_path(adoption.path);
    if (!means || *means != BucketAndKey{adoption.directory, adoption.name}) record.path = adoption.path;
    auto read = read_checksums(*file, record, adoption.want_md5 ? &adopted.md5 : nullptr);
    if (!read) return std::move(read).error().with(full(adoption.path));
    TRY_ASSIGN(const FileInfo after, file->info());
    if (after.size != info.size || after.modified_ns != info.modified_ns)
      return fail(Code::busy, "{} changed while it was read: try again", full(adoption.path));
    TRY_ASSIGN(place, records_.keep(*file, record));
    // Its content may be as new as its record.
    TRY(file->sync());
    // Nor need its name be durable yet.
    return files_->sync_directory(parent_of(adoption.path));
  });
  // Nor the directories on the way: whoever made the tree may have made it just now.
  std::set<std::string> unsure;
  for (std::string above = parent_of(adoption.path); !above.empty(); above = parent_of(above)) {
    if (!adopted_directories_.contains(above)) unsure.insert(above);
  }
  if (done && !unsure.empty()) {
    std::set<std::string> parents;
    for (const auto& one : unsure) parents.insert(parent_of(one));
    done = co_await directory_sync_->sync_all(std::move(parents));
    if (adopted_directories_.size() > kAdoptedDirectoriesMax) adopted_directories_.clear();
    if (done) adopted_directories_.insert(unsure.begin(), unsure.end());
  }
  if (!done) {
    // Of this file alone, not of the mountpath.
    const Code code = done.error().code();
    if (code == Code::not_found || code == Code::permission_denied) co_return std::move(done).error();
    Error error = co_await noted(std::move(done).error(), true);
    co_return error;
  }
  co_await naming_.acquire();
  // A key that is shown moves aside what is in its way and is not in the index yet.
  const auto still = co_await blocking(*pool_, [this, path = adoption.path] { return files_->info(path); });
  if (!still || still->inode != info.inode) {
    naming_.release();
    co_return fail(Code::busy, "{} was moved or replaced while it was adopted: try again", full(adoption.path));
  }
  const bool taken = index_.find(adoption.first) || index_.file(adoption.first) != nullptr || index_.shown_at(adoption.path) != nullptr ||
                     index_.shown_as(adoption.directory, adoption.name) != nullptr;
  if (!taken) {
    auto entry = std::make_unique<FileEntry>();
    entry->first = adoption.first;
    entry->size = record.size;
    entry->stride = record.stride;
    entry->chunk_size = record.chunk_size;
    entry->modified_ns = record.modified_ns;
    entry->inode = info.inode;
    entry->record_in_side_file = place == RecordPlace::side_file;
    FileEntry& added = index_.add(std::move(entry));
    index_.show(added, adoption.path, {adoption.directory, adoption.name});
    count_file(added, 1);
  }
  naming_.release();
  if (taken) co_return fail(Code::already_exists, "{}/{} was taken meanwhile", adoption.directory, adoption.name);
  adopted.size = record.size;
  adopted.modified_ns = record.modified_ns;
  co_return adopted;
}

Task<Result<std::optional<std::string>>> DirStoreImpl::adopted_path(ChunkId first) {
  using Path = std::optional<std::string>;
  CO_TRY(readable());
  Use use(*this);
  const FileEntry* entry = index_.file(first);
  if (entry == nullptr || entry->unfinished) co_return Path();
  const std::string path = entry->path;
  co_return co_await blocking(*pool_, [this, path, first]() -> Result<Path> {
    const auto file = files_->open(path, OpenMode::read);
    if (!file && file.error().code() == Code::not_found) return Path();  // moved or removed meanwhile
    if (!file) return file.error();
    TRY_ASSIGN(const auto found, records_.find(**file, first));
    if (!found || found->record.first != first) return Path();
    const bool adopted = std::ranges::any_of(found->record.attributes, [](const auto& one) { return one.first == kAdoptedAttribute; });
    return adopted ? Path(path) : Path();
  });
}

Task<Result<std::vector<DirStore::Unrecorded>>> DirStoreImpl::unrecorded(std::string under, std::string after, size_t limit) {
  CO_TRY(readable());
  Use use(*this);
  if (!under.empty()) CO_TRY(check_path(under));
  // Which paths are ours is known here; the walk asks for a page of names at a time.
  std::vector<Unrecorded> found;
  for (bool more = true; more && found.size() < limit;) {
    std::vector<Unrecorded> page;
    const size_t page_max = std::max<size_t>(limit, 1024);
    auto files = files_;
    auto walked = co_await blocking(*pool_, [files, under, after, page_max, &page] {
      return visit_tree(*files, under, after, [&](const std::string& path, std::string_view why_not) {
        const auto info = files->info(path);
        if (info) page.push_back({path, info->size, info->modified_ns, std::string(why_not)});
        return page.size() < page_max;
      });
    });
    if (!walked) co_return std::move(walked).error();
    more = !*walked;
    for (auto& one : page) {
      after = one.path;
      if (index_.shown_at(one.path) == nullptr && found.size() < limit) found.push_back(std::move(one));
    }
  }
  co_return found;
}

}  // namespace quarry::chunk::dir
