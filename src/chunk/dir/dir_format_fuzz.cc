// Descriptors, labels, records, headers and names of any bytes: decoded or refused. The first byte chooses; what is decoded encodes again.
#include "base/check.h"
#include "chunk/dir/escape.h"
#include "chunk/dir/format.h"

using namespace quarry;
using namespace quarry::chunk::dir;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const ByteView bytes{data + 1, size - 1};
  const std::string text(text_of(bytes));
  switch (data[0] % 6) {
    case 0:
      if (const auto descriptor = decode_descriptor(bytes)) CHECK(decode_descriptor(bytes_of(encode_descriptor(*descriptor))));
      break;
    case 1:
      if (const auto label = decode_label(bytes)) CHECK(decode_label(bytes_of(encode_label(*label))));
      break;
    case 2:
      if (const auto record = decode_record(bytes); record && !record->is_pointer) {
        CHECK(check_shape(record->record.first, record->record.size, record->record.chunk_size, record->record.stride));
        CHECK(record->record.checksums.size() == record->record.block_count());
        CHECK(decode_record(bytes_of(encode_record(record->record))));
      }
      break;
    case 3:
      if (const auto header = decode_chunk_header(bytes)) CHECK(decode_chunk_header(bytes_of(encode_chunk_header(*header))));
      break;
    case 4:
      if (const auto absent = decode_absent(bytes)) CHECK(decode_absent(bytes_of(encode_absent(absent->first, absent->absent))));
      break;
    default: {
      const auto path = path_of_key("bucket", text);
      if (path) {
        const auto back = parse_path(*path);
        CHECK(back && back->key == text);
      }
      static_cast<void>(parse_path(text));
      break;
    }
  }
  return 0;
}
