//! Inputs for a graph that comes without a config.json: from what it declares, and from the tables that it looks ids up in.

use std::collections::HashMap;

use architecture::{Limits, Task};
use engine::{DType, Dim, NamedValues, Value, ValueError, ValueSpec};
use half::{bf16, f16};
use onnx_graph::Model;
use onnx_session::text_inputs::Lookup;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::longest::longest;
use crate::ParityError;
use crate::inputs::{Case, FixedShape, LONGEST as LONGEST_CASE, as_choices, cases_for, fit_inputs};
use crate::structure::witness;

/// The seed of what the default inputs of a model do not have. ChaCha8 gives the same numbers everywhere.
const SEED: u64 = 0x5EED;

/// The sizes that open axes are tried at, one after another: where a graph takes no `input_ids`.
const SIZES: [usize; 4] = [1, 2, 7, 3];

/// The longest text for a graph in which no table of positions is found: how many it takes is then not known.
const LONGEST: usize = 32;

/// The inputs of BERT.
const BERT: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// Cases for both graphs: those that a model with these tables gets, as far as the declared shapes
/// take them, and none longer than the first graph takes. An input that is none of BERT's is 0 or 1
/// where it is an integer, and normally distributed where it is a float.
///
/// # Errors
/// If a value cannot be made, which shapes that are declared in good faith rule out.
pub fn cases(raw: &Model, optimised: &Model) -> Result<Vec<Case>, ParityError> {
    let tables = Lookup::of(raw);
    let specs: Vec<&ValueSpec> = raw.graph.inputs.iter().filter(|spec| !spec.optional).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let Some(ids) = specs.iter().find(|spec| spec.name == "input_ids" && is_index(spec.dtype)) else {
        let sizes = SIZES.iter().map(|size| (format!("open axes of {size}"), HashMap::new(), *size));
        return sizes
            .map(|(name, mut symbols, size)| {
                let values = specs.iter().map(|spec| {
                    let value = made(spec, tables.rows(&spec.name), &mut symbols, size, &mut rng)?;
                    Ok((spec.name.clone(), value))
                });
                Ok(Case { name, inputs: values.collect::<Result<_, ValueError>>()? })
            })
            .collect();
    };
    let ids = in_both(ids, optimised);
    let task = match ids.shape.as_deref().map(<[Dim]>::len) {
        Some(3) => Task::MultipleChoice,
        _ => Task::FeatureExtraction,
    };
    let ids = [ids];
    let limits = Limits {
        vocabulary: tables.rows("input_ids").unwrap_or(2),
        token_types: tables.rows("token_type_ids").unwrap_or(2),
        positions: tables.positions.unwrap_or(LONGEST).min(LONGEST_CASE),
        padding: None,
    };
    let positions = match FixedShape::of(&ids).sequence {
        Some(_) => limits.positions,
        None => longest(raw, limits.positions, |length| texts(task, &ids, &limits, length, &specs, &tables))?,
    };
    let mut cases = cases_for(task, &Limits { positions, ..limits }, &ids, None, None)?;
    for case in &mut cases {
        case.inputs = completed(&case.inputs, &specs, &tables, &mut rng)?;
    }
    Ok(cases)
}

/// Inputs that the second graph's constants lead to, where the first takes texts.
pub(super) fn witnesses(raw: &Model, optimised: &Model) -> Vec<Case> {
    let tables = Lookup::of(raw);
    let specs: Vec<ValueSpec> = raw.graph.inputs.iter().filter(|spec| !spec.optional).cloned().collect();
    if !specs.iter().all(|spec| BERT.contains(&spec.name.as_str()) && is_index(spec.dtype)) {
        return Vec::new();
    }
    let Some(vocabulary) = tables.rows("input_ids") else { return Vec::new() };
    let limits = Limits {
        vocabulary,
        token_types: tables.rows("token_type_ids").unwrap_or(1),
        positions: tables.positions.unwrap_or(LONGEST).min(LONGEST_CASE),
        padding: None,
    };
    witness::inputs(optimised, &specs, &limits)
}

/// The ids with what either graph fixes of their shape.
fn in_both(ids: &ValueSpec, optimised: &Model) -> ValueSpec {
    let mut both = ids.clone();
    let other = optimised.graph.inputs.iter().find(|spec| spec.name == ids.name);
    let other = other.and_then(|spec| spec.shape.as_deref()).unwrap_or_default();
    for (dim, other) in both.shape.iter_mut().flatten().zip(other) {
        if let (Dim::Symbol(_) | Dim::Any, Dim::Fixed(_)) = (&*dim, other) {
            *dim = other.clone();
        }
    }
    both
}

