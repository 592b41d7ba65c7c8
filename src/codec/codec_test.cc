#include <gtest/gtest.h>

#include "base/coding.h"
#include "codec/aead.h"
#include "codec/checksum.h"
#include "codec/crc32c.h"
#include "codec/digest.h"

namespace quarry {
namespace {

std::vector<uint8_t> pattern(size_t size, uint64_t seed = 1) {
  std::vector<uint8_t> bytes(size);
  for (auto& byte : bytes) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    byte = static_cast<uint8_t>(seed >> 56);
  }
  return bytes;
}

TEST(Crc, known_vectors) {
  const ByteView digits = bytes_of("123456789");
  EXPECT_EQ(crc32c(0, digits), 0xe3069283u);
  EXPECT_EQ(crc32(0, digits), 0xcbf43926u);
  EXPECT_EQ(crc64nvme(0, digits), 0xae8b14860a799888ull);
  const std::vector<uint8_t> zeros(4096, 0), ones(4096, 0xff);
  EXPECT_EQ(crc64nvme(0, zeros), 0x6482d367eb22b64eull);  // the vectors of the NVM Express command set specification
  EXPECT_EQ(crc64nvme(0, ones), 0xc0ddba7302eca3acull);
  EXPECT_EQ(crc32c(0, std::vector<uint8_t>(32, 0)), 0x8a9136aau);  // RFC 3720 B.4
}

TEST(Crc, chaining_combining_and_every_path_agree_at_every_length) {
  const auto bytes = pattern(1500);
  for (size_t size = 0; size <= bytes.size(); size += size < 600 ? 1 : 37) {
    const ByteView all(bytes.data(), size);
    EXPECT_EQ(crc64nvme(0, all), detail::crc64nvme_table(0, all)) << size;
    const size_t cut = size / 3;
    const ByteView a = all.first(cut), b = all.subspan(cut);
    EXPECT_EQ(crc64nvme(crc64nvme(0, a), b), crc64nvme(0, all));
    EXPECT_EQ(crc32c(crc32c(0, a), b), crc32c(0, all));
    EXPECT_EQ(crc32(crc32(0, a), b), crc32(0, all));
    EXPECT_EQ(crc64nvme_combine(crc64nvme(0, a), crc64nvme(0, b), b.size()), crc64nvme(0, all));
    EXPECT_EQ(crc32c_combine(crc32c(0, a), crc32c(0, b), b.size()), crc32c(0, all));
    EXPECT_EQ(crc32_combine(crc32(0, a), crc32(0, b), b.size()), crc32(0, all));
  }
}

TEST(Crc, a_seed_changes_the_sum_of_equal_bytes) {
  const auto bytes = pattern(4096);
  EXPECT_NE(crc32c(1, bytes), crc32c(2, bytes));
}

TEST(Digest, known_vectors) {
  EXPECT_EQ(to_hex(md5(bytes_of("abc"))), "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_EQ(to_hex(sha1(bytes_of("abc"))), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(sha256_hex({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha512(bytes_of("abc"))).substr(0, 32), "ddaf35a193617abacc417349ae204131");
  // RFC 4231, cases 2 and 6 (a key longer than a block).
  EXPECT_EQ(to_hex(hmac_sha256(bytes_of("Jefe"), "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(to_hex(hmac_sha256(std::vector<uint8_t>(131, 0xaa), "Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Digest, streaming_equals_one_shot_and_peek_leaves_the_stream_alone) {
  const auto bytes = pattern(10'000);
  Digest digest(DigestKind::sha256);
  for (int round = 0; round < 2; ++round) {
    digest.update(ByteView(bytes).first(1234));
    EXPECT_EQ(to_hex(digest.peek()), sha256_hex(ByteView(bytes).first(1234)));
    digest.update(ByteView(bytes).subspan(1234));
    EXPECT_EQ(to_hex(digest.finish()), sha256_hex(bytes));  // and it can be used again
  }
}

TEST(Digest, content_hash_streams) {
  const auto bytes = pattern(100'000);
  ContentHasher hasher;
  hasher.update(ByteView(bytes).first(777));
  hasher.update(ByteView(bytes).subspan(777));
  EXPECT_EQ(hasher.finish(), content_hash(bytes));
  EXPECT_NE(content_hash(bytes), content_hash(ByteView(bytes).first(99'999)));
}

TEST(S3Checksum, values_as_s3_prints_them) {
  const auto of = [](ChecksumKind kind) {
    S3Checksum sum(kind);
    sum.update(bytes_of("12345"));
    sum.update(bytes_of("6789"));
    return sum.finish_base64();
  };
  EXPECT_EQ(of(ChecksumKind::crc32), "y/Q5Jg==");
  EXPECT_EQ(of(ChecksumKind::crc32c), "4waSgw==");
  EXPECT_EQ(of(ChecksumKind::crc64nvme), "rosUhgp5mIg=");
  EXPECT_EQ(of(ChecksumKind::sha1), "98O8HYCOBHMq32eZZczDTKeuNEE=");
  EXPECT_EQ(of(ChecksumKind::sha256), to_base64(sha256(bytes_of("123456789"))));
  // Published test values of the later algorithms, over "the object data".
  const auto of_object = [](ChecksumKind kind) {
    S3Checksum sum(kind);
    sum.update(bytes_of("the object "));
    sum.update(bytes_of("data"));
    return sum.finish_base64();
  };
  EXPECT_EQ(of_object(ChecksumKind::sha512), "uiz+VuENyLjzFxWrdmbN/NdIdldj/V3saJF6FsckcYu6xu26fM0CfAaTySaoFJmIdI2m5wbYMJxtShQ1PXk3Tg==");
  EXPECT_EQ(of_object(ChecksumKind::md5), "EtWtthXtCk3RxUiXKw+ydw==");
  EXPECT_EQ(of_object(ChecksumKind::xxhash64), "McmxUfNFLUs=");
  EXPECT_EQ(of_object(ChecksumKind::xxhash3), "tLh+aNltTM4=");
  EXPECT_EQ(of_object(ChecksumKind::xxhash128), "MXqrLVobrQkTBf82+7i9AQ==");
  EXPECT_EQ(checksum_kind_of("crc64nvme"), ChecksumKind::crc64nvme);
  EXPECT_EQ(checksum_kind_of("CRC64"), std::nullopt);
}

TEST(S3Checksum, full_object_checksum_from_parts) {
  const auto bytes = pattern(30'000);
  for (const ChecksumKind kind : {ChecksumKind::crc32, ChecksumKind::crc32c, ChecksumKind::crc64nvme}) {
    S3Checksum whole(kind), a(kind), b(kind);
    whole.update(bytes);
    a.update(ByteView(bytes).first(9'999));
    b.update(ByteView(bytes).subspan(9'999));
    const auto combined = combine_checksums(kind, a.finish(), b.finish(), 20'001);
    ASSERT_TRUE(combined);
    EXPECT_EQ(to_hex(*combined), to_hex(whole.finish()));
  }
  const Sha256Bytes sum{};
  EXPECT_EQ(combine_checksums(ChecksumKind::sha256, sum, sum, 1).error().code(), Code::unsupported);
}

TEST(Aead, opens_what_it_sealed_and_nothing_else) {
  AeadKey key, other_key;
  key.fill(7);
  other_key.fill(8);
  AeadNonce nonce, other_nonce;
  nonce.fill(1);
  other_nonce.fill(2);
  const std::string box = seal(key, nonce, bytes_of("secret"), bytes_of("name"));
  EXPECT_EQ(box.size(), kSealOverhead + 6);
  EXPECT_EQ(*open_sealed(key, bytes_of(box), bytes_of("name")), "secret");
  EXPECT_NE(box, seal(key, other_nonce, bytes_of("secret"), bytes_of("name")));
  EXPECT_EQ(open_sealed(key, bytes_of(box), bytes_of("other")).error().code(), Code::corrupt);
  EXPECT_EQ(open_sealed(other_key, bytes_of(box), bytes_of("name")).error().code(), Code::corrupt);
  for (size_t i = 1; i < box.size(); ++i) {
    std::string changed = box;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    EXPECT_EQ(open_sealed(key, bytes_of(changed), bytes_of("name")).error().code(), Code::corrupt);
  }
  EXPECT_EQ(open_sealed(key, bytes_of(box).first(20), {}).error().code(), Code::malformed);
  EXPECT_EQ(*open_sealed(key, bytes_of(seal(key, nonce, {}, {})), {}), "");
}

}  // namespace
}  // namespace quarry
