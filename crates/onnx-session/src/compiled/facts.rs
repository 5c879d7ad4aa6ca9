//! What is known of elements before anything runs: sizes that shapes are computed from, positions that a constant list begins with, and masks.
//!
//! A mask is not recognised by the nodes that exporters write, of which there are many, but by what they compute: from `attention_mask` on, every
//! elementwise node is evaluated on the two numbers that a mask holds, by the evaluator that would run the node. What reaches the attention is then a
//! table of two numbers and the axes they lie along, whether it came by `(1 − m)·min`, by `Where`, or by two casts and an `Expand`.

use engine::{DType, Value};
use onnx_eval::{Limits, Operation};
use onnx_graph::shape::{Cut, Size, axis};

use super::dim::{Dim, Int};
use super::infer::{ints, known_ints, permutation, shape_part, slice, splat};
use super::ir::{Constant, Fact, Guard, Ir, Mask, Table, ValueId};
use super::ops::Casts;

/// An input of integers in rows may be a mask.
pub fn input(ir: &Ir, id: ValueId) -> Fact {
    match ir.shape(id) {
        Some([_, _]) => mask(ir, id).map_or(Fact::Unknown, Fact::Table),
        _ => Fact::Unknown,
    }
}

/// An input of integers, in rows, as the mask that it may be.
fn mask(ir: &Ir, input: ValueId) -> Option<Table> {
    let entries = match ir.values[input].dtype? {
        DType::I64 => [0i64, 1].map(Value::scalar),
        DType::I32 => [0i32, 1].map(Value::scalar),
        DType::Bool => [false, true].map(Value::scalar),
        _ => return None,
    };
    Some(Table { mask: Some(Mask { input, row_axis: 0, key_axis: 1 }), entries: entries.to_vec() })
}

/// What is known of the one output of a node of ONNX's own.
pub fn fact(ir: &mut Ir, operation: &Operation, inputs: &[Option<ValueId>], output: ValueId) -> Fact {
    if !operation.node().domain.is_empty() {
        return Fact::Unknown;
    }
    for guard in slice_guards(ir, operation, inputs) {
        ir.guard(guard);
    }
    let known = sizes(ir, operation, inputs, output)
        .or_else(|| prefix(ir, operation, inputs, output))
        .or_else(|| super::count::counted(ir, operation, inputs, output).map(Fact::Counted))
        .or_else(|| table(ir, operation, inputs, output));
    known.unwrap_or(Fact::Unknown)
}

/// What the shape of a `Slice` takes to hold: that an axis of a number of elements has as many as
/// an input is long.
fn slice_guards(ir: &Ir, operation: &Operation, inputs: &[Option<ValueId>]) -> Vec<Guard> {
    let dims = inputs.first().copied().flatten().and_then(|source| ir.shape(source));
    let cuts = (operation.node().op == "Slice").then(|| slice(ir, operation, inputs)).flatten();
    let cuts = cuts.unwrap_or_default();
    let guard = |(dim, cut): (&Dim, &Cut<Dim>)| Some(Guard::AtMost(cut.count.as_symbol()?, dim.known()?));
    dims.unwrap_or_default().iter().zip(&cuts).filter_map(guard).collect()
}

