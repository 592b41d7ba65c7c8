// Decisions that must not outlive their ground: the map is planned anew, drives go and return, writes begin and are widened while repair,
// audit and the care for drives are between two steps. Each test says that the two met.
#include <gtest/gtest.h>

#include "base/reached.h"
#include "cluster/log/metadata_log.h"
#include "cluster/testing/cluster_harness.h"
#include "meta/transact.h"

namespace quarry::cluster {
namespace {

using Call = MemoryMedium::Call;

class GroundTest : public ::testing::Test, protected ClusterHarness {
 protected:
  void fill(int count, size_t size = 50'000) {
    for (int i = 0; i < count; ++i) {
      contents.push_back(random_bytes(1000 + contents.size(), size + static_cast<size_t>(i)));
      auto layout = write(contents.back());
      ASSERT_TRUE(layout) << layout.error().to_string();
      layouts.push_back(*layout);
    }
  }
  void check_all() {
    for (size_t i = 0; i < layouts.size(); ++i) {
      auto back = read(layouts[i]);
      ASSERT_TRUE(back) << i << " " << back.error().to_string();
      ASSERT_TRUE(*back == contents[i]) << i;
    }
  }
  void pass(Duration time) { executor.run(sleep_for(time)); }
  std::string state(uint32_t number) {
    for (const DriveStatus& drive : cluster->data().drives()) {
      if (drive.number == number) return drive.state;
    }
    return "?";
  }
  // What lies on the drives is what the writes need, and nothing else.
  void check_chunks() {
    size_t expected = 0;
    for (const DataLayout& layout : layouts) {
      for (uint32_t stripe = 0; stripe < layout.stripe_count(); ++stripe) {
        for (unsigned shard = 0; shard < layout.redundancy.width(); ++shard) expected += layout.stored_size(stripe, shard) > 0;
      }
    }
    EXPECT_EQ(data_chunks(), expected);
  }
  void expect_sound() {
    check_all();
    EXPECT_EQ(fsck(), "");
    check_chunks();
  }
  static uint64_t times(const std::string& point) { return points_reached()[point]; }

  std::vector<DataLayout> layouts;
  std::vector<std::string> contents;
};

enum class Change : uint8_t { add, drain, replace };

class ReplanTest : public GroundTest, public ::testing::WithParamInterface<Change> {
 protected:
  // At each of the first chunks that arrive at their new place.
  static Task<void> change(ReplanTest* self, uint32_t drive, Call call, ChunkId id) {
    if (call != Call::put || chunk_name(id).kind != ChunkKind::data || self->left == 0) co_return;
    --self->left;
    DataPlane& data = self->cluster->data();
    const auto what = GetParam();
    Result<void> done;
    if (what == Change::add) done = co_await data.add_drive(fmt::format("new{}", self->left), false);
    if (what == Change::drain) done = co_await data.drain_drive(drive);
    if (what == Change::replace) done = co_await data.replace_drive(drive, "new", false);
    EXPECT_TRUE(done) << done.error().to_string();
    ++self->changes;
  }
  int left = 0, changes = 0;
};
INSTANTIATE_TEST_SUITE_P(Changes, ReplanTest, ::testing::Values(Change::add, Change::drain, Change::replace), [](const auto& info) {
  return std::string(info.param == Change::add ? "add" : info.param == Change::drain ? "drain" : "replace");
});

TEST_P(ReplanTest, inside_a_settling_leaves_the_last_whole_copy) {
  add_media(4);
  ASSERT_TRUE(create("mirror:1"));
  fill(60);
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(1)));
  left = GetParam() == Change::add ? 4 : 1;
  for (size_t i = 1; i < 4; ++i) {
    const auto number = static_cast<uint32_t>(i + 1);
    media[i]->on_call = [this, number](Call call, ChunkId id) { return change(this, number, call, id); };
  }
  [[maybe_unused]] const uint64_t before = times("repair.ground_changed");
  settle();
  for (auto& medium : media) medium->on_call = nullptr;
  EXPECT_GT(changes, 0);
#ifdef QUARRY_DEV
  EXPECT_GT(times("repair.ground_changed"), before) << "no write was planned anew while it was settled: nothing was tested";
#endif
  check_all();
  settle();
  expect_sound();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 0u);
}

