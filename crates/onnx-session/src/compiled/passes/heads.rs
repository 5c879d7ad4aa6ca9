//! How attention's heads are cut out of rows and put back: by `Reshape` and `Transpose` in several orders, which all come down to the same places.
//!
//! A value is walked back through them to the rows it is made of. Then the shapes are followed forward again, as lists of indivisible dimensions: a
//! `Transpose` moves them about, a `Reshape` groups them anew and may split one. What counts at the end is where each has come to lie.

use onnx_graph::shape::{Size, axis, volume};

use super::{binary, rotary, scalar};
use crate::compiled::dim::Dim;
use crate::compiled::infer::{permutation, slice};
use crate::compiled::ir::{Ir, ValueId};
use crate::compiled::ops::Op;

/// A value as it is made of rows of heads, `[batch, sequence, heads · size]`.
#[derive(Debug)]
pub struct Heads {
    /// The rows.
    pub rows: ValueId,
    /// The first column of the heads' among theirs.
    pub column: usize,
    /// What they are multiplied by.
    pub scale: f64,
    pub sizes: Sizes,
    /// The cosines and sines by which they are turned.
    pub angles: Option<[ValueId; 2]>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    pub batch: Dim,
    pub sequence: Dim,
    pub heads: usize,
    pub head_size: usize,
}

enum Move {
    View(Vec<Dim>),
    Transpose(Vec<usize>),
    /// One of the places along an axis, which stays as 1.
    Part {
        axis: usize,
        place: usize,
    },
}

/// Dimensions that are moved as a whole.
struct Places {
    sizes: Vec<Dim>,
    /// In the order of the rows.
    origin: Vec<usize>,
    /// By the dimension of the value that they are in.
    groups: Vec<Vec<usize>>,
    /// If one dimension has been cut down to one place: where that begins, and how many numbers it
    /// has of each whole.
    part: Option<Part>,
}

#[derive(Clone, Copy)]
struct Part {
    begin: usize,
    count: usize,
}

/// `[batch, heads, sequence, size]`, or with the last two exchanged, as rows of heads. Nobody else may read what lies between.
pub fn split(ir: &Ir, value: ValueId, exchanged: bool) -> Option<Heads> {
    split_from(ir, value, exchanged, true)
}

fn split_from(ir: &Ir, value: ValueId, exchanged: bool, first_is_inner: bool) -> Option<Heads> {
    let (rows, scale, moves) = walk(ir, value, first_is_inner)?;
    let mut places = follow(ir.shape(rows)?, &moves)?;
    if exchanged {
        let last = places.groups.len().checked_sub(1)?;
        places.groups.swap(last, last.checked_sub(1)?);
    }
    if let Some((x, angles)) = rotary::turned(ir, rows) {
        // It is read three times: whole, and by its halves.
        let inner = split_from(ir, x, false, false).filter(|_| ir.uses(x) == 3)?;
        let fits = places.stand_as_before() && places.part.is_none() && inner.angles.is_none();
        let scale = scale * inner.scale;
        return fits.then_some(Heads { scale, angles: Some(angles), ..inner });
    }
    let whole = ir.width(rows)?;
    let Part { begin, count } = places.part.unwrap_or(Part { begin: 0, count: whole });
    let sizes = sizes(&places.sizes, &places.origin, &places.groups, count)?;
    Some(Heads { rows, column: begin, scale, sizes, angles: None })
}

/// Rows of heads as `[batch, heads, sequence, size]` was made into them: that value, and its sizes.
pub fn join(ir: &Ir, value: ValueId) -> Option<(ValueId, Sizes)> {
    let (by_head, scale, moves) = walk(ir, value, false)?;
    let before = ir.shape(by_head)?;
    let places = follow(before, &moves)?;
    if places.part.is_some() {
        return None;
    }
    // Backwards it is a split: the dimensions of the value by head, each as the pieces it has come apart into.
    let mut rest = places.origin.iter();
    let mut groups = Vec::with_capacity(before.len());
    for dim in before {
        let (mut size, mut group) = (Dim::fixed(1), Vec::new());
        while size != *dim {
            let &piece = rest.next()?;
            size = size.times(&places.sizes[piece])?;
            group.push(piece);
        }
        groups.push(group);
    }
    let origin = places.groups.concat();
    let sizes = sizes(&places.sizes, &origin, &groups, ir.width(value)?)?;
    (scale == 1.0).then_some((by_head, sizes))
}

