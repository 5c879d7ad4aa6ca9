//! One face for both paths: rows of tokens in, the named floats that a task needs out, row by row.

use std::cmp::Reverse;
use std::ops::Range;

use engine::{DType, Dim, Engine, NamedValues, Value, ValueSpec};
use tokenizers::Encoding;

use crate::PipelineError;

/// The most numbers that a batch's outputs may have: 256 MiB of f32. The logits of a masked language model have a vocabulary's width.
const BATCH_NUMBERS: usize = 64 << 20;

/// An output that a task needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    /// Another name in use.
    pub(crate) alias: Option<&'static str>,
    /// The axes after `batch`: whether the sequence is one, and whether there is a width.
    pub(crate) per_token: bool,
    pub(crate) has_width: bool,
}

impl Wanted {
    pub(crate) const HIDDEN: Self =
        Self { name: "last_hidden_state", alias: Some("token_embeddings"), per_token: true, has_width: true };
    /// Where a module changes the tokens' states, what a graph calls `token_embeddings` may be
    /// changed already.
    pub(crate) const UNCHANGED_HIDDEN: Self = Self { alias: None, ..Self::HIDDEN };
    pub(crate) const POOLED: Self =
        Self { name: "pooler_output", alias: None, per_token: false, has_width: true };
    pub(crate) const VECTOR: Self =
        Self { name: "sentence_embedding", alias: None, per_token: false, has_width: true };
    pub(crate) const LABELS: Self = Self { name: "logits", alias: None, per_token: false, has_width: true };
    pub(crate) const TOKEN_LABELS: Self =
        Self { name: "logits", alias: None, per_token: true, has_width: true };
    pub(crate) const START: Self =
        Self { name: "start_logits", alias: None, per_token: true, has_width: false };
    pub(crate) const END: Self = Self { name: "end_logits", alias: None, per_token: true, has_width: false };

    fn rank(&self) -> usize {
        1 + usize::from(self.per_token) + usize::from(self.has_width)
    }
}

/// What a model gives for one row, of one output: for each of its real tokens `width` numbers, or `width` numbers for the row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowOutput<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) width: usize,
}

impl<'a> RowOutput<'a> {
    /// The numbers of each token.
    pub(crate) fn tokens(&self) -> impl ExactSizeIterator<Item = &'a [f32]> {
        self.numbers.chunks_exact(self.width.max(1))
    }
}

/// An engine, and the names of what a task takes from it.
pub(crate) struct Runner {
    pub(crate) engine: Box<dyn Engine>,
    wanted: Vec<Wanted>,
    /// The engine's names of what is wanted.
    names: Vec<String>,
    /// The sizes that a graph fixes.
    fixed_batch: Option<usize>,
    pub(crate) fixed_sequence: Option<usize>,
    has_mask: bool,
    has_types: bool,
    /// Whether the model tells segments apart, so that a graph without token types reads pairs
    /// otherwise.
    tells_types: bool,
    /// How many numbers a token's output has, for the first batch; later ones know.
    width: usize,
    /// How many rows are run at once, at most.
    batch_size: usize,
}

impl Runner {
    pub(crate) fn new(
        engine: Box<dyn Engine>,
        task: &'static str,
        wanted: &[Wanted],
        width: usize,
        batch_size: usize,
    ) -> Result<Self, PipelineError> {
        let shown = || shown(engine.as_ref());
        let has = || engine.outputs().iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
        let found = |name: &str| engine.outputs().iter().any(|spec| spec.name == name);
        let names = wanted
            .iter()
            .map(|output| {
                [Some(output.name), output.alias]
                    .into_iter()
                    .flatten()
                    .find(|name| found(name))
                    .map(str::to_owned)
                    .ok_or_else(|| PipelineError::NoOutput {
                        engine: shown(),
                        output: output.name,
                        task,
                        has: has(),
                    })
            })
            .collect::<Result<_, _>>()?;
        let input = |name: &str| engine.inputs().iter().find(|spec| spec.name == name);
        if let Some(spec) =
            engine.inputs().iter().find(|spec| !spec.optional && !INPUTS.contains(&spec.name.as_str()))
        {
            return Err(PipelineError::UnknownInput { engine: shown(), input: spec.to_string() });
        }
        let Some(ids) = input("input_ids") else {
            let what = "it cannot be given a text: export it with that, or run the checkpoint";
            return Err(PipelineError::NoInput { engine: shown(), input: "input_ids", what });
        };
        let size = |dim: Option<&Dim>| match dim {
            Some(Dim::Fixed(size)) => Some(*size),
            _ => None,
        };
        let shape = ids.shape.as_deref().unwrap_or_default();
        let (fixed_batch, fixed_sequence) = (size(shape.first()), size(shape.last()));
        let has_mask = input("attention_mask").is_some();
        let has_types = input("token_type_ids").is_some();
        if fixed_sequence.is_some() && !has_mask {
            let what = "texts cannot be padded to the one length that it takes: export it with that, or run \
                        the checkpoint";
            return Err(PipelineError::NoInput { engine: shown(), input: "attention_mask", what });
        }
        let wanted = wanted.to_vec();
        Ok(Self {
            engine,
            wanted,
            names,
            fixed_batch,
            fixed_sequence,
            has_mask,
            has_types,
            tells_types: true,
            width,
            batch_size,
        })
    }

