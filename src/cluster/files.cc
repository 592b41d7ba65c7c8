#include "cluster/files.h"

#include "base/log.h"
#include "chunk/dir/dir_store.h"
#include "cluster/keys.h"

namespace quarry::cluster {
namespace {

// Drives that are there, keep files and are, or were, a place of the layout; with the shard's name on each.
std::vector<std::pair<Drive*, ChunkName>> file_places(const Topology& topology, const DataLayout& layout) {
  std::vector<std::pair<Drive*, ChunkName>> places;
  if (!layout.redundancy.has_copies()) return places;
  const Members members = topology.map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  for (unsigned shard = 0; shard < members.size(); ++shard) {
    if (!layout.redundancy.is_copy(shard)) continue;
    for (const Place& place : places_of(members[shard])) {
      Drive* drive = topology.drive(place.drive);
      if (drive != nullptr && drive->keeps_files()) places.emplace_back(drive, shard_name(layout, 0, shard, place.term));
    }
  }
  return places;
}

Task<Result<bool>> on_all_places(Plane& plane, DataLayout layout, std::optional<FileAttributes> attributes) {
  const auto topology = plane.drives.topology();
  std::vector<Task<Result<void>>> tasks;
  bool away = false;
  for (const auto& [drive, name] : file_places(*topology, layout)) {
    if (!drive->readable()) {
      away = true;
      continue;
    }
    tasks.push_back(attributes ? drive->show_shard_file(name, *attributes) : drive->hide_shard_file(name));
  }
  std::vector<Result<void>> results = co_await when_all(std::move(tasks));
  std::optional<Error> error;
  for (auto& result : results) {
    if (!result) error = std::move(result).error();
  }
  // What could not be shown now is looked at again when the drive is back, or at the next start.
  if (away || error) {
    plane.ids.leave_open(layout.write_id);
    const std::lock_guard lock(plane.files_mutex);
    if (plane.unsettled_files.size() < Plane::kUnsettledFilesMax) plane.unsettled_files.insert_or_assign(layout.write_id, layout);
  }
  if (error) co_return std::move(*error);
  co_return !away;
}

Task<Result<chunk::DirStore::Adopted>> adopt_in(chunk::ChunkStore& store, chunk::DirStore::Adoption adoption) {
  auto* files = dynamic_cast<chunk::DirStore*>(&store);
  if (files == nullptr)
    co_return fail(Code::invalid_argument, "{} is no mountpath: only files on a dir drive can be adopted", store.description());
  co_return co_await files->adopt(std::move(adoption));
}

Task<Result<std::vector<UnrecordedFile>>> unrecorded_in(chunk::ChunkStore& store, std::string under, std::string after, size_t limit) {
  auto* files = dynamic_cast<chunk::DirStore*>(&store);
  if (files == nullptr) co_return fail(Code::invalid_argument, "{} is no mountpath", store.description());
  CO_TRY_ASSIGN(auto found, co_await files->unrecorded(std::move(under), std::move(after), limit));
  std::vector<UnrecordedFile> list;
  for (auto& each : found) list.push_back({std::move(each.path), each.size, each.modified_ns, std::move(each.why_not)});
  co_return list;
}

Task<Result<std::optional<std::string>>> adopted_path_in(chunk::ChunkStore& store, ChunkId first) {
  auto* files = dynamic_cast<chunk::DirStore*>(&store);
  if (files == nullptr) co_return std::optional<std::string>();
  co_return co_await files->adopted_path(first);
}

// The writer of an adopted file: nothing to append, everything to keep or let go.
class AdoptWriter final : public DataWriter {
 public:
  AdoptWriter(Plane& plane, std::shared_ptr<const Topology> topology, DataLayout layout, std::unique_ptr<TakenId> id)
      : plane_(plane), topology_(std::move(topology)), layout_(layout), id_(std::move(id)) {}
  ~AdoptWriter() override {
    {
      std::lock_guard lock(plane_.files_mutex);
      plane_.file_names.erase(layout_.write_id);
    }
    if (!decided_) plane_.background.spawn(undo(plane_, layout_, std::move(id_)));
    if (!handed_over_) plane_.writes.end(topology_->map.epoch);
  }
  Task<Result<void>> append(Buffer) override { co_return fail(Code::internal, "an adopted file takes no bytes"); }
  Task<Result<DataLayout>> finish() override { co_return layout_; }
  void keep() override {
    decided_ = true;
    id_->set_decided();
  }
  // The id is left open: the next start looks whether it was committed. Until that is certain the map does not forget where it lies.
  void settle() override {
    decided_ = handed_over_ = true;
    plane_.background.spawn(end_when_certain(plane_, topology_));
  }

