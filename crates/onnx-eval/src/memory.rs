//! How much memory the values of a run take, and how much they may.

use engine::DType;
use indexmap::IndexMap;

use crate::tensor::Tensor;
use crate::{Fault, OracleError};

/// What is taken of a number of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    alive: usize,
    limit: usize,
}

impl Memory {
    pub fn new(limit: usize) -> Self {
        Self { alive: 0, limit }
    }

    /// The bytes that a shape takes at so many an element, if there is room for them.
    pub fn fits(&self, shape: &[usize], element: usize) -> Result<usize, Fault> {
        if shape.contains(&0) {
            return Ok(0);
        }
        shape
            .iter()
            .try_fold(element, |bytes, &dim| bytes.checked_mul(dim))
            .filter(|bytes| self.alive.checked_add(*bytes).is_some_and(|all| all <= self.limit))
            .ok_or_else(|| Fault::TooLarge { shape: shape.to_vec(), alive: self.alive, limit: self.limit })
    }

    /// Takes the bytes of such a tensor.
    pub fn take(&mut self, dtype: DType, shape: &[usize]) -> Result<(), Fault> {
        self.alive += self.fits(shape, element_size(dtype))?;
        Ok(())
    }

    /// Gives back what [`take`](Self::take) took for the tensor.
    pub fn give_back(&mut self, tensor: &Tensor) {
        self.alive = self.alive.saturating_sub(tensor.len().saturating_mul(element_size(tensor.dtype)));
    }
}

/// How many bytes an element takes here.
fn element_size(dtype: DType) -> usize {
    if dtype.is_float() { size_of::<f64>() } else { size_of::<i128>() }
}

/// The constants of a graph, those of its branches included: names are unique.
pub(crate) struct Constants {
    pub memory: Memory,
    /// As the graph holds them, and as they are computed with.
    tensors: IndexMap<String, (onnx_graph::Tensor, Tensor)>,
}

impl Constants {
    pub fn new(limit: usize) -> Self {
        Self { memory: Memory::new(limit), tensors: IndexMap::new() }
    }

    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).map(|(_, tensor)| tensor)
    }

    /// All of them, as the graph holds them.
    pub fn held(&self) -> impl Iterator<Item = (&str, &onnx_graph::Tensor)> {
        self.tensors.iter().map(|(name, (held, _))| (name.as_str(), held))
    }

    /// Many constants may be the same bytes of a file: what they take is counted before they are copied.
    pub fn insert(&mut self, name: &str, tensor: &onnx_graph::Tensor) -> Result<(), OracleError> {
        let read = self.memory.take(tensor.dtype, &tensor.shape).and_then(|()| Tensor::from_graph(tensor));
        let read =
            read.map_err(|fault| OracleError::Constant { name: name.into(), fault: Box::new(fault) })?;
        self.tensors.insert(name.into(), (tensor.clone(), read));
        Ok(())
    }
}
