#include "cluster/log/metadata_log_roots.h"

#include "base/coding.h"

namespace quarry::cluster {
namespace {

constexpr uint32_t kRootMagic = 0x54524d51;  // "QMRT"

// The stretches join the checkpoint to the epoch without a gap, each later than the one before.
bool is_sound(const Root& root) {
  if (root.first == 0 || root.base() == UINT64_MAX) return false;
  if (root.version < kRootVersion) return true;
  if (root.line.empty()) return root.first <= root.base() + 1;
  if (root.line.front().first != root.base() + 1) return false;
  Stretch before;
  for (const Stretch& stretch : root.line) {
    if (stretch.epoch <= before.epoch || stretch.first <= before.first) return false;
    before = stretch;
  }
  return before.epoch < root.epoch && before.first < root.first;
}

}  // namespace

std::string encode_root(const Root& root) {
  CHECK(root.version == kRootVersion && is_sound(root), "a root that no start could follow");
  std::string out;
  Encoder e(out);
  e.u32(kRootMagic).u16(kRootVersion).u16(0).u64(root.epoch).u32(root.sequence).u64(root.first).u8(root.manifest ? 1 : 0);
  if (root.manifest) {
    e.u64(root.manifest->frame).text(root.manifest->extra).varint(root.manifest->files.size());
    for (const meta::CheckpointFile& file : root.manifest->files) e.text(file.name).varint(file.size).varint(file.handle);
  }
  e.varint(root.line.size());
  for (const Stretch& stretch : root.line) e.varint(stretch.epoch).varint(stretch.first);
  return out;
}

Result<Root> decode_root(ByteView bytes, uint64_t epoch, uint32_t sequence) {
  Decoder in(bytes);
  const uint32_t magic = in.u32();
  Root root;
  root.version = in.u16();
  in.u16();
  root.epoch = in.u64();
  root.sequence = in.u32();
  root.first = in.u64();
  const uint8_t has_manifest = in.u8();
  TRY(in.check("metadata root"));
  if (magic != kRootMagic) return fail(Code::corrupt, "metadata root {}.{}: wrong magic", epoch, sequence);
  if (root.version != kRootVersion && root.version != kRootVersionWithoutLine)
    return fail(Code::incompatible, "metadata root of version {}; this program reads 1 to {}", root.version, kRootVersion);
  if (root.epoch != epoch || root.sequence != sequence)
    return fail(Code::corrupt, "metadata root {}.{} says it is {}.{}", epoch, sequence, root.epoch, root.sequence);
  if (has_manifest != 0) {
    meta::CheckpointManifest manifest;
    manifest.frame = in.u64();
    manifest.extra = in.text();
    const uint64_t count = in.varint();
    for (uint64_t i = 0; i < count && in.ok(); ++i) {
      meta::CheckpointFile file;
      file.name = in.text();
      file.size = in.varint();
      file.handle = in.varint();
      manifest.files.push_back(std::move(file));
    }
    root.manifest = std::move(manifest);
  }
  if (root.version >= kRootVersion) {
    const uint64_t count = in.varint();
    for (uint64_t i = 0; i < count && in.ok(); ++i) {
      Stretch stretch;
      stretch.epoch = in.varint();
      stretch.first = in.varint();
      root.line.push_back(stretch);
    }
  }
  TRY(in.finish("metadata root"));
  if (!is_sound(root)) return fail(Code::corrupt, "metadata root {}.{} contradicts itself about what it recovered from", epoch, sequence);
  return root;
}

}  // namespace quarry::cluster
