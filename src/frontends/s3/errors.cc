#include "frontends/s3/errors.h"

#include "base/coding.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

struct Entry {
  std::string_view code;
  int status;
  std::string_view message;
};
constexpr Entry kEntries[] = {
#define X(name, code, status, message) {code, status, message},
    QUARRY_S3_ERRORS(X)
#undef X
};

E id_of(std::string_view code) {
  for (size_t i = 0; i < std::size(kEntries); ++i) {
    if (kEntries[i].code == code) return static_cast<E>(i);
  }
  return E::access_denied;  // an unlisted refusal is still a refusal
}

// "MD5: <base64> was sent, <base64> received" of the object engine.
S3Error digest_error(const Error& error) {
  const std::string& text = error.context();
  const size_t colon = text.find(": ");
  const size_t was_sent = text.find(" was sent, ");
  const size_t received = text.rfind(" received");
  if (colon == std::string::npos || was_sent == std::string::npos || received == std::string::npos || received < was_sent)
    return S3Error(E::bad_digest);
  const std::string_view what = std::string_view(text).substr(0, colon);
  std::string sent = text.substr(colon + 2, was_sent - colon - 2);
  std::string calculated = text.substr(was_sent + 11, received - was_sent - 11);
  const auto hex = [](const std::string& base64) {
    const auto raw = from_base64(base64);
    return raw ? to_hex(bytes_of(*raw)) : base64;
  };
  if (what == "SHA-256") {
    return S3Error(E::x_amz_content_sha256_mismatch)
        .detail("ClientComputedContentSHA256", hex(sent))
        .detail("S3ComputedContentSHA256", hex(calculated));
  }
  if (what == "MD5") return S3Error(E::bad_digest).detail("ExpectedDigest", hex(sent)).detail("CalculatedDigest", std::move(calculated));
  return S3Error(E::bad_digest, "The checksum you specified did not match the calculated checksum.");
}

S3Error missing(const Error& error, const ErrorSubject& subject) {
  const std::string_view text = error.context();
  if (text.starts_with("bucket")) return S3Error(E::no_such_bucket).detail("BucketName", std::string(subject.bucket));
  if (text.starts_with("key") || text.starts_with("delete marker")) return S3Error(E::no_such_key).detail("Key", std::string(subject.key));
  if (!subject.upload_id.empty()) return S3Error(E::no_such_upload).detail("UploadId", std::string(subject.upload_id));
  if (!subject.version_id.empty()) {
    return S3Error(E::no_such_version).detail("Key", std::string(subject.key)).detail("VersionId", std::string(subject.version_id));
  }
  if (!subject.key.empty()) return S3Error(E::no_such_key).detail("Key", std::string(subject.key));
  return S3Error(E::no_such_bucket).detail("BucketName", std::string(subject.bucket));
}

// A version id that is none of ours. Like S3, what has the shape of an id names a version that does not exist; all else is no id.
S3Error unknown_version(const ErrorSubject& subject) {
  constexpr size_t kShortest = 16, kLongest = 128;
  const std::string_view id = subject.version_id;
  const bool plausible = id.size() >= kShortest && id.size() <= kLongest && std::ranges::all_of(id, [](char c) {
                           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
                         });
  if (!plausible) return invalid_argument("Invalid version id specified", "versionId", id);
  return S3Error(E::no_such_version).detail("Key", std::string(subject.key)).detail("VersionId", std::string(id));
}

}  // namespace

S3Error::S3Error(E id) : id_(id), message_(kEntries[static_cast<size_t>(id)].message) {}
S3Error::S3Error(E id, std::string message) : id_(id), message_(std::move(message)) {}
S3Error::S3Error(auth::Refusal refusal)
    : id_(id_of(refusal.code)), message_(std::move(refusal.message)), details_(std::move(refusal.details)) {}

S3Error&& S3Error::detail(std::string name, std::string value) && {
  details_.emplace_back(std::move(name), std::move(value));
  return std::move(*this);
}
std::string_view S3Error::code() const { return kEntries[static_cast<size_t>(id_)].code; }
int S3Error::status() const { return kEntries[static_cast<size_t>(id_)].status; }

namespace {
S3Error translate(const Error& error, const ErrorSubject& subject) {
  switch (error.code()) {
    case Code::invalid_argument:
      if (error.context().starts_with("version id")) return unknown_version(subject);
      return S3Error(E::invalid_argument, error.context());
    case Code::out_of_range: return S3Error(E::invalid_argument, error.context());
    case Code::not_found: return missing(error, subject);
    case Code::already_exists:
      return S3Error(error.context().find("owned by you") != std::string::npos ? E::bucket_already_owned_by_you : E::bucket_already_exists)
          .detail("BucketName", std::string(subject.bucket));
    case Code::precondition_failed: return S3Error(E::precondition_failed);
    case Code::permission_denied:
    case Code::unauthenticated: return S3Error(E::access_denied);
    case Code::not_empty: return S3Error(E::bucket_not_empty).detail("BucketName", std::string(subject.bucket));
    case Code::unsupported:
    case Code::incompatible:
    case Code::wrong_owner: return S3Error(E::not_implemented);
    case Code::too_large: return S3Error(E::entity_too_large);
    case Code::quota_exceeded: return S3Error(E::quota_exceeded);
    case Code::malformed: return S3Error(E::invalid_request);
    case Code::checksum_mismatch: return digest_error(error);
    case Code::conflict: return S3Error(E::operation_aborted);
    case Code::busy:
    case Code::overloaded: return S3Error(E::slow_down);
    case Code::timed_out: return S3Error(E::request_timeout);
    case Code::cancelled:
    case Code::unavailable:
    case Code::read_only: return S3Error(E::service_unavailable);
    case Code::connection_closed: return S3Error(E::incomplete_body);
    case Code::no_space: return S3Error(E::insufficient_storage);
    case Code::io_error:
    case Code::device_gone:
    case Code::misconfigured:
    case Code::corrupt:
    case Code::data_lost:
    case Code::unknown_outcome:
    case Code::internal: return S3Error(E::internal_error);
  }
  return S3Error(E::internal_error);
}
}  // namespace

S3Error to_s3_error(const Error& error, const ErrorSubject& subject) {
  S3Error translated = translate(error, subject);
  translated.cause = error.to_string();
  return translated;
}

S3Error invalid_argument(std::string message, std::string_view name, std::string_view value) {
  return S3Error(E::invalid_argument, std::move(message))
      .detail("ArgumentName", std::string(name))
      .detail("ArgumentValue", std::string(value));
}

S3Error header_not_implemented(std::string_view header, std::string_view what) {
  return S3Error(E::not_implemented, fmt::format("The header {} asks for {}, which is not implemented.", header, what))
      .detail("Header", std::string(header));
}

std::string error_document(const S3Error& error, std::string_view resource, std::string_view request_id, std::string_view host_id) {
  XmlWriter xml;
  xml.open("Error").element("Code", error.code()).element("Message", error.message());
  for (const auto& [name, value] : error.details()) xml.element(name, value);
  if (!resource.empty()) xml.element("Resource", resource);
  xml.element("RequestId", request_id).element("HostId", host_id).close();
  return xml.take();
}

}  // namespace quarry::frontends::s3
