//! Einstein's sums: `bhqd,bhkd->bhqk`.

use std::collections::BTreeMap;

use ndarray::{Dimension, IxDyn};

use super::{ANY, Op};
use crate::context::{Context, Outputs};
use crate::fault::Fault;
use crate::tensor::{Array, Tensor, array};

/// An axis of a term: a letter, or the n-th from the end of those that `…` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Broadcast(usize),
    Letter(char),
}

/// The labels of a term. `covered` is how many axes `...` stands for.
fn labels(term: &str, covered: usize) -> Option<Vec<Label>> {
    let mut labels = Vec::new();
    let mut rest = term;
    let mut ellipsis = false;
    while let Some(letter) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...").filter(|_| !ellipsis) {
            labels.extend((0..covered).rev().map(Label::Broadcast));
            (rest, ellipsis) = (after, true);
        } else if letter.is_ascii_alphabetic() {
            labels.push(Label::Letter(letter));
            rest = &rest[1..];
        } else {
            return None;
        }
    }
    Some(labels)
}

/// An equation: the labels of each input, those of the output, and the size of each.
struct Equation {
    inputs: Vec<Vec<Label>>,
    output: Vec<Label>,
    sizes: BTreeMap<Label, usize>,
}

fn parse(equation: &str, shapes: &[&[usize]]) -> Option<Equation> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != shapes.len() {
        return None;
    }
    let mut inputs = Vec::new();
    let mut sizes: BTreeMap<Label, usize> = BTreeMap::new();
    for (term, shape) in terms.iter().zip(shapes) {
        let letters = term.chars().filter(char::is_ascii_alphabetic).count();
        let found = labels(term, shape.len().checked_sub(letters)?)?;
        if found.len() != shape.len() {
            return None;
        }
        for (label, &size) in found.iter().zip(*shape) {
            let known = sizes.entry(*label).or_insert(size);
            if *known == 1 {
                *known = size;
            } else if size != 1 && size != *known {
                return None;
            }
        }
        inputs.push(found);
    }
    let covered = sizes.keys().filter(|label| matches!(label, Label::Broadcast(_))).count();
    let output = match right {
        Some(right) => labels(right, covered)?,
        // Without an arrow: what `...` stands for, then each letter that is there once, in the order of the alphabet.
        None => {
            let count = |label: &Label| inputs.iter().flatten().filter(|other| *other == label).count();
            let once = sizes.keys().filter(|label| matches!(label, Label::Letter(_)) && count(label) == 1);
            (0..covered).rev().map(Label::Broadcast).chain(once.copied()).collect()
        }
    };
    let mut seen = std::collections::BTreeSet::new();
    let fits = output.iter().all(|label| sizes.contains_key(label) && seen.insert(*label));
    fits.then_some(Equation { inputs, output, sizes })
}

/// Σ over all labels that the output does not have, of the product of the inputs.
fn sum<T: Copy>(
    context: &Context,
    equation: &Equation,
    inputs: &[&Array<T>],
    (zero, add): (T, fn(T, T) -> T),
    (one, mul): (T, fn(T, T) -> T),
) -> Result<ndarray::ArrayD<T>, Fault> {
    let summed = equation.sizes.keys().filter(|label| !equation.output.contains(label));
    let order: Vec<Label> = equation.output.iter().chain(summed).copied().collect();
    let sizes: Vec<usize> =
        order.iter().map(|label| equation.sizes.get(label).copied().unwrap_or(1)).collect();
    let (shape, summed) = sizes.split_at(equation.output.len());
    context.room(shape)?;
    // The work, which no node of a BERT takes more of than of elements that it may hold.
    context.room(&sizes)?;
    let factors: Vec<Factor<T>> = inputs
        .iter()
        .zip(&equation.inputs)
        .map(|(array, labels)| Factor::new(array, labels, &order))
        .collect();
    let mut result = Vec::new();
    for outer in ndarray::indices(IxDyn(shape)) {
        let mut total = zero;
        for inner in ndarray::indices(IxDyn(summed)) {
            let product = factors.iter().fold(one, |product, factor| {
                mul(product, factor.at(outer.slice().iter().chain(inner.slice())))
            });
            total = add(total, product);
        }
        result.push(total);
    }
    array(shape, result)
}

/// An input, and how far a step along each label moves in it: along a diagonal for a label that is there twice, nowhere for a size of 1.
struct Factor<T> {
    elements: Vec<T>,
    strides: Vec<usize>,
}

impl<T: Copy> Factor<T> {
    fn new(array: &Array<T>, labels: &[Label], order: &[Label]) -> Self {
        let mut strides = vec![0; order.len()];
        let mut stride = 1;
        for (label, &size) in labels.iter().zip(array.shape()).rev() {
            if let Some(place) = order.iter().position(|other| other == label).filter(|_| size != 1) {
                strides[place] += stride;
            }
            stride *= size;
        }
        Self { elements: array.iter().copied().collect(), strides }
    }

    fn at<'a>(&self, place: impl Iterator<Item = &'a usize>) -> T {
        self.elements[place.zip(&self.strides).map(|(at, stride)| at * stride).sum::<usize>()]
    }
}

fn einsum(context: &Context) -> Outputs {
    let inputs = context.all()?;
    let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
    let text = context.node.string("equation")?.ok_or(Fault::MissingAttribute("equation"))?;
    let equation = parse(text, &shapes).ok_or_else(|| {
        let found = format!("'{text}' for {shapes:?}");
        Fault::argument(
            "attribute 'equation'",
            found,
            "a term for each input that fits its shape, and perhaps an arrow and the output's term",
        )
    })?;
    for input in 1..inputs.len() {
        context.same_dtype(0, input)?;
    }
    let dtype = inputs[0].dtype;
    if dtype.is_float() {
        let floats = (0..inputs.len()).map(|at| context.floats(at)).collect::<Result<Vec<_>, _>>()?;
        let sum = sum(context, &equation, &floats, (0.0, |a, b| a + b), (1.0, |a, b| a * b))?;
        return Ok(vec![Tensor::float(dtype, sum)]);
    }
    let ints = (0..inputs.len()).map(|at| context.ints(at)).collect::<Result<Vec<_>, _>>()?;
    let sum = sum(context, &equation, &ints, (0, i128::wrapping_add), (1, i128::wrapping_mul))?;
    Ok(vec![Tensor::int(dtype, sum)])
}

pub(super) const OPS: &[Op] = &[Op::onnx("Einsum", (1, ANY), "equation", einsum).since(12)];
