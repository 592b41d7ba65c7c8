#include "chunk/dir/inspect.h"

#include "chunk/dir/escape.h"
#include "chunk/dir/records.h"
#include "codec/crc32c.h"

namespace quarry::chunk::dir {
namespace {

constexpr uint32_t kStep = 4 * kMiB;

void note(InspectedFile& file, std::string problem) {
  if (file.problem.empty()) file.problem = std::move(problem);
}

// Reads a chunk's payload, which begins at `begin` of the file, against its checksums.
Result<void> verify_chunk(File& file, uint64_t begin, ChunkId id, uint32_t size, std::span<const uint32_t> checksums, InspectedFile& out) {
  Buffer buffer(kStep);
  for (uint32_t at = 0; at < size; at += kStep) {
    const auto part = buffer.mutable_view().first(std::min<uint32_t>(kStep, size - at));
    TRY_ASSIGN(const size_t got, file.read_at(begin + at, part));
    for (size_t done = 0; done < part.size(); done += kBlock) {
      const size_t length = std::min<size_t>(kBlock, part.size() - done);
      const auto block = static_cast<uint32_t>((at + done) / kBlock);
      const bool right = done + length <= got && crc32c(checksum_seed(id, block), ByteView(part).subspan(done, length)) == checksums[block];
      out.bad_checksums += !right;
    }
  }
  return {};
}

void take_record(const FileRecord& record, InspectedFile& out) {
  out.first = record.first;
  out.recorded_size = record.size;
  out.chunk_size = record.chunk_size;
  out.chunks = record.chunk_count();
  out.stride = record.stride;
  out.recorded_modified_ns = record.modified_ns;
  out.bucket = record.directory;
  out.key = record.name;
  for (const auto& one : record.attributes) {
    if (one.first == kAdoptedAttribute) {
      out.adopted = true;
    } else {
      out.attributes.push_back(one);
    }
  }
}

// The side file whose record means this path, where the file itself does not say whose it is.
std::optional<ChunkId> find_side_file(FileSystem& files, Records& records, const std::string& path) {
  const auto shelves = files.list(kRecords);
  if (!shelves) return std::nullopt;
  for (const auto& shelf : *shelves) {
    const auto names = files.list(fmt::format("{}/{}", kRecords, shelf.name));
    if (!names) continue;
    for (const auto& name : *names) {
      const auto id = ChunkId::parse(name.name);
      const auto record = id ? records.from_side_file(*id) : Result<FileRecord>(id.error());
      if (!record) continue;
      if (record->path == path) return *id;
      for (const PathForm form : {PathForm::plain, PathForm::yielding}) {
        const auto own = path_of_key(record->directory, record->name, form);
        if (record->path.empty() && own && *own == path) return *id;
      }
    }
  }
  return std::nullopt;
}

Result<void> inspect_object(FileSystem& files, Records& records, File& file, bool verify, InspectedFile& out) {
  std::optional<ChunkId> named;
  if (out.what == "hidden") {
    if (const auto id = ChunkId::parse(out.path.substr(out.path.rfind('/') + 1))) named = *id;
  }
  auto found = records.find(file, named);
  if (found && !*found && out.what != "hidden") {
    if (const auto id = find_side_file(files, records, out.path)) found = records.find(file, id);
  }
  if (!found) {
    note(out, "its record cannot be read: " + found.error().to_string());
    return {};
  }
  if (!*found) {
    if (out.what == "hidden") note(out, "it has lost its record");
    if (out.what == "object") out.what = "foreign";
    return {};
  }
  const FileRecord& record = (**found).record;
  take_record(record, out);
  out.record_place = (**found).place == RecordPlace::attribute ? "attribute" : "side file";
  std::vector<bool> absent(record.chunk_count());
  if (const auto list = read_whole(files, place_of(kAbsent, record.first), kRecordBytesMax)) {
    const auto decoded = decode_absent(bytes_of(*list));
    if (decoded && decoded->first == record.first && decoded->absent.size() == absent.size()) absent = decoded->absent;
  }
  out.removed_chunks = static_cast<uint32_t>(std::ranges::count(absent, true));
  for (uint32_t index = 0; index < record.chunk_count() && record.size > 0; ++index) {
    if (absent[index]) continue;
    const uint32_t size = record.size_of_chunk(index);
    out.checksums += div_up(size, kBlock);
    const auto checksums = std::span(record.checksums).subspan(static_cast<size_t>(index) * record.blocks_per_chunk());
    if (verify) TRY(verify_chunk(file, static_cast<uint64_t>(index) * record.chunk_size, record.chunk(index), size, checksums, out));
  }
  out.verified = verify;
  if (out.size != record.size) note(out, fmt::format("it has {} bytes, {} were stored: somebody changed it", out.size, record.size));
  if (out.bad_checksums > 0) note(out, fmt::format("{} of {} blocks differ from what was stored", out.bad_checksums, out.checksums));
  if (!verify && out.modified_ns != record.modified_ns) note(out, "its time is not the recorded one: its bytes may have been changed");
  return {};
}

Result<void> inspect_chunk(File& file, bool verify, InspectedFile& out) {
  const auto payload = payload_of_file_size(out.size);
  if (!payload) {
    note(out, fmt::format("no chunk has a file of {} bytes", out.size));
    return {};
  }
  std::string bytes(chunk_header_bytes(*payload), '\0');
  TRY_ASSIGN(const size_t got, file.read_at(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
  const auto header = got == bytes.size() ? decode_chunk_header(bytes_of(bytes)) : Result<ChunkHeader>(fail(Code::corrupt, "too short"));
  if (!header) {
    note(out, "its header cannot be read: " + header.error().to_string());
    return {};
  }
  out.first = header->id;
  out.recorded_size = header->size;
  out.chunk_size = header->size;
  out.chunks = 1;
  out.checksums = header->checksums.size();
  if (place_of(kChunks, header->id) != out.path) note(out, fmt::format("it is chunk {}, which belongs elsewhere", header->id.to_string()));
  if (header->size != *payload) note(out, fmt::format("its header says {} bytes, its size {}", header->size, *payload));
  if (!verify || header->size != *payload) return {};
  TRY(verify_chunk(file, bytes.size(), header->id, header->size, header->checksums, out));
  out.verified = true;
  if (out.bad_checksums > 0) note(out, fmt::format("{} of {} blocks differ from what was stored", out.bad_checksums, out.checksums));
  return {};
}

}  // namespace

Result<std::optional<InspectedFile>> inspect_file(const std::string& path, bool verify) {
  // The innermost directory above it that is a mountpath.
  for (std::string root = parent_of(path); !root.empty(); root = parent_of(root)) {
    const auto opened = posix_file_system(root);
    if (!opened) continue;
    FileSystem& files = **opened;
    const auto content = read_whole(files, kDescriptorFile, 4096);
    if (!content) continue;
    TRY_ASSIGN(const Descriptor descriptor, decode_descriptor(bytes_of(*content)));
    InspectedFile out;
    out.mountpath = root;
    out.path = path.substr(root.size() + 1);
    out.drive = descriptor.drive;
    TRY_ASSIGN(const auto file, files.open(out.path, OpenMode::read));
    TRY_ASSIGN(const FileInfo info, file->info());
    if (info.kind != FileKind::file) return fail(Code::invalid_argument, "{} is no plain file", path);
    out.size = info.size;
    out.modified_ns = info.modified_ns;
    Records records(files, true);
    records.set_drive(descriptor.drive);
    const auto under = [&](const char* directory) { return out.path.starts_with(std::string(directory) + "/"); };
    if (under(kChunks)) {
      out.what = "chunk";
      TRY(inspect_chunk(*file, verify, out));
    } else if (under(kRecords)) {
      out.what = "record";
      out.record_place = "side file";
      const auto id = ChunkId::parse(out.path.substr(out.path.rfind('/') + 1));
      const auto record = id ? records.from_side_file(*id) : Result<FileRecord>(id.error());
      if (record) {
        take_record(*record, out);
        out.checksums = record->checksums.size();
      } else {
        note(out, record.error().to_string());
      }
    } else if (under(kAbsent)) {
      out.what = "absent";
      const auto list = read_whole(files, out.path, kRecordBytesMax);
      const auto decoded = list ? decode_absent(bytes_of(*list)) : Result<DecodedAbsent>(list.error());
      if (decoded) {
        out.first = decoded->first;
        out.chunks = static_cast<uint32_t>(decoded->absent.size());
        out.removed_chunks = static_cast<uint32_t>(std::ranges::count(decoded->absent, true));
      } else {
        note(out, decoded.error().to_string());
      }
    } else if (under(kOwn) && !under(kHidden)) {
      out.what = "own";
    } else {
      out.what = under(kHidden) ? "hidden" : "object";
      TRY(inspect_object(files, records, *file, verify, out));
    }
    return std::optional(std::move(out));
  }
  return std::optional<InspectedFile>();
}

}  // namespace quarry::chunk::dir
