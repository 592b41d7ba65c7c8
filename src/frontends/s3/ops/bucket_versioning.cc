#include "frontends/s3/ops/operations.h"
#include "frontends/s3/upload_body.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {

Task<S3Result<void>> get_bucket_versioning(Request& request) {
  auto info = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
  if (!info) co_return request.error(info.error());
  XmlWriter xml;
  xml.open_with_namespace("VersioningConfiguration", kNamespace);
  if (info->versioning != object::Versioning::off) {
    xml.element("Status", info->versioning == object::Versioning::enabled ? std::string_view("Enabled") : std::string_view("Suspended"));
  }
  xml.close();
  co_return co_await request.respond_xml(xml.take());
}

Task<S3Result<void>> put_bucket_versioning(Request& request) {
  auto document = co_await read_document(request, Digests::optional, EmptyBody::refused);
  if (!document) co_return std::move(document).error();
  const auto root = parse_xml(*document);
  if (!root || root->name != "VersioningConfiguration") co_return S3Error(E::malformed_xml);
  const std::string_view status = root->child_text("Status");
  if (status != "Enabled" && status != "Suspended") co_return S3Error(E::malformed_xml);
  const std::string_view mfa = root->child_text("MfaDelete");
  if (mfa == "Enabled") co_return S3Error(E::not_implemented, "MFA delete is not implemented.");
  const auto wanted = status == "Enabled" ? object::Versioning::enabled : object::Versioning::suspended;
  auto changed =
      co_await request.services.objects.update_bucket(request.ctx, request.bucket, [wanted](object::BucketInfo& info) -> Result<void> {
        info.versioning = wanted;
        return {};
      });
  if (!changed) co_return request.error(changed.error());
  co_return co_await request.respond_empty(200);
}

}  // namespace quarry::frontends::s3
