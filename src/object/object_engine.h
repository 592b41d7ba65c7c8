// ObjectEngine: buckets, keys, versions, multipart uploads, tags, quotas, listing: the object semantics under every front end.
// It maps names to metadata rows (docs/formats/object-records.md) and bytes to the data plane; it knows no protocol, but its
// semantics are those of S3 where S3 defines them.
//
// Strongly consistent: an acknowledged put, overwrite or delete is seen by every later get and list. Publishing is one
// metadata transaction: an object is visible whole, with all its attributes, or not at all.
// Thread-safe: any executor may call; results come home. Every call takes the RequestContext of who asks.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "cluster/data_plane.h"
#include "io/clock.h"
#include "io/task.h"
#include "observe/request_context.h"

namespace quarry::object {

inline constexpr size_t kObjectKeyMax = 1024;         // bytes of UTF-8
inline constexpr size_t kUserMetadataMax = 2048;      // bytes of names and values
inline constexpr uint64_t kPartSizeMin = 5ull << 20;  // but for the last part
inline constexpr uint64_t kPartSizeMax = 5ull << 30;
inline constexpr uint64_t kObjectSizeMax = 50ull << 40;  // multipart
inline constexpr uint32_t kPartNumberMax = 10000;

enum class Versioning : uint8_t { off = 0, enabled = 1, suspended = 2 };  // frozen numbers

struct BucketPolicy {                // storage policy, changeable any time; applies to new objects
  std::string redundancy;            // "ec:4+2", "mirror:3", a profile name; empty: the node's default
  uint32_t inline_limit = 4096;      // objects up to this many bytes live in the metadata
  uint32_t pack_limit = 128 * 1024;  // up to this: mirrored whole instead of striped
  bool operator==(const BucketPolicy&) const = default;
};

struct Quota {
  uint64_t bytes = 0;  // 0: unlimited
  uint64_t objects = 0;
};

using Tags = std::vector<std::pair<std::string, std::string>>;

struct BucketInfo {
  uint64_t id = 0;
  std::string name;
  std::string owner;  // user id
  WallTime created = 0;
  Versioning versioning = Versioning::off;
  BucketPolicy policy;
  Quota quota;
  Tags tags;
  std::map<std::string, std::string> attributes;  // front ends' own small documents (e.g. "s3.location"), opaque here; <= 32 KiB in all
};

struct BucketUsage {
  uint64_t objects = 0;  // versions and parts count as they use space
  uint64_t bytes = 0;    // logical
};

// Additional checksum of an object as S3 defines it.
// The numbers, but for none, are those of ChecksumKind (codec/digest.h). Frozen.
enum class ChecksumAlgorithm : uint8_t {
  none = 0,
  crc32 = 1,
  crc32c = 2,
  sha1 = 3,
  sha256 = 4,
  crc64nvme = 5,
  sha512 = 6,
  md5 = 7,
  xxhash64 = 8,
  xxhash3 = 9,
  xxhash128 = 10
};
enum class ChecksumType : uint8_t { full_object = 0, composite = 1 };
struct Checksum {
  ChecksumAlgorithm algorithm = ChecksumAlgorithm::none;
  ChecksumType type = ChecksumType::full_object;
  std::string value;  // raw bytes (not base64); composite: digest of digests
};

// Headers an object carries. Names of user metadata are lower-case without prefix.
struct ObjectMetadata {
  std::string content_type, content_encoding, content_disposition, content_language, cache_control, expires, website_redirect;
  std::string storage_class;  // as requested; empty: STANDARD
  std::vector<std::pair<std::string, std::string>> user;
};

struct PartInfo {
  uint32_t number = 0;
  uint64_t size = 0;
  std::string etag;  // hex MD5
  Checksum checksum;
  WallTime modified = 0;
};

struct ObjectInfo {
  std::string key;
  std::string version_id;  // "null" for objects written without versioning
  bool is_latest = true;
  bool delete_marker = false;
  uint64_t size = 0;
  std::string etag;  // without quotes: hex MD5, or hex-N for multipart
  WallTime modified = 0;
  ObjectMetadata metadata;
  Checksum checksum;
  Tags tags;
  std::string owner;
  std::vector<PartInfo> parts;  // of a multipart object; empty otherwise
};

// Preconditions. Checked against the current version inside the committing transaction for writes.
// ETags without quotes; "*" matches any existing object.
struct Conditions {
  std::vector<std::string> if_match, if_none_match;
  std::optional<WallTime> if_modified_since, if_unmodified_since;  // reads, copy sources
  std::optional<WallTime> if_match_last_modified;                  // deletes
  std::optional<uint64_t> if_match_size;                           // deletes
  bool empty() const {
    return if_match.empty() && if_none_match.empty() && !if_modified_since && !if_unmodified_since && !if_match_last_modified &&
           !if_match_size;
  }
};
// Which answer a failed read condition needs.
enum class ConditionOutcome : uint8_t { pass, not_modified, failed };
ConditionOutcome evaluate_read_conditions(const Conditions& conditions, const ObjectInfo& info);

struct PutOptions {
  ObjectMetadata metadata;
  Tags tags;
  Conditions conditions;
  std::optional<uint64_t> size;                          // bytes to come, when known: quota and layout are decided early, a mismatch fails
  ChecksumAlgorithm checksum = ChecksumAlgorithm::none;  // to compute and keep
  bool compute_sha256 = false;                           // Expected::sha256 will be given
  std::string owner;
};

// What the client claims about the bytes; checked at finish: checksum_mismatch and nothing is published.
struct Expected {
  std::optional<std::string> md5;       // raw 16 bytes
  std::optional<std::string> sha256;    // raw 32 bytes (signed payload); needs PutOptions::compute_sha256
  std::optional<std::string> checksum;  // raw bytes of the chosen algorithm
};

// Bytes of one object or part on their way in. One task at a time.
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;  // unfinished: nothing remains
  virtual Task<Result<void>> write(Buffer data) = 0;
  // Publishes. Errors: checksum_mismatch, precondition_failed, not_found (bucket or upload is gone), quota_exceeded, no_space,
  // unavailable, unknown_outcome.
  virtual Task<Result<ObjectInfo>> finish(Expected expected) = 0;
  virtual Task<Result<PartInfo>> finish_part(Expected expected) = 0;  // for writers from put_part
};

