//! Outputs that a graph has beyond the reference's: hidden states and attentions, the states of
//! tokens and a vector of the text as sentence-transformers' exports have them, and the reference's
//! own outputs under other names.
//!
//! What each is held against follows from its name, as transformers and optimum give them; of a
//! name that tells nothing, from its shape, and among values of that shape from which the reference
//! has that is nearest. A wrong one is far from all of them, and fails.

mod embedding;
mod states;
mod way;

use architecture::Program;
use candle_blocks::ReferenceEngine;
use checkpoint::ModelFiles;
use engine::{DType, Dim, Engine, EngineError, NamedValues, Value, ValueSpec};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;

use super::TELLING;
use crate::ParityError;
use crate::bounds::Bounds;
use crate::compare::{Answers, OnFailure, compare, deciding, widened};
use crate::inputs::{Case, fit_inputs};
use crate::subject::{HIDDEN, SENTENCE, TOKENS};
use embedding::Embedding;
use states::Inner;

/// The reference's name for what the pooler gives.
const POOLED: &str = "pooler_output";

/// What a graph with such outputs is held against.
#[derive(Debug, Clone)]
pub struct Further {
    /// By the graph's names.
    held: Vec<(String, Source)>,
    /// The reference's outputs that the graph does not have by their own names.
    missing: Vec<String>,
    embedding: Option<Embedding>,
    /// The modules of the reference whose outputs are needed.
    taps: Vec<String>,
    /// Why nothing is held against an output, where there is more to say than that.
    reasons: Vec<String>,
}

/// Where the reference has an output of the graph's.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    /// An output of its own.
    Output(String),
    /// A value within it, and transformers' name for it.
    Inner(String, Inner),
    /// The vector of a text.
    Embedding,
    /// The tokens' states behind the modules that change them.
    Tokens,
}

/// What a graph gives for one input, and what the reference has there, with all that it may be held
/// against.
struct Seen<'a> {
    case: &'a Case,
    found: NamedValues,
    truth: NamedValues,
}

impl Further {
    /// What the graph has beyond the reference; nothing if all its outputs are the reference's, by
    /// name. `reference` is the one in f64, and `truth` what it gives.
    pub(crate) fn of(
        model: &Model,
        engines: &[&dyn Engine],
        files: &ModelFiles,
        reference: &ReferenceEngine,
        truth: &Answers,
    ) -> Option<Self> {
        let outputs: Vec<&str> = model.graph.outputs.iter().map(|spec| spec.name.as_str()).collect();
        let known = |name: &str| truth.specs().iter().any(|spec| spec.name == name);
        let other: Vec<&str> = outputs.iter().copied().filter(|name| !known(name)).collect();
        if other.is_empty() {
            return None;
        }
        let inner = states::all(reference.program());
        let seen = Seen::of(model, engines, reference, &inner, truth);
        let own = truth.specs().iter().map(|spec| spec.name.clone());
        let missing = own.filter(|name| !outputs.contains(&name.as_str())).collect();
        let mut this =
            Self { held: Vec::new(), missing, embedding: None, taps: Vec::new(), reasons: Vec::new() };
        let mut nameless = Vec::new();
        for name in other {
            if name == SENTENCE && known(HIDDEN) {
                match Embedding::of(name, seen.as_ref(), files) {
                    Ok(embedding) => this.hold_embedding(name, embedding),
                    Err(why) => this.reasons.push(format!("nothing is held against output '{name}': {why}")),
                }
            } else if name == TOKENS && known(HIDDEN) {
                this.hold(name, Source::Output(HIDDEN.into()));
            } else if let Some((usual, inner)) = inner.iter().find(|(usual, _)| *usual == states::usual(name))
            {
                this.hold(name, Source::Inner(usual.clone(), inner.clone()));
            } else {
                nameless.push(name);
            }
        }
        if let Some(seen) = &seen {
            this.hold_changed_tokens(seen, truth.specs());
            this.hold_nameless(nameless, seen, &inner, truth.specs(), files);
        }
        let taps = this.held.iter().filter_map(|(_, source)| match source {
            Source::Inner(_, inner) => Some(inner.taps()),
            _ => None,
        });
        this.taps = taps.flatten().map(str::to_owned).collect();
        Some(this)
    }

