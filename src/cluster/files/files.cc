#include "cluster/files/files.h"

#include "base/log.h"
#include "chunk/dir/dir_store.h"
#include "cluster/map/keys.h"

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
    plane_.file_names.forget(layout_.write_id);
    if (!decided_) {
      plane_.background.spawn(undo(plane_, topology_, layout_, std::move(id_)));
    } else if (!handed_over_) {
      plane_.writes.end(topology_->map.epoch);
    }
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
  // Until it is done the map does not forget where the file lies.
  static Task<void> undo(Plane& plane, std::shared_ptr<const Topology> topology, DataLayout layout, std::unique_ptr<TakenId> id) {
    Result<void> gone = co_await plane.files->let_go(layout);
    id->set_decided(gone.has_value());
    plane.writes.end(topology->map.epoch);
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

Task<Result<bool>> Files::on_all_places(DataLayout layout, std::optional<FileAttributes> attributes) {
  const auto topology = plane_.drives.topology();
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
    plane_.ids.leave_open(layout.write_id);
    const std::lock_guard lock(mutex_);
    if (unsettled_.size() < kUnsettledMax) unsettled_.insert_or_assign(layout.write_id, layout);
  }
  if (error) co_return std::move(*error);
  co_return !away;
}

Task<Result<void>> Files::prepare() {
  meta::ScanOptions options;
  options.range = meta::KeyRange::prefix("cy");
  options.limit = 1;
  CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await plane_.meta.scan(options));
  if (!rows.empty()) any_names_.store(true);
  co_return Result<void>();
}

void Files::set_judge(Judge judge) {
  const std::lock_guard lock(mutex_);
  judge_ = judge ? std::make_shared<const Judge>(std::move(judge)) : nullptr;
}
void Files::set_name_settler(NameSettler settler) {
  const std::lock_guard lock(mutex_);
  name_settler_ = settler ? std::make_shared<const NameSettler>(std::move(settler)) : nullptr;
}

void Files::record(meta::Transaction& transaction, const DataLayout& layout) {
  if (!on_some_drives() || !layout.redundancy.has_copies()) return;
  const std::optional<FileName> name = plane_.file_names.find(layout.write_id);
  if (!name) return;
  any_names_.store(true, std::memory_order_relaxed);
  transaction.put(keys::file(layout.write_id), encode_file_name(*name));
}
void Files::retire(meta::Transaction& transaction, const DataLayout& layout) {
  if (layout.redundancy.has_copies() && any_names_.load(std::memory_order_relaxed)) transaction.remove(keys::file(layout.write_id));
}

Task<Result<std::optional<FileName>>> Files::find_name(DataLayout layout) {
  std::optional<FileName> name;
  if (!layout.redundancy.has_copies()) co_return name;
  CO_TRY_ASSIGN(std::optional<std::string> row, co_await plane_.meta.get(keys::file(layout.write_id)));
  if (!row) co_return name;
  CO_TRY_ASSIGN(name, decode_file_name(*row));
  co_return name;
}

Task<void> Files::settle_unsettled() {
  std::vector<DataLayout> waiting;
  std::shared_ptr<const NameSettler> settler;
  {
    const std::lock_guard lock(mutex_);
    settler = name_settler_;
    for (const auto& [id, layout] : unsettled_) waiting.push_back(layout);
  }
  if (settler == nullptr) co_return;
  for (const DataLayout& layout : waiting) {
    if (plane_.background.stopping()) co_return;
    const auto topology = plane_.drives.topology();
    const auto places = file_places(*topology, layout);
    if (std::ranges::any_of(places, [](const auto& place) { return !place.first->readable(); })) continue;
    Result<std::optional<FileName>> file = co_await find_name(layout);
    if (!file) continue;
    {
      // Whoever fails once more remembers it once more.
      const std::lock_guard lock(mutex_);
      unsettled_.erase(layout.write_id);
    }
    if (*file) co_await (*settler)(std::move(**file), layout);
  }
}

