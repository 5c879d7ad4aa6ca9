//! Convolution.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, Array3, ArrayView2, s};
use onnx_graph::shape::{Padding, Places, Window};

use super::Op;
use crate::context::{Context, Outputs};
use crate::fault::Fault;
use crate::tensor::{Array, Tensor, array};

/// About how many elements are copied for one product of matrices: 1 MiB of them, at the least
/// those that one result needs.
const COPIED: usize = 1 << 17;

/// y[n, m, o] = b[m] + Σ w[m, c, k] · x[n, first(m) + c, o · stride + k · dilation − before]
///
/// over all c and k. first(m) is the first channel of the group that m belongs to; beyond its ends
/// x is 0.
fn conv(context: &Context) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    let (x, w) = (context.floats(0)?, context.floats(1)?);
    let group = group(context, x.shape(), w.shape())?;
    let axes = axes(context, &x.shape()[2..], &w.shape()[2..])?;
    let (images, filters) = (x.shape()[0], w.shape()[0]);
    let bias = bias(context, filters)?;
    let mut shape = vec![images, filters];
    shape.extend(axes.iter().map(|axis| axis.places.count));
    let length = context.room(&shape)?;
    if length == 0 {
        return Ok(vec![Tensor::float(dtype, array(&shape, Vec::new())?)]);
    }
    let start = |(_, filter, _)| bias.map_or(0.0, |bias| bias[[filter]]);
    let mut y = Array3::from_shape_fn((images, filters, length / images / filters), start);
    add_products(&mut y, x, w, group, &axes)?;
    Ok(vec![Tensor::float(dtype, array(&shape, y.into_raw_vec_and_offset().0)?)])
}

/// How many groups the channels are in, if they and the filters are as many as that asks for.
fn group(context: &Context, x: &[usize], w: &[usize]) -> Result<usize, Fault> {
    let given = context.int("group", 1)?;
    let group = usize::try_from(given).ok().filter(|&group| group > 0);
    let group = group.ok_or_else(|| Fault::argument("attribute 'group'", given, "at least 1"))?;
    let &[_, channels, _, ..] = x else {
        return Err(Fault::shape("input 0", x, "[images, channels, size, …], with a size or more"));
    };
    match *w {
        [filters, depth, ..]
            if w.len() == x.len()
                && depth.checked_mul(group) == Some(channels)
                && filters.is_multiple_of(group) =>
        {
            Ok(group)
        }
        _ => {
            let wanted = format!(
                "[filters, channels / group, …] of the rank of input 0, which is {x:?}, with filters for \
                 each group of {group}"
            );
            Err(Fault::shape("input 1, the weight,", w, wanted))
        }
    }
}

fn bias<'a>(context: &'a Context, filters: usize) -> Result<Option<&'a Array<f64>>, Fault> {
    let Some(bias) = context.optional_floats(2)? else { return Ok(None) };
    context.same_dtype(0, 2)?;
    if bias.shape() != [filters] {
        return Err(Fault::shape("input 2, the bias,", bias.shape(), format!("[{filters}]")));
    }
    Ok(Some(bias))
}

/// A spatial axis.
struct Axis {
    size: usize,
    window: Window,
    places: Places,
}

fn axes(context: &Context, sizes: &[usize], kernel: &[usize]) -> Result<Vec<Axis>, Fault> {
    let count = sizes.len();
    let given = list(context, "attribute 'kernel_shape'", "kernel_shape", count)?;
    if let Some(given) = given.filter(|given| given != kernel) {
        let wanted = format!("{given:?} after the first two axes, as attribute 'kernel_shape' has it");
        return Err(Fault::shape("input 1, the weight,", kernel, wanted));
    }
    let strides = list(context, "attribute 'strides'", "strides", count)?.unwrap_or_else(|| vec![1; count]);
    let dilations =
        list(context, "attribute 'dilations'", "dilations", count)?.unwrap_or_else(|| vec![1; count]);
    let padding = padding(context, count)?;
    let axis = |at: usize| {
        let (size, padding) = (sizes[at], padding[at]);
        let window = Window { kernel: kernel[at], dilation: dilations[at], stride: strides[at], padding };
        let places = window.places(size).ok_or_else(|| {
            let found = format!("{window:?} at an axis of size {size}");
            Fault::argument(
                "the window",
                found,
                "no longer than the axis with its padding, and its kernel, stride and dilation at least 1",
            )
        })?;
        Ok(Axis { size, window, places })
    };
    (0..count).map(axis).collect()
}

/// A list of so many numbers, none of them negative.
fn list(
    context: &Context,
    what: &'static str,
    name: &str,
    count: usize,
) -> Result<Option<Vec<usize>>, Fault> {
    let Some(given) = context.node.ints(name)? else { return Ok(None) };
    let sizes: Option<Vec<usize>> = given.iter().map(|&size| usize::try_from(size).ok()).collect();
    match sizes.filter(|sizes| sizes.len() == count) {
        Some(sizes) => Ok(Some(sizes)),
        None => {
            let found = format!("{given:?} for a rank of {}", context.input(0)?.rank());
            Err(Fault::argument(what, found, "a number for each axis after the first two, none negative"))
        }
    }
}

