// Feeds hostile text to the parsers of request headers and XML documents: what they accept keeps their promises.
#include "frontends/s3/copy_source.h"
#include "frontends/s3/documents.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/session.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quarry;
  using namespace quarry::frontends::s3;
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 9) {
    case 0: {
      const uint64_t object_size = size * 7919;
      const ParsedRange parsed = parse_range(text, object_size);
      if (parsed.kind == RangeKind::part) CHECK(parsed.range.length > 0 && parsed.range.offset + parsed.range.length <= object_size);
      if (const auto copy = parse_copy_range(text, object_size)) CHECK(copy->offset + copy->length <= object_size);
      break;
    }
    case 1: (void)parse_tagging_document(text, kBucketTagsMax).has_value(); break;
    case 2: (void)parse_tagging_header(text).has_value(); break;
    case 3: {
      const auto source = parse_copy_source(text);
      if (source) CHECK(is_valid_bucket_name(source->bucket) && !source->key.empty() && !escapes_bucket(source->key));
      break;
    }
    case 4: (void)parse_attribution(text).empty(); break;
    case 5: (void)parse_iso_time(text).has_value(); break;
    case 6: {
      const auto parts = parse_completed_parts(text);
      if (parts) CHECK(!parts->empty() && parts->size() <= object::kPartNumberMax);
      break;
    }
    case 7: {
      const auto list = parse_delete_list(text);
      if (list) CHECK(!list->targets.empty() && list->targets.size() <= kDeleteTargetsMax);
      break;
    }
    case 8: (void)parse_bucket_configuration(text, "us-east-1").has_value(); break;
  }
  return 0;
}
