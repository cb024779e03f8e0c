//! `gristmill._native`: Gristmill's reader for Python. The Python half of the package gives it its interface.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use numpy::{IntoPyArray, PyArrayMethods};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use shard::packing::Packing;
use shard::reader::{Batch, BatchPlan, Batches, ReaderConfig, SequenceReader};

/// Opens a split of a dataset of tokens.
#[pyclass(module = "gristmill._native")]
struct Reader {
    reader: Option<SequenceReader>,
    seq_len: usize,
    #[pyo3(get)]
    version: u64,
    #[pyo3(get)]
    manifest_hash: String,
    #[pyo3(get)]
    n_sequences: u64,
}

#[pymethods]
impl Reader {
    #[new]
    #[pyo3(signature = (*, path, version, split, seq_len, seed, packing, mask_documents, verify))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        version: Option<u64>,
        split: String,
        seq_len: usize,
        seed: u64,
        packing: &str,
        mask_documents: bool,
        verify: bool,
    ) -> PyResult<Self> {
        let packing = match packing {
            "stream" => Packing::Stream,
            "best_fit" => Packing::BestFit,
            other => {
                let message = format!("unknown packing `{other}`, known are `stream`, `best_fit`");
                return Err(PyValueError::new_err(message));
            }
        };
        let partition = None;
        let config = ReaderConfig { split, partition, seq_len, seed, verify, packing, mask_documents };
        let reader = py.detach(|| SequenceReader::open(&path, version, config)).map_err(raised)?;
        Ok(Self {
            version: reader.version(),
            manifest_hash: reader.manifest_hash().to_owned(),
            n_sequences: reader.n_sequences(),
            seq_len,
            reader: Some(reader),
        })
    }

    /// Begins to read; the reader is used up.
    #[pyo3(signature = (*, batch, rank, world, next_sample, ahead))]
    fn batches(
        &mut self,
        batch: u64,
        rank: u64,
        world: u64,
        next_sample: u64,
        ahead: usize,
    ) -> PyResult<BatchIterator> {
        let used = || PyRuntimeError::new_err("this reader has given its batches");
        let reader = self.reader.take().ok_or_else(used)?;
        let plan = BatchPlan { batch, rank, world, next_sample };
        let batches = Batches::start(Box::new(reader), plan, ahead);
        Ok(BatchIterator { batches: Mutex::new(batches), seq_len: self.seq_len })
    }
}

/// Batches in order.
#[pyclass(module = "gristmill._native")]
struct BatchIterator {
    batches: Mutex<Batches>,
    seq_len: usize,
}

#[pymethods]
impl BatchIterator {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        // Other threads of Python run while this one waits for a row group.
        let next = py.detach(|| self.batches.lock().unwrap_or_else(PoisonError::into_inner).next());
        match next {
            None => Ok(None),
            Some(Err(error)) => Err(raised(error)),
            Some(Ok(batch)) => arrays(py, batch, self.seq_len).map(Some),
        }
    }
}

/// Gives the buffers of a batch to NumPy, without a copy.
fn arrays(py: Python<'_>, batch: Batch, seq_len: usize) -> PyResult<Bound<'_, PyDict>> {
    let Batch { tokens, loss_mask, boundaries, .. } = batch;
    let n = boundaries.len();
    let found = PyDict::new(py);
    found.set_item("tokens", tokens.into_pyarray(py).reshape([n, seq_len + 1])?)?;
    found.set_item("loss_mask", loss_mask.into_pyarray(py).reshape([n, seq_len])?)?;
    let boundaries = boundaries.into_iter().map(|row| row.into_pyarray(py));
    found.set_item("boundaries", PyList::new(py, boundaries)?)?;
    Ok(found)
}

fn raised(error: shard::Error) -> PyErr {
    match error {
        shard::Error::Io { .. } => PyOSError::new_err(error.to_string()),
        error => PyValueError::new_err(error.to_string()),
    }
}

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{BatchIterator, Reader};
}