 private:
  static Task<void> undo(Plane& plane, DataLayout layout, std::unique_ptr<TakenId> id) {
    Result<void> gone = co_await let_go(plane, layout);
    id->set_decided(gone.has_value());
  }
  static Task<void> end_when_certain(Plane& plane, std::shared_ptr<const Topology> topology) {
    Result<void> certain = co_await until_commits_are_certain(plane);
    std::move(certain).ignore("the store closes: nothing is moved any more");
    plane.writes.end(topology->map.epoch);
  }
  Plane& plane_;
  const std::shared_ptr<const Topology> topology_;
  const DataLayout layout_;
  std::unique_ptr<TakenId> id_;
  bool decided_ = false, handed_over_ = false;
};

}  // namespace

Task<Result<std::optional<FileName>>> find_file_name(Plane& plane, DataLayout layout) {
  std::optional<FileName> name;
  if (!layout.redundancy.has_copies()) co_return name;
  CO_TRY_ASSIGN(std::optional<std::string> row, co_await plane.meta.get(keys::file(layout.write_id)));
  if (!row) co_return name;
  CO_TRY_ASSIGN(name, decode_file_name(*row));
  co_return name;
}

Task<Result<bool>> show_everywhere(Plane& plane, DataLayout layout, FileAttributes attributes) {
  return on_all_places(plane, layout, std::move(attributes));
}
Task<Result<bool>> hide_everywhere(Plane& plane, DataLayout layout) { return on_all_places(plane, layout, std::nullopt); }

Task<void> settle_unsettled_files(Plane& plane) {
  std::vector<DataLayout> waiting;
  std::shared_ptr<const DataPlane::NameSettler> settler;
  {
    const std::lock_guard lock(plane.files_mutex);
    settler = plane.name_settler;
    for (const auto& [id, layout] : plane.unsettled_files) waiting.push_back(layout);
  }
  if (settler == nullptr) co_return;
  for (const DataLayout& layout : waiting) {
    if (plane.background.stopping()) co_return;
    const auto topology = plane.drives.topology();
    const auto places = file_places(*topology, layout);
    if (std::ranges::any_of(places, [](const auto& place) { return !place.first->readable(); })) continue;
    Result<std::optional<FileName>> file = co_await find_file_name(plane, layout);
    if (!file) continue;
    {
      // Whoever fails once more remembers it once more.
      const std::lock_guard lock(plane.files_mutex);
      plane.unsettled_files.erase(layout.write_id);
    }
    if (*file) co_await (*settler)(std::move(**file), layout);
  }
}

Task<Result<void>> show_if_current(Plane& plane, Drive& drive, DataLayout layout, unsigned shard, uint16_t term) {
  CO_TRY_ASSIGN(std::optional<FileName> file, co_await find_file_name(plane, layout));
  if (!file) co_return Result<void>();
  std::shared_ptr<const DataPlane::FileJudge> judge;
  std::shared_ptr<const DataPlane::NameSettler> settler;
  for (;;) {
    {
      std::lock_guard lock(plane.files_mutex);
      judge = plane.file_judge;
      settler = plane.name_settler;
    }
    if (judge != nullptr || !plane.tuning.files_have_judge) break;
    // The owner of the writes is still being made: without it an older version would do as well.
    if (plane.background.stopping()) co_return fail(Code::cancelled, "the store is closing");
    co_await sleep_for(std::chrono::milliseconds(5));
  }
  std::optional<FileAttributes> attributes = FileAttributes();
  if (judge != nullptr) {
    CO_TRY_ASSIGN(attributes, co_await (*judge)(layout, *file));
  }
  if (!attributes) co_return Result<void>();
  CO_TRY(co_await drive.show_shard_file(shard_name(layout, 0, shard, term), std::move(*attributes)));
  if (judge == nullptr || settler == nullptr) co_return Result<void>();
  // A commit may have come between, and whoever made it may have shown its file before this one took its place. A later one has still to
  // show its own.
  CO_TRY_ASSIGN(attributes, co_await (*judge)(layout, *file));
  if (!attributes) co_await (*settler)(std::move(*file), layout);
  co_return Result<void>();
}

Task<Result<Adoption>> adopt_file(Plane& plane, AdoptOptions options) {
  if (!plane.drives.topology()->map.knows_width(1)) {
    CO_TRY(co_await on(plane.background.home(), plane.register_width(1)));
  }
  CO_TRY_ASSIGN(WriteId id, co_await plane.ids.take());
  auto taken = std::make_unique<TakenId>(plane.ids, id);
  taken->set_decided();  // until the drive is asked to do something
  auto topology = plane.writes.begin();
  struct End {
    Plane& plane;
    std::shared_ptr<const Topology> topology;
    bool armed = true;
    ~End() {
      if (armed) plane.writes.end(topology->map.epoch);
    }
  } end{plane, topology};
  Drive* drive = topology->drive(options.drive);
  if (drive == nullptr || !drive->readable()) co_return fail(Code::unavailable, "drive {} is away", options.drive);
  // A group of width 1 whose member is this drive, and where nothing is being moved.
  std::optional<GroupId> group;
  uint16_t term = 0;
  const uint32_t count = topology->map.group_count;
  const GroupId start = group_of(id, count);
  for (uint32_t i = 0; i < count && !group; ++i) {
    const auto candidate = static_cast<GroupId>((start + i) % count);
    const Members* members = topology->map.find_members(1, candidate);
    if (members == nullptr || members->size() != 1 || (*members)[0].at.drive != options.drive || (*members)[0].pending) continue;
    group = candidate;
    term = (*members)[0].at.term;
  }
  if (!group)
    co_return fail(Code::unavailable, "drive {} is home to no placement group: it is being drained, or too small a part of the store",
                   options.drive);
  DataLayout layout{
      .write_id = id, .group = *group, .redundancy = {RedundancyKind::mirror, 1, 0}, .size = 0, .shard_size = plane.tuning.shard_bytes};
  chunk::DirStore::Adoption adoption{.path = options.path,
                                     .first = chunk_id(shard_name(layout, 0, 0, term)),
                                     .chunk_size = layout.shard_size,
                                     .stride = kStripeStride,
                                     .directory = options.file.directory,
                                     .name = options.file.name,
                                     .attributes = std::move(options.attributes),
                                     .want_md5 = true,
                                     .size_max = layout.stripe_bytes() * kStripesMax};
  taken->set_decided(false);
  auto adopted = co_await drive->with_store([adoption](chunk::ChunkStore& store) { return adopt_in(store, adoption); });
  if (!adopted) {  // what the caller did wrong left nothing
    taken->set_decided(adopted.error().error_class() == ErrorClass::caller);
    co_return std::move(adopted).error();
  }
  layout.size = adopted->size;
  {
    std::lock_guard lock(plane.files_mutex);
    plane.file_names[id] = options.file;
  }
  end.armed = false;
  Adoption result;
  result.writer = std::make_unique<AdoptWriter>(plane, topology, layout, std::move(taken));
  result.layout = layout;
  result.modified_ns = adopted->modified_ns;
  result.md5 = std::move(adopted->md5);
  co_return result;
}

Task<Result<std::vector<UnrecordedFile>>> unrecorded_files(Plane& plane, uint32_t number, std::string under, std::string after,
                                                           size_t limit) {
  Drive* drive = plane.drives.topology()->drive(number);
  if (drive == nullptr) co_return fail(Code::not_found, "drive {}", number);
  // What an interrupted run adopted and did not commit has a record until the crash is cleaned up after. With another drive away that is
  // never finished; this one has been looked through by then.
  constexpr Duration kPatience = std::chrono::seconds(15);
  const TimePoint patience = Executor::here().now() + kPatience;
  while (after.empty() && !plane.sessions_recovered.load() && Executor::here().now() < patience)
    co_await sleep_for(std::chrono::milliseconds(20));
  co_return co_await drive->with_store([=](chunk::ChunkStore& store) { return unrecorded_in(store, under, after, limit); });
}

Task<Result<FileState>> file_state(Plane& plane, DataLayout layout) {
  const auto topology = plane.drives.topology();
  const auto places = file_places(*topology, layout);
  if (layout.redundancy.width() != 1 || places.size() != 1) co_return FileState::elsewhere;
  Drive* drive = places[0].first;
  Result<SharedBytes> look = co_await drive->get(chunk_id(places[0].second), 0, 1);
  if (look) co_return FileState::unchanged;
  if (look.error().code() == Code::corrupt) {
    const Reason reason = look.error().reason();
    co_return reason == Reason::vanished || reason == Reason::replaced ? FileState::vanished : FileState::changed;
  }
  if (look.error().code() == Code::not_found) co_return FileState::vanished;
  co_return std::move(look).error();
}

Task<Result<bool>> is_adopted(Plane& plane, DataLayout layout, std::optional<DataPlane::FileAt> at) {
  const auto topology = plane.drives.topology();
  for (const auto& [drive, name] : file_places(*topology, layout)) {
    if (!drive->readable()) continue;
    const ChunkId first = chunk_id(name);
    CO_TRY_ASSIGN(const auto path, co_await drive->with_store([first](chunk::ChunkStore& store) { return adopted_path_in(store, first); }));
    if (path && (!at || (at->drive == drive->number() && at->path == *path))) co_return true;
  }
  co_return false;
}

Task<Result<void>> let_go(Plane& plane, DataLayout layout) {
  const auto topology = plane.drives.topology();
  DataLayout whole = layout;
  Removal removal;
  removal.add(*topology, whole);
  co_return co_await removal.run(true);
}

}  // namespace quarry::cluster