/// Lists of sizes.
fn sizes(ir: &Ir, operation: &Operation, inputs: &[Option<ValueId>], output: ValueId) -> Option<Fact> {
    let id = |index: usize| inputs.get(index).copied().flatten();
    let list = |index: usize| ints(ir, id(index)?);
    let rank = ir.shape(output)?.len();
    if rank > 1 {
        return None;
    }
    let sizes = match &*operation.node().op {
        "Shape" => {
            let dims = ir.shape(id(0)?)?;
            dims[shape_part(operation, dims.len())].iter().map(Int::from_size).collect()
        }
        "Size" => {
            let dims = ir.shape(id(0)?)?.iter().map(Int::from_size);
            let all = dims.map(|size| size.to_size()).collect::<Option<Vec<Dim>>>()?;
            let product = all.iter().try_fold(Dim::fixed(1), |product, dim| product.times(dim))?;
            vec![Int::from_size(&product)]
        }
        "Gather" if operation.node().int("axis").ok()?.unwrap_or(0) == 0 => {
            let (list, indices) = (list(0)?, known_ints(ir, id(1)?)?);
            if ir.shape(id(0)?)?.len() != 1 {
                return None;
            }
            indices.iter().map(|&i| list.get(axis(i, list.len())?).cloned()).collect::<Option<_>>()?
        }
        "Slice" => {
            let list = list(0)?;
            let [Cut { first, count }] = &slice(ir, operation, inputs)?[..] else { return None };
            list.get(*first..first + count.known()?)?.to_vec()
        }
        "Concat" => {
            let lists: Vec<Vec<Int>> = (0..inputs.len()).map(list).collect::<Option<_>>()?;
            lists.concat()
        }
        "Identity" | "Unsqueeze" | "Squeeze" | "Reshape" => list(0)?,
        // As a float a size is still one: a range of places may count in floats.
        "Cast" if ir.values[output].dtype.is_some_and(|dtype| dtype.is_float()) => {
            let sizes = list(0)?;
            let is_open = sizes.iter().any(|size| size.known().is_none());
            return is_open.then_some(Fact::Ints(sizes));
        }
        "Cast" => list(0)?,
        "Mul" => pairs(&list(0)?, &list(1)?, |a, b| match (a, b) {
            (Int::Known(a), Int::Known(b)) => a.checked_mul(*b).map(Int::Known),
            (a, b) => Some(Int::from_size(&a.to_size()?.times(&b.to_size()?)?)),
        })?,
        "Div" => {
            pairs(&list(0)?, &list(1)?, |a, b| Some(Int::from_size(&a.to_size()?.divided(&b.to_size()?)?)))?
        }
        "Add" => pairs(&list(0)?, &list(1)?, |a, b| match (a, b) {
            (Int::Known(a), Int::Known(b)) => a.checked_add(*b).map(Int::Known),
            (Int::Known(0), size) | (size, Int::Known(0)) => Some(size.clone()),
            _ => None,
        })?,
        "Where" => {
            let condition = ir.constant(id(0)?)?.value()?;
            let (yes, no) = (list(1)?, list(2)?);
            let condition = condition.as_slice::<bool>().ok()?;
            if yes.len() != condition.len() || no.len() != condition.len() {
                return None;
            }
            let pick = |(index, &condition): (usize, &bool)| {
                if condition { yes[index].clone() } else { no[index].clone() }
            };
            condition.iter().enumerate().map(pick).collect()
        }
        "Equal" => {
            let equal = pairs(&list(0)?, &list(1)?, |a, b| match (a, b) {
                (a, b) if a == b => Some(true),
                (Int::Known(a), Int::Known(b)) => Some(a == b),
                // A size is never negative.
                (Int::Known(number), Int::Size(_)) | (Int::Size(_), Int::Known(number)) if *number < 0 => {
                    Some(false)
                }
                _ => None,
            })?;
            let shape = if rank == 0 { vec![] } else { vec![equal.len()] };
            return Some(Fact::Const(Constant::Computed(Value::new(shape, equal).ok()?)));
        }
        _ => return None,
    };
    if ir.values[output].dtype != Some(DType::I64) {
        return None;
    }
    let known: Option<Vec<i64>> = sizes.iter().map(Int::known).collect();
    Some(match known {
        Some(numbers) => {
            let shape = if rank == 0 { vec![] } else { vec![numbers.len()] };
            Fact::Const(Constant::Computed(Value::new(shape, numbers).ok()?))
        }
        None => Fact::Ints(sizes),
    })
}

/// Two lists element by element; one of one element goes with each.
fn pairs<T>(left: &[Int], right: &[Int], f: impl Fn(&Int, &Int) -> Option<T>) -> Option<Vec<T>> {
    let count = left.len().max(right.len());
    let at = |list: &[Int], index: usize| match list.len() {
        1 => list.first().cloned(),
        found if found == count => list.get(index).cloned(),
        _ => None,
    };
    (0..count).map(|index| f(&at(left, index)?, &at(right, index)?)).collect()
}

/// The first elements of a constant list, as many as an input is long.
fn prefix(ir: &Ir, operation: &Operation, inputs: &[Option<ValueId>], output: ValueId) -> Option<Fact> {
    let node = operation.node();
    let source = inputs.first().copied().flatten()?;
    if let (Fact::Prefix(list), "Unsqueeze" | "Cast" | "Identity") = (&ir.values[source].fact, &*node.op) {
        // Only leading axes of one row may come on top.
        let leading = ir.shape(output)?.split_last()?.1.iter().all(Dim::is_one);
        let casts = match &*node.op {
            "Cast" => Casts(vec![ir.values[output].dtype.filter(|dtype| !dtype.is_float())?]),
            _ => Casts::default(),
        };
        return leading.then(|| Fact::Prefix(list.iter().map(|&index| casts.apply(index)).collect()));
    }
    if node.op != "Slice" {
        return None;
    }
    let constant = ir.constant(source)?;
    let cuts = slice(ir, operation, inputs)?;
    let (last, leading) = cuts.split_last()?;
    let longest = *constant.shape().last()?;
    last.count.as_symbol()?;
    if !leading.iter().all(|cut| cut.first == 0 && cut.count.is_one())
        || constant.shape().iter().product::<usize>() != longest
    {
        return None;
    }
    let fact = match splat(constant) {
        Some(entry) => Fact::Table(Table { mask: None, entries: vec![entry] }),
        None => Fact::Prefix(constant.value()?.as_slice::<i64>().ok()?.into()),
    };
    Some(fact)
}

