//! Operators that change the shape or the place of elements, not the elements.

use engine::DType;
use ndarray::{ArrayD, Axis, IxDyn, Slice};
use onnx_graph::shape::{self as rules, Int};

use super::{ANY, Op};
use crate::context::{Context, Outputs, axes, axis, boundary};
use crate::fault::Fault;
use crate::tensor::{Data, Tensor, array, each, reshaped};

/// A shape given as integers.
pub(super) fn dims(list: &[i64]) -> Result<Vec<usize>, Fault> {
    let negative = || Fault::argument("a shape", format!("{list:?}"), "without negative numbers");
    list.iter().map(|&size| usize::try_from(size).map_err(|_| negative())).collect()
}

/// Axes from where they stand at this opset: attribute `axes` before 13, input 1 since.
fn given_axes(context: &Context) -> Result<Option<Vec<i64>>, Fault> {
    Ok(match context.node.ints("axes")? {
        Some(axes) => Some(axes.to_vec()),
        None => context.list(1)?,
    })
}

/// The sizes from `start` to `end`.
fn shape(context: &Context) -> Outputs {
    let dims = context.input(0)?.shape();
    let part = rules::part(context.node.int("start")?, context.node.int("end")?, dims.len());
    Ok(vec![Tensor::sizes(dims[part].iter().copied())])
}

fn size(context: &Context) -> Outputs {
    let size = context.input(0)?.len() as i128;
    Ok(vec![Tensor::int(DType::I64, ArrayD::from_elem(IxDyn(&[]), size))])
}

fn reshape(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let asked = context.list(1)?.ok_or(Fault::MissingInput(1))?;
    let target: Vec<Int<usize>> = asked.iter().copied().map(Int::Known).collect();
    let shape = rules::reshape(x.shape(), &target, context.flag("allowzero", false)?);
    let shape = shape.ok_or_else(|| {
        let found = format!("{asked:?} for {:?}", x.shape());
        Fault::argument("the new shape", found, "of as many elements, with at most one -1")
    })?;
    context.room(&shape)?;
    Ok(vec![each!(x, array => reshaped(array, &shape)?)])
}

/// Two dimensions: those before the axis, and those from it on.
fn flatten(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let (rows, columns) = x.shape().split_at(boundary(context.int("axis", 1)?, x.rank())?);
    let shape = [rows.iter().product(), columns.iter().product()];
    Ok(vec![each!(x, array => reshaped(array, &shape)?)])
}

fn squeeze(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let squeezed = match given_axes(context)? {
        Some(given) => axes(&given, x.rank())?,
        None => (0..x.rank()).filter(|&axis| x.shape()[axis] == 1).collect(),
    };
    if squeezed.iter().any(|&axis| x.shape()[axis] != 1) {
        let wanted = format!("of size 1 at axes {squeezed:?}");
        return Err(Fault::shape("input 0", x.shape(), wanted));
    }
    let shape = rules::reduced(x.shape(), &squeezed, false);
    Ok(vec![each!(x, array => reshaped(array, &shape)?)])
}

fn unsqueeze(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let given = given_axes(context)?.ok_or(Fault::MissingInput(1))?;
    let rank = x.rank() + given.len();
    let shape = rules::unsqueeze(x.shape(), &given).map_err(|axis| Fault::Axis { axis, rank })?;
    Ok(vec![each!(x, array => reshaped(array, &shape)?)])
}

fn transpose(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let perm = context.node.ints("perm")?;
    let order = rules::permutation(perm, x.rank()).ok_or_else(|| {
        let found = format!("{perm:?} for {:?}", x.shape());
        Fault::argument("attribute 'perm'", found, "a permutation of the axes")
    })?;
    Ok(vec![each!(x, array => array.view().permuted_axes(IxDyn(&order)).to_owned())])
}

