// Files: where drives keep objects as plain files, the readable tree shows the current version of each key and nothing else. The rows
// decide what is current; the tree follows them after each commit, before the request is answered, one key at a time.
#pragma once
#include "cluster/data_plane.h"
#include "meta/meta_store.h"
#include "object/engine/gate.h"
#include "object/engine/keys.h"
#include "object/engine/records.h"

namespace quarry::object {

// What is kept with the file: content type and user metadata, as text.
cluster::FileAttributes file_attributes(const VersionRecord& record);

// Whether a write is the current version of the key it is named after: asked by the data plane after a crash and by repair. `meta` outlives
// it.
cluster::FileService::Judge make_file_judge(meta::MetaStore& meta);

// The version that a commit took the place of, or removed.
struct FormerFile {
  std::optional<cluster::DataLayout> layout;
  std::string row;  // value of the row that asks for its file to be hidden; empty: the commit wrote none
};
// Adds that row to the transaction, should drives keep such files: if the end comes after the commit and before the file is hidden, the
// next start hides it. time: unique among the commits of the key.
void ask_to_hide(meta::Transaction& transaction, cluster::DataPlane& data, BucketId bucket, std::string_view key, Sequence time,
                 FormerFile& former);

using NameGates = GateTable<256>;
// Brings the tree in line with the rows of a key, for the data plane. `meta` and `data` outlive it.
cluster::FileService::NameSettler make_name_settler(meta::MetaStore& meta, cluster::DataPlane& data, std::shared_ptr<NameGates> gates);

}  // namespace quarry::object
