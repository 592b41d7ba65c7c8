// Opening: decide whether the index that is there can be believed, restore it from the log's newest checkpoint if not, and replay the rest
// of the log. docs/formats/metadata-log.md, section 6, has the rules and their reasons.
#pragma once
#include "meta/log_store/log_meta_store.h"

namespace quarry::meta {

struct Recovered {
  std::shared_ptr<Index> index;
  Applied applied;                               // current with the log
  std::map<std::string, CheckpointEntry> known;  // as Index::stored_files()
  uint64_t checkpoint_log_bytes = 0;             // Applied::log_bytes of the newest checkpoint
  uint64_t checkpoint_size = 0;
  FrameNumber checkpoint_frame = 0;
  Version checkpoint_version = 0;
  bool checkpoint_due = false;  // the log alone could not bring this state back: make one soon
  std::string opened_by, reason;
  uint64_t frames_replayed = 0;
};

// On the log's executor; before any append.
Task<Result<Recovered>> recover(const LogMetaOptions& options, IndexPlace& place, CommitLog& log, OnIndexDamage on_damage);

}  // namespace quarry::meta
