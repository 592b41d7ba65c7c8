// Bounded cache of opened credentials. An entry is used for kCredentialLife at most, so a change made by another process takes effect
// within a second; changes made through this store take effect at once (erase, clear). Thread-safe. Internal to auth.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "auth/identity.h"

namespace quarry::auth {

inline constexpr size_t kCredentialsCachedMax = 10'000;  // full: all are dropped
inline constexpr Duration kCredentialLife = std::chrono::milliseconds(500);

// Overwrites the text before its memory is given back.
void wipe(std::string& text);

// The secret is wiped when the last holder drops it.
std::shared_ptr<const Credential> make_credential(AccessKey key, User user, std::string secret);

class CredentialCache {
 public:
  std::shared_ptr<const Credential> find(const std::string& access_key, TimePoint now);
  // Grows with every erase or clear. Take it before reading the rows; insert() drops what was read before a change.
  uint64_t generation();
  void insert(std::shared_ptr<const Credential> credential, uint64_t generation, TimePoint now);
  void erase(const std::string& access_key);
  void clear();

 private:
  struct Entry {
    std::shared_ptr<const Credential> credential;
    TimePoint until;
  };
  std::mutex mutex_;
  std::unordered_map<std::string, Entry> entries_;
  uint64_t generation_ = 0;
};

}  // namespace quarry::auth
