// AES-256-GCM for small secrets (access keys, tokens). A sealed box is
//   version 0x01 | nonce, 12 random bytes | ciphertext, as long as the plaintext | tag, 16 bytes
// The nonce is random, drawn anew for each seal, so one key may seal up to 2^32 boxes. Pure; any thread.
#pragma once
#include <array>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace quarry {

using AeadKey = std::array<uint8_t, 32>;
using AeadNonce = std::array<uint8_t, 12>;
inline constexpr size_t kSealOverhead = 1 + 12 + 16;

// associated: bytes that are not secret but must be the same at opening (the name of what is sealed).
// nonce: never used before with this key; two boxes under one nonce betray each other.
std::string seal(const AeadKey& key, const AeadNonce& nonce, ByteView plaintext, ByteView associated);

// Errors: malformed (too short, unknown version), corrupt (wrong key, changed bytes, other associated data).
Result<std::string> open_sealed(const AeadKey& key, ByteView box, ByteView associated);

}  // namespace quarry
