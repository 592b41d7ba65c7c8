// What a start finds: the metadata is RocksDB on the log on the drives, processes end where it matters, and drives are away when the next
// one begins.
#include <gtest/gtest.h>

#include "cluster/testing/cluster_harness.h"
#include "cluster/testing/stack_harness.h"
#include "meta/transact.h"

namespace quarry::cluster {
namespace {

using Call = MemoryMedium::Call;

class StartTest : public ::testing::Test, protected ClusterHarness {
 protected:
  ~StartTest() override { close(); }
  ClusterOptions options() override {
    ClusterOptions o = ClusterHarness::options();
    o.metadata_directory = temporary.sub("meta");
    o.accept_loss = accept_loss;
    o.unopened = unopened;
    o.open_meta = [this](meta::CommitLog& log, std::string directory) {
      return open_small_rocksdb(pool.get(), &log, std::move(directory));
    };
    return o;
  }
  void pass(Duration time) { executor.run(sleep_for(time)); }
  // The sentences about drives that are not used.
  std::string told() {
    std::string text;
    for (const HealthProblem& problem : cluster->data().health().problems) {
      if (problem.cause == "drive_waiting") text += problem.sentence + "\n";
    }
    return text;
  }
  std::string state(uint32_t number) {
    for (const DriveStatus& drive : cluster->data().drives()) {
      if (drive.number == number) return drive.state;
    }
    return "?";
  }
  size_t recorded(const std::vector<DataLayout>& layouts) {
    size_t count = 0;
    for (const DataLayout& layout : layouts) {
      auto row = executor.run(cluster->meta().get(keys::data(layout)));
      count += row && row->has_value();
    }
    return count;
  }
  // Of the last frame.
  uint64_t last_frame() const {
    uint64_t last = 0;
    for (const auto& medium : media) {
      for (const ChunkId id : medium->of_kind(ChunkKind::metadata_frame)) last = std::max(last, chunk_name(id).serial);
    }
    return last;
  }
  std::vector<ChunkId> copies_of_frame(size_t medium, uint64_t frame) const {
    std::vector<ChunkId> ids;
    for (const ChunkId id : media[medium]->of_kind(ChunkKind::metadata_frame)) {
      if (chunk_name(id).serial == frame) ids.push_back(id);
    }
    return ids;
  }

  // Before the labels name the drive that is being added.
  static Task<void> write_and_die(StartTest* self, Call call) {
    if (call != Call::label || !self->written.empty()) co_return;
    for (int i = 0; i < 12; ++i) {
      Result<DataLayout> layout = co_await write_task(self, random_bytes(i, 1000), kTwice, true, 1000);
      EXPECT_TRUE(layout) << layout.error().to_string();
      if (layout) self->written.push_back(*layout);
    }
    *self->dead = true;
  }

  static Task<void> die_at_label(StartTest* self, Call call) {
    if (call == Call::label) *self->dead = true;
    co_return;
  }

  void die_while_drive_4_leaves_the_labels() {
    media[0]->on_call = [this](Call call, ChunkId) -> Task<void> { return die_at_label(this, call); };
    EXPECT_FALSE(executor.run(cluster->data().remove_drive(4, true)));
    media[0]->on_call = nullptr;
    crash();
    ASSERT_EQ(DriveLabel::decode(media[0]->label)->drives.size(), 3u) << "it died too early: nothing was tested";
    ASSERT_EQ(DriveLabel::decode(media[1]->label)->drives.size(), 4u) << "it died too late: nothing was tested";
  }

  static Task<void> die_at_a_frame(StartTest* self, std::shared_ptr<uint64_t> steps, Call call, ChunkId id) {
    if (call != Call::put || chunk_name(id).kind != ChunkKind::metadata_frame) co_return;
    *steps = 0;
    *self->dead = true;
  }

  static Task<Result<void>> spoil_map(meta::Transaction* transaction) {
    transaction->put(keys::map_head(), "?");
    co_return Result<void>();
  }
  static Task<void> hang_at_a_file(bool* hung, Call call, ChunkId id) {
    if (call != Call::put || chunk_name(id).kind != ChunkKind::metadata_file) co_return;
    *hung = true;
    co_await sleep_for(std::chrono::minutes(10));
  }

  static Task<void> note_close(size_t* closed, Call call) {
    *closed += call == Call::close;
    co_return;
  }

