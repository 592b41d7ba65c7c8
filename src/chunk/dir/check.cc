// Scrub (content), fsck (structure) and the health check (does the place still work).
#include "chunk/dir/dir_store_impl.h"
#include "chunk/dir/tree_walk.h"
#include "chunk/fencing.h"
#include "io/pace.h"

namespace quarry::chunk::dir {

Task<Result<ScrubProgress>> DirStoreImpl::scrub(ChunkId from, uint64_t budget_bytes) {
  CO_TRY(readable());
  Use use(*this);
  ScrubProgress progress;
  progress.next = from;
  while (progress.bytes_checked < budget_bytes || progress.chunks_checked == 0) {
    std::optional<ChunkId> id;
    uint32_t size = 0;
    bool unfinished = false;
    index_.visit(progress.next, {UINT64_MAX, UINT64_MAX}, [&](ChunkId found, const FileIndex::Found& what) {
      id = found;
      size = what.size;
      unfinished = what.file != nullptr && what.file->unfinished;
      return false;
    });
    if (!id) {
      progress.complete = true;
      break;
    }
    if (!unfinished) {
      auto read = co_await read_any(*id, 0, size, true);
      if (!read && read.error().code() == Code::device_gone) co_return std::move(read).error();
      if (!read && read.error().code() != Code::not_found)
        progress.damaged.push_back({*id, read.error().to_string(), read.error().reason()});
      ++progress.chunks_checked;
      progress.bytes_checked += size;
    }
    progress.next = id->low == UINT64_MAX ? ChunkId{id->high + 1, 0} : ChunkId{id->high, id->low + 1};
  }
  co_return progress;
}

// Files that are finished or removed behind the walk look wrong to it. What is wrong is wrong the next time, too.
Task<Result<FsckReport>> DirStoreImpl::fsck() {
  constexpr int kLooks = 3;
  auto report = co_await fsck_once();
  for (int look = 1; look < kLooks && report && !report->violations.empty(); ++look) {
    auto again = co_await fsck_once();
    if (!again) co_return std::move(again).error();
    std::erase_if(again->violations,
                  [&](const std::string& one) { return std::ranges::find(report->violations, one) == report->violations.end(); });
    report = std::move(again);
  }
  co_return report;
}

Task<Result<FsckReport>> DirStoreImpl::fsck_once() {
  CO_TRY(readable());
  Use use(*this);
  FsckReport report;
  // Names stand still meanwhile; puts of new chunks and files under .quarry go on: a file that is finished after this is not judged.
  co_await naming_.acquire();
  Pace pace;  // the index is asked anew after each wait
  std::unordered_set<ChunkId, ChunkIdHash> finished_before;
  for (auto at = index_.files().begin(); at != index_.files().end();) {
    const ChunkId first = at->first;
    if (!at->second->unfinished) finished_before.insert(first);
    co_await pace;
    at = index_.files().upper_bound(first);
  }
  auto walked = co_await blocking(*pool_, [this] { return walk_tree(*files_, records_, *pool_, 0); });
  if (!walked) {
    naming_.release();
    co_return std::move(walked).error();
  }
  report.violations = std::move(walked->damage);
  for (const auto& path : walked->strange) report.violations.push_back(path + " does not belong there");
  std::unordered_set<ChunkId, ChunkIdHash> chunks, files;
  for (const auto& chunk : walked->chunks) {
    co_await pace;
    chunks.insert(chunk.id);
    const auto found = index_.find(chunk.id);
    if (!found && !putting_.contains(chunk.id)) {
      // Removed between the walk and now?
      auto still = co_await blocking(*pool_, [this, id = chunk.id] { return files_->info(place_of(kChunks, id)); });
      if (still && !putting_.contains(chunk.id))
        report.violations.push_back(place_of(kChunks, chunk.id) + " is a chunk that the index does not know");
    } else if (found && found->size != chunk.size) {
      report.violations.push_back(
          fmt::format("{} holds {} bytes, the index says {}", place_of(kChunks, chunk.id), chunk.size, found->size));
    }
  }
  std::set<std::string> walked_paths;
  for (const auto& file : walked->files) {
    co_await pace;
    files.insert(file.first);
    const FileEntry* entry = index_.file(file.first);
    if (entry != nullptr && entry->unfinished) continue;
    if (entry == nullptr) {
      report.violations.push_back(file.path + " is a file that the index does not know");
    } else if (entry->path != file.path) {
      if (file.hidden)
        report.violations.push_back(fmt::format("{} and {} are both file {}", entry->path, file.path, file.first.to_string()));
    } else if (entry->size != file.size) {
      report.violations.push_back(fmt::format("{}: its record says {} bytes, the index {}", file.path, file.size, entry->size));
    }
  }
  for (const auto& file : walked->unsaid) walked_paths.insert(file.path);
  std::vector<std::pair<std::string, uint64_t>> expected;
  for (auto at = index_.files().begin(); at != index_.files().end();) {
    const ChunkId first = at->first;
    const FileEntry& entry = *at->second;
    const bool judged = finished_before.contains(first);
    const bool seen = files.contains(first) || walked_paths.contains(entry.path);
    if (judged && !seen) report.violations.push_back(fmt::format("{} is missing or has lost its record", entry.path));
    if (judged && seen) expected.emplace_back(entry.path, entry.size);
    co_await pace;
    at = index_.files().upper_bound(first);
  }
  for (const auto& record : walked->side_records) {
    co_await pace;
    const FileEntry* entry = index_.file(record.first);
    if (entry == nullptr) report.violations.push_back(place_of(kRecords, record.first) + " is the record of no file");
  }
  for (auto at = index_.chunks().begin(); at != index_.chunks().end();) {
    const ChunkId id = at->first;
    if (!chunks.contains(id)) {
      auto still = co_await blocking(*pool_, [this, id] { return files_->info(place_of(kChunks, id)); });
      if (!still && index_.chunks().contains(id)) report.violations.push_back(place_of(kChunks, id) + " is missing");
    }
    co_await pace;
    at = index_.chunks().upper_bound(id);
  }
  auto sizes = co_await blocking(*pool_, [this, &expected] {
    std::vector<std::string> wrong;
    for (const auto& [path, size] : expected) {
      const auto info = files_->info(path);
      if (info && info->size != size)
        wrong.push_back(fmt::format("{} has {} bytes, {} were stored: it was changed behind Quarry's back", path, info->size, size));
    }
    return wrong;
  });
  naming_.release();
  report.violations.insert(report.violations.end(), sizes.begin(), sizes.end());
  report.chunks = chunk_count_;
  report.space = space();
  co_return report;
}

namespace {

Result<void> probe(FileSystem& files, const Descriptor& expected, const std::string& scratch) {
  TRY(files.check_root());
  TRY_ASSIGN(const std::string content, read_whole(files, kDescriptorFile, 4096));
  TRY_ASSIGN(const Descriptor descriptor, decode_descriptor(bytes_of(content)));
  if (descriptor.drive != expected.drive)
    return fail(Code::device_gone, "{} holds drive {} now", files.root(), descriptor.drive.to_string());
  if (descriptor.fencing_epoch != expected.fencing_epoch)
    return fail(Code::device_gone, "{}: {} since; it is that one's now", files.root(), kTakenByAnother).because(Reason::taken);
  const std::string text = fmt::format("probe {}", system_random().uuid().to_string());
  const auto write = [&]() -> Result<void> {
    TRY_ASSIGN(const auto file, files.open(scratch, OpenMode::create));
    const ByteView parts[] = {bytes_of(text)};
    TRY(file->write_at(0, parts));
    TRY(file->sync());
    file->drop_cached();
    std::string back(text.size(), '\0');
    TRY_ASSIGN(const size_t got, file->read_at(0, {reinterpret_cast<uint8_t*>(back.data()), back.size()}));
    if (got != text.size() || back != text) return fail(Code::io_error, "{}: what was written does not come back", files.root());
    return {};
  };
  auto written = write();
  if (!written && written.error().code() == Code::already_exists) {
    TRY(files.remove(scratch));
    written = write();
  }
  auto removed = files.remove(scratch);
  if (!written) {
    std::move(removed).ignore("there may be nothing, and what is there is written over by the next look");
    if (written.error().code() == Code::no_space) return {};  // full is not broken
    return written;
  }
  return removed;
}

}  // namespace

Task<void> DirStoreImpl::run_probe() {
  const Descriptor expected = descriptor_;
  auto files = files_;
  probe_result_ = co_await blocking(*health_pool_, [files, expected] { return probe(*files, expected, kProbeFile); });
  probing_ = false;
  probed_.pulse();
}

Task<bool> DirStoreImpl::takes_writes() {
  const Descriptor expected = descriptor_;
  auto files = files_;
  auto scratch = fmt::format("{}-{}", kProbeFile, system_random().uuid().to_string());
  const auto probed = co_await blocking(*pool_, [files, expected, scratch] { return probe(*files, expected, scratch); });
  co_return probed.has_value();
}

Task<Result<void>> DirStoreImpl::check_health() {
  CO_TRY(readable());
  Use use(*this);
  if (!probing_) {
    probing_ = true;
    probes_.spawn(run_probe());
  }
  if (probing_) {
    if (options_.health_timeout == Duration::zero()) {
      co_await probed_.wait();
    } else {
      auto in_time = co_await probed_.wait_until(Executor::here().now() + options_.health_timeout);
      if (!in_time)
        co_return fail(Code::timed_out, "{} has not answered for {}: the disk hangs", files_->root(),
                       format_duration(options_.health_timeout));
    }
  }
  if (probe_result_) co_return Result<void>{};
  Error error = probe_result_.error();
  const bool was_read_only = health_.state == StoreState::read_only;
  if (error.code() == Code::io_error) become(StoreState::read_only, error.context());
  Error told = co_await noted(std::move(error), true);
  if (was_read_only && health_.state == StoreState::read_only) co_return fail(Code::read_only, "{}: {}", files_->root(), health_.reason);
  co_return told;
}

}  // namespace quarry::chunk::dir
