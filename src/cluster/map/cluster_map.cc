#include "cluster/map/cluster_map.h"

#include <set>

#include "cluster/map/keys.h"

namespace quarry::cluster {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kVersionCause = 2;          // of a drive's row that has a cause
constexpr uint8_t kVersionWhole = 2;          // of a head that names a redundancy which older programs do not know
constexpr uint8_t kAudit = 1, kDisabled = 2;  // flags of a drive row

Uuid read_uuid(Decoder& in) {
  Uuid id;
  const ByteView bytes = in.bytes(id.bytes.size());
  if (in.ok()) std::memcpy(id.bytes.data(), bytes.data(), bytes.size());
  return id;
}

std::string encode_drive(const MapDrive& drive) {
  std::string out;
  const bool has_cause = drive.cause != DriveCause::none;  // an older program reads the others
  Encoder row(out);
  row.u8(has_cause ? kVersionCause : kVersion)
      .bytes(drive.id.bytes)
      .text(drive.path)
      .text(drive.domain)
      .u64(drive.weight)
      .u8(static_cast<uint8_t>(drive.state))
      .u8(static_cast<uint8_t>((drive.audit ? kAudit : 0) | (drive.disabled ? kDisabled : 0)))
      .text(drive.reason);
  if (has_cause) row.u8(static_cast<uint8_t>(drive.cause));
  return out;
}

// Rows of version 1 had it in the first words of the reason.
DriveCause cause_of_words(const MapDrive& drive) {
  const std::string_view reason = drive.reason;
  if (drive.state == DriveState::active) return DriveCause::none;
  if (reason.starts_with("replaced by drive")) return DriveCause::replaced;
  if (drive.state == DriveState::draining) return reason.starts_with("it refuses writes") ? DriveCause::read_only : DriveCause::none;
  if (reason.starts_with("missing"))
    return reason.find("another node has opened this drive") == std::string_view::npos ? DriveCause::away : DriveCause::taken;
  return reason == "removed by force" ? DriveCause::forced : DriveCause::none;
}

Result<MapDrive> decode_drive(uint32_t number, std::string_view bytes) {
  Decoder in(bytes);
  const uint8_t version = in.u8();
  if (in.ok() && version != kVersion && version != kVersionCause) return fail(Code::incompatible, "drive row of version {}", version);
  MapDrive drive;
  drive.number = number;
  drive.id = read_uuid(in);
  drive.path = in.text();
  drive.domain = in.text();
  drive.weight = in.u64();
  const uint8_t state = in.u8();
  const uint8_t flags = in.u8();
  drive.audit = (flags & kAudit) != 0;
  drive.disabled = (flags & kDisabled) != 0;
  drive.reason = in.text();
  const uint8_t cause = version == kVersionCause ? in.u8() : 0;
  TRY(in.finish("drive row"));
  if ((flags & ~(kAudit | kDisabled)) != 0) return fail(Code::incompatible, "drive row {}: flags {}", number, flags);
  if (state < 1 || state > 4) return fail(Code::corrupt, "drive row {}: state {}", number, state);
  if (cause > static_cast<uint8_t>(DriveCause::forced)) return fail(Code::incompatible, "drive row {}: cause {}", number, cause);
  drive.state = static_cast<DriveState>(state);
  drive.cause = version == kVersionCause ? static_cast<DriveCause>(cause) : cause_of_words(drive);
  return drive;
}

void encode_place(Encoder& e, const Place& place) { e.u32(place.drive).u16(place.term); }
Place decode_place(Decoder& in) {
  Place place;
  place.drive = in.u32();
  place.term = in.u16();
  return place;
}

std::string encode_members(const Members& members) {
  std::string out;
  Encoder e(out);
  e.u8(kVersion).u8(static_cast<uint8_t>(members.size()));
  for (const Member& member : members) {
    encode_place(e, member.at);
    e.u8(member.pending ? 1 : 0).u8(static_cast<uint8_t>(member.before.size()));
    for (const Place& place : member.before) encode_place(e, place);
  }
  return out;
}

Result<Members> decode_members(std::string_view bytes) {
  Decoder in(bytes);
  if (const uint8_t version = in.u8(); in.ok() && version != kVersion) return fail(Code::incompatible, "group row of version {}", version);
  Members members(in.u8());
  for (Member& member : members) {
    member.at = decode_place(in);
    member.pending = in.u8() != 0;
    const uint8_t count = in.u8();
    if (!in.ok() || count > kBeforeMax) return fail(Code::corrupt, "group row");
    for (uint8_t i = 0; i < count; ++i) member.before.push_back(decode_place(in));
  }
  TRY(in.finish("group row"));
  return members;
}

}  // namespace

std::string_view drive_state_name(DriveState state) {
  switch (state) {
    case DriveState::active: return "active";
    case DriveState::draining: return "draining";
    case DriveState::failed: return "failed";
    case DriveState::removed: return "removed";
  }
  return "?";
}

