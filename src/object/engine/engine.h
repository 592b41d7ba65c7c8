// Engine: the implementation of ObjectEngine. One class whose operations are spread over files by theme:
//   engine.cc        making, buckets' cache, the loop that applies changes      buckets.cc   bucket operations
//   put.cc           writers                                                    read.cc      head, get
//   remove.cc        remove, remove_many, set_tags                              list.cc, list_versions.cc
//   uploads.cc       uploads and their parts                                    complete.cc  completing an upload
//   rewrite.cc       to another redundancy                                      fsck.cc      the proof of the rows
// Thread-safe: state is the bucket cache (guarded), an atomic clock, and gates.
#pragma once
#include <atomic>
#include <mutex>
#include <unordered_map>

#include "object/engine/change.h"
#include "object/engine/files.h"
#include "object/engine/gate.h"
#include "object/engine/hash_queue.h"
#include "object/make_object_engine.h"

namespace quarry::object {

// A bucket's row and what it says. Immutable.
struct Bucket {
  std::string raw;
  BucketInfo info;
  uint64_t unique = 0;
};
using BucketRef = std::shared_ptr<const Bucket>;

inline constexpr size_t kBucketCacheMax = 4096;         // buckets; beyond, an arbitrary one is forgotten
inline constexpr uint32_t kInlineLimitMax = 60 * 1024;  // below the metadata store's limit for values
inline constexpr size_t kAttributesMax = 32 * 1024;     // bytes of a bucket's attributes
inline constexpr size_t kHeadersMax = 16 * 1024;        // bytes of an object's headers and tags together, but for user metadata
inline constexpr int kUnknownRetriesMax = 3;            // tries to settle an unknown outcome before the caller hears it
inline constexpr int kReadRetriesMax = 8;               // looks at a bucket that is deleted and made anew under a read

class Engine final : public ObjectEngine {
 public:
  explicit Engine(EngineOptions options);

  Task<Result<BucketInfo>> create_bucket(const RequestContext& ctx, BucketInfo wanted) override;
  Task<Result<BucketInfo>> get_bucket(const RequestContext& ctx, std::string name) override;
  Task<Result<BucketUsage>> bucket_usage(const RequestContext& ctx, std::string name) override;
  Task<Result<std::vector<BucketInfo>>> list_buckets(const RequestContext& ctx, std::string prefix, std::string after,
                                                     size_t limit) override;
  Task<Result<BucketInfo>> update_bucket(const RequestContext& ctx, std::string name, BucketChange change) override;
  Task<Result<void>> delete_bucket(const RequestContext& ctx, std::string name) override;

  Task<Result<std::unique_ptr<ObjectWriter>>> put(const RequestContext& ctx, std::string bucket, std::string key,
                                                  PutOptions options) override;
  Task<Result<ObjectInfo>> head(const RequestContext& ctx, std::string bucket, std::string key, std::string version_id) override;
  Task<Result<std::unique_ptr<ObjectReader>>> get(const RequestContext& ctx, std::string bucket, std::string key,
                                                  std::string version_id) override;
  Task<Result<DeleteOutcome>> remove(const RequestContext& ctx, std::string bucket, DeleteTarget target) override;
  Task<std::vector<Result<DeleteOutcome>>> remove_many(const RequestContext& ctx, std::string bucket,
                                                       std::vector<DeleteTarget> targets) override;
  Task<Result<ObjectInfo>> set_tags(const RequestContext& ctx, std::string bucket, std::string key, std::string version_id,
                                    Tags tags) override;

  Task<Result<ListPage>> list(const RequestContext& ctx, std::string bucket, ListOptions options) override;
  Task<Result<VersionListPage>> list_versions(const RequestContext& ctx, std::string bucket, VersionListOptions options) override;

  Task<Result<UploadInfo>> create_upload(const RequestContext& ctx, std::string bucket, std::string key, PutOptions options,
                                         ChecksumType type) override;
  Task<Result<UploadInfo>> get_upload(const RequestContext& ctx, std::string bucket, std::string key, std::string upload_id) override;
  Task<Result<std::unique_ptr<ObjectWriter>>> put_part(const RequestContext& ctx, std::string bucket, std::string key,
                                                       std::string upload_id, uint32_t number, PutOptions options) override;
  Task<Result<PartListPage>> list_parts(const RequestContext& ctx, std::string bucket, std::string key, std::string upload_id,
                                        uint32_t after, size_t limit) override;
  Task<Result<UploadListPage>> list_uploads(const RequestContext& ctx, std::string bucket, UploadListOptions options) override;
  Task<Result<ObjectInfo>> complete_upload(const RequestContext& ctx, std::string bucket, std::string key, std::string upload_id,
                                           CompleteOptions options) override;
  Task<Result<void>> abort_upload(const RequestContext& ctx, std::string bucket, std::string key, std::string upload_id) override;