    fn hold(&mut self, name: &str, source: Source) {
        self.held.push((name.into(), source));
    }

    fn hold_embedding(&mut self, name: &str, embedding: Embedding) {
        self.hold(name, Source::Embedding);
        self.embedding = Some(embedding);
    }

    /// Where modules change the tokens' states, `token_embeddings` may be those before or after
    /// them: the nearer ones.
    fn hold_changed_tokens(&mut self, Seen { case, found, truth }: &Seen, specs: &[ValueSpec]) {
        let Some(at) = self.held.iter().position(|(name, _)| name == TOKENS) else { return };
        let changed = || {
            let mask = case.inputs.get("attention_mask");
            self.embedding.as_ref()?.should.tokens(truth.get(HIDDEN)?, truth.get(POOLED), mask)
        };
        let (Some(changed), Some(found), Some(states)) = (changed(), found.get(TOKENS), truth.get(HIDDEN))
        else {
            return;
        };
        let Some(spec) = specs.iter().find(|spec| spec.name == HIDDEN) else { return };
        let far = |value: &Value| distance(spec, value, found, &case.inputs);
        if far(&changed) < far(states) {
            self.held[at].1 = Source::Tokens;
        }
    }

    /// Outputs whose names say nothing: first those that are missing by name, each the nearest of
    /// its shape; then vectors of texts, and values within.
    fn hold_nameless(
        &mut self,
        mut names: Vec<&str>,
        seen: &Seen,
        inner: &[(String, Inner)],
        specs: &[ValueSpec],
        files: &ModelFiles,
    ) {
        let Seen { case, found, truth } = seen;
        let far = |name: &str, spec: &ValueSpec, value: &Value| {
            let found = found.get(name).filter(|found| found.shape() == value.shape())?;
            Some(distance(spec, value, found, &case.inputs))
        };
        if self.embedding.is_none() && specs.iter().any(|spec| spec.name == HIDDEN) {
            let made =
                names.iter().filter_map(|name| Some((*name, Embedding::of(name, Some(seen), files).ok()?)));
            if let Some((name, embedding)) = made.into_iter().find(|(_, embedding)| embedding.is_seen()) {
                self.hold_embedding(name, embedding);
                names.retain(|other| *other != name);
            }
        }
        let is_held = |this: &Self, own: &str| {
            this.held.iter().any(|(_, source)| matches!(source, Source::Output(held) if held == own))
        };
        loop {
            let is_free = |spec: &&ValueSpec| self.missing.contains(&spec.name) && !is_held(self, &spec.name);
            let free: Vec<&ValueSpec> = specs.iter().filter(is_free).collect();
            let pairs = free.iter().flat_map(|own| names.iter().map(move |name| (*own, *name)));
            let pairs = pairs.filter_map(|(own, name)| {
                Some((far(name, own, truth.get(&own.name)?)?, own.name.clone(), name))
            });
            let Some((_, own, name)) = pairs.min_by(|a, b| a.0.total_cmp(&b.0)) else { break };
            self.hold(name, Source::Output(own));
            names.retain(|other| *other != name);
        }
        let mask = case.inputs.get("attention_mask");
        for name in names {
            let all = inner.iter().filter_map(|of| {
                let spec = of.1.spec(name, DType::F64);
                Some((far(name, &spec, &of.1.value(truth, mask)?)?, of))
            });
            if let Some((_, (usual, inner))) = all.min_by(|a, b| a.0.total_cmp(&b.0)) {
                self.hold(name, Source::Inner(usual.clone(), inner.clone()));
            }
        }
    }

