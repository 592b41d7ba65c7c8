// Directories that ought to be mount points and have nothing mounted on them: a drive there would fill the file system below, and an empty
// store would take the place of one whose disks are only not mounted.
//
// Two things tell. The machine's /etc/fstab; and a note that Quarry leaves below the mount point of each directory that it uses as a drive
// (.quarry-mountpoint, in the bare directory, where it is seen only while nothing is mounted over it). The note needs the right to look
// below a mount (CAP_SYS_ADMIN); without it there is none.
#pragma once
#include <string>

namespace quarry::daemon {

inline constexpr const char* kMountNote = ".quarry-mountpoint";

// One sentence: where nothing is mounted that should be, and what to do; empty: nothing is known to be missing. `directory` need not exist;
// what is above it counts, too. Blocks.
std::string missing_mount(const std::string& directory, const std::string& fstab = "/etc/fstab");

// Leaves the note below the file system that holds `directory`, unless that is the machine's root file system. Best effort. Blocks.
void note_mount(const std::string& directory);

}  // namespace quarry::daemon
