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
  bool takes_upload = false;        // its body may be aws-chunked
  bool signed_in_body = false;      // who asks stands in the body: the operation checks signature and access itself
  std::string_view parameter = {};  // another name in the query that it takes, which elsewhere selects an operation or must not stand
};

// All operations; of several that match, the first is meant.
std::span<const Operation> operations();
// Null: this method is not allowed here.
const Operation* find_operation(const Request& request, Scope scope);

// A name in the query that the operation does not know. It asks for something else (a sub-resource of another method, or one that is newer
// than this table), so that running the operation would do what nobody asked for: overwrite the object, delete the bucket. Null: none.
// Changing operations take no names but their own and those of signatures. Reading ones ignore what has a value.
const QueryParameter* find_stranger(const RequestHead& head, const Operation& operation);
// Whether some operation, of any method, is selected by this name.
bool selects_an_operation(std::string_view name);

}  // namespace quarry::frontends::s3