class ObjectReader {
 public:
  virtual ~ObjectReader() = default;
  virtual const ObjectInfo& info() const = 0;
  // Positions at [offset, offset + length); before the first next(). Default: the whole object.
  virtual void set_range(uint64_t offset, uint64_t length) = 0;
  virtual Task<Result<SharedBytes>> next(size_t max_bytes) = 0;  // empty at the end
};

struct ListOptions {
  std::string prefix;
  std::string delimiter;
  std::string after;  // names (or common prefixes) strictly greater than this
  size_t limit = 1000;
};
struct ListPage {
  std::vector<ObjectInfo> objects;  // metadata.user, tags and parts are not filled
  std::vector<std::string> common_prefixes;
  bool truncated = false;
  std::string next;  // give as `after` for the next page: the last name or common prefix of this one
};
struct VersionListOptions {
  std::string prefix, delimiter, key_marker, version_marker;
  size_t limit = 1000;
};
struct VersionListPage {
  std::vector<ObjectInfo> versions;  // incl. delete markers, newest first within a key
  std::vector<std::string> common_prefixes;
  bool truncated = false;
  std::string next_key_marker, next_version_marker;
};

struct UploadInfo {
  std::string key, upload_id, owner;
  WallTime initiated = 0;
  ObjectMetadata metadata;
  Checksum checksum;  // algorithm and type chosen at creation
};
struct UploadListOptions {
  std::string prefix, delimiter, key_marker, upload_marker;
  size_t limit = 1000;
};
struct UploadListPage {
  std::vector<UploadInfo> uploads;
  std::vector<std::string> common_prefixes;
  bool truncated = false;
  std::string next_key_marker, next_upload_marker;
};
struct PartListPage {
  UploadInfo upload;
  std::vector<PartInfo> parts;
  bool truncated = false;
  uint32_t next_marker = 0;
};
struct CompletedPart {
  uint32_t number = 0;
  std::string etag;
  std::string checksum;  // raw bytes, optional
};
struct CompleteOptions {
  std::vector<CompletedPart> parts;
  Conditions conditions;
  std::string expected_checksum;  // raw bytes, optional (full object or composite as the upload says)
  std::optional<uint64_t> expected_size;
};

