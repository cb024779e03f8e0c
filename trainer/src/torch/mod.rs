//! What `tch` lacks, over a thin C++ shim: the only unsafe code of the workspace.
//!
//! [`start`] comes first in a process. [`fused_adam`] and [`clip_gradients`] work on lists of tensors without
//! waiting for the device; [`random_state`] and [`set_random_state`] make a stopped run go on with the same
//! dropout; [`autocast_bf16`] is `tch::autocast` that also works on a CPU.
#![expect(unsafe_code, reason = "the boundary to libtorch's C++ interface")]

mod group;
mod recompute;

use std::ffi::{CStr, c_char};
use std::sync::Once;

pub use group::Group;
use tch::{Device, Tensor};
use torch_sys::C_tensor;

pub use self::recompute::recompute;
use crate::error::{Error, Result};

unsafe extern "C" {
    fn gm_fused_adam(
        parameters: *const *mut C_tensor,
        gradients: *const *mut C_tensor,
        first: *const *mut C_tensor,
        second: *const *mut C_tensor,
        n: usize,
        step: *mut C_tensor,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        is_decoupled: bool,
        found_inf: *mut C_tensor,
    ) -> *mut c_char;
    fn gm_fused_sgd(
        parameters: *const *mut C_tensor,
        gradients: *const *mut C_tensor,
        buffers: *const *mut C_tensor,
        n: usize,
        lr: f64,
        momentum: f64,
        is_nesterov: bool,
        weight_decay: f64,
        found_inf: *mut C_tensor,
    ) -> *mut c_char;
    fn gm_orthogonal(matrix: *mut C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    fn gm_clip_gradients(
        gradients: *const *mut C_tensor,
        n: usize,
        max_norm: f64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn gm_clear_gradients(parameters: *const *mut C_tensor, n: usize) -> *mut c_char;
    fn gm_set_gradient(parameter: *mut C_tensor, gradient: *mut C_tensor) -> *mut c_char;
    fn gm_random_state(out: *mut *mut C_tensor) -> *mut c_char;
    fn gm_set_random_state(state: *mut C_tensor) -> *mut c_char;
    fn gm_autocast(on_cuda: bool, enabled: bool, was_enabled: *mut bool) -> *mut c_char;
    fn gm_deterministic(enabled: bool) -> *mut c_char;
}

/// Prepares the process for tensors; later calls do nothing.
///
/// Keeps glibc from giving every large temporary back to the kernel (page faults were about a quarter of a
/// small CPU step), and loads libtorch's CUDA half where it is installed, which must happen before the first
/// question about CUDA.
pub fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: `mallopt` only sets thresholds of the allocator, and takes its own lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
            libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        }
        #[cfg(target_os = "linux")]
        // SAFETY: the name is a C string; the library registers its operators in its initialisers, and stays
        // loaded. Where it is absent the call returns null, and the CPU is used.
        unsafe {
            libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
        }
    });
}

/// The device that tensors live on: the first CUDA device where libtorch has one, else the CPU.
#[must_use]
pub fn device() -> Device {
    start();
    Device::cuda_if_available()
}

/// Hyper-parameters of one Adam update.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// Learning rate of this update.
    pub lr: f64,
    /// Decay rates of both moments.
    pub betas: [f64; 2],
    /// Keeps the denominator from zero.
    pub eps: f64,
    /// How much weights decay.
    pub weight_decay: f64,
    /// Whether they decay apart from the gradient (AdamW) or as a part of it.
    pub is_decoupled: bool,
}

/// Tensors of one Adam update, in the same order in each list.
#[derive(Debug)]
pub struct AdamTensors<'a> {
    /// Updated in place.
    pub parameters: &'a [Tensor],
    /// Their gradients.
    pub gradients: &'a [Tensor],
    /// First moments, updated in place.
    pub first: &'a [Tensor],
    /// Second moments, updated in place.
    pub second: &'a [Tensor],
    /// The number of this update, counted from 1: a float scalar.
    pub step: &'a Tensor,
    /// A float scalar; 1 leaves everything as it is.
    pub skip: &'a Tensor,
}

