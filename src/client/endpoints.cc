#include "client/endpoints.h"

#include <fcntl.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "wire/json.h"

namespace quarry::client {

Result<Endpoints> read_endpoints(const std::string& root) {
  const std::string path = root + "/endpoints.json";
  std::ifstream file(path);
  if (!file) return fail(Code::not_found, "{} cannot be read: is a node running there? (to start one: `quarry up --root {}`)", path, root);
  std::stringstream text;
  text << file.rdbuf();
  auto parsed = parse_json(text.str());
  if (!parsed) return std::move(parsed).error().with(path);
  Endpoints endpoints;
  TRY_ASSIGN(endpoints.s3, parsed->string_at("s3"));
  TRY_ASSIGN(endpoints.admin, parsed->string_at("admin"));
  TRY_ASSIGN(endpoints.access_key, parsed->string_at("access_key"));
  TRY_ASSIGN(endpoints.secret_key, parsed->string_at("secret_key"));
  endpoints.region = parsed->string_at("region").value_or(endpoints.region);  // nodes of before did not write it
  return endpoints;
}

Result<void> write_endpoints(const std::string& root, const Endpoints& endpoints) {
  JsonWriter json(2);
  json.begin_object()
      .field("s3", endpoints.s3)
      .field("admin", endpoints.admin)
      .field("access_key", endpoints.access_key)
      .field("secret_key", endpoints.secret_key)
      .field("region", endpoints.region)
      .end_object();
  const std::string path = root + "/endpoints.json", temporary = path + ".new", text = json.str() + "\n";
  ::unlink(temporary.c_str());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return errno_error(errno, temporary);
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (!written) return errno_error(error, temporary);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return errno_error(errno, path);
  return {};
}

}  // namespace quarry::client
