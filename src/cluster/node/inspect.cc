#include "cluster/node/inspect.h"

#include "base/coding.h"
#include "cluster/cluster.h"
#include "cluster/drives/drive_label.h"
#include "cluster/log/metadata_log_roots.h"
#include "cluster/map/chunk_ids.h"
#include "meta/log_frame.h"

namespace quarry::cluster {
namespace {

constexpr size_t kListBatch = 4096;
constexpr uint32_t kFrameHeaderSize = 32;

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 32 || static_cast<unsigned char>(c) > 126) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string describe_frame(ByteView bytes) {
  Decoder in(bytes);
  const uint32_t magic = in.u32();
  const uint16_t version = in.u16();
  in.u16();
  const uint64_t epoch = in.u64();
  const uint64_t number = in.u64();
  const uint64_t length = in.u64();
  if (!in.ok() || magic != 0x52464d51) return "\"error\": \"no frame header\"";
  std::string out = fmt::format("\"version\": {}, \"epoch\": {}, \"number\": {}, \"bytes\": {}", version, epoch, number, length);
  const auto frame = meta::decode_log_frame(bytes.subspan(kFrameHeaderSize));
  if (!frame) return out + ", \"error\": " + quoted(frame.error().to_string());
  const meta::LogFrameHeader& h = frame->header;
  return out +
         fmt::format(
             ", \"store\": \"{}\", \"first_version\": {}, \"transactions\": {}, \"previous_check\": \"{:08x}\", \"check\": \"{:08x}\"",
             h.store.to_string(), h.first_version, h.transactions, h.previous_check, h.check);
}

std::string describe_root(ByteView bytes, const ChunkName& name) {
  const Result<Root> root = decode_root(bytes, name.serial, name.stripe);
  if (!root) return "\"error\": " + quoted(root.error().to_string());
  const char* kind = root->sequence == kSequencePrepared      ? "prepared"
                     : root->sequence == kSequenceEstablished ? "established"
                                                              : "checkpoint";
  std::string out = fmt::format("\"version\": {}, \"epoch\": {}, \"sequence\": {}, \"kind\": \"{}\", \"first_frame\": {}", root->version,
                                root->epoch, root->sequence, kind, root->first);
  if (root->version >= kRootVersion) {
    out += ", \"recovered_from\": [";
    for (size_t i = 0; i < root->line.size(); ++i)
      out += fmt::format("{}{{\"epoch\": {}, \"first_frame\": {}}}", i == 0 ? "" : ", ", root->line[i].epoch, root->line[i].first);
    out += "]";
  }
  if (!root->manifest) return out;
  out += fmt::format(", \"checkpoint_frame\": {}, \"files\": [", root->manifest->frame);
  for (size_t i = 0; i < root->manifest->files.size(); ++i) {
    const meta::CheckpointFile& file = root->manifest->files[i];
    out += fmt::format("{}{{\"name\": {}, \"bytes\": {}, \"handle\": \"{:x}\"}}", i == 0 ? "" : ", ", quoted(file.name), file.size,
                       file.handle);
  }
  return out + "]";
}

std::string describe_drive_label(const std::string& text) {
  if (text.empty()) return "null";
  const auto label = DriveLabel::decode(text);
  if (!label) return "{\"error\": " + quoted(label.error().to_string()) + "}";
  std::string out = fmt::format("{{\"cluster\": \"{}\", \"drive_number\": {}, \"epoch\": {}, \"metadata_copies\": {}, \"drives\": [",
                                label->cluster.to_string(), label->number, label->epoch, label->metadata_copies);
  for (size_t i = 0; i < label->drives.size(); ++i) {
    const LabelDrive& drive = label->drives[i];
    out += fmt::format("{}{{\"number\": {}, \"drive\": \"{}\", \"domain\": {}, \"path\": {}}}", i == 0 ? "" : ", ", drive.number,
                       drive.id.to_string(), quoted(drive.domain), quoted(drive.path));
  }
  return out + "]}";
}

Task<Result<void>> print_kind(chunk::ChunkStore& store, ChunkKind kind, std::vector<std::string>& lines) {
  auto [from, to] = chunk_range(kind);
  for (;;) {
    CO_TRY_ASSIGN(const auto some, co_await store.list(from, to, kListBatch));
    for (const auto& stat : some) {
      const ChunkName name = chunk_name(stat.id);
      std::string line = fmt::format("{{\"chunk\": \"{}\", \"rewrite\": {}, ", stat.id.to_string(), name.shard);
      if (kind == ChunkKind::metadata_file) {
        line += fmt::format("\"file\": \"{:x}\", \"piece\": {}, \"bytes\": {}", name.serial, name.stripe, stat.size);
      } else {
        const Result<SharedBytes> bytes = co_await store.get(stat.id, 0, stat.size);
        if (!bytes && bytes.error().code() == Code::device_gone) co_return bytes.error();
        if (!bytes)
          line += "\"error\": " + quoted(bytes.error().to_string());
        else
          line += kind == ChunkKind::metadata_frame ? describe_frame(bytes->view()) : describe_root(bytes->view(), name);
      }
      lines.push_back(line + "}");
    }
    if (some.size() < kListBatch) co_return Result<void>{};
    from = some.back().id;
    if (++from.low == 0) ++from.high;
  }
}

std::string list(const std::vector<std::string>& items) {
  if (items.empty()) return "[]";
  std::string out = "[";
  for (size_t i = 0; i < items.size(); ++i) out += (i == 0 ? "\n    " : ",\n    ") + items[i];
  return out + "\n  ]";
}

}  // namespace

Task<Result<std::string>> inspect_metadata(chunk::ChunkStore& store) {
  std::string out = "{\n  \"label\": " + describe_drive_label(store.label());
  constexpr std::array kKinds = {std::pair{ChunkKind::metadata_frame, "metadata_frames"},
                                 std::pair{ChunkKind::metadata_file, "metadata_files"},
                                 std::pair{ChunkKind::metadata_root, "metadata_roots"}};
  for (const auto& [kind, name] : kKinds) {
    std::vector<std::string> lines;
    CO_TRY(co_await print_kind(store, kind, lines));
    out += fmt::format(",\n  \"{}\": {}", name, list(lines));
  }
  co_return out + "\n}";
}

}  // namespace quarry::cluster
