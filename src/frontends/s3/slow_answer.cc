#include "frontends/s3/slow_answer.h"

namespace quarry::frontends::s3 {

std::string_view without_declaration(std::string_view document) {
  const size_t end = document.find("?>");
  return end == std::string_view::npos ? document : document.substr(end + 2);
}

Task<void> SlowAnswer::sign_of_life() {
  ResponseWriter& out = request_.exchange.response;
  std::string_view text = " ";
  if (!begun_) {
    begun_ = true;
    ResponseHead head = request_.answer();
    head.headers.add("Content-Type", "application/xml");
    auto sent = co_await out.send_head(std::move(head));
    if (!sent) co_return;
    text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  }
  auto written = co_await out.write(SharedBytes::copy_of(bytes_of(text)));
  if (!written) co_return;  // the client is gone: the work goes on to its end all the same
  auto flushed = co_await out.flush();
  std::move(flushed).ignore("the client is gone");
}

Task<S3Result<void>> SlowAnswer::succeed(ResponseHead response, std::string document) {
  if (!begun_) {
    response.headers.add("Content-Type", "application/xml");
    co_return co_await request_.respond(std::move(response), std::move(document));
  }
  ResponseWriter& out = request_.exchange.response;
  auto written = co_await out.write(SharedBytes::copy_of(bytes_of(without_declaration(document))));
  if (!written) co_return S3Result<void>();
  auto finished = co_await out.finish();
  std::move(finished).ignore("the client is gone");
  co_return S3Result<void>();
}

Task<S3Result<void>> SlowAnswer::fail(S3Error error) {
  if (!begun_) co_return error;
  request_.failed = true;
  const std::string document = error_document(error, request_.head.raw_path, request_.request_id, request_.host_id);
  co_return co_await succeed(ResponseHead(), document);
}

}  // namespace quarry::frontends::s3
