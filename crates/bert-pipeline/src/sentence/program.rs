//! A model's modules, one after the other, as modules.json lists them: each reads a feature that an
//! earlier one wrote, and writes one.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;
use checkpoint::{ListedModule, ModelFiles};

use super::dense::Dense;
use super::layer_norm::LayerNorm;
use super::pool::Pool;
use super::transformer::Transformer;
use super::{NORMALIZED, SCORES, SENTENCE, TOKENS, in_folder, unsupported_module};
use crate::pooling::normalize;
use crate::{PipelineError, Pooling};

/// What is done to the transformer's output.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The feature that the transformer writes.
    input: String,
    modules: Vec<Module>,
}

/// A module after the transformer.
#[derive(Debug, Clone)]
pub(crate) enum Module {
    Pool(Pool),
    Dense(Dense),
    LayerNorm(LayerNorm),
    Normalize,
}

/// What the modules hand on, of one text or a batch of them: named tensors, and which tokens count.
pub(crate) struct Features {
    tensors: BTreeMap<String, Tensor>,
    /// How many tokens at each row's start are the prompt's; 0 without a prompt.
    prompt: usize,
    /// Of each token whether it counts, u8 `[batch, sequence]`.
    mask: Tensor,
    /// `pooler_output`, `[batch, hidden]`, where it is wanted.
    pooler_output: Option<Tensor>,
}

impl Features {
    /// Of a row of so many tokens, all of them real, of which the first ones are the prompt's.
    pub(crate) fn new(
        tokens: usize,
        prompt: usize,
        pooler_output: Option<Tensor>,
    ) -> Result<Self, PipelineError> {
        let mask = Tensor::ones((1, tokens), candle_core::DType::U8, &candle_core::Device::Cpu)?;
        Ok(Self { tensors: BTreeMap::new(), prompt, mask, pooler_output })
    }

    fn get(&self, name: &str) -> Result<&Tensor, PipelineError> {
        self.tensors.get(name).ok_or_else(|| no_feature(name, self.tensors.keys().cloned()))
    }

    /// From here on the prompt's tokens do not count.
    fn leave_the_prompt_out(&mut self) -> Result<(), PipelineError> {
        let tokens = self.mask.dim(1)?;
        let counts: Vec<u8> = (0..tokens).map(|at| u8::from(at >= self.prompt)).collect();
        self.mask = self.mask.broadcast_mul(&Tensor::from_vec(counts, (1, tokens), self.mask.device())?)?;
        Ok(())
    }
}

fn no_feature(name: &str, has: impl Iterator<Item = String>) -> PipelineError {
    PipelineError::NoFeature { feature: name.to_owned(), has: has.collect() }
}

impl Program {
    /// Without a modules.json: the transformer's output as it is, or pooled by the file where
    /// poolings usually stand.
    pub(super) fn new(input: &str, pool: Option<Pool>) -> Self {
        Self { input: input.to_owned(), modules: pool.map(Module::Pool).into_iter().collect() }
    }

    /// The modules that are listed after the transformer.
    pub(super) fn from_files(
        files: &ModelFiles,
        transformer: &Transformer,
        listed: &[ListedModule],
    ) -> Result<Self, PipelineError> {
        let mut modules = Vec::new();
        for module in listed {
            let folder = &module.folder;
            modules.push(match module.class_name() {
                "Pooling" => Module::Pool(Pool::from_files(files, &in_folder(folder, "config.json"))?),
                "Dense" => Module::Dense(Dense::from_files(files, folder)?),
                "LayerNorm" => Module::LayerNorm(LayerNorm::from_files(files, folder)?),
                "Normalize" => Module::Normalize,
                // It does something only while a model learns.
                "Dropout" => continue,
                _ => return Err(unsupported_module(&format!("a module of type '{}'", module.class))),
            });
        }
        let program = Self { input: transformer.feature.clone(), modules };
        program.check()?;
        Ok(program)
    }

    /// Checks that each module finds what it reads.
    fn check(&self) -> Result<(), PipelineError> {
        let mut has = BTreeSet::from([self.input.as_str()]);
        for module in &self.modules {
            if let Some(name) = module.reads().filter(|name| !has.contains(name)) {
                return Err(no_feature(name, has.into_iter().map(str::to_owned)));
            }
            has.extend(module.writes());
        }
        Ok(())
    }

    pub(crate) fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Of each module with weights its folder, these, and what follows them, in words.
    pub(crate) fn weights(&self) -> Vec<(&str, Vec<Tensor>, String)> {
        let mut weights = Vec::new();
        for module in &self.modules {
            match module {
                Module::Dense(dense) => {
                    let activation = format!(", {:?}", dense.activation);
                    weights.push((dense.folder.as_str(), dense.weights(), activation));
                }
                Module::LayerNorm(norm) => {
                    weights.push((norm.folder.as_str(), norm.weights(), String::new()))
                }
                Module::Pool(_) | Module::Normalize => {}
            }
        }
        weights
    }