/// Back through views, transposes and scalings, as far as they go.
fn walk(ir: &Ir, value: ValueId, first_is_inner: bool) -> Option<(ValueId, f64, Vec<Move>)> {
    let (mut at, mut scale, mut moves) = (value, 1.0, Vec::new());
    // What parts are taken of is read for the others, too.
    let mut is_shared = false;
    while let Some((_, node)) = ir.producer(at) {
        let (source, step, factor) = if matches!(node.op, Op::View) {
            (node.input(0)?, Some(Move::View(ir.shape(at)?.to_vec())), 1.0)
        } else if let Some((_, node, operation)) = ir.onnx(at, "Transpose") {
            let source = node.input(0)?;
            (source, Some(Move::Transpose(permutation(operation, ir.shape(source)?.len())?)), 1.0)
        } else if let Some((source, axis, place)) = part(ir, at).filter(|_| !is_shared) {
            (source, Some(Move::Part { axis, place }), 1.0)
        } else if let Some((source, factor)) =
            scaled(ir, at).filter(|(_, factor)| DRAWN_OUT.contains(&factor.abs()))
        {
            (source, None, factor)
        } else {
            break;
        };
        if (first_is_inner || at != value) && !is_shared && !ir.is_intermediate(at) {
            break;
        }
        is_shared |= matches!(step, Some(Move::Part { .. }));
        moves.extend(step);
        scale *= factor;
        at = source;
    }
    moves.reverse();
    Some((at, scale, moves))
}

/// What may be drawn out from before a product: a larger factor could overflow there where it does
/// not behind it, and a smaller one make a number vanish that it does not behind it.
const DRAWN_OUT: std::ops::RangeInclusive<f64> = 1e-6..=1.0;

/// What a value is a multiple of, and by what.
pub fn scaled(ir: &Ir, value: ValueId) -> Option<(ValueId, f64)> {
    if let Some([a, b]) = binary(ir, value, "Div") {
        return Some((a, 1.0 / f64::from(scalar(ir, b)?)));
    }
    let (number, other) = super::with_scalar(ir, binary(ir, value, "Mul")?)?;
    (ir.shape(other) == ir.shape(value)).then_some((other, f64::from(number)))
}

/// What a value is one place of along an axis, the axis, and the place.
fn part(ir: &Ir, value: ValueId) -> Option<(ValueId, usize, usize)> {
    if let Some((_, node, operation)) = ir.onnx(value, "Slice") {
        let (source, cuts) = (node.input(0)?, slice(ir, operation, &node.inputs)?);
        let mut narrower =
            cuts.iter().zip(ir.shape(source)?).enumerate().filter(|(_, (cut, dim))| cut.count != **dim);
        let (axis, (cut, _)) = narrower.next()?;
        return (narrower.next().is_none() && cut.count.is_one()).then_some((source, axis, cut.first));
    }
    let (_, node, operation) = ir.onnx(value, "Split")?;
    let source = node.input(0)?;
    let axis = axis(operation.node().int("axis").ok()?.unwrap_or(0), ir.shape(source)?.len())?;
    let is_one = |output: &Option<ValueId>| {
        output.and_then(|output| ir.shape(output)?.get(axis)).is_some_and(Size::is_one)
    };
    let all = node.outputs.iter().all(is_one) && ir.shape(source)?[axis] == Dim::fixed(node.outputs.len());
    let place = node.outputs.iter().position(|output| *output == Some(value))?;
    all.then_some((source, axis, place))
}

fn follow(dims: &[Dim], moves: &[Move]) -> Option<Places> {
    let mut places = Places {
        sizes: dims.to_vec(),
        origin: (0..dims.len()).collect(),
        groups: (0..dims.len()).map(|piece| vec![piece]).collect(),
        part: None,
    };
    for step in moves {
        match step {
            Move::Transpose(perm) => {
                places.groups =
                    perm.iter().map(|&axis| places.groups.get(axis).cloned()).collect::<Option<_>>()?;
            }
            Move::View(shape) => places.regroup(shape)?,
            Move::Part { axis, place } => places.cut(*axis, *place, dims.last()?)?,
        }
    }
    Some(places)
}

