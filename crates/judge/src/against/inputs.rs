//! Inputs for a graph that comes without a config.json: from what it declares, and from the tables that it looks ids up in.

use std::collections::{BTreeMap, HashMap, HashSet};

use architecture::Limits;
use engine::{DType, Dim, NamedValues, Value, ValueError, ValueSpec};
use half::{bf16, f16};
use onnx_graph::{Attribute, Model, Node};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::ParityError;
use crate::inputs::{Case, FixedShape, default_cases};

/// The seed of what the default inputs of a model do not have. ChaCha8 gives the same numbers everywhere.
const SEED: u64 = 0x5EED;

/// The sizes that open axes are tried at, one after another: where a graph takes no `input_ids`.
const SIZES: [usize; 4] = [1, 2, 7, 3];

/// The longest text for a graph in which no table of positions is found: how many it takes is then not known.
const LONGEST: usize = 32;

/// Operators that hand on the elements of their first input.
const PASSES: [&str; 9] = [
    "Identity",
    "Cast",
    "Reshape",
    "Unsqueeze",
    "Squeeze",
    "Flatten",
    "Expand",
    "DequantizeLinear",
    "Transpose",
];

/// The inputs of BERT.
const BERT: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// Cases for both graphs: those that a model with these tables gets, as far as the declared shapes take them. An input that is none of BERT's is
/// 0 or 1 where it is an integer, and normally distributed where it is a float.
///
/// # Errors
/// If a value cannot be made, which shapes that are declared in good faith rule out.
pub fn cases(raw: &Model, optimised: &Model) -> Result<Vec<Case>, ParityError> {
    let tables = Tables::of(raw);
    let specs: Vec<&ValueSpec> = raw.graph.inputs.iter().filter(|spec| !spec.optional).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let takes_ids = specs.iter().any(|spec| spec.name == "input_ids" && is_index(spec.dtype));
    if !takes_ids {
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
    }
    let [first, second] = [raw, optimised].map(|model| FixedShape::of(&model.graph.inputs));
    let fixed =
        FixedShape { batch: first.batch.or(second.batch), sequence: first.sequence.or(second.sequence) };
    let limits = Limits {
        vocabulary: tables.rows("input_ids").unwrap_or(2),
        token_types: tables.rows("token_type_ids").unwrap_or(2),
        positions: tables.positions.unwrap_or(LONGEST),
    };
    let mut cases = default_cases(&limits, fixed, None, None)?;
    for case in &mut cases {
        let shape = case.inputs.get("input_ids").map(|ids| ids.shape().to_vec()).unwrap_or_default();
        let mut symbols = HashMap::new();
        let ids = specs.iter().find(|spec| spec.name == "input_ids").and_then(|spec| spec.shape.as_ref());
        for (dim, size) in ids.into_iter().flatten().zip(&shape) {
            if let Dim::Symbol(name) = dim {
                symbols.insert(name.clone(), *size);
            }
        }
        let sequence = shape.last().copied().unwrap_or(1);
        let mut inputs = NamedValues::new();
        for spec in &specs {
            let known = case.inputs.get(&spec.name).filter(|_| BERT.contains(&spec.name.as_str()));
            let value = match known {
                // What an integer is made of, the check converts.
                Some(value) if is_index(spec.dtype) => value.clone(),
                Some(value) => of_dtype(spec.dtype, value.shape(), &value.to_f64())?,
                None => made(spec, tables.rows(&spec.name), &mut symbols, sequence, &mut rng)?,
            };
            inputs.insert(spec.name.clone(), value);
        }
        case.inputs = inputs;
    }
    Ok(cases)
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

/// What a graph looks its inputs up in.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tables {
    /// The rows of the smallest table that an input is looked up in.
    rows: BTreeMap<String, usize>,
    /// How many positions there are, if a table says so.
    positions: Option<usize>,
}

impl Tables {
    fn rows(&self, input: &str) -> Option<usize> {
        self.rows.get(input).copied()
    }

