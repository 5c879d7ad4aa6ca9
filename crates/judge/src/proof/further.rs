//! Outputs that a graph has beyond the reference's: `token_embeddings` and `sentence_embedding`, as sentence-transformers' exports do.
//!
//! The first is `last_hidden_state` by another name. What the second should be the model's modules.json says, or else the graph itself: which way of
//! pooling takes its own token states to its own embedding. So a fault in the encoder does not hide how the embedding is made.

mod way;

use bert_pipeline::Pooling;
use checkpoint::ModelFiles;
use engine::{DType, Dim, Engine, EngineError, NamedValues, Value, ValueSpec};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;

use crate::bounds::Bounds;
use crate::compare::Answers;
use crate::inputs::{Case, fit_inputs};
use crate::subject::{HIDDEN, SENTENCE, TOKENS};
use way::{Pool, Way};

const POOLED: &str = "pooler_output";
const MODULES: &str = "modules.json";

/// How near an embedding must be to a way of pooling to be taken for it, over the embedding's largest element. Two ways that are not the same
/// differ by 1e-2 and more on an input with padding; f32 alone makes 1e-7.
const SAME: f64 = 1e-6;

/// The largest input, in tokens, that the embedding is looked at on, if there is one so small.
const TELLING: usize = 256;

/// What a graph with such outputs is held against.
#[derive(Debug, Clone)]
pub struct Further {
    /// Whether `token_embeddings` is among them, and `last_hidden_state` is, too.
    tokens: bool,
    hidden: bool,
    embedding: Option<Embedding>,
}

/// The graph's `sentence_embedding`.
#[derive(Debug, Clone)]
struct Embedding {
    /// What it is, where it is any of the known ways.
    is: Option<Way>,
    /// What it is judged as.
    should: Way,
    /// Why, as the end of a sentence.
    because: String,
    declared: bool,
}

impl Further {
    /// What the graph has beyond the reference; nothing if it has none of these outputs.
    pub(crate) fn of(
        model: &Model,
        engines: &[&dyn Engine],
        files: &ModelFiles,
        truth: &Answers,
    ) -> Option<Self> {
        let has = |name: &str| model.graph.outputs.iter().any(|spec| spec.name == name);
        let known = |name: &str| truth.specs().iter().any(|spec| spec.name == name);
        if !(has(TOKENS) || has(SENTENCE)) || known(TOKENS) || known(SENTENCE) || !known(HIDDEN) {
            return None;
        }
        let embedding = || {
            // In f64, or else as the first engine has it: that is enough to tell one way from another.
            let oracle = Oracle::with(model, Precision::F64, Limits::default()).ok();
            let engine = oracle.as_ref().map(|oracle| oracle as &dyn Engine).or(engines.first().copied());
            Embedding::of(engine, files, truth)
        };
        Some(Self { tokens: has(TOKENS), hidden: has(HIDDEN), embedding: has(SENTENCE).then(embedding) })
    }

    /// What the reference gives, by these names.
    pub(crate) fn answers<'a>(&self, reference: &Answers<'a>) -> Answers<'a> {
        reference.with_outputs(|specs| self.specs(specs), |case, outputs| self.outputs(&case.inputs, outputs))
    }

    /// `--output last_hidden_state` asks for `token_embeddings`.
    pub(crate) fn bounds(&self, bounds: &Bounds) -> Bounds {
        let mut bounds = bounds.clone();
        if self.renames() {
            bounds.outputs.iter_mut().filter(|name| *name == HIDDEN).for_each(|name| *name = TOKENS.into());
        }
        bounds
    }

    /// What was taken for what.
    pub(crate) fn notes(&self) -> Vec<String> {
        let tokens = self.tokens.then(|| format!("output '{TOKENS}' is judged as {HIDDEN}"));
        tokens.into_iter().chain(self.embedding.as_ref().map(Embedding::sentence)).collect()
    }

    /// What is wrong with the embedding: it explains the whole where no module is wrong.
    pub(crate) fn explanation(&self) -> Option<String> {
        self.embedding.as_ref()?.explanation()
    }

    /// Whether the states go by the other name alone.
    fn renames(&self) -> bool {
        self.tokens && !self.hidden
    }

    fn specs(&self, specs: &[ValueSpec]) -> Vec<ValueSpec> {
        let mut all = specs.to_vec();
        let Some(at) = specs.iter().position(|spec| spec.name == HIDDEN) else { return all };
        let hidden = &specs[at];
        if self.renames() {
            all[at].name = TOKENS.into();
        } else if self.tokens {
            all.push(ValueSpec { name: TOKENS.into(), ..hidden.clone() });
        }
        if self.embedding.is_some() {
            let width = hidden.shape.as_ref().and_then(|dims| dims.last()).cloned().unwrap_or(Dim::Any);
            let shape = Some(vec![Dim::Symbol("batch".into()), width]);
            all.push(ValueSpec { name: SENTENCE.into(), shape, ..hidden.clone() });
        }
        all
    }

    fn outputs(&self, inputs: &NamedValues, outputs: &NamedValues) -> NamedValues {
        let Some(states) = outputs.get(HIDDEN) else { return outputs.clone() };
        let renamed = |name: &str| if self.renames() && name == HIDDEN { TOKENS } else { name }.to_string();
        let mut all: NamedValues =
            outputs.iter().map(|(name, value)| (renamed(name), value.clone())).collect();
        if self.tokens {
            all.insert(TOKENS, states.clone());
        }
        if let Some(embedding) = &self.embedding {
            let mask = inputs.get("attention_mask");
            let rows = embedding.should.embed(states, outputs.get(POOLED), mask);
            if let Some(value) = rows.and_then(|rows| rounded(rows, states)) {
                all.insert(SENTENCE, value);
            }
        }
        all
    }
}

