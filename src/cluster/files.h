// Files: copies of writes (mirrors, and the full copy beside slices) on drives that keep them as plain files (chunk/dir). A write of
// several stripes is one file there; which file is to be seen under a name is decided by the owner of the writes (the object engine) after
// its transaction committed.
//
//   write    put each stripe with its FilePlace -> finish_file -> commit -> show_file            (stripe_writer.cc, object engine)
//   crash    finished, committed, not shown: the next start asks the judge and shows it           (sweeper.cc)
//   away     a file that could not be shown or hidden because its drive was away is settled when the drive is back (repair.cc)
//   repair   the whole file again, under the next rewrite number -> shown -> the older ids removed (repair.cc)
//   adopt    an existing file gets a record and becomes a mirror:1 write in a group whose only member is its drive
#pragma once
#include "cluster/plane.h"

namespace quarry::cluster {

// The name that was recorded with a write; none: no drive keeps it as a file.
Task<Result<std::optional<FileName>>> find_file_name(Plane& plane, DataLayout layout);

// On every place of the layout that keeps files and is there. False: one is away. Errors: of the last drive that could not.
Task<Result<bool>> show_everywhere(Plane& plane, DataLayout layout, FileAttributes attributes);
Task<Result<bool>> hide_everywhere(Plane& plane, DataLayout layout);

// What could not be shown or hidden while a drive was away, as far as the drives are back.
Task<void> settle_unsettled_files(Plane& plane);

// Shows the file of one shard if the owner says that it is the one to be seen under its name. Errors: cancelled (the store closes before
// the owner could be asked).
Task<Result<void>> show_if_current(Plane& plane, Drive& drive, DataLayout layout, unsigned shard, uint16_t term);

// See DataPlane::adopt_file.
Task<Result<Adoption>> adopt_file(Plane& plane, AdoptOptions options);
Task<Result<std::vector<UnrecordedFile>>> unrecorded_files(Plane& plane, uint32_t drive, std::string under, std::string after,
                                                           size_t limit);
Task<Result<FileState>> file_state(Plane& plane, DataLayout layout);
Task<Result<bool>> is_adopted(Plane& plane, DataLayout layout, std::optional<DataPlane::FileAt> at);
Task<Result<void>> let_go(Plane& plane, DataLayout layout);

}  // namespace quarry::cluster
