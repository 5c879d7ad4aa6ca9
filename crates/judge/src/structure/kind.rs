//! What a value of a graph depends on, whatever the inputs are.

use std::collections::BTreeSet;

use onnx_graph::shape::Size as _;
use onnx_session::compiled::Dim;

/// Something of the inputs that a value may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    /// The elements of an input of the graph, by its number.
    Input(usize),
    /// Where in its text a token stands.
    Place,
    /// Whether a token is one that pads, by its id, and how many up to it do not.
    Padding,
    /// Whether two tokens stand no further apart.
    Window(usize),
}

/// What each element of a value depends on: the element of an input that has the same row and the
/// same token, or that token's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Atom {
    pub source: Source,
    /// The axes of the value that count rows. None of them is always 1.
    pub rows: Vec<usize>,
    /// The axis that counts tokens; none where there is always one.
    pub token: Option<usize>,
}

impl Atom {
    /// The axes that it is about.
    fn axes(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().copied().chain(self.token)
    }
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// It does not depend on the inputs.
    Constant,
    /// Sizes, which are known as products of the inputs' dimensions.
    Sizes,
    /// Each element depends on these and on nothing else: neither on other tokens nor on how many
    /// there are.
    Local(Vec<Atom>),
    /// It is made of how many real tokens a row has; whether it is that number, as far as it is not
    /// 0.
    Counted(BTreeSet<Source>, bool),
    /// A smooth function of values that match the model's, and of what else reaches it.
    Smooth(BTreeSet<Source>),
    /// Nobody knows; the number of the reason.
    Unexplained(usize),
}

/// Atoms of a value of this shape as they are compared: without axes that are always 1, each once.
/// A token's place says nothing where there is always one.
pub(super) fn settled(mut atoms: Vec<Atom>, shape: &[Dim]) -> Vec<Atom> {
    let is_one = |axis: usize| shape.get(axis).is_some_and(|dim| dim.is_one());
    for atom in &mut atoms {
        atom.rows.retain(|&axis| !is_one(axis));
        atom.token = atom.token.filter(|&axis| !is_one(axis));
    }
    atoms.retain(|atom| atom.source != Source::Place || atom.token.is_some());
    atoms.sort();
    atoms.dedup();
    atoms
}

/// Atoms with their axes where `moved` says; nothing if one of them goes nowhere.
pub(super) fn moved(atoms: &[Atom], moved: impl Fn(usize) -> Option<usize>) -> Option<Vec<Atom>> {
    let atom = |atom: &Atom| {
        let mut rows = atom.rows.iter().map(|&axis| moved(axis)).collect::<Option<Vec<_>>>()?;
        rows.sort_unstable();
        let token = match atom.token {
            Some(axis) => Some(moved(axis)?),
            None => None,
        };
        Some(Atom { source: atom.source, rows, token })
    };
    atoms.iter().map(atom).collect()
}

/// Whether some atom is about an axis.
pub(super) fn has_axis(atoms: &[Atom], axis: usize) -> bool {
    atoms.iter().any(|atom| atom.axes().any(|own| own == axis))
}

/// Atoms after the elements have been laid out under another shape, in the same order; nothing
/// where rows and tokens would be cut or mixed.
pub(super) fn reshaped(atoms: &[Atom], old: &[Dim], new: &[Dim]) -> Option<Vec<Atom>> {
    let groups = groups(old, new)?;
    let of = |axis: usize| groups.iter().find(|(from, _)| from.contains(&axis));
    let mut all = Vec::with_capacity(atoms.len());
    for Atom { source, rows, token } in atoms {
        let token = match token {
            // It must stay an axis of its own.
            Some(axis) => match of(*axis)? {
                (from, to) if from.len() == 1 && to.len() == 1 => Some(to[0]),
                _ => return None,
            },
            None => None,
        };
        let mut to_rows = Vec::new();
        for row in rows {
            let (from, to) = of(*row)?;
            if !from.iter().all(|axis| rows.contains(axis)) {
                return None;
            }
            to_rows.extend(to);
        }
        to_rows.sort_unstable();
        to_rows.dedup();
        all.push(Atom { source: *source, rows: to_rows, token });
    }
    Some(all)
}

/// The smallest runs of axes of two shapes that hold the same elements in the same order. Axes that
/// are always 1 are in none.
fn groups(old: &[Dim], new: &[Dim]) -> Option<Vec<(Vec<usize>, Vec<usize>)>> {
    let wide = |dims: &[Dim]| -> Vec<usize> { (0..dims.len()).filter(|&at| !dims[at].is_one()).collect() };
    let (old_axes, new_axes) = (wide(old), wide(new));
    let (mut from, mut to) = (old_axes.into_iter().peekable(), new_axes.into_iter().peekable());
    let mut groups = Vec::new();
    while from.peek().is_some() || to.peek().is_some() {
        let (a, b) = (from.next()?, to.next()?);
        let (mut left, mut right) = (old[a].clone(), new[b].clone());
        let (mut own, mut other) = (vec![a], vec![b]);
        while left != right {
            // The side that lacks a factor takes its next axis.
            if left.divided(&right).is_some() {
                let axis = to.next()?;
                right = right.times(&new[axis])?;
                other.push(axis);
            } else {
                let axis = from.next()?;
                left = left.times(&old[axis])?;
                own.push(axis);
            }
        }
        groups.push((own, other));
    }
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims() -> [Dim; 4] {
        [Dim::symbol(0), Dim::symbol(1), Dim::fixed(12), Dim::fixed(1)]
    }

    fn atom(rows: &[usize], token: usize) -> Atom {
        Atom { source: Source::Input(0), rows: rows.to_vec(), token: Some(token) }
    }

    #[test]
    fn rows_and_tokens_stay_apart_under_another_shape() {
        let [b, s, n, one] = dims();
        let of = |old: &[&Dim], new: &[&Dim], own: Atom| {
            let [old, new] = [old, new].map(|dims| dims.iter().map(|&dim| dim.clone()).collect::<Vec<_>>());
            reshaped(&[own], &old, &new)
        };
        assert_eq!(of(&[&b, &s], &[&b, &one, &one, &s], atom(&[0], 1)), Some(vec![atom(&[0], 3)]));
        assert_eq!(of(&[&b, &s, &n], &[&b, &s, &one, &n], atom(&[0], 1)), Some(vec![atom(&[0], 1)]));
        // Choices are rows.
        let rows = b.times(&n).unwrap();
        assert_eq!(of(&[&b, &n, &s], &[&rows, &s], atom(&[0, 1], 2)), Some(vec![atom(&[0], 1)]));
        assert_eq!(of(&[&rows, &s], &[&b, &n, &s], atom(&[0], 1)), Some(vec![atom(&[0, 1], 2)]));
        // Tokens of all rows on one axis, and rows where tokens were.
        let all = b.times(&s).unwrap();
        assert_eq!(of(&[&b, &s], &[&all], atom(&[0], 1)), None);
        assert_eq!(of(&[&b, &s], &[&s, &b], atom(&[0], 1)), None);
        assert_eq!(of(&[&b, &n, &s], &[&rows, &s], atom(&[0], 2)), None);
    }

    #[test]
    fn a_single_token_has_no_place() {
        let [b, _, n, one] = dims();
        let place = Atom { source: Source::Place, rows: Vec::new(), token: Some(1) };
        assert_eq!(settled(vec![place.clone()], &[b.clone(), one]), []);
        assert_eq!(settled(vec![place.clone(), place.clone()], &[b, n]), [place]);
    }
}
