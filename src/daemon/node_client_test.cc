// A whole node in this process, and the clients of `quarry object` and `quarry device` against it over the loopback.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "client/admin_client.h"
#include "client/transfer.h"
#include "daemon/node.h"
#include "io/needs_ring.h"
#include "io/thread_pool.h"
#include "io/uring_network.h"
#include "wire/json.h"

namespace quarry::daemon {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kPart = 5 * kMiB;

class NodeClient : public NeedsRing {
 protected:
  void SetUp() override {
    NeedsRing::SetUp();
    if (IsSkipped()) return;
    std::string name = "/var/tmp/quarry-node-client-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    auto node = Node::start(config());
    ASSERT_TRUE(node) << node.error().to_string();
    node_ = std::move(*node);
    auto loop = RingExecutor::create();
    ASSERT_TRUE(loop) << loop.error().to_string();
    loop_ = std::move(*loop);
    const auto endpoints = client::read_endpoints(config().root);
    ASSERT_TRUE(endpoints) << endpoints.error().to_string();
    endpoints_ = *endpoints;
    s3_ = std::make_unique<client::S3Client>(
        http_, client::S3Endpoint{endpoints_.s3, {endpoints_.access_key, endpoints_.secret_key}, endpoints_.region}, system_clock());
    const auto made = loop_->run(s3_->create_bucket("bucket"));
    ASSERT_TRUE(made) << made.error().to_string();
  }
  void TearDown() override {
    http_.close_idle();
    loop_.reset();
    if (node_) {
      const auto stopped = node_->stop();
      EXPECT_TRUE(stopped) << stopped.error().to_string();
    }
    node_.reset();
    if (!folder_.empty()) fs::remove_all(folder_);
    NeedsRing::TearDown();
  }
  NodeConfig config() const {
    NodeConfig config;
    config.root = folder_ + "/node";
    config.s3 = {"127.0.0.1", 0};
    config.admin = {"127.0.0.1", 0};
    config.drives = 3;
    config.drive_bytes = 256 * kMiB;
    config.cores = 2;
    config.cache_bytes = 64 * kMiB;
    config.drain_timeout = std::chrono::seconds(5);
    return config;
  }

  static std::string pattern(size_t size, char seed) {
    std::string text(size, 0);
    uint32_t state = static_cast<uint8_t>(seed) + 1u;
    for (auto& c : text) {
      state = state * 1664525u + 1013904223u;
      c = static_cast<char>(state >> 24);
    }
    return text;
  }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  void write(const std::string& name, std::string_view text) const {
    std::ofstream(path(name), std::ios::binary | std::ios::trunc).write(text.data(), static_cast<std::streamsize>(text.size()));
  }
  std::string read(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.is_regular_file()) names.insert(entry.path().filename().string());
    }
    return names;
  }
  client::TransferOptions options() {
    client::TransferOptions options;
    options.part_bytes = kPart;
    options.multipart_from_bytes = 2 * kPart;
    options.on_bytes = [this](uint64_t bytes) { told_ += bytes; };
    return options;
  }
  Result<client::TransferResult> upload(const std::string& name, const std::string& key, client::TransferOptions how) {
    told_ = 0;
    return loop_->run(client::upload_file(*s3_, pool_, slots_, path(name), "bucket", key, std::move(how)));
  }
  Result<client::TransferResult> download(const std::string& key, const std::string& name, client::TransferOptions how) {
    told_ = 0;
    return loop_->run(client::download_file(*s3_, pool_, slots_, "bucket", key, path(name), std::move(how)));
  }
  client::RemoteObject head(const std::string& key) {
    auto object = loop_->run(s3_->head("bucket", key));
    EXPECT_TRUE(object) << object.error().to_string();
    return object ? *object : client::RemoteObject();
  }
  size_t unfinished(const std::string& key) {
    const auto uploads = loop_->run(s3_->list_uploads("bucket", key));
    EXPECT_TRUE(uploads) << uploads.error().to_string();
    return uploads ? uploads->size() : 99;
  }
  // An upload of `key` that somebody began: parts 1, 2, ... with these contents.
  void interrupted(const std::string& key, const std::vector<std::string>& parts) {
    const auto id = loop_->run(s3_->create_upload("bucket", key, ""));
    ASSERT_TRUE(id) << id.error().to_string();
    for (uint32_t number = 1; number <= parts.size(); ++number) {
      std::vector<SharedBytes> body{SharedBytes::copy_of(bytes_of(parts[number - 1]))};
      const auto part = loop_->run(s3_->put_part("bucket", key, *id, number, std::move(body)));
      ASSERT_TRUE(part) << part.error().to_string();
    }
  }

  std::string folder_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<RingExecutor> loop_;
  UringNetwork network_;
  HttpClient http_{network_, HttpClientOptions()};
  ThreadPool pool_{"files", 2};
  Semaphore slots_{4};
  client::Endpoints endpoints_;
  std::unique_ptr<client::S3Client> s3_;
  uint64_t told_ = 0;  // bytes that the last transfer reported
};