// With one copy there is nothing to rebuild from: what is on a drive that is away comes back with it.
TEST_F(GroundTest, a_source_that_is_away_during_a_move_is_still_known_when_it_is_back) {
  add_media(3);
  ASSERT_TRUE(create("mirror:1"));
  fill(40);
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(1)));
  media[0]->gone = true;
  auto settled = executor.run(cluster->settle());
  std::move(settled).ignore("a drive is away");
  EXPECT_GT(cluster->data().repair_status().lost_writes, 0u) << "no move met the drive that was away: nothing was tested";
  media[0]->gone = false;
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(1)));
  check_all();  // at once: the map has not forgotten it
  settle();
  check_all();
  pass(std::chrono::minutes(25));
  settle();
  expect_sound();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 0u);
}

class ReturnTest : public GroundTest, public ::testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Redundancies, ReturnTest, ::testing::Values("mirror:1", "ec:2+1", "mirror:2", "whole:2+1"), [](const auto& info) {
  std::string name = info.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
});

// More drives than redundancy makes up for were away for longer than the grace (a shelf without power): their places went to others, who
// had nothing to put there. What they bring back is the last there is, wherever the map looks by then.
TEST_P(ReturnTest, of_drives_that_were_given_up_brings_everything_back) {
  const Redundancy redundancy = *parse_redundancy(GetParam(), 8);
  const size_t shelf = redundancy.losses() + 1;
  add_media(redundancy.width() + shelf + 1);
  tuning.missing_grace = Duration(0);
  ASSERT_TRUE(create(GetParam()));
  fill(60, 150'000);
  for (size_t i = 0; i < shelf; ++i) media[i]->gone = true;
  pass(std::chrono::minutes(1));
  EXPECT_EQ(state(1), "failed");
  EXPECT_GT(cluster->data().repair_status().lost_writes, 0u) << "nothing was lost by it: nothing was tested";
  close();
  for (auto& medium : media) medium->gone = false;
  ASSERT_TRUE(open());
  settle();
  pass(std::chrono::minutes(5));
  check_all();
  pass(std::chrono::minutes(25));
  settle();
  expect_sound();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 0u);
}

enum class Walk : uint8_t { fsck, scrub, cleaning };