/// Of each axis. `auto_pad` and `pads` exclude each other; but zeros, which exporters write beside
/// it, say nothing.
fn padding(context: &Context, count: usize) -> Result<Vec<Padding>, Fault> {
    let pads = context.node.ints("pads")?.unwrap_or_default();
    let auto = context.string("auto_pad", "NOTSET")?;
    if auto != "NOTSET" && pads.iter().any(|&pad| pad != 0) {
        let found = format!("'{auto}' beside pads {pads:?}");
        return Err(Fault::argument("attribute 'auto_pad'", found, "NOTSET where there are pads"));
    }
    match auto {
        "NOTSET" if !pads.is_empty() => given_padding(pads, count),
        "NOTSET" | "VALID" => Ok(vec![Padding::Given { before: 0, after: 0 }; count]),
        "SAME_UPPER" => Ok(vec![Padding::SameUpper; count]),
        "SAME_LOWER" => Ok(vec![Padding::SameLower; count]),
        _ => {
            let (what, found) = ("attribute 'auto_pad'", format!("'{auto}'"));
            Err(Fault::argument(what, found, "NOTSET, SAME_UPPER, SAME_LOWER or VALID"))
        }
    }
}

/// From the widths before each axis, then those after each.
fn given_padding(pads: &[i64], count: usize) -> Result<Vec<Padding>, Fault> {
    let widths: Option<Vec<usize>> = pads.iter().map(|&pad| usize::try_from(pad).ok()).collect();
    let widths = widths.filter(|widths| widths.len() == 2 * count).ok_or_else(|| {
        let found = format!("{pads:?} for {count} axes after the first two");
        Fault::argument("attribute 'pads'", found, "two numbers for each axis, none negative")
    })?;
    let (before, after) = widths.split_at(count);
    Ok(before.iter().zip(after).map(|(&before, &after)| Padding::Given { before, after }).collect())
}

/// Which element of a channel result number `result` meets at place number `tap` of the kernel, all
/// counted in row-major order; `None` for one beyond the ends.
fn source(axes: &[Axis], mut result: usize, mut tap: usize) -> Option<usize> {
    let (mut source, mut step) = (0, 1);
    for Axis { size, window, places } in axes.iter().rev() {
        let at = (result % places.count) * window.stride + (tap % window.kernel) * window.dilation;
        source += step * at.checked_sub(places.before).filter(|at| at < size)?;
        step *= size;
        result /= places.count;
        tap /= window.kernel;
    }
    Some(source)
}

/// Adds Σ w x to y, which is [images, filters, results], and not empty. For each group this is a
/// product of matrices: w has a column for each channel and place of the kernel, and what these
/// meet is copied to a row each, for a block of results at a time.
fn add_products(
    y: &mut Array3<f64>,
    x: &Array<f64>,
    w: &Array<f64>,
    group: usize,
    axes: &[Axis],
) -> Result<(), Fault> {
    if x.is_empty() {
        return Ok(());
    }
    let (images, filters, results) = y.dim();
    let (channels, filters) = (x.shape()[1], filters / group);
    let taps: usize = axes.iter().map(|axis| axis.window.kernel).product();
    let depth = channels / group * taps;
    let (x, w) = (x.as_standard_layout(), w.as_standard_layout());
    let (x, w) = (x.as_slice().unwrap_or_default(), w.as_slice().unwrap_or_default());
    let wrong = |_| Fault::Elements { shape: vec![group * filters, depth], found: w.len() };
    let weights = ArrayView2::from_shape((group * filters, depth), w).map_err(wrong)?;
    let block = (COPIED / (channels * taps)).clamp(1, results);
    let mut met = Array2::zeros((channels * taps, block));
    let mut sources = Vec::with_capacity(block);
    for (image, pixels) in x.chunks(x.len() / images).enumerate() {
        for first in (0..results).step_by(block) {
            let end = results.min(first + block);
            for tap in 0..taps {
                sources.clear();
                sources.extend((first..end).map(|result| source(axes, result, tap)));
                for (channel, pixels) in pixels.chunks(pixels.len() / channels).enumerate() {
                    let row = met.row_mut(channel * taps + tap);
                    for (met, source) in row.into_iter().zip(&sources) {
                        *met = source.map_or(0.0, |source| pixels[source]);
                    }
                }
            }
            for group in 0..group {
                let filters = group * filters..(group + 1) * filters;
                let rows = group * depth..(group + 1) * depth;
                let mut y = y.slice_mut(s![image, filters.clone(), first..end]);
                let (w, met) = (weights.slice(s![filters, ..]), met.slice(s![rows, ..end - first]));
                general_mat_mul(1.0, &w, &met, 1.0, &mut y);
            }
        }
    }
    Ok(())
}

pub(super) const OPS: &[Op] =
    &[Op::onnx("Conv", (2, 3), "auto_pad dilations group kernel_shape pads strides", conv)];
