// PostObject: a browser uploads a file with a form. The form's fields stand in for headers, its policy for the signature of the request.
// The file's length is known only when its end is seen; nothing is published before.
#include "base/utf8.h"
#include "frontends/s3/form_data.h"
#include "frontends/s3/header_text.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/post_policy.h"
#include "frontends/s3/session.h"
#include "frontends/s3/upload_body.h"
#include "io/sync.h"
#include "wire/uri.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

constexpr size_t kFieldsBytesMax = 20 * 1024;  // S3's limit on what precedes the file
constexpr size_t kFieldsMax = 200;

S3Error missing_field(std::string_view name) {
  return invalid_argument(
      fmt::format("Bucket POST must contain a field named '{}'.  If it is specified, please check the order of the fields.", name), name,
      "");
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

// The body of the request as a form: steps of the decoder over a window that is filled as needed.
class FormReader {
 public:
  FormReader(BodyReader& body, std::string_view boundary, size_t window_bytes)
      : body_(body), decoder_(boundary), window_(std::max(window_bytes, 2 * decoder_.window_min())) {}

  // Text of the step lives until the next call.
  Task<S3Result<FormDecoder::Step>> next() {
    for (;;) {
      auto step = decoder_.step(text_of(window_.view().subspan(begin_, end_ - begin_)));
      if (!step) co_return std::move(step).error();
      begin_ += step->consumed;
      if (step->kind != FormDecoder::Kind::need_more) co_return *step;
      std::memmove(window_.mutable_view().data(), window_.view().data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
      auto got = co_await body_.read_into(window_.mutable_view().subspan(end_));
      if (!got) {
        co_return got.error().code() == Code::timed_out ? S3Error(E::request_timeout) : S3Error(E::incomplete_body);
      }
      if (*got == 0) co_return S3Error(E::malformed_post_request);
      end_ += *got;
    }
  }

 private:
  BodyReader& body_;
  FormDecoder decoder_;
  Buffer window_;
  size_t begin_ = 0, end_ = 0;
};

struct Form {
  FormFields fields;  // ${filename} is replaced
  const std::string* find(std::string_view name) const { return find_field(fields, name); }
  std::string_view get(std::string_view name) const {
    const std::string* value = find(name);
    return value == nullptr ? std::string_view() : std::string_view(*value);
  }
};

// The name behind the last separator: browsers of old sent whole paths.
std::string_view base_name(std::string_view filename) {
  const size_t separator = filename.find_last_of("/\\");
  return separator == std::string_view::npos ? filename : filename.substr(separator + 1);
}

void replace_filename(FormFields& fields, std::string_view filename) {
  constexpr std::string_view kVariable = "${filename}";
  for (auto& field : fields) {
    if (field.name == "policy" || field.name == "x-amz-signature") continue;
    for (size_t at = 0; (at = field.value.find(kVariable, at)) != std::string::npos; at += filename.size()) {
      field.value.replace(at, kVariable.size(), filename);
    }
  }
}

// Everything before the file's bytes.
Task<S3Result<Form>> read_fields(FormReader& reader) {
  Form form;
  size_t bytes = 0;
  bool in_field = false;
  for (;;) {
    auto step = co_await reader.next();
    if (!step) co_return std::move(step).error();
    switch (step->kind) {
      case FormDecoder::Kind::end: co_return S3Error(E::incorrect_number_of_files);
      case FormDecoder::Kind::part_end: in_field = false; break;
      case FormDecoder::Kind::head: {
        CO_TRY_ASSIGN(FormPartHead head, parse_form_part_head(step->text));
        std::string name = lower(head.name);
        if (name == "file") {
          replace_filename(form.fields, base_name(head.filename));
          co_return std::move(form);
        }
        bytes += name.size();
        if (form.fields.size() == kFieldsMax) co_return S3Error(E::max_post_pre_data_length_exceeded);
        if (form.find(name) != nullptr) {
          co_return invalid_argument("POST requires exactly one value for each field.", name, "");
        }
        form.fields.push_back({std::move(name), {}});
        in_field = true;
        break;
      }
      case FormDecoder::Kind::data:
        bytes += step->text.size();
        if (bytes > kFieldsBytesMax) co_return S3Error(E::max_post_pre_data_length_exceeded);
        CHECK(in_field, "bytes belong to a part");
        form.fields.back().value.append(step->text);
        break;
      case FormDecoder::Kind::need_more: break;
    }
  }
}

// Who signed the policy. None of the fields of a signature: an anonymous form, which no bucket allows yet.
Task<S3Result<PostPolicy>> check_signature(Request& request, const Form& form) {
  constexpr std::string_view kNames[] = {"policy", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"};
  if (form.find("awsaccesskeyid") != nullptr || form.find("signature") != nullptr) {
    co_return S3Error(auth::signature_v2_refusal());
  }
  const bool any = std::ranges::any_of(kNames, [&](std::string_view name) { return form.find(name) != nullptr; });
  if (!any) {
    auto refused = co_await check_access(request, request.bucket);
    co_return refused ? S3Error(E::access_denied) : std::move(refused).error();
  }
  for (const std::string_view name : kNames) {
    if (form.find(name) == nullptr) co_return missing_field(name);
  }
  if (form.find("x-amz-security-token") != nullptr) co_return S3Error(E::invalid_token);

  const auth::FormSignatureFields fields{.algorithm = form.get("x-amz-algorithm"),
                                         .credential = form.get("x-amz-credential"),
                                         .date = form.get("x-amz-date"),
                                         .policy = form.get("policy"),
                                         .signature = form.get("x-amz-signature")};
  const auth::VerifyOptions options{.region = request.services.options.region, .now = request.services.clock.wall_now()};
  auto signature = auth::parse_form_signature(fields, options);
  if (!signature) co_return S3Error(std::move(signature).error());
  request.signature = std::move(*signature);
  auto found = co_await find_credential(request);
  if (!found) co_return std::move(found).error();
  const Sha256Bytes key = auth::derive_signing_key(request.credential->secret, request.signature.date, request.signature.region, "s3");
  auto verified = auth::verify_form_signature(fields.policy, request.signature, key);
  if (!verified) {
    forget_credential(request);
    co_return S3Error(std::move(verified).error());
  }
  co_return parse_post_policy(fields.policy);
}

// A request whose headers are the form's fields, for the parsers of headers.
struct HeaderView {
  RequestHead head;
  explicit HeaderView(const Form& form) {
    for (const auto& field : form.fields) head.headers.push_back({field.name, field.value});
  }
};

struct PostPlan {
  object::PutOptions options;
  object::Expected expected;
  ChecksumAlgorithm sent = ChecksumAlgorithm::none;
};

// The fields of a form are UTF-8; what headers carry is ISO-8859-1.
S3Result<void> fit_into_headers(object::ObjectMetadata& metadata) {
  const std::pair<std::string_view, std::string*> fields[] = {{"Content-Type", &metadata.content_type},
                                                              {"Content-Encoding", &metadata.content_encoding},
                                                              {"Content-Disposition", &metadata.content_disposition},
                                                              {"Content-Language", &metadata.content_language},
                                                              {"Cache-Control", &metadata.cache_control},
                                                              {"Expires", &metadata.expires},
                                                              {"x-amz-website-redirect-location", &metadata.website_redirect}};
  for (const auto& [name, value] : fields) {
    TRY_ASSIGN(*value, header_value_of(name, *value));
  }
  return {};
}

S3Result<PostPlan> plan_post(const Request& request, const Form& form) {
  const HeaderView view(form);
  Request headers{.exchange = request.exchange, .services = request.services, .head = view.head};
  PostPlan plan;
  TRY_ASSIGN(plan.options.metadata, parse_object_metadata(headers));
  TRY(fit_into_headers(plan.options.metadata));
  TRY_ASSIGN(const SentChecksum checksum, parse_sent_checksum(headers));
  TRY_ASSIGN(plan.expected.md5, parse_content_md5(headers));
  if (const std::string* tagging = form.find("tagging")) {
    TRY_ASSIGN(plan.options.tags, parse_tagging_document(*tagging, kObjectTagsMax));
  }
  if (checksum.in_trailer) return S3Error(E::invalid_request, "A form has no trailer.");
  plan.sent = checksum.algorithm;
  plan.expected.checksum = checksum.value;
  plan.options.checksum = plan.sent != ChecksumAlgorithm::none
                              ? plan.sent
                              : algorithm_of(form.get("x-amz-checksum-algorithm")).value_or(ChecksumAlgorithm::crc64nvme);
  plan.options.owner = request.user_id();
  return plan;
}

// Collects the file in pieces, and writes them one behind the other.
class FileReceiver {
 public:
  FileReceiver(Request& request, FormReader& reader, PostPlan& plan, PostPolicy::Range allowed)
      : request_(request), reader_(reader), plan_(plan), allowed_(allowed), piece_(request.services.options.transfer_buffer_bytes) {}

  Task<S3Result<object::ObjectInfo>> run() {
    bool ended = false;
    while (!ended) {
      auto step = co_await reader_.next();
      if (!step) co_return std::move(step).error();
      ended = step->kind == FormDecoder::Kind::part_end;
      std::string_view text = step->text;
      size_ += text.size();
      if (size_ > allowed_.last) {
        co_return S3Error(E::entity_too_large)
            .detail("ProposedSize", std::to_string(size_))
            .detail("MaxSizeAllowed", std::to_string(allowed_.last));
      }
      while (!text.empty()) {
        const size_t take = std::min(text.size(), piece_.size() - filled_);
        std::memcpy(piece_.mutable_view().data() + filled_, text.data(), take);
        filled_ += take;
        text.remove_prefix(take);
        if (filled_ < piece_.size()) continue;
        auto written = co_await write_piece();
        if (!written) co_return std::move(written).error();
      }
    }
    // What follows must be the next part or the end: a file that merely contains the boundary is not cut short there.
    auto following = co_await reader_.next();
    if (!following) co_return std::move(following).error();
    if (size_ < allowed_.first) {
      co_return S3Error(E::entity_too_small)
          .detail("ProposedSize", std::to_string(size_))
          .detail("MinSizeAllowed", std::to_string(allowed_.first));
    }
    if (writer_ == nullptr) plan_.options.size = size_;  // all of it is here
    auto written = co_await write_piece();
    if (!written) co_return std::move(written).error();
    auto info = co_await writer_->finish(std::move(plan_.expected));
    if (!info) co_return write_error(request_, info.error(), plan_.sent);
    co_return std::move(*info);
  }

 private:
  Task<S3Result<void>> write_piece() {
    if (writer_ == nullptr) {
      auto writer = co_await request_.services.objects.put(request_.ctx, request_.bucket, request_.key, std::move(plan_.options));
      if (!writer) co_return request_.error(writer.error());
      writer_ = std::move(*writer);
    }
    if (filled_ == 0) co_return S3Result<void>();
    auto written = co_await writer_->write(Buffer::copy_of(piece_.view().first(filled_)));
    if (!written) co_return request_.error(written.error());
    filled_ = 0;
    co_return S3Result<void>();
  }

  Request& request_;
  FormReader& reader_;
  PostPlan& plan_;
  PostPolicy::Range allowed_;
  std::unique_ptr<object::ObjectWriter> writer_;
  Buffer piece_;
  size_t filled_ = 0;
  uint64_t size_ = 0;
};

std::string location_of(const Request& request) {
  std::string url = request.exchange.is_tls ? "https://" : "http://";
  url.append(request.head.authority).push_back('/');
  if (!request.is_virtual_host) url.append(request.bucket).push_back('/');
  percent_encode_append(request.key, true, url);
  return url;
}

// The page to go to, or empty: a URL that cannot be understood counts as not given.
std::string redirect_of(const Request& request, const Form& form, std::string_view etag) {
  std::string_view wanted = form.get("success_action_redirect");
  if (wanted.empty()) wanted = form.get("redirect");
  if (wanted.empty() || !parse_url(wanted)) return {};
  std::string url;
  for (const char c : wanted) {
    if (static_cast<uint8_t>(c) < 0x80) {
      url.push_back(c);
    } else {
      percent_encode_append(std::string_view(&c, 1), false, url);
    }
  }
  url.push_back(wanted.find('?') == std::string_view::npos ? '?' : '&');
  url.append("bucket=").append(percent_encode(request.bucket));
  url.append("&key=").append(percent_encode(request.key));
  url.append("&etag=").append(percent_encode(quoted_etag(etag)));
  return url;
}

Task<S3Result<void>> send_answer(Request& request, const Form& form, const object::ObjectInfo& info) {
  const std::string_view wanted = form.get("success_action_status");
  const std::string redirect = redirect_of(request, form, info.etag);
  ResponseHead response = request.answer(!redirect.empty() ? 303 : wanted == "200" ? 200 : wanted == "201" ? 201 : 204);
  response.headers.add("ETag", quoted_etag(info.etag));
  response.headers.add("Location", redirect.empty() ? location_of(request) : redirect);
  add_checksum_headers(response, info.checksum, info.parts.size());
  add_version_header(response, request, info.version_id);
  std::string document;
  if (response.status == 201) {
    XmlWriter xml;
    xml.open("PostResponse").element("Location", location_of(request)).element("Bucket", request.bucket);
    xml.element("Key", request.key).element("ETag", quoted_etag(info.etag)).close();
    document = xml.take();
    response.headers.add("Content-Type", "application/xml");
  }
  co_return co_await request.respond(std::move(response), std::move(document));
}

}  // namespace

Task<S3Result<void>> post_object(Request& request) {
  if (request.signature.place != auth::SignaturePlace::none) {
    co_return invalid_argument("Only one auth mechanism allowed: a form upload is signed by the fields of its form.", "Authorization",
                               request.header_or("authorization"));
  }
  CO_TRY_ASSIGN(const std::string boundary, parse_form_boundary(request.header_or("content-type")));
  if (boundary.empty()) {
    co_return S3Error(E::precondition_failed).detail("Condition", "Bucket POST must be of the enclosure-type multipart/form-data");
  }
  FormReader reader(request.exchange.body, boundary, request.services.options.transfer_buffer_bytes);
  auto form = co_await read_fields(reader);
  if (!form) co_return std::move(form).error();
  if (form->get("key").empty()) co_return missing_field("key");
  request.key = form->get("key");
  if (!is_utf8(request.key)) co_return S3Error(E::invalid_uri);
  if (escapes_bucket(request.key)) co_return S3Error(E::path_escapes_bucket);
  if (request.key.size() > object::kObjectKeyMax) {
    co_return S3Error(E::key_too_long)
        .detail("Size", std::to_string(request.key.size()))
        .detail("MaxSizeAllowed", std::to_string(object::kObjectKeyMax));
  }

  auto policy = co_await check_signature(request, *form);
  if (!policy) co_return std::move(policy).error();
  FormFields judged = form->fields;
  std::erase_if(judged, [](const FormField& field) { return field.name == "bucket"; });
  judged.push_back({"bucket", request.bucket});
  CO_TRY(check_post_policy(*policy, judged, request.services.clock.wall_now()));
  auto access = co_await check_access(request, request.bucket);
  if (!access) co_return access;

  CO_TRY_ASSIGN(PostPlan plan, plan_post(request, *form));
  PostPolicy::Range allowed = policy->length_range.value_or(PostPolicy::Range{0, UINT64_MAX});
  allowed.last = std::min(allowed.last, request.services.options.put_size_max);
  FileReceiver file(request, reader, plan, allowed);
  auto info = co_await file.run();
  if (!info) co_return std::move(info).error();
  co_return co_await send_answer(request, *form, *info);
}

}  // namespace quarry::frontends::s3
