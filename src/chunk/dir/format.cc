#include "chunk/dir/format.h"

#include "chunk/chunk_store.h"
#include "codec/crc32c.h"

namespace quarry::chunk::dir {
namespace {

constexpr uint32_t kDescriptorMagic = 0x4d524451;  // "QDRM"
constexpr uint32_t kLabelMagic = 0x4c524451;       // "QDRL"
constexpr uint32_t kRecordMagic = 0x46524451;      // "QDRF"
constexpr uint32_t kChunkMagic = 0x43524451;       // "QDRC"
constexpr uint32_t kAbsentMagic = 0x41524451;      // "QDRA"
constexpr uint8_t kRecordHere = 0, kRecordElsewhere = 1;
constexpr uint32_t kAttributesMax = 1024, kNameBytesMax = 64 * kKiB;
constexpr uint32_t kLabelBytesMax = 64 * kKiB;

void put_id(Encoder& out, ChunkId id) { out.u64(id.high).u64(id.low); }
ChunkId take_id(Decoder& in) {
  ChunkId id;
  id.high = in.u64();
  id.low = in.u64();
  return id;
}

std::string begin(uint32_t magic) {
  std::string out;
  Encoder(out).u32(magic).u16(kFormatVersion);
  return out;
}
std::string seal(std::string out) {
  const uint32_t crc = crc32c(0, bytes_of(out));
  Encoder(out).u32(crc);
  return out;
}

// The structure without magic, version and checksum, all of which hold.
Result<ByteView> unseal(ByteView bytes, uint32_t magic, const char* what) {
  if (bytes.size() < 10) return fail(Code::corrupt, "{}: {} bytes are too few", what, bytes.size());
  if (load_le<uint32_t>(bytes.data()) != magic) return fail(Code::corrupt, "{}: no magic", what);
  const uint32_t crc = load_le<uint32_t>(bytes.data() + bytes.size() - 4);
  if (crc32c(0, bytes.first(bytes.size() - 4)) != crc) return fail(Code::corrupt, "{}: fails its checksum", what);
  const uint16_t version = load_le<uint16_t>(bytes.data() + 4);
  if (version != kFormatVersion)
    return fail(Code::incompatible, "{}: format {}, this program knows {}: use a newer quarry", what, version, kFormatVersion);
  return bytes.subspan(6, bytes.size() - 10);
}

}  // namespace

std::string shelf_of(ChunkId id) {
  uint8_t bytes[16];
  store_le(bytes, id.high);
  store_le(bytes + 8, id.low);
  return fmt::format("{:02x}", crc32c(0, bytes) & 0xff);
}
std::string place_of(const char* directory, ChunkId id) { return fmt::format("{}/{}/{}", directory, shelf_of(id), id.to_string()); }

uint32_t checksum_seed(ChunkId id, uint32_t block) {
  uint8_t bytes[20];
  store_le(bytes, id.high);
  store_le(bytes + 8, id.low);
  store_le(bytes + 16, block);
  return crc32c(0, bytes);
}

std::string encode_descriptor(const Descriptor& descriptor) {
  std::string out = begin(kDescriptorMagic);
  Encoder(out).bytes(descriptor.drive.bytes).bytes(descriptor.cluster.bytes).u64(descriptor.fencing_epoch);
  return seal(std::move(out));
}
Result<Descriptor> decode_descriptor(ByteView bytes) {
  TRY_ASSIGN(const ByteView body, unseal(bytes, kDescriptorMagic, "mountpath descriptor"));
  Decoder in(body);
  Descriptor out;
  const ByteView drive = in.bytes(16);
  const ByteView cluster = in.bytes(16);
  out.fencing_epoch = in.u64();
  TRY(in.finish("mountpath descriptor"));
  std::memcpy(out.drive.bytes.data(), drive.data(), 16);
  std::memcpy(out.cluster.bytes.data(), cluster.data(), 16);
  return out;
}

std::string encode_label(std::string_view label) {
  std::string out = begin(kLabelMagic);
  Encoder(out).text(label);
  return seal(std::move(out));
}
Result<std::string> decode_label(ByteView bytes) {
  TRY_ASSIGN(const ByteView body, unseal(bytes, kLabelMagic, "mountpath label"));
  Decoder in(body);
  std::string label(in.text(kLabelBytesMax));
  TRY(in.finish("mountpath label"));
  return label;
}

Result<void> check_shape(ChunkId first, uint64_t size, uint32_t chunk_size, uint64_t stride) {
  if (chunk_size == 0 || chunk_size > kChunkSizeMax)
    return fail(Code::invalid_argument, "chunks of {} bytes: from 1 to {}", chunk_size, kChunkSizeMax);
  const uint64_t count = size == 0 ? 1 : div_up(size, chunk_size);
  if (count > UINT32_MAX) return fail(Code::too_large, "a file of {} chunks", count);
  uint64_t last = 0;
  if (count > 1 && (stride == 0 || __builtin_mul_overflow(count - 1, stride, &last) || __builtin_add_overflow(first.low, last, &last))) {
    return fail(Code::invalid_argument, "chunk {} with stride {}: the ids of {} chunks run over", first.to_string(), stride, count);
  }
  return {};
}

std::string encode_record(const FileRecord& record) {
  std::string out = begin(kRecordMagic);
  Encoder to(out);
  to.u8(kRecordHere).bytes(record.drive.bytes);
  put_id(to, record.first);
  to.u64(record.size).u32(record.chunk_size).u64(record.stride).u64(static_cast<uint64_t>(record.modified_ns));
  to.text(record.directory).text(record.name).text(record.path).varint(record.attributes.size());
  for (const auto& [name, value] : record.attributes) to.text(name).text(value);
  to.varint(record.checksums.size());
  out.append(reinterpret_cast<const char*>(record.checksums.data()), record.checksums.size() * sizeof(uint32_t));
  return seal(std::move(out));
}
std::string encode_record_pointer(Uuid drive, ChunkId first) {
  std::string out = begin(kRecordMagic);
  Encoder to(out);
  to.u8(kRecordElsewhere).bytes(drive.bytes);
  put_id(to, first);
  return seal(std::move(out));
}
Result<DecodedRecord> decode_record(ByteView bytes) {
  TRY_ASSIGN(const ByteView body, unseal(bytes, kRecordMagic, "file record"));
  Decoder in(body);
  DecodedRecord out;
  const uint8_t kind = in.u8();
  FileRecord& record = out.record;
  if (const ByteView drive = in.bytes(16); drive.size() == 16) std::memcpy(record.drive.bytes.data(), drive.data(), 16);
  record.first = take_id(in);
  if (kind == kRecordElsewhere) {
    TRY(in.finish("file record"));
    out.is_pointer = true;
    return out;
  }
  if (kind != kRecordHere) return fail(Code::corrupt, "file record: unknown kind {}", kind);
  record.size = in.u64();
  record.chunk_size = in.u32();
  record.stride = in.u64();
  record.modified_ns = static_cast<int64_t>(in.u64());
  record.directory = in.text(kNameBytesMax);
  record.name = in.text(kNameBytesMax);
  record.path = in.text(kNameBytesMax);
  const uint64_t attributes = in.varint();
  if (attributes > kAttributesMax) return fail(Code::corrupt, "file record: {} attributes", attributes);
  for (uint64_t i = 0; i < attributes && in.ok(); ++i) {
    const std::string_view name = in.text(kNameBytesMax);
    const std::string_view value = in.text(kNameBytesMax);
    record.attributes.emplace_back(name, value);
  }
  const uint64_t checksums = in.varint();
  TRY(in.check("file record"));
  if (!check_shape(record.first, record.size, record.chunk_size, record.stride))
    return fail(Code::corrupt, "file record: its sizes contradict each other");
  if (checksums != record.block_count() || in.remaining() != checksums * sizeof(uint32_t)) {
    return fail(Code::corrupt, "file record: {} checksums for {} blocks", checksums, record.block_count());
  }
  record.checksums.resize(checksums);
  const ByteView values = in.bytes(checksums * sizeof(uint32_t));
  if (!values.empty()) std::memcpy(record.checksums.data(), values.data(), values.size());
  TRY(in.finish("file record"));
  return out;
}

std::string encode_chunk_header(const ChunkHeader& header) {
  std::string out = begin(kChunkMagic);
  Encoder to(out);
  to.u8(header.stream).u8(0);
  put_id(to, header.id);
  to.u32(header.size).u32(0).u32(static_cast<uint32_t>(header.checksums.size()));
  out.append(reinterpret_cast<const char*>(header.checksums.data()), header.checksums.size() * sizeof(uint32_t));
  return seal(std::move(out));
}
Result<ChunkHeader> decode_chunk_header(ByteView bytes) {
  if (bytes.size() < chunk_header_bytes(0)) return fail(Code::corrupt, "chunk header: {} bytes are too few", bytes.size());
  const auto size = load_le<uint32_t>(bytes.data() + 24);
  if (size > kChunkSizeMax || bytes.size() < chunk_header_bytes(size)) return fail(Code::corrupt, "chunk header: a size of {}", size);
  TRY_ASSIGN(const ByteView body, unseal(bytes.first(chunk_header_bytes(size)), kChunkMagic, "chunk header"));
  Decoder in(body);
  ChunkHeader out;
  out.stream = in.u8();
  const uint8_t zero = in.u8();
  out.id = take_id(in);
  out.size = in.u32();
  const uint32_t reserved = in.u32();
  const uint32_t checksums = in.u32();
  TRY(in.check("chunk header"));
  if (zero != 0 || reserved != 0 || checksums != div_up(out.size, kBlock))
    return fail(Code::corrupt, "chunk header: its fields contradict each other");
  out.checksums.resize(checksums);
  const ByteView values = in.bytes(checksums * sizeof(uint32_t));
  TRY(in.finish("chunk header"));
  if (!values.empty()) std::memcpy(out.checksums.data(), values.data(), values.size());
  return out;
}
Result<uint32_t> payload_of_file_size(uint64_t file_size) {
  // Payloads of n blocks make files of header(n) + (n - 1) blocks + 1 .. header(n) + n blocks: ranges that do not meet.
  const uint64_t blocks = file_size <= chunk_header_bytes(0) ? 0 : div_up(file_size - chunk_header_bytes(0), kBlock + 4);
  const uint64_t header = chunk_header_bytes(blocks * kBlock);
  if (file_size < header || file_size - header > kChunkSizeMax || chunk_header_bytes(file_size - header) != header) {
    return fail(Code::out_of_range, "no chunk makes a file of {} bytes", file_size);
  }
  return static_cast<uint32_t>(file_size - header);
}

std::string encode_absent(ChunkId first, const std::vector<bool>& absent) {
  std::string out = begin(kAbsentMagic);
  Encoder to(out);
  put_id(to, first);
  to.u32(static_cast<uint32_t>(absent.size()));
  for (size_t i = 0; i < absent.size(); i += 8) {
    uint8_t bits = 0;
    for (size_t j = i; j < std::min(i + 8, absent.size()); ++j) bits |= static_cast<uint8_t>(absent[j] << (j - i));
    to.u8(bits);
  }
  return seal(std::move(out));
}
Result<DecodedAbsent> decode_absent(ByteView bytes) {
  TRY_ASSIGN(const ByteView body, unseal(bytes, kAbsentMagic, "list of removed chunks"));
  Decoder in(body);
  DecodedAbsent out;
  out.first = take_id(in);
  const uint32_t count = in.u32();
  const ByteView bits = in.bytes(div_up(count, 8));
  TRY(in.finish("list of removed chunks"));
  out.absent.resize(count);
  for (size_t i = 0; i < count; ++i) out.absent[i] = (bits[i / 8] >> (i % 8) & 1) != 0;
  return out;
}

std::vector<uint32_t> checksums_of(ChunkId id, const std::vector<ByteView>& parts) {
  std::vector<uint32_t> checksums;
  size_t filled = 0;
  uint32_t crc = 0;
  for (ByteView part : parts) {
    while (!part.empty()) {
      if (filled == 0) crc = checksum_seed(id, static_cast<uint32_t>(checksums.size()));
      const size_t take = std::min<size_t>(part.size(), kBlock - filled);
      crc = crc32c(crc, part.first(take));
      part = part.subspan(take);
      filled += take;
      if (filled == kBlock) {
        checksums.push_back(crc);
        filled = 0;
      }
    }
  }
  if (filled > 0) checksums.push_back(crc);
  return checksums;
}

}  // namespace quarry::chunk::dir
