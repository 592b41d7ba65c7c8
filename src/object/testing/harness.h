// What the engine's tests stand on: an engine over the in-memory metadata twin and data plane, on a simulated executor, with
// calls that read like a client's.
#pragma once
#include "io/sim/sim_executor.h"
#include "meta/memory/memory_meta_store.h"
#include "object/make_object_engine.h"
#include "object/testing/memory_data_plane.h"

namespace quarry::object {

struct Harness {
  explicit Harness(meta::MemoryMetaFaults faults = {}, uint64_t part_size_min = kPartSizeMin)
      : meta(meta::MemoryMetaStore::create(faults)), data(*meta) {
    engine = make_object_engine({.meta = *meta, .data = data, .clock = clock, .random = random, .part_size_min = part_size_min});
  }

  SimExecutor executor;
  ManualClock clock;
  SeededRandom random{42};
  std::unique_ptr<meta::MemoryMetaStore> meta;
  MemoryDataPlane data;
  std::unique_ptr<ObjectEngine> engine;
  RequestContext ctx = RequestContext::system("test");

  Result<BucketInfo> make_bucket(std::string name, Versioning versioning = Versioning::off) {
    BucketInfo wanted;
    wanted.name = std::move(name);
    wanted.owner = "alice";
    wanted.versioning = versioning;
    return executor.run(engine->create_bucket(ctx, std::move(wanted)));
  }
  Result<BucketInfo> set_versioning(std::string name, Versioning versioning) {
    return executor.run(engine->update_bucket(ctx, std::move(name), [versioning](BucketInfo& info) {
      info.versioning = versioning;
      return Result<void>();
    }));
  }
  // In pieces of `piece` bytes.
  Task<Result<ObjectInfo>> put_task(std::string bucket, std::string key, std::string bytes, PutOptions options = {}, Expected expected = {},
                                    size_t piece = 100'000) {
    CO_TRY_ASSIGN(auto writer, co_await engine->put(ctx, std::move(bucket), std::move(key), std::move(options)));
    for (size_t at = 0; at < bytes.size(); at += piece) {
      Buffer data_piece = Buffer::copy_of(bytes_of(std::string_view(bytes).substr(at, piece)));
      CO_TRY(co_await writer->write(std::move(data_piece)));
    }
    auto info = co_await writer->finish(std::move(expected));
    co_return info;
  }
  Result<ObjectInfo> put(std::string bucket, std::string key, std::string bytes, PutOptions options = {}, Expected expected = {}) {
    return executor.run(put_task(std::move(bucket), std::move(key), std::move(bytes), std::move(options), std::move(expected)));
  }
  static Task<Result<std::string>> read_all(ObjectReader& reader, size_t piece = 70'000) {
    std::string bytes;
    for (;;) {
      CO_TRY_ASSIGN(auto next, co_await reader.next(piece));
      if (next.empty()) co_return bytes;
      bytes.append(text_of(next));
    }
  }
  Task<Result<std::string>> get_task(std::string bucket, std::string key, std::string version = {}) {
    CO_TRY_ASSIGN(auto reader, co_await engine->get(ctx, std::move(bucket), std::move(key), std::move(version)));
    auto bytes = co_await read_all(*reader);
    co_return bytes;
  }
  Result<std::string> get(std::string bucket, std::string key, std::string version = {}) {
    return executor.run(get_task(std::move(bucket), std::move(key), std::move(version)));
  }
  Task<Result<std::string>> range_task(std::string bucket, std::string key, uint64_t offset, uint64_t length) {
    CO_TRY_ASSIGN(auto reader, co_await engine->get(ctx, std::move(bucket), std::move(key), {}));
    reader->set_range(offset, length);
    auto bytes = co_await read_all(*reader, 1000);
    co_return bytes;
  }
  Result<std::string> range(std::string bucket, std::string key, uint64_t offset, uint64_t length) {
    return executor.run(range_task(std::move(bucket), std::move(key), offset, length));
  }
  Result<ObjectInfo> head(std::string bucket, std::string key, std::string version = {}) {
    return executor.run(engine->head(ctx, std::move(bucket), std::move(key), std::move(version)));
  }
  Result<DeleteOutcome> remove(std::string bucket, std::string key, std::string version = {}, Conditions conditions = {}) {
    return executor.run(engine->remove(ctx, std::move(bucket),
                                       {.key = std::move(key), .version_id = std::move(version), .conditions = std::move(conditions)}));
  }
  Result<ListPage> list(std::string bucket, ListOptions options = {}) {
    return executor.run(engine->list(ctx, std::move(bucket), std::move(options)));
  }
  Result<VersionListPage> list_versions(std::string bucket, VersionListOptions options = {}) {
    return executor.run(engine->list_versions(ctx, std::move(bucket), std::move(options)));
  }
  Result<UploadInfo> create_upload(std::string bucket, std::string key, PutOptions options = {},
                                   ChecksumType type = ChecksumType::full_object) {
    return executor.run(engine->create_upload(ctx, std::move(bucket), std::move(key), std::move(options), type));
  }
  Task<Result<PartInfo>> put_part_task(std::string bucket, std::string key, std::string upload, uint32_t number, std::string bytes,
                                       PutOptions options = {}) {
    CO_TRY_ASSIGN(auto writer,
                  co_await engine->put_part(ctx, std::move(bucket), std::move(key), std::move(upload), number, std::move(options)));
    if (!bytes.empty()) {
      CO_TRY(co_await writer->write(Buffer::copy_of(bytes_of(bytes))));
    }
    auto part = co_await writer->finish_part({});
    co_return part;
  }
  Result<PartInfo> put_part(std::string bucket, std::string key, std::string upload, uint32_t number, std::string bytes,
                            PutOptions options = {}) {
    return executor.run(put_part_task(std::move(bucket), std::move(key), std::move(upload), number, std::move(bytes), std::move(options)));
  }
  Result<ObjectInfo> complete(std::string bucket, std::string key, std::string upload, CompleteOptions options) {
    return executor.run(engine->complete_upload(ctx, std::move(bucket), std::move(key), std::move(upload), std::move(options)));
  }
  Result<void> abort(std::string bucket, std::string key, std::string upload) {
    return executor.run(engine->abort_upload(ctx, std::move(bucket), std::move(key), std::move(upload)));
  }
  // Everything wrong with the store: the engine's rows, the data plane's, and bytes that nobody names.
  std::vector<std::string> violations() {
    auto report = executor.run(engine->fsck(ctx, false));
    if (!report) return {report.error().to_string()};
    auto collected = executor.run(data.collect());
    if (!collected) return {collected.error().to_string()};
    auto plane = executor.run(data.fsck(false));
    if (!plane) return {plane.error().to_string()};
    auto all = std::move(report->violations);
    all.insert(all.end(), plane->violations.begin(), plane->violations.end());
    if (plane->orphan_chunks > 0) all.push_back(fmt::format("{} orphans", plane->orphan_chunks));
    if (plane->chunks != plane->data_rows) all.push_back(fmt::format("{} writes held, {} data rows", plane->chunks, plane->data_rows));
    return all;
  }
  BucketUsage usage(std::string bucket) {
    auto usage = executor.run(engine->bucket_usage(ctx, std::move(bucket)));
    return usage ? *usage : BucketUsage{.objects = UINT64_MAX, .bytes = UINT64_MAX};
  }
};

template <class T>
Code code_of(const Result<T>& result) {
  return result ? Code{} : result.error().code();
}

inline std::vector<std::string> names_of(const std::vector<ObjectInfo>& objects) {
  std::vector<std::string> names;
  for (const auto& object : objects) names.push_back(object.key);
  return names;
}

inline std::string pattern(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  SeededRandom random(seed);
  random.fill({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  return bytes;
}

}  // namespace quarry::object
