#include "frontends/s3/documents.h"

#include <charconv>

#include "frontends/s3/object_headers.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

S3Result<ListedPart> parse_part(const XmlNode& node) {
  if (node.name != "Part" || node.count("PartNumber") != 1 || node.count("ETag") != 1) return S3Error(E::malformed_xml);
  ListedPart listed;
  const std::string_view number = node.child_text("PartNumber");
  int64_t value = 0;
  const auto [end, fault] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (fault != std::errc() || end != number.data() + number.size()) return S3Error(E::malformed_xml);
  if (value < 1) return invalid_argument("PartNumber must be >= 1", "PartNumber", number);
  if (value > object::kPartNumberMax)
    return invalid_argument("Part number must be an integer between 1 and 10000, inclusive.", "partNumber", number);
  listed.part.number = static_cast<uint32_t>(value);
  listed.part.etag = unquoted(node.child_text("ETag"));

  constexpr std::string_view kPrefix = "Checksum";
  std::string all;
  size_t count = 0;
  for (const auto& child : node.children) {
    if (!child.name.starts_with(kPrefix)) continue;
    const std::string_view name = std::string_view(child.name).substr(kPrefix.size());
    const auto algorithm = algorithm_of(name);
    if (!algorithm) return S3Error(E::malformed_xml);
    all += fmt::format("{}:{};", name, child.text);
    ++count;
    listed.algorithm = *algorithm;
    auto raw = decode_checksum(*algorithm, child.text);
    if (!raw && count == 1) return invalid_argument("Invalid Base64 or multiple checksums present in request", "Checksum", child.text);
    if (raw) listed.part.checksum = std::move(*raw);
  }
  if (count > 1) return invalid_argument("Invalid Base64 or multiple checksums present in request", "Checksum", all);
  return listed;
}

}  // namespace

S3Result<std::vector<ListedPart>> parse_completed_parts(std::string_view document) {
  const auto root = parse_xml(document);
  if (!root || root->name != "CompleteMultipartUpload" || root->children.empty()) return S3Error(E::malformed_xml);
  if (root->children.size() > object::kPartNumberMax) return S3Error(E::malformed_xml);
  std::vector<ListedPart> parts;
  parts.reserve(root->children.size());
  for (const auto& node : root->children) {
    TRY_ASSIGN(auto part, parse_part(node));
    parts.push_back(std::move(part));
  }
  return parts;
}

S3Result<DeleteList> parse_delete_list(std::string_view document) {
  const auto root = parse_xml(document);
  if (!root || root->name != "Delete") return S3Error(E::malformed_xml);
  DeleteList list;
  list.quiet = root->child_text("Quiet") == "true";
  for (const auto& node : root->children) {
    if (node.name == "Quiet") continue;
    if (node.name != "Object") return S3Error(E::malformed_xml);
    if (node.count("Key") != 1 || list.targets.size() == kDeleteTargetsMax) return S3Error(E::malformed_xml);
    object::DeleteTarget target;
    target.key = node.child_text("Key");
    if (target.key.empty()) return S3Error(E::malformed_xml);
    target.version_id = node.child_text("VersionId");
    const std::string_view etag = node.child_text("ETag");
    if (!etag.empty()) target.conditions.if_match = {std::string(unquoted(etag))};
    const std::string_view time = node.child_text("LastModifiedTime");
    if (!time.empty()) {
      target.conditions.if_match_last_modified = parse_time(time);
      if (!target.conditions.if_match_last_modified) return S3Error(E::malformed_xml);
    }
    const std::string_view size = node.child_text("Size");
    if (!size.empty()) {
      uint64_t value = 0;
      for (const char c : size) {
        if (c < '0' || c > '9' || value > UINT64_MAX / 16) return S3Error(E::malformed_xml);
        value = value * 10 + static_cast<uint64_t>(c - '0');
      }
      target.conditions.if_match_size = value;
    }
    list.targets.push_back(std::move(target));
  }
  if (list.targets.empty()) return S3Error(E::malformed_xml);
  return list;
}

S3Result<BucketWish> parse_bucket_configuration(std::string_view document, std::string_view region) {
  BucketWish wish;
  if (document.empty()) return wish;
  const auto root = parse_xml(document);
  if (!root || root->name != "CreateBucketConfiguration") return S3Error(E::malformed_xml);
  const std::string location(root->child_text("LocationConstraint"));
  // AWS's rule: us-east-1 is never named; any other region is.
  const bool known = location.empty() || (location == region && region != "us-east-1") || (region == "eu-west-1" && location == "EU");
  if (!known) return S3Error(E::invalid_location_constraint).detail("LocationConstraint", location);
  if (const XmlNode* tags = root->child("Tags")) {
    if (tags->children.size() > kBucketTagsMax)
      return S3Error(E::bad_request, fmt::format("Bucket tag count cannot be greater than {}", kBucketTagsMax));
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

}  // namespace quarry::frontends::s3
