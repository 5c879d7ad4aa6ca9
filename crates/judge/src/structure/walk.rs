//! The graph from its inputs to its outputs, once, without running it.

use std::collections::{BTreeSet, HashMap, HashSet};

use architecture::{Op, Program, Step};
use engine::{Dim as SpecDim, ValueSpec};
use onnx_graph::Node;
use onnx_graph::shape::{axis, reduced_axes, volume};
use onnx_session::compiled::{Dim, Known};

use super::between::{allowed, sees_as_far};
use super::kind::{Atom, Kind, Source, settled};
use super::operators::{Class, Work, class, is_shape};

/// The powers in the formulas of models: GELU's x³, a layer norm's square, root, and one over it.
const POWERS: [f32; 4] = [2.0, 3.0, 0.5, -0.5];

/// No vector that a model gives is as short as this. PyTorch keeps lengths from 1e-12, others from
/// 1e-9 or 1e-8, before they divide by them.
const SHORTEST: f32 = 1e-6;

/// A graph as it is walked.
pub(super) struct Graph<'a> {
    pub nodes: Vec<&'a Node>,
    pub inputs: &'a [ValueSpec],
    pub outputs: &'a [ValueSpec],
    pub known: &'a Known,
    pub program: &'a Program,
    /// The inputs that are masks, by their numbers.
    pub masks: BTreeSet<Source>,
}

impl Graph<'_> {
    /// The dimensions of `input_ids`, the number of tokens last.
    pub fn ids(&self) -> &[Dim] {
        self.known.shape("input_ids").unwrap_or_default()
    }

    /// Whether a dimension is the number of tokens of a text.
    pub fn counts_tokens(&self, dim: &Dim) -> bool {
        self.ids().last() == Some(dim)
    }
}

/// Which values of a graph may be what steps of the model give.
#[derive(Default)]
pub(super) struct Anchors {
    /// The steps, by the names of values.
    pub steps: HashMap<String, usize>,
    /// Values that were seen to be none.
    pub refuted: HashSet<String>,
}

/// A node that no step of the model explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    pub node: String,
    pub why: String,
}

/// A value of the graph that is taken for what a step gives.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Taken {
    pub value: String,
    pub step: usize,
    /// The steps whose values it is made of in the graph; none if it is made of the inputs alone.
    pub from: Option<BTreeSet<usize>>,
}

/// What was found.
#[derive(Default)]
pub(super) struct Walked {
    pub kinds: HashMap<String, Kind>,
    pub taken: Vec<Taken>,
    /// Values on which nothing depends if the graph is right: softmax's largest scores.
    pub idle: Vec<String>,
    pub reasons: Vec<Reason>,
    /// Values of masks that reach smooth ones, and the numbers that stand where a token is masked.
    pub masks: BTreeSet<String>,
    pub fills: Vec<(String, f32)>,
    /// Nodes that keep lengths of vectors from 0, and how far.
    pub floors: Vec<(String, f32)>,
    /// Where an input first reaches values that vary smoothly.
    pub entered: HashMap<Source, usize>,
    /// What each node does that is a smooth function.
    work: HashMap<usize, Work>,
    /// The node that makes a value.
    pub(super) producers: HashMap<String, usize>,
}

/// What is found out about a value by running it.
pub(super) trait Runs {
    /// Whether a value that masks and places decide is the same at every place.
    fn is_placeless(&self, value: &str, atoms: &[Atom]) -> bool;

    /// The window of the model that a value shows, which masks and places decide: it is one number
    /// where the token that is asked is not masked and no further away, and another everywhere
    /// else. Nothing if it shows none.
    fn window(&self, value: &str, atoms: &[Atom]) -> Option<usize>;

    /// The step that gives the angles which a value of places alone holds, if it does.
    fn angles(&self, value: &str) -> Option<usize>;

    /// Whether a value that is made of ids is 1 for every id but the one that pads, and there 0; or
    /// the other way round, which is false. Nothing if it is neither.
    fn is_real(&self, value: &str) -> Option<bool>;
}

