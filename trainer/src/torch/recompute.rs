//! Activation checkpointing: what a function computes inside is forgotten, and computed again for its gradients.

use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;
use torch_sys::C_tensor;

use super::{check, handle};
use crate::error::Result;

type Body = Box<dyn Fn(&Tensor) -> Tensor + Send>;
type Call = extern "C" fn(*mut c_void, *mut C_tensor, *mut *mut C_tensor) -> *mut c_char;

unsafe extern "C" {
    fn gm_recompute(
        input: *mut C_tensor,
        call: Call,
        drop: extern "C" fn(*mut c_void),
        body: *mut c_void,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Returns `body(input)`, and runs `body` a second time in the backward pass instead of keeping what it needs for it.
///
/// The second run draws the same random numbers and has the same autocast mode. Tensors that `body` owns get gradients
/// as in any other function.
///
/// Source: Chen et al. 2016, as `torch.utils.checkpoint`.
///
/// # Errors
/// [`Error::Torch`](crate::error::Error::Torch) with the reason when `body` panics.
pub fn recompute(
    input: &Tensor,
    body: impl Fn(&Tensor) -> Tensor + Send + 'static,
) -> Result<Tensor> {
    let body: Box<Body> = Box::new(Box::new(body));
    let mut out = std::ptr::null_mut();
    // SAFETY: a live handle; `body` is given away and freed by `free`, once, with the node that holds it, also when the
    // call fails; `out` is written with a new handle exactly when the call succeeds. The node runs `body` on one thread at
    // a time: here, and in the backward pass that this thread waits for.
    check("compute a part of the model", unsafe {
        gm_recompute(handle(input), call, free, Box::into_raw(body).cast(), &mut out)
    })?;
    // SAFETY: a handle that the shim made for us, used nowhere else.
    Ok(unsafe { Tensor::from_ptr(out) })
}

extern "C" fn call(
    body: *mut c_void,
    input: *mut C_tensor,
    out: *mut *mut C_tensor,
) -> *mut c_char {
    // SAFETY: the pointer that `recompute` gave away, alive until `free`.
    let body = unsafe { &*body.cast::<Body>() };
    // SAFETY: a handle that the shim made for us, used nowhere else.
    let input = unsafe { Tensor::from_ptr(input) };
    // A panic must not cross into C++; tensors stay as they are when an operation fails.
    match catch_unwind(AssertUnwindSafe(|| body(&input))) {
        Ok(result) => {
            let made = result.as_ptr().cast_mut();
            std::mem::forget(result);
            // SAFETY: the shim waits for the handle here, and frees it.
            unsafe { *out = made };
            std::ptr::null_mut()
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let line = text.and_then(|text| text.lines().next()).unwrap_or("a panic");
            let message = CString::new(line.replace('\0', " ")).expect("no zero is left");
            // SAFETY: copies a C string; the shim frees the copy.
            unsafe { libc::strdup(message.as_ptr()) }
        }
    }
}

extern "C" fn free(body: *mut c_void) {
    // SAFETY: the pointer that `recompute` gave away, handed back once.
    drop(unsafe { Box::from_raw(body.cast::<Body>()) });
}
