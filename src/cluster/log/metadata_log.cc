#include "cluster/log/metadata_log.h"

#include <limits>

#include "base/coding.h"
#include "base/log.h"
#include "cluster/log/metadata_log_chunks.h"
#include "cluster/log/metadata_log_roots.h"

namespace quarry::cluster {
namespace {

constexpr uint32_t kFrameMagic = 0x52464d51;  // "QMFR"
constexpr uint16_t kVersion = 1;
constexpr unsigned kFileBits = 24;
constexpr size_t kLateMax = 4096;  // of a drive; the rest is found by the next start

std::string frame_header(uint64_t epoch, meta::FrameNumber number, size_t length) {
  std::string header;
  Encoder(header).u32(kFrameMagic).u16(kVersion).u16(0).u64(epoch).u64(number).u64(length);
  return header;
}

}  // namespace

MetadataLog::MetadataLog(MetadataLogOptions options) : options_(std::move(options)), next_root_(kSequenceFirstCheckpoint) {
  look_at_drives();
}
MetadataLog::~MetadataLog() { CHECK(appends_ == 0, "MetadataLog dies under an append"); }

Task<Result<std::unique_ptr<MetadataLog>>> MetadataLog::open(MetadataLogOptions options) {
  CHECK(options.copies >= 1);
  std::unique_ptr<MetadataLog> log(new MetadataLog(std::move(options)));
  CO_TRY(co_await log->recover());
  if (log->enough_drives()) {
    CO_TRY(co_await log->establish());
  } else {
    LOG_WARNING("metadata log opened for reading only", {"drives", log->usable(log->all_)}, {"needed", log->writable_copies_min()});
  }
  co_return log;
}

unsigned MetadataLog::copies_for_sure(size_t units) const {
  if (options_.copies >= 3 && units <= options_.copies) return options_.copies - 1;
  return options_.copies;
}

MetadataLog::Ground MetadataLog::ground_without(std::set<uint32_t> without) const {
  Ground ground{.without = std::move(without)};
  std::set<std::string_view> domains;
  size_t drives = 0;
  const auto note = [&](uint32_t number, const std::string& domain) {
    if (ground.without.contains(number)) return;
    domains.insert(domain);
    ++drives;
  };
  for (const Drive* drive : options_.drives) note(drive->number(), drive->domain());
  for (const AbsentDrive& drive : options_.absent) note(drive.number, drive.domain);
  ground.by_domain = domains.size() >= options_.copies;
  ground.units = ground.by_domain ? domains.size() : drives;
  return ground;
}

void MetadataLog::look_at_drives() {
  all_ = ground_without({});
  named_ = ground_without(unnamed_);
}

Drive* MetadataLog::find(uint32_t number) const {
  for (Drive* drive : options_.drives) {
    if (drive->number() == number) return drive;
  }
  return nullptr;
}

bool MetadataLog::counts(uint32_t number) const {
  Drive* drive = find(number);
  return drive != nullptr && drive->readable() && !leaving_.contains(number);
}

unsigned MetadataLog::counted(const Copies& copies, const Ground& ground) const {
  std::set<std::pair<std::string_view, uint32_t>> units;
  for (const auto& [number, rewrite] : copies.at) {
    if (!counts(number) || ground.without.contains(number)) continue;
    if (ground.by_domain) {
      units.emplace(find(number)->domain(), 0);
    } else {
      units.emplace("", number);
    }
  }
  return static_cast<unsigned>(units.size());
}

size_t MetadataLog::drives_of(const Copies& copies) const {
  std::set<uint32_t> drives;
  for (const auto& [number, rewrite] : copies.at) {
    if (counts(number)) drives.insert(number);
  }
  return drives.size();
}

unsigned MetadataLog::usable(const Ground& ground) const {
  Copies everywhere;
  for (const Drive* drive : options_.drives) {
    if (drive->writable()) everywhere.at.emplace_back(drive->number(), 0);
  }
  return counted(everywhere, ground);
}

bool MetadataLog::enough(const Copies& copies) const { return suffices(copies, all_) && (unnamed_.empty() || suffices(copies, named_)); }

// An acknowledged frame has at least writable_copies_min() copies that are not lost together, so with fewer absent it can be seen.
Result<void> MetadataLog::check_absent() {
  std::set<std::string> absent_domains;
  std::string names;
  size_t absent_drives = 0;
  auto note_absent = [&](uint32_t number, const std::string& domain) {
    absent_domains.insert(domain);
    ++absent_drives;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", number);
  };
  for (Drive* drive : options_.drives) {
    if (!drive->readable()) note_absent(drive->number(), drive->domain());
  }
  for (const AbsentDrive& drive : options_.absent) note_absent(drive.number, drive.domain);
  const size_t lost = all_.by_domain ? absent_domains.size() : absent_drives;
  if (lost < writable_copies_min()) return {};
  if (options_.accept_loss) {
    loss_accepted_ = true;
    LOG_WARNING("metadata log opens although too many drives are absent: what only they hold is lost", {"absent", names});
    return {};
  }
  return fail(Code::data_lost,
              "drives {} are absent, and the metadata has {} copies: what was written last may be on them alone; bring back at least {} of "
              "them, or give up what only they hold: start with --accept-loss",
              names, writable_copies_min(), lost - writable_copies_min() + 1);
}

Task<Result<void>> MetadataLog::recover() {
  std::vector<Task<Result<std::vector<chunk::ChunkStat>>>> tasks;
  for (Drive* drive : options_.drives) tasks.push_back(list_all(drive));
  std::vector<Result<std::vector<chunk::ChunkStat>>> listings = co_await when_all(std::move(tasks));
  for (size_t i = 0; i < listings.size(); ++i) {
    // A drive that cannot list what it holds counts as absent; the store itself goes on with the others.
    if (!listings[i]) options_.drives[i]->take_down(fmt::format("its chunks cannot be listed: {}", listings[i].error().to_string()));
  }
  CO_TRY(check_absent());

  // Everything that lies there; what the newest root does not name is garbage at the end.
  std::map<meta::FrameNumber, std::map<uint16_t, Copies>> frames;  // by number and generation
  std::map<std::pair<uint64_t, uint32_t>, Copies> pieces;
  uint64_t epoch_max = 0;
  for (size_t i = 0; i < listings.size(); ++i) {
    if (!listings[i]) continue;
    for (const chunk::ChunkStat& stat : *listings[i]) {
      const ChunkName name = chunk_name(stat.id);
      if (name.kind == ChunkKind::metadata_root) epoch_max = std::max(epoch_max, name.serial);
      Copies& copies = name.kind == ChunkKind::metadata_frame  ? frames[name.serial][name.generation]
                       : name.kind == ChunkKind::metadata_file ? pieces[{name.serial, name.stripe}]
                                                               : roots_[{name.serial, name.stripe}];
      copies.at.emplace_back(options_.drives[i]->number(), name.shard);
      copies.size = stat.size;
    }
  }

  CO_TRY_ASSIGN(Head head, co_await find_head(pieces));
  for (auto it = roots_.begin(); it != roots_.end();) {
    if (std::ranges::find(head.roots, it->first) != head.roots.end()) {
      ++it;
      continue;
    }
    add_for_removal(garbage_, root_name(it->first.first, it->first.second), it->second);
    it = roots_.erase(it);
  }
  checkpoint_ = std::move(head.checkpoint);

  last_frame_ = checkpoint_ ? checkpoint_->frame : 0;
  uint64_t epoch = 0;  // of the frame before
  for (auto seen = frames.find(last_frame_ + 1); seen != frames.end(); seen = frames.find(last_frame_ + 1)) {
    const meta::FrameNumber number = seen->first;
    for (auto stretch = head.line.rbegin(); stretch != head.line.rend(); ++stretch) {
      if (stretch->first > number) continue;
      if (stretch->epoch < epoch) break;
      auto found = seen->second.find(static_cast<uint16_t>(stretch->epoch));
      if (found != seen->second.end()) {
        epoch = stretch->epoch;
        frames_[number] = {epoch, std::move(found->second)};
        seen->second.erase(found);
        last_frame_ = number;
        break;
      }
      // Roots without a line may name an epoch that had no part in this: it was given up before it had a frame.
      if (!head.guessed || number >= head.first) break;
    }
    if (last_frame_ != number) break;
  }
  durable_frame_ = last_frame_;
  if (last_frame_ < head.reached) {
    if (!options_.accept_loss) {
      co_return fail(Code::data_lost, "metadata frame {} is on none of the {} drives present, and frames up to {} were there",
                     last_frame_ + 1, options_.drives.size(), head.reached);
    }
    loss_accepted_ = true;
    LOG_WARNING("metadata frames are lost", {"first", last_frame_ + 1}, {"last", head.reached});
  }
  // Of epochs that were left behind; or behind a gap, where nothing was acknowledged: an append returns only after all frames before it are
  // durable.
  for (const auto& [number, generations] : frames) {
    for (const auto& [generation, copies] : generations) add_for_removal(garbage_, frame_name(number, generation), copies);
  }

  if (checkpoint_) {
    for (const meta::CheckpointFile& file : checkpoint_->files) {
      file_sizes_[file.handle] = file.size;
      for (uint32_t piece = 0; piece < piece_count(file.size); ++piece) {
        auto found = pieces.extract({file.handle, piece});
        if (found.empty()) {
          co_return fail(Code::data_lost, "piece {} of metadata file '{}' is on none of the {} drives present", piece, file.name,
                         options_.drives.size());
        }
        pieces_.insert(std::move(found));
      }
    }
  }
  for (const auto& [key, copies] : pieces) add_for_removal(garbage_, piece_name(key.first, key.second), copies);
  epoch_ = epoch_max + 1 + (loss_accepted_ ? kEpochsSkippedAfterLoss : 0);
  co_return Result<void>();
}

// The newest root in effect, and what follows from it.
Task<Result<MetadataLog::Head>> MetadataLog::find_head(const std::map<std::pair<uint64_t, uint32_t>, Copies>& pieces) {
  const auto is_whole = [&pieces](const meta::CheckpointManifest& manifest) {
    return std::ranges::all_of(manifest.files, [&pieces](const meta::CheckpointFile& file) {
      for (uint32_t piece = 0; piece < piece_count(file.size); ++piece) {
        if (!pieces.contains({file.handle, piece})) return false;
      }
      return true;
    });
  };
  Head head;
  std::optional<meta::CheckpointManifest> broken;  // the newest
  for (auto it = roots_.rbegin(); it != roots_.rend(); ++it) {
    const auto [epoch, sequence] = it->first;
    if (sequence == kSequencePrepared) continue;
    const ChunkName name = root_name(epoch, sequence);
    Result<SharedBytes> bytes = co_await fetch(name, it->second, 0, it->second.size, describe(name));
    if (!bytes) {
      const bool there = std::ranges::any_of(it->second.at, [this](const auto& at) {
        Drive* drive = find(at.first);
        return drive != nullptr && drive->readable();
      });
      if (there) co_return std::move(bytes).error();
      CO_TRY(check_absent());  // its drives went away this moment
      continue;
    }
    CO_TRY_ASSIGN(Root root, decode_root(*bytes, epoch, sequence));
    if (head.line.empty()) {
      head.first = root.first;
      head.reached = root.first - 1;
    }
    head.reached = std::max(head.reached, root.base());
    if (head.line.empty() || head.line.front().epoch != epoch) head.line.insert(head.line.begin(), {epoch, root.first});
    head.roots.push_back(it->first);
    if (root.version >= kRootVersion) {
      head.line.insert(head.line.begin(), root.line.begin(), root.line.end());
      head.checkpoint = std::move(root.manifest);
      co_return head;
    }
    // Earlier programs wrote no line: each epoch that is seen counts, down to the newest checkpoint. One whose files are gone was given up
    // while the drive that holds its root was away.
    head.guessed = true;
    if (!root.manifest) continue;
    if (is_whole(*root.manifest)) {
      head.checkpoint = std::move(root.manifest);
      co_return head;
    }
    if (!broken) broken = std::move(root.manifest);
  }
  head.checkpoint = std::move(broken);  // none is whole: recover names the file
  co_return head;
}

std::string MetadataLog::root_of_now(uint32_t sequence, std::optional<meta::CheckpointManifest> manifest) const {
  Root root{.epoch = epoch_, .sequence = sequence, .first = epoch_first_, .manifest = std::move(manifest), .line = {}};
  for (auto it = frames_.upper_bound(root.base()); it != frames_.end() && it->first < epoch_first_; ++it) {
    const uint64_t epoch = it->second.first;
    if (root.line.empty() || root.line.back().epoch != epoch) root.line.push_back({epoch, it->first});
  }
  return encode_root(root);
}

Task<Result<void>> MetadataLog::establish() {
  epoch_first_ = last_frame_ + 1;
  CO_TRY(co_await put_root(kSequencePrepared, root_of_now(kSequencePrepared, checkpoint_)));
  // From here on the recovered tail counts as committed: it must survive what any acknowledged frame survives.
  CO_TRY(co_await restore_all(false));
  for (const auto& [number, frame] : frames_) {
    if (enough(frame.second)) continue;
    co_return fail(Code::unavailable, "metadata frame {} cannot be brought to {} copies", number, writable_copies_min());
  }
  CO_TRY(co_await put_root(kSequenceEstablished, root_of_now(kSequenceEstablished, checkpoint_)));
  writable_ = true;
  remove_roots_before({epoch_, kSequenceEstablished}, garbage_);
  co_await remove_chunks(std::exchange(garbage_, {}));
  LOG_DEBUG("metadata log established", {"epoch", epoch_}, {"first_frame", epoch_first_});
  co_return Result<void>();
}

void MetadataLog::remove_roots_before(std::pair<uint64_t, uint32_t> current, std::map<uint32_t, std::vector<ChunkId>>& by_drive) {
  for (auto it = roots_.begin(); it != roots_.end() && it->first < current; it = roots_.erase(it)) {
    add_for_removal(by_drive, root_name(it->first.first, it->first.second), it->second);
  }
}

std::vector<Drive*> MetadataLog::candidates(const Copies& have, const std::set<uint32_t>& refused) {
  std::set<uint32_t> holding;
  std::set<std::string_view> domains;
  for (const auto& [number, rewrite] : have.at) {
    holding.insert(number);
    if (counts(number)) domains.insert(find(number)->domain());
  }
  std::vector<Drive*> first, second, last;
  const size_t count = options_.drives.size();
  const uint64_t start = rotation_++;
  for (size_t i = 0; i < count; ++i) {
    Drive* drive = options_.drives[(start + i) % count];
    if (!drive->writable() || leaving_.contains(drive->number()) || holding.contains(drive->number()) || refused.contains(drive->number()))
      continue;
    if (unnamed_.contains(drive->number())) {
      last.push_back(drive);
    } else {
      (domains.insert(drive->domain()).second ? first : second).push_back(drive);
    }
  }
  // Beyond the number of copies it is for further domains only.
  if (!all_.by_domain || drives_of(have) < options_.copies) first.insert(first.end(), second.begin(), second.end());
  first.insert(first.end(), last.begin(), last.end());
  return first;
}

Task<MetadataLog::Spread> MetadataLog::spread(ChunkName name, std::vector<ByteView> parts, chunk::Stream stream, Copies copies) {
  Spread result;
  result.copies = std::move(copies);
  result.copies.size = 0;
  for (ByteView part : parts) result.copies.size += static_cast<uint32_t>(part.size());
  // One copy of its own for all drives: one that hangs may come back to it long after the caller went on (Drive::give_up).
  const auto held = std::make_shared<Buffer>(result.copies.size);
  size_t at = 0;
  for (ByteView part : parts) {
    std::memcpy(held->data() + at, part.data(), part.size());
    at += part.size();
  }
  parts = {held->view()};
  std::set<uint32_t> refused;
  for (;;) {
    result.counted = counted(result.copies);
    if (result.counted >= options_.copies && enough(result.copies)) break;
    std::vector<Drive*> targets = candidates(result.copies, refused);
    if (targets.empty()) break;
    targets.resize(std::min<size_t>(targets.size(), options_.copies - std::min(result.counted, options_.copies - 1)));
    std::vector<Task<Result<void>>> puts;
    for (Drive* drive : targets) puts.push_back(drive->timed(drive->put(chunk_id(name), parts, chunk::PutOptions{.stream = stream}, held)));
    std::vector<Result<void>> done = co_await when_all(std::move(puts));
    for (size_t i = 0; i < done.size(); ++i) {
      // already_exists: an earlier attempt that was reported as failed had landed; the content of a name never differs.
      if (done[i] || done[i].error().code() == Code::already_exists) {
        result.copies.at.emplace_back(targets[i]->number(), name.shard);
        late_[targets[i]->number()].erase(chunk_id(name));
      } else {
        // It may land all the same: what a drive that hangs was given is done when it goes on.
        note_late(targets[i]->number(), {chunk_id(name)});
        if (!stall_) {  // else it is told already, and tried over and over
          LOG_WARNING("metadata copy moves to another drive", {"chunk", describe(name)}, {"drive", targets[i]->number()},
                      {"error", done[i].error().to_string()});
        }
        refused.insert(targets[i]->number());
        result.error = std::move(done[i]).error();
      }
    }
  }
  co_return result;
}

Task<Result<SharedBytes>> MetadataLog::fetch(ChunkName name, Copies copies, uint32_t offset, uint32_t length, std::string what) const {
  std::string tried;
  bool damaged = false;
  const size_t count = copies.at.size();
  const uint64_t start = rotation_++;
  for (size_t i = 0; i < count; ++i) {
    const auto [number, rewrite] = copies.at[(start + i) % count];
    Drive* drive = find(number);
    if (drive == nullptr || !drive->readable()) continue;
    ChunkName copy = name;
    copy.shard = rewrite;
    Result<SharedBytes> bytes = co_await drive->get(chunk_id(copy), offset, length);
    if (bytes) co_return bytes;
    damaged = damaged || bytes.error().code() == Code::corrupt;
    tried += fmt::format("{}drive {}: {}", tried.empty() ? "" : "; ", number, bytes.error().to_string());
  }
  if (tried.empty()) tried = "no drive that holds it is present";
  co_return fail(damaged ? Code::corrupt : Code::data_lost, "{} cannot be read from any copy ({})", what, tried);
}

Task<Result<void>> MetadataLog::append(meta::FrameNumber number, std::vector<ByteView> parts) {
  if (!writable_) {
    co_return fail(Code::unavailable,
                   "the metadata is read-only: {} copies are needed and too few drives are there; add or bring back a drive",
                   writable_copies_min());
  }
  CHECK(number == last_frame_ + 1 || frames_.contains(number), "frames are appended in order");
  CHECK(number > durable_frame_, "a durable frame is appended again");
  last_frame_ = std::max(last_frame_, number);
  size_t length = 0;
  for (ByteView part : parts) length += part.size();
  CHECK(length <= meta::kFrameSizeMax);
  const std::string header = frame_header(epoch_, number, length);
  parts.insert(parts.begin(), bytes_of(header));
  ++appends_;
  // The copies that an earlier attempt made; drives may come and go meanwhile.
  const Copies before = frames_[number].second;
  frames_[number].first = epoch_;
  Spread result = co_await spread(frame_name(number, epoch_), std::move(parts), chunk::Stream::log, before);
  Copies& copies = frames_[number].second;
  copies.size = result.copies.size;
  copies.at.insert(copies.at.end(), result.copies.at.begin() + static_cast<ptrdiff_t>(before.at.size()), result.copies.at.end());
  const auto has_enough = [&] { return enough(copies); };
  const auto stall = [&] {
    if (stall_ && stall_->frame < number) return;
    const Code code = result.error && result.error->code() == Code::no_space ? Code::no_space : Code::unavailable;
    stall_ = Stall{number, fail(code, "metadata frame {} reached {} of {} copies ({})", number, counted(copies), writable_copies_min(),
                                result.error ? result.error->to_string() : "no further drive")};
    durable_changed_.pulse();
  };
  if (!has_enough()) stall();
  while (durable_frame_ + 1 < number && !(stall_ && stall_->frame < number)) co_await durable_changed_.wait();
  --appends_;
  if (durable_frame_ + 1 == number && has_enough()) {
    durable_frame_ = number;
    if (stall_ && stall_->frame <= number) stall_.reset();
    durable_changed_.pulse();
    co_return Result<void>();
  }
  if (!has_enough()) stall();  // also when a drive went away while it waited
  if (stall_) co_return stall_->error;
  co_return fail(Code::unavailable, "a metadata frame before frame {} has too few copies", number);
}

Task<Result<Buffer>> MetadataLog::read(meta::FrameNumber number) {
  auto found = frames_.find(number);
  if (found == frames_.end()) co_return fail(Code::not_found, "metadata frame {}", number);
  const auto [epoch, copies] = found->second;
  const ChunkName name = frame_name(number, epoch);
  CO_TRY_ASSIGN(SharedBytes bytes, co_await fetch(name, copies, 0, copies.size, describe(name)));
  Decoder in(bytes.view());
  const uint32_t magic = in.u32();
  const uint16_t version = in.u16();
  in.u16();
  const uint64_t stored_epoch = in.u64();
  const uint64_t stored_number = in.u64();
  const uint64_t length = in.u64();
  CO_TRY(in.check(describe(name)));
  if (magic == kFrameMagic && version != kVersion)
    co_return fail(Code::incompatible, "{} has version {}; this program reads {}", describe(name), version, kVersion);
  if (magic != kFrameMagic || stored_epoch != epoch || stored_number != number || length != in.remaining()) {
    co_return fail(Code::corrupt, "{} says it is frame {} of epoch {} with {} bytes", describe(name), stored_number, stored_epoch, length);
  }
  co_return Buffer::copy_of(in.rest());
}

Task<Result<uint32_t>> MetadataLog::store_piece(ChunkName name, ReadPiece read_piece, uint64_t offset, uint32_t length) {
  Result<Buffer> bytes = co_await blocking(*options_.blocking_pool, [read_piece, offset, length] { return read_piece(offset, length); });
  if (!bytes) co_return std::move(bytes).error();
  if (bytes->size() != length) co_return fail(Code::io_error, "{}: {} bytes were read where {} are", describe(name), bytes->size(), length);
  std::vector<ByteView> parts{bytes->view()};
  Spread result = co_await spread(name, std::move(parts), chunk::Stream::metadata, Copies{});
  const bool is_enough = enough(result.copies);
  pieces_[{name.serial, name.stripe}] = std::move(result.copies);
  if (!is_enough) {
    co_return result.error ? std::move(*result.error).with(describe(name))
                           : fail(Code::unavailable, "{} reached {} copies", describe(name), result.counted);
  }
  co_return length;
}

Task<Result<meta::CheckpointFile>> MetadataLog::store_file(std::string name, uint64_t size, ReadPiece read_piece) {
  if (!writable_) co_return fail(Code::unavailable, "the metadata is read-only: too few drives");
  CHECK(options_.blocking_pool != nullptr);
  CHECK(next_file_ < uint64_t{1} << kFileBits, "too many checkpoint files in one log epoch");
  meta::CheckpointFile file{.name = std::move(name), .size = size, .handle = epoch_ << kFileBits | next_file_++};
  file_sizes_[file.handle] = size;
  std::optional<Error> error;
  const uint32_t count = piece_count(size);
  constexpr uint32_t kParallel = 2;  // pieces: bounds the memory to 16 MiB per file
  for (uint32_t piece = 0; piece < count && !error; piece += kParallel) {
    std::vector<Task<Result<uint32_t>>> stores;
    for (uint32_t p = piece; p < std::min(piece + kParallel, count); ++p) {
      const uint64_t offset = uint64_t{p} * kPieceSize;
      stores.push_back(store_piece(piece_name(file.handle, p), read_piece, offset,
                                   static_cast<uint32_t>(std::min<uint64_t>(kPieceSize, size - offset))));
    }
    std::vector<Result<uint32_t>> stored = co_await when_all(std::move(stores));
    for (auto& result : stored) {
      if (!result && !error) error = std::move(result).error();
    }
  }
  if (!error) co_return file;
  std::map<uint32_t, std::vector<ChunkId>> removal;
  for (auto it = pieces_.lower_bound({file.handle, 0}); it != pieces_.end() && it->first.first == file.handle; it = pieces_.erase(it)) {
    add_for_removal(removal, piece_name(file.handle, it->first.second), it->second);
  }
  file_sizes_.erase(file.handle);
  co_await remove_chunks(std::move(removal));
  co_return std::move(*error);
}

Task<Result<Buffer>> MetadataLog::read_file(const meta::CheckpointFile& file, uint64_t offset, size_t length) {
  const uint64_t handle = file.handle;
  const std::string what = fmt::format("metadata file '{}'", file.name);
  if (offset > file.size) co_return fail(Code::out_of_range, "{}: offset {} of {}", what, offset, file.size);
  length = std::min<uint64_t>(length, file.size - offset);
  Buffer out(length);
  size_t done = 0;
  while (done < length) {
    const auto piece = static_cast<uint32_t>((offset + done) / kPieceSize);
    const auto from = static_cast<uint32_t>((offset + done) % kPieceSize);
    auto found = pieces_.find({handle, piece});
    if (found == pieces_.end()) co_return fail(Code::not_found, "{}: piece {}", what, piece);
    const auto want = static_cast<uint32_t>(std::min<size_t>(length - done, kPieceSize - from));
    CO_TRY_ASSIGN(SharedBytes bytes, co_await fetch(piece_name(handle, piece), found->second, from, want, what));
    if (bytes.size() != want) co_return fail(Code::corrupt, "{}: piece {} is short", what, piece);
    std::memcpy(out.data() + done, bytes.view().data(), want);
    done += want;
  }
  co_return out;
}

Task<Result<void>> MetadataLog::put_root(uint32_t sequence, std::string payload) {
  std::vector<ByteView> parts{bytes_of(payload)};
  Spread result = co_await spread(root_name(epoch_, sequence), std::move(parts), chunk::Stream::log, Copies{});
  const bool is_enough = enough(result.copies);
  roots_[{epoch_, sequence}] = std::move(result.copies);
  if (is_enough) co_return Result<void>();
  co_return fail(Code::unavailable, "metadata root {}.{} reached {} of {} copies ({})", epoch_, sequence, result.counted,
                 writable_copies_min(), result.error ? result.error->to_string() : "no further drive");
}

Task<Result<void>> MetadataLog::publish_checkpoint(meta::CheckpointManifest manifest) {
  if (!writable_) co_return fail(Code::unavailable, "the metadata is read-only: too few drives");
  CHECK(manifest.frame <= durable_frame_, "a checkpoint contains only durable frames");
  CHECK(next_root_ < kStripesMax, "too many checkpoints in one log epoch");
  const uint32_t sequence = next_root_++;
  CO_TRY(co_await put_root(sequence, root_of_now(sequence, manifest)));

  const bool newest = !checkpoint_ || checkpoint_->frame <= manifest.frame;
  CHECK(newest, "checkpoints are published in order");
  checkpoint_ = std::move(manifest);
  std::map<uint32_t, std::vector<ChunkId>> removal;
  for (auto it = frames_.begin(); it != frames_.end() && it->first <= checkpoint_->frame; it = frames_.erase(it)) {
    add_for_removal(removal, frame_name(it->first, it->second.first), it->second.second);
  }
  remove_roots_before({epoch_, sequence}, removal);
  std::set<uint64_t> named;
  for (const meta::CheckpointFile& file : checkpoint_->files) named.insert(file.handle);
  for (auto it = pieces_.begin(); it != pieces_.end();) {
    if (named.contains(it->first.first)) {
      ++it;
      continue;
    }
    add_for_removal(removal, piece_name(it->first.first, it->first.second), it->second);
    file_sizes_.erase(it->first.first);
    it = pieces_.erase(it);
  }
  co_await remove_chunks(std::move(removal));
  co_await remove_chunks(take_late());
  co_return Result<void>();
}

void MetadataLog::add_for_removal(std::map<uint32_t, std::vector<ChunkId>>& by_drive, ChunkName name, const Copies& copies) {
  for (const auto& [number, rewrite] : copies.at) {
    name.shard = rewrite;
    by_drive[number].push_back(chunk_id(name));
  }
}

Task<void> MetadataLog::remove_chunks(std::map<uint32_t, std::vector<ChunkId>> by_drive) {
  std::vector<Task<Result<void>>> removals;
  std::vector<uint32_t> numbers;
  for (const auto& [number, ids] : by_drive) {
    Drive* drive = find(number);
    if (drive == nullptr) continue;
    if (drive->readable()) {
      removals.push_back(remove_from(drive, ids));
      numbers.push_back(number);
    } else {
      note_late(number, ids);
    }
  }
  std::vector<Result<void>> results = co_await when_all(std::move(removals));
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i]) note_late(numbers[i], by_drive.at(numbers[i]));
  }
}