Task<Result<void>> Files::show_if_current(Drive& drive, DataLayout layout, unsigned shard, uint16_t term) {
  CO_TRY_ASSIGN(std::optional<FileName> file, co_await find_name(layout));
  if (!file) co_return Result<void>();
  std::shared_ptr<const Judge> judge;
  std::shared_ptr<const NameSettler> settler;
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      judge = judge_;
      settler = name_settler_;
    }
    if (judge != nullptr || !plane_.tuning.files_have_judge) break;
    // The owner of the writes is still being made: without it an older version would do as well.
    if (plane_.background.stopping()) co_return fail(Code::cancelled, "the store is closing");
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

Task<Result<Adoption>> Files::adopt(AdoptOptions options) {
  if (!plane_.drives.topology()->map.knows_width(1)) {
    CO_TRY(co_await on(plane_.background.home(), plane_.register_width(1)));
  }
  CO_TRY_ASSIGN(WriteId id, co_await plane_.ids.take());
  auto taken = std::make_unique<TakenId>(plane_.ids, id);
  taken->set_decided();  // until the drive is asked to do something
  auto topology = plane_.writes.begin();
  struct End {
    Plane& plane;
    std::shared_ptr<const Topology> topology;
    bool armed = true;
    ~End() {
      if (armed) plane.writes.end(topology->map.epoch);
    }
  } end{plane_, topology};
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
      .write_id = id, .group = *group, .redundancy = {RedundancyKind::mirror, 1, 0}, .size = 0, .shard_size = plane_.tuning.shard_bytes};
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
  plane_.file_names.set(id, options.file);
  end.armed = false;
  Adoption result;
  result.writer = std::make_unique<AdoptWriter>(plane_, topology, layout, std::move(taken));
  result.layout = layout;
  result.modified_ns = adopted->modified_ns;
  result.md5 = std::move(adopted->md5);
  co_return result;
}

Task<Result<std::vector<UnrecordedFile>>> Files::unrecorded(uint32_t number, std::string under, std::string after, size_t limit) {
  Drive* drive = plane_.drives.topology()->drive(number);
  if (drive == nullptr) co_return fail(Code::not_found, "drive {}", number);
  // What an interrupted run adopted and did not commit has a record until the crash is cleaned up after. With another drive away that is
  // never finished; this one has been looked through by then.
  constexpr Duration kPatience = std::chrono::seconds(15);
  const TimePoint patience = Executor::here().now() + kPatience;
  while (after.empty() && !plane_.sessions_recovered.load() && Executor::here().now() < patience)
    co_await sleep_for(std::chrono::milliseconds(20));
  co_return co_await drive->with_store([=](chunk::ChunkStore& store) { return unrecorded_in(store, under, after, limit); });
}

Task<Result<FileState>> Files::state(DataLayout layout) {
  const auto topology = plane_.drives.topology();
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

Task<Result<bool>> Files::is_adopted(DataLayout layout, std::optional<At> at) {
  const auto topology = plane_.drives.topology();
  for (const auto& [drive, name] : file_places(*topology, layout)) {
    if (!drive->readable()) continue;
    const ChunkId first = chunk_id(name);
    CO_TRY_ASSIGN(const auto path, co_await drive->with_store([first](chunk::ChunkStore& store) { return adopted_path_in(store, first); }));
    if (path && (!at || (at->drive == drive->number() && at->path == *path))) co_return true;
  }
  co_return false;
}

Task<Result<void>> Files::let_go(DataLayout layout) {
  const auto topology = plane_.drives.topology();
  Removal removal;
  const bool reachable = removal.add(*topology, layout);
  CO_TRY(co_await removal.run(true));
  if (!reachable) co_return fail(Code::unavailable, "the drive of the file is away: what it knows of it stays");
  co_return Result<void>();
}

}  // namespace quarry::cluster
