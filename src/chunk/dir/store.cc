// What is left of the store: its state, its figures, descriptor and label, closing.
#include "base/check.h"
#include "base/log.h"
#include "chunk/dir/dir_store_impl.h"

namespace quarry::chunk::dir {

DirStoreImpl::DirStoreImpl(std::shared_ptr<FileSystem> files, DirStoreOptions options)
    : files_(std::move(files)), options_(std::move(options)), records_(*files_, options_.use_attributes) {
  CHECK(options_.threads >= 1);
  pool_ = std::make_unique<ThreadPool>("dir", options_.threads);
  health_pool_ = std::make_unique<ThreadPool>("dir-health", 1);
  directory_sync_ = std::make_unique<DirectorySync>(files_, *pool_);
}
DirStoreImpl::~DirStoreImpl() { CHECK(active_ == 0, "a store dies under its callers"); }

std::string DirStoreImpl::description() const { return fmt::format("directory {}", files_->root()); }

Result<void> DirStoreImpl::readable() const {
  if (closing_ || closed_) return fail(Code::device_gone, "{}: the store is closed", files_->root());
  if (health_.state == StoreState::failed)
    return fail(Code::device_gone, "{}: {}", files_->root(), health_.reason).because(health_.because);
  return {};
}

Result<void> DirStoreImpl::writable() const {
  TRY(readable());
  if (health_.state == StoreState::read_only) return fail(Code::read_only, "{}: {}", files_->root(), health_.reason);
  return {};
}

void DirStoreImpl::become(StoreState state, std::string reason) {
  if (static_cast<int>(state) <= static_cast<int>(health_.state)) return;
  LOG_ERROR("a mountpath can no longer be fully served", {"path", files_->root()},
            {"state", state == StoreState::failed ? "failed" : "read_only"}, {"reason", reason});
  health_.state = state;
  health_.reason = std::move(reason);
}

Task<Error> DirStoreImpl::noted(Error error, bool write) {
  if (error.code() == Code::not_found || error.code() == Code::io_error || error.code() == Code::device_gone) {
    // A directory that should be there is not, or worse: is the mountpath still where it was?
    auto files = files_;
    auto root = co_await blocking(*pool_, [files] { return files->check_root(); });
    if (!root) {
      become(StoreState::failed, root.error().context());
      co_return fail(Code::device_gone, "{}: {}", files_->root(), health_.reason);
    }
  }
  switch (error.code()) {
    case Code::device_gone:
      if (health_.state != StoreState::failed) health_.because = error.reason();
      become(StoreState::failed, error.context());
      break;
    case Code::read_only:
      become(StoreState::read_only, "the file system is mounted read-only: see the kernel's log, repair it, mount it again");
      break;
    case Code::permission_denied: {
      // Of one file or directory that somebody closed, or of all?
      const bool of_one = write && co_await takes_writes();
      if (write && !of_one) become(StoreState::read_only, error.context() + ": give the directory back to the user that runs quarry");
      break;
    }
    case Code::io_error:
    case Code::not_found:
      ++(write ? health_.write_errors : health_.read_errors);
      if (write && health_.write_errors >= kWriteErrorsMax)
        become(StoreState::read_only, fmt::format("{} writes failed, the last: {}", health_.write_errors, error.context()));
      if (error.code() == Code::not_found) co_return fail(Code::io_error, "{}", error.context());
      break;
    default: break;
  }
  co_return error;
}

void DirStoreImpl::refresh_space() {
  const auto space = files_->space();
  if (!space) return;  // the next call says why
  device_bytes_.store(space->total, std::memory_order_relaxed);
  free_bytes_.store(space->free, std::memory_order_relaxed);
}

void DirStoreImpl::count(int64_t chunks, int64_t payload, int64_t stored) {
  chunk_count_ += static_cast<uint64_t>(chunks);
  payload_bytes_ += static_cast<uint64_t>(payload);
  stored_bytes_ += static_cast<uint64_t>(stored);
}

void DirStoreImpl::count_file(const FileEntry& entry, int sign) {
  if (!entry.unfinished && !entry.absent) {
    // Chunks but the last are of one size.
    const uint32_t chunks = entry.chunk_count();
    const uint64_t last = entry.size - static_cast<uint64_t>(chunks - 1) * entry.chunk_size;
    count(sign * static_cast<int64_t>(chunks), sign * static_cast<int64_t>(entry.size),
          sign * static_cast<int64_t>((chunks - 1) * stored_bytes(entry.chunk_size) + stored_bytes(last)));
    return;
  }
  for (uint32_t i = 0; i < entry.chunk_count(); ++i) {
    if (const auto size = entry.chunk(i)) count(sign, sign * static_cast<int64_t>(*size), sign * static_cast<int64_t>(stored_bytes(*size)));
  }
}

SpaceReport DirStoreImpl::space() const {
  SpaceReport report;
  report.device_bytes = device_bytes_.load(std::memory_order_relaxed);
  report.free_bytes = std::min(free_bytes_.load(std::memory_order_relaxed), report.device_bytes);
  report.used_bytes = std::min(stored_bytes_, report.device_bytes - report.free_bytes);
  report.payload_bytes = payload_bytes_;
  // The file system's own, and the data of others that share it.
  report.overhead_bytes = report.device_bytes - report.free_bytes - report.used_bytes;
  report.chunk_count = chunk_count_;
  return report;
}

Task<Result<ChunkStat>> DirStoreImpl::stat(ChunkId id) {
  CO_TRY(readable());
  const auto found = index_.find(id);
  if (!found) co_return fail(Code::not_found, "chunk {}", id.to_string());
  const uint64_t bytes = found->file == nullptr ? chunk_header_bytes(found->size) + found->size : found->size;
  co_return ChunkStat{id, found->size, static_cast<uint32_t>(stored_bytes(bytes))};
}

Task<Result<std::vector<ChunkStat>>> DirStoreImpl::list(ChunkId from, ChunkId to, size_t limit) {
  CO_TRY(readable());
  std::vector<ChunkStat> stats;
  if (limit == 0) co_return stats;
  index_.visit(from, to, [&](ChunkId id, const FileIndex::Found& found) {
    const uint64_t bytes = found.file == nullptr ? chunk_header_bytes(found.size) + found.size : found.size;
    stats.push_back({id, found.size, static_cast<uint32_t>(stored_bytes(bytes))});
    return stats.size() < limit;
  });
  co_return stats;
}

Task<Result<std::vector<StoredFile>>> DirStoreImpl::files(ChunkId from, size_t limit) {
  CO_TRY(readable());
  std::vector<StoredFile> found;
  for (auto at = index_.files().lower_bound(from); at != index_.files().end() && found.size() < limit; ++at) {
    const FileEntry& entry = *at->second;
    if (entry.unfinished) continue;
    BucketAndKey key = entry.key();
    found.push_back({entry.first, entry.size, entry.chunk_size, entry.stride, entry.state == FileState::shown, std::move(key.bucket),
                     std::move(key.key)});
  }
  co_return found;
}

Task<Result<void>> DirStoreImpl::write_descriptor(Descriptor descriptor) {
  auto files = files_;
  auto written = co_await blocking(*pool_, [files, descriptor] {
    return replace_whole(*files, kDescriptorFile, fmt::format("{}/descriptor", kUnfinished), encode_descriptor(descriptor));
  });
  if (!written) {
    Error error = co_await noted(std::move(written).error(), true);
    co_return error;
  }
  descriptor_ = descriptor;
  co_return written;
}

Task<Result<void>> DirStoreImpl::set_cluster_id(Uuid cluster) {
  CO_TRY(writable());
  Use use(*this);
  co_await meta_.acquire();
  Result<void> result;
  if (descriptor_.cluster != cluster) {
    if (!descriptor_.cluster.is_nil()) {
      result = fail(Code::wrong_owner, "{}: drive {} belongs to cluster {}", files_->root(), descriptor_.drive.to_string(),
                    descriptor_.cluster.to_string());
    } else {
      Descriptor changed = descriptor_;
      changed.cluster = cluster;
      result = co_await write_descriptor(changed);
    }
  }
  meta_.release();
  co_return result;
}

Task<Result<void>> DirStoreImpl::set_label(std::string label) {
  CO_TRY(writable());
  if (label.size() > 64 * kKiB) co_return fail(Code::too_large, "a label of {} bytes: at most 65536", label.size());
  Use use(*this);
  co_await meta_.acquire();
  auto files = files_;
  auto written = co_await blocking(*pool_, [files, content = encode_label(label)] {
    return replace_whole(*files, kLabelFile, fmt::format("{}/label", kUnfinished), content);
  });
  if (written) label_ = std::move(label);
  meta_.release();
  if (!written) {
    Error error = co_await noted(std::move(written).error(), true);
    co_return error;
  }
  co_return written;
}

Task<Result<void>> DirStoreImpl::close() {
  if (closed_) co_return Result<void>{};
  if (closing_) {
    while (!closed_) co_await idle_.wait();
    co_return Result<void>{};
  }
  closing_ = true;
  while (active_ > 0) co_await idle_.wait();
  co_await probes_.join();
  // Files that were never finished were never acknowledged.
  std::vector<ChunkId> unfinished;
  for (const auto& [first, entry] : index_.files()) {
    if (entry->unfinished) unfinished.push_back(first);
  }
  for (const ChunkId first : unfinished) {
    auto abandoned = co_await abandon(first);
    std::move(abandoned).ignore("the next open removes it");
  }
  open_files_.clear();
  open_by_id_.clear();
  Result<void> result;
  if (lock_ != nullptr && health_.state == StoreState::online) {
    auto files = files_;
    result =
        co_await blocking(*pool_, [files] { return replace_whole(*files, kCleanFile, fmt::format("{}/clean", kUnfinished), "closed\n"); });
    if (!result && result.error().code() == Code::no_space) result = Result<void>{};  // the next open finds an unclean store, no more
  }
  lock_.reset();
  closed_ = true;
  idle_.pulse();
  co_return result;
}

}  // namespace quarry::chunk::dir