std::string_view drive_cause_name(DriveCause cause) {
  switch (cause) {
    case DriveCause::none: return "";
    case DriveCause::away: return "away";
    case DriveCause::taken: return "taken";
    case DriveCause::replaced: return "replaced";
    case DriveCause::read_only: return "read-only";
    case DriveCause::forced: return "forced";
  }
  return "?";
}

std::vector<Place> places_of(const Member& member) {
  std::vector<Place> places{member.at};
  places.insert(places.end(), member.before.begin(), member.before.end());
  return places;
}

const ClusterMap::Ranking& ClusterMap::ranking() const {
  std::vector<PlacementDrive> list;
  for (const auto& [number, drive] : drives) {
    if (drive.state == DriveState::active) list.push_back({number, drive.id, drive.domain, drive.weight});
  }
  if (ranking_ == nullptr || ranking_->drives != list || ranking_->groups.size() != group_count) {
    auto fresh = std::make_shared<Ranking>();
    fresh->groups.reserve(group_count);
    for (uint32_t group = 0; group < group_count; ++group) fresh->groups.push_back(rank_drives(list, static_cast<GroupId>(group)));
    fresh->drives = std::move(list);
    ranking_ = std::move(fresh);
  }
  return *ranking_;
}

Members ClusterMap::computed(uint8_t width, GroupId group, const Ranking& ranking) {
  const std::vector<uint32_t>& ranked = ranking.groups.at(group);
  if (ranked.size() < width) return {};
  Members members(width);
  for (size_t i = 0; i < width; ++i) members[i].at.drive = ranked[i];
  return members;
}

const Members* ClusterMap::find_members(uint8_t width, GroupId group) const {
  auto table = tables_.find(width);
  if (table == tables_.end() || group >= table->second.size()) return nullptr;
  return &table->second[group];
}

Members ClusterMap::members(uint8_t width, GroupId group) const {
  if (const Members* found = find_members(width, group)) return *found;
  return computed(width, group, ranking());
}

std::vector<uint8_t> ClusterMap::widths() const {
  std::vector<uint8_t> list;
  for (const auto& [width, table] : tables_) list.push_back(width);
  return list;
}

bool ClusterMap::register_width(uint8_t width) {
  if (tables_.contains(width)) return true;
  const Ranking& order = ranking();
  if (width == 0 || order.drives.size() < width) return false;
  std::vector<Members> table(group_count);
  for (uint32_t group = 0; group < group_count; ++group) table[group] = computed(width, static_cast<GroupId>(group), order);
  tables_.emplace(width, std::move(table));
  return true;
}

void ClusterMap::set_members(GroupKey key, Members members) { tables_.at(key.width).at(key.group) = std::move(members); }

size_t ClusterMap::replan() {
  const Ranking& order = ranking();
  std::set<uint32_t> eligible;
  for (const PlacementDrive& drive : order.drives) eligible.insert(drive.number);
  size_t changed = 0;
  for (auto& [width, table] : tables_) {
    for (uint32_t group = 0; group < group_count; ++group) {
      Members& members = table[group];
      std::vector<uint32_t> ranked = order.groups[group];
      ranked.resize(std::min<size_t>(ranked.size(), width));
      const std::set<uint32_t> target(ranked.begin(), ranked.end());
      std::set<uint32_t> present;
      for (const Member& member : members) present.insert(member.at.drive);
      std::vector<uint32_t> incoming;
      for (uint32_t number : ranked) {
        if (!present.contains(number)) incoming.push_back(number);
      }
      size_t next = 0;
      auto hand_over = [&](Member& member) {
        std::vector<Place> before;
        for (const Place& place : places_of(member)) {
          auto drive = drives.find(place.drive);
          const bool may_be_read =
              drive != drives.end() && (drive->second.state == DriveState::active || drive->second.state == DriveState::draining);
          if (may_be_read) before.push_back(place);
        }
        // A place that is forgotten takes the chunks with it that are still there: they come to rest first.
        if (before.size() > kBeforeMax) return;
        member.before = std::move(before);
        member.at = {incoming[next++], static_cast<uint16_t>(member.at.term % kTermMax + 1)};
        member.pending = true;
        ++changed;
      };
      for (Member& member : members) {  // first what cannot stay where it is
        if (next < incoming.size() && !eligible.contains(member.at.drive)) hand_over(member);
      }
      for (Member& member : members) {  // then what would better be elsewhere
        if (next < incoming.size() && eligible.contains(member.at.drive) && !target.contains(member.at.drive)) hand_over(member);
      }
      // A failed source is none.
      for (Member& member : members) {
        std::erase_if(member.before, [&](const Place& place) {
          auto drive = drives.find(place.drive);
          return drive == drives.end() || drive->second.state == DriveState::failed || drive->second.state == DriveState::removed;
        });
      }
    }
  }
  return changed;
}