    /// Says whether the model tells segments apart.
    pub(crate) fn telling_types(self, tells_types: bool) -> Self {
        Self { tells_types, ..self }
    }

    /// Whether this is what is taken of the model.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted.name == name)
    }

    /// Runs all rows, those of like length together, and gives what `predict` makes of each, of its
    /// number and what the model gives for it. Rows of the same tokens are run once, so that they
    /// get the same to the last bit, wherever they stand. `text` tells which text a row is of, for
    /// errors.
    pub(crate) fn run<T: Clone + Default>(
        &self,
        rows: &[Encoding],
        text: impl Fn(usize) -> usize,
        predict: impl Fn(usize, &Encoding, &[RowOutput<'_>]) -> Result<T, PipelineError>,
    ) -> Result<Vec<T>, PipelineError> {
        let mut predictions = vec![T::default(); rows.len()];
        let length = |row: usize| rows.get(row).map_or(0, Encoding::len);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        // The longest first: what does not fit the memory shows at once.
        let tokens = |row: usize| rows.get(row).map(|row| (row.get_ids(), row.get_type_ids()));
        order.sort_by_key(|&row| (Reverse(length(row)), tokens(row)));
        let mut alike: Vec<Vec<usize>> = Vec::new();
        for row in order {
            match alike.last_mut() {
                Some(group) if group.first().is_some_and(|&first| tokens(first) == tokens(row)) => {
                    group.push(row)
                }
                _ => alike.push(vec![row]),
            }
        }
        let first_of = |group: &Vec<usize>| group.first().copied().unwrap_or(0);
        let mut rest = alike.as_slice();
        let mut width = self.width;
        while let Some(longest) = rest.first().map(first_of) {
            let sequence = length(longest);
            let fits = BATCH_NUMBERS / (sequence * width).max(1);
            let mut size = self.batch_size.min(fits).max(1).min(self.fixed_batch.unwrap_or(usize::MAX));
            if !self.has_mask {
                // Without a mask a model counts padding, so there must be none.
                size = size.min(rest.iter().take_while(|group| length(first_of(group)) == sequence).count());
            }
            let (batch, others) = rest.split_at(size.min(rest.len()));
            rest = others;
            let encodings: Vec<&Encoding> =
                batch.iter().filter_map(|group| rows.get(first_of(group))).collect();
            let [size, sequence] = self.shape(encodings.len(), sequence, text(longest))?;
            let inputs = self.inputs(&encodings, size, sequence, &[size, sequence])?;
            let outputs = self.outputs(&inputs, size, sequence)?;
            width = outputs.iter().map(|output| output.width).max().unwrap_or(1);
            for (place, (group, encoding)) in batch.iter().zip(&encodings).enumerate() {
                let outputs = outputs
                    .iter()
                    .map(|output| output.row(place, encoding.len(), text(first_of(group))))
                    .collect::<Result<Vec<_>, _>>()?;
                for &row in group {
                    if let Some(place) = predictions.get_mut(row) {
                        *place = predict(row, encoding, &outputs)?;
                    }
                }
            }
        }
        Ok(predictions)
    }

    /// Runs the rows of one example with several choices, `[1, choices, sequence]`, and gives its logits, `[choices]`.
    pub(crate) fn run_choices(&self, rows: &[Encoding], text: usize) -> Result<Vec<f32>, PipelineError> {
        let rows: Vec<&Encoding> = rows.iter().collect();
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let [_, sequence] = self.shape(1, longest, text)?;
        let inputs = self.inputs(&rows, rows.len(), sequence, &[1, rows.len(), sequence])?;
        let output = self.outputs(&inputs, 1, sequence)?.into_iter().next();
        let Some(output) = output else { return Ok(Vec::new()) };
        if output.width != rows.len() {
            return Err(PipelineError::BadOutput {
                output: output.name,
                expected: format!("[1, {}], a number for each choice", rows.len()),
                found: vec![1, output.width],
            });
        }
        output.row(0, sequence, text)?;
        Ok(output.numbers)
    }

    /// The shape that so many rows are run in.
    fn shape(&self, batch: usize, sequence: usize, text: usize) -> Result<[usize; 2], PipelineError> {
        if let Some(limit) = self.fixed_sequence
            && sequence > limit
        {
            return Err(PipelineError::TooLong { text, tokens: sequence, limit });
        }
        Ok([self.fixed_batch.unwrap_or(batch), self.fixed_sequence.unwrap_or(sequence)])
    }

    fn outputs(
        &self,
        inputs: &NamedValues,
        batch: usize,
        sequence: usize,
    ) -> Result<Vec<Output>, PipelineError> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let values = self.engine.run_for(inputs, &names)?;
        let values = values.into_iter().map(|(_, value)| value);
        let outputs = self.wanted.iter().zip(&self.names).zip(values);
        outputs.map(|((wanted, name), value)| Output::new(wanted, name, &value, batch, sequence)).collect()
    }

    /// The inputs that the engine has, padded on the right to `sequence`. Where it takes more rows than there are, the last is repeated.
    fn inputs(
        &self,
        rows: &[&Encoding],
        batch: usize,
        sequence: usize,
        shape: &[usize],
    ) -> Result<NamedValues, PipelineError> {
        let is_missing = self.tells_types && !self.has_types;
        if is_missing && rows.iter().any(|row| row.get_type_ids().iter().any(|&id| id != 0)) {
            return Err(PipelineError::NoInput {
                engine: shown(self.engine.as_ref()),
                input: "token_type_ids",
                what: "it cannot tell the two texts of a pair apart: export it with that, or run the \
                       checkpoint",
            });
        }
        let mut inputs = NamedValues::new();
        for spec in self.engine.inputs() {
            let (of, padding): (fn(&Encoding) -> &[u32], u32) = match spec.name.as_str() {
                // Any token will do for padding, since it is masked: 0 is in every vocabulary.
                "input_ids" => (Encoding::get_ids, 0),
                "attention_mask" => (Encoding::get_attention_mask, 0),
                "token_type_ids" => (Encoding::get_type_ids, 0),
                _ => continue,
            };
            let last = rows.last().into_iter().cycle();
            let elements: Vec<u32> = rows
                .iter()
                .chain(last)
                .take(batch)
                .flat_map(|row| of(row).iter().copied().chain(std::iter::repeat(padding)).take(sequence))
                .collect();
            inputs.insert(&spec.name, self.as_declared(spec, shape, &elements)?);
        }
        Ok(inputs)
    }

    fn as_declared(&self, spec: &ValueSpec, shape: &[usize], ids: &[u32]) -> Result<Value, PipelineError> {
        match spec.dtype {
            DType::I64 => Ok(Value::new(shape, ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>())?),
            // Ids are places in a vocabulary, far below 2³¹.
            DType::I32 => Ok(Value::new(shape, ids.iter().map(|&id| id as i32).collect::<Vec<_>>())?),
            _ => Err(PipelineError::UnknownInput {
                engine: shown(self.engine.as_ref()),
                input: spec.to_string(),
            }),
        }
    }
}

