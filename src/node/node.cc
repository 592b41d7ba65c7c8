#include "node/node.h"

#include "base/log.h"
#include "object/make_object_engine.h"

namespace quarry::node {
namespace {

constexpr std::string_view kAdministrator = "admin";

class AssembledNode final : public Node {
 public:
  AssembledNode(Services services, frontends::s3::S3Options s3, std::string version)
      : services_(services), s3_options_(std::move(s3)), version_(std::move(version)) {}
  ~AssembledNode() override { CHECK(cluster_ == nullptr || closed_, "a node dies open: close it first"); }

  Task<Result<void>> assemble(cluster::ClusterOptions options, std::optional<cluster::CreateOptions> create) {
    options.blocking_pool = &services_.blocking;
    options.clock = &services_.clock;
    options.random = &services_.random;
    Result<std::unique_ptr<cluster::Cluster>> made = fail(Code::internal, "not made");
    if (create) {
      made = co_await cluster::Cluster::create(std::move(options), std::move(*create));
    } else {
      made = co_await cluster::Cluster::open(std::move(options));
    }
    if (!made) co_return std::move(made).error();
    cluster_ = std::move(*made);
    objects_ = object::make_object_engine({.meta = cluster_->meta(),
                                           .data = cluster_->data(),
                                           .clock = services_.clock,
                                           .random = services_.random,
                                           .compute = services_.compute,
                                           .default_redundancy = cluster_->default_redundancy()});
    co_return Result<void>();
  }

  Task<Result<void>> settle_names() override {
    CO_TRY_ASSIGN(const size_t settled, co_await objects_->settle_names());
    if (settled > 0) LOG_INFO("files of removed objects were hidden", {"objects", settled});
    co_return Result<void>();
  }

  Task<Result<AdministratorKey>> begin() override {
    identities_ = auth::make_identity_store(cluster_->meta(), cluster_->master_key(), services_.clock, services_.random);
    CO_TRY_ASSIGN(AdministratorKey key, co_await administrator());
    s3_ = std::make_unique<frontends::s3::S3Server>(*objects_, *identities_, services_.clock, s3_options_);
    admin_ = std::make_unique<frontends::admin::AdminServer>(frontends::admin::AdminServices{.data = cluster_->data(),
                                                                                             .metadata = cluster_->meta(),
                                                                                             .objects = *objects_,
                                                                                             .identities = *identities_,
                                                                                             .clock = services_.clock,
                                                                                             .region = s3_options_.region,
                                                                                             .version = version_,
                                                                                             .cluster_id = cluster_->id().to_string(),
                                                                                             .profile = cluster_->default_redundancy(),
                                                                                             .started = services_.clock.wall_now()});
    co_return key;
  }

  cluster::Cluster& cluster() override { return *cluster_; }
  object::ObjectEngine& objects() override { return *objects_; }
  auth::IdentityStore& identities() override { return *identities_; }
  HttpHandler& s3() override { return *s3_; }
  frontends::admin::AdminServer& admin() override { return *admin_; }

  void begin_close() override {
    if (admin_ != nullptr) admin_->set_ready(false);
    cluster_->begin_close();
  }

  Task<Result<void>> close() override {
    s3_.reset();
    admin_.reset();
    objects_.reset();
    identities_.reset();
    closed_ = true;
    co_return co_await cluster_->close();
  }
  bool hangs() const override { return cluster_->hangs(); }

 private:
  Task<Result<AdministratorKey>> administrator() {
    auto user = co_await identities_->get_user(std::string(kAdministrator));
    if (!user) {
      if (user.error().code() != Code::not_found) co_return std::move(user).error();
      CO_TRY(co_await identities_->create_user(std::string(kAdministrator), true));
    }
    CO_TRY_ASSIGN(const auto keys, co_await identities_->list_keys(std::string(kAdministrator)));
    for (const auto& key : keys) {
      auto credential = co_await identities_->credential(key.access_key);
      if (credential) co_return AdministratorKey{.access_key = key.access_key, .secret_key = (*credential)->secret};
    }
    CO_TRY_ASSIGN(const auto made, co_await identities_->create_key(std::string(kAdministrator), "", ""));
    co_return AdministratorKey{.access_key = made.access_key, .secret_key = made.secret_key, .is_new = true};
  }

  const Services services_;
  const frontends::s3::S3Options s3_options_;
  const std::string version_;
  bool closed_ = false;
  std::unique_ptr<cluster::Cluster> cluster_;
  std::unique_ptr<object::ObjectEngine> objects_;
  std::unique_ptr<auth::IdentityStore> identities_;
  std::unique_ptr<frontends::s3::S3Server> s3_;
  std::unique_ptr<frontends::admin::AdminServer> admin_;
};

}  // namespace

Task<Result<std::unique_ptr<Node>>> Node::open(Services services, NodeOptions options) {
  auto node = std::make_unique<AssembledNode>(services, std::move(options.s3), std::move(options.version));
  CO_TRY(co_await node->assemble(std::move(options.cluster), std::move(options.create)));
  std::unique_ptr<Node> open = std::move(node);
  co_return open;
}

}  // namespace quarry::node