  static Task<Result<void>> put_row(meta::Transaction* transaction) {
    transaction->put("zz", "acknowledged");
    co_return Result<void>();
  }
  static Task<Result<void>> commit(StartTest* self) {
    const auto body = [](meta::Transaction& transaction) { return put_row(&transaction); };
    Result<meta::Version> done = co_await meta::transact(self->cluster->meta(), body);
    if (!done) co_return std::move(done).error();
    co_return Result<void>();
  }
  static Task<void> commit_and_die(StartTest* self, Call call) {
    if (call != Call::label || self->committed) co_return;
    const Result<void> done = co_await commit(self);
    self->committed = done.has_value();
    *self->dead = true;
  }

  // These media hold checkpoints and roots of all, and no frame behind `kept`.
  void take_back_metadata(const std::vector<size_t>& to, uint64_t kept) {
    for (const size_t i : to) {
      for (const auto& from : media) {
        for (const ChunkKind kind : {ChunkKind::metadata_file, ChunkKind::metadata_root}) {
          for (const ChunkId id : from->of_kind(kind)) {
            media[i]->chunks.emplace(id, from->chunks.at(id));
            media[i]->ever.insert(id);
          }
        }
      }
      for (const ChunkId id : media[i]->of_kind(ChunkKind::metadata_frame)) {
        if (chunk_name(id).serial > kept) media[i]->chunks.erase(id);
      }
    }
  }
  // A start with these media, of which only the epoch is durable: no frame of it lands.
  void accept_and_die_at_once(const std::vector<size_t>& there) {
    accept_loss = true;
    const auto steps = std::make_shared<uint64_t>(UINT64_MAX);
    for (const size_t i : there) {
      media[i]->steps_left = steps;
      media[i]->on_call = [this, steps](Call call, ChunkId id) { return die_at_a_frame(this, steps, call, id); };
    }
    auto started = open();
    std::move(started).ignore("it dies while it starts, or a moment later");
    if (cluster != nullptr) pass(std::chrono::seconds(1));
    crash();
    const auto is_in_effect = [](ChunkId id) { return chunk_name(id).serial > 1000 && chunk_name(id).stripe > 0; };
    ASSERT_TRUE(std::ranges::any_of(media[there[0]]->of_kind(ChunkKind::metadata_root), is_in_effect))
        << "it died too early: nothing was tested";
    for (const size_t i : there) {
      media[i]->steps_left = nullptr;
      media[i]->on_call = nullptr;
    }
    accept_loss = false;
  }

  // Of what was acknowledged all must be there.
  void die_and_lose_a_drive() {
    crash();
    media[0]->gone = true;
    auto started = open();
    ASSERT_TRUE(started) << started.error().to_string();
    EXPECT_EQ(recorded(written), written.size());
  }

  static constexpr Redundancy kTwice{RedundancyKind::mirror, 1, 1};
  TemporaryDirectory temporary;
  bool accept_loss = false;
  std::vector<UnopenedDrive> unopened;
  std::vector<DataLayout> written;
  std::optional<bool> committed;  // acknowledged or not, where the test stopped to try it
};

// What is acknowledged while a drive is being added must be where a start looks that knows nothing of that drive.
TEST_F(StartTest, after_a_death_while_a_drive_was_added_and_the_loss_of_another_has_all_that_was_acknowledged) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  media[0]->on_call = [this](Call call, ChunkId) { return write_and_die(this, call); };
  EXPECT_FALSE(executor.run(cluster->data().add_drive("mem3", false)));
  media[0]->on_call = nullptr;
  ASSERT_EQ(written.size(), 12u) << "nothing was written while the drive was added: nothing was tested";
  EXPECT_TRUE(media[3]->label.empty());
  die_and_lose_a_drive();
}

// Some labels name the new drive, which never got one. It counts as away, and must not for ever.
TEST_F(StartTest, after_a_death_while_labels_were_written_is_not_kept_from_losing_a_drive_later) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  media[1]->on_call = [this](Call call, ChunkId) -> Task<void> { return die_at_label(this, call); };
  EXPECT_FALSE(executor.run(cluster->data().add_drive("mem3", false)));
  media[1]->on_call = nullptr;
  EXPECT_TRUE(media[3]->label.empty());
  crash();
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  pass(std::chrono::seconds(10));
  EXPECT_EQ(cluster->data().drives().size(), 3u);
  close();
  media[2]->gone = true;
  started = open();
  ASSERT_TRUE(started) << started.error().to_string();
}

