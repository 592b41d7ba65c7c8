#include "wire/body.h"

namespace quarry {

Task<Result<std::string>> BodyReader::read_all(size_t max) {
  std::string text;
  const auto declared = length();
  if (declared && *declared > max) co_return fail(Code::too_large, "a body of {} bytes, at most {} are taken", *declared, max);
  // Without a declared length memory grows with what arrives, not with what is promised.
  size_t step = declared ? static_cast<size_t>(*declared) : 16 * kKiB;
  for (;;) {
    if (declared && text.size() == *declared) co_return text;
    const size_t have = text.size();
    step = std::min(std::max<size_t>(step, 1), 1 * kMiB);
    text.resize(std::min(have + step, max + 1));
    CO_TRY_ASSIGN(const size_t got, co_await read_into({reinterpret_cast<uint8_t*>(text.data()) + have, text.size() - have}));
    const bool full = have + got == text.size();
    text.resize(have + got);
    if (text.size() > max) co_return fail(Code::too_large, "a body of more than {} bytes", max);
    if (!full) co_return text;
    step *= 2;
  }
}

Task<Result<void>> ResponseWriter::write(SharedBytes part) {
  std::vector<SharedBytes> parts;
  parts.push_back(std::move(part));
  auto result = co_await write(std::move(parts));
  co_return result;
}

}  // namespace quarry
