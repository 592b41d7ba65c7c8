// Power cuts: four writers put, finish, show, replace, hide and remove over a file system that remembers what was synced; at drawn moments
// a picture is taken of what a power cut could have left, with names lost in one common order or per directory, and bytes and attributes in
// any combination. Each picture must open without damage, hold every acknowledged chunk and file byte for byte, none that was removed,
// and under readable names only whole files; the newest acknowledged showing of a key is what its path holds.
#include "chunk/dir/testing/store_fixture.h"

namespace quarry::chunk::dir {
namespace {

using testing::IsEmpty;

enum class Step : uint8_t { no, begun, done };

struct Chunk {
  std::string content;
  Step put = Step::no, removed = Step::no;
};
struct Kept {
  std::string key, content;
  Step finished = Step::no, removed = Step::no;
  bool ever_shown = false;
};
// What is (or may be) under a key: the last acknowledged state, and whether a change of it is under way.
struct Name {
  std::optional<ChunkId> shown;
  bool changing = false;
};

// What was asked for and what was acknowledged. Thread-safe: pictures are taken on pool threads.
struct Oracle {
  std::map<ChunkId, Chunk> chunks;
  std::map<ChunkId, Kept> files;
  std::map<std::string, Name> names;
};

struct Picture {
  std::shared_ptr<MemoryFileSystem> files;
  Oracle before, after;  // what was acknowledged before it was taken; what was begun when it was
  uint64_t seed = 0;
  bool ordered = false;
};

struct World {
  std::shared_ptr<MemoryFileSystem> files = MemoryFileSystem::create();
  std::mutex mutex;
  Oracle oracle;
  std::vector<Picture> pictures;
  std::set<uint64_t> moments;
  uint64_t seed = 0;

