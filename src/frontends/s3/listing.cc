#include "frontends/s3/listing.h"

#include <charconv>

#include "frontends/s3/checksum_headers.h"
#include "frontends/s3/object_headers.h"
#include "wire/uri.h"

namespace quarry::frontends::s3 {

S3Result<size_t> parse_limit(const Request& request, std::string_view name) {
  const auto* parameter = request.head.find_query(name);
  if (parameter == nullptr || parameter->value.empty()) return kListingMax;
  const std::string& text = parameter->value;
  int64_t value = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool number = fault == std::errc() && end == text.data() + text.size();
  if (!number || value > INT32_MAX)
    return invalid_argument(fmt::format("Provided {} not an integer or within integer range", text), name, text);
  if (value < 0) return invalid_argument(fmt::format("Argument {} must be an integer between 0 and 2147483647", text), name, text);
  return std::min<size_t>(static_cast<size_t>(value), kListingMax);
}

std::string KeyEncoding::operator()(std::string_view key) const { return url ? s3_encode_key(key) : std::string(key); }

S3Result<KeyEncoding> parse_encoding(const Request& request) {
  const std::string_view text = request.query_or("encoding-type");
  if (text.empty()) return KeyEncoding{false};
  if (text == "url") return KeyEncoding{true};
  return invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", text);
}

Task<void> OwnerNames::learn(std::string id) {
  if (id == request_.user_id()) {
    names_.emplace(std::move(id), request_.credential->user.name);
    co_return;
  }
  auto user = co_await request_.services.identities.get_user(id);
  std::string name = user && user->id == id ? std::move(user->name) : id;
  names_.emplace(std::move(id), std::move(name));
}

std::string_view OwnerNames::of(const std::string& id) const {
  const auto found = names_.find(id);
  return found == names_.end() ? std::string_view(id) : std::string_view(found->second);
}

void append_owner(XmlWriter& xml, std::string_view element, const std::string& owner, const OwnerNames& names) {
  xml.open(element).element("ID", owner).element("DisplayName", names.of(owner)).close();
}

void append_object(XmlWriter& xml, const object::ObjectInfo& info, const KeyEncoding& encode) {
  xml.element("Key", encode(info.key));
  xml.element("LastModified", iso_time(info.modified));
  xml.element("ETag", quoted_etag(info.etag));
  if (info.checksum.algorithm != ChecksumAlgorithm::none) {
    xml.element("ChecksumAlgorithm", algorithm_name(info.checksum.algorithm));
    xml.element("ChecksumType", checksum_type_name(info.checksum.type));
  }
  xml.element("Size", info.size);
  xml.element("StorageClass",
              info.metadata.storage_class.empty() ? std::string_view("STANDARD") : std::string_view(info.metadata.storage_class));
}

void append_prefixes(XmlWriter& xml, const std::vector<std::string>& prefixes, const KeyEncoding& encode) {
  for (const auto& prefix : prefixes) xml.open("CommonPrefixes").element("Prefix", encode(prefix)).close();
}

}  // namespace quarry::frontends::s3
