#include "object/copy.h"

namespace quarry::object {
namespace {

constexpr size_t kPiece = 1 << 20;

// Opens the source and checks what was asked of it.
Task<Result<std::unique_ptr<ObjectReader>>> open_source(ObjectEngine& engine, RequestContext ctx, CopySource source) {
  CO_TRY_ASSIGN(auto reader, co_await engine.get(ctx, source.bucket, source.key, source.version_id));
  const ObjectInfo& info = reader->info();
  if (info.delete_marker) co_return fail(Code::invalid_argument, "copy source: version {} is a delete marker", info.version_id);
  if (evaluate_read_conditions(source.conditions, info) != ConditionOutcome::pass) {
    co_return fail(Code::precondition_failed, "copy source: a condition does not hold for key '{}'", source.key);
  }
  if (source.range) {
    const auto [offset, length] = *source.range;
    if (length == 0 || offset >= info.size || length > info.size - offset) {
      co_return fail(Code::out_of_range, "copy source: bytes {} to {} of an object of {}", offset, offset + length, info.size);
    }
    reader->set_range(offset, length);
  }
  co_return std::move(reader);
}

Task<Result<void>> pump(ObjectReader& reader, ObjectWriter& writer) {
  for (;;) {
    CO_TRY_ASSIGN(auto piece, co_await reader.next(kPiece));
    if (piece.empty()) co_return Result<void>();
    CO_TRY(co_await writer.write(Buffer::copy_of(piece)));
  }
}

}  // namespace

Task<Result<CopyResult>> copy_object(ObjectEngine& engine, RequestContext ctx, CopySource source, std::string bucket, std::string key, CopyOptions options) {
  CO_TRY_ASSIGN(auto reader, co_await open_source(engine, ctx, std::move(source)));
  CopyResult result{.source = reader->info()};
  PutOptions& put = options.put;
  if (!options.replace_metadata) {
    std::string storage_class = std::move(put.metadata.storage_class);  // is asked for anew with each copy
    put.metadata = result.source.metadata;
    put.metadata.storage_class = std::move(storage_class);
  }
  if (!options.replace_tags) put.tags = result.source.tags;
  if (put.checksum == ChecksumAlgorithm::none) put.checksum = result.source.checksum.algorithm;
  put.size = result.source.size;
  CO_TRY_ASSIGN(auto writer, co_await engine.put(ctx, std::move(bucket), std::move(key), std::move(put)));
  CO_TRY(co_await pump(*reader, *writer));
  CO_TRY_ASSIGN(result.object, co_await writer->finish({}));
  co_return result;
}

Task<Result<CopyResult>> copy_part(ObjectEngine& engine, RequestContext ctx, CopySource source, std::string bucket, std::string key, std::string upload_id,
                                   uint32_t number, PutOptions options) {
  const auto range = source.range;
  CO_TRY_ASSIGN(auto reader, co_await open_source(engine, ctx, std::move(source)));
  CopyResult result{.source = reader->info()};
  options.size = range ? range->second : result.source.size;
  CO_TRY_ASSIGN(auto writer, co_await engine.put_part(ctx, std::move(bucket), std::move(key), std::move(upload_id), number, std::move(options)));
  CO_TRY(co_await pump(*reader, *writer));
  CO_TRY_ASSIGN(result.part, co_await writer->finish_part({}));
  co_return result;
}

}  // namespace quarry::object
