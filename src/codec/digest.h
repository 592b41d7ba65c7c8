// Cryptographic digests over OpenSSL's EVP (algorithms fetched once; SHA-NI where present), HMAC, the content hash, and the
// streaming checksum object of S3. A streaming object is confined to one task at a time; the one-shot functions are pure.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace quarry {

enum class DigestKind : uint8_t { md5, sha1, sha256, sha512 };

using Md5Bytes = std::array<uint8_t, 16>;
using Sha1Bytes = std::array<uint8_t, 20>;
using Sha256Bytes = std::array<uint8_t, 32>;
using Sha512Bytes = std::array<uint8_t, 64>;

// Up to 64 bytes of digest.
struct DigestBytes {
  std::array<uint8_t, 64> bytes{};
  size_t size = 0;
  ByteView view() const { return {bytes.data(), size}; }
  operator ByteView() const { return view(); }  // NOLINT
};

size_t digest_size(DigestKind kind);

// Streaming digest. After finish() it is empty again and can be reused.
class Digest {
 public:
  explicit Digest(DigestKind kind);
  Digest(Digest&& other) noexcept;
  Digest& operator=(Digest&& other) noexcept;
  ~Digest();
  DigestKind kind() const { return kind_; }
  void update(ByteView bytes);
  DigestBytes finish();
  // The digest of what was fed so far, without ending the stream.
  DigestBytes peek() const;
  void reset();

 private:
  DigestKind kind_;
  void* context_;  // EVP_MD_CTX
};

Md5Bytes md5(ByteView bytes);
Sha1Bytes sha1(ByteView bytes);
Sha256Bytes sha256(ByteView bytes);
Sha512Bytes sha512(ByteView bytes);
std::string sha256_hex(ByteView bytes);

Sha256Bytes hmac_sha256(ByteView key, ByteView message);
inline Sha256Bytes hmac_sha256(ByteView key, std::string_view message) { return hmac_sha256(key, bytes_of(message)); }

// Compares secrets in time that depends on the lengths only.
bool equal_constant_time(ByteView a, ByteView b);

// 128-bit content hash (XXH3): finds equal or damaged content, no defence against an adversary. Canonical (big-endian) bytes.
using ContentHash = std::array<uint8_t, 16>;
ContentHash content_hash(ByteView bytes);
uint64_t hash64(ByteView bytes, uint64_t seed = 0);  // XXH3-64, for tables and sharding

class ContentHasher {
 public:
  ContentHasher();
  ContentHasher(ContentHasher&&) noexcept;
  ContentHasher& operator=(ContentHasher&&) noexcept;
  ~ContentHasher();
  void update(ByteView bytes);
  ContentHash finish() const;

 private:
  void* state_;
};

// ---- checksums of the S3 API ------------------------------------------------------------------------------------------------

// Numbers are stored in manifests: frozen.
enum class ChecksumKind : uint8_t {
  crc32 = 1,
  crc32c = 2,
  sha1 = 3,
  sha256 = 4,
  crc64nvme = 5,
  sha512 = 6,
  md5 = 7,
  xxhash64 = 8,
  xxhash3 = 9,
  xxhash128 = 10
};
inline constexpr uint8_t kChecksumKindLast = 10;

std::string_view checksum_name(ChecksumKind kind);                    // "CRC64NVME", as in x-amz-checksum-algorithm
std::optional<ChecksumKind> checksum_kind_of(std::string_view name);  // any case; "CRC32C" or "crc32c"
size_t checksum_size(ChecksumKind kind);                              // bytes
constexpr bool checksum_is_crc(ChecksumKind kind) {
  return kind == ChecksumKind::crc32 || kind == ChecksumKind::crc32c || kind == ChecksumKind::crc64nvme;
}

// Streaming S3 checksum; finish() gives big-endian bytes, whose base64 is the header's value.
class S3Checksum {
 public:
  explicit S3Checksum(ChecksumKind kind);
  ChecksumKind kind() const { return kind_; }
  void update(ByteView bytes);
  DigestBytes finish();
  std::string finish_base64();

 private:
  ChecksumKind kind_;
  uint64_t crc_ = 0;
  std::optional<Digest> digest_;
  std::unique_ptr<void, void (*)(void*)> xxhash_;
};

// Full-object checksum of a multipart object from those of its parts, in order.
// Errors: unsupported (only the cyclic ones can be combined), malformed (a checksum of the wrong size).
Result<DigestBytes> combine_checksums(ChecksumKind kind, ByteView first, ByteView second, uint64_t second_length);

}  // namespace quarry