// What stays beyond the limit is recognised as obsolete and removed when the drive is next opened.
void MetadataLog::note_late(uint32_t number, const std::vector<ChunkId>& ids) {
  std::set<ChunkId>& late = late_[number];
  for (const ChunkId id : ids) {
    if (late.size() < kLateMax) late.insert(id);
  }
}

MetadataLog::Status MetadataLog::status() const {
  Status status;
  status.last_frame = last_frame_;
  status.checkpoint_frame = checkpoint_ ? checkpoint_->frame : 0;
  status.frames = frames_.size();
  status.files = file_sizes_.size();
  status.file_pieces = pieces_.size();
  status.copies = status.copies_min = options_.copies;
  status.drives_away = options_.absent.size();
  for (Drive* drive : options_.drives) status.drives_away += !drive->readable();
  for (const ChunkName& name : names(true)) status.copies_min = std::min(status.copies_min, counted(*copies_of(name)));
  return status;
}

bool MetadataLog::uses(uint32_t drive, ChunkId id) const {
  const ChunkName name = chunk_name(id);
  const Copies* copies = copies_of(name);
  return copies != nullptr && std::ranges::find(copies->at, std::pair{drive, name.shard}) != copies->at.end();
}

// Copies that were given up, of names that are never put again, from drives that answer.
std::map<uint32_t, std::vector<ChunkId>> MetadataLog::take_late() {
  std::map<uint32_t, std::vector<ChunkId>> removal;
  for (auto& [number, ids] : late_) {
    Drive* drive = find(number);
    if (drive == nullptr || !drive->readable() || drive->hangs()) continue;
    std::erase_if(ids, [&](ChunkId id) {
      const ChunkName name = chunk_name(id);
      const bool over = name.kind == ChunkKind::metadata_frame  ? checkpoint_ && name.serial <= checkpoint_->frame
                        : name.kind == ChunkKind::metadata_file ? !file_sizes_.contains(name.serial)
                                                                : !roots_.contains({name.serial, name.stripe});
      if (over) removal[number].push_back(id);
      return over;
    });
  }
  return removal;
}

