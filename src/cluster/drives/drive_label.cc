#include "cluster/drives/drive_label.h"

#include "base/coding.h"
#include "cluster/cluster.h"
#include "codec/crc32c.h"

namespace quarry::cluster {
namespace {
constexpr uint32_t kMagic = 0x424c4451;  // "QDLB"
constexpr uint16_t kVersion = 1;
constexpr size_t kDrivesMax = 1024;

Uuid read_uuid(Decoder& in) {
  Uuid id;
  const ByteView bytes = in.bytes(id.bytes.size());
  if (in.ok()) std::memcpy(id.bytes.data(), bytes.data(), bytes.size());
  return id;
}
}  // namespace

std::string DriveLabel::encode() const {
  std::string out;
  Encoder e(out);
  e.u32(kMagic)
      .u16(kVersion)
      .u16(0)
      .bytes(cluster.bytes)
      .u32(number)
      .u64(epoch)
      .u32(metadata_copies)
      .text(master_key)
      .varint(drives.size());
  for (const LabelDrive& drive : drives) e.u32(drive.number).bytes(drive.id.bytes).text(drive.domain).text(drive.path);
  e.u32(crc32c(0, bytes_of(out)));
  return out;
}

Result<DriveLabel> DriveLabel::decode(std::string_view bytes) {
  if (bytes.size() < 12) return fail(Code::corrupt, "drive label of {} bytes", bytes.size());
  const std::string_view body = bytes.substr(0, bytes.size() - 4);
  Decoder in(body);
  const uint32_t magic = in.u32();
  const uint16_t version = in.u16();
  if (magic != kMagic) return fail(Code::corrupt, "drive label: wrong magic");
  if (version != kVersion) return fail(Code::incompatible, "drive label of version {}; this program reads {}", version, kVersion);
  if (crc32c(0, bytes_of(body)) != load_le<uint32_t>(bytes_of(bytes).data() + body.size()))
    return fail(Code::corrupt, "drive label: checksum");
  in.u16();
  DriveLabel label;
  label.cluster = read_uuid(in);
  label.number = in.u32();
  label.epoch = in.u64();
  label.metadata_copies = in.u32();
  label.master_key = in.text(kMasterKeySize);
  const uint64_t count = in.varint();
  TRY(in.check("drive label"));
  if (count > kDrivesMax) return fail(Code::corrupt, "drive label: {} drives", count);
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    LabelDrive drive;
    drive.number = in.u32();
    drive.id = read_uuid(in);
    drive.domain = in.text();
    drive.path = in.text();
    label.drives.push_back(std::move(drive));
  }
  TRY(in.finish("drive label"));
  if (label.metadata_copies < 1 || label.metadata_copies > 32 || label.number == 0 || label.master_key.size() != kMasterKeySize) {
    return fail(Code::corrupt, "drive label: drive {}, {} copies, key of {} bytes", label.number, label.metadata_copies,
                label.master_key.size());
  }
  return label;
}

Result<LabelSummary> describe_label(const std::string& bytes) {
  TRY_ASSIGN(DriveLabel label, DriveLabel::decode(bytes));
  LabelSummary summary{.cluster = label.cluster, .drive_number = label.number, .map_epoch = label.epoch, .drives = {}};
  for (const LabelDrive& drive : label.drives)
    summary.drives.push_back(fmt::format("{} {} {} domain {}", drive.number, drive.id.to_string(), drive.path, drive.domain));
  return summary;
}

}  // namespace quarry::cluster
