//! The program that a description comes to.

use std::borrow::Cow;
use std::iter::successors;

use crate::{Activation, Op, Shape};

/// A model, step by step in the order of execution.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Program {
    /// The class of transformers: `BertForMaskedLM`.
    pub class: String,
    /// The class of the model within it that has no head: `BertModel`; the same where there is no
    /// head.
    pub base_class: String,
    /// The axes of the inputs, the sequence last.
    pub axes: &'static [&'static str],
    /// What the model is given. Without the first it does not run; the others may be left out.
    pub inputs: Vec<Input>,
    /// What it reads from the checkpoint, in the order of execution.
    pub tensors: Vec<Tensor>,
    /// Its modules, each after its parts, as PyTorch's forward hooks are called; and what stands
    /// between them, under a name in brackets: `transformer.layer.0.attention.(attention)`.
    pub modules: Vec<Module>,
    /// What it computes.
    pub steps: Vec<Step>,
    /// What it gives.
    pub outputs: Vec<Output>,
    /// Names under which a checkpoint may hold one of the tensors a second time.
    pub copies: Vec<Copied>,
    /// Names of what a checkpoint may hold though it is no weight.
    pub buffers: Vec<String>,
}

/// Integers `[batch, sequence]`, or with more axes before the sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Its name: `input_ids`.
    pub name: &'static str,
}

/// A tensor of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, without a prefix: `encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// Its shape: `[out, in]` for the weight of a linear layer.
    pub shape: Vec<usize>,
    /// Whether it is of the model without its head, whose tensors may have a prefix of their own.
    pub in_base: bool,
    /// The name that checkpoints have for it which were converted from TensorFlow.
    pub old_name: Option<String>,
}

/// The number of a tensor in [`Program::tensors`].
pub type TensorId = usize;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// An input, by its number.
    Input(usize),
    /// What a step gives, by its number.
    Step(usize),
}

impl Wire {
    /// The step that gives it.
    pub fn step(self) -> Option<usize> {
        match self {
            Self::Input(_) => None,
            Self::Step(step) => Some(step),
        }
    }
}

/// A module of the checkpoint's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its path, without a prefix: `encoder.layer.0.attention.self`. Of one that runs several times
    /// with the same weights, each run has a path of its own, which ends with its number: `#0`.
    pub path: String,
    /// Its class, where that is one of transformers' own and not PyTorch's: `BertSelfAttention`.
    pub class: Option<Cow<'static, str>>,
    /// Its number in the list of modules that it is an item of: 0 for `encoder.layer.0`.
    pub item: Option<usize>,
    /// Its number among the repeated layers, in the order of execution: 0 for `encoder.layer.0`.
    pub layer: Option<usize>,
    /// The step that gives its output.
    pub output: usize,
}

impl Module {
    /// Whether it is none of the checkpoint's, but what stands between these: its name is in
    /// brackets.
    pub fn is_between(&self) -> bool {
        self.path.contains('(')
    }
}

/// One block that computes something.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What kind of block it is.
    pub op: Op,
    /// What it is fed.
    pub inputs: Vec<Wire>,
    /// The path of the module that it is in, or that it is; empty outside all.
    pub module: String,
}

/// What the model gives under a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its name: `last_hidden_state`.
    pub name: &'static str,
    /// The step that gives it.
    pub step: usize,
}

/// A name under which a checkpoint may hold a tensor a second time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The name, without a prefix.
    pub name: String,
    /// What it must be equal to.
    pub of: TensorId,
    /// Whether one that differs contradicts the config; if not, it is left over.
    pub tied: bool,
}

/// The part that something plays in an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What asks.
    Query,
    /// What is asked.
    Key,
    /// What is answered.
    Value,
}

impl Role {
    /// All, in the order of an attention's inputs.
    pub const ALL: [Self; 3] = [Self::Query, Self::Key, Self::Value];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
        }
    }
}

/// What inputs a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// The number of segments that a token may belong to; 0 where the model is told none.
    pub token_types: usize,
    /// The most tokens in a row.
    pub positions: usize,
    /// The id whose tokens are not counted as positions, where there is one.
    pub padding: Option<usize>,
}

/// A module's path in the checkpoint, and the number of its run, where it runs several times with
/// the same weights.
///
/// ```
/// use architecture::run_of;
///
/// assert_eq!(run_of("encoder.groups.0.layers.0#3"), ("encoder.groups.0.layers.0", Some("3")));
/// assert_eq!(run_of("encoder.layer.0"), ("encoder.layer.0", None));
/// ```
pub fn run_of(path: &str) -> (&str, Option<&str>) {
    match path.split_once('#') {
        Some((own, run)) => (own, Some(run)),
        None => (path, None),
    }
}

impl Program {
    /// The paths of all modules, each after its parts.
    pub fn module_paths(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(|module| module.path.as_str())
    }

