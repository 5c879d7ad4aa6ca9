//! The vector of a text: what modules.json says it is, or else what the graph shows.

use bert_pipeline::{Modules, Pooling};
use candle_core::{DType, Device};
use checkpoint::ModelFiles;
use engine::{NamedValues, Value};

use super::way::{Pool, Way};
use super::{POOLED, Seen};
use crate::subject::{HIDDEN, SENTENCE, TOKENS};

const MODULES: &str = "modules.json";

/// How near an embedding must be to a way of pooling to be taken for it, over the embedding's
/// largest element. Two ways that are not the same differ by 1e-2 and more on an input with
/// padding; f32 alone makes 1e-7.
const SAME: f64 = 1e-6;

/// The graph's output that is one vector for each text.
#[derive(Debug, Clone)]
pub(super) struct Embedding {
    /// What the graph calls it.
    name: String,
    /// What it is, where it is any of the known ways.
    is: Option<Way>,
    /// The module without which it is made, where it is all that modules.json lists but one.
    lacks: Option<String>,
    /// What it is judged as.
    pub should: Made,
    /// Why, as the end of a sentence.
    because: String,
    declared: bool,
}

/// How an embedding is made of the states of tokens.
#[derive(Debug, Clone)]
pub(super) enum Made {
    /// By pooling, normalised or not.
    Pooled(Way),
    /// By a chain of modules.
    By(Modules),
}

impl Made {
    fn words(&self) -> String {
        match self {
            Self::Pooled(way) => way.words(),
            Self::By(modules) => modules.to_string(),
        }
    }

    /// The embeddings, f64 `[batch, width]`; nothing where the values are none that they can be
    /// made of.
    pub fn embed(&self, states: &Value, pooled: Option<&Value>, mask: Option<&Value>) -> Option<Value> {
        match self {
            Self::Pooled(way) => {
                let rows = way.embed(states, pooled, mask)?;
                let &[batch, _, width] = states.shape() else { return None };
                Value::new([batch, width], rows).ok()
            }
            Self::By(modules) => feature(modules, SENTENCE, states, pooled, mask),
        }
    }

    /// The states of tokens behind the modules that change them.
    pub fn tokens(&self, states: &Value, pooled: Option<&Value>, mask: Option<&Value>) -> Option<Value> {
        match self {
            Self::By(modules) if modules.changes_tokens() => feature(modules, TOKENS, states, pooled, mask),
            _ => None,
        }
    }
}

/// A feature that modules make, in f64.
fn feature(
    modules: &Modules,
    name: &str,
    states: &Value,
    pooled: Option<&Value>,
    mask: Option<&Value>,
) -> Option<Value> {
    let wide = |value: &Value| value.to_tensor(&Device::Cpu)?.to_dtype(DType::F64);
    let &[batch, sequence, _] = states.shape() else { return None };
    let ones = || Value::new([batch, sequence], vec![1i64; batch * sequence]);
    let mask = mask.cloned().map_or_else(ones, Ok).ok()?;
    let pooled = pooled.map(wide).transpose().ok()?;
    let mask = mask.to_tensor(&Device::Cpu).ok()?;
    let features = modules.run(&wide(states).ok()?, &mask, pooled.as_ref()).ok()?;
    Value::from_tensor(features.get(name)?).ok()
}

