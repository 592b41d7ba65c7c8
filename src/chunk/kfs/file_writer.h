// The writer of KfsStore: content whose hash may be known only at its end.
#pragma once
#include "chunk/kfs/bucket_set.h"
#include "chunk/kfs/kfs_store.h"
#include "codec/digest.h"

namespace quarry::chunk::kfs {

DigestKind digest_of(KfsHash hash);

// A known hash: blocks go to the bucket as they come. Else they are spooled: kSpoolMemory in memory, more in a file without a name, which
// the system removes with the process. (A run under a temporary key would have to be copied too: the bucket depends on the hash.)
inline constexpr size_t kSpoolMemory = 16 * kMiB;
Result<std::unique_ptr<KfsWriter>> make_file_writer(BucketSet& set, KfsHash hash, std::optional<std::string> known);

}  // namespace quarry::chunk::kfs