/// Blocks of so many by so many pixels, made of channels. Pixel (row, column) of the blocks of
/// channel d is channel (row · block + column) · depth + d in mode DCR, and channel
/// (d · block + row) · block + column in mode CRD.
fn depth_to_space(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let given = context.node.int("blocksize")?.ok_or(Fault::MissingAttribute("blocksize"))?;
    let block = usize::try_from(given).ok().filter(|&block| block > 0);
    let block = block.ok_or_else(|| Fault::argument("attribute 'blocksize'", given, "at least 1"))?;
    let shape = rules::depth_to_space(x.shape(), block);
    let (Some(shape), &[_, _, height, width]) = (shape, x.shape()) else {
        let wanted =
            format!("[images, channels, height, width], of channels for blocks of {block} by {block}");
        return Err(Fault::shape("input 0", x.shape(), wanted));
    };
    context.room(&shape)?;
    let (images, depth) = (shape[0], shape[1]);
    let (split, order) = match context.string("mode", "DCR")? {
        "DCR" => ([images, block, block, depth, height, width], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([images, depth, block, block, height, width], [0, 1, 4, 2, 5, 3]),
        mode => return Err(Fault::argument("attribute 'mode'", format!("'{mode}'"), "DCR or CRD")),
    };
    Ok(vec![each!(x, array => {
        let blocks = reshaped(array, &split)?.permuted_axes(IxDyn(&order)).into_shared();
        reshaped(&blocks, &shape)?
    })])
}

fn concat(context: &Context) -> Outputs {
    Ok(vec![concatenated(context, &context.all()?)?])
}

/// Parts one after another, along the attribute `axis`.
pub(super) fn concatenated(context: &Context, parts: &[&Tensor]) -> Result<Tensor, Fault> {
    let [first, others @ ..] = parts else { return Err(Fault::MissingInput(0)) };
    let along = axis(context.node.int("axis")?.ok_or(Fault::MissingAttribute("axis"))?, first.rank())?;
    let mut shape = first.shape().to_vec();
    for part in others {
        if part.dtype != first.dtype {
            return Err(Fault::Mixed { first: first.dtype, second: part.dtype });
        }
        shape = rules::concat(&[&shape, part.shape()], along).ok_or_else(|| {
            let wanted = format!("{:?} but for axis {along}", first.shape());
            Fault::shape("a part", part.shape(), wanted)
        })?;
    }
    context.room(&shape)?;
    concatenate(first.dtype, parts, along)
}

/// Parts that fit, one after another.
pub(super) fn concatenate(dtype: DType, parts: &[&Tensor], along: usize) -> Result<Tensor, Fault> {
    let shapes = || Fault::Broadcast {
        left: parts.first().map(|part| part.shape().to_vec()).unwrap_or_default(),
        right: parts.last().map(|part| part.shape().to_vec()).unwrap_or_default(),
    };
    let mut floats = Vec::new();
    let mut ints = Vec::new();
    for part in parts {
        match &part.data {
            Data::Float(array) => floats.push(array.view()),
            Data::Int(array) => ints.push(array.view()),
        }
    }
    if dtype.is_float() {
        Ok(Tensor::float(dtype, ndarray::concatenate(Axis(along), &floats).map_err(|_| shapes())?))
    } else {
        Ok(Tensor::int(dtype, ndarray::concatenate(Axis(along), &ints).map_err(|_| shapes())?))
    }
}

/// Sizes from `split`, which was an attribute before opset 13 and is an input since; without it parts are equal, but since opset 18, where
/// `num_outputs` says how many, the last one may be smaller.
fn split(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let along = axis(context.int("axis", 0)?, x.rank())?;
    let size = x.shape()[along];
    let given = match context.node.ints("split")? {
        Some(sizes) => Some(sizes.to_vec()),
        None => context.list(1)?,
    };
    let asked = context.node.int("num_outputs")?;
    let parts = context.node.outputs.len();
    let wrong = |found: String| {
        let found = format!("{found} of {size} for {parts} outputs");
        Fault::argument("the split", found, "sizes that add up, or a number of outputs")
    };
    if let Some(asked) = asked.filter(|&asked| asked != parts as i64 || given.is_some()) {
        return Err(wrong(asked.to_string()));
    }
    let sizes = match given {
        Some(sizes) => dims(&sizes)?,
        None if asked.is_none() && size % parts != 0 => return Err(wrong("equal parts".into())),
        None => rules::split(size, parts),
    };
    if sizes.len() != parts || sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)) != Some(size)
    {
        return Err(wrong(format!("{sizes:?}")));
    }
    let mut start = 0;
    let mut outputs = Vec::new();
    for size in sizes {
        let range = Slice::from(start..start + size);
        outputs.push(each!(x, array => array.slice_axis(Axis(along), range).to_owned()));
        start += size;
    }
    Ok(outputs)
}

