//! Values that are made of the inputs alone: what each of their elements depends on.

use std::collections::{BTreeSet, HashSet};

use architecture::{Op, Step};
use engine::DType;
use onnx_graph::shape::{Size as _, axis, permutation};
use onnx_graph::{Node, dtype_of};
use onnx_session::compiled::{Dim, Known};

use super::kind::{Atom, Kind, Source, has_axis, moved, reshaped};
use super::operators::{is_by_row, is_elementwise, is_shape, is_sum};
use super::walk::Walker;

impl Walker<'_> {
    /// A node that depends on the inputs alone.
    pub(super) fn of_inputs(
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
            // What tells tokens that pad from others says no more of them.
            Some(mut atoms) if self.is_about_padding(node, output, &atoms) => {
                atoms.iter_mut().for_each(|atom| atom.source = Source::Padding);
                Ok(self.local(output, atoms))
            }
            Some(atoms) => Ok(self.local(output, atoms)),
            None => self.sum_of_mask(node, kinds).ok_or_else(unknown),
        }
    }

    /// Whether a comparison of ids tells those that pad from all others.
    fn is_about_padding(&self, node: &Node, output: &str, atoms: &[Atom]) -> bool {
        let is_ids = |atom: &Atom| match atom.source {
            Source::Input(input) => self.graph.inputs[input].name == self.graph.program.inputs[0].name,
            Source::Place | Source::Padding | Source::Window(_) => false,
        };
        let is_asked =
            node.domain.is_empty() && node.op == "Equal" && self.graph.program.limits().padding.is_some();
        is_asked && !atoms.is_empty() && atoms.iter().all(is_ids) && self.runs.is_real(output).is_some()
    }

    /// Whether tokens that do not pad are counted along a text, up to each.
    fn counts_tokens(&self, node: &Node, atoms: &[Atom]) -> bool {
        let is_set = |name: &str| node.int(name).ok().flatten().unwrap_or(0) != 0;
        let (Some(operand), Some(along)) = (node.inputs.first(), node.inputs.get(1)) else { return false };
        let rank = self.shape(operand).map_or(0, <[Dim]>::len);
        let along = match self.graph.known.ints(along).as_deref() {
            Some(&[along]) => axis(along, rank),
            _ => None,
        };
        let is_right = |atom: &Atom| atom.source == Source::Padding && along.is_some() && atom.token == along;
        !is_set("exclusive")
            && !is_set("reverse")
            && !atoms.is_empty()
            && atoms.iter().all(is_right)
            && self.runs.is_real(operand) == Some(true)
    }

    /// What is computed from how many real tokens a row has: the number itself, kept from 0, its
    /// root, and what is divided by these. Anything else could have a limit where nobody tries it.
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
            ("", "Expand" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze") => counted(0)?,
            ("", "Cast") => {
                let to = node.int("to").ok().flatten().and_then(dtype_of)?;
                let holds_any = matches!(to, DType::F32 | DType::F64 | DType::I32 | DType::I64);
                counted(0).filter(|(_, is_plain)| holds_any && (*is_plain || to.is_float()))?
            }
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
        let over = self.reduced(node)?;
        let is_over_tokens = |atom: &Atom| over.len() == 1 && atom.token == over.first().copied();
        let sources: BTreeSet<Source> = atoms.iter().map(|atom| atom.source).collect();
        let is_sum = node.domain.is_empty() && node.op == "ReduceSum" && !sources.is_empty();
        (is_sum && atoms.iter().all(is_over_tokens) && sources.is_subset(&self.graph.masks))
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
        // Constants that are as long as a text is say where in it a token stands.
        let places = |operands: &[usize], all: &[Atom]| {
            let mut places: Vec<Atom> = Vec::new();
            for &at in operands.iter().filter(|&&at| kinds.get(at) == Some(&Some(Kind::Constant))) {
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
            Ok(places)
        };
        // The operands aligned at their last axes, as they are broadcast.
        let aligned = |count: usize| {
            let mut all = Vec::new();
            for at in 0..count {
                let (Some(name), Some(atoms)) = (name(at), of(at)) else { continue };
                let rank = self.shape(name).ok_or(None)?.len();
                let shift = shape.len().checked_sub(rank).ok_or(None)?;
                all.extend(moved(atoms, |axis| Some(axis + shift)).ok_or(None)?);
            }
            let operands: Vec<usize> = (0..count).collect();
            all.extend(places(&operands, &all)?);
            Ok(Some(all))
        };
        if is_elementwise(node) {
            return aligned(kinds.len());
        }
        if is_by_row(node) {
            let last = shape.len().checked_sub(1).ok_or(None)?;
            let all = aligned(kinds.len())?;
            return if all.iter().any(|atoms| has_axis(atoms, last)) { Err(None) } else { Ok(all) };
        }
        let int = |name: &str, default: i64| node.int(name).ok().flatten().unwrap_or(default);
        let kept = |moves: &dyn Fn(usize) -> Option<usize>| moved(first()?, moves).map(Some).ok_or(None);
        match (node.domain.as_str(), node.op.as_str()) {
            ("", "ConstantOfShape") => Ok(Some(Vec::new())),
            // Its shape is only known where it counts from 0 by 1.
            ("", "Range") if self.graph.counts_tokens(&shape[0]) => {
                Ok(Some(vec![Atom { source: Source::Place, rows: Vec::new(), token: Some(0) }]))
            }
            ("", "Einsum") if node.string("equation").ok().flatten() == Some("i,j->ij") => {
                let along =
                    |at: usize, by: usize| moved(of(at).ok_or(None)?, |axis| Some(axis + by)).ok_or(None);
                Ok(Some([along(0, 0)?, along(1, 1)?].concat()))
            }
            ("", "CumSum") => {
                let atoms = first()?;
                if self.counts_tokens(node, atoms) { Ok(Some(atoms.to_vec())) } else { Err(None) }
            }
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
                    let place = |axis: usize| {
                        let is_token = self.graph.counts_tokens(&shape[axis]);
                        is_token.then(|| Atom { source: Source::Place, rows: Vec::new(), token: Some(axis) })
                    };
                    return open.map(place).collect::<Option<Vec<_>>>().map(Some).ok_or(None);
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
            ("", "MatMul") => {
                // A sum over what is of one size, and neither rows nor tokens.
                let (left, right) = (old?, self.shape(name(1).ok_or(None)?).ok_or(None)?);
                if left.len() < 2 || right.len() < 2 || !left.last().is_some_and(Known::is_fixed) {
                    return Err(None);
                }
                let of_side = |at: usize, dims: &[Dim], summed: usize| {
                    let shift = shape.len().checked_sub(dims.len()).ok_or(None)?;
                    let atoms = of(at).ok_or(None)?;
                    moved(atoms, |axis| (axis != summed).then_some(axis + shift)).ok_or(None)
                };
                let mut all = of_side(0, left, left.len() - 1)?;
                all.extend(of_side(1, right, right.len() - 2)?);
                all.extend(places(&[0, 1], &all)?);
                Ok(Some(all))
            }
            ("", "ReduceL2" | "ReduceMax" | "ReduceMean" | "ReduceSum") => {
                let (old, over) = (old?, self.reduced(node).ok_or(None)?);
                // A sum over rows or tokens tells how many there are, whatever is added up.
                let counts =
                    |&axis: &usize| !Known::is_fixed(&old[axis]) || has_axis(of(0).unwrap_or_default(), axis);
                if over.iter().any(counts) {
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

    /// The step that looks rows up by what a value is looked up by here.
    pub(super) fn table(&self, node: &Node, kind: &Kind) -> Option<usize> {
        let (Kind::Local(atoms), "Gather") = (kind, node.op.as_str()) else { return None };
        let [Atom { source, .. }] = atoms[..] else { return None };
        let program = self.graph.program;
        let is_it = |step: &Step| match (&step.op, source) {
            (Op::Positions { padding: None, .. }, Source::Place) => true,
            (Op::Positions { padding: Some(_), .. }, Source::Padding) => true,
            (Op::Embedding { .. }, Source::Input(input)) => {
                let name = step.inputs.first().and_then(|&wire| program.input_of(wire));
                name.is_some_and(|at| program.inputs[at].name == self.graph.inputs[input].name)
            }
            _ => false,
        };
        program.steps.iter().position(is_it)
    }

    /// Whether a value is `[…, tokens, width]`, each token's elements made of the same token's ids,
    /// once of each input; and so that it may be what a table gives.
    pub(super) fn is_by_token(&self, value: &str, atoms: &[Atom]) -> bool {
        let shape = self.shape(value).unwrap_or_default();
        let Some(last) = shape.len().checked_sub(1) else { return false };
        // Axes that are always 1 may stand anywhere: tokens are counted by the last that is not.
        let wide: Vec<usize> = (0..last).filter(|&axis| !shape[axis].is_one()).collect();
        let (token, rows) = match (wide.split_last(), atoms.iter().any(|atom| atom.token.is_some())) {
            (Some((token, rows)), true) => (Some(*token), rows),
            _ => (None, &wide[..]),
        };
        let is_there = |atom: &Atom| {
            let rows_fit = match atom.source {
                Source::Place | Source::Window(_) => atom.rows.is_empty(),
                Source::Input(_) | Source::Padding => atom.rows == rows,
            };
            rows_fit && atom.token == token && !self.graph.masks.contains(&atom.source)
        };
        let sources: BTreeSet<Source> = atoms.iter().map(|atom| atom.source).collect();
        sources.len() == atoms.len() && !atoms.is_empty() && atoms.iter().all(is_there)
    }

    /// Whether a value is `[tokens, tokens, heads]`, made of the places of two tokens and of
    /// nothing else.
    pub(super) fn is_by_pair(&self, value: &str, atoms: &[Atom]) -> bool {
        let shape = self.shape(value).unwrap_or_default();
        let is_there = |axis: usize| {
            let is_it = |atom: &Atom| atom.source == Source::Place && atom.token == Some(axis);
            shape[axis].is_one() || atoms.iter().any(is_it)
        };
        shape.len() == 3
            && atoms
                .iter()
                .all(|atom| atom.source == Source::Place && atom.token.is_some_and(|axis| axis < 2))
            && is_there(0)
            && is_there(1)
    }

    /// Whether a value of several sources is a sum of what each makes, or a layer norm of it, so
    /// that it is enough to try each element of each once.
    pub(super) fn is_blended(&self, value: &str) -> bool {
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
}