// A death while labels were written left one that names a drive which never had one, and its drive is away when the next start gives the
// same number to another drive. Which of two labels counts when it is back says whether that one's data is there.
TEST_F(StartTest, after_a_death_while_labels_were_written_goes_by_the_labels_of_a_later_start) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  media[0]->on_call = [this](Call call, ChunkId) -> Task<void> { return die_at_label(this, call); };
  EXPECT_FALSE(executor.run(cluster->data().add_drive("mem4", false)));
  media[0]->on_call = nullptr;
  crash();
  ASSERT_EQ(DriveLabel::decode(media[0]->label)->drives.size(), 5u) << "it died too early: nothing was tested";
  media[0]->gone = true;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  auto added = executor.run(cluster->data().add_drive("mem5", false));
  ASSERT_TRUE(added) << added.error().to_string();
  ASSERT_EQ(state(5), "active") << "it has another number: nothing was tested";
  for (int i = 0; i < 40; ++i) {
    auto layout = write(random_bytes(i, 1000), kTwice);
    ASSERT_TRUE(layout) << layout.error().to_string();
    written.push_back(*layout);
  }
  settle();
  close();
  ASSERT_FALSE(media[5]->of_kind(ChunkKind::data).empty()) << "nothing is on it: nothing was tested";
  media[0]->gone = false;
  started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  EXPECT_EQ(told().find("mem5"), std::string::npos) << told();
  EXPECT_EQ(state(5), "active");
  EXPECT_EQ(recorded(written), written.size());
  for (int i = 0; i < 40; ++i) EXPECT_EQ(*read(written[static_cast<size_t>(i)]), random_bytes(i, 1000));
}

// Its label names drive 4 no more, and that is not so yet; in the end one drive after the other is away.
TEST_F(StartTest, after_a_death_while_labels_were_written_is_not_kept_from_what_was_committed_without_the_newest) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  die_while_drive_4_leaves_the_labels();
  media[0]->gone = true;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  const auto last_lies_on = [this](size_t medium) { return !copies_of_frame(medium, last_frame()).empty(); };
  for (int i = 0; i < 20 && (i == 0 || !(last_lies_on(2) && last_lies_on(3))); ++i) {
    auto layout = write(random_bytes(i, 1000), kTwice);
    ASSERT_TRUE(layout) << layout.error().to_string();
    written.push_back(*layout);
  }
  ASSERT_TRUE(last_lies_on(2) && last_lies_on(3)) << "it lies elsewhere: nothing was tested";
  crash();
  media[0]->gone = false;
  media[2]->gone = true;
  started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  EXPECT_EQ(recorded(written), written.size());
}

// The drive was removed for good, so that with the one that had the newest label only one is away.
TEST_F(StartTest, after_a_death_while_labels_were_written_goes_by_the_newest_when_its_drive_is_away) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  die_while_drive_4_leaves_the_labels();
  ASSERT_TRUE(open());
  auto removed = executor.run(cluster->data().remove_drive(4, true));
  ASSERT_TRUE(removed) << removed.error().to_string();
  close();
  media[0]->gone = media[3]->gone = true;
  auto started = open();
  EXPECT_TRUE(started) << started.error().to_string();
}

// Which is tried again only when somebody asks for it.
TEST_F(StartTest, after_labels_could_not_be_written_goes_by_those_that_counted) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  for (size_t i : {1, 2}) media[i]->labels_fail = true;
  auto removed = executor.run(cluster->data().remove_drive(4, true));
  ASSERT_FALSE(removed);
  ASSERT_EQ(DriveLabel::decode(media[0]->label)->drives.size(), 3u) << "no label was written: nothing was tested";
  for (auto& medium : media) medium->labels_fail = false;
  pass(std::chrono::seconds(30));
  EXPECT_EQ(DriveLabel::decode(media[0]->label)->drives.size(), 4u) << "a start that finds this one looks for nothing on drive 4";
}

// Nobody waits for a drive that hangs while what did start is taken down.
TEST_F(StartTest, that_fails_while_a_drive_hangs_comes_to_its_end) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  ASSERT_TRUE(write(random_bytes(1, 1000), kTwice));
  const auto spoil = [](meta::Transaction& transaction) -> Task<Result<void>> { return spoil_map(&transaction); };
  ASSERT_TRUE(executor.run(meta::transact(cluster->meta(), spoil)));
  crash();
  bool hung = false;
  media[1]->on_call = [&hung](Call call, ChunkId id) { return hang_at_a_file(&hung, call, id); };
  const TimePoint began = executor.now();
  auto started = open();
  media[1]->on_call = nullptr;
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code(), Code::incompatible) << started.error().to_string();
  EXPECT_TRUE(hung) << "nothing was stored at the end: nothing was tested";
  EXPECT_LT(executor.now() - began, std::chrono::minutes(2));
  pass(std::chrono::minutes(15));
}