  template <class F>
  void note(F change) {
    const std::lock_guard lock(mutex);
    change(oracle);
  }
  void look(uint64_t operation) {
    if (!moments.contains(operation)) return;
    for (const bool ordered : {true, false}) {
      Picture picture;
      picture.seed = seed * 10'000 + operation;
      picture.ordered = ordered;
      {
        const std::lock_guard lock(mutex);
        picture.before = oracle;
      }
      picture.files = files->crash(picture.seed, ordered);
      {
        const std::lock_guard lock(mutex);
        picture.after = oracle;
      }
      const std::lock_guard lock(mutex);
      pictures.push_back(std::move(picture));
    }
  }
};

Task<void> work(World& world, DirStore& store, uint64_t worker, uint64_t steps, std::vector<std::string> keys) {
  SeededRandom random(world.seed * 100 + worker);
  uint64_t serial = worker << 32;
  std::vector<ChunkId> chunks, files;
  for (uint64_t step = 0; step < steps; ++step) {
    const uint64_t what = random.below(100);
    if (what < 25) {
      const ChunkId id{3, ++serial};
      const std::string content = test_payload(serial, random.below(4) == 0 ? random.below(150'000) : random.below(3000));
      world.note([&](Oracle& oracle) { oracle.chunks[id] = {content, Step::begun, Step::no}; });
      std::vector<ByteView> parts = {bytes_of(content)};
      auto put = co_await store.put(id, std::move(parts), {});
      EXPECT_TRUE(put);
      world.note([&](Oracle& oracle) { oracle.chunks[id].put = Step::done; });
      chunks.push_back(id);
    } else if (what < 65) {
      const ChunkId first{4 + worker, ++serial};
      const std::string key = keys[random.below(keys.size())];
      const std::string content = test_payload(serial, random.below(3) == 0 ? random.below(250'000) : random.below(5000));
      world.note([&](Oracle& oracle) { oracle.files[first] = {key, content, Step::begun, Step::no, false}; });
      auto put = co_await put_whole_file(store, first, "b", key, content);
      EXPECT_TRUE(put);
      world.note([&](Oracle& oracle) { oracle.files[first].finished = Step::done; });
      files.push_back(first);
      if (random.below(5) > 0) {
        world.note([&](Oracle& oracle) {
          oracle.files[first].ever_shown = true;
          oracle.names[key].changing = true;
        });
        std::vector<std::pair<std::string, std::string>> attributes;
        if (random.below(2) == 0) attributes.emplace_back("content-type", std::string(random.below(3) == 0 ? 4000 : 10, 't'));
        auto shown = co_await store.show_file(first, std::move(attributes));
        EXPECT_TRUE(shown) << shown.error().to_string();
        world.note([&](Oracle& oracle) { oracle.names[key] = {first, false}; });
      }
    } else if (what < 75 && !chunks.empty()) {
      const size_t at = random.below(chunks.size());
      const ChunkId id = chunks[at];
      chunks.erase(chunks.begin() + static_cast<ptrdiff_t>(at));
      world.note([&](Oracle& oracle) { oracle.chunks[id].removed = Step::begun; });
      std::vector<ChunkId> ids = {id};
      auto removed = co_await store.remove(std::move(ids));
      EXPECT_TRUE(removed);
      world.note([&](Oracle& oracle) { oracle.chunks[id].removed = Step::done; });
    } else if (!files.empty()) {
      const size_t at = random.below(files.size());
      const ChunkId first = files[at];
      std::string key;
      size_t size = 0;
      world.note([&](Oracle& oracle) {
        key = oracle.files[first].key;
        size = oracle.files[first].content.size();
      });
      if (what < 82) {
        bool there = false;
        world.note([&](Oracle& oracle) { there = oracle.names[key].shown == first; });
        if (there) world.note([&](Oracle& oracle) { oracle.names[key].changing = true; });
        auto hidden = co_await store.hide_file(first);
        EXPECT_TRUE(hidden);
        if (there) world.note([&](Oracle& oracle) { oracle.names[key] = {std::nullopt, false}; });
      } else {
        files.erase(files.begin() + static_cast<ptrdiff_t>(at));
        bool there = false;
        world.note([&](Oracle& oracle) {
          oracle.files[first].removed = Step::begun;
          there = oracle.names[key].shown == first;
          if (there) oracle.names[key].changing = true;
        });
        auto ids = chunks_of(first, size);
        auto removed = co_await store.remove(std::move(ids));
        EXPECT_TRUE(removed) << removed.error().to_string();
        world.note([&](Oracle& oracle) {
          oracle.files[first].removed = Step::done;
          if (there) oracle.names[key] = {std::nullopt, false};
        });
      }
    }
  }
}

Task<void> work_all(World& world, DirStore& store, uint64_t steps) {
  TaskGroup group;
  const std::vector<std::vector<std::string>> keys = {{"a", "x/y/z"}, {"a/b", "x/y"}, {"a/b/c", "x", "d//e"}, {"a/", "x/y/z/w", ".."}};
  for (uint64_t i = 0; i < keys.size(); ++i) group.spawn(work(world, store, i, steps, keys[i]));
  co_await group.join();
}

void check(const Picture& picture, DirStoreOptions options) {
  SCOPED_TRACE(fmt::format("picture {} {}", picture.seed, picture.ordered ? "ordered" : "by directory"));
  SimExecutor executor{{.threads = true}};
  options.file_system = picture.files;
  auto opened = executor.run(DirStore::open("memory", options));
  ASSERT_TRUE(opened) << opened.error().to_string();
  auto store = std::move(*opened);
  EXPECT_THAT(store->open_report().damage, IsEmpty());
  std::set<ChunkId> known;
  for (const auto& [id, chunk] : picture.after.chunks) {
    known.insert(id);
    const auto before = picture.before.chunks.find(id);
    const bool acknowledged = before != picture.before.chunks.end() && before->second.put == Step::done && chunk.removed == Step::no;
    const bool gone = before != picture.before.chunks.end() && before->second.removed == Step::done;
    auto got = executor.run(store->get(id, 0, kChunkSizeMax));
    if (acknowledged) ASSERT_TRUE(got) << id.to_string() << " " << got.error().to_string();
    if (gone) ASSERT_FALSE(got) << id.to_string() << " came back";
    if (got) ASSERT_TRUE(text_of(got->view()) == chunk.content) << id.to_string();
    if (!got) ASSERT_EQ(got.error().code(), Code::not_found) << got.error().to_string();
  }
  for (const auto& [first, file] : picture.after.files) {
    for (const ChunkId id : chunks_of(first, file.content.size())) known.insert(id);
    const auto before = picture.before.files.find(first);
    const bool acknowledged = before != picture.before.files.end() && before->second.finished == Step::done && file.removed == Step::no;
    const bool gone = before != picture.before.files.end() && before->second.removed == Step::done;
    auto got = executor.run(get_whole_file(*store, first, file.content.size()));
    if (acknowledged) ASSERT_TRUE(got) << first.to_string() << " " << file.key << " " << got.error().to_string();
    if (gone) ASSERT_FALSE(got) << first.to_string() << " came back";
    if (got) ASSERT_TRUE(*got == file.content) << first.to_string();
    if (!got) ASSERT_EQ(got.error().code(), Code::not_found) << got.error().to_string();
  }
  const auto listed = executor.run(store->list({}, {UINT64_MAX, UINT64_MAX}, SIZE_MAX));
  for (const auto& stat : *listed) ASSERT_TRUE(known.contains(stat.id)) << stat.id.to_string();
  // What a reader without Quarry sees.
  std::map<std::string, std::string> visible;
  for (const auto& [path, content] : picture.files->all()) {
    if (path.starts_with(".quarry/")) {
      EXPECT_FALSE(path.starts_with(".quarry/unfinished/")) << path;
      continue;
    }
    const auto said = parse_path(path);
    ASSERT_TRUE(said) << path;
    ASSERT_TRUE(visible.emplace(said->key, content).second) << said->key << " is there twice";
    const bool whole = std::any_of(picture.after.files.begin(), picture.after.files.end(), [&](const auto& one) {
      return one.second.ever_shown && one.second.key == said->key && one.second.content == content;
    });
    ASSERT_TRUE(whole) << path << " holds what was never shown there";
  }
  for (const auto& [key, name] : picture.before.names) {
    const auto after = picture.after.names.find(key);
    if (name.changing || after->second.changing || after->second.shown != name.shown) continue;
    ASSERT_EQ(visible.contains(key), name.shown.has_value()) << key;
    if (name.shown) ASSERT_TRUE(visible[key] == picture.after.files.at(*name.shown).content) << key;
  }
  const auto report = executor.run(store->fsck());
  ASSERT_TRUE(report);
  EXPECT_THAT(report->violations, IsEmpty());
  // It goes on, and closes.
  ASSERT_TRUE(executor.run(put_whole_file(*store, {99, 1}, "b", "a/b/c/d", "after the crash")));
  const auto shown = executor.run(store->show_file({99, 1}, {}));
  ASSERT_TRUE(shown) << shown.error().to_string();
  ASSERT_TRUE(executor.run(store->close()));
}

void cut_power(uint64_t first_seed, uint64_t runs, bool attributes) {
  uint64_t pictures = 0;
  for (uint64_t seed = first_seed; seed < first_seed + runs && !testing::Test::HasFatalFailure(); ++seed) {
    World world;
    world.seed = seed;
    world.files->set_attributes_supported(attributes);
    DirStoreOptions options;
    options.threads = 3;
    options.health_timeout = Duration::zero();
    options.file_system = world.files;
    SimExecutor executor{{.threads = true}};
    ASSERT_TRUE(format_mountpath(*world.files, {}));
    SeededRandom random(seed);
    for (int i = 0; i < 12; ++i) world.moments.insert(60 + random.below(1500));
    std::atomic<uint64_t> operations{0};
    world.files->set_hook([&](const char*, const std::string&) {
      world.look(++operations);
      return Result<void>();
    });
    auto store = executor.run(DirStore::open("memory", options));
    ASSERT_TRUE(store);
    executor.run(work_all(world, **store, 30));
    world.files->set_hook(nullptr);
    const auto report = executor.run((*store)->fsck());
    EXPECT_THAT(report->violations, IsEmpty());
    ASSERT_TRUE(executor.run((*store)->close()));
    for (const auto& picture : world.pictures) {
      check(picture, options);
      if (testing::Test::HasFatalFailure()) return;
    }
    pictures += world.pictures.size();
  }
  testing::Test::RecordProperty("pictures", static_cast<int>(pictures));
  EXPECT_GT(pictures, runs * 8);
}

TEST(DirCrash, every_acknowledged_file_survives_a_power_cut_whole) { cut_power(1, 60, true); }
TEST(DirCrash, so_it_does_with_records_in_side_files) { cut_power(1001, 40, false); }

}  // namespace
}  // namespace quarry::chunk::dir