struct DeleteTarget {
  std::string key;
  std::string version_id;  // empty: the current one (a marker, where versions are kept)
  Conditions conditions;
};
struct DeleteOutcome {
  std::string version_id;      // of what was deleted, or of the marker made; empty: a plain delete where no versions are kept
  bool delete_marker = false;  // a marker was made, or a marker was deleted
};

// A file that lies on a drive which keeps files, and is to become an object where it is.
struct AdoptSource {
  uint32_t drive = 0;
  std::string path;  // below the drive's directory
  std::string owner;
  bool replace = false;  // it takes the place of an object of that key; else only of one whose adopted file was changed or is gone
};
// What became of an adopted object's file behind its back.
struct AdoptedState {
  cluster::FileState state = cluster::FileState::elsewhere;
  bool let_go = false;  // it was changed: its record is forgotten, so that it can be adopted again
};

// What became of a version that was to be brought to its bucket's redundancy.
struct Rewritten {
  enum class What : uint8_t {
    right,       // it has it
    pending,     // it will: repair is making copies
    widened,     // it stays in its place, and repair makes further copies
    copied,      // it was written anew
    superseded,  // it was deleted or overwritten meanwhile
    busy,        // not now: see `why`
    left,        // not possible: see `why`
  };
  What what = What::right;
  uint64_t bytes = 0;  // of the version
  std::string why;
};

class ObjectEngine {
 public:
  virtual ~ObjectEngine() = default;

  // Buckets. Errors: already_exists (context says "owned by you" when so), not_found, not_empty.
  virtual Task<Result<BucketInfo>> create_bucket(const RequestContext& ctx, BucketInfo wanted) = 0;
  virtual Task<Result<BucketInfo>> get_bucket(const RequestContext& ctx, std::string name) = 0;
  virtual Task<Result<BucketUsage>> bucket_usage(const RequestContext& ctx, std::string name) = 0;
  virtual Task<Result<std::vector<BucketInfo>>> list_buckets(const RequestContext& ctx, std::string prefix, std::string after,
                                                             size_t limit) = 0;
  // Changes bucket settings in one transaction; `change` edits the present record and may refuse.
  using BucketChange = std::function<Result<void>(BucketInfo&)>;
  virtual Task<Result<BucketInfo>> update_bucket(const RequestContext& ctx, std::string name, BucketChange change) = 0;
  virtual Task<Result<void>> delete_bucket(const RequestContext& ctx, std::string name) = 0;

  // Objects.
  virtual Task<Result<std::unique_ptr<ObjectWriter>>> put(const RequestContext& ctx, std::string bucket, std::string key,
                                                          PutOptions options) = 0;
  // version_id empty: current. not_found: no such key (context: "delete marker <version id>" when that is why).
  virtual Task<Result<ObjectInfo>> head(const RequestContext& ctx, std::string bucket, std::string key, std::string version_id) = 0;
  virtual Task<Result<std::unique_ptr<ObjectReader>>> get(const RequestContext& ctx, std::string bucket, std::string key,
                                                          std::string version_id) = 0;
  virtual Task<Result<DeleteOutcome>> remove(const RequestContext& ctx, std::string bucket, DeleteTarget target) = 0;
  // One result per target, in order; each target is its own transaction or part of a batch, never all or nothing.
  virtual Task<std::vector<Result<DeleteOutcome>>> remove_many(const RequestContext& ctx, std::string bucket,
                                                               std::vector<DeleteTarget> targets) = 0;
  virtual Task<Result<ObjectInfo>> set_tags(const RequestContext& ctx, std::string bucket, std::string key, std::string version_id,
                                            Tags tags) = 0;