  Task<Result<ObjectInfo>> adopt(const RequestContext& ctx, std::string bucket, std::string key, AdoptSource source) override;
  Task<Result<AdoptedState>> adopted_state(const RequestContext& ctx, std::string bucket, std::string key) override;

  Task<Result<Rewritten>> rewrite(const RequestContext& ctx, std::string bucket, std::string key, std::string version_id) override;

  Task<Result<void>> pin(const RequestContext& ctx, std::string bucket, std::string key, bool pinned) override;
  Task<Result<FsckReport>> fsck(const RequestContext& ctx, bool repair) override;

  // ---- for the files of this folder ----

  meta::MetaStore& meta() { return options_.meta; }
  cluster::DataPlane& data() { return options_.data; }
  HashQueue& hashes() { return hashes_; }
  WallTime wall_now() const { return options_.clock.wall_now(); }
  uint64_t random() { return options_.random.u64(); }
  uint64_t part_size_min() const { return options_.part_size_min; }
  // About the wall time in ns, and different each time.
  Sequence next_time();
  Result<cluster::Redundancy> redundancy_of(const BucketPolicy& policy);

  // The bucket's row as last seen by this engine, or read now. A hint: what is decided by it is checked again, inside the
  // transaction for writes, together with the rows for reads. Errors: not_found ("bucket 'x'").
  Task<Result<BucketRef>> open_bucket(std::string name);
  // The bucket's row, read now.
  Task<Result<BucketRef>> fresh_bucket(std::string name);
  Result<BucketRef> learn_bucket(const std::string& name, std::optional<std::string> row);  // from a row just read
  void forget_bucket(const std::string& name);

  // Applies a change in a transaction, as often as conflicts and unknown outcomes require. `expected`: the bucket's id the caller
  // has prepared for (0: any); another one is not_found.
  Task<Result<void>> run_change(const RequestContext& ctx, std::string bucket, BucketId expected, std::string key, KeyChange& change);
  // Applies several changes (of distinct keys) in one transaction; each change's own failure is in its `failure`. An error: none
  // of them is known to have happened; conflict and too_large mean "try them one by one".
  Task<Result<void>> run_batch(const RequestContext& ctx, std::string bucket, std::vector<KeyChange*> changes);

  // Errors: not_found ("upload ...").
  Task<Result<UploadRecord>> read_upload(BucketId bucket, std::string key, UploadId upload_id);

  // The readable tree of drives that keep files follows the rows of a key; after each commit that changed its current version. The row that
  // asked for it goes when the former version's file is hidden everywhere.
  Task<void> settle_name(BucketId bucket, std::string key, FormerFile former);

  Task<Result<size_t>> settle_names() override;

  // Adds to the bucket's counters and checks its quota.
  Task<Result<void>> charge(meta::Transaction& transaction, const BucketInfo& bucket, UsageDelta usage);

 private:
  Task<bool> settle_row(meta::KeyValue row, BucketId bucket, std::string key, cluster::DataLayout former);
  unsigned failure_domains();
  Task<Result<BucketRef>> bucket_in(meta::Transaction& transaction, std::string name);

  EngineOptions options_;
  HashQueue hashes_;
  std::atomic<Sequence> last_time_{0};
  std::atomic<int64_t> domains_looked_at_{INT64_MIN};
  std::atomic<unsigned> domains_{0};
  std::mutex cache_mutex_;
  std::unordered_map<std::string, BucketRef> cache_;
  GateTable<64> quota_gates_;  // by bucket: puts into a bucket with a quota read its counters and would conflict
  std::shared_ptr<NameGates> name_gates_ = std::make_shared<NameGates>();  // by key, while its file is shown or hidden
  Gate repair_gate_;                                                       // held by an fsck that repairs
  GateTable<256> key_gates_;                                               // by key, after a first conflict
};

ObjectInfo to_info(const VersionRecord& record, std::string key, bool is_latest);
ObjectInfo to_info(VersionRecord&& record, std::string key, bool is_latest);
PartInfo to_info(const PartRecord& record);
Result<void> check_object_key(std::string_view key);
Result<void> check_put_options(const PutOptions& options);
// Against the current live version; none: null.
Result<void> check_write_conditions(const Conditions& conditions, const VersionRecord* current, std::string_view key);
Result<void> check_delete_conditions(const Conditions& conditions, const VersionRecord* current, std::string_view key);

}  // namespace quarry::object