    /// The module of that path.
    pub fn module(&self, path: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.path == path)
    }

    /// The modules whose output is that of a step, the innermost first.
    pub fn ending_at(&self, step: usize) -> impl Iterator<Item = &Module> {
        self.modules.iter().filter(move |module| module.output == step)
    }

    /// The path of the innermost module whose output a step gives, or else of the one that it is
    /// in.
    pub fn place(&self, step: usize) -> &str {
        match self.ending_at(step).next() {
            Some(module) => &module.path,
            None => self.steps.get(step).map_or("", |step| &step.module),
        }
    }

    /// The step whose elements a step gives again under another shape, or gives some of; otherwise
    /// the step itself.
    pub fn source(&self, step: usize) -> usize {
        match (&self.steps[step].op, self.steps[step].inputs.first().copied().and_then(Wire::step)) {
            (Op::Unrows | Op::Feature { .. } | Op::Part { .. }, Some(before)) => self.source(before),
            _ => step,
        }
    }

    /// The module to which the work of a step is counted: its own, or where it stands outside all,
    /// that of what it is fed; where that is none, that of what takes it.
    pub fn owner(&self, step: usize) -> &str {
        let before = successors(Some(step), |&at| self.steps[at].inputs.first()?.step());
        let behind = successors(Some(step), |&at| Some(self.consumers(at).next()?.0));
        let mut modules = before.chain(behind).map(|at| self.steps[at].module.as_str());
        modules.find(|module| !module.is_empty()).unwrap_or_default()
    }

    /// The modules that a path leads through, its own among them, each after its parts.
    fn around(&self, path: &str) -> impl Iterator<Item = &Module> {
        let (own, run) = run_of(path);
        self.modules.iter().filter(move |module| {
            let (outer, of) = run_of(&module.path);
            let leads = own.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            leads && (of.is_none() || of == run)
        })
    }

    /// The number of the repeated layer that a module is in or is.
    pub fn layer_of(&self, path: &str) -> Option<usize> {
        self.around(path).find_map(|module| module.layer)
    }

    /// How many repeated layers there are.
    pub fn layers(&self) -> usize {
        self.modules.iter().filter_map(|module| module.layer).max().map_or(0, |last| last + 1)
    }

    /// The steps that take what a step gives, with the number of the input that it is there.
    pub fn consumers(&self, step: usize) -> impl Iterator<Item = (usize, usize)> {
        let uses = self.steps.iter().enumerate();
        uses.flat_map(move |(user, of)| {
            let inputs = of.inputs.iter().enumerate();
            inputs.filter(move |(_, wire)| **wire == Wire::Step(step)).map(move |(at, _)| (user, at))
        })
    }

    /// The tensor that is a parameter of a step.
    pub fn parameter(&self, step: usize, name: &str) -> Option<&Tensor> {
        let tensors = self.steps[step].op.tensors();
        let (_, id) = tensors.into_iter().find(|(parameter, _)| *parameter == name)?;
        self.tensors.get(id)
    }

    /// The part that a step's output plays in an attention, if it goes to one.
    pub fn role(&self, step: usize) -> Option<Role> {
        self.consumers(step).find_map(|(user, at)| match self.steps[user].op {
            Op::Attention { .. } => Role::ALL.get(at).copied(),
            _ => None,
        })
    }

    /// Whether what a step gives is a key, and nothing else: what is added to all keys alike, as a
    /// bias is, adds one number to all scores of a query, which no softmax sees.
    pub fn is_only_key(&self, step: usize) -> bool {
        let mut readers = self.consumers(step);
        self.role(step) == Some(Role::Key)
            && readers.all(|(user, at)| {
                matches!(self.steps[user].op, Op::Attention { .. }) && Role::ALL.get(at) == Some(&Role::Key)
            })
    }

    /// The steps that some outputs depend on, in the order of execution.
    pub fn needed(&self, outputs: &[usize]) -> Vec<usize> {
        let mut needed = vec![false; self.steps.len()];
        for &step in outputs {
            needed[step] = true;
        }
        for step in (0..self.steps.len()).rev() {
            if needed[step] {
                for before in self.steps[step].inputs.iter().filter_map(|wire| wire.step()) {
                    needed[before] = true;
                }
            }
        }
        (0..needed.len()).filter(|&step| needed[step]).collect()
    }

    /// The classes on the way to a module, as hierarchy-preserving tags have them:
    /// `encoder.layer.0.attention.self.query` is part of
    /// `/BertModel/BertEncoder/BertLayer.0/BertAttention/BertSelfAttention`, and where the model
    /// has a head, all of that is part of the head's class.
    ///
    /// Only transformers' own classes are named: lists of modules, and PyTorch's own modules, such
    /// as `query`, are left out.
    pub fn hierarchy_tag(&self, path: &str) -> String {
        let mut tag = format!("/{}", self.class);
        let mut around: Vec<&Module> = self.around(path).collect();
        around.sort_by_key(|module| module.path.len());
        if self.base_class != self.class
            && around.first().is_some_and(|outermost| self.is_in_base(&outermost.path))
        {
            tag = format!("{tag}/{}", self.base_class);
        }
        for module in around {
            match (&module.class, module.item) {
                (Some(class), Some(item)) => tag = format!("{tag}/{class}.{item}"),
                (Some(class), None) => tag = format!("{tag}/{class}"),
                (None, _) => {}
            }
        }
        tag
    }

    /// Whether the module of that path is part of the model without its head: whether its tensors
    /// are.
    pub fn is_in_base(&self, path: &str) -> bool {
        let (path, _) = run_of(path);
        let is_within = |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.tensors.iter().any(|tensor| tensor.in_base && is_within(&tensor.name))
    }

    /// The input that a wire is, as it is or as rows.
    pub fn input_of(&self, wire: Wire) -> Option<usize> {
        match wire {
            Wire::Input(input) => Some(input),
            Wire::Step(step) if self.steps[step].op == Op::Rows => {
                self.input_of(*self.steps[step].inputs.first()?)
            }
            Wire::Step(_) => None,
        }
    }

    /// The steps that read an input.
    fn readers(&self, input: usize) -> impl Iterator<Item = &Step> {
        let reads = move |wire: &Wire| self.input_of(*wire) == Some(input);
        self.steps.iter().filter(move |step| step.op != Op::Rows && step.inputs.iter().any(reads))
    }

    /// What the ids of an input must stay below: the rows of what is looked up by them, or two for
    /// a mask; nothing where nobody reads them.
    pub fn below(&self, input: usize) -> Option<usize> {
        let below = self.readers(input).filter_map(|step| match step.op {
            Op::Embedding { table } => self.tensors[table].shape.first().copied(),
            Op::Mask { .. } => Some(2),
            _ => None,
        });
        below.min()
    }

    /// Whether an input is a mask.
    pub fn is_mask(&self, input: usize) -> bool {
        self.readers(input).any(|step| matches!(step.op, Op::Mask { .. }))
    }

    /// Whether a step is fed the first input.
    pub fn is_of_first_input(&self, step: usize) -> bool {
        self.steps[step].inputs.iter().any(|&wire| self.input_of(wire) == Some(0))
    }

    /// What inputs the model takes.
    pub fn limits(&self) -> Limits {
        let others = (1..self.inputs.len()).filter(|&input| !self.is_mask(input));
        let positions = self.steps.iter().filter_map(|step| match step.op {
            Op::Positions { table, padding } => {
                let before = padding.map_or(0, |padding| padding.saturating_add(1));
                Some(self.tensors[table].shape.first()?.saturating_sub(before))
            }
            Op::Angles { rotation, .. } => Some(rotation.positions),
            _ => None,
        });
        Limits {
            vocabulary: self.below(0).unwrap_or(usize::MAX),
            token_types: others.filter_map(|input| self.below(input)).min().unwrap_or(0),
            positions: positions.min().unwrap_or(usize::MAX),
            padding: self.steps.iter().find_map(|step| match step.op {
                Op::Positions { padding, .. } => padding,
                _ => None,
            }),
        }
    }

    /// The shape of what each step gives.
    pub fn shapes(&self) -> Vec<Shape> {
        let mut shapes: Vec<Shape> = Vec::with_capacity(self.steps.len());
        for Step { op, inputs, .. } in &self.steps {
            let fed = inputs.first().and_then(|wire| shapes.get(wire.step()?)).copied();
            shapes.push(op.shape(fed.unwrap_or(Shape::IDS), &self.tensors));
        }
        shapes
    }

    /// The size of a head in the first attention.
    pub fn head_size(&self) -> Option<usize> {
        let (query, heads) = self.steps.iter().find_map(|step| match step.op {
            Op::Attention { heads } => Some((step.inputs.first()?.step()?, heads)),
            _ => None,
        })?;
        match self.steps[query].op {
            Op::Linear { weight, .. } => self.tensors[weight].shape.first()?.checked_div(heads),
            _ => self.shapes()[query].width?.checked_div(heads),
        }
    }

    /// How many heads an attention has.
    pub fn heads(&self) -> Option<usize> {
        self.steps.iter().find_map(|step| match step.op {
            Op::Attention { heads } => Some(heads),
            _ => None,
        })
    }

    /// What the first layer norm adds to the variance; see [`Program::has_eps`].
    pub fn eps(&self) -> Option<f64> {
        self.steps.iter().find_map(|step| match step.op {
            Op::LayerNorm { eps, .. } => Some(eps),
            _ => None,
        })
    }

    /// Whether some layer norm adds a number to the variance, as f32 has it.
    pub fn has_eps(&self, found: f32) -> bool {
        let is_it = |step: &Step| matches!(step.op, Op::LayerNorm { eps, .. } if eps as f32 == found);
        self.steps.iter().any(is_it)
    }

    /// The activation that config.json chooses.
    pub fn activation(&self) -> Option<Activation> {
        self.steps.iter().find_map(|step| match step.op {
            Op::Activation { function, configured: true } => Some(function),
            _ => None,
        })
    }
}
