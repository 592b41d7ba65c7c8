// Prints the structures of a device as JSON text, also of one that is damaged: what cannot be decoded is printed as the error it gives.
#include <charconv>

#include "base/coding.h"
#include "chunk/raw/recovery.h"

namespace quarry::chunk {
namespace {

using namespace raw;  // NOLINT: this file is about nothing else

constexpr const char* kRoles[] = {"free", "extent", "packed", "log"};
constexpr const char* kStates[] = {"open", "sealed", "retired"};

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

// Joins items of a list, each on a line of its own.
std::string list(const std::vector<std::string>& items, int indent) {
  if (items.empty()) return "[]";
  const std::string space(static_cast<size_t>(indent), ' ');
  std::string out = "[";
  for (size_t i = 0; i < items.size(); ++i) out += (i == 0 ? "\n" : ",\n") + space + "  " + items[i];
  return out + "\n" + space + "]";
}

std::string describe(const Superblock& s, uint64_t zone, uint32_t identity) {
  return fmt::format(
      "{{\"offset\": {}, \"format_version\": {}, \"sequence\": {}, \"identity\": \"{:08x}\", \"previous\": \"{:08x}\", \"drive\": \"{}\", "
      "\"cluster\": \"{}\", "
      "\"device_bytes\": {}, \"segment_bytes\": {}, \"segments\": {}, \"log_segment\": {}, \"clean\": {}, \"log_epoch\": {}, \"mounts\": "
      "{}, "
      "\"fencing_epoch\": {}, \"pack_limit\": {}, \"features\": [{}, {}, {}]}}",
      superblock_at(zone, s.sequence), s.version, s.sequence, identity, s.previous, s.drive.to_string(), s.cluster.to_string(),
      s.device_size, s.segment_size, s.segment_count, s.log_segment, s.clean, s.log_epoch, s.mounts, s.fencing_epoch, s.pack_limit,
      s.ignorable, s.read_only, s.refuse);
}

Task<Result<std::vector<std::string>>> superblocks(BlockDevice& device) {
  std::vector<uint64_t> zones;
  for (size_t i = 0; i < kZoneCandidates.size(); ++i) zones.push_back(zone_candidate(i));
  zones.push_back(end_zone(device.info().size));
  std::vector<std::string> lines;
  for (const uint64_t zone : zones) {
    if (zone + kZoneSize > device.info().size) continue;
    Buffer slots(2 * kBlock);
    Result<void> read = co_await device.read(zone, slots.mutable_view());
    if (!read && read.error().code() == Code::device_gone) co_return std::move(read).error();
    for (uint64_t slot = 0; slot < 2; ++slot) {
      const ByteView block = slots.view().subspan(slot * kBlock, kBlock);
      const Result<Superblock> found = read ? decode_superblock(block, zone) : Result<Superblock>(read.error());
      if (found) {
        lines.push_back(describe(*found, zone, superblock_identity(block)));
      } else if (found.error().code() != Code::not_found) {
        lines.push_back(fmt::format("{{\"offset\": {}, \"error\": {}}}", zone + slot * kBlock, quoted(found.error().to_string())));
      }
    }
  }
  co_return lines;
}

std::string describe_slot(const SlotHeader& header, bool with_entries) {
  const SegmentSlot& s = header.slot;
  std::string out = fmt::format(
      "{{\"segment\": {}, \"role\": \"{}\", \"state\": \"{}\", \"generation\": {}, \"slot_sequence\": {}, \"stream\": {}, \"through\": {}, "
      "\"epoch\": {}",
      s.segment, kRoles[static_cast<size_t>(s.role) % 4], kStates[static_cast<size_t>(s.state) % 3], s.generation, s.sequence, s.stream,
      s.through, s.epoch);
  if (s.role == Role::packed)
    out += fmt::format(", \"data_end_block\": {}, \"next_frame\": {}, \"items\": {}, \"dead\": {}", s.data_end, s.next_frame, s.items,
                       s.dead.size());
  if (s.role == Role::extent) out += fmt::format(", \"extents\": {}", s.extents.size());
  if (with_entries) {
    std::vector<std::string> entries;
    for (const auto& e : s.extents) {
      entries.push_back(fmt::format(
          "{{\"chunk\": \"{}\", \"block\": {}, \"blocks\": {}, \"bytes\": {}, \"header_crc\": \"{:08x}\", \"run\": {}, \"runs\": {}}}",
          e.id.to_string(), e.block, e.blocks, e.size, e.header_crc, e.run, e.runs));
    }
    for (const auto& i : s.inventories) entries.push_back(fmt::format("{{\"inventory_block\": {}, \"blocks\": {}}}", i.block, i.blocks));
    out += ", \"entries\": " + list(entries, 4);
  }
  return out + "}";
}

// Both slots of a segment that decode, newest first.
Task<Result<std::vector<SlotHeader>>> slots_of(BlockDevice& device, const Superblock& superblock, uint32_t segment) {
  const Geometry geometry(superblock);
  std::vector<SlotHeader> found;
  for (uint32_t sequence = 0; sequence < 2; ++sequence) {
    const uint64_t offset = geometry.slot_offset(segment, sequence);
    Buffer slot(slot_size(superblock.segment_size));
    Result<void> read = co_await device.read(offset, slot.mutable_view());
    if (!read) {
      if (read.error().code() == Code::device_gone) co_return std::move(read).error();
      continue;
    }
    auto header = decode_slot_header(slot.view().first(kBlock), superblock.drive, segment);
    if (!header) continue;
    if (header->body_bytes <= slot.size() - kBlock) {
      decode_slot_body(*header, slot.view().subspan(kBlock), superblock.segment_size)
          .ignore("printed without its lists when they are damaged");
    }
    found.push_back(std::move(*header));
  }
  std::sort(found.begin(), found.end(), [](const SlotHeader& a, const SlotHeader& b) { return a.slot.sequence > b.slot.sequence; });
  co_return found;
}

Task<Result<std::string>> segments_text(BlockDevice& device, const Superblock& superblock, std::optional<uint32_t> only) {
  std::vector<std::string> lines;
  for (uint32_t segment = only.value_or(0); segment < (only ? *only + 1 : superblock.segment_count); ++segment) {
    CO_TRY_ASSIGN(const auto slots, co_await slots_of(device, superblock, segment));
    if (only) {
      for (const auto& slot : slots) lines.push_back(describe_slot(slot, true));
    } else if (!slots.empty()) {
      lines.push_back(describe_slot(slots.front(), false));
    }
  }
  co_return list(lines, 2);
}

std::string describe_items(const std::vector<FrameItem>& items) {
  std::vector<std::string> lines;
  for (const auto& item : items) {
    lines.push_back(fmt::format("{{\"chunk\": \"{}\", \"offset\": {}, \"bytes\": {}, \"crc\": \"{:08x}\"}}", item.id.to_string(),
                                item.offset, item.size, item.crc));
  }
  return list(lines, 6);
}

// The frames of a packed segment, or the chunk headers of an extent segment, as they lie there, whatever the slots say of them.
Task<Result<std::string>> contents_text(BlockDevice& device, const Superblock& superblock, uint32_t segment, const SegmentSlot& slot) {
  const Geometry geometry(superblock);
  std::vector<std::string> lines;
  Buffer data(geometry.data_bytes());
  CO_TRY_ASSIGN(const uint64_t unreadable, co_await read_tolerant(device, geometry.offset_of(segment), data.mutable_view()));
  const FrameExpectation expectation{superblock.drive, segment, slot.generation, superblock.salt, geometry.data_blocks()};
  for (uint32_t block = 0; block < geometry.data_blocks();) {
    const ByteView bytes = data.view().subspan(static_cast<size_t>(block) * kBlock);
    uint32_t crc = 0, needed = 0, blocks = 1;
    if (slot.role == Role::packed) {
      const auto frame = decode_frame_header(bytes, expectation, &crc, &needed);
      if (frame) {
        blocks = frame->blocks;
        lines.push_back(
            fmt::format("{{\"frame\": {}, \"kind\": \"{}\", \"block\": {}, \"blocks\": {}, \"chain\": \"{:08x}\", \"crc\": \"{:08x}\", "
                        "\"after\": {}, \"items\": {}}}",
                        frame->number, frame->kind == FrameKind::items ? "items" : "inventory", block, frame->blocks, frame->chain, crc,
                        frame->after, describe_items(frame->items)));
      }
    } else {
      const auto header = decode_chunk_header(bytes.first(kBlock), &crc);
      if (header && header->drive == superblock.drive && header->runs.front().block == geometry.block_of(segment) + block) {
        blocks = header->runs.front().blocks;
        lines.push_back(
            fmt::format("{{\"chunk_header\": \"{}\", \"block\": {}, \"blocks\": {}, \"bytes\": {}, \"crc\": \"{:08x}\", \"runs\": {}, "
                        "\"checksums\": {}, \"after\": {}, \"epoch\": {}}}",
                        header->id.to_string(), block, blocks, header->size, crc, header->runs.size(), header->checksums.size(),
                        header->after, header->epoch));
      }
    }
    block += std::max<uint32_t>(1, blocks);
  }
  co_return fmt::format("{{\"unreadable_bytes\": {}, \"found\": {}}}", unreadable, list(lines, 4));
}

// Every copy of the label. Not its text: it holds the cluster's master key.
Task<Result<std::vector<std::string>>> labels(BlockDevice& device, const Superblock& superblock) {
  std::vector<std::string> lines;
  for (const uint64_t zone : superblock.zones) {
    for (uint64_t slot = 0; slot < 2; ++slot) {
      Buffer bytes(kLabelSlotSize);
      Result<void> read = co_await device.read(label_at(zone, slot), bytes.mutable_view());
      if (!read && read.error().code() == Code::device_gone) co_return std::move(read).error();
      const Result<Label> label = read ? decode_label(bytes, zone) : Result<Label>(read.error());
      if (label) {
        lines.push_back(fmt::format("{{\"offset\": {}, \"sequence\": {}, \"drive\": \"{}\", \"bytes\": {}}}", label_at(zone, slot),
                                    label->sequence, label->drive.to_string(), label->text.size()));
      } else if (label.error().code() != Code::not_found) {
        lines.push_back(fmt::format("{{\"offset\": {}, \"error\": {}}}", label_at(zone, slot), quoted(label.error().to_string())));
      }
    }
  }
  co_return lines;
}

std::string describe_record(const LoggedRecord& logged) {
  std::string text = fmt::format("{{\"sequence\": {}, ", logged.sequence);
  if (const auto* put = std::get_if<PutRecord>(&logged.record)) {
    text += fmt::format("\"put\": \"{}\", \"bytes\": {}, \"header_crc\": \"{:08x}\", \"first_block\": {}", put->id.to_string(), put->size,
                        put->header_crc, put->runs.empty() ? 0 : put->runs.front().block);
  } else if (const auto* removal = std::get_if<RemoveRecord>(&logged.record)) {
    text += fmt::format("\"remove\": \"{}\"", removal->id.to_string());
  } else if (const auto* slot = std::get_if<SlotRecord>(&logged.record)) {
    text += fmt::format("\"slot\": {}, \"slot_sequence\": {}, \"role\": \"{}\"", slot->segment, slot->summary.sequence,
                        kRoles[static_cast<size_t>(slot->summary.role) % 4]);
  } else if (const auto* table = std::get_if<TableRecord>(&logged.record)) {
    text += fmt::format("\"table_from\": {}, \"entries\": {}, \"total\": {}", table->first, table->slots.size(), table->total);
  } else if (const auto* tail = std::get_if<TailRecord>(&logged.record)) {
    text += fmt::format("\"tail_of\": {}, \"next_frame\": {}, \"data_end_block\": {}", tail->segment, tail->next_frame, tail->data_end);
  }
  return text + "}";
}

Task<Result<std::string>> log_text(BlockDevice& device, const Superblock& superblock) {
  CO_TRY_ASSIGN(const LogContents log, co_await read_log(device, superblock));
  std::vector<std::string> frames, records;
  for (const auto& found : log.frames) {
    frames.push_back(
        fmt::format("{{\"epoch\": {}, \"number\": {}, \"lane\": {}, \"block\": {}, \"blocks\": {}, \"first_record\": {}, \"records\": {}, "
                    "\"settled\": {}, \"crc\": \"{:08x}\"}}",
                    found.frame.epoch, found.frame.number, found.lane, found.block, found.frame.blocks, found.frame.first,
                    found.frame.records, found.frame.settled, found.crc));
  }
  for (const auto& record : log.records) records.push_back(describe_record(record));
  co_return fmt::format("{{\"epoch\": {}, \"damaged\": {}, \"damage\": {}, \"frames\": {}, \"records\": {}}}", log.epoch, log.damaged,
                        quoted(log.damage), list(frames, 4), list(records, 4));
}

Task<Result<std::string>> chunk_text(BlockDevice& device, const Superblock& superblock, ChunkId id) {
  CO_TRY_ASSIGN(const Recovered state, co_await recover(device, superblock));
  const auto at = std::lower_bound(state.entries.begin(), state.entries.end(), id,
                                   [](const IndexEntry& entry, const ChunkId& wanted) { return entry.id < wanted; });
  if (at == state.entries.end() || at->id != id) co_return fail(Code::not_found, "chunk {} is not on this device", id.to_string());
  std::string text =
      fmt::format("{{\"chunk\": \"{}\", \"bytes\": {}, \"offset\": {}, \"kind\": \"{}\", \"stream\": {}, \"crc\": \"{:08x}\"",
                  id.to_string(), at->size, at->offset(), at->packed() ? "packed" : "extent", at->stream(), at->crc);
  if (!at->packed()) {
    Buffer block(kBlock);
    CO_TRY(co_await device.read(at->offset(), block.mutable_view()));
    uint32_t crc = 0;
    const auto header = decode_chunk_header(block, &crc);
    if (header) {
      std::vector<std::string> runs, sums;
      for (const auto& run : header->runs) runs.push_back(fmt::format("{{\"block\": {}, \"blocks\": {}}}", run.block, run.blocks));
      for (const uint32_t sum : header->checksums) sums.push_back(fmt::format("\"{:08x}\"", sum));
      text += fmt::format(", \"header_valid\": {}, \"runs\": {}, \"checksums\": {}", crc == at->crc, list(runs, 2), list(sums, 2));
    } else {
      text += ", \"header_error\": " + quoted(header.error().to_string());
    }
  }
  co_return text + "}";
}

}  // namespace

Task<Result<std::string>> inspect_raw_device(BlockDevice& device, std::string what) {
  const bool all = what == "all";
  CO_TRY_ASSIGN(const auto copies, co_await superblocks(device));
  std::string text = "{\n  \"superblocks\": " + list(copies, 2);
  if (what == "superblock") co_return text + "\n}";

  CO_TRY_ASSIGN(const SuperblockSet set, co_await SuperblockSet::load(device));
  const Superblock& superblock = set.superblock();
  if (what == "label" || all) {
    CO_TRY_ASSIGN(const auto copies_of_label, co_await labels(device, superblock));
    text += ",\n  \"labels\": " + list(copies_of_label, 2);
  }
  if (what == "segments" || all) {
    CO_TRY_ASSIGN(const std::string segments, co_await segments_text(device, superblock, std::nullopt));
    text += ",\n  \"segments\": " + segments;
  }
  if (what == "log" || all) {
    CO_TRY_ASSIGN(const std::string log, co_await log_text(device, superblock));
    text += ",\n  \"log\": " + log;
  }
  if (what.starts_with("segment ")) {
    uint32_t segment = 0;
    const auto [end, error] = std::from_chars(what.data() + 8, what.data() + what.size(), segment);
    if (error != std::errc{} || end != what.data() + what.size() || segment >= superblock.segment_count) {
      co_return fail(Code::invalid_argument, "'{}' names no segment of this device (0 to {})", what, superblock.segment_count - 1);
    }
    CO_TRY_ASSIGN(const std::string slots, co_await segments_text(device, superblock, segment));
    text += ",\n  \"slots\": " + slots;
    CO_TRY_ASSIGN(const auto newest, co_await slots_of(device, superblock, segment));
    if (!newest.empty() && (newest.front().slot.role == Role::packed || newest.front().slot.role == Role::extent)) {
      CO_TRY_ASSIGN(const std::string contents, co_await contents_text(device, superblock, segment, newest.front().slot));
      text += ",\n  \"contents\": " + contents;
    }
  } else if (what.starts_with("chunk ")) {
    CO_TRY_ASSIGN(const ChunkId id, ChunkId::parse(std::string_view(what).substr(6)));
    CO_TRY_ASSIGN(const std::string chunk, co_await chunk_text(device, superblock, id));
    text += ",\n  \"chunk\": " + chunk;
  } else if (!all && what != "label" && what != "segments" && what != "log") {
    co_return fail(Code::invalid_argument, "'{}' cannot be inspected: superblock, label, segments, segment N, log, chunk ID or all", what);
  }
  co_return text + "\n}";
}

}  // namespace quarry::chunk