ClusterMap::Health ClusterMap::health() const {
  Health health;
  for (const auto& [width, table] : tables_) {
    for (const Members& members : table) {
      for (const Member& member : members) {
        health.pending += member.pending;
        auto drive = drives.find(member.at.drive);
        health.without += drive == drives.end() || drive->second.state == DriveState::failed || drive->second.state == DriveState::removed;
      }
    }
  }
  return health;
}

unsigned ClusterMap::active_domains() const {
  std::set<std::string_view> domains;
  for (const auto& [number, drive] : drives) {
    if (drive.state == DriveState::active) domains.insert(drive.domain);
  }
  return static_cast<unsigned>(domains.size());
}

const MapDrive* ClusterMap::find(const Uuid& id) const {
  for (const auto& [number, drive] : drives) {
    if (drive.id == id) return &drive;
  }
  return nullptr;
}

std::map<std::string, std::string> ClusterMap::rows() const {
  std::map<std::string, std::string> rows;
  std::string head;
  Encoder e(head);
  e.u8(redundancy.kind == RedundancyKind::whole ? kVersionWhole : kVersion).u64(epoch).bytes(cluster.bytes).u32(group_count);
  e.u8(static_cast<uint8_t>(redundancy.kind)).u8(redundancy.k).u8(redundancy.m).u32(next_drive).u8(static_cast<uint8_t>(tables_.size()));
  for (const auto& [width, table] : tables_) e.u8(width);
  rows.emplace(keys::map_head(), std::move(head));
  for (const auto& [number, drive] : drives) rows.emplace(keys::drive(number), encode_drive(drive));
  const Ranking& order = ranking();
  for (const auto& [width, table] : tables_) {
    for (uint32_t group = 0; group < group_count; ++group) {
      if (table[group] == computed(width, static_cast<GroupId>(group), order)) continue;
      rows.emplace(keys::group(width, static_cast<GroupId>(group)), encode_members(table[group]));
    }
  }
  return rows;
}

Result<std::optional<ClusterMap>> ClusterMap::decode(const std::vector<meta::KeyValue>& rows) {
  ClusterMap map;
  std::vector<uint8_t> widths;
  bool found = false;
  for (const meta::KeyValue& row : rows) {  // the head and the drives first: groups are computed from them
    if (row.key == keys::map_head()) {
      found = true;
      Decoder in(row.value);
      if (const uint8_t version = in.u8(); in.ok() && version != kVersion && version != kVersionWhole)
        return fail(Code::incompatible, "cluster map of version {}", version);
      map.epoch = in.u64();
      map.cluster = read_uuid(in);
      map.group_count = in.u32();
      const uint8_t kind = in.u8();
      map.redundancy.k = in.u8();
      map.redundancy.m = in.u8();
      map.next_drive = in.u32();
      const uint8_t count = in.u8();
      for (uint8_t i = 0; i < count && in.ok(); ++i) widths.push_back(in.u8());
      TRY(in.finish("cluster map"));
      const bool sane_widths = std::ranges::all_of(widths, [](uint8_t width) { return width >= 1 && width <= 32; });
      if (map.group_count < 1 || map.group_count > kGroupCountMax || kind < 1 || kind > 3 || map.redundancy.k < 1 ||
          map.redundancy.width() > 32 || !sane_widths) {
        return fail(Code::corrupt, "cluster map: head");
      }
      map.redundancy.kind = static_cast<RedundancyKind>(kind);
    } else if (row.key.starts_with("cd")) {
      Decoder in(std::string_view(row.key).substr(2));
      const uint32_t number = in.key_u32();
      TRY(in.finish("drive key"));
      TRY_ASSIGN(MapDrive drive, decode_drive(number, row.value));
      map.drives.emplace(number, std::move(drive));
    }
  }
  if (!found) return std::optional<ClusterMap>();
  const Ranking& order = map.ranking();
  for (uint8_t width : widths) {
    std::vector<Members> table(map.group_count);
    for (uint32_t group = 0; group < map.group_count; ++group) table[group] = computed(width, static_cast<GroupId>(group), order);
    map.tables_.emplace(width, std::move(table));
  }
  for (const meta::KeyValue& row : rows) {
    if (!row.key.starts_with("cg")) continue;
    Decoder in(std::string_view(row.key).substr(2));
    const uint8_t width = in.u8();
    const GroupId group = in.key_u16();
    TRY(in.finish("group key"));
    TRY_ASSIGN(Members members, decode_members(row.value));
    if (!map.tables_.contains(width) || group >= map.group_count || members.size() != width)
      return fail(Code::corrupt, "group row {} of width {}", group, width);
    map.set_members({width, group}, std::move(members));
  }
  for (const auto& [width, table] : map.tables_) {
    for (uint32_t group = 0; group < map.group_count; ++group) {
      if (table[group].size() != width) return fail(Code::corrupt, "cluster map: group {} of width {} has no members", group, width);
    }
  }
  return std::optional<ClusterMap>(std::move(map));
}

}  // namespace quarry::cluster
