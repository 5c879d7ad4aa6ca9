//! Inputs on which a graph that nobody understands may be another function: what it compares with
//! stands in it as a constant.

use std::collections::BTreeSet;

use architecture::Limits;
use engine::{DType, NamedValues, Value, ValueSpec};
use onnx_graph::{Attribute, Graph, Model, Node, Tensor};

use crate::inputs::{Case, FixedShape, LONGEST, common_inputs};

/// Constants of more elements are weights, tables and shapes of masks.
const ELEMENTS: usize = 64;

/// How many numbers are tried as lengths of a text, as numbers of texts, and as ids. Each of the
/// first two is a run.
const LENGTHS: usize = 8;
const ROWS: usize = 32;
const IDS: usize = 512;

/// No batch is larger.
const MOST_ROWS: i64 = 128;

/// The inputs that a graph's own constants lead to: each, and its neighbours, as an id, as a
/// length, as the number of padded tokens, and as the number of texts.
pub(crate) fn inputs(model: &Model, reference: &[ValueSpec], limits: &Limits) -> Vec<Case> {
    let mut numbers = BTreeSet::new();
    of_graph(&model.graph, &mut numbers);
    for function in &model.functions {
        function.nodes.iter().for_each(|node| of_node(node, &mut numbers));
    }
    let near: BTreeSet<i64> = numbers.iter().flat_map(|&c| [c - 1, c, c + 1]).filter(|&c| c >= 0).collect();
    let below = |end: usize| near.iter().copied().filter(move |&c| (c as usize) < end);
    let ids: Vec<i64> = below(limits.vocabulary).take(IDS).collect();
    let longest = limits.positions.min(LONGEST);
    let specs = &model.graph.inputs;
    let case =
        |name: String, shape: [usize; 2], id: &dyn Fn(usize, usize) -> i64, real: &dyn Fn(usize) -> bool| {
            let of = |element: &dyn Fn(usize, usize) -> i64| {
                let elements = (0..shape[0] * shape[1]).map(|at| element(at / shape[1], at % shape[1]));
                Value::new(shape, elements.collect::<Vec<i64>>()).ok()
            };
            let mut all = NamedValues::new();
            for spec in reference {
                let value = match spec.name.as_str() {
                    "input_ids" => of(id)?,
                    "attention_mask" => of(&|_, place| real(place).into())?,
                    _ => of(&|row, place| ((row + place) % limits.token_types.max(1)) as i64)?,
                };
                all.insert(&spec.name, value);
            }
            Some(Case { name, inputs: common_inputs(&all, reference, specs).ok()? })
        };
    let usual = |row: usize, place: usize| ((7 * row + 3 * place + 1) % limits.vocabulary) as i64;
    let fixed = FixedShape::of(specs);
    let mut cases = Vec::new();
    if let (Some(rows), Some(tokens)) = (fixed.batch, fixed.sequence) {
        for (at, ids) in ids.chunks((rows * tokens).max(1)).enumerate().take(LENGTHS) {
            let id = |row: usize, place: usize| ids[(row * tokens + place) % ids.len()];
            cases.push(case(format!("ids like the graph's constants {at}"), [rows, tokens], &id, &|_| true));
        }
        return cases.into_iter().flatten().collect();
    }
    if fixed != FixedShape::default()
        || specs.iter().any(|spec| spec.shape.as_ref().is_some_and(|dims| dims.len() > 2))
    {
        return Vec::new();
    }
    for ids in ids.chunks(ELEMENTS) {
        let id = |row: usize, place: usize| if place == 1 { ids[row] } else { usual(row, place) };
        let name = format!("ids {} to {} like the graph's constants", ids[0], ids[ids.len() - 1]);
        cases.push(case(name, [ids.len(), 3], &id, &|_| true));
    }
    let mut lengths: Vec<i64> = below(longest + 1).filter(|&length| length > 2).collect();
    // The largest are the likeliest: small numbers are axes.
    lengths.reverse();
    for length in lengths.into_iter().take(LENGTHS).map(|length| length as usize) {
        cases.push(case(format!("{length} tokens, a constant of the graph"), [1, length], &usual, &|_| true));
        let padded = longest - length;
        if padded > 0 {
            let name = format!("{length} real tokens and {padded} padded, a constant of the graph");
            cases.push(case(name, [1, longest], &usual, &|place| place < length));
            let name = format!("{padded} real tokens and {length} padded, a constant of the graph");
            cases.push(case(name, [1, longest], &usual, &|place| place < padded));
        }
    }
    let rows = near.iter().copied().filter(|&rows| rows > 0 && rows <= MOST_ROWS).rev().take(ROWS);
    for rows in rows.map(|rows| rows as usize) {
        cases.push(case(format!("{rows} texts, a constant of the graph"), [rows, 3], &usual, &|_| true));
    }
    // Of anything that begins at some number of texts.
    cases.push(case(format!("{MOST_ROWS} texts"), [MOST_ROWS as usize, 3], &usual, &|_| true));
    cases.into_iter().flatten().collect()
}

fn of_graph(graph: &Graph, numbers: &mut BTreeSet<i64>) {
    graph.initializers.values().for_each(|tensor| of_tensor(tensor, numbers));
    graph.nodes.iter().for_each(|node| of_node(node, numbers));
}

fn of_node(node: &Node, numbers: &mut BTreeSet<i64>) {
    for (name, attribute) in &node.attributes {
        match attribute {
            Attribute::Tensor(tensor) => of_tensor(tensor, numbers),
            Attribute::Int(number) if name.starts_with("value") => {
                numbers.insert(*number);
            }
            Attribute::Ints(list) if name.starts_with("value") => numbers.extend(list),
            Attribute::Graph(graph) => of_graph(graph, numbers),
            Attribute::Graphs(all) => all.iter().for_each(|graph| of_graph(graph, numbers)),
            _ => {}
        }
    }
}

/// The whole numbers of a short tensor.
fn of_tensor(tensor: &Tensor, numbers: &mut BTreeSet<i64>) {
    if tensor.dtype == DType::Bool || tensor.shape.iter().product::<usize>() > ELEMENTS {
        return;
    }
    let elements = tensor.to_value().map(|value| value.to_f64()).unwrap_or_default();
    let is_whole = |x: &f64| x.fract() == 0.0 && (0.0..=1e6).contains(x);
    numbers.extend(elements.into_iter().filter(is_whole).map(|x| x as i64));
}