class WalkTest : public GroundTest, public ::testing::WithParamInterface<Walk> {
 protected:
  static Task<Result<void>> upload(WalkTest* self) {
    WriteOptions options;
    options.redundancy = self->default_redundancy();
    CO_TRY_ASSIGN(self->writer, self->cluster->data().begin_write(options));
    CO_TRY(co_await self->writer->append(Buffer::copy_of(bytes_of(self->bytes))));
    CO_TRY_ASSIGN(self->layout, co_await self->writer->finish());
    co_return Result<void>();
  }
  static Task<void> begin_upload(WalkTest* self, Call call, ChunkId id) {
    const ChunkId begin = GetParam() == Walk::fsck ? ChunkId{0, 0} : chunk_range(ChunkKind::data).first;
    if (call != Call::list || id != begin || std::exchange(self->begun, true)) co_return;
    Result<void> done = co_await upload(self);
    EXPECT_TRUE(done) << done.error().to_string();
  }
  static Task<Result<void>> commit(WalkTest* self) {
    CO_TRY_ASSIGN(auto transaction, co_await self->cluster->meta().begin());
    self->cluster->data().record(*transaction, self->layout, "test");
    Result<meta::Version> committed = co_await transaction->commit();
    if (!committed) co_return std::move(committed).error();
    self->writer->keep();
    self->writer.reset();
    co_return Result<void>();
  }
  bool begun = false;
  const std::string bytes = random_bytes(7, 300'000);
  std::unique_ptr<DataWriter> writer;
  DataLayout layout;
};
INSTANTIATE_TEST_SUITE_P(Walks, WalkTest, ::testing::Values(Walk::fsck, Walk::scrub, Walk::cleaning), [](const auto& info) {
  return std::string(info.param == Walk::fsck ? "fsck" : info.param == Walk::scrub ? "scrub" : "cleaning");
});

// Nothing of the session was written before, and what the walk asked for at its beginning does not know of it.
TEST_P(WalkTest, over_a_drive_leaves_the_first_upload_of_a_session) {
  add_media(6);
  tuning.missing_grace = Duration(0);
  ASSERT_TRUE(create("ec:4+2"));
  fill(10, 200'000);
  if (GetParam() == Walk::cleaning) {
    close();
    media[2]->gone = true;
    ASSERT_TRUE(open());
    settle();
    EXPECT_EQ(state(3), "failed");
    media[2]->gone = false;
  }
  ASSERT_TRUE(open());  // a session that wrote nothing yet
  media[2]->on_call = [this](Call call, ChunkId id) { return begin_upload(this, call, id); };
  if (GetParam() == Walk::fsck) {
    auto report = executor.run(cluster->data().fsck(true));
    ASSERT_TRUE(report) << report.error().to_string();
    EXPECT_EQ(report->orphan_chunks, 0u);
  } else if (GetParam() == Walk::scrub) {
    ASSERT_TRUE(executor.run(plane().scrubber().pass()));
  } else {
    settle();
    pass(std::chrono::seconds(10));
  }
  media[2]->on_call = nullptr;
  ASSERT_TRUE(begun) << "the upload did not begin during the walk: nothing was tested";
  ASSERT_TRUE(writer);
  ASSERT_TRUE(executor.run(commit(this)));
  EXPECT_EQ(fsck(), "");
  media[0]->gone = media[1]->gone = true;  // now each of the others counts
  auto back = read(layout);
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(*back, bytes);
}

TEST_F(GroundTest, what_goes_wrong_with_one_drive_does_not_keep_another_from_being_declared_lost) {
  add_media(7);
  tuning.missing_grace = Duration(0);
  ASSERT_TRUE(create("ec:2+2"));
  fill(10);
  // The root of the metadata cannot be copied any more: with the first drive that is lost and holds it nobody is ever done.
  size_t first = media.size();
  for (size_t i = media.size(); i-- > 0;) {
    for (const ChunkId id : media[i]->of_kind(ChunkKind::metadata_root)) {
      media[i]->corrupt.insert(id);
      first = i;
    }
  }
  ASSERT_LT(first + 1, media.size());
  media[first]->gone = true;
  pass(std::chrono::seconds(5));
  ASSERT_EQ(state(static_cast<uint32_t>(first + 1)), "failed");
  EXPECT_FALSE(executor.run(plane().administration().look())) << "the first drive makes no trouble: nothing was tested";
  media.back()->gone = true;
  pass(std::chrono::seconds(5));
  EXPECT_EQ(state(7), "failed");
}

class RemovalTest : public GroundTest {
 protected:
  static Task<void> remove(RemovalTest* self, uint32_t number) {
    Result<void> done = co_await self->cluster->data().remove_drive(number, false);
    EXPECT_TRUE(done) << done.error().to_string();
    self->removed = true;
  }
  static Task<void> widen_map(RemovalTest* self) {
    Result<void> done = co_await self->plane().administration().register_width(3);
    EXPECT_TRUE(done) << done.error().to_string();
    self->met = !self->removed;
  }
  static Task<void> both(RemovalTest* self, uint32_t number) {
    TaskGroup group;
    group.spawn(remove(self, number));
    group.spawn(widen_map(self));
    co_await group.join();
  }
  bool removed = false, met = false;
};

// An empty drive that is on its way out gets no place in the groups of a width that is used for the first time meanwhile.
TEST_F(RemovalTest, of_an_empty_drive_keeps_new_groups_off_it) {
  add_media(12);
  ASSERT_TRUE(create("mirror:1"));
  const auto topology = plane().plane().drives.topology();
  std::set<uint32_t> used;
  for (GroupId group = 0; group < topology->map.group_count; ++group) used.insert(topology->map.members(1, group)[0].at.drive);
  uint32_t empty = 1;
  while (used.contains(empty)) ++empty;
  ASSERT_LE(empty, 12u) << "every drive holds something: nothing was tested";
  executor.run(both(this, empty));
  ASSERT_TRUE(met) << "the width was registered after the drive was gone: nothing was tested";
  EXPECT_EQ(state(empty), "removed");
  const auto after = plane().plane().drives.topology();
  for (GroupId group = 0; group < after->map.group_count; ++group) {
    for (const Member& member : after->map.members(3, group)) EXPECT_EQ(member.at.term, 0) << "a place was given and taken away again";
  }
}

TEST_F(GroundTest, only_so_many_lost_writes_are_remembered) {
  add_media(3);
  tuning.lost_writes_max = 5;
  ASSERT_TRUE(create("mirror:1"));
  fill(12);
  for (auto& medium : media) {
    for (const ChunkId id : medium->of_kind(ChunkKind::data)) medium->chunks.erase(id);
  }
  for (const DataLayout& layout : layouts) plane().plane().repairs.add(layout);
  settle();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 5u);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(retire(layouts[static_cast<size_t>(i)]));
  settle();
  for (const DataLayout& layout : layouts) EXPECT_FALSE(read(layout));  // asks for repair: those that were not remembered are now
  settle();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 5u);
  for (size_t i = 6; i < layouts.size(); ++i) ASSERT_TRUE(retire(layouts[i]));
  settle();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 0u);
}

