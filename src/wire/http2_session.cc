#include "wire/http_connection.h"
namespace quarry {
Task<void> serve_http2(HttpServing& serving, Stream& stream, HttpConnectionControl& control, std::string received) { co_return; }
}
