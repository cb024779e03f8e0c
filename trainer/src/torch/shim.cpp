// What the `tch` crate lacks, over the same libtorch headers.
//
// Every function returns null, or a message made with `strdup` that the caller frees: C++ exceptions must
// not cross into Rust. `Tensor` handles are `at::Tensor*`, as in `torch-sys`; a handle written to an `out`
// argument belongs to the caller.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_adam_ops.h>
#include <ATen/ops/_fused_adamw_ops.h>

#include <cstdint>
#include <vector>

#include "guarded.h"

using Tensor = at::Tensor;

namespace {

std::vector<Tensor> list(Tensor *const *handles, size_t n) {
  std::vector<Tensor> tensors;
  tensors.reserve(n);
  for (size_t i = 0; i < n; ++i) tensors.push_back(*handles[i]);
  return tensors;
}

}  // namespace

extern "C" {

// One Adam update of `n` parameters in place, with decoupled weight decay (AdamW) or with the decay as part of
// the gradient. `step` is the number of this update, counted from 1, shared by all of them. Where `found_inf`
// holds 1 the kernel leaves everything as it is.
char *gm_fused_adam(Tensor *const *parameters, Tensor *const *gradients, Tensor *const *first,
                    Tensor *const *second, size_t n, Tensor *step, double lr, double beta1, double beta2,
                    double weight_decay, double eps, bool is_decoupled, Tensor *found_inf) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto p = list(parameters, n), g = list(gradients, n), m = list(first, n), v = list(second, n);
    std::vector<Tensor> steps(n, *step);
    auto kernel = is_decoupled ? static_cast<decltype(&at::_ops::_fused_adamw_::call)>(at::_ops::_fused_adamw_::call)
                               : static_cast<decltype(&at::_ops::_fused_adam_::call)>(at::_ops::_fused_adam_::call);
    kernel(p, g, m, v, /*max_exp_avg_sqs=*/{}, steps, lr, beta1, beta2, weight_decay, eps,
           /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, *found_inf);
  });
}

// One step of stochastic gradient descent in place, with the decay as part of the gradient. Buffers of zero
// are those before the first step, as the dampening is zero.
char *gm_fused_sgd(Tensor *const *parameters, Tensor *const *gradients, Tensor *const *buffers, size_t n,
                   double lr, double momentum, bool is_nesterov, double weight_decay, Tensor *found_inf) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto p = list(parameters, n), g = list(gradients, n);
    auto b = list(buffers, momentum == 0 ? 0 : n);
    at::_fused_sgd_(p, g, b, weight_decay, momentum, lr, /*dampening=*/0, is_nesterov, /*maximize=*/false,
                    /*is_first_step=*/false, /*grad_scale=*/{}, *found_inf);
  });
}

// Writes to `out` a matrix near the orthogonal one closest to `matrix`, in bfloat16: five steps of a quintic
// Newton-Schulz iteration, as `torch.optim.Muon` does them.
char *gm_orthogonal(Tensor *matrix, Tensor **out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    bool is_tall = matrix->size(0) > matrix->size(1);
    auto x = matrix->to(at::kBFloat16);
    if (is_tall) x = x.t();
    x = x / x.norm().clamp_min(1e-7);
    for (int step = 0; step < 5; ++step) {
      auto gram = at::mm(x, x.t());
      auto update = at::addmm(gram, gram, gram, /*beta=*/-4.7750, /*alpha=*/2.0315);
      x = at::addmm(x, update, x, /*beta=*/3.4445);
    }
    *out = new Tensor(is_tall ? x.t() : x);
  });
}

// Writes the L2 norm over all gradients to `out` and, when `max_norm` is positive, scales the gradients in
// place to at most that norm. Nothing waits for the device.
char *gm_clip_gradients(Tensor *const *gradients, size_t n, double max_norm, Tensor **out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto g = list(gradients, n);
    auto norm = at::linalg_vector_norm(at::stack(at::_foreach_norm(g, 2)), 2);
    if (max_norm > 0) {
      auto scale = at::clamp_max(max_norm / (norm + 1e-6), 1.0);
      at::_foreach_mul_(g, scale);
    }
    *out = new Tensor(norm);
  });
}

// Drops the gradients, so that the next backward pass writes new ones instead of adding.
char *gm_clear_gradients(Tensor *const *parameters, size_t n) {
  return guarded([&] {
    for (size_t i = 0; i < n; ++i) parameters[i]->mutable_grad().reset();
  });
}

char *gm_set_gradient(Tensor *parameter, Tensor *gradient) {
  return guarded([&] { parameter->mutable_grad() = *gradient; });
}

char *gm_random_state(Tensor **out) {
  return guarded([&] {
    auto generator = at::detail::getDefaultCPUGenerator();
    std::lock_guard<std::mutex> lock(generator.mutex());
    *out = new Tensor(generator.get_state());
  });
}

char *gm_set_random_state(Tensor *state) {
  return guarded([&] {
    auto generator = at::detail::getDefaultCPUGenerator();
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(*state);
  });
}

// Turns automatic bfloat16 on or off for operators that run on this thread, and returns what was set in
// `was_enabled`.
char *gm_autocast(bool on_cuda, bool enabled, bool *was_enabled) {
  return guarded([&] {
    auto device = on_cuda ? at::kCUDA : at::kCPU;
    *was_enabled = at::autocast::is_autocast_enabled(device);
    if (enabled) {
      at::autocast::set_autocast_dtype(device, at::kBFloat16);
      at::autocast::increment_nesting();
    } else if (*was_enabled && at::autocast::decrement_nesting() == 0) {
      // The cache holds cast weights: they are stale after the next update.
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_enabled(device, enabled);
  });
}

// Refuses operators whose result depends on the order in which threads finish.
char *gm_deterministic(bool enabled) {
  return guarded([&] {
    at::globalContext().setDeterministicAlgorithms(enabled, /*warn_only=*/false);
    // Otherwise every new tensor is filled first: a check for reads before writes, at the price of a pass.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  });
}
}