    /// What the reference gives, by these names. `engine` is the one that gave it.
    pub(crate) fn answers<'a>(
        &self,
        engine: &dyn Engine,
        reference: &Answers<'a>,
    ) -> Result<Answers<'a>, ParityError> {
        let names: Vec<&str> = self.taps.iter().map(String::as_str).collect();
        let taps = match names.is_empty() {
            true => None,
            false => Some(Answers::run(engine, reference.cases(), &names, OnFailure::Stop, |_| ())?),
        };
        let none = NamedValues::new();
        Ok(reference.with_outputs(
            |specs| self.specs(specs),
            |case, outputs| {
                let taps = taps.as_ref().and_then(|taps| taps.on(case)).unwrap_or(&none);
                self.outputs(&case.inputs, outputs, taps)
            },
        ))
    }

    /// `--output last_hidden_state` asks for `token_embeddings`.
    pub(crate) fn bounds(&self, bounds: &Bounds) -> Bounds {
        let mut bounds = bounds.clone();
        for name in &mut bounds.outputs {
            if let Some(renamed) = self.renamed(name) {
                *name = renamed.into();
            }
        }
        bounds
    }

    /// What was taken for what.
    pub(crate) fn notes(&self) -> Vec<String> {
        let held = self.held.iter().filter_map(|(name, source)| match source {
            Source::Output(own) => Some(format!("output '{name}' is judged as {own}")),
            Source::Inner(usual, _) if *usual != states::usual(name) => {
                Some(format!("output '{name}' is judged as {usual}"))
            }
            Source::Tokens => {
                Some(format!("output '{name}' is judged as {HIDDEN} behind the modules that change it"))
            }
            Source::Inner(..) | Source::Embedding => None,
        });
        held.chain(self.embedding.as_ref().map(Embedding::sentence)).chain(self.reasons.clone()).collect()
    }

    /// What is wrong with the embedding: it explains the whole where no module is wrong.
    pub(crate) fn explanation(&self) -> Option<String> {
        self.embedding.as_ref()?.explanation()
    }

    /// What an output of the reference's goes by, where that is another name alone.
    fn renamed(&self, own: &str) -> Option<&str> {
        if !self.missing.iter().any(|missing| missing == own) {
            return None;
        }
        let is = |source: &Source| matches!(source, Source::Output(held) if held == own);
        self.held.iter().find(|(_, source)| is(source)).map(|(name, _)| name.as_str())
    }

    fn specs(&self, specs: &[ValueSpec]) -> Vec<ValueSpec> {
        let own = |name: &str| specs.iter().find(|spec| spec.name == name).cloned();
        let renamed = |spec: &ValueSpec| match self.renamed(&spec.name) {
            Some(name) => ValueSpec { name: name.into(), ..spec.clone() },
            None => spec.clone(),
        };
        let mut all: Vec<ValueSpec> = specs.iter().map(renamed).collect();
        let dtype = specs.first().map_or(DType::F32, |spec| spec.dtype);
        for (name, source) in &self.held {
            let spec = match source {
                Source::Output(held) => own(held),
                Source::Inner(_, inner) => Some(inner.spec(name, dtype)),
                Source::Tokens => own(HIDDEN).map(|spec| with_width(spec, Dim::Any)),
                Source::Embedding => own(HIDDEN).map(|spec| {
                    let spec = with_width(spec, Dim::Any);
                    ValueSpec { shape: Some(vec![Dim::Symbol("batch".into()), Dim::Any]), ..spec }
                }),
            };
            if all.iter().all(|other| other.name != *name) {
                all.extend(spec.map(|spec| ValueSpec { name: name.clone(), ..spec }));
            }
        }
        all
    }

    /// The steps of the reference that such an output is made of.
    pub(crate) fn steps(&self, program: &Program, name: &str) -> Option<Vec<usize>> {
        let output = |own: &str| {
            let of_name = program.outputs.iter().filter(|output| output.name == own);
            of_name.map(|output| output.step).collect()
        };
        let (_, source) = self.held.iter().find(|(held, _)| held == name)?;
        Some(match source {
            Source::Output(own) => output(own),
            Source::Inner(_, inner) => {
                inner.taps().into_iter().filter_map(|tap| Some(program.module(tap)?.output)).collect()
            }
            Source::Embedding | Source::Tokens => output(HIDDEN),
        })
    }

    /// The modules of the reference whose outputs are needed for [`Further::outputs`].
    pub(crate) fn taps(&self) -> Vec<&str> {
        self.taps.iter().map(String::as_str).collect()
    }

    /// What the reference gives, by the graph's names, made of its outputs and of what some of its
    /// modules give.
    pub(crate) fn outputs(
        &self,
        inputs: &NamedValues,
        outputs: &NamedValues,
        taps: &NamedValues,
    ) -> NamedValues {
        let renamed = |name: &str| self.renamed(name).unwrap_or(name).to_string();
        let mut all: NamedValues =
            outputs.iter().map(|(name, value)| (renamed(name), value.clone())).collect();
        let mask = inputs.get("attention_mask");
        for (name, source) in &self.held {
            let made = |tokens: bool| {
                let (should, states) = (&self.embedding.as_ref()?.should, outputs.get(HIDDEN)?);
                let pooled = outputs.get(POOLED);
                let value = if tokens {
                    should.tokens(states, pooled, mask)
                } else {
                    should.embed(states, pooled, mask)
                };
                rounded(&value?, states.dtype())
            };
            let value = match source {
                Source::Output(own) => outputs.get(own).cloned(),
                Source::Inner(_, inner) => inner.value(taps, mask),
                Source::Embedding => made(false),
                Source::Tokens => made(true),
            };
            if let Some(value) = value {
                all.insert(name, value);
            }
        }
        all
    }
}

