//! The graph from its inputs to its outputs, once, without running it.

use std::collections::{BTreeSet, HashMap, HashSet};

use architecture::{Activation, Op, Program, Step};
use engine::{Dim as SpecDim, ValueSpec};
use onnx_graph::shape::{Size as _, axis, permutation, reduced_axes};
use onnx_graph::{Node, dtype_of};
use onnx_session::compiled::{Dim, Known};

use super::kind::{Atom, Kind, Source, has_axis, moved, reshaped, settled};
use super::operators::{Class, Curves, class, is_by_row, is_elementwise, is_shape, is_sum};

/// The largest power in a formula of a model: GELU's x³.
const LARGEST_POWER: f32 = 3.0;

/// No vector that a model gives is as short as this. PyTorch keeps lengths from 1e-12, others from
/// 1e-9 or 1e-8, before they divide by them.
const SHORTEST: f32 = 1e-6;

/// A graph as it is walked.
pub(super) struct Graph<'a> {
    pub nodes: Vec<&'a Node>,
    pub inputs: &'a [ValueSpec],
    pub known: &'a Known,
    pub program: &'a Program,
    /// The inputs that are masks, by their numbers.
    pub masks: BTreeSet<Source>,
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
    /// Of each node that is a smooth function, how many curves it has.
    curves: HashMap<usize, Curves>,
    /// The node that makes a value.
    producers: HashMap<String, usize>,
}