// Each has its device open, a lock on it, and perhaps work under way.
TEST_F(StartTest, that_is_refused_because_of_a_copy_closes_all_drives) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  close();
  add_media(1);
  media[3]->label = media[1]->label;
  media[3]->id = media[1]->id;
  size_t closed = 0;
  for (auto& medium : media) medium->on_call = [&closed](Call call, ChunkId) { return note_close(&closed, call); };
  auto started = open();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code(), Code::wrong_owner) << started.error().to_string();
  EXPECT_EQ(std::exchange(closed, 0), 4u);
  media[3]->label = "?";
  for (const bool anew : {false, true}) {
    EXPECT_FALSE(anew ? create("mirror:2") : open());
    EXPECT_EQ(std::exchange(closed, 0), 4u) << (anew ? "it created" : "it opened");
  }
  for (auto& medium : media) medium->on_call = nullptr;
}

// Commits stand still with one of two drives, and are refused after a while. A new drive is what helps.
TEST_F(StartTest, is_not_needed_where_a_drive_is_added_because_nothing_can_be_written) {
  add_media(2);
  ASSERT_TRUE(create("mirror:2"));
  auto layout = write(random_bytes(1, 1000), kTwice);
  ASSERT_TRUE(layout) << layout.error().to_string();
  media[1]->gone = true;
  pass(std::chrono::seconds(5));
  EXPECT_FALSE(retire(*layout)) << "it can be written: nothing was tested";
  pass(std::chrono::seconds(30));
  auto added = executor.run(cluster->data().add_drive("mem2", false));
  ASSERT_TRUE(added) << added.error().to_string();
  EXPECT_EQ(recorded({*layout}), 0u) << "what waited is seen";
  auto another = write(random_bytes(2, 1000), kTwice);
  ASSERT_TRUE(another) << another.error().to_string();
  EXPECT_EQ(*read(*another), random_bytes(2, 1000));
}

// A drive that was drained is no place for metadata any more, and no label names it. It comes back to its slot all the same.
TEST_F(StartTest, after_a_drained_drive_was_pulled_and_put_back_and_the_loss_of_another_has_all_that_was_acknowledged) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  ASSERT_TRUE(write(random_bytes(1, 1000), kTwice));
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(2)));
  settle();
  pass(std::chrono::seconds(5));
  ASSERT_EQ(state(2), "draining");
  media[1]->gone = true;
  pass(std::chrono::seconds(30));
  ASSERT_EQ(state(2), "missing");
  media[1]->gone = false;
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  for (int i = 0; i < 20; ++i) {
    auto layout = write(random_bytes(i, 1000), kTwice);
    ASSERT_TRUE(layout) << layout.error().to_string();
    written.push_back(*layout);
  }
  die_and_lose_a_drive();
}