bool MetadataLog::in_flight(ChunkId id) const {
  const ChunkName name = chunk_name(id);
  if (std::ranges::any_of(late_, [id](const auto& drive) { return drive.second.contains(id); })) return true;
  // Of several copies that are made at once none counts before all are there.
  if (restoring_.available() == 0 && copies_of(name) != nullptr) return true;
  switch (name.kind) {
    case ChunkKind::metadata_frame: return name.serial > durable_frame_ && name.serial <= last_frame_;
    case ChunkKind::metadata_file: return file_sizes_.contains(name.serial) && !pieces_.contains({name.serial, name.stripe});
    case ChunkKind::metadata_root: return name.serial == epoch_ && (name.stripe + 1 == next_root_ || !writable_);
    default: return false;
  }
}

std::vector<MetadataLog::Entry> MetadataLog::entries() const {
  std::vector<Entry> all;
  for (const ChunkName& name : names(true)) {
    for (const auto& [number, rewrite] : copies_of(name)->at) {
      ChunkName copy = name;
      copy.shard = rewrite;
      all.push_back({chunk_id(copy), {number}});
    }
  }
  return all;
}

Task<void> MetadataLog::close() {
  co_await restoring_.acquire();
  restoring_.release();
  writable_ = false;
}

}  // namespace quarry::cluster
