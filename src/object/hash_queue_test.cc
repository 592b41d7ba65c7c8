// HashQueue: digests computed on the pool, many bodies side by side, are those of the bytes.
#include "object/engine/hash_queue.h"

#include <gtest/gtest.h>

#include "object/testing/harness.h"

namespace quarry::object {
namespace {

Task<BodyDigest::Values> hash_body(HashQueue& queue, std::string bytes, size_t piece) {
  BodyDigest digest(ChecksumAlgorithm::crc64nvme, true);
  for (size_t at = 0; at < bytes.size(); at += piece) {
    HashQueue::Job job(digest, bytes_of(std::string_view(bytes).substr(at, piece)));
    queue.start(job);
    if (at % 3 == 0) co_await Executor::here().yield();  // sometimes it is done before it is waited for
    co_await queue.wait(job);
  }
  co_return digest.finish();
}

void check(size_t width, SimExecutor::Options options = {}) {
  SimExecutor executor(options);
  const std::unique_ptr<BlockingPool> pool = width > 0 ? executor.make_pool("hash", width) : nullptr;
  HashQueue queue(pool.get());
  std::vector<Task<BodyDigest::Values>> tasks;
  std::vector<std::string> bodies;
  for (size_t i = 0; i < 40; ++i) {
    bodies.push_back(pattern(i * 7919 + 1, i));
    tasks.push_back(hash_body(queue, bodies.back(), i % 2 == 0 ? 20'000 : 1'000'000));
  }
  const auto values = executor.run(when_all(std::move(tasks)));
  for (size_t i = 0; i < bodies.size(); ++i) {
    EXPECT_EQ(values[i].md5, text_of(md5(bytes_of(bodies[i]))));
    EXPECT_EQ(values[i].sha256, text_of(sha256(bytes_of(bodies[i]))));
    S3Checksum crc(ChecksumKind::crc64nvme);
    crc.update(bytes_of(bodies[i]));
    EXPECT_EQ(values[i].checksum, text_of(crc.finish().view()));
  }
}

TEST(HashQueue, hashes_many_bodies_on_a_pool) { check(3, {.threads = true}); }
TEST(HashQueue, hashes_many_bodies_on_a_pool_in_virtual_time) {
  for (uint64_t seed = 1; seed <= 20; ++seed) check(3, {.seed = seed});
}
TEST(HashQueue, hashes_in_place_without_a_pool) { check(0); }

}  // namespace
}  // namespace quarry::object