// A commit that nobody was told of is on one drive, and ends what a start sees that cannot write. That drive dies: what the commit retired
// is referenced again, and has to be there.
TEST_F(StartTest, that_cannot_write_removes_nothing) {
  add_media(4);
  ASSERT_TRUE(create("mirror:3"));
  const std::string bytes = random_bytes(1, 50'000);
  auto layout = write(bytes, {RedundancyKind::mirror, 1, 0});
  ASSERT_TRUE(layout) << layout.error().to_string();
  pass(std::chrono::seconds(1));
  const uint64_t before = last_frame();
  ASSERT_TRUE(retire(*layout));
  crash();
  const uint64_t frame = last_frame();
  ASSERT_EQ(frame, before + 1);
  size_t place = media.size(), holder = media.size();  // of the data, of the commit
  for (size_t i = 0; i < media.size(); ++i) {
    if (!media[i]->of_kind(ChunkKind::data).empty()) place = i;
  }
  ASSERT_LT(place, media.size());
  for (size_t i = 0; i < media.size(); ++i) {
    for (const ChunkId id : copies_of_frame(i, frame)) {
      if (i != place && holder == media.size()) {
        holder = i;
        continue;
      }
      media[i]->chunks.erase(id);
      media[i]->ever.erase(id);
    }
  }
  ASSERT_LT(holder, media.size());
  for (size_t i = 0; i < media.size(); ++i) media[i]->gone = i != place && i != holder;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  ASSERT_NE(cluster->read_only_reason(), "") << "it can write: nothing was tested";
  EXPECT_EQ(recorded({*layout}), 0u) << "the commit is not seen: nothing was tested";
  pass(std::chrono::minutes(30));
  EXPECT_FALSE(executor.run(cluster->data().fsck(true)));
  auto scrubbed = executor.run(plane().scrubber().pass());
  EXPECT_FALSE(scrubbed);
  close();
  for (size_t i = 0; i < media.size(); ++i) media[i]->gone = i == holder;
  started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  EXPECT_EQ(recorded({*layout}), 1u);
  auto back = read(*layout);
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(*back, bytes);
}

// The metadata goes back; what was written behind that point lies on the drive that is left all the same. Ids are never put twice.
TEST_F(StartTest, that_accepts_a_loss_gives_out_no_id_that_was_given_out_before) {
  add_media(3);
  tuning.missing_grace = Duration(0);
  ASSERT_TRUE(create("mirror:2"));
  close();  // with a checkpoint
  for (size_t i = 0; i < 2; ++i) {
    for (const ChunkKind kind : {ChunkKind::metadata_file, ChunkKind::metadata_root}) {
      for (const ChunkId id : media[i]->of_kind(kind)) {
        media[2]->chunks.emplace(id, media[i]->chunks.at(id));
        media[2]->ever.insert(id);
      }
    }
  }
  const uint64_t kept = last_frame();
  ASSERT_TRUE(open());
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(write(random_bytes(i, 1000), kTwice));
  crash();
  for (const ChunkId id : media[2]->of_kind(ChunkKind::metadata_frame)) {
    if (chunk_name(id).serial > kept) media[2]->chunks.erase(id);
  }
  ASSERT_FALSE(media[2]->of_kind(ChunkKind::data).empty());
  media[0]->gone = media[1]->gone = true;
  EXPECT_FALSE(open());
  accept_loss = true;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  ASSERT_TRUE(executor.run(cluster->data().add_drive("mem3", false)));
  settle();
  for (int i = 0; i < 30; ++i) {
    auto layout = write(random_bytes(100 + i, 1000), kTwice);
    ASSERT_TRUE(layout) << layout.error().to_string();
    written.push_back(*layout);
  }
  accept_loss = false;
  started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  for (int i = 0; i < 30; ++i) {
    auto back = read(written[static_cast<size_t>(i)]);
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(*back, random_bytes(100 + i, 1000));
  }
}

// Only its epoch is durable: no frame of it lands. Then the drives are back that were given up, with what was put under ids that the
// metadata does not know of; and nobody accepts a loss any more.
TEST_F(StartTest, that_accepts_a_loss_and_dies_at_once_leaves_no_id_to_be_given_out_again) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  close();  // with a checkpoint
  const uint64_t kept = last_frame();
  ASSERT_TRUE(open());
  std::set<WriteId> given_out;
  for (int i = 0; i < 40; ++i) {
    auto layout = write(random_bytes(i, 1000), kTwice);
    ASSERT_TRUE(layout) << layout.error().to_string();
    given_out.insert(layout->write_id);
  }
  crash();
  take_back_metadata({2, 3}, kept);
  media[0]->gone = media[1]->gone = true;
  EXPECT_FALSE(open());
  accept_and_die_at_once({2, 3});
  media[0]->gone = media[1]->gone = false;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  for (int i = 0; i < 60; ++i) {
    auto layout = write(random_bytes(100 + i, 1000), kTwice);
    ASSERT_TRUE(layout) << layout.error().to_string();
    EXPECT_FALSE(given_out.contains(layout->write_id)) << layout->write_id;
    auto back = read(*layout);
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(*back, random_bytes(100 + i, 1000));
  }
}

