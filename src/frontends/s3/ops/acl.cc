// Access control lists are not kept: the owner has full control, and that is what is answered.
#include "frontends/s3/listing.h"
#include "frontends/s3/ops/operations.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

std::string owner_document(const std::string& owner, const OwnerNames& names) {
  XmlWriter xml;
  xml.open_with_namespace("AccessControlPolicy", kNamespace);
  append_owner(xml, "Owner", owner, names);
  xml.open("AccessControlList").open("Grant");
  xml.open("Grantee").attribute("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance").attribute("xsi:type", "CanonicalUser");
  xml.element("ID", owner).element("DisplayName", names.of(owner)).close();
  xml.element("Permission", "FULL_CONTROL").close().close().close();
  return xml.take();
}

}  // namespace

Task<S3Result<void>> get_bucket_acl(Request& request) {
  auto info = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
  if (!info) co_return request.error(info.error());
  OwnerNames names(request);
  co_await names.learn(info->owner);
  co_return co_await request.respond_xml(owner_document(info->owner, names));
}

Task<S3Result<void>> get_object_acl(Request& request) {
  auto info = co_await request.services.objects.head(request.ctx, request.bucket, request.key, request.version_id());
  if (!info) co_return request.error(info.error());
  OwnerNames names(request);
  co_await names.learn(info->owner);
  co_return co_await request.respond_xml(owner_document(info->owner, names));
}

}  // namespace quarry::frontends::s3
