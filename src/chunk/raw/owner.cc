// Whose drive it is. A lock keeps two processes of one machine apart; two machines that see one drive (a shared LUN, a guest's disk given
// to two guests) have none in common. So each open raises the fencing epoch in the superblock, and whoever has the drive open looks at the
// superblock: when the last look is older than owner_look before a write, also one that has waited in the store or is the next of several,
// and again before what was written is acknowledged; before a checkpoint, a label and a superblock always.
//
// The newcomer, where a device was not closed or was opened since it was loaded, raises the epoch, waits longer than owner_look and only
// then reads. So the older owner has noticed, and what it acknowledged is found. Who did not wait looks again before it writes more. What
// is left: a request that the older one issued before it noticed and that reaches the media only after that wait (a drive or path that
// holds writes back for so long, a machine stopped between look and write). It is not acknowledged, but may hit a place that is somebody
// else's by then; checksums show it, parity repairs it.
#include "base/log.h"
#include "chunk/fencing.h"
#include "chunk/raw/raw_store_impl.h"
#include "io/clock.h"

namespace quarry::chunk::raw {

Task<Result<void>> RawStoreImpl::take_ownership() {
  Superblock next = supers_.superblock();
  // A file has a lock that everybody sees who can open it.
  bool nobodys = device_->info().drive_class == DriveClass::file;
  // One that was closed when it was loaded may have been opened by another node since.
  if (!nobodys && next.clean) {
    CO_TRY_ASSIGN(nobodys, co_await supers_.is_newest(*device_));
  }
  next.fencing_epoch = next_fencing_epoch(next.fencing_epoch, Executor::here().random().u64());
  CO_TRY(co_await update_superblock(std::move(next)));
  if (!nobodys) co_await sleep_for(options_.owner_look + options_.owner_look / 4);
  const TimePoint begin = Executor::here().now();
  CO_TRY_ASSIGN(const bool ours, co_await supers_.is_newest(*device_));
  if (!ours) co_return fail(Code::busy, "{}: another node opened this drive at the same time", device_->info().path);
  owner_looked_at_ = begin;
  co_return Result<void>{};
}

bool RawStoreImpl::owner_look_due() const { return Executor::here().now() - owner_looked_at_ >= options_.owner_look; }

Task<Result<void>> RawStoreImpl::look_at_owner_now() {
  const TimePoint begin = Executor::here().now();
  auto ours = co_await supers_.is_newest(*device_);
  if (!ours) co_return noted(std::move(ours).error(), false);
  if (!*ours) {
    Error error = fail(Code::device_gone, "{}: {} since; it is that one's now. If both are meant to run, each needs drives of its own",
                       device_->info().path, kTakenByAnother)
                      .because(Reason::taken);
    note_error(error, true);
    co_return error;
  }
  owner_looked_at_ = begin;
  co_return Result<void>{};
}

Task<Result<void>> RawStoreImpl::look_at_owner() {
  if (!owner_look_due()) co_return Result<void>{};
  co_await super_turn_.acquire();
  Result<void> result;
  if (health_.state == StoreState::failed) result = readable();
  if (result && owner_look_due()) result = co_await look_at_owner_now();  // else somebody else has looked meanwhile
  super_turn_.release();
  co_return result;
}

}  // namespace quarry::chunk::raw