/// The reference with the outputs that a graph has, under the graph's names.
pub struct Extended<'a> {
    engine: &'a dyn Engine,
    further: Option<&'a Further>,
    outputs: Vec<ValueSpec>,
}

impl<'a> Extended<'a> {
    /// The reference, for a graph that may have further outputs.
    pub(crate) fn new(engine: &'a dyn Engine, further: Option<&'a Further>) -> Self {
        let specs = engine.outputs();
        let outputs = further.map_or_else(|| specs.to_vec(), |further| further.specs(specs));
        Self { engine, further, outputs }
    }
}

impl Engine for Extended<'_> {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn inputs(&self) -> &[ValueSpec] {
        self.engine.inputs()
    }

    fn outputs(&self) -> &[ValueSpec] {
        &self.outputs
    }

    fn run_for(&self, inputs: &NamedValues, names: &[&str]) -> Result<NamedValues, EngineError> {
        let own = |name: &&str| self.engine.outputs().iter().any(|spec| spec.name == *name);
        let Some(further) = self.further.filter(|_| !names.iter().all(own)) else {
            return self.engine.run_for(inputs, names);
        };
        let all = further.outputs(inputs, &self.engine.run(inputs)?);
        let unknown = |name: &str| EngineError::UnknownValue { name: name.into() };
        names.iter().map(|&name| Ok((name, all.get(name).cloned().ok_or_else(|| unknown(name))?))).collect()
    }
}

/// Rows of an embedding in the dtype of the states that it is made of: summed in f64, and rounded once.
fn rounded(rows: Vec<f64>, states: &Value) -> Option<Value> {
    let &[batch, _, width] = states.shape() else { return None };
    match states.dtype() {
        DType::F64 => Value::new([batch, width], rows),
        DType::F32 => Value::new([batch, width], rows.into_iter().map(|x| x as f32).collect::<Vec<_>>()),
        _ => return None,
    }
    .ok()
}

impl Embedding {
    fn of(engine: Option<&dyn Engine>, files: &ModelFiles, truth: &Answers) -> Self {
        let seen = engine.and_then(|engine| {
            let (case, truth) = telling(truth)?;
            Seen::run(engine, case, truth)
        });
        let distances = seen.map(|seen| seen.distances()).unwrap_or_default();
        let near = |(_, distance): &&(Way, f64)| *distance <= SAME;
        let (declared, no_declaration) = match declared(files) {
            Ok(way) => (Some(way), String::new()),
            Err(why) => (None, why),
        };
        let as_declared =
            distances.iter().filter(near).map(|(way, _)| *way).find(|way| Some(*way) == declared);
        let is = as_declared.or_else(|| distances.iter().find(near).map(|(way, _)| *way));
        let nearest = || {
            let sound = distances.iter().filter(|(way, distance)| way.is_sound() && !distance.is_nan());
            sound.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(way, _)| *way)
        };
        // Without anything to go by, what most models have.
        let usual = Way { pool: Pool::Mean, normalized: true };
        let should = declared.or(is.map(Way::mended)).or_else(nearest).unwrap_or(usual);
        let because = if declared.is_some() { format!("as {MODULES} says") } else { no_declaration };
        Self { is, should, because, declared: declared.is_some() }
    }

    fn sentence(&self) -> String {
        let (should, because) = (self.should.words(), &self.because);
        match self.is {
            Some(is) if is == self.should && self.declared => {
                format!("{SENTENCE} is {}, {because}", is.words())
            }
            Some(is) if is == self.should => {
                format!("{SENTENCE} is {}, by its values, as {because}", is.words())
            }
            Some(is) => format!("{SENTENCE} is {}, and is judged as {should}", is.words()),
            None if self.declared => format!("{SENTENCE} is judged as {should}, {because}"),
            None => format!("{SENTENCE} is judged as {should}, as {because}"),
        }
    }

    /// What is wrong with it, and in which stage.
    fn explanation(&self) -> Option<String> {
        let (is, should) = (self.is.filter(|is| *is != self.should)?, self.should);
        let asked = if self.declared {
            format!(", and {MODULES} asks for {}", should.words())
        } else {
            String::new()
        };
        let mut stages = Vec::new();
        if is.pool == Pool::MeanOfAll {
            stages.push("pooling: the embedding counts padding");
        } else if is.pool != should.pool {
            stages.push("pooling: the embedding is made of other tokens");
        }
        if is.normalized != should.normalized {
            stages.push(match should.normalized {
                true => "normalisation: the embedding is not normalised",
                false => "normalisation: the embedding is normalised",
            });
        }
        Some(format!("{}; {SENTENCE} is {}{asked}", stages.join(", "), is.words()))
    }
}

