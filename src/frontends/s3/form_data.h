// multipart/form-data (RFC 7578, RFC 2046 5.1), as browsers upload files with it: a decoder that takes the body in pieces of any size and
// gives back the heads and bytes of its parts. Pure; it keeps no byte of what it was shown.
//
//   --boundary CRLF  headers CRLF CRLF  bytes  CRLF --boundary CRLF ... CRLF --boundary--
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "frontends/s3/errors.h"

namespace quarry::frontends::s3 {

inline constexpr size_t kFormPartHeadMax = 4096;  // headers of one part
inline constexpr size_t kFormBoundaryMax = 256;   // RFC 2046 allows 70; some clients use more

// The boundary that a Content-Type names; empty if it is no multipart/form-data. Errors: MalformedPOSTRequest (no boundary, or too long).
S3Result<std::string> parse_form_boundary(std::string_view content_type);

// What the head of a part says. has_filename: it is a file, even when its name is empty.
struct FormPartHead {
  std::string name, filename;
  bool has_filename = false;
};
// Errors: MalformedPOSTRequest.
S3Result<FormPartHead> parse_form_part_head(std::string_view head);

class FormDecoder {
 public:
  enum class Kind : uint8_t {
    need_more,  // nothing can be told: show more
    head,       // a part begins; text: its headers
    data,       // text: bytes of the part
    part_end,   // the part is complete
    end,        // the form is complete; what follows is ignored
  };
  struct Step {
    Kind kind = Kind::need_more;
    size_t consumed = 0;    // bytes of the window that are done with, text included
    std::string_view text;  // of the window
  };

  explicit FormDecoder(std::string_view boundary) : delimiter_("\r\n--" + std::string(boundary)) {}

  // The next step over what is received and not consumed. A window of window_min() bytes is never answered with need_more.
  // Errors: MalformedPOSTRequest; the decoder is of no use then.
  S3Result<Step> step(std::string_view window);
  size_t window_min() const { return std::max(kFormPartHeadMax, delimiter_.size()) + 4; }

 private:
  enum class State : uint8_t { start, after_boundary, head, data, done };
  S3Result<Step> step_behind(size_t consumed, std::string_view window);

  std::string delimiter_;
  State state_ = State::start;
};

}  // namespace quarry::frontends::s3