fn with_width(mut spec: ValueSpec, width: Dim) -> ValueSpec {
    if let Some(last) = spec.shape.as_mut().and_then(|dims| dims.last_mut()) {
        *last = width;
    }
    spec
}

impl<'a> Seen<'a> {
    /// On a telling input, the graph in f64, or else as the first engine has it: that is enough to
    /// tell one value from another. Nothing where it does not run.
    fn of(
        model: &Model,
        engines: &[&dyn Engine],
        reference: &dyn Engine,
        inner: &[(String, Inner)],
        truth: &'a Answers,
    ) -> Option<Self> {
        let oracle = Oracle::with(model, Precision::F64, Limits::default()).ok();
        let engine = oracle.as_ref().map(|oracle| oracle as &dyn Engine).or(engines.first().copied())?;
        let (case, own) = telling(truth)?;
        let found = engine.run(&fit_inputs(&case.inputs, engine.inputs()).ok()?).ok()?;
        let taps: Vec<&str> = inner.iter().flat_map(|(_, inner)| inner.taps()).collect();
        let taps = reference.run_for(&fit_inputs(&case.inputs, reference.inputs()).ok()?, &taps).ok()?;
        let truth = own.iter().chain(taps.iter()).map(|(name, value)| (name.to_owned(), value.clone()));
        Some(Self { case, found, truth: truth.collect() })
    }
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

/// How far a value is from the reference's, which has its shape, where it decides; infinite where
/// it is not finite, or nothing decides.
fn distance(spec: &ValueSpec, reference: &Value, found: &Value, inputs: &NamedValues) -> f64 {
    let comparison = compare(&widened(reference), &widened(found), &deciding(spec, inputs), 0.0);
    comparison.ok().and_then(|comparison| comparison.deciding.max_abs()).unwrap_or(f64::INFINITY)
}

/// A value of f64 in the dtype of what it is made of, rounded once.
fn rounded(value: &Value, dtype: DType) -> Option<Value> {
    match dtype {
        DType::F64 => Some(value.clone()),
        DType::F32 => {
            Value::new(value.shape(), value.to_f64().into_iter().map(|x| x as f32).collect::<Vec<_>>()).ok()
        }
        _ => None,
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
        let outputs = self.engine.outputs().iter().map(|spec| &spec.name);
        let wanted: Vec<&str> = outputs.chain(&further.taps).map(String::as_str).collect();
        let mut found = self.engine.run_for(inputs, &wanted)?;
        let taps = further.taps.iter().filter_map(|tap| Some((tap.clone(), found.remove(tap)?))).collect();
        let all = further.outputs(inputs, &found, &taps);
        let unknown = |name: &str| EngineError::UnknownValue { name: name.into() };
        names.iter().map(|&name| Ok((name, all.get(name).cloned().ok_or_else(|| unknown(name))?))).collect()
    }
}
