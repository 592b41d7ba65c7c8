// Keys of the cluster layer's rows in the metadata. Page: docs/formats/cluster-keys.md. Integers in keys are big-endian.
//   cm                                      the map's head
//   cd drive(u32)                           a drive
//   cg width(u8) group(u16)                 members of a group that lies elsewhere than computed
//   ci                                      next write id (8 bytes)
//   cs session(u64) first id(u64)           a block of write ids leased by a session
//   cr write id(u64)                        retired: chunks to remove
//   cl                                      the epoch of the log in which the newest block was leased (8 bytes)
//   cq spare(u8) write id(u64)              to repair: written or found with fewer shards; spare = losses it still survives
//   cx                                      written to prove that the log goes on (nothing reads it)
//   cy write id(u64)                        directory and name of a mirrored write that drives keep as a file
//   cz drive(u32)                           where the scrub of a drive stands
//   d  group(u16) write id(u64)             data: layout and owner
#pragma once
#include <string>

#include "base/coding.h"
#include "cluster/map/data_layout.h"
#include "meta/meta_store.h"

namespace quarry::cluster::keys {

inline std::string map_head() { return "cm"; }
inline std::string drive(uint32_t number) {
  std::string key = "cd";
  Encoder(key).key_u32(number);
  return key;
}
inline std::string group(uint8_t width, GroupId group) {
  std::string key = "cg";
  Encoder(key).u8(width).key_u16(group);
  return key;
}
inline std::string file(WriteId id) {
  std::string key = "cy";
  Encoder(key).key_u64(id);
  return key;
}
inline std::string next_write_id() { return "ci"; }
inline std::string leased() { return "cl"; }
inline std::string session(uint64_t session, WriteId first) {
  std::string key = "cs";
  Encoder(key).key_u64(session).key_u64(first);
  return key;
}
inline std::string retired(WriteId id) {
  std::string key = "cr";
  Encoder(key).key_u64(id);
  return key;
}
inline std::string repair(uint8_t spare, WriteId id) {
  std::string key = "cq";
  Encoder(key).u8(spare).key_u64(id);
  return key;
}
inline std::string scrub(uint32_t number) {
  std::string key = "cz";
  Encoder(key).key_u32(number);
  return key;
}
inline std::string data(GroupId group, WriteId id) {
  std::string key = "d";
  Encoder(key).key_u16(group).key_u64(id);
  return key;
}
inline std::string data(const DataLayout& layout) { return data(layout.group, layout.write_id); }
inline meta::KeyRange data_of_group(GroupId group) {
  std::string key = "d";
  Encoder(key).key_u16(group);
  return meta::KeyRange::prefix(key);
}

}  // namespace quarry::cluster::keys
