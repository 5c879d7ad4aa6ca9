//! What an operator sees of the node it computes.

use engine::DType;
use ndarray::{ArrayD, ArrayView, IxDyn, Zip};
use onnx_graph::{Node, shape};

use crate::fault::Fault;
use crate::memory::Memory;
use crate::round::{Precision, round};
use crate::substitute::{NodeId, Promotions};
use crate::tensor::{Array, Data, Tensor};

/// One node with its inputs.
pub(crate) struct Context<'a> {
    pub id: NodeId,
    pub node: &'a Node,
    /// The version of the node's domain.
    pub opset: i64,
    pub precision: Precision,
    /// What the values that are alive leave of the memory.
    pub memory: Memory,
    /// `None` where an optional input is left out.
    pub inputs: Vec<Option<Tensor>>,
    pub promotions: &'a Promotions,
}

/// What an operator returns: its outputs, as many as the graph may use.
pub(crate) type Outputs = Result<Vec<Tensor>, Fault>;

impl Context<'_> {
    /// An input that may be left out.
    pub fn optional(&self, index: usize) -> Option<&Tensor> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// An input that may not be left out.
    pub fn input(&self, index: usize) -> Result<&Tensor, Fault> {
        self.optional(index).ok_or(Fault::MissingInput(index))
    }

    /// All inputs of an operator that takes any number of them.
    pub fn all(&self) -> Result<Vec<&Tensor>, Fault> {
        (0..self.inputs.len()).map(|index| self.input(index)).collect()
    }

    /// A float input.
    pub fn floats(&self, index: usize) -> Result<&Array<f64>, Fault> {
        let tensor = self.input(index)?;
        match &tensor.data {
            Data::Float(array) => Ok(array),
            Data::Int(_) => Err(Fault::DType { input: index, found: tensor.dtype, wanted: "a float" }),
        }
    }

    /// A float input that may be left out.
    pub fn optional_floats(&self, index: usize) -> Result<Option<&Array<f64>>, Fault> {
        self.optional(index).map(|_| self.floats(index)).transpose()
    }

    /// An integer input, no bool.
    pub fn ints(&self, index: usize) -> Result<&Array<i128>, Fault> {
        let tensor = self.input(index)?;
        match &tensor.data {
            Data::Int(array) if tensor.dtype != DType::Bool => Ok(array),
            _ => Err(Fault::DType { input: index, found: tensor.dtype, wanted: "an integer" }),
        }
    }

    /// A bool input.
    pub fn bools(&self, index: usize) -> Result<&Array<i128>, Fault> {
        let tensor = self.input(index)?;
        match &tensor.data {
            Data::Int(array) if tensor.dtype == DType::Bool => Ok(array),
            _ => Err(Fault::DType { input: index, found: tensor.dtype, wanted: "bool" }),
        }
    }

    /// A list of integers that may be left out: axes, sizes, a shape.
    pub fn list(&self, index: usize) -> Result<Option<Vec<i64>>, Fault> {
        if self.optional(index).is_none() {
            return Ok(None);
        }
        let array = self.ints(index)?;
        if array.ndim() > 1 {
            let found = array.shape().to_vec();
            return Err(Fault::shape("a list", &found, "of rank 1"));
        }
        // u64 lists beyond i64 are nothing that could be an axis or a size.
        Ok(Some(array.iter().map(|&x| x.clamp(i64::MIN.into(), i64::MAX.into()) as i64).collect()))
    }

    /// The one element of an input.
    pub fn scalar<'t, T>(&self, what: &'static str, array: &'t Array<T>) -> Result<&'t T, Fault> {
        match array.iter().next() {
            Some(element) if array.len() == 1 => Ok(element),
            _ => Err(Fault::shape(what, array.shape(), "of one element")),
        }
    }

    /// An int attribute.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, Fault> {
        Ok(self.node.int(name)?.unwrap_or(default))
    }

    /// An int attribute that is a flag.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Fault> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    /// A float attribute: an f32, widened exactly. So is its default, as a file could only hold that.
    pub fn float(&self, name: &str, default: f32) -> Result<f64, Fault> {
        Ok(self.optional_float(name)?.unwrap_or(default.into()))
    }

    /// A float attribute that may be left out.
    pub fn optional_float(&self, name: &str) -> Result<Option<f64>, Fault> {
        // An attribute is an f32.
        let promoted = self.promotions.of_attribute(self.id, name);
        let promoted = promoted.filter(|_| self.precision.promotes(DType::F32));
        Ok(promoted.or(self.node.float(name)?.map(f64::from)))
    }

    /// A string attribute.
    pub fn string(&self, name: &str, default: &'static str) -> Result<&str, Fault> {
        Ok(self.node.string(name)?.unwrap_or(default))
    }

    /// Whether the graph uses this output.
    pub fn wants(&self, output: usize) -> bool {
        self.node.outputs.get(output).is_some_and(|name| !name.is_empty())
    }

    /// The number as the dtype holds it in this run.
    pub fn round(&self, x: f64, dtype: DType) -> f64 {
        round(x, dtype, self.precision)
    }

    /// The number of elements of a shape, if they may be allocated: beside all that is alive, and even if they are integers.
    pub fn room(&self, shape: &[usize]) -> Result<usize, Fault> {
        self.memory.fits(shape, size_of::<i128>()).map(|bytes| bytes / size_of::<i128>())
    }

    /// That two inputs are of one dtype, which is returned.
    pub fn same_dtype(&self, first: usize, second: usize) -> Result<DType, Fault> {
        let (first, second) = (self.input(first)?.dtype, self.input(second)?.dtype);
        if first == second { Ok(first) } else { Err(Fault::Mixed { first, second }) }
    }

    /// An array seen under a larger shape.
    pub fn expand<'a, T>(
        &self,
        array: &'a Array<T>,
        shape: &[usize],
    ) -> Result<ArrayView<'a, T, IxDyn>, Fault> {
        self.room(shape)?;
        array
            .broadcast(IxDyn(shape))
            .ok_or_else(|| Fault::Broadcast { left: array.shape().to_vec(), right: shape.to_vec() })
    }

    /// `f` of each pair of elements, broadcast as numpy does.
    pub fn pairs<A: Clone, B: Clone, C>(
        &self,
        a: &Array<A>,
        b: &Array<B>,
        f: impl Fn(A, B) -> C,
    ) -> Result<ArrayD<C>, Fault> {
        let shape = broadcast(a.shape(), b.shape())?;
        let (a, b) = (self.expand(a, &shape)?, self.expand(b, &shape)?);
        Ok(Zip::from(a).and(b).map_collect(|a, b| f(a.clone(), b.clone())))
    }

    /// As [`Context::pairs`], under the shape of the first: the other one is broadcast to it.
    pub fn onto<A: Clone, B: Clone, C>(
        &self,
        a: &Array<A>,
        b: &Array<B>,
        f: impl Fn(A, B) -> C,
    ) -> Result<ArrayD<C>, Fault> {
        self.expand(b, a.shape())?;
        self.pairs(a, b, f)
    }

    /// The one element of an input of integers that may be left out.
    pub fn optional_int(&self, index: usize, what: &'static str, default: i128) -> Result<i128, Fault> {
        self.optional(index).map_or(Ok(default), |_| Ok(*self.scalar(what, self.ints(index)?)?))
    }
}

