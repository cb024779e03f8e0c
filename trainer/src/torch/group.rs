//! Processes that work together: a process group of libtorch's c10d over Gloo.

use std::ffi::{CString, c_char, c_void};

use tch::Tensor;
use torch_sys::C_tensor;

use super::{check, handle};
use crate::error::{Error, Result};

unsafe extern "C" {
    fn gm_group_join(
        host: *const c_char,
        port: u16,
        rank: i32,
        world: i32,
        timeout_ms: u64,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    fn gm_group_leave(group: *mut c_void);
    fn gm_group_sum(group: *mut c_void, tensor: *mut C_tensor) -> *mut c_char;
    fn gm_group_broadcast(group: *mut c_void, tensor: *mut C_tensor, root: i32) -> *mut c_char;
}

/// How long a process waits for the others: the time of the longest evaluation or checkpoint.
const TIMEOUT_MS: u64 = 30 * 60 * 1000;

/// A process's place among those that it works with. Every member makes the same calls in the same order.
#[derive(Debug)]
pub struct Group(*mut c_void);

// SAFETY: c10d's groups and stores may be used from any thread, and ours is used by one at a time.
unsafe impl Send for Group {}

impl Group {
    /// Waits for the `world` members to come; that of rank 0 listens at `host` and `port`.
    ///
    /// # Errors
    /// [`Error::Torch`] when a member does not come in time, or the address cannot be used.
    pub fn join(host: &str, port: u16, rank: u32, world: u32) -> Result<Self> {
        let action = "join the other processes";
        let bad = |why: &str| Error::Torch { action, why: why.to_owned() };
        let host = CString::new(host).map_err(|_| bad("the host's name holds a zero byte"))?;
        let narrow = |n: u32| i32::try_from(n).map_err(|_| bad("a rank is beyond 31 bits"));
        let mut out = std::ptr::null_mut();
        // SAFETY: a C string that outlives the call; `out` is written exactly when the call succeeds.
        check(action, unsafe {
            gm_group_join(host.as_ptr(), port, narrow(rank)?, narrow(world)?, TIMEOUT_MS, &mut out)
        })?;
        Ok(Self(out))
    }

    /// Replaces `tensor`, of the same shape and kind everywhere, by the sum over all members.
    ///
    /// # Errors
    /// [`Error::Torch`] when a member is gone.
    pub fn sum(&self, tensor: &Tensor) -> Result<()> {
        // SAFETY: a live group and a live handle; the shim waits for the end.
        check("add up over all processes", unsafe { gm_group_sum(self.0, handle(tensor)) })
    }

    /// Replaces `tensor`, of the same shape and kind everywhere, by that of the member `root`.
    ///
    /// # Errors
    /// [`Error::Torch`] when a member is gone.
    pub fn broadcast(&self, tensor: &Tensor, root: u32) -> Result<()> {
        let root = i32::try_from(root).expect("a rank that was joined with");
        // SAFETY: as for [`Group::sum`].
        check("hand on to all processes", unsafe {
            gm_group_broadcast(self.0, handle(tensor), root)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the handle came from the shim and is not used again.
        unsafe { gm_group_leave(self.0) }
    }
}
