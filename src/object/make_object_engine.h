// How an ObjectEngine is built over a metadata store and a data plane (docs/formats/object-records.md has its rows).
#pragma once
#include <memory>
#include <string>

#include "cluster/data_plane.h"
#include "io/blocking_pool.h"
#include "io/clock.h"
#include "meta/meta_store.h"
#include "object/object_engine.h"

namespace quarry::object {

// Everything referenced outlives the engine. Clock and Random are called from every executor that calls the engine: give
// thread-safe ones (system_clock, system_random) where there is more than one.
struct EngineOptions {
  meta::MetaStore& meta;
  cluster::DataPlane& data;
  Clock& clock;
  Random& random;
  // Where bodies are hashed, so that MD5 overlaps I/O and uses other cores; null: on the caller's loop, in slices with yields.
  BlockingPool* compute = nullptr;
  // Redundancy of buckets that name none ("ec:4+2", "mirror:3", a profile name); empty: by the number of failure domains.
  std::string default_redundancy = {};
  // Failure domains that redundancy may count on; 0: those of the data plane's active drives, looked at once a second.
  unsigned failure_domains = 0;
  // Times a transaction is tried again after a conflict before the caller is told `conflict`.
  int conflict_retries_max = 64;
  // The least size of a part that is not the last. S3's; tests lower it.
  uint64_t part_size_min = kPartSizeMin;
};

// Starts nothing in the background: may be destroyed once no call, writer or reader of it is left.
std::unique_ptr<ObjectEngine> make_object_engine(EngineOptions options);

}  // namespace quarry::object