/// Updates all parameters by one Adam step in one kernel call.
///
/// Source: Kingma and Ba 2015, Loshchilov and Hutter 2019, as in `torch.optim.AdamW(fused=True)`.
///
/// # Errors
/// [`Error::Torch`] when libtorch refuses shapes, kinds or devices.
///
/// # Panics
/// When the lists differ in length.
pub fn fused_adam(tensors: &AdamTensors<'_>, with: Adam) -> Result<()> {
    let n = tensors.parameters.len();
    let lists = [tensors.parameters, tensors.gradients, tensors.first, tensors.second];
    assert!(lists.iter().all(|list| list.len() == n), "lists of {:?}", lists.map(<[_]>::len));
    let [parameters, gradients, first, second] = lists.map(handles);
    // SAFETY: all handles are of live tensors borrowed for the call, each list has `n` of them, and the shim
    // copies the references it keeps during the call.
    check("update parameters", unsafe {
        gm_fused_adam(
            parameters.as_ptr(),
            gradients.as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
            n,
            handle(tensors.step),
            with.lr,
            with.betas[0],
            with.betas[1],
            with.weight_decay,
            with.eps,
            with.is_decoupled,
            handle(tensors.skip),
        )
    })
}

/// Hyper-parameters of one step of stochastic gradient descent.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// Learning rate of this update.
    pub lr: f64,
    /// Share of the last direction that is kept.
    pub momentum: f64,
    /// Whether the gradient is taken where momentum leads.
    pub is_nesterov: bool,
    /// Added to the gradient, times the parameter.
    pub weight_decay: f64,
}

/// Updates all parameters by one step of gradient descent in one kernel call; `buffers` hold the directions.
///
/// Where `skip`, a float scalar, is 1 nothing changes.
///
/// Source: Sutskever et al. 2013, as in `torch.optim.SGD(fused=True)`.
///
/// # Errors
/// [`Error::Torch`] when libtorch refuses shapes, kinds or devices.
///
/// # Panics
/// When the lists differ in length.
pub fn fused_sgd(
    [parameters, gradients, buffers]: [&[Tensor]; 3],
    with: Sgd,
    skip: &Tensor,
) -> Result<()> {
    let n = parameters.len();
    assert!(
        gradients.len() == n && buffers.len() == n,
        "{n}, {}, {}",
        gradients.len(),
        buffers.len()
    );
    let lists = [parameters, gradients, buffers].map(handles);
    // SAFETY: as for [`fused_adam`].
    check("update parameters", unsafe {
        gm_fused_sgd(
            lists[0].as_ptr(),
            lists[1].as_ptr(),
            lists[2].as_ptr(),
            n,
            with.lr,
            with.momentum,
            with.is_nesterov,
            with.weight_decay,
            handle(skip),
        )
    })
}

/// Returns a matrix near the orthogonal one that is closest to `matrix`, `[A, B]`, in bfloat16.
///
/// Source: Jordan et al. 2024, five Newton-Schulz steps as in `torch.optim.Muon`.
///
/// # Errors
/// [`Error::Torch`] when it is no matrix.
pub fn orthogonal(matrix: &Tensor) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: a live handle; `out` is written with a new handle exactly when the call succeeds.
    check("make a matrix orthogonal", unsafe { gm_orthogonal(handle(matrix), &mut out) })?;
    // SAFETY: a handle that the shim made for us, used nowhere else.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Returns the L2 norm over all gradients, and scales them in place to at most `max_norm`.
