#include "codec/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include <vector>

#include "base/check.h"
#include "base/coding.h"
#include "codec/checksum.h"
#include "codec/crc32c.h"

namespace quarry {
namespace {

constexpr size_t kKinds = 4;
constexpr size_t kSpareContextsMax = 32;  // per thread and kind

// Fetching an algorithm walks the providers under a lock: once per process.
EVP_MD* algorithm(DigestKind kind) {
  static const std::array<EVP_MD*, kKinds> kAlgorithms = {
      EVP_MD_fetch(nullptr, "MD5", nullptr),
      EVP_MD_fetch(nullptr, "SHA1", nullptr),
      EVP_MD_fetch(nullptr, "SHA256", nullptr),
      EVP_MD_fetch(nullptr, "SHA512", nullptr),
  };
  EVP_MD* const found = kAlgorithms[static_cast<size_t>(kind)];
  CHECK(found != nullptr, "OpenSSL does not offer this digest");
  return found;
}

// Contexts are kept per thread: making one allocates three times.
struct SpareContexts {
  std::array<std::vector<EVP_MD_CTX*>, kKinds> by_kind;
  ~SpareContexts() {
    for (auto& list : by_kind) {
      for (EVP_MD_CTX* context : list) EVP_MD_CTX_free(context);
    }
  }
};
SpareContexts& spares() {
  thread_local SpareContexts mine;
  return mine;
}

EVP_MD_CTX* take_context(DigestKind kind) {
  auto& list = spares().by_kind[static_cast<size_t>(kind)];
  EVP_MD_CTX* context = nullptr;
  if (!list.empty()) {
    context = list.back();
    list.pop_back();
  } else {
    context = EVP_MD_CTX_new();
    CHECK(context != nullptr, "out of memory");
  }
  CHECK(EVP_DigestInit_ex2(context, algorithm(kind), nullptr) == 1);
  return context;
}
void give_back(DigestKind kind, EVP_MD_CTX* context) {
  auto& list = spares().by_kind[static_cast<size_t>(kind)];
  if (list.size() < kSpareContextsMax) {
    list.push_back(context);
  } else {
    EVP_MD_CTX_free(context);
  }
}

template <class Bytes>
Bytes one_shot(DigestKind kind, std::initializer_list<ByteView> parts) {
  EVP_MD_CTX* const context = take_context(kind);
  for (const ByteView part : parts) CHECK(EVP_DigestUpdate(context, part.data(), part.size()) == 1);
  Bytes out;
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(context, out.data(), &size) == 1 && size == out.size());
  give_back(kind, context);
  return out;
}

EVP_MD_CTX* evp(void* context) { return static_cast<EVP_MD_CTX*>(context); }
XXH3_state_t* xxh(void* state) { return static_cast<XXH3_state_t*>(state); }

DigestBytes big_endian(uint64_t value, size_t size) {
  DigestBytes out;
  out.size = size;
  for (size_t i = 0; i < size; ++i) out.bytes[i] = static_cast<uint8_t>(value >> (8 * (size - 1 - i)));
  return out;
}
uint64_t from_big_endian(ByteView bytes) {
  uint64_t value = 0;
  for (const uint8_t byte : bytes) value = value << 8 | byte;
  return value;
}

}  // namespace

size_t digest_size(DigestKind kind) {
  switch (kind) {
    case DigestKind::md5: return 16;
    case DigestKind::sha1: return 20;
    case DigestKind::sha256: return 32;
    case DigestKind::sha512: return 64;
  }
  CHECK(false, "unlisted digest");
}

Digest::Digest(DigestKind kind) : kind_(kind), context_(take_context(kind)) {}
Digest::Digest(Digest&& other) noexcept : kind_(other.kind_), context_(std::exchange(other.context_, nullptr)) {}
Digest& Digest::operator=(Digest&& other) noexcept {
  std::swap(kind_, other.kind_);
  std::swap(context_, other.context_);
  return *this;
}
Digest::~Digest() {
  if (context_ != nullptr) give_back(kind_, evp(context_));
}
void Digest::update(ByteView bytes) {
  if (!bytes.empty()) CHECK(EVP_DigestUpdate(evp(context_), bytes.data(), bytes.size()) == 1);
}
DigestBytes Digest::finish() {
  DigestBytes out;
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(evp(context_), out.bytes.data(), &size) == 1);
  out.size = size;
  reset();
  return out;
}
DigestBytes Digest::peek() const {
  EVP_MD_CTX* const copy = take_context(kind_);
  CHECK(EVP_MD_CTX_copy_ex(copy, evp(context_)) == 1);
  DigestBytes out;
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(copy, out.bytes.data(), &size) == 1);
  out.size = size;
  give_back(kind_, copy);
  return out;
}
void Digest::reset() { CHECK(EVP_DigestInit_ex2(evp(context_), algorithm(kind_), nullptr) == 1); }

