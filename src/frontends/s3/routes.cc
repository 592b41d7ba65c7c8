#include "frontends/s3/routes.h"

#include "frontends/s3/ops/not_configured.h"
#include "frontends/s3/ops/operations.h"

namespace quarry::frontends::s3 {
namespace {

constexpr auto kService = Scope::service;
constexpr auto kBucket = Scope::bucket;
constexpr auto kObject = Scope::object;

// clang-format off
constexpr Operation kOperations[] = {
    {"GET",    kService, "max-directory-buckets", "", "list_directory_buckets", answer_not_implemented},
    {"GET",    kService, "", "", "list_buckets", list_buckets},

    {"GET",    kBucket, "location", "", "get_bucket_location", get_bucket_location},
    {"GET",    kBucket, "versioning", "", "get_bucket_versioning", get_bucket_versioning},
    {"GET",    kBucket, "tagging", "", "get_bucket_tagging", get_bucket_tagging},
    {"GET",    kBucket, "uploads", "", "list_multipart_uploads", list_multipart_uploads},
    {"GET",    kBucket, "versions", "", "list_object_versions", list_object_versions},
    {"GET",    kBucket, "acl", "", "get_bucket_acl", get_bucket_acl},
    {"GET",    kBucket, "policy", "", "get_bucket_policy", not_configured<E::no_such_bucket_policy>},
    {"GET",    kBucket, "policyStatus", "", "get_bucket_policy_status", get_bucket_policy_status},
    {"GET",    kBucket, "cors", "", "get_bucket_cors", not_configured<E::no_such_cors_configuration>},
    {"GET",    kBucket, "lifecycle", "", "get_bucket_lifecycle", not_configured<E::no_such_lifecycle_configuration>},
    {"GET",    kBucket, "encryption", "", "get_bucket_encryption", not_configured<E::server_side_encryption_not_found>},
    {"GET",    kBucket, "object-lock", "", "get_object_lock_configuration", not_configured<E::object_lock_configuration_not_found>},
    {"GET",    kBucket, "replication", "", "get_bucket_replication", not_configured<E::replication_configuration_not_found>},
    {"GET",    kBucket, "website", "", "get_bucket_website", not_configured<E::no_such_website_configuration>},
    {"GET",    kBucket, "publicAccessBlock", "", "get_public_access_block", not_configured<E::no_such_public_access_block_configuration>},
    {"GET",    kBucket, "ownershipControls", "", "get_bucket_ownership_controls", not_configured<E::ownership_controls_not_found>},
    {"GET",    kBucket, "logging", "", "get_bucket_logging", get_bucket_logging},
    {"GET",    kBucket, "notification", "", "get_bucket_notification", get_bucket_notification},
    {"GET",    kBucket, "accelerate", "", "get_bucket_accelerate", get_bucket_accelerate},
    {"GET",    kBucket, "requestPayment", "", "get_bucket_request_payment", get_bucket_request_payment},
    {"GET",    kBucket, "analytics", "", "get_bucket_analytics", answer_not_implemented},
    {"GET",    kBucket, "intelligent-tiering", "", "get_bucket_intelligent_tiering", answer_not_implemented},
    {"GET",    kBucket, "inventory", "", "get_bucket_inventory", answer_not_implemented},
    {"GET",    kBucket, "metrics", "", "get_bucket_metrics", answer_not_implemented},
    {"GET",    kBucket, "metadataTable", "", "get_bucket_metadata_table", answer_not_implemented},
    {"GET",    kBucket, "metadataConfiguration", "", "get_bucket_metadata_configuration", answer_not_implemented},
    {"GET",    kBucket, "abac", "", "get_bucket_abac", answer_not_implemented},
    {"GET",    kBucket, "session", "", "create_session", answer_not_implemented},
    {"GET",    kBucket, "list-type", "", "list_objects_v2", list_objects_v2},
    {"GET",    kBucket, "", "", "list_objects", list_objects},
    {"HEAD",   kBucket, "", "", "head_bucket", head_bucket},

    {"PUT",    kBucket, "versioning", "", "put_bucket_versioning", put_bucket_versioning},
    {"PUT",    kBucket, "tagging", "", "put_bucket_tagging", put_bucket_tagging},
    {"PUT",    kBucket, "acl", "", "put_bucket_acl", answer_not_implemented},
    {"PUT",    kBucket, "policy", "", "put_bucket_policy", answer_not_implemented},
    {"PUT",    kBucket, "cors", "", "put_bucket_cors", answer_not_implemented},
    {"PUT",    kBucket, "lifecycle", "", "put_bucket_lifecycle", answer_not_implemented},
    {"PUT",    kBucket, "encryption", "", "put_bucket_encryption", answer_not_implemented},
    {"PUT",    kBucket, "object-lock", "", "put_object_lock_configuration", answer_not_implemented},
    {"PUT",    kBucket, "replication", "", "put_bucket_replication", answer_not_implemented},
    {"PUT",    kBucket, "website", "", "put_bucket_website", answer_not_implemented},
    {"PUT",    kBucket, "publicAccessBlock", "", "put_public_access_block", answer_not_implemented},
    {"PUT",    kBucket, "ownershipControls", "", "put_bucket_ownership_controls", answer_not_implemented},
    {"PUT",    kBucket, "logging", "", "put_bucket_logging", answer_not_implemented},
    {"PUT",    kBucket, "notification", "", "put_bucket_notification", answer_not_implemented},
    {"PUT",    kBucket, "accelerate", "", "put_bucket_accelerate", answer_not_implemented},
    {"PUT",    kBucket, "requestPayment", "", "put_bucket_request_payment", answer_not_implemented},
    {"PUT",    kBucket, "analytics", "", "put_bucket_analytics", answer_not_implemented},
    {"PUT",    kBucket, "intelligent-tiering", "", "put_bucket_intelligent_tiering", answer_not_implemented},
    {"PUT",    kBucket, "inventory", "", "put_bucket_inventory", answer_not_implemented},
    {"PUT",    kBucket, "metrics", "", "put_bucket_metrics", answer_not_implemented},
    {"PUT",    kBucket, "abac", "", "put_bucket_abac", answer_not_implemented},
    {"PUT",    kBucket, "metadataAnnotationTable", "", "update_bucket_metadata_annotation_table", answer_not_implemented},
    {"PUT",    kBucket, "metadataInventoryTable", "", "update_bucket_metadata_inventory_table", answer_not_implemented},
    {"PUT",    kBucket, "metadataJournalTable", "", "update_bucket_metadata_journal_table", answer_not_implemented},
    {"PUT",    kBucket, "", "", "create_bucket", create_bucket},

    {"DELETE", kBucket, "tagging", "", "delete_bucket_tagging", delete_bucket_tagging},
    {"DELETE", kBucket, "policy", "", "delete_bucket_policy", answer_not_implemented},
    {"DELETE", kBucket, "cors", "", "delete_bucket_cors", answer_not_implemented},
    {"DELETE", kBucket, "lifecycle", "", "delete_bucket_lifecycle", answer_not_implemented},
    {"DELETE", kBucket, "encryption", "", "delete_bucket_encryption", answer_not_implemented},
    {"DELETE", kBucket, "replication", "", "delete_bucket_replication", answer_not_implemented},
    {"DELETE", kBucket, "website", "", "delete_bucket_website", answer_not_implemented},
    {"DELETE", kBucket, "publicAccessBlock", "", "delete_public_access_block", answer_not_implemented},
    {"DELETE", kBucket, "ownershipControls", "", "delete_bucket_ownership_controls", answer_not_implemented},
    {"DELETE", kBucket, "analytics", "", "delete_bucket_analytics", answer_not_implemented},
    {"DELETE", kBucket, "intelligent-tiering", "", "delete_bucket_intelligent_tiering", answer_not_implemented},
    {"DELETE", kBucket, "inventory", "", "delete_bucket_inventory", answer_not_implemented},
    {"DELETE", kBucket, "metrics", "", "delete_bucket_metrics", answer_not_implemented},
    {"DELETE", kBucket, "metadataTable", "", "delete_bucket_metadata_table", answer_not_implemented},
    {"DELETE", kBucket, "metadataConfiguration", "", "delete_bucket_metadata_configuration", answer_not_implemented},
    {"DELETE", kBucket, "", "", "delete_bucket", delete_bucket},

    {"POST",   kBucket, "delete", "", "delete_objects", delete_objects},
    {"POST",   kBucket, "metadataTable", "", "create_bucket_metadata_table", answer_not_implemented},
    {"POST",   kBucket, "metadataConfiguration", "", "create_bucket_metadata_configuration", answer_not_implemented},
    {"POST",   kBucket, "", "", "post_object", post_object, false, true},

    {"GET",    kObject, "tagging", "", "get_object_tagging", get_object_tagging},
    {"GET",    kObject, "attributes", "", "get_object_attributes", get_object_attributes},
    {"GET",    kObject, "acl", "", "get_object_acl", get_object_acl},
    {"GET",    kObject, "retention", "", "get_object_retention", get_object_lock_state},
    {"GET",    kObject, "legal-hold", "", "get_object_legal_hold", get_object_lock_state},
    {"GET",    kObject, "torrent", "", "get_object_torrent", answer_not_implemented},
    {"GET",    kObject, "annotation", "", "get_object_annotation", answer_not_implemented},
    {"GET",    kObject, "uploadId", "", "list_parts", list_parts},
    {"GET",    kObject, "", "", "get_object", get_object, false, false, "partNumber"},
    {"HEAD",   kObject, "", "", "head_object", head_object, false, false, "partNumber"},

    {"PUT",    kObject, "tagging", "", "put_object_tagging", put_object_tagging, false, false, "versionId"},
    {"PUT",    kObject, "acl", "", "put_object_acl", answer_not_implemented},
    {"PUT",    kObject, "retention", "", "put_object_retention", answer_not_implemented},
    {"PUT",    kObject, "legal-hold", "", "put_object_legal_hold", answer_not_implemented},
    {"PUT",    kObject, "encryption", "", "update_object_encryption", answer_not_implemented},
    {"PUT",    kObject, "annotation", "", "put_object_annotation", answer_not_implemented},
    {"PUT",    kObject, "renameObject", "", "rename_object", answer_not_implemented},
    {"PUT",    kObject, "partNumber", "x-amz-copy-source", "upload_part_copy", upload_part_copy, false, false, "uploadId"},
    {"PUT",    kObject, "partNumber", "", "upload_part", upload_part, true, false, "uploadId"},
    {"PUT",    kObject, "", "x-amz-copy-source", "copy_object", copy_object},
    {"PUT",    kObject, "", "", "put_object", put_object, true},

    {"DELETE", kObject, "tagging", "", "delete_object_tagging", delete_object_tagging, false, false, "versionId"},
    {"DELETE", kObject, "annotation", "", "delete_object_annotation", answer_not_implemented},
    {"DELETE", kObject, "uploadId", "", "abort_multipart_upload", abort_multipart_upload},
    {"DELETE", kObject, "", "", "delete_object", delete_object, false, false, "versionId"},

    {"POST",   kObject, "uploads", "", "create_multipart_upload", create_multipart_upload},
    {"POST",   kObject, "uploadId", "", "complete_multipart_upload", complete_multipart_upload},
    {"POST",   kObject, "restore", "", "restore_object", answer_not_implemented},
    {"POST",   kObject, "select", "", "select_object_content", answer_not_implemented},
};
// clang-format on

// Signatures in the query, and what stands there for headers.
bool is_amz_name(std::string_view name) { return name.size() > 6 && equal_ignoring_case(name.substr(0, 6), "x-amz-"); }

// What reading operations take beside their sub-resource. These may be empty.
bool is_reading_parameter(std::string_view name) {
  constexpr std::string_view kNames[] = {
      "bucket-region", "continuation-token", "delimiter",        "encoding-type",     "fetch-owner", "key-marker",
      "marker",        "max-buckets",        "max-keys",         "max-parts",         "max-uploads", "part-number-marker",
      "prefix",        "start-after",        "upload-id-marker", "version-id-marker", "versionId"};
  return name.starts_with("response-") || std::ranges::find(kNames, name) != std::end(kNames);
}

}  // namespace

std::span<const Operation> operations() { return kOperations; }

const Operation* find_operation(const Request& request, Scope scope) {
  for (const auto& operation : kOperations) {
    if (operation.scope != scope || operation.method != request.head.method) continue;
    if (!operation.query.empty() && !request.has_query(operation.query)) continue;
    if (!operation.header.empty() && !request.header(operation.header)) continue;
    return &operation;
  }
  return nullptr;
}

bool selects_an_operation(std::string_view name) {
  return std::ranges::any_of(kOperations, [&](const Operation& operation) { return operation.query == name; });
}

const QueryParameter* find_stranger(const RequestHead& head, const Operation& operation) {
  if (operation.run == answer_not_implemented) return nullptr;  // it does nothing anyway
  const bool reads = head.method == "GET" || head.method == "HEAD";
  for (const auto& parameter : head.query) {
    const std::string_view name = parameter.name;
    if (name == operation.query || name == operation.parameter || name == "x-id" || is_amz_name(name)) continue;
    if (reads && !selects_an_operation(name)) {
      // Readers add names that mean nothing to S3 ("v=3", against caches), and AWS ignores them; a sub-resource is a name without a value.
      if (!parameter.value.empty() || is_reading_parameter(name)) continue;
    }
    return &parameter;
  }
  return nullptr;
}

}  // namespace quarry::frontends::s3
