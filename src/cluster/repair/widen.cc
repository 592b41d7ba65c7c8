// Widening: a mirrored write gets more copies (or slices beside its copy) without its bytes being written anew. The chunk of a shard is
// named by write, stripe, shard and the term of its place, and not by the width of the layout: where the group's members for the wider
// layout begin with the places that the write has now, what lies there is already the wider write's first shards. So only the layout
// changes, in the owner's transaction, together with a row that asks for repair; repair makes what is missing. At each moment the old
// copies are whole.
//
// Where the group of the wider layout has a drive in another position than the narrow one (a drive that was added takes the place of one
// that leaves the group, whatever its own rank), that group is rearranged first: the drive of the only copy gets the first position, and
// the drive that had it the other one. That moves what the group holds, once; meanwhile the widening is answered busy.
//
// What is there must not move between the look at it and the commit: moves of groups wait meanwhile (widening_), and a widening does not
// begin while groups are moved; the write itself is not repaired meanwhile (OneAtATime). Should the map be planned anew before the commit,
// both widths remember the places where the copies are. All that lasts until it is certain what became of the commit.
#include "cluster/map/keys.h"
#include "cluster/repair/repair.h"

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

// Gives the first position of a group to the place of its narrow layout. false: it has it, or cannot have it.
Task<Result<bool>> Repairer::lead(uint8_t width, GroupId group, Place first) {
  bool changed = false;
  Result<void> done = co_await maps_.change([=, &changed](ClusterMap& map) -> Result<void> {
    changed = false;  // an attempt before may have been in vain
    Members members = map.members(width, group);
    const auto other = std::ranges::find_if(members, [&](const Member& member) { return member.at.drive == first.drive; });
    if (std::ranges::any_of(members, [](const Member& member) { return member.pending; })) {
      return fail(Code::busy, "group {} is being moved between drives: try again when that is done (`quarry status`)", group);
    }
    // Terms of a position never come again on one drive: this drive never had it with one as high.
    if (other == members.end() || other == members.begin() || first.term < members[0].at.term) return {};
    const Place was_first = members[0].at;
    *other = {.at = {was_first.drive, static_cast<uint16_t>(other->at.term % kTermMax + 1)}, .pending = true, .before = {other->at}};
    members[0] = {.at = first, .pending = true, .before = {was_first}};
    map.set_members({width, group}, std::move(members));
    changed = true;
    return {};
  });
  if (!done) co_return std::move(done).error();
  if (changed) alarm.ring();
  co_return changed;
}

Task<Result<DataLayout>> Repairer::widen(DataLayout layout, Redundancy wanted, DataPlane::CommitLayout commit) {
  CO_TRY_ASSIGN(const DataLayout wide, widened(layout, wanted));
  const auto width = static_cast<uint8_t>(wanted.width());
  if (!plane_.drives.topology()->map.knows_width(width)) CO_TRY(co_await plane_.register_width(width));
  auto alone = std::make_unique<OneAtATime>(*this, layout.write_id);
  co_await alone->enter();
  // Several may widen at once; moves exclude them all.
  if (moving_ || leading_) co_return fail(Code::busy, "data is being moved between drives: try again when that is done (`quarry status`)");
  ++widening_;
  Result<DataLayout> result = wide;
  const auto topology = plane_.drives.topology();
  const Members now = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  const Members then = topology->map.members(width, layout.group);
  if (then.size() != width || now.size() != layout.redundancy.width())
    result = fail(Code::unavailable, "{} needs {} drives", wanted.to_string(), width);
  if (result && now.size() == 1 && !now[0].pending && now[0].at != then[0].at) {
    if (widening_ > 1) {
      result = fail(Code::busy, "group {} has to be rearranged first: try again", layout.group);
    } else {
      leading_ = true;
      const Result<bool> led = co_await lead(width, layout.group, now[0].at);
      leading_ = false;
      if (!led) result = led.error();
      if (led && *led)
        result = fail(Code::busy, "group {} is rearranged first: try again when that is done (`quarry status`)", layout.group);
    }
  }
  for (size_t i = 0; i < now.size() && result; ++i) {
    if (now[i].pending || then[i].pending) {
      result = fail(Code::busy, "group {} is being moved between drives: try again when that is done (`quarry status`)", layout.group);
    } else if (now[i].at != then[i].at) {
      result = fail(Code::unsupported, "copy {} of group {} lies on drive {}, where {} would have it on drive {}", i, layout.group,
                    now[i].at.drive, wanted.to_string(), then[i].at.drive);
    }
  }
  if (result) {
    Result<void> committed = co_await commit(wide);
    if (!committed) result = std::move(committed).error();
  }
  if (!result && result.error().code() == Code::unknown_outcome) {
    plane_.background.spawn_here(end_when_certain(std::move(alone)));
  } else {
    end_widening();
  }
  if (result) alarm.ring();
  co_return result;
}

void Repairer::end_widening() {
  if (--widening_ == 0) widened_.pulse();
}

Task<void> Repairer::end_when_certain(std::unique_ptr<OneAtATime> alone) {
  Result<void> certain = co_await until_commits_are_certain(plane_);
  std::move(certain).ignore("the store closes: nothing is moved any more");
  alone.reset();
  end_widening();
}

}  // namespace quarry::cluster
