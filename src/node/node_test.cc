// A whole node in one thread, from S3 requests down to drives, killed while clients are at work.
#include "node/node.h"

#include <gtest/gtest.h>

#include "client/s3_client.h"
#include "node/testing/sim_node.h"

namespace quarry::node {
namespace {

// What a key may hold: one of these, kNothing among them perhaps. More than one after an answer that nobody got.
using Possible = std::set<size_t>;  // hashes of contents
constexpr size_t kNothing = 0;
size_t hash_of(const std::string& bytes) { return std::hash<std::string>()(bytes) | 1; }

std::string content(uint64_t version) {
  SeededRandom random(version);
  const uint64_t sizes[] = {random.below(4'000), random.below(100'000), random.below(600'000)};
  std::string bytes(sizes[random.below(3)], '\0');
  random.fill({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  return bytes;
}

// One client with keys of its own, and what it knows of them.
class Client {
 public:
  Client(SimFabric& fabric, SimNode& node, uint64_t number, uint64_t seed)
      : random_(seed),
        number_(number),
        network_(fabric.host(fmt::format("client-{}", number))),
        http_(*network_, patience()),
        s3_(http_, node.endpoint(), node.clock()) {}

  Task<void> work(const bool* stop) {
    while (!*stop) {
      const std::string key = fmt::format("client-{}/key-{}", number_, random_.below(6));
      const uint64_t what = random_.below(10);
      if (what < 5) {
        co_await put(key);
      } else if (what < 9) {
        co_await get(key);
      } else {
        co_await remove(key);
      }
      const bool down = std::exchange(seen_, failed) != failed;
      co_await sleep_for(std::chrono::microseconds(random_.below(down ? 200'000 : 3000)));
    }
  }

  Task<void> put(std::string key) {
    Possible& possible = known_.try_emplace(key, Possible{kNothing}).first->second;
    const std::string bytes = content(random_.u64());
    const size_t hash = hash_of(bytes);
    std::vector<SharedBytes> body;
    if (!bytes.empty()) body.push_back(SharedBytes::copy_of(bytes_of(bytes)));
    possible.insert(hash);
    auto put = co_await s3_.put("bucket", key, std::move(body));
    if (put) {
      possible = {hash};
      ++acknowledged;
    } else {
      ++failed;
    }
  }
  Task<void> remove(std::string key) {
    Possible& possible = known_.try_emplace(key, Possible{kNothing}).first->second;
    possible.insert(kNothing);
    const Result<void> removed = co_await s3_.remove("bucket", key);
    if (removed) {
      possible = {kNothing};
      ++acknowledged;
    } else {
      ++failed;
    }
  }
  Task<void> get(std::string key) {
    const Possible possible = known_.try_emplace(key, Possible{kNothing}).first->second;
    auto response = co_await s3_.get("bucket", key);
    if (!response) {
      if (response.error().code() == Code::not_found) {
        EXPECT_TRUE(possible.contains(kNothing)) << key << " is not there: " << response.error().to_string();
        ++read;
      } else {
        ++failed;
      }
      co_return;
    }
    auto bytes = co_await (*response)->text();
    if (!bytes) {
      ++failed;
      co_return;
    }
    EXPECT_TRUE(possible.contains(hash_of(*bytes)))
        << key << " holds " << bytes->size() << " bytes that nobody put there, or that were overwritten";
    ++read;
  }
  // Nothing is under way and nothing fails any more.
  Task<void> check_all() {
    const size_t before = failed;
    for (const auto& [key, possible] : known_) co_await get(key);
    EXPECT_EQ(failed, before) << "something cannot be read";
  }

  size_t acknowledged = 0, read = 0, failed = 0;

 private:
  static HttpClientOptions patience() {
    HttpClientOptions options;
    options.connect_timeout = std::chrono::seconds(1);
    options.stall_timeout = std::chrono::seconds(5);
    return options;
  }
  SeededRandom random_;
  const uint64_t number_;
  size_t seen_ = 0;  // failures, by work()
  std::unique_ptr<Network> network_;
  HttpClient http_;
  client::S3Client s3_;
  std::map<std::string, Possible> known_;
};

class NodeTest : public ::testing::Test {
 protected:
  static constexpr size_t kClients = 4;

  Task<void> live(uint64_t seed, size_t kills) {
    SeededRandom random(seed);
    Result<void> started = co_await node_->start();
    CHECK(started, started ? "" : started.error().to_string());
    for (uint64_t i = 1; i <= kClients; ++i) clients_.push_back(std::make_unique<Client>(fabric_, *node_, i, random.u64()));
    {
      auto network = fabric_.host("setup");
      HttpClient http(*network, {});
      client::S3Client s3(http, node_->endpoint(), node_->clock());
      const Result<void> made = co_await s3.create_bucket("bucket");
      CHECK(made, made ? "" : made.error().to_string());
    }
    bool stop = false;
    TaskGroup group;
    for (auto& client : clients_) group.spawn(client->work(&stop));
    for (size_t i = 0; i < kills; ++i) {
      co_await sleep_for(std::chrono::microseconds(random.below(400'000)));
      const bool power = random.below(2) == 0;
      co_await node_->kill(power ? SimNode::End::power : SimNode::End::process);
      started = co_await node_->start();
      EXPECT_TRUE(started) << (power ? "power" : "process") << ": " << (started ? "" : started.error().to_string());
      if (!started) break;
    }
    if (started) co_await sleep_for(std::chrono::milliseconds(200));
    stop = true;
    co_await group.join();
    if (!started) co_return;
    const Result<void> settled = co_await node_->node().cluster().settle();
    EXPECT_TRUE(settled) << settled.error().to_string();
    for (auto& client : clients_) co_await client->check_all();
    const auto data = co_await node_->node().cluster().data().fsck(false);
    EXPECT_TRUE(data && data->violations.empty())
        << (data ? fmt::format("{}", fmt::join(data->violations, "\n")) : data.error().to_string());
    const auto objects = co_await node_->node().objects().fsck(RequestContext::system("test"), false);
    EXPECT_TRUE(objects && objects->violations.empty())
        << (objects ? fmt::format("{}", fmt::join(objects->violations, "\n")) : objects.error().to_string());
    const Result<void> stopped = co_await node_->stop();
    EXPECT_TRUE(stopped) << stopped.error().to_string();
  }

  SimExecutor executor_;
  SimFabric fabric_{
      {.latency_min = std::chrono::microseconds(20), .latency_max = std::chrono::microseconds(300), .split_reads = true, .seed = 1}};
  std::unique_ptr<SimNode> node_;
  std::vector<std::unique_ptr<Client>> clients_;
};

TEST_F(NodeTest, serves_what_it_was_given) {
  node_ = std::make_unique<SimNode>(executor_, fabric_, SimNode::Options());
  executor_.run(live(1, 0));
  for (const auto& client : clients_) {
    EXPECT_GT(client->acknowledged, 0u);
    EXPECT_GT(client->read, 0u);
    EXPECT_EQ(client->failed, 0u);
  }
}

// Whatever was acknowledged is there afterwards, and nothing else is.
TEST_F(NodeTest, killed_at_any_moment_has_what_it_acknowledged) {
  const char* wanted = std::getenv("QUARRY_SEEDS");
  const char* from = std::getenv("QUARRY_SEED");
  const uint64_t seeds = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 4;
  const uint64_t first = from != nullptr ? std::strtoull(from, nullptr, 10) : 1;
  size_t acknowledged = 0, failed = 0;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    executor_.draw_from(seed);
    node_ = std::make_unique<SimNode>(executor_, fabric_, SimNode::Options{.seed = seed});
    executor_.run(live(seed, 6));
    for (const auto& client : clients_) {
      acknowledged += client->acknowledged;
      failed += client->failed;
    }
    clients_.clear();
    if (HasFailure()) break;
  }
  EXPECT_GT(acknowledged, 0u);
  EXPECT_GT(failed, 0u) << "no client was at work when the node died: nothing was tested";
}

}  // namespace
}  // namespace quarry::node