// Nothing can be written before the drive is there; and what is written before a label names it would be gone with another one.
TEST_F(StartTest, that_cannot_write_acknowledges_nothing_on_a_drive_that_no_label_names) {
  add_media(2);
  ASSERT_TRUE(create("mirror:2"));
  close();
  media[1]->gone = true;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  ASSERT_NE(cluster->read_only_reason(), "") << "it can write: nothing was tested";
  media[0]->on_call = [this](Call call, ChunkId) { return commit_and_die(this, call); };
  EXPECT_FALSE(executor.run(cluster->data().add_drive("mem2", false)));
  media[0]->on_call = nullptr;
  ASSERT_TRUE(committed.has_value()) << "nothing was tried while the drive was added: nothing was tested";
  crash();
  media[0]->gone = true;
  media[1]->gone = false;
  started = open();
  if (*committed && started) {
    const auto row = executor.run(cluster->meta().get("zz"));
    EXPECT_TRUE(row && row->has_value()) << "it was acknowledged";
  }
}

// One further drive is not enough, whichever way it came to that; it waits for the second.
TEST_F(StartTest, that_cannot_write_for_want_of_two_drives_goes_on_with_two) {
  add_media(4);
  ASSERT_TRUE(create("mirror:4"));
  close();
  media[0]->gone = media[1]->gone = true;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  ASSERT_NE(cluster->read_only_reason(), "") << "it can write: nothing was tested";
  auto added = executor.run(cluster->data().add_drive("mem4", false));
  EXPECT_FALSE(added) << "one is enough: nothing was tested";
  added = executor.run(cluster->data().add_drive("mem4", false));
  EXPECT_FALSE(added) << "it is the same drive";
  EXPECT_NE(told().find("mem4 is not used: it is ready and waits for another drive"), std::string::npos) << told();
  EXPECT_NE(told().find("`quarry device add NEW`"), std::string::npos) << told();
  added = executor.run(cluster->data().add_drive("mem5", false));
  EXPECT_TRUE(added) << added.error().to_string();
  pass(std::chrono::seconds(10));
  EXPECT_EQ(cluster->read_only_reason(), "");
  EXPECT_EQ(cluster->data().drives().size(), 6u);
  EXPECT_EQ(told(), "");
  EXPECT_TRUE(executor.run(commit(this)));
  started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  EXPECT_EQ(cluster->read_only_reason(), "");
}

TEST_F(StartTest, is_not_needed_where_two_drives_die_and_two_are_added) {
  add_media(3);
  ASSERT_TRUE(create("mirror:3"));
  media[0]->gone = media[1]->gone = true;
  pass(std::chrono::seconds(5));
  EXPECT_FALSE(executor.run(commit(this))) << "it can be written: nothing was tested";
  EXPECT_FALSE(executor.run(cluster->data().add_drive("mem3", false)));
  auto added = executor.run(cluster->data().add_drive("mem4", false));
  EXPECT_TRUE(added) << added.error().to_string();
  pass(std::chrono::seconds(10));
  EXPECT_TRUE(executor.run(commit(this)));
  EXPECT_EQ(cluster->data().drives().size(), 5u);
}

TEST_F(StartTest, that_accepts_the_loss_of_all_drives_but_one_can_be_written_again) {
  add_media(3);
  tuning.missing_grace = Duration(0);
  ASSERT_TRUE(create("mirror:3"));
  close();
  media[0]->gone = media[1]->gone = true;
  EXPECT_FALSE(open());
  accept_loss = true;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  ASSERT_NE(cluster->read_only_reason(), "");
  EXPECT_FALSE(executor.run(cluster->data().add_drive("mem3", false)));
  auto added = executor.run(cluster->data().add_drive("mem4", false));
  EXPECT_TRUE(added) << added.error().to_string();
  pass(std::chrono::seconds(30));
  EXPECT_EQ(cluster->read_only_reason(), "");
  EXPECT_TRUE(executor.run(commit(this)));
  for (const size_t i : {2, 3, 4}) {
    auto label = DriveLabel::decode(media[i]->label);
    ASSERT_TRUE(label) << label.error().to_string();
    EXPECT_GT(label->epoch, 1000u) << "labels on drives that were given up may outrank it";
  }
  auto layout = write(random_bytes(1, 1000), kTwice);
  EXPECT_TRUE(layout) << layout.error().to_string();
  accept_loss = false;
  started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  EXPECT_EQ(cluster->read_only_reason(), "");
}