Md5Bytes md5(ByteView bytes) { return one_shot<Md5Bytes>(DigestKind::md5, {bytes}); }
Sha1Bytes sha1(ByteView bytes) { return one_shot<Sha1Bytes>(DigestKind::sha1, {bytes}); }
Sha256Bytes sha256(ByteView bytes) { return one_shot<Sha256Bytes>(DigestKind::sha256, {bytes}); }
Sha512Bytes sha512(ByteView bytes) { return one_shot<Sha512Bytes>(DigestKind::sha512, {bytes}); }
std::string sha256_hex(ByteView bytes) { return to_hex(sha256(bytes)); }

// RFC 2104.
Sha256Bytes hmac_sha256(ByteView key, ByteView message) {
  constexpr size_t kBlock = 64;
  std::array<uint8_t, kBlock> inner{}, outer{};
  if (key.size() > kBlock) {
    const Sha256Bytes short_key = sha256(key);
    std::memcpy(inner.data(), short_key.data(), short_key.size());
  } else if (!key.empty()) {
    std::memcpy(inner.data(), key.data(), key.size());
  }
  for (size_t i = 0; i < kBlock; ++i) {
    outer[i] = inner[i] ^ 0x5c;
    inner[i] ^= 0x36;
  }
  const Sha256Bytes digest = one_shot<Sha256Bytes>(DigestKind::sha256, {inner, message});
  const Sha256Bytes result = one_shot<Sha256Bytes>(DigestKind::sha256, {outer, digest});
  OPENSSL_cleanse(inner.data(), inner.size());
  OPENSSL_cleanse(outer.data(), outer.size());
  return result;
}

bool equal_constant_time(ByteView a, ByteView b) { return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

ContentHash content_hash(ByteView bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  ContentHash out;
  std::memcpy(out.data(), canonical.digest, out.size());
  return out;
}
uint64_t hash64(ByteView bytes, uint64_t seed) { return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed); }

ContentHasher::ContentHasher() : state_(XXH3_createState()) {
  CHECK(state_ != nullptr, "out of memory");
  XXH3_128bits_reset(xxh(state_));
}
ContentHasher::ContentHasher(ContentHasher&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
ContentHasher& ContentHasher::operator=(ContentHasher&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}
ContentHasher::~ContentHasher() { XXH3_freeState(xxh(state_)); }
void ContentHasher::update(ByteView bytes) { XXH3_128bits_update(xxh(state_), bytes.data(), bytes.size()); }
ContentHash ContentHasher::finish() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(xxh(state_)));
  ContentHash out;
  std::memcpy(out.data(), canonical.digest, out.size());
  return out;
}

// ---- S3 ----------------------------------------------------------------------------------------------------------------------

namespace {
struct ChecksumInfo {
  ChecksumKind kind;
  std::string_view name;
  size_t size;
};
constexpr ChecksumInfo kChecksums[] = {
    {ChecksumKind::crc32, "CRC32", 4},
    {ChecksumKind::crc32c, "CRC32C", 4},
    {ChecksumKind::sha1, "SHA1", 20},
    {ChecksumKind::sha256, "SHA256", 32},
    {ChecksumKind::crc64nvme, "CRC64NVME", 8},
    {ChecksumKind::sha512, "SHA512", 64},
    {ChecksumKind::md5, "MD5", 16},
    {ChecksumKind::xxhash64, "XXHASH64", 8},
    {ChecksumKind::xxhash3, "XXHASH3", 8},
    {ChecksumKind::xxhash128, "XXHASH128", 16},
};
const ChecksumInfo& info_of(ChecksumKind kind) {
  for (const auto& info : kChecksums) {
    if (info.kind == kind) return info;
  }
  CHECK(false, "unlisted checksum");
}
}  // namespace

std::string_view checksum_name(ChecksumKind kind) { return info_of(kind).name; }
size_t checksum_size(ChecksumKind kind) { return info_of(kind).size; }
std::optional<ChecksumKind> checksum_kind_of(std::string_view name) {
  for (const auto& info : kChecksums) {
    const bool equal = std::ranges::equal(info.name, name, [](char a, char b) { return a == (b >= 'a' && b <= 'z' ? b - 32 : b); });
    if (equal) return info.kind;
  }
  return std::nullopt;
}

