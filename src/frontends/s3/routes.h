// The dispatch table: method, what is addressed, and sub-resource, to one operation.
#pragma once
#include <span>
#include <string_view>

#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {

enum class Scope : uint8_t { service, bucket, object };

struct Operation {
  std::string_view method;
  Scope scope;
  std::string_view query;   // sub-resource that selects it: "uploads", "list-type"; empty: the plain operation
  std::string_view header;  // header that selects it ("x-amz-copy-source"); empty: none
  std::string_view name;    // as in metrics and logs: "put_object"
  Task<S3Result<void>> (*run)(Request& request);
  bool takes_upload = false;    // its body may be aws-chunked
  bool signed_in_body = false;  // who asks stands in the body: the operation checks signature and access itself
};

// All operations; of several that match, the first is meant.
std::span<const Operation> operations();
// Null: this method is not allowed here.
const Operation* find_operation(const RequestHead& head, Scope scope);

}  // namespace quarry::frontends::s3
