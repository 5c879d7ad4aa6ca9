//! A sparse tensor, made dense: what is not listed is zero.

use engine::memory::Budget;

use super::tensor;
use crate::external::ExternalFiles;
use crate::proto::SparseTensorProto;
use crate::tensor::byte_size;
use crate::{GraphError, Tensor, TensorFault};

/// Reads a sparse tensor; `label` is what messages call it. Its places are numbers in row-major
/// order, `[count]`, or lists of one index for each dimension, `[count, rank]`; either are in
/// order, and none is there twice. The dense tensor is counted before it is made.
pub(super) fn read(
    label: &str,
    proto: SparseTensorProto,
    external: &mut ExternalFiles,
    budget: &mut Budget,
) -> Result<Tensor, GraphError> {
    let fault = |fault| GraphError::Tensor { tensor: label.into(), fault };
    let wrong = |what: String| fault(TensorFault::Sparse(what));
    let (Some(values), Some(indices)) = (proto.values, proto.indices) else {
        return Err(wrong("it lacks its values or its indices".into()));
    };
    let values = tensor::read(&format!("the values of {label}"), values, external)?;
    let indices = tensor::read(&format!("the indices of {label}"), indices, external)?;
    let negative = |_| fault(TensorFault::NegativeDim { dims: proto.dims.clone() });
    let shape: Vec<usize> =
        proto.dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>().map_err(negative)?;
    let size = byte_size(values.dtype, &shape).map_err(fault)?;
    let &[count] = values.shape.as_slice() else {
        return Err(wrong(format!("its values are {values:?}, which must be of rank 1")));
    };
    budget.spend(indices.bytes.len() as u64 + size as u64)?;
    let as_value = indices.to_value();
    let numbers = as_value.as_ref().ok().and_then(|value| value.as_slice::<i64>().ok());
    let width = match *indices.shape.as_slice() {
        [listed] if listed == count => None,
        [listed, rank] if listed == count && rank == shape.len() => Some(rank),
        _ => return Err(wrong(misshaped(&indices, count, shape.len()))),
    };
    let Some(numbers) = numbers else { return Err(wrong(misshaped(&indices, count, shape.len()))) };

    let mut bytes = vec![0; size];
    let element = values.dtype.size();
    let mut before = None;
    for (index, value) in values.bytes.chunks_exact(element).enumerate() {
        let place = match width {
            None => &numbers[index..=index],
            Some(rank) => &numbers[index * rank..][..rank],
        };
        let at = if width.is_some() { flat(place, &shape) } else { usize::try_from(place[0]).ok() };
        let slot = at.and_then(|at| Some((at, bytes.chunks_exact_mut(element).nth(at)?)));
        let Some((at, slot)) = slot else {
            return Err(wrong(format!("its index {place:?} is outside {:?}", proto.dims)));
        };
        if before.is_some_and(|before| before >= at) {
            return Err(wrong(format!("its index {place:?} is there twice or out of order")));
        }
        before = Some(at);
        slot.copy_from_slice(value);
    }
    Ok(Tensor { dtype: values.dtype, shape, bytes: bytes.into() })
}

fn misshaped(indices: &Tensor, count: usize, rank: usize) -> String {
    format!("its indices are {indices:?}, which must be i64[{count}] or i64[{count}, {rank}]")
}

/// The place of an element in row-major order, if it is within the shape.
fn flat(place: &[i64], shape: &[usize]) -> Option<usize> {
    place.iter().zip(shape).try_fold(0usize, |flat, (&index, &dim)| {
        let index = usize::try_from(index).ok().filter(|&index| index < dim)?;
        flat.checked_mul(dim)?.checked_add(index)
    })
}