/// Walks a graph. `anchors` are the values that may be what a step gives. `is_placeless` says of a
/// value whether it is the same wherever a token stands.
pub(super) fn walk(graph: &Graph, anchors: &Anchors, is_placeless: &dyn Fn(&str, &[Atom]) -> bool) -> Walked {
    let mut walker = Walker { graph, anchors, is_placeless, found: Walked::default() };
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
            if self.curves.get(&number).is_some_and(|curves| curves.bends) {
                found = Some(graph.nodes[number]);
            }
        });
        found.filter(|_| !allowed(graph.program, steps, &from).bends)
    }

    /// Shows the nodes that make a value of those that were taken for steps, and gives the steps.
    fn nodes_before(&self, graph: &Graph, value: &str, mut see: impl FnMut(usize)) -> BTreeSet<usize> {
        let (mut from, mut seen, mut open) = (BTreeSet::new(), HashSet::new(), vec![value]);
        while let Some(name) = open.pop() {
            let Some(&number) = self.producers.get(name).filter(|number| seen.insert(**number)) else {
                continue;
            };
            see(number);
            for input in graph.nodes[number].inputs.iter().filter(|name| !name.is_empty()) {
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
    /// them, and it has no more curves than are allowed, and bends only where it may.
    pub fn between(
        &self,
        graph: &Graph,
        value: &str,
        reached: &BTreeSet<Source>,
        allowed: impl Fn(&BTreeSet<usize>) -> Curves,
    ) -> Option<BTreeSet<usize>> {
        if !reached.is_subset(&graph.masks) {
            return None;
        }
        let mut curves = Curves::default();
        let from = self.nodes_before(graph, value, |number| {
            curves = curves.and(self.curves.get(&number).copied().unwrap_or_default());
        });
        curves.is_within(allowed(&from)).then_some(from)
    }
}

struct Walker<'a> {
    graph: &'a Graph<'a>,
    anchors: &'a Anchors,
    is_placeless: &'a dyn Fn(&str, &[Atom]) -> bool,
    found: Walked,
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

    fn local(&self, value: &str, atoms: Vec<Atom>) -> Kind {
        Kind::Local(settled(atoms, self.shape(value).unwrap_or_default()))
    }

    fn shape(&self, value: &str) -> Option<&'a [Dim]> {
        self.graph.known.shape(value)
    }

    fn kind(&self, value: &str) -> Kind {
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
        let Some(step) = step else { return kind };
        let from = match &kind {
            Kind::Local(atoms) => {
                let sources: BTreeSet<Source> = atoms.iter().map(|atom| atom.source).collect();
                if sources.iter().any(|source| self.graph.masks.contains(source))
                    || sources.len() > 1 && !self.is_blended(value)
                {
                    return kind;
                }
                None
            }
            Kind::Smooth(reached) => {
                let Some(from) = self
                    .found
                    .between(self.graph, value, reached, |from| allowed(self.graph.program, &[step], from))
                else {
                    return kind;
                };
                Some(from)
            }
            _ => return kind,
        };
        self.found.taken.push(Taken { value: value.into(), step, from });
        Kind::Smooth(BTreeSet::new())
    }

    /// The step that looks rows up by what a value is looked up by here.
    fn table(&self, node: &Node, kind: &Kind) -> Option<usize> {
        let (Kind::Local(atoms), "Gather") = (kind, node.op.as_str()) else { return None };
        let [Atom { source, .. }] = atoms[..] else { return None };
        let program = self.graph.program;
        let is_it = |step: &Step| match (&step.op, source) {
            (Op::Positions { .. }, Source::Place) => true,
            (Op::Embedding { .. }, Source::Input(input)) => {
                let name = step.inputs.first().and_then(|&wire| program.input_of(wire));
                name.is_some_and(|at| program.inputs[at].name == self.graph.inputs[input].name)
            }
            _ => false,
        };
        program.steps.iter().position(is_it)
    }

    /// Whether a value of several sources is a sum of what each makes, or a layer norm of it, so that
    /// it is enough to try each element of each once.
    fn is_blended(&self, value: &str) -> bool {
        let (mut seen, mut open) = (HashSet::new(), vec![value]);
        while let Some(name) = open.pop() {
            let Some(&number) = self.found.producers.get(name).filter(|number| seen.insert(**number)) else {
                continue;
            };
            let Kind::Local(atoms) = self.kind(name) else { continue };
            let node = self.graph.nodes[number];
            let sources: HashSet<Source> = atoms.iter().map(|atom| atom.source).collect();
            if sources.len() > 1 && !is_sum(node) {
                return false;
            }
            open.extend(node.inputs.iter().map(String::as_str));
        }
        true
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
                if sources.contains(&Source::Place) && (self.is_placeless)(value, atoms) {
                    sources.remove(&Source::Place);
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
            // Over the reals nothing is.
            return Ok(Kind::Local(Vec::new()));
        }
        let class = class(node).ok_or("is no operator that stands between steps of a model")?;
        if self.shape(output).is_none() {
            return Err(format!("gives '{output}', whose shape is not known before a run"));
        }
        let to_integers = node.op == "Cast"
            && node.int("to").ok().flatten().and_then(dtype_of).is_none_or(|dtype| !dtype.is_float());
        let varies = |at: usize| matches!(kinds.get(at), Some(Some(Kind::Smooth(_))));
        let decides = matches!(node.op.as_str(), "Gather") && varies(1) || node.op == "Where" && varies(0);
        if to_integers || decides {
            return Err("decides by values".into());
        }
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
            if exponent.is_none_or(|exponent| exponent.abs() > LARGEST_POWER) {
                return Err("takes a power that no formula has".into());
            }
        }
        let mut curves = class.curves(varies, kinds.len());
        if class == Class::Largest {
            self.found.idle.push(output.into());
        }
        if let Some(floor) = self.floor(node).filter(|_| curves.bends) {
            self.found.floors.push((node.name.clone(), floor));
            curves = Curves::default();
        }
        self.found.curves.insert(number, curves);
        Ok(Kind::Smooth(reached))
    }

    /// The small number below which a node lets no length of a vector fall, if it does only that.
    fn floor(&self, node: &Node) -> Option<f32> {
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
        let producer = self.graph.nodes[*self.found.producers.get(length)?];
        let is_length = matches!(producer.op.as_str(), "ReduceL2" | "Sqrt");
        (is_length && floor > 0.0 && floor <= SHORTEST).then_some(floor)
    }

    /// A node that depends on the inputs alone.
    fn of_inputs(
        &mut self,
        node: &Node,
        at: usize,
        kinds: &[Option<Kind>],
        output: &str,
    ) -> Result<Kind, String> {
        let unknown = || "computes with the inputs, in a way that is not followed".to_string();
        let shape = self.shape(output).ok_or_else(unknown)?;
        if kinds.iter().any(|kind| matches!(kind, Some(Kind::Counted(..)))) {
            return self.counted(node, kinds).ok_or_else(unknown);
        }
        let atoms = self.atoms(node, at, kinds, shape).map_err(|why| why.unwrap_or_else(unknown))?;
        match atoms {
            Some(atoms) => Ok(self.local(output, atoms)),
            None => self.sum_of_mask(node, kinds).ok_or_else(unknown),
        }
    }

    /// What is computed from how many real tokens a row has: the number itself, kept from 0, its root,
    /// and what is divided by these. Anything else could have a limit where nobody tries it.
    fn counted(&self, node: &Node, kinds: &[Option<Kind>]) -> Option<Kind> {
        let counted = |at: usize| match kinds.get(at) {
            Some(Some(Kind::Counted(sources, is_plain))) => Some((sources.clone(), *is_plain)),
            _ => None,
        };
        let floor = |at: usize| {
            let number = node.inputs.get(at).and_then(|name| self.graph.known.float(name));
            number.or(node.float("min").ok().flatten()).is_some_and(|floor| floor <= 1.0)
        };
        let no_top = node.inputs.get(2).is_none_or(String::is_empty) && !node.attributes.contains_key("max");
        let (sources, is_plain) = match (node.domain.as_str(), node.op.as_str()) {
            ("", "Cast" | "Expand" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze") => counted(0)?,
            ("", "Clip") => counted(0).filter(|(_, is_plain)| *is_plain && no_top && floor(1))?,
            ("", "Max") if kinds.len() == 2 => match (counted(0), counted(1)) {
                (Some(of), None) if of.1 && floor(1) => of,
                (None, Some(of)) if of.1 && floor(0) => of,
                _ => return None,
            },
            ("", "Reciprocal" | "Sqrt") => (counted(0)?.0, false),
            ("", "Div") => {
                let Some(Some(Kind::Local(atoms))) = kinds.first() else { return None };
                let own = atoms.iter().map(|atom| atom.source);
                (counted(1)?.0.into_iter().chain(own).collect(), false)
            }
            _ => return None,
        };
        sources.is_subset(&self.graph.masks).then_some(Kind::Counted(sources, is_plain))
    }

    /// The sum of a mask over the tokens.
    fn sum_of_mask(&self, node: &Node, kinds: &[Option<Kind>]) -> Option<Kind> {
        let Some(Some(Kind::Local(atoms))) = kinds.first() else { return None };
        let sources: BTreeSet<Source> = atoms.iter().map(|atom| atom.source).collect();
        (node.domain.is_empty() && node.op == "ReduceSum" && sources.is_subset(&self.graph.masks))
            .then_some(Kind::Counted(sources, true))
    }

    /// What each element depends on. `Ok(None)` where a sum is made over rows or tokens.
    fn atoms(
        &self,
        node: &Node,
        at: usize,
        kinds: &[Option<Kind>],
        shape: &[Dim],
    ) -> Result<Option<Vec<Atom>>, Option<String>> {
        let known = self.graph.known;
        let name = |at: usize| node.inputs.get(at).filter(|name| !name.is_empty());
        let of = |at: usize| match kinds.get(at) {
            Some(Some(Kind::Local(atoms))) => Some(&atoms[..]),
            Some(Some(Kind::Constant)) => Some(&[][..]),
            _ => None,
        };
        let first = || of(0).ok_or(None);
        let old = name(0).and_then(|name| self.shape(name)).ok_or(None);
        for (at, kind) in kinds.iter().enumerate() {
            if *kind == Some(Kind::Sizes) && !is_shape(node, at) {
                return Err(Some(format!("computes with a size, '{}'", node.inputs[at])));
            }
        }
        // The operands aligned at their last axes, as they are broadcast.
        let aligned = |count: usize| {
            let mut all = Vec::new();
            for at in 0..count {
                let (Some(name), Some(atoms)) = (name(at), of(at)) else { continue };
                let rank = self.shape(name).ok_or(None)?.len();
                let shift = shape.len().checked_sub(rank).ok_or(None)?;
                all.extend(moved(atoms, |axis| Some(axis + shift)).ok_or(None)?);
            }
            // Constants that are as long as a text is say where in it a token stands.
            let mut places: Vec<Atom> = Vec::new();
            for at in (0..count).filter(|&at| kinds.get(at) == Some(&Some(Kind::Constant))) {
                let dims = name(at).and_then(|name| self.shape(name)).ok_or(None)?;
                let shift = shape.len().checked_sub(dims.len()).ok_or(None)?;
                for axis in (0..dims.len()).filter(|&axis| !dims[axis].is_one()).map(|axis| axis + shift) {
                    if all.iter().any(|atom| atom.rows.contains(&axis)) {
                        return Err(None);
                    }
                    if all.iter().any(|atom| atom.token == Some(axis)) {
                        places.push(Atom { source: Source::Place, rows: Vec::new(), token: Some(axis) });
                    }
                }
            }
            all.extend(places);
            Ok(Some(all))
        };
        if is_elementwise(node) {
            return aligned(kinds.len());
        }
        if is_by_row(node) {
            let last = shape.len().checked_sub(1).ok_or(None)?;
            let all = aligned(kinds.len())?;
            return if all.iter().flatten().any(|atom| has_axis(std::slice::from_ref(atom), last)) {
                Err(None)
            } else {
                Ok(all)
            };
        }
        let int = |name: &str, default: i64| node.int(name).ok().flatten().unwrap_or(default);
        let kept = |moves: &dyn Fn(usize) -> Option<usize>| moved(first()?, moves).map(Some).ok_or(None);
        match (node.domain.as_str(), node.op.as_str()) {
            ("", "ConstantOfShape") => Ok(Some(Vec::new())),
            // Its shape is only known where it counts from 0 by 1.
            ("", "Range") => Ok(Some(vec![Atom { source: Source::Place, rows: Vec::new(), token: Some(0) }])),
            ("", "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze") => {
                reshaped(first()?, old?, shape).map(Some).ok_or(None)
            }
            ("", "Transpose") => {
                let perm = permutation(node.ints("perm").ok().flatten(), shape.len()).ok_or(None)?;
                kept(&|axis| perm.iter().position(|&from| from == axis))
            }
            ("", "Expand") => {
                let shift = shape.len().checked_sub(old?.len()).ok_or(None)?;
                kept(&|axis| Some(axis + shift))
            }
            ("", "Slice") => {
                let old = old?;
                if kinds.first() == Some(&Some(Kind::Constant)) {
                    // As much of a constant as there are tokens, from its start.
                    let open = (0..shape.len()).filter(|&axis| !Known::is_fixed(&shape[axis]));
                    let place = |axis| Atom { source: Source::Place, rows: Vec::new(), token: Some(axis) };
                    return Ok(Some(open.map(place).collect()));
                }
                kept(&|axis| (old.get(axis) == shape.get(axis)).then_some(axis))
            }
            ("", "Gather") => {
                let old = old?;
                let along = axis(int("axis", 0), old.len()).ok_or(None)?;
                let indices = self.shape(name(1).ok_or(None)?).ok_or(None)?.len();
                let mut all = moved(of(1).ok_or(None)?, |axis| Some(axis + along)).ok_or(None)?;
                all.extend(
                    moved(first()?, |axis| match axis.cmp(&along) {
                        std::cmp::Ordering::Less => Some(axis),
                        std::cmp::Ordering::Equal => None,
                        std::cmp::Ordering::Greater => (axis + indices).checked_sub(1),
                    })
                    .ok_or(None)?,
                );
                Ok(Some(all))
            }
            ("", "Concat") => {
                let along = axis(int("axis", 0), shape.len()).ok_or(None)?;
                let all = aligned(kinds.len())?;
                if all.iter().any(|atoms| has_axis(atoms, along)) { Err(None) } else { Ok(all) }
            }
            ("", "Split") => {
                let along = axis(int("axis", 0), shape.len()).ok_or(None)?;
                kept(&|axis| (axis != along).then_some(axis))
            }
            ("", "MatMul") if kinds.get(1) == Some(&Some(Kind::Constant)) => {
                let last = old?.len().checked_sub(1).ok_or(None)?;
                let plain = self.shape(name(1).ok_or(None)?).is_some_and(|dims| dims.len() == 2);
                kept(&|axis| (axis != last && plain).then_some(axis))
            }
            ("", "ReduceL2" | "ReduceMax" | "ReduceMean" | "ReduceSum") => {
                let old = old?;
                let given = match name(1) {
                    Some(name) => known.ints(name).ok_or(None)?,
                    None => node.ints("axes").ok().flatten().map(<[i64]>::to_vec).unwrap_or_default(),
                };
                let noop = int("noop_with_empty_axes", 0) != 0;
                let over = reduced_axes(&given, noop, old.len()).map_err(|_| None)?;
                if over.iter().any(|&axis| has_axis(first().unwrap_or_default(), axis)) {
                    return Ok(None);
                }
                let keep = int("keepdims", 1) != 0;
                kept(&|axis| {
                    Some(if keep { axis } else { axis - over.iter().filter(|&&o| o < axis).count() })
                })
            }
            ("com.microsoft", "EmbedLayerNormalization") if at != 1 => {
                let mut all = vec![Atom { source: Source::Place, rows: Vec::new(), token: Some(1) }];
                for ids in [0, 1, 8] {
                    all.extend(of(ids).unwrap_or_default().iter().cloned());
                }
                Ok(Some(all))
            }
            _ => Err(None),
        }
    }
}

/// How many curves these steps may be written with, made of those.
pub(super) fn allowed(program: &Program, steps: &[usize], from: &BTreeSet<usize>) -> Curves {
    let mut curves = Curves::default();
    for step in between(program, steps, from) {
        curves = curves.and(match &program.steps[step].op {
            Op::LayerNorm { .. } => Curves::NORM,
            Op::Attention { .. } => Curves::ATTENTION,
            Op::Activation { function, .. } => {
                Curves { bends: *function == Activation::Relu, ..Curves::ACTIVATION }
            }
            _ => Curves::default(),
        });
    }
    curves
}

/// The steps that these are made by, up to those.
pub(super) fn between(program: &Program, steps: &[usize], from: &BTreeSet<usize>) -> BTreeSet<usize> {
    let (mut seen, mut open) = (BTreeSet::new(), steps.to_vec());
    while let Some(step) = open.pop() {
        if !from.contains(&step) && seen.insert(step) {
            open.extend(program.steps[step].inputs.iter().filter_map(|wire| wire.step()));
        }
    }
    seen
}
