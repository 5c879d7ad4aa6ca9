//! The tables that a graph looks its inputs up in: which ids there are, and how many positions.

use std::collections::{BTreeMap, HashMap, HashSet};

use onnx_graph::{Attribute, Model, Node};

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

/// What a graph looks its inputs up in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// For each input that is looked up, the rows of the smallest table, as far as they are known.
    rows: BTreeMap<String, Option<usize>>,
    /// How many positions there are, if a table says so.
    pub positions: Option<usize>,
}

impl Lookup {
    /// The rows of the smallest table that an input is looked up in: so many ids there are.
    pub fn rows(&self, input: &str) -> Option<usize> {
        self.rows.get(input).copied().flatten()
    }

    /// Whether rows are looked up by an input, in whatever table.
    pub fn is_by(&self, input: &str) -> bool {
        self.rows.contains_key(input)
    }

    /// The tables of the main graph's nodes.
    pub fn of(model: &Model) -> Self {
        let trace = Trace::new(model);
        let mut tables = Self::default();
        // Rows and width of tables that no input leads to.
        let mut others: Vec<[usize; 2]> = Vec::new();
        let mut widths = HashSet::new();
        let mut look_up = |index: &str, table: &str, tables: &mut Self| {
            // A table without rows takes no id: the graph says so when it runs.
            let table = trace.table(table).map(|[rows, width]| [rows.max(1), width]);
            match (trace.input(index), table) {
                (Some(input), table) => {
                    let least = tables.rows.entry(input.into()).or_default();
                    *least = (*least).into_iter().chain(table.map(|[rows, _]| rows)).min();
                    widths.extend(table.map(|[_, width]| width));
                }
                (None, Some(table)) => others.push(table),
                (None, None) => {}
            }
        };
        let input = |node: &Node, at: usize| node.inputs.get(at).map_or("", String::as_str).to_string();
        for node in &model.graph.nodes {
            match node.op.as_str() {
                "Gather" => look_up(&input(node, 1), &input(node, 0), &mut tables),
                // input_ids, segment_ids, then the tables of words, positions and segments; last
                // position_ids, where they are not counted.
                "EmbedLayerNormalization" => {
                    look_up(&input(node, 0), &input(node, 2), &mut tables);
                    look_up(&input(node, 1), &input(node, 4), &mut tables);
                    look_up(&input(node, 8), &input(node, 3), &mut tables);
                }
                _ => {}
            }
        }
        // A table of positions is as wide as that of the ids. So is that of token types, which
        // stands beside it where the graph has no such input.
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
            let tables = Lookup::of(&fixture(file));
            let found = (tables.rows("input_ids"), tables.rows("token_type_ids"), tables.positions);
            assert_eq!(found, (Some(ids), Some(types), Some(positions)), "{file}");
            assert_eq!(tables.rows("attention_mask"), None, "{file}");
        }
    }
}
