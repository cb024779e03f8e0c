// A function of one tensor whose inner values are forgotten after the forward pass and computed again in the backward
// pass, with the same random numbers.

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>

#include "guarded.h"

using Tensor = at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Takes the input's handle and writes a new one to `out`, or returns a message made with `strdup`.
using Call = char *(*)(void *body, Tensor *input, Tensor **out);

struct Body : torch::CustomClassHolder {
  Call call;
  void (*drop)(void *);
  void *body;
  Body(Call call, void (*drop)(void *), void *body) : call(call), drop(drop), body(body) {}
  ~Body() override { drop(body); }

  Tensor run(const Tensor &input) const {
    Tensor *out = nullptr;
    char *message = call(body, new Tensor(input), &out);
    if (message != nullptr) {
      std::string text(message);
      free(message);
      throw std::runtime_error(text);
    }
    Tensor result = std::move(*out);
    delete out;
    return result;
  }
};

Tensor random_state(at::Device device) {
  auto generator = at::globalContext().defaultGenerator(device);
  std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

void set_random_state(at::Device device, const Tensor &state) {
  auto generator = at::globalContext().defaultGenerator(device);
  std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

// Autocast as it was in the forward pass, for as long as this lives.
struct Autocast {
  at::DeviceType device;
  bool was;
  Autocast(at::DeviceType device, bool enabled)
      : device(device), was(at::autocast::is_autocast_enabled(device)) {
    at::autocast::set_autocast_enabled(device, enabled);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, was);
  }
};

struct Recompute : torch::autograd::Function<Recompute> {
  // `anchor` requires a gradient, so that the output does too where only the parameters inside need one.
  static Tensor forward(AutogradContext *context, Tensor input, Tensor anchor, c10::intrusive_ptr<Body> body) {
    context->save_for_backward({input, random_state(input.device())});
    context->saved_data["body"] = c10::IValue::make_capsule(body);
    context->saved_data["autocast"] = at::autocast::is_autocast_enabled(input.device().type());
    return body->run(input);
  }

  static variable_list backward(AutogradContext *context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    auto device = saved[0].device();
    auto input = saved[0].detach();
    input.requires_grad_(context->needs_input_grad(0));
    auto body = c10::static_intrusive_pointer_cast<Body>(context->saved_data["body"].toCapsule());
    Tensor output;
    auto now = random_state(device);
    set_random_state(device, saved[1]);
    {
      at::AutoGradMode with_gradients(true);
      Autocast autocast(device.type(), context->saved_data["autocast"].toBool());
      // Not the leaf itself: autocast keeps the cast of a leaf, and its users' gradients would be added in bfloat16.
      output = body->run(input.requires_grad() ? input.view_as(input) : input);
    }
    set_random_state(device, now);
    torch::autograd::backward({output}, {gradients[0]});
    return {input.grad(), Tensor(), Tensor()};
  }
};

}  // namespace

// Applies `body` to `input`; `drop` frees `body` once no backward pass can need it.
extern "C" char *gm_recompute(Tensor *input, Call call, void (*drop)(void *), void *body, Tensor **out) {
  return guarded([&] {
    auto held = c10::make_intrusive<Body>(call, drop, body);
    auto anchor = at::zeros({0}, input->options().dtype(at::kFloat)).requires_grad_(true);
    *out = new Tensor(Recompute::apply(*input, anchor, held));
  });
}
