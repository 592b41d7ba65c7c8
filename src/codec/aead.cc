#include "codec/aead.h"

#include <openssl/evp.h>

#include <cstring>
#include <memory>

#include "base/check.h"

namespace quarry {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kNonceBytes = sizeof(AeadNonce), kTagBytes = 16, kHeaderBytes = 1 + kNonceBytes;

EVP_CIPHER* cipher() {
  static EVP_CIPHER* const kCipher = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
  CHECK(kCipher != nullptr, "OpenSSL does not offer AES-256-GCM");
  return kCipher;
}

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

}  // namespace

std::string seal(const AeadKey& key, const AeadNonce& nonce, ByteView plaintext, ByteView associated) {
  CHECK(plaintext.size() <= kGiB && associated.size() <= kGiB, "seal is for small secrets");
  std::string box(kSealOverhead + plaintext.size(), '\0');
  auto* const bytes = reinterpret_cast<uint8_t*>(box.data());
  bytes[0] = kVersion;
  std::memcpy(bytes + 1, nonce.data(), nonce.size());
  const Context context(EVP_CIPHER_CTX_new());
  CHECK(context && EVP_EncryptInit_ex2(context.get(), cipher(), key.data(), bytes + 1, nullptr) == 1);
  int size = 0;
  // The version is authenticated too: a box can never be read as one of another version.
  CHECK(EVP_EncryptUpdate(context.get(), nullptr, &size, bytes, 1) == 1);
  if (!associated.empty())
    CHECK(EVP_EncryptUpdate(context.get(), nullptr, &size, associated.data(), static_cast<int>(associated.size())) == 1);
  if (!plaintext.empty()) {
    CHECK(EVP_EncryptUpdate(context.get(), bytes + kHeaderBytes, &size, plaintext.data(), static_cast<int>(plaintext.size())) == 1);
    CHECK(size == static_cast<int>(plaintext.size()));
  }
  CHECK(EVP_EncryptFinal_ex(context.get(), bytes + kHeaderBytes + plaintext.size(), &size) == 1 && size == 0);
  CHECK(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, bytes + kHeaderBytes + plaintext.size()) == 1);
  return box;
}

Result<std::string> open_sealed(const AeadKey& key, ByteView box, ByteView associated) {
  if (box.size() < kSealOverhead) return fail(Code::malformed, "a sealed secret has at least {} bytes, not {}", kSealOverhead, box.size());
  if (box.size() > 2 * kGiB - 1 || associated.size() > kGiB) return fail(Code::malformed, "a sealed secret of {} bytes", box.size());
  if (box[0] != kVersion) return fail(Code::malformed, "sealed secret of unknown version {}", box[0]);
  const size_t text_bytes = box.size() - kSealOverhead;
  std::string plaintext(text_bytes, '\0');
  const Context context(EVP_CIPHER_CTX_new());
  CHECK(context && EVP_DecryptInit_ex2(context.get(), cipher(), key.data(), box.data() + 1, nullptr) == 1);
  int size = 0;
  CHECK(EVP_DecryptUpdate(context.get(), nullptr, &size, box.data(), 1) == 1);
  if (!associated.empty())
    CHECK(EVP_DecryptUpdate(context.get(), nullptr, &size, associated.data(), static_cast<int>(associated.size())) == 1);
  auto* const out = reinterpret_cast<uint8_t*>(plaintext.data());
  if (text_bytes > 0) CHECK(EVP_DecryptUpdate(context.get(), out, &size, box.data() + kHeaderBytes, static_cast<int>(text_bytes)) == 1);
  CHECK(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, const_cast<uint8_t*>(box.data() + kHeaderBytes + text_bytes)) ==
        1);
  if (EVP_DecryptFinal_ex(context.get(), out + text_bytes, &size) != 1) {
    OPENSSL_cleanse(plaintext.data(), plaintext.size());
    return fail(Code::corrupt, "a sealed secret does not open: another key, or its bytes were changed");
  }
  return plaintext;
}

}  // namespace quarry