    /// Whether the tokens' states are changed before they are pooled: then what a graph calls
    /// `token_embeddings` may be either of the two.
    pub(crate) fn changes_tokens(&self) -> bool {
        self.modules.iter().any(|module| module.writes() == Some(TOKENS))
    }

    /// An error, unless the transformer or a module gives this feature.
    pub(crate) fn must_give(&self, feature: &str) -> Result<(), PipelineError> {
        let given =
            || std::iter::once(self.input.as_str()).chain(self.modules.iter().filter_map(Module::writes));
        match given().any(|given| given == feature) {
            true => Ok(()),
            false => Err(no_feature(feature, given().map(str::to_owned))),
        }
    }

    /// Pools by the model's own pooler, in place of what the files ask for.
    pub(crate) fn pool_by_the_pooler(&mut self) {
        for module in &mut self.modules {
            if let Module::Pool(pool) = module {
                pool.modes = vec![Pooling::Pooler];
            }
        }
    }

    /// What a feature comes to, of what the transformer gives for one text: `[1, sequence, width]`
    /// or `[1, width]`, in f32.
    pub(crate) fn run(
        &self,
        output: Tensor,
        features: Features,
        wanted: &str,
    ) -> Result<Vec<f32>, PipelineError> {
        Ok(self.features(output, features)?.get(wanted)?.flatten_all()?.to_vec1()?)
    }

    /// What all features come to, of what the transformer gives.
    fn features(&self, output: Tensor, mut features: Features) -> Result<Features, PipelineError> {
        features.tensors.insert(self.input.clone(), output);
        for module in &self.modules {
            module.forward(&mut features)?;
        }
        Ok(features)
    }

    /// What all features come to for a batch.
    pub(super) fn of_batch(
        &self,
        output: Tensor,
        mask: Tensor,
        pooler_output: Option<Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, PipelineError> {
        let features = Features { tensors: BTreeMap::new(), prompt: 0, mask, pooler_output };
        Ok(self.features(output, features)?.tensors)
    }

    /// With the first token of a row at its start, real or not.
    pub(super) fn first_at_start(&self) -> Self {
        let mut other = self.clone();
        for module in &mut other.modules {
            if let Module::Pool(pool) = module {
                pool.first_is_at_start = true;
            }
        }
        other
    }

    /// Without one of its modules; nothing where another then lacks what it reads.
    pub(super) fn without(&self, module: usize) -> Option<Self> {
        let mut less = self.clone();
        (module < less.modules.len()).then(|| less.modules.remove(module))?;
        less.check().is_ok().then_some(less)
    }
}

impl Module {
    /// The feature that it cannot do without.
    fn reads(&self) -> Option<&str> {
        match self {
            Self::Pool(_) => Some(TOKENS),
            Self::Dense(dense) => Some(&dense.input),
            Self::LayerNorm(_) => Some(SENTENCE),
            // Where there is nothing to normalize it does nothing.
            Self::Normalize => None,
        }
    }

    fn writes(&self) -> Option<&str> {
        match self {
            Self::Pool(_) | Self::LayerNorm(_) => Some(SENTENCE),
            Self::Dense(dense) => Some(&dense.output),
            Self::Normalize => None,
        }
    }

    fn forward(&self, features: &mut Features) -> Result<(), PipelineError> {
        let (name, tensor) = match self {
            Self::Pool(pool) => {
                if !pool.includes_prompt {
                    features.leave_the_prompt_out()?;
                }
                let states = features.get(TOKENS)?;
                let pooled = pool.forward(states, &features.mask, features.pooler_output.as_ref())?;
                (SENTENCE, pooled)
            }
            Self::Dense(dense) => (dense.output.as_str(), dense.forward(features.get(&dense.input)?)?),
            Self::LayerNorm(norm) => (SENTENCE, norm.forward(features.get(SENTENCE)?)?),
            Self::Normalize => match features.tensors.get(SENTENCE) {
                Some(vectors) => (SENTENCE, normalize(vectors)?),
                None => return Ok(()),
            },
        };
        features.tensors.insert(name.to_owned(), tensor);
        Ok(())
    }

    /// What it is, for a person to read.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Pool(pool) => {
                let modes: Vec<String> = pool.modes.iter().map(Pooling::to_string).collect();
                format!("{} pooling", modes.join(" + "))
            }
            Self::Dense(dense) if dense.input == TOKENS => "dense on tokens".to_owned(),
            Self::Dense(dense) if dense.output == SCORES => "dense to scores".to_owned(),
            Self::Dense(_) => "dense".to_owned(),
            Self::LayerNorm(_) => "layer norm".to_owned(),
            Self::Normalize => NORMALIZED.to_owned(),
        }
    }
}
