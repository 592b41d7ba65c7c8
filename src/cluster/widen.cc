// Widening: a mirrored write gets more copies (or slices beside its copy) without its bytes being written anew. The chunk of a shard is
// named by write, stripe, shard and the term of its place, and not by the width of the layout: where the group's members for the wider
// layout begin with the places that the write has now, what lies there is already the wider write's first shards. So only the layout
// changes, in the owner's transaction, together with a row that asks for repair; repair makes what is missing. At each moment the old
// copies are whole.
//
// What is there must not move between the look at it and the commit: moves of groups wait meanwhile (widening_), and a widening does not
// begin while groups are moved; the write itself is not repaired meanwhile (OneAtATime). Should the map be planned anew before the commit,
// both widths remember the places where the copies are.
#include "cluster/keys.h"
#include "cluster/repair.h"

namespace quarry::cluster {
namespace {

// The layout with the same chunks as its first shards.
Result<DataLayout> widened(const DataLayout& layout, const Redundancy& wanted) {
  const Redundancy& has = layout.redundancy;
  DataLayout wide = layout;
  wide.redundancy = wanted;
  const bool more = wanted.kind == RedundancyKind::mirror ? wanted.width() > has.width() : wanted.has_copies() && has.width() == 1;
  if (has.kind != RedundancyKind::mirror || !more)
    return fail(Code::unsupported, "{} is not the beginning of {}", has.to_string(), wanted.to_string());
  wide.shard_size = layout.shard_size / wanted.k;
  if (wide.stripe_bytes() != layout.stripe_bytes() || wide.shard_size % 64 != 0)
    return fail(Code::unsupported, "stripes of {} bytes do not divide into {} slices", layout.stripe_bytes(), wanted.k);
  return wide;
}

}  // namespace

Task<Result<DataLayout>> Repairer::widen(DataLayout layout, Redundancy wanted, DataPlane::CommitLayout commit) {
  CO_TRY_ASSIGN(const DataLayout wide, widened(layout, wanted));
  const auto width = static_cast<uint8_t>(wanted.width());
  if (!plane_.drives.topology()->map.knows_width(width)) CO_TRY(co_await plane_.register_width(width));
  OneAtATime alone(*this, layout.write_id);
  co_await alone.enter();
  // Several may widen at once; moves exclude them all.
  if (moving_) co_return fail(Code::busy, "data is being moved between drives: try again when that is done (quarry status)");
  ++widening_;
  Result<DataLayout> result = wide;
  const auto topology = plane_.drives.topology();
  const Members now = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  const Members then = topology->map.members(width, layout.group);
  if (then.size() != width || now.size() != layout.redundancy.width())
    result = fail(Code::unavailable, "{} needs {} drives", wanted.to_string(), width);
  for (size_t i = 0; i < now.size() && result; ++i) {
    if (now[i].pending || then[i].pending) {
      result = fail(Code::busy, "group {} is being moved between drives: try again when that is done (quarry status)", layout.group);
    } else if (now[i].at != then[i].at) {
      result = fail(Code::unsupported, "copy {} of group {} lies on drive {}, where {} would have it on drive {}", i, layout.group,
                    now[i].at.drive, wanted.to_string(), then[i].at.drive);
    }
  }
  if (result) {
    Result<void> committed = co_await commit(wide);
    if (!committed) result = std::move(committed).error();
  }
  if (--widening_ == 0) widened_.pulse();
  if (result) alarm.ring();
  co_return result;
}

}  // namespace quarry::cluster