    /// The tables of the main graph's nodes.
    fn of(model: &Model) -> Self {
        let trace = Trace::new(model);
        let mut tables = Self::default();
        // Rows and width of tables that no input leads to.
        let mut others: Vec<[usize; 2]> = Vec::new();
        let mut widths = HashSet::new();
        let mut look_up = |index: &str, table: &str, tables: &mut Self| {
            // A table without rows takes no id: the graph says so when it runs.
            let Some([rows, width]) = trace.table(table).map(|[rows, width]| [rows.max(1), width]) else {
                return;
            };
            match trace.input(index) {
                Some(input) => {
                    let least = tables.rows.entry(input.into()).or_insert(rows);
                    *least = rows.min(*least);
                    widths.insert(width);
                }
                None => others.push([rows, width]),
            }
        };
        let input = |node: &Node, at: usize| node.inputs.get(at).map_or("", String::as_str).to_string();
        for node in &model.graph.nodes {
            match node.op.as_str() {
                "Gather" => look_up(&input(node, 1), &input(node, 0), &mut tables),
                // input_ids, segment_ids, then the tables of words, positions and segments.
                "EmbedLayerNormalization" => {
                    look_up(&input(node, 0), &input(node, 2), &mut tables);
                    look_up(&input(node, 1), &input(node, 4), &mut tables);
                    look_up("", &input(node, 3), &mut tables);
                }
                _ => {}
            }
        }
        // A table of positions is as wide as that of the ids. So is that of token types, which stands beside it where the graph has no such input.
        let positions = others.iter().filter(|[_, width]| widths.contains(width)).map(|[rows, _]| *rows);
        tables.positions =
            if tables.rows("token_type_ids").is_some() { positions.min() } else { positions.max() };
        tables
    }
}

/// The way back from a value.
struct Trace<'a> {
    model: &'a Model,
    producer: HashMap<&'a str, &'a Node>,
}

impl<'a> Trace<'a> {
    fn new(model: &'a Model) -> Self {
        let outputs = |node: &'a Node| node.outputs.iter().map(move |output| (output.as_str(), node));
        Self { model, producer: model.graph.nodes.iter().flat_map(outputs).collect() }
    }

    /// Where the elements of a value come from.
    fn origin(&self, name: &'a str) -> (&'a str, Option<&'a Node>) {
        let mut name = name;
        // A checked model has no cycle; the bound only says so.
        for _ in 0..=self.producer.len() {
            match self.producer.get(name) {
                Some(node) if PASSES.contains(&node.op.as_str()) => {
                    name = node.inputs.first().map_or("", String::as_str);
                }
                found => return (name, found.copied()),
            }
        }
        (name, None)
    }

    /// The input that a value's elements are.
    fn input(&self, name: &str) -> Option<&'a str> {
        let name = self.known(name)?;
        let (name, _) = self.origin(name);
        self.model.graph.inputs.iter().map(|spec| spec.name.as_str()).find(|input| *input == name)
    }

    /// Rows and width of a constant of rank 2.
    fn table(&self, name: &str) -> Option<[usize; 2]> {
        let (name, node) = self.origin(self.known(name)?);
        let shape = match node {
            Some(node) => match node.attributes.get("value") {
                Some(Attribute::Tensor(tensor)) if node.op == "Constant" => &tensor.shape,
                _ => return None,
            },
            None => &self.model.graph.initializers.get(name)?.shape,
        };
        <[usize; 2]>::try_from(shape.as_slice()).ok()
    }

    /// The name as the model itself has it.
    fn known(&self, name: &str) -> Option<&'a str> {
        let (produced, inputs) = (self.producer.keys().copied(), self.model.graph.inputs.iter());
        let constants = self.model.graph.initializers.keys().map(String::as_str);
        produced.chain(inputs.map(|spec| spec.name.as_str())).chain(constants).find(|known| *known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(file: &str) -> Model {
        Model::open(format!("{}/../../tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn tables_say_what_ids_there_are() {
        for (file, ids, types, positions) in [
            ("baseline/onnx/ts14-eager-dynamic.onnx", 48, 2, 24),
            ("baseline/onnx/dynamo20-sdpa-dynamic.onnx", 48, 2, 24),
            ("forms/baseline/ort-transformers-ts14.onnx", 48, 2, 24),
            ("forms/baseline/ort-all-ts14.onnx", 48, 2, 24),
            ("forms/baseline/onnxslim-ts17.onnx", 48, 2, 24),
            ("forms/types3/ort-transformers-dynamo20.onnx", 48, 3, 24),
            ("forms/types3/onnxsim-ts14.onnx", 48, 3, 24),
        ] {
            let tables = Tables::of(&fixture(file));
            let found = (tables.rows("input_ids"), tables.rows("token_type_ids"), tables.positions);
            assert_eq!(found, (Some(ids), Some(types), Some(positions)), "{file}");
            assert_eq!(tables.rows("attention_mask"), None, "{file}");
        }
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