impl Embedding {
    /// What an output of the graph is and should be.
    ///
    /// # Errors
    /// Why nobody can tell: modules.json asks for something that is not known here, and the graph
    /// does not show what it is.
    pub fn of(name: &str, seen: Option<&Seen>, files: &ModelFiles) -> Result<Self, String> {
        let seen = seen.and_then(|seen| Looked::at(name, seen));
        let distances = seen.as_ref().map(Looked::distances).unwrap_or_default();
        let near = |(_, distance): &&(Way, f64)| *distance <= SAME;
        let (declared, no_declaration) = match declared(files) {
            Ok(Some(made)) => (Some(made), String::new()),
            Ok(None) => (None, format!("the model has no {MODULES}")),
            Err(why) if distances.iter().any(|pair| near(&pair)) => (None, why),
            Err(why) => return Err(why),
        };
        if declared.is_none() && seen.is_some() && distances.is_empty() {
            return Err(format!("{no_declaration}, and it has not the width of a token's state"));
        }
        let declared = declared.map(|made| match &seen {
            Some(seen) => seen.as_the_graph_reads_first(made),
            None => made,
        });
        let way = match &declared {
            Some(Made::Pooled(way)) => Some(*way),
            _ => None,
        };
        let mut all_near = distances.iter().filter(near).map(|(way, _)| *way);
        let is = all_near.clone().find(|near| Some(*near) == way).or_else(|| all_near.next());
        let nearest = || {
            let sound = distances.iter().filter(|(way, distance)| way.is_sound() && !distance.is_nan());
            sound.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(way, _)| *way)
        };
        // Without anything to go by, what most models have.
        let usual = Way { pool: Pool::Mean, normalized: true };
        let guess = || is.map(Way::mended).or_else(nearest).unwrap_or(usual);
        let lacks = match &declared {
            Some(Made::By(modules)) => seen.as_ref().and_then(|seen| seen.lacks(modules)),
            _ => None,
        };
        let because = if declared.is_some() { format!("as {MODULES} says") } else { no_declaration };
        Ok(Self {
            name: name.into(),
            is,
            lacks,
            declared: declared.is_some(),
            should: declared.unwrap_or_else(|| Made::Pooled(guess())),
            because,
        })
    }

    /// Whether its values show how it is made.
    pub fn is_seen(&self) -> bool {
        self.is.is_some_and(|way| way.pool != Pool::Pooler) || self.lacks.is_some()
    }

    fn is_right(&self) -> bool {
        matches!((&self.should, self.is), (Made::Pooled(should), Some(is)) if *should == is)
    }

    pub fn sentence(&self) -> String {
        let Self { name, because, .. } = self;
        let should = self.should.words();
        match self.is {
            Some(is) if self.is_right() && self.declared => format!("{name} is {}, {because}", is.words()),
            Some(is) if self.is_right() => format!("{name} is {}, by its values, as {because}", is.words()),
            Some(is) => format!("{name} is {}, and is judged as {should}", is.words()),
            None if self.declared => format!("{name} is judged as {should}, {because}"),
            None => format!("{name} is judged as {should}, as {because}"),
        }
    }

    /// What is wrong with it, and in which stage.
    pub fn explanation(&self) -> Option<String> {
        let name = &self.name;
        if let Some(module) = &self.lacks {
            return Some(format!(
                "{module}: {name} is made without it, and {MODULES} asks for {}",
                self.should.words()
            ));
        }
        let (is, should) = (self.is.filter(|_| !self.is_right())?, &self.should);
        let asked = if self.declared {
            format!(", and {MODULES} asks for {}", should.words())
        } else {
            String::new()
        };
        let Made::Pooled(way) = should else {
            return Some(format!("{name} is {}{asked}", is.words()));
        };
        let mut stages = Vec::new();
        if is.pool == Pool::MeanOfAll {
            stages.push("pooling: the embedding counts padding");
        } else if is.pool != way.pool {
            stages.push("pooling: the embedding is made of other tokens");
        }
        if is.normalized != way.normalized {
            stages.push(match way.normalized {
                true => "normalisation: the embedding is not normalised",
                false => "normalisation: the embedding is normalised",
            });
        }
        Some(format!("{}; {name} is {}{asked}", stages.join(", "), is.words()))
    }
}

/// How modules.json says that embeddings are made; nothing if there is none, or why it is not
/// followed.
fn declared(files: &ModelFiles) -> Result<Option<Made>, String> {
    let Some(modules) = Modules::from_files(files).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    Ok(Some(match Pooling::from_files(files) {
        Ok((pooling, normalized)) => match pool(pooling) {
            Some(pool) => Made::Pooled(Way { pool, normalized }),
            None => Made::By(modules),
        },
        Err(_) => Made::By(modules),
    }))
}

