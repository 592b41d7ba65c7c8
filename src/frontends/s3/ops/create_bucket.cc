#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/session.h"
#include "frontends/s3/upload_body.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

struct BucketWish {
  object::Tags tags;
};

S3Result<BucketWish> parse_configuration(std::string_view document, std::string_view region) {
  BucketWish wish;
  if (document.empty()) return wish;
  const auto root = parse_xml(document);
  if (!root || root->name != "CreateBucketConfiguration") return S3Error(E::malformed_xml);
  const std::string location(root->child_text("LocationConstraint"));
  // AWS's rule: us-east-1 is never named; any other region is.
  const bool known = location.empty() || (location == region && region != "us-east-1") || (region == "eu-west-1" && location == "EU");
  if (!known) return S3Error(E::invalid_location_constraint).detail("LocationConstraint", location);
  if (const XmlNode* tags = root->child("Tags")) {
    if (tags->children.size() > kBucketTagsMax) return S3Error(E::bad_request, fmt::format("Bucket tag count cannot be greater than {}", kBucketTagsMax));
    for (const auto& node : tags->children) {
      if (node.name != "Tag") return S3Error(E::malformed_xml);
      std::string name(node.child_text("Key")), value(node.child_text("Value"));
      TRY(check_tag(name, value));
      if (std::ranges::any_of(wish.tags, [&](const auto& tag) { return tag.first == name; })) {
        return S3Error(E::invalid_tag, "Cannot provide multiple Tags with the same key").detail("TagKey", std::move(name));
      }
      wish.tags.emplace_back(std::move(name), std::move(value));
    }
  }
  return wish;
}

}  // namespace

Task<S3Result<void>> create_bucket(Request& request) {
  if (request.credential == nullptr) co_return S3Error(E::access_denied);
  if (!is_valid_bucket_name(request.bucket)) co_return S3Error(E::invalid_bucket_name).detail("BucketName", request.bucket);
  auto document = co_await read_document(request, Digests::optional, EmptyBody::allowed);
  if (!document) co_return std::move(document).error();
  CO_TRY_ASSIGN(BucketWish wish, parse_configuration(*document, request.services.options.region));

  object::BucketInfo wanted;
  wanted.name = request.bucket;
  wanted.owner = request.user_id();
  wanted.tags = std::move(wish.tags);
  if (equal_ignoring_case(request.header_or("x-amz-bucket-object-lock-enabled"), "true")) {
    // What it means without any retention: versions are kept, for good. Retention itself is refused where it is asked for.
    wanted.versioning = object::Versioning::enabled;
    wanted.attributes[std::string(kObjectLockAttribute)] = "Enabled";
  }
  auto made = co_await request.services.objects.create_bucket(request.ctx, std::move(wanted));
  if (!made) co_return request.error(made.error());
  ResponseHead response = request.answer();
  response.headers.add("Location", "/" + request.bucket);
  response.headers.add("x-amz-bucket-arn", "arn:aws:s3:::" + request.bucket);
  co_return co_await request.respond(std::move(response));
}

}  // namespace quarry::frontends::s3