class CopiesTest : public ::testing::Test {
 protected:
  static Task<void> look(CopiesTest* self, Call call, ChunkId id) {
    const ChunkName name = chunk_name(id);
    if (call != Call::put || name.kind != ChunkKind::metadata_frame || name.serial > 10) co_return;
    co_await sleep_for(std::chrono::milliseconds(20 + self->puts++));  // other copies are there by now
    for (size_t i = 0; i < self->media.size(); ++i) {
      for (const ChunkId chunk : self->media[i]->of_kind(ChunkKind::metadata_frame)) {
        const bool used = self->log->uses(static_cast<uint32_t>(i + 1), chunk);
        self->unregistered += !used;
        EXPECT_TRUE(used || self->log->in_flight(chunk)) << "drive " << i + 1 << " chunk " << chunk.to_string();
      }
    }
  }
  // Of drives 1 to `count`; the ones there are already as they are.
  void open(uint32_t count, unsigned copies, uint32_t away = 0) {
    MetadataLogOptions options;
    for (uint32_t number = 1; number <= count; ++number) {
      if (media.size() < number) media.push_back(std::make_shared<MemoryMedium>(number));
      if (number == away) {
        options.absent.push_back({number, fmt::format("d{}", number)});
        continue;
      }
      drives.push_back(std::make_unique<Drive>(Drive::Identity{number, fmt::format("mem{}", number), fmt::format("d{}", number)},
                                               std::make_unique<MemoryChunkStore>(media[number - 1]), executor));
      options.drives.push_back(drives.back().get());
    }
    options.copies = copies;
    options.blocking_pool = pool.get();
    auto opened = executor.run(MetadataLog::open(std::move(options)));
    ASSERT_TRUE(opened) << opened.error().to_string();
    log = std::move(*opened);
  }
  // While a copy is being put on drive 2.
  static Task<void> enable_the_other(CopiesTest* self, ChunkKind kind, Call call, ChunkId id) {
    if (call != Call::put || chunk_name(id).kind != kind || self->unregistered > 0) co_return;
    co_await sleep_for(std::chrono::milliseconds(20));  // the one on drive 1 is there by now
    self->unregistered = self->media[0]->chunks.contains(id) && !self->log->uses(1, id);
    Result<void> added = co_await self->log->add_drive(*self->drives[0]);
    EXPECT_TRUE(added) << added.error().to_string();
  }
  static Task<Result<void>> checkpoint(MetadataLog* log) {
    const std::string content(100'000, 'x');
    const auto read = [content](uint64_t offset, size_t length) -> Result<Buffer> {
      return Buffer::copy_of(bytes_of(content).subspan(offset, length));
    };
    CO_TRY_ASSIGN(const meta::CheckpointFile file, co_await log->store_file("f", content.size(), read));
    meta::CheckpointManifest manifest{.frame = 1, .files = {file}, .extra = ""};
    co_return co_await log->publish_checkpoint(std::move(manifest));
  }
  SimExecutor executor;
  const std::unique_ptr<BlockingPool> pool = executor.make_pool("test", 1);
  std::vector<std::shared_ptr<MemoryMedium>> media;
  std::vector<std::unique_ptr<Drive>> drives;
  std::unique_ptr<MetadataLog> log;
  int puts = 0, unregistered = 0;
};

// Two copies of a frame are made at once, on two drives; the one that is there first counts when the other is there, too. An audit that
// comes between finds no leftover.
TEST_F(CopiesTest, of_metadata_that_are_just_being_made_are_no_orphans) {
  open(7, 3);
  for (uint64_t frame = 1; frame <= 10; ++frame) {
    const std::string text = fmt::format("frame {}", frame);
    ASSERT_TRUE(executor.run(log->append(frame, {bytes_of(text)})));
  }
  size_t lost = 0;
  for (size_t i = 0; i < media.size(); ++i) {
    const bool holds =
        std::ranges::any_of(media[i]->of_kind(ChunkKind::metadata_frame), [](ChunkId id) { return chunk_name(id).serial == 10; });
    if (holds && lost < 2) {
      ++lost;
      drives[i]->take_down("lost by order of the test");
    } else {
      media[i]->on_call = [this](Call call, ChunkId id) { return look(this, call, id); };
    }
  }
  ASSERT_TRUE(executor.run(log->restore_copies()));
  EXPECT_GT(unregistered, 0) << "no look met a copy that was being made: nothing was tested";
  for (auto& medium : media) medium->on_call = nullptr;
  executor.run(log->close());
}

// A drive that is in use is enabled once more, or taken for use again after its data was to be moved away, while a checkpoint is under way:
// the copies of pieces and root that it has just got are no leftovers of another time.
TEST_F(CopiesTest, of_a_checkpoint_that_is_being_made_survive_that_their_drive_is_enabled) {
  for (const ChunkKind kind : {ChunkKind::metadata_file, ChunkKind::metadata_root}) {
    open(2, 2);
    const std::string text = "frame 1";
    ASSERT_TRUE(executor.run(log->append(1, {bytes_of(text)})));
    const auto before = media[0]->of_kind(kind);
    media[1]->on_call = [this, kind](Call call, ChunkId id) { return enable_the_other(this, kind, call, id); };
    ASSERT_TRUE(executor.run(checkpoint(log.get())));
    media[1]->on_call = nullptr;
    ASSERT_GT(unregistered, 0) << "the drive was not enabled while a copy on it was being made: nothing was tested";
    EXPECT_NE(media[0]->of_kind(kind), before);
    for (const MetadataLog::Entry& entry : log->entries()) {
      EXPECT_TRUE(media[entry.drives[0] - 1]->chunks.contains(entry.id)) << "drive " << entry.drives[0] << " " << entry.id.to_string();
    }
    executor.run(log->close());
    log.reset();
    drives.clear();
    // Each of the two drives alone has all of it.
    for (const uint32_t away : {1u, 2u}) {
      open(2, 2, away);
      const auto found = log->checkpoint();
      ASSERT_TRUE(found && *found) << "without drive " << away;
      EXPECT_EQ((*found)->frame, 1u);
      auto bytes = executor.run(log->read_file((*found)->files[0], 0, (*found)->files[0].size));
      EXPECT_TRUE(bytes) << bytes.error().to_string();
      executor.run(log->close());
      log.reset();
      drives.clear();
    }
    media.clear();
    unregistered = 0;
  }
}

class WidenedTest : public GroundTest {
 protected:
  static Task<Result<void>> add_rows(DataPlane* data, meta::Transaction* transaction, DataLayout before, DataLayout wide) {
    data->record_widened(*transaction, before, wide, "owner");
    co_return Result<void>();
  }
  static Task<Result<void>> commit(WidenedTest* self, DataLayout before, DataLayout wide) {
    auto body = [&](meta::Transaction& transaction) { return add_rows(&self->cluster->data(), &transaction, before, wide); };
    Result<meta::Version> done = co_await meta::transact(*self->meta_store, body);
    if (!done) co_return std::move(done).error();
    co_return Result<void>();
  }
  Result<DataLayout> widen(DataLayout layout, Redundancy wanted) {
    auto commit_rows = [this, layout](DataLayout wide) { return commit(this, layout, wide); };
    return executor.run(cluster->data().widen(layout, wanted, commit_rows));
  }
};

// Whoever asked for repair, or found damage, before a write was widened names places that are no concern of it any more.
TEST_F(WidenedTest, a_write_is_repaired_as_it_is_now_and_not_as_it_was_asked_for) {
  add_media(5);
  ASSERT_TRUE(create("mirror:1"));
  fill(40);
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  const std::vector<DataLayout> narrow = layouts;
  for (DataLayout& layout : layouts) {
    auto wide = widen(layout, twice);
    ASSERT_TRUE(wide) << wide.error().to_string();
    layout = *wide;
  }
  settle();
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(1)));
  for (const DataLayout& layout : narrow) {
    auto outcome = executor.run(plane().repairer().repair_write(layout, Repairer::Depth::verify));
    ASSERT_TRUE(outcome) << outcome.error().to_string();
    EXPECT_FALSE(outcome->lost);
    ASSERT_TRUE(executor.run(plane().repairer().repair_shard(layout, 0, 0)));
  }
  settle();
  expect_sound();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 0u);
}