namespace {
void free_xxh64(void* state) { XXH64_freeState(static_cast<XXH64_state_t*>(state)); }
void free_xxh3(void* state) { XXH3_freeState(static_cast<XXH3_state_t*>(state)); }
void free_nothing(void*) {}
XXH64_state_t* xxh64(void* state) { return static_cast<XXH64_state_t*>(state); }
}  // namespace

S3Checksum::S3Checksum(ChecksumKind kind) : kind_(kind), xxhash_(nullptr, free_nothing) {
  switch (kind) {
    case ChecksumKind::crc32:
    case ChecksumKind::crc32c:
    case ChecksumKind::crc64nvme: return;
    case ChecksumKind::sha1: digest_.emplace(DigestKind::sha1); return;
    case ChecksumKind::sha256: digest_.emplace(DigestKind::sha256); return;
    case ChecksumKind::sha512: digest_.emplace(DigestKind::sha512); return;
    case ChecksumKind::md5: digest_.emplace(DigestKind::md5); return;
    case ChecksumKind::xxhash64: xxhash_ = {XXH64_createState(), free_xxh64}; break;
    case ChecksumKind::xxhash3:
    case ChecksumKind::xxhash128: xxhash_ = {XXH3_createState(), free_xxh3}; break;
  }
  CHECK(xxhash_ != nullptr, "out of memory");
  if (kind == ChecksumKind::xxhash64) XXH64_reset(xxh64(xxhash_.get()), 0);
  if (kind == ChecksumKind::xxhash3) XXH3_64bits_reset(xxh(xxhash_.get()));
  if (kind == ChecksumKind::xxhash128) XXH3_128bits_reset(xxh(xxhash_.get()));
}
void S3Checksum::update(ByteView bytes) {
  switch (kind_) {
    case ChecksumKind::crc32: crc_ = crc32(static_cast<uint32_t>(crc_), bytes); return;
    case ChecksumKind::crc32c: crc_ = crc32c(static_cast<uint32_t>(crc_), bytes); return;
    case ChecksumKind::crc64nvme: crc_ = crc64nvme(crc_, bytes); return;
    case ChecksumKind::sha1:
    case ChecksumKind::sha256:
    case ChecksumKind::sha512:
    case ChecksumKind::md5: digest_->update(bytes); return;
    case ChecksumKind::xxhash64: XXH64_update(xxh64(xxhash_.get()), bytes.data(), bytes.size()); return;
    case ChecksumKind::xxhash3: XXH3_64bits_update(xxh(xxhash_.get()), bytes.data(), bytes.size()); return;
    case ChecksumKind::xxhash128: XXH3_128bits_update(xxh(xxhash_.get()), bytes.data(), bytes.size()); return;
  }
}
DigestBytes S3Checksum::finish() {
  if (digest_) return digest_->finish();
  if (kind_ == ChecksumKind::xxhash64) {
    crc_ = XXH64_digest(xxh64(xxhash_.get()));
    XXH64_reset(xxh64(xxhash_.get()), 0);
  }
  if (kind_ == ChecksumKind::xxhash3) {
    crc_ = XXH3_64bits_digest(xxh(xxhash_.get()));
    XXH3_64bits_reset(xxh(xxhash_.get()));
  }
  if (kind_ == ChecksumKind::xxhash128) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(xxh(xxhash_.get())));
    XXH3_128bits_reset(xxh(xxhash_.get()));
    DigestBytes out;
    out.size = sizeof canonical.digest;
    std::memcpy(out.bytes.data(), canonical.digest, out.size);
    return out;
  }
  return big_endian(std::exchange(crc_, 0), checksum_size(kind_));
}
std::string S3Checksum::finish_base64() { return to_base64(finish()); }

Result<DigestBytes> combine_checksums(ChecksumKind kind, ByteView first, ByteView second, uint64_t second_length) {
  if (!checksum_is_crc(kind)) return fail(Code::unsupported, "{} of parts cannot be combined", checksum_name(kind));
  const size_t size = checksum_size(kind);
  if (first.size() != size || second.size() != size) {
    return fail(Code::malformed, "a {} checksum has {} bytes, not {} or {}", checksum_name(kind), size, first.size(), second.size());
  }
  const uint64_t a = from_big_endian(first), b = from_big_endian(second);
  if (kind == ChecksumKind::crc64nvme) return big_endian(crc64nvme_combine(a, b, second_length), size);
  const auto low_a = static_cast<uint32_t>(a), low_b = static_cast<uint32_t>(b);
  return big_endian(kind == ChecksumKind::crc32 ? crc32_combine(low_a, low_b, second_length) : crc32c_combine(low_a, low_b, second_length),
                    size);
}

}  // namespace quarry
