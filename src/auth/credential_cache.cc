#include "auth/credential_cache.h"

#include <string.h>

namespace quarry::auth {

void wipe(std::string& text) {
  explicit_bzero(text.data(), text.size());
  text.clear();
}

std::shared_ptr<const Credential> make_credential(AccessKey key, User user, std::string secret) {
  auto* credential = new Credential{std::move(key), std::move(user), std::move(secret)};
  return std::shared_ptr<const Credential>(credential, [](const Credential* dropped) {
    wipe(const_cast<Credential*>(dropped)->secret);
    delete dropped;
  });
}

std::shared_ptr<const Credential> CredentialCache::find(const std::string& access_key, TimePoint now) {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(access_key);
  if (found == entries_.end()) return nullptr;
  if (found->second.until <= now) {
    entries_.erase(found);
    return nullptr;
  }
  return found->second.credential;
}

uint64_t CredentialCache::generation() {
  std::lock_guard lock(mutex_);
  return generation_;
}

void CredentialCache::insert(std::shared_ptr<const Credential> credential, uint64_t generation, TimePoint now) {
  std::lock_guard lock(mutex_);
  if (generation != generation_) return;
  if (entries_.size() >= kCredentialsCachedMax) entries_.clear();
  std::string name = credential->key.access_key;
  entries_.insert_or_assign(std::move(name), Entry{std::move(credential), now + kCredentialLife});
}

void CredentialCache::erase(const std::string& access_key) {
  std::lock_guard lock(mutex_);
  ++generation_;
  entries_.erase(access_key);
}

void CredentialCache::clear() {
  std::lock_guard lock(mutex_);
  ++generation_;
  entries_.clear();
}

}  // namespace quarry::auth
