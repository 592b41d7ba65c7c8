#include "object/engine/body.h"

namespace quarry::object {
namespace {

Result<void> same(const std::optional<std::string>& wanted, const std::string& found, std::string_view what) {
  if (!wanted || *wanted == found) return {};
  return fail(Code::checksum_mismatch, "{}: {} was sent, {} received", what, to_base64(bytes_of(*wanted)), to_base64(bytes_of(found)));
}

}  // namespace

Result<void> BodyReceiver::begin_data() {
  cluster::WriteOptions options{
      .redundancy = limits_.redundancy, .size_hint = limits_.size.value_or(0), .pack_limit = limits_.pack_limit, .file = limits_.file};
  TRY_ASSIGN(writer_, engine_.data().begin_write(options));
  return {};
}

Task<Result<void>> BodyReceiver::write(Buffer data) {
  if (failed_) co_return fail(Code::cancelled, "an earlier piece of this body failed");
  if (data.empty()) co_return Result<void>();
  failed_ = true;  // until this piece is done
  size_ += data.size();
  if (size_ > limits_.size_max) co_return fail(Code::too_large, "body: more than {} bytes", limits_.size_max);
  if (limits_.size && size_ > *limits_.size) co_return fail(Code::invalid_argument, "body: more than the {} bytes promised", *limits_.size);

  if (!writer_ && size_ <= limits_.inline_limit) {
    digest_.update(data);
    inline_.append(text_of(data));
    failed_ = false;
    co_return Result<void>();
  }
  if (!writer_) {
    CO_TRY(begin_data());
    if (!inline_.empty()) {
      pending_ = Buffer::copy_of(bytes_of(inline_));
      std::string().swap(inline_);
    }
  }
  HashQueue::Job job(digest_, data);
  engine_.hashes().start(job);
  Result<void> appended;
  if (!pending_.empty()) appended = co_await writer_->append(std::move(pending_));
  co_await engine_.hashes().wait(job);
  pending_ = std::move(data);
  failed_ = !appended;
  co_return appended;
}

Task<Result<Body>> BodyReceiver::finish(Expected expected) {
  if (failed_) co_return fail(Code::cancelled, "an earlier piece of this body failed");
  failed_ = true;  // nothing may follow
  if (limits_.size && size_ != *limits_.size) {
    co_return fail(Code::invalid_argument, "body: {} bytes came, {} were promised", size_, *limits_.size);
  }
  Body body;
  body.size = size_;
  body.digests = digest_.finish();
  CO_TRY(same(expected.md5, body.digests.md5, "MD5"));
  CO_TRY(same(expected.sha256, body.digests.sha256, "SHA-256"));
  CO_TRY(same(expected.checksum, body.digests.checksum, "checksum"));
  if (!writer_ && limits_.whole_file && size_ == 0) CO_TRY(begin_data());
  if (!writer_) {
    if (size_ > 0) body.kind = PayloadKind::inlined;
    co_return body;
  }
  if (!pending_.empty()) CO_TRY(co_await writer_->append(std::move(pending_)));
  pending_ = Buffer();
  CO_TRY_ASSIGN(auto layout, co_await writer_->finish());
  if (layout.size != size_) co_return fail(Code::internal, "body: {} bytes came, the data plane has {}", size_, layout.size);
  body.kind = PayloadKind::data;
  body.layout = std::move(layout);
  co_return body;
}

}  // namespace quarry::object
