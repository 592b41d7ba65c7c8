// What the listings share: their limits and markers, encoding-type, and the elements of an object.
#pragma once
#include <map>
#include <string>
#include <string_view>

#include "frontends/s3/request.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {

inline constexpr size_t kListingMax = 1000;

// A limit such as max-keys: kListingMax when absent; what is larger is cut to it. Errors: InvalidArgument.
S3Result<size_t> parse_limit(const Request& request, std::string_view name);

// Keys in the answer: as they are, or percent-encoded with encoding-type=url. Errors: InvalidArgument.
struct KeyEncoding {
  bool url = false;
  std::string operator()(std::string_view key) const;
};
S3Result<KeyEncoding> parse_encoding(const Request& request);

// <Contents> or <Version> without its tag: key, dates, ETag, size, class, checksum.
void append_object(XmlWriter& xml, const object::ObjectInfo& info, const KeyEncoding& encode);
// The names of users by their ids: what DisplayName says, everywhere. Of a user who is gone it is the id.
class OwnerNames {
 public:
  explicit OwnerNames(Request& request) : request_(request) {}
  bool knows(const std::string& id) const { return names_.contains(id); }
  Task<void> learn(std::string id);
  std::string_view of(const std::string& id) const;

 private:
  Request& request_;
  std::map<std::string, std::string> names_;
};
void append_owner(XmlWriter& xml, std::string_view element, const std::string& owner, const OwnerNames& names);
void append_prefixes(XmlWriter& xml, const std::vector<std::string>& prefixes, const KeyEncoding& encode);

}  // namespace quarry::frontends::s3
