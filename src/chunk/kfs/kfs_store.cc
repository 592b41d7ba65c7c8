#include "chunk/kfs/kfs_store.h"

#include "base/coding.h"
#include "chunk/kfs/bucket_set.h"
#include "chunk/kfs/directory.h"
#include "chunk/kfs/file_writer.h"
#include "codec/digest.h"
#include "io/clock.h"

namespace quarry::chunk {

using kfs::BucketSet;

std::string_view kfs_hash_name(KfsHash hash) { return hash == KfsHash::sha512 ? "sha512" : "sha256"; }
std::optional<KfsHash> kfs_hash_of(std::string_view name) {
  if (name == "sha256") return KfsHash::sha256;
  if (name == "sha512") return KfsHash::sha512;
  return std::nullopt;
}

namespace {

constexpr size_t kRandomKeyBytes = 16;

class Store : public KfsStore {
 public:
  Store(std::unique_ptr<BucketSet> set, KfsHash hash, uint64_t bucket_bytes)
      : set_(std::move(set)), hash_(hash), bucket_bytes_(bucket_bytes) {}

  KfsHash hash() const override { return hash_; }
  uint64_t bucket_bytes() const override { return bucket_bytes_; }

  Result<std::unique_ptr<KfsWriter>> write(std::optional<std::string> hash) override {
    if (hash) TRY(bucket_of(*hash));
    return kfs::make_file_writer(*set_, hash_, std::move(hash));
  }

  Result<void> read(std::string_view hash, uint64_t offset, uint64_t length, const std::function<Result<void>(ByteView)>& piece) override {
    TRY_ASSIGN(const uint8_t bucket, bucket_of(hash));
    return set_->read(bucket, hash, offset, length, piece);
  }

  Result<KfsFile> stat(std::string_view hash) override {
    TRY_ASSIGN(const uint8_t bucket, bucket_of(hash));
    TRY_ASSIGN(const auto header, set_->header(bucket, hash));
    return KfsFile{std::string(hash), header.size, header.blocks(), bucket, false};
  }

  Result<void> list(const std::function<bool(const KfsFile&)>& visit) override {
    std::optional<Error> first;
    bool more = true;
    for (const uint8_t bucket : set_->existing()) {
      auto visited = set_->visit(bucket, "", [&](std::string_view name, const Result<kfs::Header>& header) {
        if (!header) {
          if (!first) first.emplace(header.error());
          return true;
        }
        more = visit({std::string(name), header->size, header->blocks(), bucket, false});
        return more;
      });
      if (!visited && !first) first.emplace(std::move(visited).error());
      if (!more) break;
    }
    if (first && more) return std::move(*first);
    return {};
  }

  Result<void> unlink(std::string_view hash) override {
    TRY_ASSIGN(const uint8_t bucket, bucket_of(hash));
    TRY_ASSIGN(const size_t removed, set_->remove(bucket, {std::string(hash)}));
    if (removed == 0) return fail(Code::not_found, "{}", hash);
    return {};
  }

  Result<void> compact(uint8_t bucket) override { return set_->compact(bucket); }

  Result<KfsBucketReport> bucket(uint8_t bucket) override {
    KfsBucketReport report;
    report.bucket = bucket;
    const std::vector<uint8_t> existing = set_->existing();
    if (std::find(existing.begin(), existing.end(), bucket) != existing.end()) {
      if (!set_->use(bucket).known) TRY(set_->prepare(bucket));
      TRY_ASSIGN(report.stored_bytes, set_->disk_bytes(bucket));
    }
    const kfs::BucketUse use = set_->use(bucket);
    report.files = use.files;
    report.payload_bytes = use.payload_bytes;
    report.free_bytes = bucket_bytes_ - std::min(bucket_bytes_, use.stored_bytes);
    return report;
  }
  std::vector<uint8_t> buckets() const override { return set_->existing(); }
  uint64_t file_system_free() const override {
    const auto space = set_->file_system();
    return space ? space->free : 0;
  }

  Result<KfsVerifyReport> verify(const VerifyOptions& options) override {
    KfsVerifyReport report;
    const uint64_t leftovers_before = set_->leftovers_removed();
    for (const uint8_t bucket : set_->existing()) {
      ++report.buckets;
      TRY(verify_bucket(bucket, options, report));
    }
    report.leftovers_removed = set_->leftovers_removed() - leftovers_before;
    return report;
  }

  std::vector<std::string> events() const override { return set_->events(); }

 private:
  Result<uint8_t> bucket_of(std::string_view hash) const {
    if (!kfs::is_name(hash) || hash.size() != 2 * digest_size(kfs::digest_of(hash_))) {
      return fail(Code::invalid_argument, "'{}' is not a {} hash in lower-case hex, which names the files of this store", hash,
                  kfs_hash_name(hash_));
    }
    TRY_ASSIGN(const std::string first, from_hex(hash.substr(0, 2)));
    return set_->bucket_of(static_cast<uint8_t>(first[0]));
  }