///
/// The norm is a scalar tensor, so nothing waits for the device. `max_norm` of `None` only measures.
/// Scales by `max_norm / (norm + 1e-6)`, as `torch.nn.utils.clip_grad_norm_` does.
///
/// # Errors
/// [`Error::Torch`] when libtorch refuses a tensor.
pub fn clip_gradients(gradients: &[Tensor], max_norm: Option<f64>) -> Result<Tensor> {
    let list = handles(gradients);
    let mut out = std::ptr::null_mut();
    // SAFETY: live handles, `n` of them; `out` is written with a new handle exactly when the call succeeds.
    check("clip gradients", unsafe {
        gm_clip_gradients(list.as_ptr(), list.len(), max_norm.unwrap_or(0.0), &mut out)
    })?;
    // SAFETY: a handle that the shim made for us, used nowhere else.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Drops the gradients of `parameters`, so that the next backward pass writes new ones instead of adding.
///
/// # Errors
/// [`Error::Torch`] when libtorch refuses a tensor.
pub fn clear_gradients(parameters: &[Tensor]) -> Result<()> {
    let list = handles(parameters);
    // SAFETY: live handles, `n` of them.
    check("clear gradients", unsafe { gm_clear_gradients(list.as_ptr(), list.len()) })
}

/// Makes `gradient` the gradient of `parameter`.
///
/// # Errors
/// [`Error::Torch`] when shapes, kinds or devices differ.
pub fn set_gradient(parameter: &Tensor, gradient: &Tensor) -> Result<()> {
    // SAFETY: two live handles; the shim takes a counted reference to the gradient.
    check("set a gradient", unsafe { gm_set_gradient(handle(parameter), handle(gradient)) })
}

/// Returns the state of the CPU's random generator, as bytes.
///
/// # Errors
/// [`Error::Torch`] when libtorch cannot read it.
pub fn random_state() -> Result<Vec<u8>> {
    let mut out = std::ptr::null_mut();
    // SAFETY: `out` is written with a new handle exactly when the call succeeds.
    check("read the random state", unsafe { gm_random_state(&mut out) })?;
    // SAFETY: a handle that the shim made for us, used nowhere else.
    let state = unsafe { Tensor::from_ptr(out) };
    let mut bytes = vec![0; state.numel()];
    state
        .f_copy_data_u8(&mut bytes, state.numel())
        .map_err(Error::torch("read the random state"))?;
    Ok(bytes)
}

/// Puts the CPU's random generator back into a state that [`random_state`] returned.
///
/// # Errors
/// [`Error::Torch`] when the bytes are no such state.
pub fn set_random_state(state: &[u8]) -> Result<()> {
    let state = Tensor::from_slice(state);
    // SAFETY: a live handle.
    check("restore the random state", unsafe { gm_set_random_state(handle(&state)) })
}

/// Runs `body` with matrix products in bfloat16 and reductions in float32, where `enabled`.
///
/// # Errors
/// [`Error::Torch`] when the device has no such mode.
pub fn autocast_bf16<T>(device: Device, enabled: bool, body: impl FnOnce() -> T) -> Result<T> {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            let mut was = false;
            // SAFETY: sets a flag of this thread. A message would say that the device is unknown, which the
            // call that enabled it would have said before.
            let message = unsafe { gm_autocast(self.0, false, &mut was) };
            assert!(message.is_null(), "autocast could be turned on but not off");
        }
    }
    if !enabled {
        return Ok(body());
    }
    let on_cuda = device != Device::Cpu;
    let mut was = false;
    // SAFETY: sets flags of this thread, and writes one `bool` that outlives the call.
    check("turn on bfloat16", unsafe { gm_autocast(on_cuda, true, &mut was) })?;
    let _restore = Restore(on_cuda);
    Ok(body())
}

/// Makes libtorch refuse operators whose result depends on the order in which threads finish.
///
/// # Errors
/// [`Error::Torch`] when libtorch cannot change the mode.
pub fn set_deterministic(enabled: bool) -> Result<()> {
    // SAFETY: sets a flag of libtorch's global context.
    check("change the deterministic mode", unsafe { gm_deterministic(enabled) })
}

fn handle(tensor: &Tensor) -> *mut C_tensor {
    tensor.as_ptr().cast_mut()
}

fn handles(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(handle).collect()
}

fn check(action: &'static str, message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a string made with `strdup`, which is ours to read and free, once.
    let why = unsafe {
        let why = CStr::from_ptr(message).to_string_lossy().into_owned();
        libc::free(message.cast());
        why
    };
    Err(Error::Torch { action, why })
}

/// Returns a CPU tensor whose bytes `fill` writes, without a copy in between.
///
/// # Errors
/// What `fill` returns, or [`Error::Torch`] when there is no memory for `shape`.
pub(crate) fn tensor_from(
    shape: &[i64],
    kind: tch::Kind,
    fill: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<Tensor> {
    let tensor =
        Tensor::f_zeros(shape, (kind, Device::Cpu)).map_err(Error::torch("make a tensor"))?;
    let n_bytes = tensor.numel() * kind.elt_size_in_bytes();
    if n_bytes > 0 {
        // SAFETY: a fresh, contiguous CPU tensor of `n_bytes` initialised bytes that nobody else has seen.
        let bytes = unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), n_bytes) };
        fill(bytes)?;
    }
    Ok(tensor)
}

/// A tensor on the CPU in row-major order, with its bytes.
#[derive(Debug)]
pub(crate) struct Bytes(Tensor);

impl Bytes {
    /// Copies only where `tensor` lies on another device or in another order.
    pub(crate) fn of(tensor: &Tensor) -> Self {
        Self(tensor.detach().to_device(Device::Cpu).contiguous())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        let n_bytes = self.0.numel() * self.0.kind().elt_size_in_bytes();
        if n_bytes == 0 {
            return &[];
        }
        // SAFETY: a contiguous CPU tensor of `n_bytes` bytes, held by `self`; the slice borrows `self`, and
        // nobody updates parameters while they are being written.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast::<u8>().cast_const(), n_bytes) }
    }
}