fn tile(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let repeats = dims(&context.list(1)?.ok_or(Fault::MissingInput(1))?)?;
    if repeats.len() != x.rank() {
        let wanted = format!("[{}]", x.rank());
        return Err(Fault::shape("repeats", &[repeats.len()], wanted));
    }
    let shape: Vec<usize> =
        x.shape().iter().zip(&repeats).map(|(&size, &times)| size.saturating_mul(times)).collect();
    context.room(&shape)?;
    let source = |at: IxDyn| -> Vec<usize> { (0..x.rank()).map(|axis| at[axis] % x.shape()[axis]).collect() };
    Ok(vec![each!(x, array => ArrayD::from_shape_fn(IxDyn(&shape), |at| array[&source(at)[..]]))])
}

/// start, start + delta, … up to the limit, which is left out.
fn range(context: &Context) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    context.same_dtype(1, 2)?;
    let x = context.input(0)?;
    let zero = || Fault::argument("the step", "0", "another number");
    match &x.data {
        Data::Float(start) => {
            let start = *context.scalar("the start", start)?;
            let limit = *context.scalar("the limit", context.floats(1)?)?;
            let delta = *context.scalar("the step", context.floats(2)?)?;
            let count = ((limit - start) / delta).ceil().max(0.0);
            if delta == 0.0 || count.is_nan() {
                return Err(zero());
            }
            let count = context.room(&[count as usize])?;
            let numbers = (0..count).map(|i| start + i as f64 * delta).collect();
            Ok(vec![Tensor::float(dtype, array(&[count], numbers)?)])
        }
        Data::Int(start) => {
            let start = *context.scalar("the start", start)?;
            let limit = *context.scalar("the limit", context.ints(1)?)?;
            let delta = *context.scalar("the step", context.ints(2)?)?;
            let count = rules::steps(start, limit, delta).ok_or_else(zero)?;
            let count = context.room(&[count])?;
            let numbers = (0..count).map(|i| start + i as i128 * delta).collect();
            Ok(vec![Tensor::int(dtype, array(&[count], numbers)?)])
        }
    }
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("Concat", (1, ANY), "axis", concat),
    Op::onnx("DepthToSpace", (1, 1), "blocksize mode", depth_to_space),
    Op::onnx("Flatten", (1, 1), "axis", flatten),
    Op::onnx("Range", (3, 3), "", range).until(26),
    Op::onnx("Range", (3, 3), "stash_type", range).since(27),
    Op::onnx("Reshape", (2, 2), "", reshape).until(13),
    Op::onnx("Reshape", (2, 2), "allowzero", reshape).since(14),
    Op::onnx("Shape", (1, 1), "", shape).until(14),
    Op::onnx("Shape", (1, 1), "start end", shape).since(15),
    Op::onnx("Size", (1, 1), "", size),
    Op::onnx("Split", (1, 1), "axis split", split).outputs(ANY).until(12),
    Op::onnx("Split", (1, 2), "axis", split).outputs(ANY).since(13).until(17),
    Op::onnx("Split", (1, 2), "axis num_outputs", split).outputs(ANY).since(18),
    Op::onnx("Squeeze", (1, 1), "axes", squeeze).until(12),
    Op::onnx("Squeeze", (1, 2), "", squeeze).since(13),
    Op::onnx("Tile", (2, 2), "", tile),
    Op::onnx("Transpose", (1, 1), "perm", transpose),
    Op::onnx("Unsqueeze", (1, 1), "axes", unsqueeze).until(12),
    Op::onnx("Unsqueeze", (2, 2), "", unsqueeze).since(13),
];