  Result<void> verify_bucket(uint8_t bucket, const VerifyOptions& options, KfsVerifyReport& report) {
    const uint64_t repairs = set_->repairs(bucket);
    auto opened = set_->prepare(bucket);
    if (!opened && opened.error().code() == Code::device_gone) return opened;
    if (!opened && options.repair && opened.error().code() == Code::corrupt) {
      auto findings = set_->repair(bucket, repairs);
      if (findings) {
        for (auto& finding : *findings) report.repaired.push_back(std::move(finding));
        opened = {};
      } else {
        opened = std::move(findings).error();
      }
    }
    if (!opened) {
      report.damaged.push_back({"", bucket, opened.error().context()});
      return {};
    }
    std::vector<std::string> broken;
    const auto damaged = [&](std::string_view name, const Error& error) {
      report.damaged.push_back({std::string(name), bucket, error.to_string()});
      if (error.code() == Code::corrupt) broken.emplace_back(name);
    };
    auto visited = set_->visit(bucket, "", [&](std::string_view name, const Result<kfs::Header>& header) {
      ++report.files;
      if (!header) {
        damaged(name, header.error());
        return true;
      }
      if (!options.deep) return true;
      // Blocks have their checksums; the whole must have its name.
      Digest digest(kfs::digest_of(hash_));
      auto read = set_->read(bucket, name, 0, UINT64_MAX, [&](ByteView piece) -> Result<void> {
        digest.update(piece);
        report.bytes += piece.size();
        if (options.progress) options.progress(piece.size());
        return {};
      });
      if (read && to_hex(digest.finish()) != name) read = fail(Code::corrupt, "the content of {} has another hash", name);
      if (!read && read.error().code() != Code::not_found) damaged(name, read.error());
      return true;
    });
    if (!visited) report.damaged.push_back({"", bucket, visited.error().to_string()});
    if (!options.repair) return {};
    if (!broken.empty()) {
      TRY_ASSIGN(const size_t removed, set_->remove(bucket, broken));
      report.repaired.push_back(fmt::format("S-bucket {}: {} files that are not whole any more were removed", bucket, removed));
    }
    if (options.deep) TRY(set_->remove_stray_runs(bucket));
    return {};
  }

  std::unique_ptr<BucketSet> set_;
  const KfsHash hash_;
  const uint64_t bucket_bytes_;
};

kfs::Files& files_of(const KfsTuning& tuning) { return tuning.files != nullptr ? *tuning.files : kfs::posix_files(); }

}  // namespace

Result<std::unique_ptr<KfsStore>> KfsStore::create(const std::string& directory, KfsCreateOptions options, KfsTuning tuning) {
  kfs::Files& files = files_of(tuning);
  if (options.key && (options.key->empty() || options.key->size() > kfs::kKeyBytesMax))
    return fail(Code::invalid_argument, "the key must have 1 to {} bytes", kfs::kKeyBytesMax);
  if (options.bucket_bytes < kMiB)
    return fail(Code::invalid_argument, "a bucket size of {} is too small; 1 MiB is the least", format_size(options.bucket_bytes));
  TRY_ASSIGN(const auto content, kfs::content_of(files, directory));
  if (content) return fail(Code::already_exists, "{} is not empty: {}", directory, *content);
  kfs::Descriptor descriptor;
  descriptor.kind = kfs::StoreKind::files;
  descriptor.hash = static_cast<uint8_t>(options.hash);
  descriptor.drive = system_random().uuid();
  descriptor.bucket_bytes = options.bucket_bytes;
  descriptor.key.resize(kRandomKeyBytes);
  system_random().fill({reinterpret_cast<uint8_t*>(descriptor.key.data()), descriptor.key.size()});
  if (options.key) descriptor.key = *options.key;
  TRY(kfs::create_store(files, directory, descriptor));
  return open(directory, tuning);
}

Result<std::unique_ptr<KfsStore>> KfsStore::open(const std::string& directory, KfsTuning tuning) {
  kfs::Files& files = files_of(tuning);
  TRY(kfs::read_descriptor(files, directory));
  TRY_ASSIGN(auto lock, kfs::DirectoryLock::take(directory));
  TRY_ASSIGN(auto descriptor, kfs::read_descriptor(files, directory));  // again, now that nobody changes it
  if (descriptor.kind != kfs::StoreKind::files)
    return fail(Code::invalid_argument, "{} is a drive of a Quarry node, not a store of files by hash", directory);
  const auto hash = static_cast<KfsHash>(descriptor.hash);
  if (hash != KfsHash::sha256 && hash != KfsHash::sha512)
    return fail(Code::incompatible, "{} uses hash function {}, which this program does not know", directory, descriptor.hash);
  const uint64_t bucket_bytes = descriptor.bucket_bytes;
  TRY_ASSIGN(auto set, BucketSet::open(directory, std::move(descriptor), std::move(lock), tuning));
  return std::make_unique<Store>(std::move(set), hash, bucket_bytes);
}

bool KfsStore::exists(const std::string& directory) {
  return kfs::posix_files().exists(directory + "/" + std::string(kfs::kDescriptorName));
}

}  // namespace quarry::chunk