class UnknownTest : public WidenedTest {
 protected:
  static Task<Result<void>> upload(UnknownTest* self) {
    WriteOptions options;
    options.redundancy = self->default_redundancy();
    CO_TRY_ASSIGN(self->writer, self->cluster->data().begin_write(options));
    CO_TRY(co_await self->writer->append(Buffer::copy_of(bytes_of(self->bytes))));
    CO_TRY_ASSIGN(self->layout, co_await self->writer->finish());
    co_return Result<void>();
  }
  // Nobody knows what becomes of it; in truth it is seen later: see land.
  static Task<Result<meta::Version>> commit_without_answer(UnknownTest* self) {
    CO_TRY_ASSIGN(auto transaction, co_await self->cluster->meta().begin());
    self->cluster->data().record(*transaction, self->layout, "test");
    self->meta_store->plan(meta::CommitFault::unknown_not_applied);
    co_return co_await transaction->commit();
  }
  // The log goes on when the first of the other writes of the group arrives at its new place: then repair has looked for rows.
  static Task<void> land(UnknownTest* self, Call call, ChunkId id) {
    const ChunkName name = chunk_name(id);
    if (call != Call::put || name.kind != ChunkKind::data) co_return;
    while (!self->go) co_await sleep_for(std::chrono::milliseconds(10));
    if (name.group != self->layout.group || std::exchange(self->landed, true)) co_return;
    auto transaction = co_await self->cluster->meta().begin();
    EXPECT_TRUE(transaction);
    self->cluster->data().record(**transaction, self->layout, "test");
    self->meta_store->set_faults({});
    Result<meta::Version> done = co_await (*transaction)->commit();
    EXPECT_TRUE(done) << done.error().to_string();
  }
  // The map is planned anew before the commit of the widening, whose answer is lost.
  static Task<Result<void>> widen_without_answer(UnknownTest* self, DataLayout narrow, DataLayout wide, uint32_t drive) {
    self->layout = wide;
    CO_TRY(co_await self->cluster->data().drain_drive(drive));
    CO_TRY_ASSIGN(auto transaction, co_await self->cluster->meta().begin());
    self->cluster->data().record_widened(*transaction, narrow, wide, "test");
    self->meta_store->plan(meta::CommitFault::unknown_not_applied);
    Result<meta::Version> done = co_await transaction->commit();
    self->meta_store->set_faults({.unavailable_probability = 1});
    if (!done) co_return std::move(done).error();
    co_return Result<void>();
  }
  static Task<Result<meta::Version>> land_widened(UnknownTest* self, DataLayout narrow) {
    CO_TRY_ASSIGN(auto transaction, co_await self->cluster->meta().begin());
    self->cluster->data().record_widened(*transaction, narrow, self->layout, "test");
    self->meta_store->set_faults({});
    co_return co_await transaction->commit();
  }
  const std::string bytes = random_bytes(7, 60'000);
  std::unique_ptr<DataWriter> writer;
  DataLayout layout;
  bool go = false, landed = false;
};

// A write placed by the map from before a move is committed; the answer is lost, and the row is seen only after the repair of its group
// went by. Until that is certain the map must not forget where the write is.
TEST_F(UnknownTest, outcomes_of_commits_keep_the_places_of_their_writes_in_the_map) {
  add_media(2);
  ASSERT_TRUE(create("mirror:1"));
  fill(40);
  const auto topology = plane().plane().drives.topology();
  const auto group = static_cast<GroupId>(topology->map.group_count - 1);  // repaired last, when nobody holds it back any more
  do {
    writer.reset();
    ASSERT_TRUE(executor.run(upload(this)));
  } while (layout.group != group);
  fill(60);  // also behind its row
  const uint32_t drive = topology->map.members(1, group)[0].at.drive;
  for (auto& medium : media) medium->on_call = [this](Call call, ChunkId id) { return land(this, call, id); };
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(drive)));
  EXPECT_EQ(executor.run(commit_without_answer(this)).error().code(), Code::unknown_outcome);
  meta_store->set_faults({.unavailable_probability = 1});
  writer->settle();
  writer.reset();
  pass(std::chrono::seconds(1));
  go = true;
  pass(std::chrono::seconds(30));
  for (auto& medium : media) medium->on_call = nullptr;
  ASSERT_TRUE(landed) << "no other write of the group was moved: nothing was tested";
  settle();
  pass(std::chrono::seconds(30));
  layouts.push_back(layout);
  contents.push_back(bytes);
  expect_sound();
}