/// A text of that many tokens, once of the first id and once of the last: not both are padding.
fn texts(
    task: Task,
    ids: &[ValueSpec],
    limits: &Limits,
    length: usize,
    specs: &[&ValueSpec],
    tables: &Lookup,
) -> Result<Vec<NamedValues>, ParityError> {
    let batch = FixedShape::of(ids).batch.unwrap_or(1);
    let text = |id: usize| {
        let filled = |element: usize| Value::new([batch, length], vec![element as i64; batch * length]);
        let values =
            [("input_ids", filled(id)?), ("attention_mask", filled(1)?), ("token_type_ids", filled(0)?)];
        let mut cases = vec![Case { name: String::new(), inputs: NamedValues::from_iter(values) }];
        if task == Task::MultipleChoice {
            cases = as_choices(cases, ids)?;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let inputs = cases.pop().map(|case| case.inputs).unwrap_or_default();
        let given: Vec<ValueSpec> = specs.iter().map(|spec| (*spec).clone()).collect();
        Ok(fit_inputs(&completed(&inputs, specs, tables, &mut rng)?, &given)?)
    };
    [0, limits.vocabulary - 1].into_iter().map(text).collect()
}

/// What a graph takes: of BERT's inputs these, and others of the sizes that the ids have.
fn completed(
    given: &NamedValues,
    specs: &[&ValueSpec],
    tables: &Lookup,
    rng: &mut ChaCha8Rng,
) -> Result<NamedValues, ValueError> {
    let shape = given.get("input_ids").map(|ids| ids.shape().to_vec()).unwrap_or_default();
    let mut symbols = HashMap::new();
    let ids = specs.iter().find(|spec| spec.name == "input_ids").and_then(|spec| spec.shape.as_ref());
    for (dim, size) in ids.into_iter().flatten().zip(&shape) {
        if let Dim::Symbol(name) = dim {
            symbols.insert(name.clone(), *size);
        }
    }
    let sequence = shape.last().copied().unwrap_or(1);
    let value = |spec: &&ValueSpec| {
        let known = given.get(&spec.name).filter(|_| BERT.contains(&spec.name.as_str()));
        let value = match known {
            // What an integer is made of, the check converts.
            Some(value) if is_index(spec.dtype) => value.clone(),
            Some(value) => of_dtype(spec.dtype, value.shape(), &value.to_f64())?,
            None => made(spec, tables.rows(&spec.name), &mut symbols, sequence, rng)?,
        };
        Ok((spec.name.clone(), value))
    };
    specs.iter().map(value).collect()
}

/// Whether [`fit_inputs`](crate::inputs::fit_inputs) makes it of an i64.
fn is_index(dtype: DType) -> bool {
    matches!(dtype, DType::I64 | DType::I32)
}

/// A value for an input. Axes of one name have one size; the others that are open have `size`.
fn made(
    spec: &ValueSpec,
    rows: Option<usize>,
    symbols: &mut HashMap<String, usize>,
    size: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Value, ValueError> {
    let shape: Vec<usize> = spec
        .shape
        .iter()
        .flatten()
        .map(|dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Symbol(name) => *symbols.entry(name.clone()).or_insert(size),
            Dim::Any => size,
        })
        .collect();
    let count: usize = shape.iter().product();
    let largest = rows.unwrap_or(2).max(1);
    let elements: Vec<f64> = (0..count)
        .map(|_| if spec.dtype.is_float() { normal(rng) } else { rng.random_range(0..largest as u64) as f64 })
        .collect();
    of_dtype(spec.dtype, &shape, &elements)
}

/// A draw from N(0, 1), by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    // Of (0, 1], whose logarithm is finite.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// A value of these elements, which are small where the dtype is of integers.
fn of_dtype(dtype: DType, shape: &[usize], elements: &[f64]) -> Result<Value, ValueError> {
    fn each<T: engine::Element>(
        shape: &[usize],
        elements: &[f64],
        of: impl Fn(f64) -> T,
    ) -> Result<Value, ValueError> {
        Value::new(shape, elements.iter().map(|x| of(*x)).collect::<Vec<T>>())
    }
    match dtype {
        DType::F16 => each(shape, elements, f16::from_f64),
        DType::BF16 => each(shape, elements, bf16::from_f64),
        DType::F32 => each(shape, elements, |x| x as f32),
        DType::F64 => each(shape, elements, |x| x),
        DType::I8 => each(shape, elements, |x| x as i8),
        DType::I16 => each(shape, elements, |x| x as i16),
        DType::I32 => each(shape, elements, |x| x as i32),
        DType::I64 => each(shape, elements, |x| x as i64),
        DType::U8 => each(shape, elements, |x| x as u8),
        DType::U16 => each(shape, elements, |x| x as u16),
        DType::U32 => each(shape, elements, |x| x as u32),
        DType::U64 => each(shape, elements, |x| x as u64),
        DType::Bool => each(shape, elements, |x| x != 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(file: &str) -> Model {
        Model::open(format!("{}/../../tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn declared_shapes_are_kept() {
        let dynamic = fixture("baseline/onnx/ts14-eager-dynamic.onnx");
        let fixed = fixture("baseline/onnx/ts14-eager-static.onnx");
        for (raw, optimised) in [(&dynamic, &fixed), (&fixed, &dynamic)] {
            let cases = cases(raw, optimised).unwrap();
            assert!(cases.len() > 2);
            for case in cases {
                assert!(case.inputs.iter().all(|(_, value)| value.shape() == [2, 8]), "{}", case.name);
            }
        }
        let cases = cases(&dynamic, &dynamic).unwrap();
        let longest = cases.iter().filter_map(|case| case.inputs.get("input_ids")).map(|ids| ids.shape()[1]);
        assert_eq!(longest.max(), Some(24));
    }

    #[test]
    fn the_longest_text_is_one_that_the_graph_takes() {
        // As in a RoBERTa, positions begin after the number of the padding token.
        let mut model = fixture("baseline/onnx/ts14-eager-dynamic.onnx");
        let table = "embeddings.position_embeddings.weight";
        let at = model
            .graph
            .nodes
            .iter()
            .position(|node| node.inputs.first().is_some_and(|name| name.ends_with(table)));
        let gather = &mut model.graph.nodes[at.unwrap()];
        let index = std::mem::replace(&mut gather.inputs[1], "shifted".into());
        let first = Value::scalar(2i64);
        model.graph.initializers.insert("first".into(), onnx_graph::Tensor::from_value(&first));
        let shift = onnx_graph::Node {
            name: "shift".into(),
            op: "Add".into(),
            inputs: vec![index, "first".into()],
            outputs: vec!["shifted".into()],
            ..onnx_graph::Node::default()
        };
        model.graph.nodes.insert(at.unwrap(), shift);
        let cases = cases(&model, &model).unwrap();
        let lengths = cases.iter().filter_map(|case| case.inputs.get("input_ids")).map(|ids| ids.shape()[1]);
        assert_eq!(lengths.max(), Some(22));
    }

    #[test]
    fn choices_have_an_axis_of_their_own() {
        let model = fixture("heads/multiple_choice/onnx/ts17-eager.onnx");
        let cases = cases(&model, &model).unwrap();
        assert!(cases.len() > 2);
        for case in &cases {
            assert!(case.inputs.iter().all(|(_, value)| value.shape().len() == 3), "{}", case.name);
        }
        assert!(cases.iter().any(|case| case.inputs.get("input_ids").unwrap().shape()[..2] == [2, 3]));
    }

    #[test]
    fn a_graph_that_is_no_bert_gets_inputs_too() {
        let spec = |name: &str, dtype, dims: &[Dim]| ValueSpec {
            name: name.into(),
            dtype,
            shape: Some(dims.to_vec()),
            optional: false,
        };
        let rows = Dim::Symbol("rows".into());
        let mut model = Model::default();
        model.graph.inputs =
            vec![spec("x", DType::F32, &[rows.clone(), Dim::Fixed(4)]), spec("flag", DType::Bool, &[rows])];
        let cases = cases(&model, &model).unwrap();
        assert_eq!(cases.len(), SIZES.len());
        for (case, size) in cases.iter().zip(SIZES) {
            let (x, flag) = (case.inputs.get("x").unwrap(), case.inputs.get("flag").unwrap());
            assert_eq!((x.shape(), flag.shape()), (&[size, 4][..], &[size][..]));
            assert!(x.to_f64().iter().any(|x| *x != 0.0));
        }
    }
}