fn pool(pooling: Pooling) -> Option<Pool> {
    Some(match pooling {
        Pooling::Mean => Pool::Mean,
        Pooling::Cls => Pool::First,
        Pooling::Max => Pool::Largest,
        Pooling::MeanSqrtLenTokens => Pool::Rooted,
        Pooling::WeightedMean => Pool::Weighted,
        Pooling::LastToken => Pool::Last,
        Pooling::Pooler => Pool::Pooler,
        _ => return None,
    })
}

/// A graph's embedding on one input, and the states that it is made of.
struct Looked {
    embedding: Value,
    states: Value,
    pooled: Option<Value>,
    mask: Option<Value>,
}

impl Looked {
    /// The states are the graph's own where it gives them, so that a fault in the encoder does not
    /// hide how the embedding is made.
    fn at(name: &str, Seen { case, found, truth }: &Seen) -> Option<Self> {
        let of = |values: &NamedValues, name: &str| values.get(name).cloned();
        let meant = of(truth, HIDDEN)?;
        let own = of(found, TOKENS).or(of(found, HIDDEN)).filter(|own| own.shape() == meant.shape());
        Some(Self {
            embedding: of(found, name)?,
            states: own.unwrap_or(meant),
            pooled: of(found, POOLED).or(of(truth, POOLED)),
            mask: of(&case.inputs, "attention_mask"),
        })
    }

    /// How far the embedding is from each way, over its largest element, where it decides.
    fn distances(&self) -> Vec<(Way, f64)> {
        let of = |way| Some((way, self.distance(&Made::Pooled(way))?));
        Way::all().filter_map(of).collect()
    }

    /// The first token of a row is that at its start, or the first that is real: versions of
    /// sentence-transformers differ, and no text shows it. What the graph does is taken.
    fn as_the_graph_reads_first(&self, made: Made) -> Made {
        let other = match &made {
            Made::Pooled(Way { pool: Pool::First, normalized }) => {
                Made::Pooled(Way { pool: Pool::FirstReal, normalized: *normalized })
            }
            Made::Pooled(_) => return made,
            Made::By(modules) => Made::By(modules.first_at_start()),
        };
        let far = |made: &Made| self.distance(made).unwrap_or(f64::INFINITY);
        if far(&other) < far(&made) { other } else { made }
    }

    /// The module without which the embedding is made.
    fn lacks(&self, modules: &Modules) -> Option<String> {
        let words = modules.words().enumerate();
        let mut all = words.filter_map(|(at, words)| Some((modules.without(at)?, words)));
        let is_near = |made: &Made| self.distance(made).is_some_and(|distance| distance <= SAME);
        let is = |less: Modules| is_near(&self.as_the_graph_reads_first(Made::By(less)));
        // What nobody leaves out is no fault.
        if is(modules.clone()) {
            return None;
        }
        all.find(|(less, _)| is(less.clone())).map(|(_, words)| words)
    }

    fn distance(&self, made: &Made) -> Option<f64> {
        let made = made.embed(&self.states, self.pooled.as_ref(), self.mask.as_ref())?;
        let &[_, sequence, _] = self.states.shape() else { return None };
        if made.shape() != self.embedding.shape() {
            return None;
        }
        let width = made.shape().last().copied()?.max(1);
        let bits = self.mask.as_ref().map(Value::to_f64);
        let decides = |row: usize| {
            bits.as_ref().is_none_or(|bits| bits[row * sequence..][..sequence].iter().any(|&bit| bit != 0.0))
        };
        let (mut largest, mut off, mut decided) = (0f64, 0f64, false);
        let pairs = made.to_f64().into_iter().zip(self.embedding.to_f64()).enumerate();
        for (_, (made, found)) in pairs.filter(|(at, _)| decides(at / width)) {
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
