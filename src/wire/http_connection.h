// What the server and its two kinds of connection share. Internal to wire.
#pragma once
#include "wire/http_server.h"

namespace quarry {

// State of the server that connections read.
struct HttpServing {
  HttpHandler& handler;
  HttpServerOptions options;
  bool stopping = false;
  HttpServerStats stats;

  HttpServing(HttpHandler& h, HttpServerOptions o) : handler(h), options(std::move(o)) {}
  // "Date: ...\r\nServer: ...\r\n", made anew each second.
  std::string_view common_headers();
  std::string_view date_value();

 private:
  void refresh();
  int64_t second_ = -1;
  std::string common_, date_;
};

// How stop() reaches into a connection. Lives on the connection's coroutine frame.
struct HttpConnectionControl {
  Stream* stream = nullptr;
  bool idle = false;                   // nothing of a request has arrived: may be closed at any time
  std::shared_ptr<Stream*> handshake;  // the stream below a TLS handshake that is under way; points to null when it is gone
  std::function<void()> drain;         // HTTP/2: says goodbye and finishes the open streams
};

enum class Http1End : uint8_t { closed, upgrade_to_http2 };

// The connection preface of HTTP/2 (RFC 9113 3.4); the first 18 bytes look like the head of an HTTP/1 request.
inline constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Serves requests until the connection ends. With upgrade_to_http2, `received` holds the bytes that were already read.
Task<Http1End> serve_http1(HttpServing& serving, Stream& stream, HttpConnectionControl& control, std::string& received);
// received: bytes already read from the stream, the preface first.
Task<void> serve_http2(HttpServing& serving, Stream& stream, HttpConnectionControl& control, std::string received);

// The server's own answer to a request that reached no handler, or whose handler said nothing.
ResponseHead server_error_head(HttpServing& serving, int status, std::string& body);

}  // namespace quarry
