#pragma once
// The wheel has no headers of Gloo; the process group holds only shared pointers to these.
namespace gloo {
namespace transport {
class Device;
class UnboundBuffer;
}  // namespace transport
}  // namespace gloo
