//! Positions as RoBERTa counts them: over the elements of an input that are no padding.
//!
//! ```text
//! m = Cast(Not(Equal(ids, padding)));  CumSum(m) · m + padding
//! ```
//!
//! As with masks, it is not these nodes that are looked for, but what they compute.

use engine::{DType, Value};
use onnx_eval::{Limits, Operation};
use onnx_graph::shape::axis;

use super::infer::known_ints;
use super::ir::{Counted, Fact, Ir, ValueId};
use super::ops::Op;

/// No model has more positions; so no number here is beyond i32.
const LARGEST: i64 = 1 << 24;

/// What is counted in the one output of a node.
pub fn counted(
    ir: &Ir,
    operation: &Operation,
    inputs: &[Option<ValueId>],
    output: ValueId,
) -> Option<Counted> {
    let id = |index: usize| inputs.get(index).copied().flatten();
    let before = |index: usize| match ir.values[id(index)?].fact {
        Fact::Counted(counted) => Some(counted),
        _ => None,
    };
    // The numbers stay as they are in either dtype.
    if !matches!(ir.values[output].dtype, Some(DType::I64 | DType::I32)) {
        return None;
    }
    let number = |index: usize| match known_ints(ir, id(index)?)?[..] {
        [number] => Some(number),
        _ => None,
    };
    let found = match (&*operation.node().op, inputs) {
        ("CumSum", [_, _]) => cumulated(ir, operation, id(0)?, number(1)?)?,
        ("Cast" | "Identity", [_]) => before(0)?,
        ("Mul", [_, _]) => {
            let times = |counted: Counted, factor: usize| {
                let marks = Marks::of(ir, id(factor)?)?;
                let same = (marks.input, marks.number) == (counted.input, counted.padding);
                let [a, b] = marks.integers()?;
                let times = |[x, y]: [i64; 2]| [x * a, y * b];
                same.then(|| Counted { base: times(counted.base), per: times(counted.per), ..counted })
            };
            before(0).and_then(|counted| times(counted, 1)).or_else(|| times(before(1)?, 0))?
        }
        ("Add", [_, _]) => {
            let plus = |counted: Counted, other: usize| {
                let number = number(other)?;
                let base = [counted.base[0].checked_add(number)?, counted.base[1].checked_add(number)?];
                Some(Counted { base, ..counted })
            };
            before(0).and_then(|counted| plus(counted, 1)).or_else(|| plus(before(1)?, 0))?
        }
        _ => return None,
    };
    let small =
        found.base.iter().all(|base| base.abs() <= LARGEST) && found.per.iter().all(|per| per.abs() <= 1);
    let rows = ir.as_rows(found.input)?;
    (small && ir.shape(output)? == rows).then_some(found)
}

/// The sums along rows of what is not 0 where there is no padding.
fn cumulated(ir: &Ir, operation: &Operation, x: ValueId, along: i64) -> Option<Counted> {
    let unset = |name: &str| operation.node().int(name).ok().flatten().unwrap_or(0) == 0;
    let marks = Marks::of(ir, x)?;
    let [each, padding] = marks.integers()?;
    let plain = unset("exclusive") && unset("reverse") && axis(along, 2)? == 1 && padding == 0;
    let Marks { input, number, .. } = marks;
    plain.then_some(Counted { input, padding: number, base: [0; 2], per: [each; 2] })
}

/// A value of two numbers: one where an input of integers is not `number`, and one where it is.
struct Marks {
    input: ValueId,
    number: i64,
    entries: [Value; 2],
}

impl Marks {
    fn of(ir: &Ir, value: ValueId) -> Option<Self> {
        let (mut at, mut steps) = (value, Vec::new());
        loop {
            let (_, node) = ir.producer(at)?;
            let Op::Onnx(operation) = &node.op else { return None };
            match (&*operation.node().domain, &*operation.node().op, &node.inputs[..]) {
                ("", "Cast" | "Not" | "Identity", &[Some(source)]) => {
                    steps.push(operation);
                    at = source;
                }
                ("", "Equal", &[Some(a), Some(b)]) => {
                    let [ids, number] = if ir.constant(b).is_some() { [a, b] } else { [b, a] };
                    let input = ir.same_elements(ids);
                    let [number] = known_ints(ir, number)?[..] else { return None };
                    if !ir.inputs.contains(&input) || ir.shape(at)? != ir.as_rows(input)? {
                        return None;
                    }
                    let run = |entry: bool| {
                        steps.iter().rev().try_fold(Value::scalar(entry), |entry, step| {
                            step.run(&[Some(&entry)], Limits::default()).ok()?.into_iter().next()?
                        })
                    };
                    return Some(Self { input, number, entries: [run(false)?, run(true)?] });
                }
                _ => return None,
            }
        }
    }

    fn integers(&self) -> Option<[i64; 2]> {
        let integer = |value: &Value| match value.dtype() {
            DType::I64 => value.as_slice::<i64>().ok()?.first().copied(),
            DType::I32 => value.as_slice::<i32>().ok()?.first().map(|&x| i64::from(x)),
            _ => None,
        };
        Some([integer(&self.entries[0])?, integer(&self.entries[1])?])
    }
}