/// Walks a graph. `anchors` are the values that may be what a step gives.
pub(super) fn walk(graph: &Graph, anchors: &Anchors, runs: &dyn Runs) -> Walked {
    let mut walker = Walker { graph, anchors, runs, found: Walked::default() };
    for (number, spec) in graph.inputs.iter().enumerate() {
        let kind = walker.input(number, spec);
        walker.found.kinds.insert(spec.name.clone(), kind);
    }
    for (number, node) in graph.nodes.iter().enumerate() {
        walker.node(number, node);
    }
    walker.found
}

impl Walked {
    /// A node that bends a smooth value, on the way from what was taken for steps to one that is
    /// made of these steps of the model, where those do not bend.
    pub fn bend<'a>(&self, graph: &Graph<'a>, value: &str, steps: &[usize]) -> Option<&'a Node> {
        let mut found = None;
        let from = self.nodes_before(graph, value, |number| {
            if self.work.get(&number).is_some_and(|work| work.bends > 0) {
                found = Some(graph.nodes[number]);
            }
        });
        found.filter(|_| allowed(graph, steps, &from).bends == 0)
    }

    /// Shows the nodes that make a value of those that were taken for steps, and gives the steps.
    fn nodes_before(&self, graph: &Graph, value: &str, mut see: impl FnMut(usize)) -> BTreeSet<usize> {
        let (mut from, mut seen, mut open) = (BTreeSet::new(), HashSet::new(), vec![value]);
        while let Some(name) = open.pop() {
            let Some(&number) = self.producers.get(name).filter(|number| seen.insert(**number)) else {
                continue;
            };
            see(number);
            // What only says of what shape something is, or is a mask, has no part in it.
            let varies = |name: &&String| matches!(self.kinds.get(*name), Some(Kind::Smooth(_)));
            for input in graph.nodes[number].inputs.iter().filter(varies) {
                match self.taken.iter().find(|taken| taken.value == *input) {
                    Some(taken) => {
                        from.insert(taken.step);
                    }
                    None => open.push(input),
                }
            }
        }
        from
    }

    /// The steps whose values a smooth value is made of, if nothing but masks reaches it beside
    /// them, and no more is done than these steps of the model do, and what else is allowed.
    pub fn between(
        &self,
        graph: &Graph,
        value: &str,
        reached: &BTreeSet<Source>,
        (steps, more): (&[usize], Work),
    ) -> Option<BTreeSet<usize>> {
        let mut work = Work::NONE;
        let from = self.nodes_before(graph, value, |number| {
            work = work.and(self.work.get(&number).copied().unwrap_or_default());
        });
        let is_within = work.is_within(allowed(graph, steps, &from).and(more));
        (is_within && sees_as_far(graph, reached, steps, &from)).then_some(from)
    }
}

pub(super) struct Walker<'a> {
    pub(super) graph: &'a Graph<'a>,
    pub(super) anchors: &'a Anchors,
    pub(super) runs: &'a dyn Runs,
    pub(super) found: Walked,
}

impl<'a> Walker<'a> {
    fn input(&mut self, number: usize, spec: &ValueSpec) -> Kind {
        // One that has a default is taken for that.
        if self.graph.known.is_constant(&spec.name) {
            return Kind::Constant;
        }
        match spec.shape.as_deref().map(<[SpecDim]>::len) {
            Some(rank) if rank > 0 && !spec.dtype.is_float() => {
                let (rows, token) = ((0..rank - 1).collect(), Some(rank - 1));
                self.local(&spec.name, vec![Atom { source: Source::Input(number), rows, token }])
            }
            _ => self.unexplained(&spec.name, "is an input that the model does not have"),
        }
    }

    fn unexplained(&mut self, node: &str, why: impl Into<String>) -> Kind {
        self.found.reasons.push(Reason { node: node.into(), why: why.into() });
        Kind::Unexplained(self.found.reasons.len() - 1)
    }

    pub(super) fn local(&self, value: &str, atoms: Vec<Atom>) -> Kind {
        Kind::Local(settled(atoms, self.shape(value).unwrap_or_default()))
    }

