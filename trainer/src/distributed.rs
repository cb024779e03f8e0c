//! Data parallel training: every process computes the gradients of its slice of each global batch, and their sum makes
//! the same update everywhere.
//!
//! Which samples make a batch, and by how many targets the loss is divided, does not depend on the number of processes.
//! Processes find each other by the variables that `torchrun` sets.

use std::env;
use std::net::{Ipv4Addr, TcpListener};

use tch::Tensor;

use crate::error::{Error, Result};
use crate::torch::Group;

/// Bytes of gradients that are added up in one call: as PyTorch's `DistributedDataParallel`.
const BUCKET_BYTES: usize = 25 << 20;

/// This process among those that share a run.
#[derive(Debug)]
pub struct World {
    group: Option<Group>,
    rank: u32,
    size: u32,
}

impl World {
    /// A run of one process.
    #[must_use]
    pub fn alone() -> Self {
        Self { group: None, rank: 0, size: 1 }
    }

    /// Waits for the other processes; that of rank 0 listens at `host` and `port`.
    ///
    /// # Errors
    /// As [`Group::join`].
    pub fn join(host: &str, port: u16, rank: u32, size: u32) -> Result<Self> {
        Ok(Self { group: Some(Group::join(host, port, rank, size)?), rank, size })
    }

    /// Joins as `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` say; alone without `WORLD_SIZE`.
    ///
    /// # Errors
    /// [`Error::Unusable`] when one is absent or no number; else as [`World::join`].
    pub fn from_environment() -> Result<Self> {
        if env::var_os("WORLD_SIZE").is_none() {
            return Ok(Self::alone());
        }
        let number = |name: &'static str| {
            let text = variable(name)?;
            text.parse::<u32>().map_err(|_| unusable(name, &format!("it is `{text}`, no number")))
        };
        let (rank, size) = (number("RANK")?, number("WORLD_SIZE")?);
        if rank >= size {
            return Err(unusable("RANK", &format!("it is {rank}, `WORLD_SIZE` is {size}")));
        }
        let port = number("MASTER_PORT")?;
        let port =
            u16::try_from(port).map_err(|_| unusable("MASTER_PORT", &format!("it is {port}")))?;
        Self::join(&variable("MASTER_ADDR")?, port, rank, size)
    }

    /// This process, from 0.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Processes.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Whether this process writes what all have made.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Replaces `tensor` by the sum over all processes.
    ///
    /// # Errors
    /// [`Error::Torch`] when a process is gone.
    pub fn sum(&self, tensor: &Tensor) -> Result<()> {
        self.group.as_ref().map_or(Ok(()), |group| group.sum(tensor))
    }

    /// Returns the sum of a number over all processes.
    ///
    /// # Errors
    /// [`Error::Torch`] when a process is gone.
    pub fn sum_of(&self, n: u64) -> Result<u64> {
        if self.group.is_none() {
            return Ok(n);
        }
        let tensor = Tensor::from_slice(&[i64::try_from(n).expect("a count")]);
        self.sum(&tensor)?;
        Ok(u64::try_from(tensor.int64_value(&[0])).expect("counts add up to a count"))
    }

    /// Waits until every process is here.
    ///
    /// # Errors
    /// [`Error::Torch`] when a process is gone.
    pub fn wait(&self) -> Result<()> {
        self.sum_of(0).map(|_| ())
    }

    /// Replaces each gradient by the sum over all processes, in buckets of 25 MiB.
    ///
    /// # Errors
    /// [`Error::Torch`] when a process is gone.
    pub fn sum_gradients(&self, gradients: &[Tensor]) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        in_buckets(gradients, |flat| group.sum(flat))
    }

    /// Replaces each parameter by that of the process which updated it: `owners` has one for each.
    ///
    /// # Errors
    /// [`Error::Torch`] when a process is gone.
    pub fn share(&self, parameters: &[Tensor], owners: &[u32]) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        for owner in 0..self.size {
            let owned = parameters.iter().zip(owners).filter(|(_, its)| **its == owner);
            let owned: Vec<Tensor> = owned.map(|(tensor, _)| tensor.detach()).collect();
            in_buckets(&owned, |flat| group.broadcast(flat, owner))?;
        }
        Ok(())
    }
}

/// Returns which of `n` processes updates each parameter of these sizes: the largest first, each to the one that has least.
///
/// Source: Rajbhandari et al. 2020, the first stage of ZeRO, by whole parameters.
#[must_use]
pub fn owners(sizes: &[usize], n: u32) -> Vec<u32> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(sizes[index]));
    let mut loads = vec![0; n as usize];
    let mut owners = vec![0; sizes.len()];
    for index in order {
        let least = (0..n).min_by_key(|&rank| loads[rank as usize]).expect("at least one process");
        loads[least as usize] += sizes[index];
        owners[index] = least;
    }
    owners
}

/// Hands tensors to `work` as flat ones of up to 25 MiB, and takes over what it makes of them.
fn in_buckets(tensors: &[Tensor], work: impl Fn(&Tensor) -> Result<()>) -> Result<()> {
    let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
    let mut rest = tensors;
    while !rest.is_empty() {
        let mut sum = 0;
        let fits = rest.iter().take_while(|tensor| {
            sum += bytes(tensor);
            sum <= BUCKET_BYTES
        });
        let n = fits.count().max(1);
        let (bucket, others) = rest.split_at(n);
        let flat = Tensor::cat(&bucket.iter().map(|g| g.reshape([-1])).collect::<Vec<_>>(), 0);
        work(&flat)?;
        let mut first = 0;
        for tensor in bucket {
            let n = i64::try_from(tensor.numel()).expect("a tensor's size");
            let part = flat.narrow(0, first, n).view_as(tensor);
            tensor.shallow_clone().f_copy_(&part).map_err(Error::torch("exchange tensors"))?;
            first += n;
        }
        rest = others;
    }
    Ok(())
}

/// Returns a port of this machine that nothing listens at.
///
/// # Errors
/// [`Error::Io`] when there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.map_err(Error::io("find a free port of", "127.0.0.1"))?.port())
}

fn variable(name: &'static str) -> Result<String> {
    env::var(name).map_err(|error| unusable(name, &error.to_string()))
}

fn unusable(name: &str, why: &str) -> Error {
    Error::Unusable {
        action: "join the other processes",
        what: format!("by the variable `{name}`"),
        why: why.to_owned(),
        hint: "start with `--nproc` or `torchrun`, which set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
            .to_owned(),
    }
}