TEST_F(NodeClient, files_of_any_size_come_back_as_they_were) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{100'000}, size_t{2 * kPart - 1}, size_t{2 * kPart}, size_t{2 * kPart + 12345}}) {
    const std::string text = pattern(size, 'a'), key = fmt::format("of-{}", size);
    write("sent", text);
    const auto sent = upload("sent", key, options());
    ASSERT_TRUE(sent) << sent.error().to_string();
    EXPECT_EQ(sent->bytes, size);
    EXPECT_EQ(told_, size);
    EXPECT_EQ(head(key).etag.find('-') != std::string::npos, size >= 2 * kPart) << "in parts from the set size on";
    const auto got = download(key, "got", options());
    ASSERT_TRUE(got) << got.error().to_string();
    EXPECT_EQ(told_, size);
    EXPECT_TRUE(read("got") == text) << size;
  }
  EXPECT_EQ(files(), (std::set<std::string>{"sent", "got"})) << "nothing else is left beside them";
}

TEST_F(NodeClient, an_interrupted_upload_goes_on_and_trusts_no_part_unseen) {
  const std::string text = pattern(3 * kPart + 777, 'b');
  write("file", text);
  // Part 1 is right; part 2 has the right size and wrong bytes.
  interrupted("key", {text.substr(0, kPart), pattern(kPart, 'x')});
  ASSERT_EQ(unfinished("key"), 1u);
  const auto sent = upload("file", "key", options());
  ASSERT_TRUE(sent) << sent.error().to_string();
  EXPECT_EQ(unfinished("key"), 0u) << "it was the same upload";
  ASSERT_TRUE(download("key", "got", options()));
  EXPECT_TRUE(read("got") == text);
}

// No step of a loop is long, the client's own among them.
TEST_F(NodeClient, large_parts_of_an_interrupted_upload_are_compared_beside_the_loop) {
  constexpr uint64_t kLarge = 24 * kMiB;
  auto how = options();
  how.part_bytes = kLarge;
  const std::string text = pattern(kLarge + 777, 'b');
  write("file", text);
  interrupted("key", {text.substr(0, kLarge)});
  const auto sent = upload("file", "key", how);
  ASSERT_TRUE(sent) << sent.error().to_string();
  EXPECT_EQ(unfinished("key"), 0u) << "it was the same upload";
  EXPECT_EQ(head("key").size, text.size());
}

TEST_F(NodeClient, an_upload_whose_parts_do_not_fit_is_not_taken_over) {
  const std::string text = pattern(2 * kPart + 5, 'c');
  write("file", text);
  interrupted("key", {pattern(kPart + 1, 'c')});
  interrupted("key-longer", {text.substr(0, kPart)});
  auto how = options();
  ASSERT_TRUE(upload("file", "key", how));
  EXPECT_EQ(unfinished("key-longer"), 1u) << "of another key that begins alike";
  EXPECT_EQ(unfinished("key"), 2u) << "both are left to whoever began them";
  how.resume = false;
  ASSERT_TRUE(upload("file", "key-longer", how));
  EXPECT_EQ(unfinished("key-longer"), 1u) << "not asked to go on";
  ASSERT_TRUE(download("key", "got", options()));
  EXPECT_TRUE(read("got") == text);
}

