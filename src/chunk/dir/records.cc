#include "chunk/dir/records.h"

namespace quarry::chunk::dir {

Result<std::string> read_whole(FileSystem& files, const std::string& path, uint64_t limit) {
  TRY_ASSIGN(const auto file, files.open(path, OpenMode::read));
  TRY_ASSIGN(const auto info, file->info());
  if (info.kind != FileKind::file) return fail(Code::corrupt, "{}/{} is not a file", files.root(), path);
  if (info.size > limit) return fail(Code::corrupt, "{}/{} has {} bytes: at most {}", files.root(), path, info.size, limit);
  std::string content(info.size, '\0');
  TRY_ASSIGN(const size_t got, file->read_at(0, {reinterpret_cast<uint8_t*>(content.data()), content.size()}));
  content.resize(got);
  return content;
}

Result<void> replace_whole(FileSystem& files, const std::string& path, const std::string& scratch, std::string_view content) {
  const auto write = [&]() -> Result<void> {
    TRY_ASSIGN(const auto file, files.open(scratch, OpenMode::create));
    const ByteView parts[] = {bytes_of(content)};
    TRY(file->write_at(0, parts));
    return file->sync();
  };
  auto written = write();
  if (!written && written.error().code() == Code::already_exists) {  // left by an attempt that failed
    TRY(files.remove(scratch));
    written = write();
  }
  if (written) written = files.rename(scratch, path);
  if (!written) {
    files.remove(scratch).ignore("open removes it; the first error is the one to tell");
    return written;
  }
  return files.sync_directory(parent_of(path));
}

Result<void> ensure_directory(FileSystem& files, const std::string& path) {
  const auto made = files.make_directory(path);
  if (!made && made.error().code() != Code::already_exists) return made;
  return files.sync_directory(parent_of(path));  // also when somebody else is just making it
}

Result<RecordPlace> Records::keep(File& file, FileRecord record) {
  record.drive = drive_;
  const std::string encoded = encode_record(record);
  if (use_attributes_ && encoded.size() <= kAttributeBytesMax) {
    const auto set = file.set_attribute(kRecordAttribute, encoded);
    if (set) return RecordPlace::attribute;
    const Code code = set.error().code();
    if (code != Code::unsupported && code != Code::no_space && code != Code::too_large) return set.error();
  }
  TRY(ensure_directory(files_, fmt::format("{}/{}", kRecords, shelf_of(record.first))));
  TRY(replace_whole(files_, place_of(kRecords, record.first), fmt::format("{}/r-{}", kUnfinished, record.first.to_string()), encoded));
  if (use_attributes_) {
    const auto set = file.set_attribute(kRecordAttribute, encode_record_pointer(drive_, record.first));
    // An attribute that is there already would hide the side file.
    if (!set) {
      const auto old = file.attribute(kRecordAttribute);
      if (old && *old) return set.error();
    }
  }
  return RecordPlace::side_file;
}

Result<std::optional<DecodedRecord>> Records::from_attribute(File& file) {
  if (!use_attributes_) return std::optional<DecodedRecord>();
  auto value = file.attribute(kRecordAttribute);
  if (!value) {
    if (value.error().code() == Code::unsupported) return std::optional<DecodedRecord>();
    return std::move(value).error();
  }
  if (!*value || (*value)->empty()) return std::optional<DecodedRecord>();  // empty: it was let go (erase)
  TRY_ASSIGN(auto decoded, decode_record(bytes_of(**value)));
  if (decoded.record.drive != drive_) return std::optional<DecodedRecord>();
  return std::optional(std::move(decoded));
}

Result<FileRecord> Records::from_side_file(ChunkId first) {
  const std::string path = place_of(kRecords, first);
  TRY_ASSIGN(const std::string content, read_whole(files_, path, kRecordBytesMax));
  auto decoded = decode_record(bytes_of(content));
  if (!decoded) return std::move(decoded).error().with(path);
  if (decoded->is_pointer || decoded->record.first != first || decoded->record.drive != drive_)
    return fail(Code::corrupt, "{}/{} is the record of another file", files_.root(), path);
  return std::move(decoded->record);
}

Result<Lies> Records::look(const std::string& path, const Expected& expected) {
  const auto found = files_.info(path);
  if (!found && found.error().code() == Code::not_found) return Lies::nothing;
  if (!found) return found.error();
  if (found->kind != FileKind::file) return Lies::others;
  const auto file = files_.open(path, OpenMode::read);
  if (!file && file.error().code() == Code::not_found) return Lies::nothing;  // just removed
  if (!file && file.error().code() == Code::permission_denied) return Lies::others;
  if (!file) return file.error();
  TRY_ASSIGN(const FileInfo info, (*file)->info());
  const auto said = from_attribute(**file);
  if (!said && said.error().code() != Code::corrupt && said.error().code() != Code::incompatible) return said.error();
  if (said && *said) return (**said).record.first == expected.first ? Lies::ours : Lies::others;
  return info.size == expected.size && info.modified_ns == expected.modified_ns ? Lies::ours : Lies::others;
}

Result<std::optional<Records::Found>> Records::find(File& file, std::optional<ChunkId> first) {
  TRY_ASSIGN(auto said, from_attribute(file));
  if (said && !said->is_pointer) return std::optional(Found{std::move(said->record), RecordPlace::attribute});
  if (said) first = said->record.first;
  if (!first) return std::optional<Found>();
  auto record = from_side_file(*first);
  if (!record && record.error().code() == Code::not_found) {
    if (!said) return std::optional<Found>();
    return fail(Code::corrupt, "the side file {} is missing", place_of(kRecords, *first));
  }
  if (!record) return std::move(record).error();
  return std::optional(Found{std::move(*record), RecordPlace::side_file});
}

Result<void> Records::erase(File& file, ChunkId first, RecordPlace place) {
  if (use_attributes_) {
    const auto value = file.attribute(kRecordAttribute);
    if (value && *value) TRY(file.set_attribute(kRecordAttribute, ""));
  }
  forget(first, place);
  return {};
}

void Records::forget(ChunkId first, RecordPlace place) {
  if (place == RecordPlace::side_file) files_.remove(place_of(kRecords, first)).ignore("without its file it is removed at open");
}

}  // namespace quarry::chunk::dir
