#include "meta/rocksdb/rocksdb_meta_store.h"

#include "base/log.h"
#include "meta/rocksdb/index_room.h"
#include "meta/rocksdb/rocksdb_place.h"

namespace quarry::meta {
namespace {

// The directory's file system is full, as `why` says. What is in the directory stays as it is; it is caught up at a start that finds room.
Task<Result<std::string>> find_spare_directory(const RocksdbMetaOptions& options, CommitLog& log, Error why) {
  CO_TRY_ASSIGN(const std::optional<CheckpointManifest> manifest, log.checkpoint());
  uint64_t bytes = 0;
  if (manifest) {
    for (const CheckpointFile& file : manifest->files) bytes += file.size;
  }
  const auto make = [&options, bytes] { return make_spare_directory(options.spare_directories, options.directory, bytes); };
  auto making = blocking(*options.pool, make);
  Result<std::string> spare = co_await std::move(making);
  if (!spare) co_return std::move(why).with(spare.error().context());
  LOG_ERROR("the metadata index finds no room and is made anew elsewhere", {"directory", options.directory}, {"at", *spare},
            {"error", why.to_string()});
  co_return spare;
}

}  // namespace

Task<Result<std::unique_ptr<LogMetaStore>>> open_rocksdb_store(RocksdbMetaOptions options, CommitLog& log) {
  options.need_pool();
  IndexRoom reserve(options.directory, options.reserve_bytes);
  const auto give_up = [&reserve] { return reserve.give_up(); };
  auto giving_up = blocking(*options.pool, give_up);
  co_await std::move(giving_up);
  Task<Result<std::unique_ptr<LogMetaStore>>> opening = LogMetaStore::open(options, make_rocksdb_place(options), log);
  Result<std::unique_ptr<LogMetaStore>> store = co_await std::move(opening);
  bool elsewhere = false;
  if (!store && store.error().code() == Code::no_space && !options.spare_directories.empty()) {
    Task<Result<std::string>> finding = find_spare_directory(options, log, store.error());
    const Result<std::string> spare = co_await std::move(finding);
    elsewhere = spare.has_value();
    if (elsewhere) {
      Task<Result<std::unique_ptr<LogMetaStore>>> again = LogMetaStore::open(options, make_spare_rocksdb_place(options, *spare), log);
      store = co_await std::move(again);
    } else {
      store = spare.error();
    }
  }
  const auto keep = [&options, &reserve, elsewhere] {
    if (!elsewhere) remove_spare_directories(options.spare_directories, options.directory);
    return reserve.keep();
  };
  auto keeping = blocking(*options.pool, keep);
  co_await std::move(keeping);
  co_return store;
}

}  // namespace quarry::meta
