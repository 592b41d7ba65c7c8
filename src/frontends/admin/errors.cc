#include "frontends/admin/admin_server.h"

namespace quarry::frontends::admin {

int status_of(Code code) {
  switch (code) {
    case Code::invalid_argument:
    case Code::malformed:
    case Code::checksum_mismatch:
    case Code::out_of_range:
    case Code::misconfigured: return 400;
    case Code::unauthenticated: return 401;
    case Code::permission_denied: return 403;
    case Code::not_found: return 404;
    case Code::already_exists:
    case Code::not_empty:
    case Code::busy:
    case Code::conflict:
    case Code::wrong_owner:
    case Code::incompatible:
    case Code::read_only: return 409;
    case Code::precondition_failed: return 412;
    case Code::too_large: return 413;
    case Code::unsupported: return 501;
    case Code::quota_exceeded:
    case Code::no_space: return 507;
    case Code::overloaded:
    case Code::timed_out:
    case Code::cancelled:
    case Code::unavailable: return 503;
    case Code::io_error:
    case Code::device_gone:
    case Code::connection_closed:
    case Code::corrupt:
    case Code::data_lost:
    case Code::unknown_outcome:
    case Code::internal: return 500;
  }
  return 500;
}

}  // namespace quarry::frontends::admin
