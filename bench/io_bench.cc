// io_bench: what the io module alone costs, in operations and GiB per CPU-second of the serving thread.
//   io_bench disk PATH [SECONDS]    4 KiB, 64 KiB and 1 MiB reads and writes, queue depth 32, on a device or file (it is overwritten)
//   io_bench net [SECONDS]          a canned HTTP server on one loop, load from another: small requests, bodies down, bodies up
//   io_bench tls [SECONDS]          the same under TLS 1.3
//   io_bench idle [CONNECTIONS]     resident memory of idle connections, both ends in this process
//   io_bench hops                   what a task pays to run on another loop and come back, alone and with 64 at a time
//   io_bench serve HOST:PORT        that server alone, for wrk and h2load
//   io_bench buffers                Buffer against aligned_alloc, 4 KiB to 4 MiB, every page touched
// Compare with the table in docs/decisions (reference: own loop 96-113 k small requests, 4.1 GiB down, 2.0-4.1 GiB up per CPU-second).
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/buffer_arena.h"
#include "base/units.h"
#include "io/ring_executor.h"
#include "io/tls.h"
#include "io/uring_block_device.h"
#include "io/uring_network.h"
#include "loop_steps.h"

namespace quarry {
namespace {
using std::chrono::seconds;

double thread_cpu() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
double wall() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
TimePoint in(Duration duration) { return Executor::here().now() + duration; }

[[noreturn]] void give_up(const Error& error) {
  fmt::print(stderr, "io_bench: {}\n", error.to_string());
  std::exit(1);
}
template <class T>
T must(Result<T> result) {
  if (!result) give_up(result.error());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// ---------------------------------------------------------------- disk

struct DiskRun {
  size_t size;
  bool write;
  Durability durability;
  uint64_t done = 0;
  double until = 0;
};

Task<void> disk_worker(BlockDevice& device, DiskRun& run, uint64_t seed) {
  Buffer buffer(run.size);
  std::memset(buffer.data(), static_cast<int>(seed), buffer.size());
  const uint64_t slots = device.info().size / run.size;
  while (wall() < run.until) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    const uint64_t offset = (seed >> 20) % slots * run.size;
    Result<void> result;
    if (run.write) {
      result = co_await device.write(offset, buffer, run.durability);
    } else {
      result = co_await device.read(offset, buffer.mutable_view());
    }
    must(std::move(result));
    ++run.done;
  }
}

Task<void> disk_run(BlockDevice& device, DiskRun& run, int depth) {
  TaskGroup group;
  for (int i = 0; i < depth; ++i) group.spawn(disk_worker(device, run, static_cast<uint64_t>(i) * 7919 + 1));
  co_await group.join();
}

void disk(const std::string& path, double duration) {
  auto executor = must(RingExecutor::create());
  if (!std::filesystem::exists(path)) must(create_file_device(path, 1 * kGiB));
  auto device = must(executor->run(UringBlockDevice::open(path)));
  fmt::print("{:>8} {:>8} {:>12} {:>12} {:>14} {:>12}\n", "op", "size", "op/s", "MiB/s", "op/CPU-s", "GiB/CPU-s");
  // First everything once in order, so that reads and writes find allocated blocks.
  executor->run([](BlockDevice& d) -> Task<void> {
    Buffer buffer(kMiB);
    std::memset(buffer.data(), 1, buffer.size());
    for (uint64_t at = 0; at + kMiB <= d.info().size; at += kMiB) {
      Result<void> result = co_await d.write(at, buffer, Durability::volatile_);
      must(std::move(result));
    }
    Result<void> flushed = co_await d.flush();
    must(std::move(flushed));
  }(*device));
  for (const size_t size : {4 * kKiB, 64 * kKiB, kMiB}) {
    for (const int kind : {0, 1, 2}) {
      DiskRun run{.size = size, .write = kind > 0, .durability = kind == 2 ? Durability::durable : Durability::volatile_};
      run.until = wall() + duration;
      const double cpu = thread_cpu(), start = wall();
      executor->run(disk_run(*device, run, 32));
      const double used = thread_cpu() - cpu, took = wall() - start, done = static_cast<double>(run.done);
      fmt::print("{:>8} {:>8} {:>12.0f} {:>12.0f} {:>14.0f} {:>12.2f}\n",
                 kind == 0   ? "read"
                 : kind == 1 ? "write"
                             : "durable",
                 format_size(size), done / took, done * static_cast<double>(size) / took / 1048576, done / used,
                 done * static_cast<double>(size) / used / 1073741824);
    }
  }
  executor->run(device->close());
}

// ---------------------------------------------------------------- network

constexpr size_t kBody = 10 * kMiB;
constexpr std::string_view kSmallRequest = "GET /s HTTP/1.1\r\nHost: bench\r\nUser-Agent: io_bench\r\nAccept: */*\r\n\r\n";
constexpr std::string_view kBodyRequest = "GET /b HTTP/1.1\r\nHost: bench\r\nUser-Agent: io_bench\r\nAccept: */*\r\n\r\n";

// Not a parser: knows GET /s (128 bytes), GET /b (kBody bytes) and PUT with kBody bytes, as the load below sends them.
Task<void> serve_connection(std::unique_ptr<Stream> stream, const Buffer& body) {
  const std::string small =
      "HTTP/1.1 200 OK\r\nContent-Length: 128\r\nContent-Type: application/octet-stream\r\n\r\n" + std::string(128, 'x');
  const std::string head = fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", kBody);
  const std::string put_done = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
  for (;;) {
    Result<void> ready = co_await stream->wait_readable(in(seconds(60)));
    if (!ready) co_return;
    Buffer buffer(16 * kKiB);
    size_t have = 0;
    std::string_view text;
    size_t header = std::string_view::npos;
    while (header == std::string_view::npos) {
      Result<size_t> got = co_await stream->read(buffer.mutable_view().subspan(have), in(seconds(60)));
      if (!got || *got == 0) co_return;
      have += *got;
      text = text_of(buffer.view().first(have));
      header = text.find("\r\n\r\n");
    }
    std::vector<ByteView> parts;
    if (text.starts_with("GET /b")) {
      parts.push_back(bytes_of(head));
      size_t left = kBody;
      while (left > 0) {
        parts.push_back(body.view().first(std::min(left, body.size())));
        left -= parts.back().size();
      }
    } else if (text.starts_with("PUT")) {
      size_t left = kBody - (have - header - 4);
      Buffer sink(kMiB);
      while (left > 0) {
        Result<size_t> got = co_await stream->read(sink.mutable_view().first(std::min(left, sink.size())), in(seconds(60)));
        if (!got || *got == 0) co_return;
        left -= *got;
      }
      parts.push_back(bytes_of(put_done));
    } else {
      parts.push_back(bytes_of(small));
    }
    Result<void> sent = co_await stream->write(std::move(parts), in(seconds(60)));
    if (!sent) co_return;
  }
}

Task<void> serve_all(Listener& listener, TlsServerContext* tls, const Buffer& body, TaskGroup& group) {
  for (;;) {
    auto stream = co_await listener.accept();
    if (!stream) co_return;
    if (tls == nullptr) {
      group.spawn(serve_connection(std::move(*stream), body));
      continue;
    }
    group.spawn([](std::unique_ptr<Stream> raw, TlsServerContext& context, const Buffer& bytes) -> Task<void> {
      auto secure = co_await tls_accept(std::move(raw), context, in(seconds(10)));
      if (!secure) co_return;
      co_await serve_connection(std::move(*secure), bytes);
    }(std::move(*stream), *tls, body));
  }
}

enum class Load : uint8_t { small, down, up };

Task<void> load_connection(Network& network, SocketAddress address, TlsClientContext* tls, Load load, double until, uint64_t& done) {
  auto connected = co_await network.connect(address, in(seconds(10)));
  std::unique_ptr<Stream> stream = must(std::move(connected));
  if (tls != nullptr) {
    auto secure = co_await tls_connect(std::move(stream), *tls, "localhost", in(seconds(10)));
    stream = must(std::move(secure));
  }
  Buffer buffer(kMiB), out(kMiB);
  std::memset(out.data(), 7, out.size());
  const std::string put = fmt::format("PUT /b HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n", kBody);
  while (wall() < until) {
    std::vector<ByteView> parts;
    if (load == Load::up) {
      parts.push_back(bytes_of(put));
      for (size_t left = kBody; left > 0; left -= out.size()) parts.push_back(out.view());
    } else {
      parts.push_back(bytes_of(load == Load::small ? kSmallRequest : kBodyRequest));
    }
    Result<void> sent = co_await stream->write(std::move(parts), in(seconds(60)));
    must(std::move(sent));
    // The answer's length is known by kind; the header ends within the first read on loopback.
    size_t left = 0;
    bool in_header = true;
    do {
      Result<size_t> got = co_await stream->read(buffer.mutable_view(), in(seconds(60)));
      size_t count = must(std::move(got));
      if (count == 0) co_return;
      if (in_header) {
        const size_t end = text_of(buffer.view().first(count)).find("\r\n\r\n");
        if (end == std::string_view::npos) give_up(fail(Code::internal, "a split header"));
        left = load == Load::small ? 128 : load == Load::down ? kBody : 0;
        count -= end + 4;
        in_header = false;
      }
      left -= count;
    } while (left > 0);
    ++done;
  }
}

void net(double duration, bool with_tls) {
  UringNetwork network;
  auto pool = must(ExecutorPool::start({.name = "server", .threads = 1}));
  RingExecutor& loop = pool->executor(0);
  Buffer body(kMiB);
  std::memset(body.data(), 5, body.size());
  std::unique_ptr<TlsServerContext> server_tls;
  std::unique_ptr<TlsClientContext> client_tls;
  if (with_tls) {
    const auto identity = must(make_self_signed_identity({"localhost", "127.0.0.1"}));
    server_tls = must(TlsServerContext::create(identity, {}));
    client_tls = must(TlsClientContext::create({.ca_pem = identity.certificate_pem}));
  }
  auto listening = [](UringNetwork& on_network) -> Task<Result<std::unique_ptr<Listener>>> {
    co_return on_network.listen({"127.0.0.1", 0}, false);
  };
  auto listener = must(wait_on(loop, listening(network)));
  TaskGroup group;
  auto start = [](Listener& from, TlsServerContext* tls, const Buffer& bytes, TaskGroup& tasks) -> Task<void> {
    tasks.spawn(serve_all(from, tls, bytes, tasks));
    co_return;
  };
  wait_on(loop, start(*listener, server_tls.get(), body, group));
  auto cpu_now = []() -> Task<double> { co_return thread_cpu(); };
  fmt::print("{:>10} {:>6} {:>12} {:>14} {:>12}\n", with_tls ? "tls" : "plain", "conns", "req/s", "req/CPU-s", "GiB/CPU-s");
  for (const Load load : {Load::small, Load::down, Load::up}) {
    const int connections = load == Load::small ? 64 : 4;
    uint64_t done = 0;
    auto client = must(RingExecutor::create());
    const double cpu = wait_on(loop, cpu_now()), from = wall();
    auto run = [](UringNetwork& on_network, SocketAddress address, TlsClientContext* tls, Load kind, double until, int count,
                  uint64_t& total) -> Task<void> {
      TaskGroup tasks;
      for (int i = 0; i < count; ++i) tasks.spawn(load_connection(on_network, address, tls, kind, until, total));
      co_await tasks.join();
    };
    client->run(run(network, listener->address(), client_tls.get(), load, from + duration, connections, done));
    const double used = wait_on(loop, cpu_now()) - cpu, took = wall() - from, count = static_cast<double>(done);
    fmt::print("{:>10} {:>6} {:>12.0f} {:>14.0f} {:>12.2f}\n",
               load == Load::small  ? "small"
               : load == Load::down ? "down"
                                    : "up",
               connections, count / took, count / used, load == Load::small ? 0.0 : count * static_cast<double>(kBody) / used / 1073741824);
  }
  auto finish = [](std::unique_ptr<Listener> closing, TaskGroup& tasks) -> Task<void> {
    closing->close();
    co_await tasks.join();
  };
  wait_on(loop, finish(std::move(listener), group));
  pool->stop();
}

uint64_t resident_bytes() {
  unsigned long long pages = 0;
  if (FILE* file = std::fopen("/proc/self/statm", "re")) {
    if (std::fscanf(file, "%*u %llu", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return pages * 4096;
}

void idle(int connections) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = std::max<rlim_t>(files.rlim_cur, static_cast<rlim_t>(connections) * 2 + 100);
  files.rlim_max = std::max(files.rlim_max, files.rlim_cur);
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) give_up(fail(Code::misconfigured, "cannot have {} open files", files.rlim_cur));
  UringNetwork network;
  auto executor = must(RingExecutor::create());
  const auto identity = must(make_self_signed_identity({"localhost"}));
  auto server_tls = must(TlsServerContext::create(identity, {}));
  auto client_tls = must(TlsClientContext::create({.ca_pem = identity.certificate_pem}));
  for (const bool with_tls : {false, true}) {
    executor->run(
        [](UringNetwork& on_network, TlsServerContext* server, TlsClientContext* client, int count, const Buffer& body) -> Task<void> {
          RingExecutor::here().has_receive_buffers();
          auto listener = must(on_network.listen({"127.0.0.1", 0}, false));
          TaskGroup group;
          group.spawn(serve_all(*listener, server, body, group));
          std::vector<std::unique_ptr<Stream>> clients;
          clients.reserve(static_cast<size_t>(count));
          const uint64_t before = resident_bytes();
          for (int i = 0; i < count; ++i) {
            auto connected = co_await on_network.connect(listener->address(), in(seconds(10)));
            std::unique_ptr<Stream> stream = must(std::move(connected));
            if (client != nullptr) {
              auto secure = co_await tls_connect(std::move(stream), *client, "localhost", in(seconds(10)));
              stream = must(std::move(secure));
            }
            clients.push_back(std::move(stream));
          }
          co_await sleep_for(std::chrono::milliseconds(200));
          fmt::print("{} idle connections{}: {} bytes of this process each, both ends together\n", count,
                     client != nullptr ? " under TLS" : "", (resident_bytes() - before) / static_cast<uint64_t>(count));
          clients.clear();
          listener->close();
          co_await group.join();
        }(network, with_tls ? server_tls.get() : nullptr, with_tls ? client_tls.get() : nullptr, with_tls ? connections / 5 : connections,
                                                                                                                        Buffer()));
  }
}

void serve(const std::string& where) {
  UringNetwork network;
  auto executor = must(RingExecutor::create());
  Buffer body(kMiB);
  std::memset(body.data(), 5, body.size());
  executor->run([](UringNetwork& on_network, SocketAddress address, const Buffer& bytes) -> Task<void> {
    auto listener = must(on_network.listen(address, false));
    TaskGroup group;
    co_await serve_all(*listener, nullptr, bytes, group);
    co_await group.join();
  }(network, must(SocketAddress::parse(where)), body));
}

// ---------------------------------------------------------------- hops

Task<void> hop(Executor& away, int times) {
  for (int i = 0; i < times; ++i) {
    co_await on(away, []() -> Task<void> { co_return; }());
  }
}
Task<void> hop_together(Executor& away, int tasks, int times) {
  TaskGroup group;
  for (int i = 0; i < tasks; ++i) group.spawn(hop(away, times));
  co_await group.join();
}

void hops() {
  auto pool = must(ExecutorPool::start({.name = "hop", .threads = 2}));
  for (const int tasks : {1, 64}) {
    const int times = 128'000 / tasks;
    timespec from{}, to{};
    const double start = wall();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    wait_on(pool->executor(0), hop_together(pool->executor(1), tasks, times));
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    const double cpu = static_cast<double>(to.tv_sec - from.tv_sec) + static_cast<double>(to.tv_nsec - from.tv_nsec) * 1e-9;
    fmt::print("{} tasks: {:.2f} us of wall and {:.2f} us of CPU for a way there and back\n", tasks,
               (wall() - start) * 1e6 / (tasks * times), cpu * 1e6 / (tasks * times));
  }
}

// ---------------------------------------------------------------- buffers

void buffers() {
  fmt::print("{:>8} {:>16} {:>16}\n", "size", "Buffer ns", "aligned_alloc ns");
  for (const size_t size : {4 * kKiB, 64 * kKiB, 256 * kKiB, kMiB, 4 * kMiB}) {
    const int rounds = static_cast<int>(2 * kGiB / size / 4) + 100;
    double best[2] = {1e9, 1e9};
    for (int kind = 0; kind < 2; ++kind) {
      for (int repeat = 0; repeat < 3; ++repeat) {
        const double start = thread_cpu();
        for (int i = 0; i < rounds; ++i) {
          uint8_t* data = kind == 0 ? buffer_allocate(size) : static_cast<uint8_t*>(std::aligned_alloc(4096, size));
          for (size_t at = 0; at < size; at += 4096) *const_cast<volatile uint8_t*>(data + at) = 1;
          kind == 0 ? buffer_release(data, size) : std::free(data);
        }
        best[kind] = std::min(best[kind], (thread_cpu() - start) / rounds);
      }
    }
    fmt::print("{:>8} {:>16.0f} {:>16.0f}\n", format_size(size), best[0] * 1e9, best[1] * 1e9);
  }
}

}  // namespace
}  // namespace quarry

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const auto duration = [&](int index) { return argc > index ? std::atof(argv[index]) : 2.0; };
  if (what == "disk" && argc > 2) {
    quarry::disk(argv[2], duration(3));
  } else if (what == "net") {
    quarry::net(duration(2), false);
  } else if (what == "tls") {
    quarry::net(duration(2), true);
  } else if (what == "serve" && argc > 2) {
    quarry::serve(argv[2]);
  } else if (what == "hops") {
    quarry::hops();
  } else if (what == "idle") {
    quarry::idle(argc > 2 ? std::atoi(argv[2]) : 10000);
  } else if (what == "buffers") {
    quarry::buffers();
  } else {
    std::fputs(
        "usage: io_bench disk PATH [SECONDS] | net [SECONDS] | tls [SECONDS] | idle [CONNECTIONS] | hops | serve HOST:PORT | buffers\n",
        stderr);
    return 2;
  }
  return quarry::status_with_loop_steps(0);
}