  virtual Task<Result<ListPage>> list(const RequestContext& ctx, std::string bucket, ListOptions options) = 0;
  virtual Task<Result<VersionListPage>> list_versions(const RequestContext& ctx, std::string bucket, VersionListOptions options) = 0;

  // Multipart.
  virtual Task<Result<UploadInfo>> create_upload(const RequestContext& ctx, std::string bucket, std::string key, PutOptions options,
                                                 ChecksumType type) = 0;
  virtual Task<Result<UploadInfo>> get_upload(const RequestContext& ctx, std::string bucket, std::string key, std::string upload_id) = 0;
  virtual Task<Result<std::unique_ptr<ObjectWriter>>> put_part(const RequestContext& ctx, std::string bucket, std::string key,
                                                               std::string upload_id, uint32_t number, PutOptions options) = 0;
  virtual Task<Result<PartListPage>> list_parts(const RequestContext& ctx, std::string bucket, std::string key, std::string upload_id,
                                                uint32_t after, size_t limit) = 0;
  virtual Task<Result<UploadListPage>> list_uploads(const RequestContext& ctx, std::string bucket, UploadListOptions options) = 0;
  // Errors: not_found (upload), invalid_argument with context "part N: missing | etag | checksum", "order", "too small" (front ends map
  // these), precondition_failed.
  virtual Task<Result<ObjectInfo>> complete_upload(const RequestContext& ctx, std::string bucket, std::string key, std::string upload_id,
                                                   CompleteOptions options) = 0;
  virtual Task<Result<void>> abort_upload(const RequestContext& ctx, std::string bucket, std::string key, std::string upload_id) = 0;

  // Makes the file the current version of the key, without copying: mirror:1 on its drive. Errors: those of DataPlane::adopt_file,
  // not_found (bucket), already_exists (an object of that key, which is left as it is: AdoptSource::replace).
  virtual Task<Result<ObjectInfo>> adopt(const RequestContext& ctx, std::string bucket, std::string key, AdoptSource source);
  // Looks whether the file of the key's current version is as it was adopted; one that was changed is let go.
  virtual Task<Result<AdoptedState>> adopted_state(const RequestContext& ctx, std::string bucket, std::string key);

  // Brings one version to the redundancy that its bucket asks for now. Nothing else of it changes, and it can be read, overwritten and
  // deleted meanwhile. Durable when it returns. Errors: not_found (bucket), misconfigured (too few drives), those of put and of reading.
  virtual Task<Result<Rewritten>> rewrite(const RequestContext& ctx, std::string bucket, std::string key, std::string version_id);

  // Keeps the object's data in the read cache until unpinned (bounded by the cache's pin limit; no_space beyond).
  virtual Task<Result<void>> pin(const RequestContext& ctx, std::string bucket, std::string key, bool pinned) = 0;

  // Checks every record and reference; violations name each breach. Runs on a live engine.
  struct FsckReport {
    std::vector<std::string> violations;
    uint64_t buckets = 0, objects = 0, versions = 0, uploads = 0, bytes = 0;
  };
  virtual Task<Result<FsckReport>> fsck(const RequestContext& ctx, bool repair) = 0;

  // After a start: hides the files (on drives that keep files) of objects whose removal was committed, but not yet followed by their files.
  // Returns how many it looked at.
  virtual Task<Result<size_t>> settle_names() = 0;
};

inline Task<Result<ObjectInfo>> ObjectEngine::adopt(const RequestContext&, std::string, std::string, AdoptSource) {
  co_return fail(Code::unsupported, "this engine adopts no files");
}
inline Task<Result<Rewritten>> ObjectEngine::rewrite(const RequestContext&, std::string, std::string, std::string) {
  co_return fail(Code::unsupported, "this engine rewrites no objects");
}
inline Task<Result<AdoptedState>> ObjectEngine::adopted_state(const RequestContext&, std::string, std::string) {
  co_return fail(Code::unsupported, "this engine adopts no files");
}

}  // namespace quarry::object