// Its copy must stay where both layouts look for it until it is certain which of them counts.
TEST_F(UnknownTest, outcome_of_a_widening_leaves_the_only_copy_where_it_is) {
  add_media(5);
  ASSERT_TRUE(create("mirror:1"));
  fill(40);
  const DataLayout narrow = layouts[0];
  const uint32_t drive = plane().plane().drives.topology()->map.members(1, narrow.group)[0].at.drive;
  auto commit_rows = [this, narrow, drive](DataLayout wide) { return widen_without_answer(this, narrow, wide, drive); };
  auto wide = executor.run(cluster->data().widen(narrow, {RedundancyKind::mirror, 1, 1}, commit_rows));
  ASSERT_FALSE(wide);
  ASSERT_EQ(wide.error().code(), Code::unknown_outcome) << wide.error().to_string();
  pass(std::chrono::seconds(30));  // repair moves what the drive holds
  const auto held = media[drive - 1]->of_kind(ChunkKind::data);
  EXPECT_TRUE(std::ranges::any_of(held, [&](ChunkId id) { return chunk_name(id).serial == narrow.write_id; }));
  ASSERT_TRUE(executor.run(land_widened(this, narrow)));
  pass(std::chrono::seconds(30));
  settle();
  layouts[0] = layout;
  expect_sound();
}