/// How modules.json says that embeddings are made, or why it is not followed.
fn declared(files: &ModelFiles) -> Result<Way, String> {
    match files.read(MODULES) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(format!("the model has no {MODULES}")),
        Err(error) => return Err(error.to_string()),
    }
    let (pooling, normalized) = Pooling::from_files(files).map_err(|error| error.to_string())?;
    let pool = match pooling {
        Pooling::Mean => Pool::Mean,
        Pooling::Cls => Pool::First,
        Pooling::Max => Pool::Largest,
        Pooling::MeanSqrtLenTokens => Pool::Rooted,
        Pooling::WeightedMean => Pool::Weighted,
        Pooling::LastToken => Pool::Last,
        Pooling::Pooler => Pool::Pooler,
        other => return Err(format!("{MODULES} asks for pooling by {other}, which is not known here")),
    };
    Ok(Way { pool, normalized })
}

/// The short input with most padding beside real tokens, and what the reference makes of it.
fn telling<'a>(truth: &'a Answers) -> Option<(&'a Case, &'a NamedValues)> {
    let tokens = |case: &Case| case.inputs.get("input_ids").map_or(0, Value::len);
    let padding = |case: &Case| {
        let mask = case
            .inputs
            .get("attention_mask")
            .and_then(|mask| Some((mask.shape().last()?, mask.as_slice::<i64>().ok()?)));
        mask.map_or(0, |(sequence, mask)| {
            let rows = mask.chunks(*sequence.max(&1)).filter(|row| row.contains(&1));
            rows.map(|row| row.iter().filter(|&&bit| bit == 0).count()).sum()
        })
    };
    let short = truth.iter().filter(|(case, _)| tokens(case) <= TELLING);
    short
        .max_by_key(|(case, _)| (padding(case), tokens(case)))
        .or_else(|| truth.iter().min_by_key(|(case, _)| tokens(case)))
}

/// A graph's embedding on one input, and the states that it is made of.
struct Seen {
    embedding: Vec<f64>,
    states: Value,
    pooled: Option<Value>,
    mask: Option<Value>,
}

impl Seen {
    /// The states are the graph's own where it gives them.
    fn run(engine: &dyn Engine, case: &Case, truth: &NamedValues) -> Option<Self> {
        let outputs = engine.run(&fit_inputs(&case.inputs, engine.inputs()).ok()?).ok()?;
        let states = outputs.get(TOKENS).or(outputs.get(HIDDEN)).or(truth.get(HIDDEN))?;
        Some(Self {
            embedding: outputs.get(SENTENCE)?.to_f64(),
            states: states.clone(),
            pooled: outputs.get(POOLED).or(truth.get(POOLED)).cloned(),
            mask: case.inputs.get("attention_mask").cloned(),
        })
    }

    /// How far the embedding is from each way, over its largest element, where it decides.
    fn distances(&self) -> Vec<(Way, f64)> {
        Way::all().filter_map(|way| Some((way, self.distance(way)?))).collect()
    }

    fn distance(&self, way: Way) -> Option<f64> {
        let made = way.embed(&self.states, self.pooled.as_ref(), self.mask.as_ref())?;
        let &[_, sequence, width] = self.states.shape() else { return None };
        if made.len() != self.embedding.len() {
            return None;
        }
        let bits = self.mask.as_ref().map(|mask| mask.to_f64());
        let decides = |row: usize| {
            bits.as_ref().is_none_or(|bits| bits[row * sequence..][..sequence].iter().any(|&bit| bit != 0.0))
        };
        let (mut largest, mut off, mut decided) = (0f64, 0f64, false);
        for (_, (made, found)) in
            made.iter().zip(&self.embedding).enumerate().filter(|(at, _)| decides(at / width))
        {
            let difference = (made - found).abs();
            if !difference.is_finite() {
                return None;
            }
            (largest, off, decided) = (largest.max(found.abs()), off.max(difference), true);
        }
        decided.then(|| off / largest.max(f64::MIN_POSITIVE))
    }
}

#[cfg(test)]
mod tests;