    pub(super) fn shape(&self, value: &str) -> Option<&'a [Dim]> {
        self.graph.known.shape(value)
    }

    pub(super) fn kind(&self, value: &str) -> Kind {
        self.found.kinds.get(value).cloned().unwrap_or(Kind::Constant)
    }

    fn node(&mut self, number: usize, node: &'a Node) {
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            self.found.producers.insert(output.clone(), number);
        }
        for (at, output) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let known = self.graph.known;
            let kind = match () {
                () if known.is_constant(output) => Kind::Constant,
                () if known.is_sizes(output) => Kind::Sizes,
                () => self.computed(number, node, at, output),
            };
            self.found.kinds.insert(output.clone(), kind.clone());
            let kind = self.anchored(node, output, kind);
            self.found.kinds.insert(output.clone(), kind);
        }
    }

    fn computed(&mut self, number: usize, node: &Node, at: usize, output: &str) -> Kind {
        let kinds: Vec<Option<Kind>> =
            node.inputs.iter().map(|name| (!name.is_empty()).then(|| self.kind(name))).collect();
        let reason = kinds.iter().flatten().find_map(|kind| match kind {
            Kind::Unexplained(reason) => Some(*reason),
            _ => None,
        });
        if let Some(reason) = reason {
            return Kind::Unexplained(reason);
        }
        let is_smooth = |kind: &Option<Kind>| matches!(kind, Some(Kind::Smooth(_)));
        let made = match kinds.iter().any(is_smooth) {
            true => self.smooth(number, node, &kinds, output),
            false => self.of_inputs(node, at, &kinds, output),
        };
        made.unwrap_or_else(|why| self.unexplained(&node.name, format!("({}) {why}", node.op)))
    }

    /// A value that is taken for what a step gives, if it may be.
    fn anchored(&mut self, node: &Node, value: &str, kind: Kind) -> Kind {
        if self.anchors.refuted.contains(value) {
            return match self.table(node, &kind) {
                Some(_) => {
                    let why = format!("({}) looks up other numbers than the model has there", node.op);
                    self.unexplained(&node.name, why)
                }
                None => kind,
            };
        }
        let step = self.anchors.steps.get(value).copied().or_else(|| self.table(node, &kind));
        let step = step.or_else(|| self.angles(value, &kind));
        let Some(step) = step else { return kind };
        let from = match &kind {
            Kind::Local(atoms) => {
                let fits = match self.graph.program.steps[step].op {
                    Op::RelativeBias { .. } => self.is_by_pair(value, atoms),
                    _ => self.is_by_token(value, atoms) && (atoms.len() < 2 || self.is_blended(value)),
                };
                if !fits {
                    return kind;
                }
                None
            }
            Kind::Smooth(reached) => {
                let steps = (&[step][..], Work::NONE);
                let Some(from) = self.found.between(self.graph, value, reached, steps) else { return kind };
                Some(from)
            }
            _ => return kind,
        };
        self.found.taken.push(Taken { value: value.into(), step, from });
        Kind::Smooth(BTreeSet::new())
    }

    /// What reaches smooth values from an operand that is none.
    fn reaching(&mut self, value: &str, kind: &Kind, node: &Node) -> Result<BTreeSet<Source>, String> {
        let sources: BTreeSet<Source> = match kind {
            Kind::Constant => BTreeSet::new(),
            Kind::Sizes => return Err(format!("computes with a size, '{value}'")),
            Kind::Counted(sources, _) | Kind::Smooth(sources) => sources.clone(),
            Kind::Local(atoms) => {
                if !atoms.is_empty() && matches!(node.op.as_str(), "Add" | "Attention" | "MultiHeadAttention")
                {
                    self.found.masks.insert(value.into());
                }
                let mut sources: BTreeSet<Source> = atoms.iter().map(|atom| atom.source).collect();
                let masks = atoms.iter().filter(|atom| self.graph.masks.contains(&atom.source));
                if masks.count() > 1 {
                    return Err(format!("takes the masks of two tokens at once, in '{value}'"));
                }
                // In a graph of one shape a constant may be as large as a batch, and say which text
                // or which place it is about.
                let is_of_mask = sources.iter().any(|source| self.graph.masks.contains(source));
                if sources.contains(&Source::Place) || is_of_mask {
                    let of_pairs = atoms.iter().filter(|atom| atom.source == Source::Place).count() > 1;
                    // Whether a mask of many pairs is the same at every place takes long to see.
                    let mut window = of_pairs.then(|| self.runs.window(value, atoms)).flatten();
                    let is_placeless = window.is_none() && self.runs.is_placeless(value, atoms);
                    if window.is_none() && !is_placeless {
                        window = self.runs.window(value, atoms);
                    }
                    match is_placeless || window.is_some() {
                        true => sources.remove(&Source::Place),
                        false => sources.insert(Source::Place),
                    };
                    sources.extend(window.map(Source::Window));
                }
                sources
            }
            Kind::Unexplained(_) => BTreeSet::new(),
        };
        for source in &sources {
            if !self.found.entered.contains_key(source) {
                let what = match source {
                    Source::Input(input) => format!("'{}'", self.graph.inputs[*input].name),
                    Source::Place => "the place of a token".into(),
                    Source::Padding => "the tokens that pad".into(),
                    Source::Window(window) => format!("a window of {window} tokens"),
                };
                let why = format!("({}) takes what is made of {what}", node.op);
                self.found.reasons.push(Reason { node: node.name.clone(), why });
                self.found.entered.insert(*source, self.found.reasons.len() - 1);
            }
        }
        Ok(sources)
    }

    /// A node with an operand that varies smoothly.
    fn smooth(
        &mut self,
        number: usize,
        node: &Node,
        kinds: &[Option<Kind>],
        output: &str,
    ) -> Result<Kind, String> {
        if node.domain.is_empty() && node.op == "IsNaN" {
            // A softmax over something that is not masked is a number.
            return match self
                .made_by(&node.inputs[0])
                .is_some_and(|of| of.domain.is_empty() && of.op == "Softmax")
            {
                true => Ok(Kind::Local(Vec::new())),
                false => Err("asks whether something is a number".into()),
            };
        }
        if let Some(picked) = self.by_place(node, kinds, output) {
            return Ok(picked);
        }
        let class = class(node).ok_or("is no operator that stands between steps of a model")?;
        if self.shape(output).is_none() {
            return Err(format!("gives '{output}', whose shape is not known before a run"));
        }
        // A cast, or what is like one.
        let to_integers = self.graph.known.dtype(output).is_none_or(|dtype| !dtype.is_float());
        let varies = |at: usize| matches!(kinds.get(at), Some(Some(Kind::Smooth(_))));
        let decides = matches!(node.op.as_str(), "Gather") && varies(1) || node.op == "Where" && varies(0);
        if to_integers || decides {
            return Err("decides by values".into());
        }
        let mut work = class.work(varies, kinds.len());
        work = work.and(self.sums(node, class)?);
        let mut reached = BTreeSet::new();
        for (at, (name, kind)) in node.inputs.iter().zip(kinds).enumerate() {
            let Some(kind) = kind else { continue };
            if is_shape(node, at) {
                if !matches!(kind, Kind::Constant | Kind::Sizes) {
                    return Err(format!("takes a shape from '{name}', which is not made of sizes"));
                }
                continue;
            }
            if node.op == "Gather" && at == 1 && *kind != Kind::Constant {
                return Err(format!("picks by '{name}'"));
            }
            reached.extend(self.reaching(name, kind, node)?);
            work = work.and(match kind {
                Kind::Local(atoms) if !atoms.is_empty() => match node.op.as_str() {
                    "Add" | "Attention" | "MultiHeadAttention" => Work { choices: 1, ..Work::NONE },
                    "Where" if at == 0 => Work { choices: 1, ..Work::NONE },
                    _ => Work { factors: 1, ..Work::NONE },
                },
                Kind::Counted(..) => Work { factors: 1, ..Work::NONE },
                _ => Work::NONE,
            });
        }
        let fill = match node.op.as_str() {
            "Where" => node.inputs.iter().skip(1).find_map(|name| self.graph.known.float(name)),
            // The default of ONNX Runtime's own.
            "Attention" | "MultiHeadAttention" if !node.domain.is_empty() => {
                Some(node.float("mask_filter_value").ok().flatten().unwrap_or(-10_000.0))
            }
            _ => None,
        };
        let is_masked = matches!(kinds.get(3), Some(Some(Kind::Local(_)))) || node.op == "Where";
        self.found.fills.extend(fill.filter(|_| is_masked).map(|fill| (node.name.clone(), fill)));
        if class == Class::Power {
            let exponent = node.inputs.get(1).and_then(|name| self.graph.known.float(name));
            if exponent.is_none_or(|exponent| !POWERS.contains(&exponent)) {
                return Err("takes a power that no formula has".into());
            }
        }
        if class == Class::Largest {
            if !self.is_shift(node, output) {
                return Err("takes the largest, and not as a softmax does".into());
            }
            self.found.idle.push(output.into());
        }
        if node.op == "Reciprocal" && self.made_by(&node.inputs[0]).is_some_and(|of| of.op == "Sqrt") {
            // 1/√x is one function, as is a quotient with the root.
            work.plain = 0;
        }
        if let Some(floor) = self.floor(node, output) {
            self.found.floors.push((node.name.clone(), floor));
            work = Work::NONE;
        }
        if work.deep + work.plain + work.bends > 0 {
            let volume = |name: &str| self.shape(name).and_then(volume).map(|all| all.factor());
            work.width = volume(output).ok_or("gives more than can be counted")?;
        }
        self.found.work.insert(number, work);
        Ok(Kind::Smooth(reached))
    }

    /// The step whose angles a value holds that is made of places alone, and as wide as they are.
    fn angles(&self, value: &str, kind: &Kind) -> Option<usize> {
        let Kind::Local(atoms) = kind else { return None };
        let width = self.shape(value)?.last().filter(|dim| Known::is_fixed(dim)).map(Dim::factor)?;
        let is_as_wide =
            |step: &Step| matches!(step.op, Op::Angles { rotation, .. } if rotation.size == width);
        let is_of_places = !atoms.is_empty() && atoms.iter().all(|atom| atom.source == Source::Place);
        let may_be = is_of_places && self.graph.program.steps.iter().any(is_as_wide);
        (may_be && self.is_by_token(value, atoms)).then(|| self.runs.angles(value))?
    }

    /// Rows of what is made of places alone, such as cosines, picked by places: made of places
    /// again.
    fn by_place(&self, node: &Node, kinds: &[Option<Kind>], output: &str) -> Option<Kind> {
        let is_plain = |name: &str| node.int(name).ok().flatten().unwrap_or(0) == 0;
        let is_pick = match (node.domain.as_str(), node.op.as_str()) {
            ("", "Gather") => is_plain("axis"),
            ("", "GatherND") => is_plain("batch_dims"),
            _ => false,
        };
        let (Some(Some(Kind::Local(atoms))), true) = (kinds.get(1), is_pick) else { return None };
        let table = self.found.taken.iter().find(|taken| taken.value == node.inputs[0])?;
        let is_of_places = matches!(self.graph.program.steps[table.step].op, Op::Angles { .. });
        let by_places = !atoms.is_empty() && atoms.iter().all(|atom| atom.source == Source::Place);
        (is_of_places && table.from.is_none() && by_places).then(|| self.local(output, atoms.clone()))
    }

    fn made_by(&self, value: &str) -> Option<&'a Node> {
        self.found.producers.get(value).map(|&number| self.graph.nodes[number])
    }

    /// The nodes that take a value.
    fn takers(&self, value: &str) -> impl Iterator<Item = &'a Node> {
        let is_taker = move |node: &&&Node| node.inputs.iter().any(|input| input == value);
        self.graph.nodes.iter().filter(is_taker).copied().collect::<Vec<_>>().into_iter()
    }

    /// Whether the largest of something is only taken from it before an exponential.
    fn is_shift(&self, node: &Node, output: &str) -> bool {
        let x = &node.inputs[0];
        let is_exponent = |less: &Node| self.takers(&less.outputs[0]).all(|node| node.op == "Exp");
        let is_less =
            |less: &Node| less.op == "Sub" && less.inputs == [x.as_str(), output] && is_exponent(less);
        self.takers(output).all(is_less) && self.graph.outputs.iter().all(|spec| spec.name != output)
    }

    /// The axes that a reduction goes over, where they are known.
    pub(super) fn reduced(&self, node: &Node) -> Option<Vec<usize>> {
        let given = match node.inputs.get(1).filter(|name| !name.is_empty()) {
            Some(name) => self.graph.known.ints(name)?,
            None => node.ints("axes").ok().flatten().map(<[i64]>::to_vec).unwrap_or_default(),
        };
        let noop = node.int("noop_with_empty_axes").ok().flatten().unwrap_or(0) != 0;
        reduced_axes(&given, noop, self.shape(&node.inputs[0])?.len()).ok()
    }

    /// What an operator adds up over tokens.
    ///
    /// # Errors
    /// If it adds up over texts, or over something whose size nobody knows.
    fn sums(&self, node: &Node, class: Class) -> Result<Work, String> {
        let one = Work { sums: 1, ..Work::NONE };
        let shape = |at: usize| node.inputs.get(at).and_then(|name| self.shape(name)).unwrap_or_default();
        let int = |name: &str| node.int(name).ok().flatten();
        let over: Vec<&Dim> = match node.op.as_str() {
            "MatMul" | "FusedMatMul" => shape(0).last().into_iter().collect(),
            "Gemm" | "FusedGemm" => {
                shape(0).get(usize::from(int("transA").unwrap_or(0) == 0)).into_iter().collect()
            }
            "LayerNormalization" | "SkipLayerNormalization" | "Softmax" => {
                let rank = shape(0).len();
                let from = axis(int("axis").unwrap_or(-1), rank).ok_or("has no such axis")?;
                let until = if node.op == "Softmax" { from + 1 } else { rank };
                shape(0)[from..until].iter().collect()
            }
            "ReduceL2" | "ReduceMax" | "ReduceMean" | "ReduceSum" | "ReduceSumSquare" => {
                let axes = self.reduced(node).ok_or("reduces axes that are not known")?;
                axes.iter().filter_map(|&axis| shape(0).get(axis)).collect()
            }
            // One text of several is not to be picked, nor one token but by its place.
            "Gather" => {
                let along = axis(int("axis").unwrap_or(0), shape(0).len()).ok_or("has no such axis")?;
                let dim = &shape(0)[along];
                return match Known::is_fixed(dim) || self.graph.counts_tokens(dim) {
                    true => Ok(Work::NONE),
                    false => Err("picks texts".into()),
                };
            }
            _ => return Ok(Work::NONE),
        };
        let mut work = Work::NONE;
        for dim in over.into_iter().filter(|dim| !Known::is_fixed(dim)) {
            if !self.graph.counts_tokens(dim) {
                return Err("adds up over texts".into());
            }
            // A softmax is counted as a whole, and a largest is nothing.
            if node.op != "Softmax" && class != Class::Largest {
                work = work.and(one);
            }
        }
        Ok(work)
    }

    /// Whether nothing is done with a value but that something is divided by it.
    fn divides(&self, value: &str) -> bool {
        let is_view = |op: &str| matches!(op, "Expand" | "Identity" | "Reshape" | "Unsqueeze" | "Squeeze");
        let divides = |node: &Node| match node.op.as_str() {
            "Div" => node.inputs[0] != value,
            op => is_view(op) && node.inputs[0] == value && self.divides(&node.outputs[0]),
        };
        self.takers(value).all(divides) && self.graph.outputs.iter().all(|spec| spec.name != value)
    }

    /// The small number below which a node lets no length of a vector fall, if it does only that,
    /// for a division.
    fn floor(&self, node: &Node, output: &str) -> Option<f32> {
        let constant = |at: usize| {
            node.inputs.get(at).filter(|name| !name.is_empty()).and_then(|name| self.graph.known.float(name))
        };
        let written = |name: &str| node.float(name).ok().flatten();
        let (length, floor) = match node.op.as_str() {
            "Clip" => {
                let top = constant(2).or(written("max"));
                let is_open = top.is_none_or(|top| top == f32::MAX) && node.inputs.len() < 4;
                let is_given = node.inputs.get(2).is_some_and(|name| !name.is_empty());
                if !is_open || is_given && constant(2).is_none() {
                    return None;
                }
                (node.inputs.first()?, constant(1).or(written("min"))?)
            }
            "Max" => match &node.inputs[..] {
                [length, floor] if self.graph.known.is_constant(floor) => (length, constant(1)?),
                [floor, length] if self.graph.known.is_constant(floor) => (length, constant(0)?),
                _ => return None,
            },
            _ => return None,
        };
        let is_length = matches!(self.made_by(length)?.op.as_str(), "ReduceL2" | "Sqrt");
        (is_length && floor > 0.0 && floor <= SHORTEST && self.divides(output)).then_some(floor)
    }
}
