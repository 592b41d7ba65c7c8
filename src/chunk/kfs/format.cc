#include "chunk/kfs/format.h"

#include "base/coding.h"
#include "codec/crc32c.h"

namespace quarry::chunk::kfs {
namespace {

constexpr std::string_view kMagic = "QRYKFSST";
constexpr uint8_t kRecordVersion = 1;
constexpr size_t kDescriptorFixed = 8 + 4 + 2 + 1 + 1 + 1 + 3 + 16 + 16 + 8 + 8 + 32 + 2 + 4;

uint32_t name_seed(std::string_view name) { return crc32c(0x6b667331, bytes_of(name)); }

}  // namespace

// magic 8 | crc u32 of all that follows | version u16 | kind u8 | hash u8 | clean u8 | 3 x 0 | drive 16 | cluster 16 | bucket bytes u64
// | mounts u64 | created 32 | key length u16 | label length u32 | key | label
// version 2: | number of counts u16 | for each, ascending: bucket u8, files u64, payload bytes u64, stored bytes u64, garbage bytes u64
std::string encode_descriptor(const Descriptor& d) {
  std::string body;
  Encoder(body).u16(d.version).u8(static_cast<uint8_t>(d.kind)).u8(d.hash).u8(d.clean ? 1 : 0).u8(0).u16(0);
  Encoder(body).bytes(d.drive.bytes).bytes(d.cluster.bytes).u64(d.bucket_bytes).u64(d.mounts).bytes(d.created);
  Encoder(body)
      .u16(static_cast<uint16_t>(d.key.size()))
      .u32(static_cast<uint32_t>(d.label.size()))
      .bytes(bytes_of(d.key))
      .bytes(bytes_of(d.label));
  if (d.version >= 2) {
    Encoder(body).u16(static_cast<uint16_t>(d.counts.size()));
    for (const auto& [bucket, count] : d.counts)
      Encoder(body).u8(bucket).u64(count.files).u64(count.payload_bytes).u64(count.stored_bytes).u64(count.garbage_bytes);
  }
  std::string out(kMagic);
  Encoder(out).u32(crc32c(0, bytes_of(body))).bytes(bytes_of(body));
  return out;
}

Result<Descriptor> decode_descriptor(std::string_view bytes) {
  if (!bytes.starts_with(kMagic)) return fail(Code::not_found, "the descriptor is not that of a kfs store");
  if (bytes.size() < kDescriptorFixed) return fail(Code::corrupt, "the descriptor is cut off at {} bytes", bytes.size());
  Decoder in(bytes.substr(kMagic.size()));
  const uint32_t checksum = in.u32();
  const bool sound = crc32c(0, in.rest()) == checksum;
  Descriptor d;
  d.version = in.u16();
  const uint8_t kind = in.u8();
  const uint16_t newest = kind == 2 ? format_version(StoreKind::chunks) : format_version(StoreKind::files);
  if (sound && d.version > newest) {
    return fail(Code::incompatible, "the store has format version {}, this program knows up to {}: use a newer quarry", d.version, newest);
  }
  if (!sound) return fail(Code::corrupt, "the descriptor fails its checksum");
  d.kind = static_cast<StoreKind>(kind);
  d.hash = in.u8();
  const uint8_t clean = in.u8(), zero = in.u8();
  const uint16_t zeros = in.u16();
  d.clean = clean == 1;
  const auto copy = [&in](auto& to) {
    const ByteView from = in.bytes(to.size());
    if (from.size() == to.size()) std::copy(from.begin(), from.end(), to.begin());
  };
  copy(d.drive.bytes);
  copy(d.cluster.bytes);
  d.bucket_bytes = in.u64();
  d.mounts = in.u64();
  copy(d.created);
  const size_t key_size = in.u16(), label_size = in.u32();
  d.key = text_of(in.bytes(key_size));
  d.label = text_of(in.bytes(label_size));
  bool ordered = true;
  if (d.version >= 2) {
    const size_t counts = in.u16();
    for (size_t i = 0; i < counts && in.remaining() > 0; ++i) {
      const uint8_t bucket = in.u8();
      ordered = ordered && (d.counts.empty() || d.counts.rbegin()->first < bucket) && d.has_bucket(bucket);
      BucketCount& count = d.counts[bucket];
      count.files = in.u64();
      count.payload_bytes = in.u64();
      count.stored_bytes = in.u64();
      count.garbage_bytes = in.u64();
    }
    ordered = ordered && d.counts.size() == counts;
  }
  TRY(in.finish("kfs descriptor"));
  const bool known = kind == 1 || kind == 2;
  if (d.version == 0 || !known || clean > 1 || zero != 0 || zeros != 0 || d.key.empty() || key_size > kKeyBytesMax ||
      label_size > kLabelBytesMax || d.bucket_bytes == 0 || !ordered) {
    return fail(Code::corrupt, "the descriptor has impossible fields");
  }
  return d;
}

std::string bucket_path(const std::string& directory, size_t bucket) { return fmt::format("{}/buckets/{:02x}", directory, bucket); }

std::string identity_key() { return "#bucket"; }
std::string encode_identity(const Uuid& drive, uint8_t bucket) {
  std::string out;
  Encoder(out).u8(kRecordVersion).u8(bucket).bytes(drive.bytes);
  Encoder(out).u32(crc32c(0, bytes_of(out)));
  return out;
}
bool identity_is_sound(std::string_view value) {
  return value.size() == 22 &&
         load_le<uint32_t>(reinterpret_cast<const uint8_t*>(value.data()) + 18) == crc32c(0, bytes_of(value.substr(0, 18)));
}
Result<void> check_identity(std::string_view value, const Uuid& drive, uint8_t bucket) {
  Decoder in(value);
  const uint8_t version = in.u8(), number = in.u8();
  const ByteView store = in.bytes(16);
  in.u32();
  TRY(in.finish("bucket identity"));
  if (version != kRecordVersion) return fail(Code::incompatible, "record version {}, this program knows {}", version, kRecordVersion);
  if (number != bucket || !std::equal(store.begin(), store.end(), drive.bytes.begin())) {
    return fail(Code::corrupt, "its records say that it is bucket {} of store {}: was a directory exchanged?", number, to_hex(store));
  }
  return {};
}

std::string header_key(StoreKind kind, std::string_view name) {
  return kind == StoreKind::files ? fmt::format("{}!", name) : fmt::format("/{}", name);
}
std::string block_key(std::string_view name, uint64_t index) { return fmt::format("{} {:06}", name, index); }
std::string run_begin(std::string_view name) { return fmt::format("{} ", name); }
std::string run_end(std::string_view name) { return fmt::format("{}\"", name); }  // space, exclamation mark, quotation mark

std::string_view name_of_run_key(std::string_view key) {
  std::string_view name;
  if (key.ends_with('!')) {
    name = key.substr(0, key.size() - 1);
  } else if (key.size() > 7 && key[key.size() - 7] == ' ') {
    name = key.substr(0, key.size() - 7);
  }
  return is_name(name) ? name : std::string_view();
}

bool is_name(std::string_view text) {
  if (text.size() < 2 || text.size() > 128 || text.size() % 2 != 0) return false;
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// version u8 | 3 x 0 | block count u32 | size u64 | checksum u32 of each block | crc u32 of all before, seeded with the name
std::string encode_header(std::string_view name, const Header& header) {
  std::string out;
  Encoder encoder(out);
  encoder.u8(kRecordVersion).u8(0).u16(0).u32(header.blocks()).u64(header.size);
  for (const uint32_t checksum : header.checksums) encoder.u32(checksum);
  encoder.u32(crc32c(name_seed(name), bytes_of(out)));
  return out;
}

Result<Header> decode_header(std::string_view name, std::string_view value) {
  if (value.size() < 20) return fail(Code::corrupt, "the header of {} is cut off", name);
  Decoder in(value);
  const uint8_t version = in.u8();
  const uint32_t zeros = in.u8() | in.u16();
  const uint32_t blocks = in.u32();
  Header header;
  header.size = in.u64();
  if (load_le<uint32_t>(reinterpret_cast<const uint8_t*>(value.data()) + value.size() - 4) !=
      crc32c(name_seed(name), bytes_of(value.substr(0, value.size() - 4)))) {
    return fail(Code::corrupt, "the header of {} fails its checksum", name);
  }
  if (version != kRecordVersion)
    return fail(Code::incompatible, "the header of {} has version {}, this program knows {}", name, version, kRecordVersion);
  if (zeros != 0 || blocks > kKfsBlocksMax || blocks_of(header.size) != blocks || in.remaining() != uint64_t{blocks} * 4 + 4) {
    return fail(Code::corrupt, "the header of {} has impossible fields", name);
  }
  header.checksums.resize(blocks);
  for (auto& checksum : header.checksums) checksum = in.u32();
  return header;
}

uint32_t block_checksum(std::string_view name, uint64_t index, ByteView block) {
  uint8_t number[8];
  store_le<uint64_t>(number, index);
  return crc32c(crc32c(name_seed(name), number), block);
}

}  // namespace quarry::chunk::kfs