// What was begun is undone only when it is certain that the map does not name the drive: what is on it could be the only copy.
TEST_F(UnknownTest, outcome_of_adding_a_drive_is_found_out) {
  add_media(3);
  ASSERT_TRUE(create("mirror:1"));
  fill(40);
  meta_store->plan(meta::CommitFault::unknown_not_applied, 1);  // behind the commit that shows that there can be one
  meta_store->plan(meta::CommitFault::unknown_not_applied, 2);
  EXPECT_EQ(executor.run(cluster->data().add_drive("mem3", false)).error().code(), Code::unknown_outcome);
  pass(std::chrono::seconds(5));
  EXPECT_EQ(cluster->data().drives().size(), 3u);
  EXPECT_TRUE(media[3]->label.empty()) << "it was not added, and was not let go";
  meta_store->plan(meta::CommitFault::unknown_not_applied, 1);
  meta_store->plan(meta::CommitFault::unknown_applied, 2);  // nobody knows
  EXPECT_EQ(executor.run(cluster->data().add_drive("mem3", false)).error().code(), Code::unknown_outcome);
  pass(std::chrono::seconds(5));
  ASSERT_EQ(cluster->data().drives().size(), 4u);
  EXPECT_EQ(cluster->data().drives().back().state, "active");
  settle();
  fill(40);
  check_all();
  ASSERT_TRUE(open());
  check_all();
  EXPECT_EQ(cluster->data().drives().back().state, "active");
  settle();
  EXPECT_EQ(fsck(), "");
  check_chunks();
}