/// A value of one number throughout, or of two by a mask.
fn table(ir: &Ir, operation: &Operation, inputs: &[Option<ValueId>], output: ValueId) -> Option<Fact> {
    let node = operation.node();
    let shape = ir.shape(output)?;
    match &*node.op {
        "ConstantOfShape" => {
            let entry = match node.tensor("value").ok()? {
                Some(tensor) => splat(&Constant::Stored(tensor.clone()))?,
                None => Value::scalar(0f32),
            };
            return Some(Fact::Table(Table { mask: None, entries: vec![entry] }));
        }
        // Each element is computed from those at its place alone.
        "Abs" | "Add" | "And" | "Cast" | "CastLike" | "Clip" | "Div" | "Equal" | "Greater"
        | "GreaterOrEqual" | "Identity" | "Less" | "LessOrEqual" | "Max" | "Min" | "Mul" | "Neg" | "Not"
        | "Or" | "Sub" | "Where" | "Xor" => {
            return elementwise(ir, operation, inputs, shape).map(Fact::Table);
        }
        _ => {}
    }
    let source = inputs.first().copied().flatten()?;
    // An input of several texts a row, as rows of texts.
    let whole = ir.same_elements(source);
    if node.op == "Reshape" && ir.inputs.contains(&whole) && ir.shape(whole)?.len() > 2 {
        return mask(ir, whole)
            .filter(|_| ir.as_rows(whole).as_ref().is_some_and(|rows| rows == shape))
            .map(Fact::Table);
    }
    let table = lookup(ir, source)?;
    let Some(mask) = table.mask else {
        let keeps = ["Expand", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Transpose", "Flatten"];
        return keeps.contains(&&*node.op).then_some(Fact::Table(table));
    };
    let old = ir.shape(source)?;
    // Where each old axis goes.
    let moved = |axis: usize| -> Option<usize> {
        match &*node.op {
            "Expand" => Some(axis + shape.len() - old.len()),
            "Transpose" => permutation(operation, old.len())?.iter().position(|&from| from == axis),
            "Unsqueeze" | "Squeeze" | "Reshape" => same_axis(old, shape, axis),
            "Slice" => slice(ir, operation, inputs)?.iter().all(|cut| cut.first == 0).then_some(axis),
            _ => None,
        }
    };
    let mask = Mask { row_axis: moved(mask.row_axis)?, key_axis: moved(mask.key_axis)?, ..mask };
    keeps_axes(ir, mask, shape).then_some(Fact::Table(Table { mask: Some(mask), ..table }))
}

/// Where an axis goes if only axes of size 1 come or go.
fn same_axis(old: &[Dim], new: &[Dim], axis: usize) -> Option<usize> {
    let wide = |dims: &[Dim]| -> Vec<usize> { (0..dims.len()).filter(|&a| !dims[a].is_one()).collect() };
    let (from, to) = (wide(old), wide(new));
    if from.len() != to.len() || from.iter().zip(&to).any(|(&a, &b)| old[a] != new[b]) {
        return None;
    }
    Some(to[from.iter().position(|&a| a == axis)?])
}

/// Whether a mask's axes are as long as they are in the mask.
fn keeps_axes(ir: &Ir, mask: Mask, shape: &[Dim]) -> bool {
    let Some([rows, keys]) = ir.as_rows(mask.input) else { return false };
    shape.get(mask.row_axis) == Some(&rows) && shape.get(mask.key_axis) == Some(&keys)
}

/// A value as a table: one that is known to be, or a constant of one element.
fn lookup(ir: &Ir, id: ValueId) -> Option<Table> {
    match &ir.values[id].fact {
        Fact::Table(table) => Some(table.clone()),
        Fact::Const(constant) if constant.len() == 1 => {
            Some(Table { mask: None, entries: vec![splat(constant)?] })
        }
        _ => None,
    }
}

fn elementwise(ir: &Ir, operation: &Operation, inputs: &[Option<ValueId>], shape: &[Dim]) -> Option<Table> {
    let mut mask: Option<Mask> = None;
    let mut tables = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.iter().enumerate() {
        let Some(id) = *input else {
            operation.node().inputs[index].is_empty().then_some(())?;
            tables.push(None);
            continue;
        };
        let table = lookup(ir, id)?;
        if let Some(own) = table.mask {
            let shift = shape.len().checked_sub(ir.shape(id)?.len())?;
            let own = Mask { row_axis: own.row_axis + shift, key_axis: own.key_axis + shift, ..own };
            if mask.is_some_and(|other| other != own) || !keeps_axes(ir, own, shape) {
                return None;
            }
            mask = Some(own);
        }
        tables.push(Some(table));
    }
    let entry = |row: usize| -> Option<Value> {
        let given: Vec<Option<&Value>> = tables
            .iter()
            .map(|table| {
                table.as_ref().map(|table| &table.entries[if table.mask.is_some() { row } else { 0 }])
            })
            .collect();
        operation.run(&given, Limits::default()).ok()?.into_iter().next()?
    };
    let entries = (0..if mask.is_some() { 2 } else { 1 }).map(entry).collect::<Option<_>>()?;
    Some(Table { mask, entries })
}
