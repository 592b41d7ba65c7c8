// Whole files to and from a server: large ones in parallel parts, resumable after an interruption.
//   upload:   resumes an unfinished multipart upload of the same key whose parts have the expected sizes; parts are checked by MD5
//             against the local file before they are trusted.
//   download: goes to NAME.quarry-part (whole pieces recorded by its size), renamed when complete and checked; resumes with If-Match
//             on the ETag, so bytes of two versions never mix.
// Confined to the executor of the client; files are read and written on the pool.
#pragma once
#include <functional>
#include <string>

#include "client/s3_client.h"
#include "io/blocking_pool.h"
#include "io/sync.h"

namespace quarry::client {

struct TransferOptions {
  uint64_t part_bytes = 16 * kMiB;  // grows for files of more than 10,000 parts
  uint64_t multipart_from_bytes = 32 * kMiB;
  bool resume = true;
  bool skip_same = false;  // a file whose size and MD5 equal the object's is not sent again
  // Called as bytes are moved; may be called from the client's executor only.
  std::function<void(uint64_t bytes)> on_bytes = [](uint64_t) {};
};

struct TransferResult {
  uint64_t bytes = 0;    // size of the object
  bool skipped = false;  // it was there already
};

// `slots` bounds the parts and files in flight over all transfers that share it.
Task<Result<TransferResult>> upload_file(S3Client& s3, BlockingPool& pool, Semaphore& slots, std::string path, std::string bucket,
                                         std::string key, TransferOptions options);
Task<Result<TransferResult>> download_file(S3Client& s3, BlockingPool& pool, Semaphore& slots, std::string bucket, std::string key,
                                           std::string path, TransferOptions options);

}  // namespace quarry::client