/// The shape that both can be broadcast to.
pub(crate) fn broadcast(left: &[usize], right: &[usize]) -> Result<Vec<usize>, Fault> {
    shape::broadcast(left, right)
        .ok_or_else(|| Fault::Broadcast { left: left.to_vec(), right: right.to_vec() })
}

/// An axis counted from the front; a negative one counts from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Fault> {
    shape::axis(axis, rank).ok_or(Fault::Axis { axis, rank })
}

/// An axis as a place between dimensions.
pub(crate) fn boundary(axis: i64, rank: usize) -> Result<usize, Fault> {
    shape::boundary(axis, rank).ok_or(Fault::Axis { axis, rank })
}

/// Axes counted from the front, in the order given; none may be there twice.
pub(crate) fn axes(given: &[i64], rank: usize) -> Result<Vec<usize>, Fault> {
    shape::axes(given, rank).map_err(|axis| Fault::Axis { axis, rank })
}

/// An index counted from the front; a negative one counts from the end.
pub(crate) fn index(index: i128, size: usize) -> Result<usize, Fault> {
    shape::index(index, size).ok_or(Fault::Index { index, size })
}

/// The array as rows along some axes, in the order given: each row is a slice of all elements that differ only there. `f` turns a row into
/// what stands in its place, and the axes go back where they were.
pub(crate) fn along<T: Clone>(array: &Array<T>, axes: &[usize], mut f: impl FnMut(&mut [T])) -> ArrayD<T> {
    let mut order: Vec<usize> = (0..array.ndim()).filter(|axis| !axes.contains(axis)).collect();
    order.extend(axes);
    let row: usize = axes.iter().map(|&axis| array.shape()[axis]).product();
    let moved = array.view().permuted_axes(IxDyn(&order));
    let mut result = moved.as_standard_layout().into_owned();
    if let Some(elements) = result.as_slice_mut().filter(|elements| !elements.is_empty()) {
        elements.chunks_mut(row).for_each(&mut f);
    }
    let mut back = vec![0; order.len()];
    for (place, &axis) in order.iter().enumerate() {
        back[axis] = place;
    }
    result.permuted_axes(IxDyn(&back)).as_standard_layout().into_owned()
}

/// One number for each row along some axes, which are left out of the shape.
pub(crate) fn fold<T: Clone, U>(
    array: &Array<T>,
    axes: &[usize],
    f: impl Fn(&[T]) -> U,
) -> Result<ArrayD<U>, Fault> {
    let kept: Vec<usize> = (0..array.ndim()).filter(|axis| !axes.contains(axis)).collect();
    let shape: Vec<usize> = kept.iter().map(|&axis| array.shape()[axis]).collect();
    let order: Vec<usize> = kept.iter().chain(axes).copied().collect();
    let row: usize = axes.iter().map(|&axis| array.shape()[axis]).product();
    let moved = array.view().permuted_axes(IxDyn(&order));
    let moved = moved.as_standard_layout();
    let elements = moved.as_slice().unwrap_or_default();
    let rows: usize = shape.iter().product();
    // A row may be empty, and there may be no row.
    let results = (0..rows).map(|index| f(&elements[index * row..(index + 1) * row])).collect();
    crate::tensor::array(&shape, results)
}
