// A process group of libtorch's c10d over Gloo, for processes on CPUs.
//
// As in `shim.cpp`, every function returns null or a message that the caller frees.

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <vector>

#include "guarded.h"

using Tensor = at::Tensor;

namespace {

struct Group {
  c10::intrusive_ptr<c10d::TCPStore> store;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
};

}  // namespace

extern "C" {

// Joins `world` processes; rank 0 listens at `host:port`. The group belongs to the caller.
char *gm_group_join(const char *host, uint16_t port, int rank, int world, uint64_t timeout_ms, Group **out) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = rank == 0;
    options.numWorkers = static_cast<std::size_t>(world);
    options.timeout = std::chrono::milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    auto gloo_options = c10d::ProcessGroupGloo::Options::create(options.timeout);
    gloo_options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(host));
    auto prefix = c10::make_intrusive<c10d::PrefixStore>("gristmill", store);
    auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(prefix, rank, world, gloo_options);
    *out = new Group{store, gloo};
  });
}

void gm_group_leave(Group *group) { delete group; }

// Replaces the tensor on every rank by the sum over all.
char *gm_group_sum(Group *group, Tensor *tensor) {
  return guarded([&] {
    std::vector<Tensor> tensors{*tensor};
    group->gloo->allreduce(tensors)->wait();
  });
}

// Replaces the tensor on every rank by that of `root`.
char *gm_group_broadcast(Group *group, Tensor *tensor, int root) {
  return guarded([&] {
    std::vector<Tensor> tensors{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    group->gloo->broadcast(tensors, options)->wait();
  });
}
}
