// The directory of a RocksDB index, and everything that can be wrong with it. docs/formats/metadata-log.md, section 5.
#pragma once
#include "meta/rocksdb/rocksdb_meta_store.h"

namespace quarry::meta {

// options.directory. Needs options.pool, which the views of its index use.
std::unique_ptr<IndexPlace> make_rocksdb_place(const RocksdbMetaOptions& options);
// `directory` instead of options.directory, where there is no room; it goes with the place.
std::unique_ptr<IndexPlace> make_spare_rocksdb_place(const RocksdbMetaOptions& options, const std::string& directory);

}  // namespace quarry::meta
