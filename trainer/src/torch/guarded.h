// What the functions of this folder share: C++ exceptions must not cross into Rust.

#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

// Runs `body`; returns null, or a message made with `strdup` that the caller frees.
template <typename F>
char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception of unknown type");
  }
}