/// The inputs that a tokenizer gives.
const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

fn shown(engine: &dyn Engine) -> String {
    format!("the model on engine '{}'", engine.name())
}

/// An output of a batch.
struct Output {
    name: String,
    numbers: Vec<f32>,
    /// The positions of each row; 1 where the output is of rows.
    positions: usize,
    per_token: bool,
    width: usize,
}

impl Output {
    fn new(
        wanted: &Wanted,
        name: &str,
        value: &Value,
        batch: usize,
        sequence: usize,
    ) -> Result<Self, PipelineError> {
        let shape = value.shape();
        let positions = if wanted.per_token { sequence } else { 1 };
        let width = if wanted.has_width { shape.last().copied().unwrap_or(0) } else { 1 };
        let fits = shape.len() == wanted.rank()
            && shape.first() == Some(&batch)
            && (!wanted.per_token || shape.get(1) == Some(&sequence))
            && width > 0;
        if !fits {
            let middle = if wanted.per_token { format!(", {sequence}") } else { String::new() };
            let width = if wanted.has_width { ", width" } else { "" };
            return Err(PipelineError::BadOutput {
                output: name.to_owned(),
                expected: format!("[{batch}{middle}{width}]"),
                found: shape.to_vec(),
            });
        }
        let numbers = match value.as_slice::<f32>() {
            Ok(numbers) => numbers.to_vec(),
            Err(_) => value.to_f64().into_iter().map(|x| x as f32).collect(),
        };
        Ok(Self { name: name.to_owned(), numbers, positions, per_token: wanted.per_token, width })
    }

    /// What there is for a row of so many real tokens.
    fn row(&self, place: usize, tokens: usize, text: usize) -> Result<RowOutput<'_>, PipelineError> {
        let first = place * self.positions * self.width;
        let kept = if self.per_token { tokens } else { 1 };
        let range: Range<usize> = first..first + kept * self.width;
        let numbers = self.numbers.get(range).unwrap_or_default();
        if numbers.iter().any(|x| !x.is_finite()) {
            return Err(PipelineError::NotFinite { output: self.name.clone(), text });
        }
        Ok(RowOutput { numbers, width: self.width })
    }
}
