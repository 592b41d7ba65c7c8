#include "meta/checkpoint.h"

#include "codec/crc32c.h"

namespace quarry::meta {
namespace {

constexpr uint8_t kAppliedVersion = 1;
constexpr size_t kNameMax = 255;

}  // namespace

std::string Applied::encode() const {
  std::string out;
  Encoder(out).u8(kAppliedVersion).u64(frame).u64(version).u32(check).u64(log_bytes).bytes(store.bytes);
  return out;
}

Result<Applied> Applied::decode(std::string_view value) {
  Decoder in(value);
  if (const uint8_t version = in.u8(); version != kAppliedVersion) return fail(Code::incompatible, "an applied row of version {}", version);
  Applied applied;
  applied.frame = in.u64();
  applied.version = in.u64();
  applied.check = in.u32();
  applied.log_bytes = in.u64();
  const ByteView store = in.bytes(applied.store.bytes.size());
  TRY(in.finish("the applied row"));
  std::copy(store.begin(), store.end(), applied.store.bytes.begin());
  return applied;
}

std::string seal(std::string bytes) {
  const uint32_t crc = crc32c(0, bytes_of(bytes));
  Encoder(bytes).u32(crc);
  return bytes;
}

Result<std::string_view> unseal(std::string_view bytes, std::string_view what) {
  if (bytes.size() < 4) return fail(Code::corrupt, "{} is cut short", what);
  const std::string_view body = bytes.substr(0, bytes.size() - 4);
  if (crc32c(0, bytes_of(body)) != load_le<uint32_t>(bytes_of(bytes).last(4).data()))
    return fail(Code::corrupt, "{} fails its checksum", what);
  return body;
}

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameMax && name.front() != '.' && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

void CheckpointEntry::encode(Encoder& out) const { out.text(name).text(stored).u64(size).u32(crc); }

Result<CheckpointEntry> CheckpointEntry::decode(Decoder& in) {
  CheckpointEntry entry;
  entry.name = std::string(in.text(kNameMax));
  entry.stored = std::string(in.text(2 * kNameMax));
  entry.size = in.u64();
  entry.crc = in.u32();
  TRY(in.check("a file of a metadata checkpoint"));
  if (!is_plain_file_name(entry.name)) return fail(Code::corrupt, "a metadata checkpoint names a file that cannot be");
  return entry;
}

std::string CheckpointExtra::encode() const {
  std::string out;
  Encoder to(out);
  to.u32(kCheckpointMagic).u16(kCheckpointVersion).u16(0).text(applied.encode()).varint(files.size());
  for (const auto& file : files) file.encode(to);
  return seal(std::move(out));
}

Result<CheckpointExtra> CheckpointExtra::decode(std::string_view bytes) {
  TRY_ASSIGN(const std::string_view body, unseal(bytes, "the description of the metadata checkpoint"));
  Decoder in(body);
  if (in.u32() != kCheckpointMagic) return fail(Code::corrupt, "the description of the metadata checkpoint has no magic number");
  const uint16_t version = in.u16(), flags = in.u16();
  if (in.ok() && (version != kCheckpointVersion || flags != 0)) {
    return fail(Code::incompatible, "a metadata checkpoint of version {}, flags {:#x}; this program reads version {}", version, flags,
                kCheckpointVersion);
  }
  CheckpointExtra extra;
  const std::string_view applied = in.text(256);
  TRY(in.check("the description of the metadata checkpoint"));
  TRY_ASSIGN(extra.applied, Applied::decode(applied));
  const uint64_t count = in.varint();
  if (count > kCheckpointFilesMax) return fail(Code::corrupt, "a metadata checkpoint of {} files", count);
  for (uint64_t i = 0; i < count; ++i) {
    TRY_ASSIGN(CheckpointEntry entry, CheckpointEntry::decode(in));
    extra.files.push_back(std::move(entry));
  }
  TRY(in.finish("the description of the metadata checkpoint"));
  return extra;
}

}  // namespace quarry::meta