impl Places {
    /// Takes one place along a dimension, which has to be the outermost within the last of the
    /// rows.
    fn cut(&mut self, axis: usize, place: usize, width: &Dim) -> Option<()> {
        let [piece] = self.groups.get(axis)?[..] else { return None };
        let at = self.origin.iter().position(|&own| own == piece)?;
        let inner: Vec<Dim> = self.origin[at + 1..].iter().map(|&own| self.sizes[own].clone()).collect();
        let count = volume(&inner)?.known()?;
        if self.sizes[piece].times(&Dim::fixed(count))? != *width || self.part.is_some() {
            return None;
        }
        self.part = Some(Part { begin: place.checked_mul(count)?, count });
        self.sizes[piece] = Dim::fixed(1);
        Some(())
    }

    /// Whether the last two dimensions are what they were, and so are the others together.
    fn stand_as_before(&self) -> bool {
        let wide = |pieces: &[usize]| -> Vec<usize> {
            pieces.iter().copied().filter(|&piece| !self.sizes[piece].is_one()).collect()
        };
        let ([.., middle, last], [leading @ .., a, b]) = (&self.groups[..], &self.origin[..]) else {
            return false;
        };
        let others = self.groups[..self.groups.len() - 2].concat();
        wide(middle) == wide(&[*a]) && wide(last) == wide(&[*b]) && wide(&others) == wide(leading)
    }

    /// Groups the pieces by another shape, and splits those that it cuts through.
    fn regroup(&mut self, shape: &[Dim]) -> Option<()> {
        let mut rest: Vec<usize> = self.groups.concat();
        rest.reverse();
        let mut groups = Vec::with_capacity(shape.len());
        for dim in shape {
            let (mut open, mut group) = (dim.clone(), Vec::new());
            while !open.is_one() {
                let piece = rest.pop()?;
                if let Some(quotient) = open.divided(&self.sizes[piece]) {
                    open = quotient;
                    group.push(piece);
                } else {
                    let tail = self.sizes[piece].divided(&open)?;
                    let new = self.sizes.len();
                    self.sizes.push(tail);
                    self.sizes[piece] = open;
                    let place = self.origin.iter().position(|&own| own == piece)?;
                    self.origin.insert(place + 1, new);
                    rest.push(new);
                    group.push(piece);
                    open = Dim::fixed(1);
                }
            }
            groups.push(group);
        }
        self.groups = groups;
        rest.iter().all(|&piece| self.sizes[piece].is_one()).then_some(())
    }
}

/// Reads `[batch.., heads, sequence, size]` off the places, if the rows are `[batch.., sequence, heads, size]`.
fn sizes(sizes: &[Dim], origin: &[usize], groups: &[Vec<usize>], width: usize) -> Option<Sizes> {
    let wide = |pieces: &[usize]| -> Vec<usize> {
        pieces.iter().copied().filter(|&piece| !sizes[piece].is_one()).collect()
    };
    let (last, leading) = groups.split_last()?;
    let (middle, leading) = leading.split_last()?;
    let (size, sequence, leading) = (wide(last), wide(middle), wide(&leading.concat()));
    let origin = wide(origin);
    let total =
        |pieces: &[usize]| volume(&pieces.iter().map(|&piece| sizes[piece].clone()).collect::<Vec<_>>());
    // How many of the leading pieces are heads: one, or none if there is one head only.
    (0..=1.min(leading.len())).rev().find_map(|heads| {
        let (batch, heads) = leading.split_at(leading.len() - heads);
        if [batch, &sequence, heads, &size].concat() != origin {
            return None;
        }
        let found = Sizes {
            batch: total(batch)?,
            sequence: total(&sequence)?,
            heads: total(heads)?.known()?,
            head_size: total(&size)?.known()?,
        };
        (found.heads.checked_mul(found.head_size)? == width).then_some(found)
    })
}