// The metadata went back behind the addition of a drive, and its number was given to another one. Then it is plugged in again.
TEST_F(StartTest, finds_a_drive_that_was_given_up_and_says_what_it_is) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  const std::string bytes = random_bytes(1, 1000);
  auto layout = write(bytes, kTwice);
  ASSERT_TRUE(layout);
  close();
  add_media(1);
  auto label = DriveLabel::decode(media[1]->label);
  ASSERT_TRUE(label);
  media[3]->label = label->encode();
  const auto expect_told = [this] {
    EXPECT_NE(told().find("mem3 is not used: it was drive 2 of this store and was given up"), std::string::npos) << told();
    EXPECT_NE(told().find("`quarry device add --force mem3`"), std::string::npos) << told();
    EXPECT_EQ(media[3]->holders, 0u) << "it could not be opened to be added";
  };
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  expect_told();
  EXPECT_EQ(state(2), "active");
  EXPECT_EQ(*read(*layout), bytes);
  close();
  media[1]->gone = true;  // it alone is there
  started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  expect_told();
  EXPECT_EQ(state(2), "missing");
  EXPECT_EQ(*read(*layout), bytes);
  const auto refused = executor.run(cluster->data().add_drive("mem3", false));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().to_string().find("`quarry device add --force mem3`"), std::string::npos) << refused.error().to_string();
  media[1]->gone = false;
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  EXPECT_EQ(state(2), "active");
  // No label names the number any more.
  media[3]->gone = true;
  ASSERT_TRUE(executor.run(cluster->data().add_drive("mem4", false)));
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(2)));
  settle();
  pass(std::chrono::seconds(5));
  close();
  media[3]->gone = false;
  for (const bool alone : {false, true}) {
    media[1]->gone = alone;
    started = open();
    ASSERT_TRUE(started) << started.error().to_string();
    expect_told();
    EXPECT_EQ(state(2), alone ? "missing" : "draining");
    EXPECT_EQ(*read(*layout), bytes);
    close();
  }
}

TEST_F(StartTest, finds_drives_that_are_none_of_its_own_and_says_what_to_do) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  settle();
  media[3]->gone = true;
  ASSERT_TRUE(executor.run(cluster->data().remove_drive(4, true)));
  close();
  media[3]->gone = false;
  add_media(1);
  unopened = {{"/dev/blank", "it carries no drive of this store: it is blank", "to use it: `quarry device add /dev/blank`"},
              {"mem0", "twice"}};
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  EXPECT_NE(told().find("mem3 is not used: it is drive 4 of this store, which was removed"), std::string::npos) << told();
  EXPECT_NE(told().find("`quarry device add --force mem3`"), std::string::npos) << told();
  EXPECT_NE(told().find("mem4 is not used: it is not part of this store yet: `quarry device add mem4`"), std::string::npos) << told();
  EXPECT_NE(
      told().find("/dev/blank is not used: it carries no drive of this store: it is blank; to use it: `quarry device add /dev/blank`"),
      std::string::npos)
      << told();
  EXPECT_EQ(told().find("mem0"), std::string::npos) << "it is in use";
  settle();
  EXPECT_EQ(cluster->data().health().level(), HealthLevel::healthy);
  unopened.clear();
}

// The metadata goes back behind the addition of a drive, to which data had moved. The drive is away for now.
TEST_F(StartTest, that_accepts_a_loss_knows_a_drive_that_only_labels_name) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  for (int i = 0; i < 40; ++i) {
    auto layout = write(random_bytes(i, 1000), kTwice);
    ASSERT_TRUE(layout) << layout.error().to_string();
    written.push_back(*layout);
  }
  close();  // with a checkpoint
  for (size_t i = 0; i < 2; ++i) {
    for (const ChunkKind kind : {ChunkKind::metadata_file, ChunkKind::metadata_root}) {
      for (const ChunkId id : media[i]->of_kind(kind)) {
        media[2]->chunks.emplace(id, media[i]->chunks.at(id));
        media[2]->ever.insert(id);
      }
    }
  }
  const uint64_t kept = last_frame();
  ASSERT_TRUE(open());
  ASSERT_TRUE(executor.run(cluster->data().add_drive("mem3", false)));
  settle();
  crash();
  ASSERT_FALSE(media[3]->of_kind(ChunkKind::data).empty()) << "nothing moved: nothing was tested";
  for (const ChunkId id : media[2]->of_kind(ChunkKind::metadata_frame)) {
    if (chunk_name(id).serial > kept) media[2]->chunks.erase(id);
  }
  media[0]->gone = media[1]->gone = media[3]->gone = true;
  EXPECT_FALSE(open());
  tuning.missing_grace = Duration(0);
  accept_loss = true;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  auto added = executor.run(cluster->data().add_drive("mem4", false));
  ASSERT_TRUE(added) << added.error().to_string();
  pass(std::chrono::seconds(30));
  EXPECT_NE(state(4), "?") << "it is forgotten, and what it holds";
  media[3]->gone = false;
  auto enabled = executor.run(cluster->data().enable_drive(4));
  ASSERT_TRUE(enabled) << enabled.error().to_string();
  for (int i = 0; i < 4; ++i) {
    pass(std::chrono::minutes(11));
    settle();
  }
  size_t there = 0;
  for (size_t i = 0; i < written.size(); ++i) {
    auto bytes = read(written[i]);
    there += bytes && *bytes == random_bytes(i, 1000);
    const WriteId id = written[i].write_id;
    const auto holds = [id](const auto& medium) {
      return !medium->gone && std::ranges::any_of(medium->of_kind(ChunkKind::data), [id](ChunkId c) { return chunk_name(c).serial == id; });
    };
    if (std::ranges::any_of(media, holds)) EXPECT_TRUE(bytes) << "a copy of write " << id << " is there: " << bytes.error().to_string();
  }
  EXPECT_GT(there, 0u);
}

