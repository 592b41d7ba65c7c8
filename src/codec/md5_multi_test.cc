#include "codec/md5_multi.h"

#include <gtest/gtest.h>

#include <random>

#include "base/coding.h"

namespace quarry {
namespace {

class Md5Multi : public testing::TestWithParam<detail::Md5Kernel> {
 protected:
  void SetUp() override {
    if (!detail::md5_kernel_available(GetParam())) GTEST_SKIP() << "this processor lacks the instructions";
  }
};
INSTANTIATE_TEST_SUITE_P(kernels, Md5Multi, testing::Values(detail::Md5Kernel::scalar, detail::Md5Kernel::avx2, detail::Md5Kernel::avx512),
                         [](const auto& info) {
                           return info.param == detail::Md5Kernel::scalar ? "scalar"
                                  : info.param == detail::Md5Kernel::avx2 ? "avx2"
                                                                          : "avx512";
                         });

TEST_P(Md5Multi, equals_openssl_for_any_number_of_streams_and_any_pieces) {
  std::mt19937_64 random(11);
  std::vector<uint8_t> pool(200'000);
  for (auto& byte : pool) byte = static_cast<uint8_t>(random());
  for (const size_t count : {1, 2, 3, 7, 8, 9, 15, 16, 17, 40}) {
    std::vector<Md5Stream> streams(count);
    std::vector<std::vector<uint8_t>> fed(count);
    for (int round = 0; round < 6; ++round) {
      std::vector<Md5Update> updates;
      for (size_t i = 0; i < count; ++i) {
        const size_t size = random() % 5 == 0 ? random() % 70 : random() % 9'000;
        const ByteView bytes = ByteView(pool).subspan(random() % 100'000, size);
        updates.push_back({&streams[i], bytes});
        fed[i].insert(fed[i].end(), bytes.begin(), bytes.end());
      }
      detail::md5_update_many_with(GetParam(), updates);
    }
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(streams[i].bytes(), fed[i].size());
      EXPECT_EQ(to_hex(streams[i].finish()), to_hex(md5(fed[i]))) << count << " streams, stream " << i;
    }
  }
}

TEST(Md5Stream, padding_at_every_length) {
  const std::vector<uint8_t> bytes(300, 'x');
  for (size_t size = 0; size < bytes.size(); ++size) {
    Md5Stream stream;
    stream.update(ByteView(bytes).first(size / 2));
    stream.update(ByteView(bytes).subspan(size / 2, size - size / 2));
    EXPECT_EQ(stream.finish(), md5(ByteView(bytes).first(size))) << size;
    EXPECT_EQ(stream.finish(), md5({}));
  }
}

TEST(Md5Stream, a_copy_is_a_fork) {
  Md5Stream stream;
  stream.update(bytes_of("abc"));
  Md5Stream fork = stream;
  fork.update(bytes_of("def"));
  EXPECT_EQ(stream.finish(), md5(bytes_of("abc")));
  EXPECT_EQ(fork.finish(), md5(bytes_of("abcdef")));
}

}  // namespace
}  // namespace quarry