TEST_F(UnknownTest, outcome_of_disabling_a_drive_is_found_out) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  meta_store->plan(meta::CommitFault::unknown_not_applied);
  meta_store->plan(meta::CommitFault::unknown_applied, 1);
  EXPECT_EQ(executor.run(cluster->data().disable_drive(2, "", false)).error().code(), Code::unknown_outcome);
  pass(std::chrono::seconds(5));
  EXPECT_EQ(state(2), "disabled");
  EXPECT_FALSE(plane().plane().drives.find(2)->readable()) << "said to be disabled, and in use";
}

// The metadata's copies on the new drive were needed when adding it failed.
TEST_F(GroundTest, a_drive_that_could_not_be_added_is_let_go_when_that_can_be) {
  add_media(2);
  ASSERT_TRUE(create("mirror:2"));
  fill(20);
  media[1]->gone = true;
  pass(std::chrono::seconds(5));
  meta_store->set_faults({.unavailable_probability = 1});
  const auto refused = executor.run(cluster->data().add_drive("mem2", false));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().to_string().find("undone as soon as"), std::string::npos) << refused.error().to_string();
  meta_store->set_faults({});
  pass(std::chrono::minutes(2));
  EXPECT_FALSE(media[2]->label.empty()) << "it was let go at once: nothing was tested";
  EXPECT_EQ(cluster->data().drives().size(), 2u);
  media[1]->gone = false;
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  pass(std::chrono::minutes(2));
  EXPECT_TRUE(media[2]->label.empty());
  EXPECT_EQ(fsck(), "");
  ASSERT_TRUE(executor.run(cluster->data().add_drive("mem2", false)));
  ASSERT_EQ(cluster->data().drives().size(), 3u);
  EXPECT_EQ(cluster->data().drives().back().state, "active");
  settle();
  expect_sound();
}

}  // namespace
}  // namespace quarry::cluster