// As before, but only its epoch is durable, and the start after it accepts nothing.
TEST_F(StartTest, that_accepts_a_loss_and_dies_at_once_leaves_drives_known_that_only_labels_name) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  for (int i = 0; i < 40; ++i) {
    auto layout = write(random_bytes(i, 1000), kTwice);
    ASSERT_TRUE(layout) << layout.error().to_string();
    written.push_back(*layout);
  }
  close();  // with a checkpoint
  const uint64_t kept = last_frame();
  ASSERT_TRUE(open());
  ASSERT_TRUE(executor.run(cluster->data().add_drive("mem4", false)));
  settle();
  crash();
  ASSERT_FALSE(media[4]->of_kind(ChunkKind::data).empty()) << "nothing moved: nothing was tested";
  take_back_metadata({2, 3}, kept);
  media[0]->gone = media[1]->gone = media[4]->gone = true;
  EXPECT_FALSE(open());
  accept_and_die_at_once({2, 3});
  media[0]->gone = media[1]->gone = false;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  pass(std::chrono::seconds(30));
  EXPECT_NE(state(5), "?") << "it is forgotten, and what it holds";
  media[4]->gone = false;
  auto enabled = executor.run(cluster->data().enable_drive(5));
  ASSERT_TRUE(enabled) << enabled.error().to_string();
  for (size_t i = 0; i < written.size(); ++i) {
    auto bytes = read(written[i]);
    ASSERT_TRUE(bytes) << bytes.error().to_string();
    EXPECT_EQ(*bytes, random_bytes(i, 1000));
  }
}

// Its scrub could neither repair nor note where it stands: it would read everything again and again.
TEST_F(StartTest, that_cannot_write_does_not_scrub_until_it_can) {
  add_media(3);
  tuning.scrub_interval = Duration(1);  // always due
  ASSERT_TRUE(create("mirror:3"));
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(write(random_bytes(i, 50'000), kTwice));
  const auto passed = executor.run(plane().scrubber().pass());
  ASSERT_TRUE(passed) << passed.error().to_string();
  EXPECT_GT(cluster->data().scrub_status().chunks_checked, 0u);
  close();
  media[0]->gone = media[1]->gone = true;
  accept_loss = true;
  auto started = open();
  ASSERT_TRUE(started) << started.error().to_string();
  ASSERT_NE(cluster->read_only_reason(), "") << "it can write: nothing was tested";
  pass(std::chrono::hours(3));
  EXPECT_EQ(cluster->data().scrub_status().state, "idle");
  EXPECT_EQ(cluster->data().scrub_status().chunks_checked, 0u);
  EXPECT_NE(cluster->data().scrub_status().reason.find("waits until the store can be written: "), std::string::npos);
  EXPECT_EQ(executor.run(cluster->data().start_scrub()).error().code(), Code::unavailable);
  media[0]->gone = false;
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(1)));
  EXPECT_EQ(cluster->read_only_reason(), "");
  for (int i = 0; i < 100 && cluster->data().scrub_status().last_complete == 0; ++i) pass(std::chrono::minutes(1));
  EXPECT_EQ(cluster->data().scrub_status().reason, "");
  EXPECT_GT(cluster->data().scrub_status().chunks_checked, 0u);
}

}  // namespace
}  // namespace quarry::cluster
