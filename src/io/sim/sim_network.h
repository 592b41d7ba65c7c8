// SimFabric: a network in memory, with virtual time and faults. SimNetwork: one host's view of it, the Network that code under test gets.
//
//   SimFabric fabric({.latency_min = 50us, .latency_max = 2ms, .split_reads = true, .seed = 7});
//   auto server_network = fabric.host("node-1");   auto client_network = fabric.host("client");
//   fabric.partition("client", "node-1");          // nothing passes until heal; who waits runs into its deadline
//
// Bytes of one direction of one connection arrive in order, after a latency drawn from the seed; directions and connections are
// independent. A writer waits while buffer_max bytes are on their way. A host listens on its own name and on the loopback names, port
// 0 picks a free one. The fabric outlives its networks, listeners and streams. Confined to one thread.
#pragma once
#include <deque>
#include <map>
#include <set>

#include "io/network.h"
#include "io/sync.h"

namespace quarry {

class SimFabric {
 public:
  struct Options {
    Duration latency_min{0}, latency_max{0};
    size_t buffer_max = 256 * kKiB;  // per direction
    size_t backlog = 128;            // connections not yet accepted; further ones are refused
    bool split_reads = false;        // a read returns 1..n bytes of what is there, drawn from the seed
    uint64_t seed = 1;
  };
  explicit SimFabric(Options options);
  SimFabric() : SimFabric(Options{}) {}
  ~SimFabric();
  std::unique_ptr<Network> host(std::string name);

  // Nothing passes between the two, in either direction. What had arrived before can still be read. Connects wait.
  void partition(const std::string& a, const std::string& b);
  void heal(const std::string& a, const std::string& b);
  void heal_all();
  // Resets every connection between the two: connection_closed on both sides, at once.
  void cut(const std::string& a, const std::string& b);
  // Resets everything of the host and forgets its listeners, as its death would.
  void kill(const std::string& name);
  // One direction stops delivering (the sender notices only by its full buffer) until heal.
  void stall(const std::string& from, const std::string& to);
  void set_latency(Duration min, Duration max);
  size_t open_connections() const;

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace quarry
