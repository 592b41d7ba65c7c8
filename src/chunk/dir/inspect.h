// What a mountpath knows of one of its files, read from the outside: no lock is taken and nothing is changed, so that a node may have it
// open. For people: `quarry device inspect FILE`. Blocking.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace quarry::chunk::dir {

struct InspectedFile {
  std::string mountpath, path;  // path: below the mountpath
  Uuid drive;                   // of the mountpath
  // "object" (shown), "hidden" (finished, not shown), "chunk" (anonymous), "record" (a side file), "absent" (a list of removed chunks),
  // "foreign" (Quarry knows nothing of it), "own" (something else under .quarry)
  std::string what;
  ChunkId first;                         // of the file's first chunk, or the chunk's own
  std::string record_place;              // "attribute", "side file"; empty: none
  uint64_t size = 0, recorded_size = 0;  // bytes: of the file; of the object's or chunk's payload
  uint32_t chunk_size = 0, chunks = 0, removed_chunks = 0;
  uint64_t stride = 0;
  int64_t modified_ns = 0, recorded_modified_ns = 0;  // ns since 1970; recorded: 0 where nothing is
  std::string bucket, key;
  bool adopted = false;
  std::vector<std::pair<std::string, std::string>> attributes;
  uint64_t checksums = 0, bad_checksums = 0;  // of 64 KiB blocks; those of removed chunks are not counted
  bool verified = false;                      // all bytes were read
  std::string problem;                        // empty: it is as it was stored, as far as was looked at
};

// path: absolute, of a plain file. verify: reads all of it. None: it lies below no mountpath. Errors: not_found, permission_denied, corrupt
// (the mountpath's own descriptor), io_error.
Result<std::optional<InspectedFile>> inspect_file(const std::string& path, bool verify);

}  // namespace quarry::chunk::dir
