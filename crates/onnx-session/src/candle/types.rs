//! What is known of a value before anything runs: its dtype, and its shape as far as the graph fixes it.
//!
//! Lowering needs the rank of a value (a negative axis, a `Transpose` without `perm`) and sometimes a length. Declared
//! `value_info` is not trusted: a wrong rank there would become a wrong number. Everything here follows from the
//! inputs, the initializers and the operators.

use engine::{DType, Dim, ValueSpec};
use onnx_graph::shape;

/// A dimension: its size, where it is the same in every run.
pub(crate) type Size = Option<usize>;

/// The dtype of a value and what is known of its shape; `shape` is `None` where even the rank is open.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValueType {
    pub dtype: DType,
    pub shape: Option<Vec<Size>>,
}

impl ValueType {
    pub fn new(dtype: DType, shape: Option<Vec<Size>>) -> Self {
        Self { dtype, shape }
    }

    pub fn known(dtype: DType, dims: &[usize]) -> Self {
        Self { dtype, shape: Some(dims.iter().copied().map(Some).collect()) }
    }

    pub fn of_spec(spec: &ValueSpec) -> Self {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Symbol(_) | Dim::Any => None,
        };
        Self { dtype: spec.dtype, shape: spec.shape.as_ref().map(|dims| dims.iter().map(size).collect()) }
    }

    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, shape: self.shape.clone() }
    }

    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The number of elements, where it is known. One that no `usize` can hold counts as the largest.
    pub fn elements(&self) -> Option<usize> {
        let dims: Option<Vec<usize>> = self.shape.as_ref()?.iter().copied().collect();
        let dims = dims?;
        if dims.contains(&0) { Some(0) } else { Some(product(self.shape.as_ref()?).unwrap_or(usize::MAX)) }
    }

    /// The length of a value of rank 1.
    pub fn length(&self) -> Option<usize> {
        match self.shape.as_deref() {
            Some([length]) => *length,
            _ => None,
        }
    }
}

/// The product of sizes; nothing if one is not known, or no `usize` can hold it.
pub(crate) fn product(sizes: &[Size]) -> Size {
    shape::volume(sizes).flatten()
}

/// The shape of an elementwise result.
pub(crate) fn broadcast(a: &Option<Vec<Size>>, b: &Option<Vec<Size>>) -> Option<Vec<Size>> {
    shape::broadcast(a.as_ref()?, b.as_ref()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast() {
        let shape = |dims: &[Size]| Some(dims.to_vec());
        assert_eq!(
            broadcast(&shape(&[Some(2), None, Some(8)]), &shape(&[Some(8)])),
            shape(&[Some(2), None, Some(8)])
        );
        assert_eq!(broadcast(&shape(&[Some(1), None]), &shape(&[None, Some(4)])), shape(&[None, Some(4)]));
        assert_eq!(broadcast(&shape(&[]), &shape(&[None])), shape(&[None]));
        assert_eq!(broadcast(&None, &shape(&[None])), None);
    }

    #[test]
    fn sizes_that_overflow_are_not_known() {
        let huge = ValueType::known(DType::F32, &[1 << 40, 1 << 40]);
        assert_eq!(product(huge.shape.as_ref().unwrap()), None);
        assert_eq!(huge.elements(), Some(usize::MAX));
        assert_eq!(ValueType::known(DType::F32, &[1 << 40, 1 << 40, 0]).elements(), Some(0));
        assert_eq!(ValueType::new(DType::F32, Some(vec![None])).elements(), None);
    }
}
