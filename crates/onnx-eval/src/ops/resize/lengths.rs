//! How long each axis becomes.

use super::coordinates::Coordinates;
use crate::context::{Context, axes as counted};
use crate::fault::Fault;

/// An axis that is resized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    pub at: usize,
    pub from: usize,
    pub to: usize,
    pub scale: Scale,
    /// The length that it would have if that could be a fraction.
    pub length: f64,
    /// The part of the axis that is looked at, in mode tf_crop_and_resize.
    pub region: (f64, f64),
}

impl Axis {
    /// How many times as long it is in the end, which is not always the scale.
    pub fn growth(&self) -> f64 {
        self.to as f64 / self.from as f64
    }
}

/// How many times as long an axis becomes: `over / under`. It is divided only once, so that what is
/// a whole number comes out as one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    over: f64,
    under: f64,
}

impl Scale {
    pub fn divides(self, x: f64) -> f64 {
        x * self.under / self.over
    }
}

/// What an axis becomes: how long, the length as a fraction, and the scale.
type Length = (usize, f64, Scale);

/// The axes that are given lengths, with these.
pub fn axes(context: &Context, shape: &[usize], coordinates: Coordinates) -> Result<Vec<Axis>, Fault> {
    let axes = match context.node.ints("axes")? {
        Some(given) => counted(given, shape.len())?,
        None => (0..shape.len()).collect(),
    };
    let scales = match context.optional(2) {
        Some(scales) if scales.len() > 0 => Some(numbers(context, 2, "the scales", axes.len())?),
        _ => None,
    };
    let sizes = context.list(3)?.filter(|sizes| !sizes.is_empty());
    let regions = regions(context, axes.len(), coordinates)?;
    let from: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
    let lengths = match (scales, sizes) {
        (Some(scales), None) => from.iter().zip(&scales).map(|(&from, &scale)| scaled(from, scale)).collect(),
        (None, Some(sizes)) => sized(context, &from, &sizes),
        (both, _) => {
            let found = if both.is_some() { "both" } else { "neither" };
            Err(Fault::argument(
                "what is given of scales (input 2) and sizes (input 3)",
                found,
                "one of them",
            ))
        }
    }?;
    let axis = |((&at, region), (to, length, scale))| {
        let from = shape[at];
        if from == 0 && to > 0 {
            let wanted = format!("of a size other than 0 at axis {at}, to make {to} of it");
            return Err(Fault::shape("input 0", shape, wanted));
        }
        Ok(Axis { at, from, to, scale, length, region })
    };
    axes.iter().zip(regions).zip(lengths).map(axis).collect()
}

/// So many finite floats.
fn numbers(context: &Context, input: usize, what: &'static str, count: usize) -> Result<Vec<f64>, Fault> {
    let given = context.floats(input)?;
    if given.shape() != [count] {
        return Err(Fault::shape(what, given.shape(), format!("[{count}], for the axes that are resized")));
    }
    match given.iter().find(|x| !x.is_finite()) {
        Some(x) => Err(Fault::argument(what, x, "finite")),
        None => Ok(given.iter().copied().collect()),
    }
}

/// The part of each axis that is looked at: the input holds all starts, then all ends.
fn regions(context: &Context, count: usize, coordinates: Coordinates) -> Result<Vec<(f64, f64)>, Fault> {
    if coordinates != Coordinates::TfCropAndResize {
        return Ok(vec![(0.0, 1.0); count]);
    }
    let given = numbers(context, 1, "the roi", 2 * count)?;
    let (starts, ends) = given.split_at(count);
    Ok(starts.iter().copied().zip(ends.iter().copied()).collect())
}

/// The largest whole number in size · scale. An f32 can be the rounding of 7 / 3: so that 3 times
/// this is 7, the product is one of f32, as ONNX Runtime's is. Where it is whole, the two lengths
/// are the scale: length_resized / length_original, as the specification has it.
fn scaled(from: usize, scale: f64) -> Result<Length, Fault> {
    if scale <= 0.0 {
        return Err(Fault::argument("a scale", scale, "greater than 0"));
    }
    let product = from as f32 * scale as f32;
    let to = product.floor();
    Ok(match to == product {
        true => (to as usize, to.into(), Scale { over: to.into(), under: from as f64 }),
        false => (to as usize, from as f64 * scale, Scale { over: scale, under: 1.0 }),
    })
}

/// The lengths that are asked for; or, for axes that keep their ratio, those that the smallest or
/// the largest scale makes, rounded to the nearest, halves up.
fn sized(context: &Context, from: &[usize], sizes: &[i64]) -> Result<Vec<Length>, Fault> {
    let asked: Option<Vec<usize>> = sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
    let asked = asked.filter(|asked| asked.len() == from.len()).ok_or_else(|| {
        let found = format!("{sizes:?} for {} axes", from.len());
        Fault::argument("the sizes", found, "a number for each axis that is resized, none negative")
    })?;
    let length = |to: usize, over: usize, under: usize| {
        (to, to as f64, Scale { over: over as f64, under: under as f64 })
    };
    let pairs = asked.iter().copied().zip(from.iter().copied());
    // An axis without a place has no scale.
    let scales = pairs.clone().filter(|&(_, from)| from > 0);
    let policy = context.string("keep_aspect_ratio_policy", "stretch")?;
    let kept = match policy {
        "stretch" => return Ok(pairs.map(|(to, from)| length(to, to, from)).collect()),
        "not_larger" => scales.min_by(compare),
        "not_smaller" => scales.max_by(compare),
        _ => {
            let (what, found) = ("attribute 'keep_aspect_ratio_policy'", format!("'{policy}'"));
            return Err(Fault::argument(what, found, "stretch, not_larger or not_smaller"));
        }
    };
    let (over, under) = kept.unwrap_or((1, 1));
    let rounded = |from: usize| {
        let (twice, divisor) = (2 * over as u128 * from as u128, under as u128);
        usize::try_from((twice + divisor) / (2 * divisor)).unwrap_or(usize::MAX)
    };
    Ok(from.iter().map(|&from| length(rounded(from), over, under)).collect())
}

/// Which of two quotients is the larger one.
fn compare(a: &(usize, usize), b: &(usize, usize)) -> std::cmp::Ordering {
    (a.0 as u128 * b.1 as u128).cmp(&(b.0 as u128 * a.1 as u128))
}