TEST_F(NodeClient, a_file_that_is_there_already_is_not_sent_again) {
  write("file", pattern(50'000, 'd'));
  ASSERT_TRUE(upload("file", "key", options()));
  auto how = options();
  how.skip_same = true;
  const auto again = upload("file", "key", how);
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_TRUE(again->skipped);
  EXPECT_EQ(told_, 50'000u);
  write("file", pattern(50'000, 'e'));
  const auto changed = upload("file", "key", how);
  ASSERT_TRUE(changed) << changed.error().to_string();
  EXPECT_FALSE(changed->skipped) << "same size, other bytes";
}

TEST_F(NodeClient, an_interrupted_download_goes_on_where_it_ended) {
  const std::string text = pattern(300'000, 'f');
  write("file", text);
  ASSERT_TRUE(upload("file", "key", options()));
  write("got.quarry-etag", head("key").etag);
  write("got.quarry-part", text.substr(0, 123'456));
  const auto got = download("key", "got", options());
  ASSERT_TRUE(got) << got.error().to_string();
  EXPECT_TRUE(read("got") == text);
  EXPECT_EQ(files(), (std::set<std::string>{"file", "got"}));
}

TEST_F(NodeClient, a_partial_file_of_another_version_or_without_stamp_is_begun_anew) {
  const std::string text = pattern(300'000, 'g');
  write("file", text);
  ASSERT_TRUE(upload("file", "key", options()));
  write("got.quarry-etag", "00000000000000000000000000000000");
  write("got.quarry-part", pattern(200'000, 'y'));
  ASSERT_TRUE(download("key", "got", options()));
  EXPECT_TRUE(read("got") == text);
  write("more.quarry-part", pattern(200'000, 'y'));
  ASSERT_TRUE(download("key", "more", options()));
  EXPECT_TRUE(read("more") == text);
}

TEST_F(NodeClient, a_partial_file_longer_than_the_object_leaves_no_tail) {
  const std::string text = pattern(100'000, 'h');
  write("file", text);
  ASSERT_TRUE(upload("file", "key", options()));
  write("got.quarry-etag", head("key").etag);
  write("got.quarry-part", text + "and more");
  ASSERT_TRUE(download("key", "got", options()));
  EXPECT_TRUE(read("got") == text);
}

TEST_F(NodeClient, damage_in_a_partial_file_is_found_before_it_gets_its_name) {
  const std::string text = pattern(300'000, 'i');
  write("file", text);
  ASSERT_TRUE(upload("file", "key", options()));
  std::string rotten = text.substr(0, 150'000);
  rotten[77] = static_cast<char>(rotten[77] ^ 1);
  write("got.quarry-etag", head("key").etag);
  write("got.quarry-part", rotten);
  const auto got = download("key", "got", options());
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code(), Code::checksum_mismatch) << got.error().to_string();
  EXPECT_EQ(files(), (std::set<std::string>{"file"}));
  const auto again = download("key", "got", options());
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_TRUE(read("got") == text);
}

TEST_F(NodeClient, what_is_not_there_is_not_found_on_either_side) {
  const auto got = download("nothing", "got", options());
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code(), Code::not_found) << got.error().to_string();
  EXPECT_TRUE(files().empty());
  const auto sent = upload("nothing", "key", options());
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code(), Code::not_found) << sent.error().to_string();
  fs::create_directory(path("folder"));
  const auto folder = upload("folder", "key", options());
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().code(), Code::invalid_argument);
  EXPECT_EQ(slots_.available(), 4u) << "whatever fails gives its slot back";
}

TEST_F(NodeClient, the_admin_client_is_served_with_the_right_keys_only) {
  client::AdminClient admin(http_, endpoints_.admin, {endpoints_.access_key, endpoints_.secret_key}, endpoints_.region, system_clock());
  const auto status = loop_->run(admin.call("GET", "/v1/status"));
  ASSERT_TRUE(status) << status.error().to_string();
  EXPECT_TRUE(parse_json(*status)) << *status;
  const auto nowhere = loop_->run(admin.call("GET", "/v1/nowhere"));
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().code(), Code::not_found) << nowhere.error().to_string();
  client::AdminClient stranger(http_, endpoints_.admin, {endpoints_.access_key, "not the secret"}, endpoints_.region, system_clock());
  const auto refused = loop_->run(stranger.call("GET", "/v1/drives"));
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().code() == Code::permission_denied || refused.error().code() == Code::unauthenticated)
      << refused.error().to_string();
}

TEST_F(NodeClient, loops_and_their_steps_are_among_the_metrics) {
  const auto url = parse_url(endpoints_.admin);
  ASSERT_TRUE(url);
  ClientRequest request;
  request.target = "/metrics";
  const auto answer = loop_->run(http_.call(*url, std::move(request)));
  ASSERT_TRUE(answer) << answer.error().to_string();
  EXPECT_NE(answer->body.find("io_loop_step_seconds_max"), std::string::npos);
  EXPECT_NE(answer->body.find("io_loop_long_steps"), std::string::npos);
}

TEST_F(NodeClient, a_root_has_one_node_and_keeps_its_keys_and_objects) {
  EXPECT_TRUE(node_is_running(config().root));
  const auto second = Node::start(config());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Code::busy);
  write("file", pattern(200'000, 'j'));
  ASSERT_TRUE(upload("file", "key", options()));

  http_.close_idle();
  const auto stopped = node_->stop();
  ASSERT_TRUE(stopped) << stopped.error().to_string();
  node_.reset();
  EXPECT_FALSE(node_is_running(config().root));
  auto node = Node::start(config());
  ASSERT_TRUE(node) << node.error().to_string();
  node_ = std::move(*node);
  EXPECT_EQ(node_->endpoints().secret_key, endpoints_.secret_key);
  s3_ = std::make_unique<client::S3Client>(
      http_, client::S3Endpoint{node_->endpoints().s3, {endpoints_.access_key, endpoints_.secret_key}, endpoints_.region}, system_clock());
  const auto got = download("key", "got", options());
  ASSERT_TRUE(got) << got.error().to_string();
  EXPECT_TRUE(read("got") == pattern(200'000, 'j'));
}

}  // namespace
}  // namespace quarry::daemon
