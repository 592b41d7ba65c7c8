// What the command line says, parsed: one struct a command, filled by parse.cc, used by commands/*.cc.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace quarry::cli {

// Where the node is, for commands that talk to one. Explicit addresses win over --root.
struct Target {
  std::string root;                         // directory with endpoints.json; default: $QUARRY_ROOT, else ~/.quarry
  std::string s3, admin;                    // URLs
  std::string access_key, secret_key_file;  // secrets never come as arguments: a file, or $QUARRY_SECRET_KEY / $AWS_SECRET_ACCESS_KEY
  std::string ca_file;                      // certificate authority for https; default for a node under --root: its own certificate
  std::string region;                       // of signatures; empty: as the node says
  bool json = false;
  bool quiet = false;
};

struct UpOptions {
  std::string root;
  std::string s3 = "127.0.0.1:9000", admin = "127.0.0.1:9001";
  unsigned drives = 6;
  std::string drive_size = "8GiB";
  std::vector<std::string> devices;
  std::string profile;
  bool tls = false;
  std::string tls_certificate, tls_key;
  std::string cache_size = "auto";
  std::string log_level = "info";
  unsigned cores = 0;
  bool force = false;
  bool accept_loss = false;
  bool json = false;
  std::string config;  // `quarry server --config`
  bool drives_given = false;
};

struct BucketOptions {
  Target target;
  std::string name;
  std::string redundancy, versioning, quota_bytes, inline_limit, pack_limit;
  int64_t quota_objects = -1;
  bool force = false;    // delete with contents
  std::string prefix;    // rewrite: only these keys
  bool no_wait = false;  // rewrite: do not wait until all copies are made
};

struct ObjectOptions {
  Target target;
  std::vector<std::string> paths;  // operands, in order
  bool recursive = false, force = false, versions = false;
  unsigned jobs = 16;
  std::string part_size = "16MiB";
  bool no_resume = false, skip_same = false;
  uint64_t limit = 0;
};

struct DeviceOptions {
  Target target;
  std::string path;
  std::string segment;
  std::string chunk;
  uint32_t number = 0;
  std::string cluster;
  bool force = false, repair = false;
  bool no_verify = false;  // inspect of a file: only what is known of it
};

struct AdoptOptions {
  Target target;
  std::string directory, bucket;
  bool attach = false, replace = false, prune = false;
};

struct UserOptions {
  Target target;
  std::string name, access_key;
  bool administrator = false, secret_from_stdin = false;
};

struct NodeOptions {  // status, fsck, scrub
  Target target;
  std::vector<std::string> device;  // fsck of a stopped node whose drives are named
  bool watch = false, repair = false, jobs = false;
};

struct BenchOptions {
  Target target;
  std::string operation = "mixed", size = "4KiB", duration = "10s", bucket = "quarry-bench";
  unsigned connections = 16, objects = 1000, threads = 1;
  bool keep = false, no_prepare = false, sign_body = false, each_once = false;
};

struct KfsOptions {                    // quarry kfs: a store of files by hash, without a node
  std::string store;                   // directory
  std::string operand;                 // FILE or HASH
  std::string key, hash, bucket_size;  // of the first write
  bool key_given = false;
  std::string offset, length;
  int bucket = -1;  // compact: one bucket only
  bool repair = false, shallow = false;
  bool json = false, quiet = false;
};
enum class KfsVerb { write, read, stat, list, unlink, compact, verify };

int run_kfs(const KfsOptions& options, KfsVerb verb);
int run_up(const UpOptions& options);
int run_bucket_create(const BucketOptions& options);
int run_bucket_list(const BucketOptions& options);
int run_bucket_info(const BucketOptions& options);
int run_bucket_set(const BucketOptions& options);
int run_bucket_delete(const BucketOptions& options);
int run_bucket_rewrite(const BucketOptions& options);
int run_object_put(const ObjectOptions& options);
int run_object_get(const ObjectOptions& options);
int run_object_cat(const ObjectOptions& options);
int run_object_copy(const ObjectOptions& options);
int run_object_list(const ObjectOptions& options);
int run_object_remove(const ObjectOptions& options);
int run_object_stat(const ObjectOptions& options);
int run_object_pin(const ObjectOptions& options, bool pinned);
int run_device_list(const DeviceOptions& options);
int run_device_format(const DeviceOptions& options);
int run_device_inspect(const DeviceOptions& options);
int run_device_fsck(const DeviceOptions& options);
// Of a file below a mountpath; false: it is none.
Result<bool> inspect_mountpath_file(const DeviceOptions& options, const std::string& path);
int run_device_change(const DeviceOptions& options, const char* verb);  // add, drain, remove, replace
int run_adopt(const AdoptOptions& options);
int run_user_list(const UserOptions& options);
int run_user_create(const UserOptions& options);
int run_user_change(const UserOptions& options, const char* verb);  // enable, disable, delete
int run_key_show(const UserOptions& options);
int run_key_list(const UserOptions& options);
int run_key_create(const UserOptions& options);
int run_key_change(const UserOptions& options, const char* verb);
int run_status(const NodeOptions& options);
int run_fsck(const NodeOptions& options);
int run_scrub(const NodeOptions& options);
int run_bench(const BenchOptions& options);

}  // namespace quarry::cli
