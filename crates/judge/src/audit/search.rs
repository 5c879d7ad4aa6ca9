//! Which tensor of the graph carries which of the checkpoint: first those that fit element by element, then the nearest.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use engine::DType;

use super::carriers::Carrier;
use super::data::{Distance, PRODUCTS, Placement, Rule, matches, measure};
use super::flow::Flow;
use super::layout::layouts;
use super::places::{depth, place};
use super::weights::{Block, Weight};
use super::{Cast, Expect, Layout};

/// A tensor of which this part of the elements is still there was changed, and is no other one. Between two tensors that have nothing to do
/// with each other hardly an element is equal, but for those that are 0 or 1 everywhere, which are told by their names and places.
const MOSTLY_EQUAL: f64 = 0.5;

/// The sine of the angle between two tensors: about 1 for those that have nothing to do with each other, 0 for multiples. Noise that leaves a
/// model at all usable is far below this.
const NEAR: f64 = 0.5;

/// As many elements are looked at to find the nearest of many tensors; then all of the one that was found.
const SAMPLE: usize = 4096;

/// One tensor of the checkpoint found in one of the graph; both by index.
pub(super) struct Match {
    pub weight: usize,
    pub carrier: usize,
    pub layout: Layout,
    pub placement: Placement,
    /// By what exporters folded into it.
    pub factor: Option<f64>,
    pub cast: Option<Cast>,
    /// The tensor whose row was added to each of its rows, and which row.
    pub plus: Option<(usize, usize)>,
    pub distance: Distance,
    /// Several tensors have the same elements, and nothing tells which of them this one is.
    pub shared: bool,
    /// The elements of its other orientation are the same: a symmetric matrix.
    pub symmetric: bool,
    /// What every element was multiplied with, of a tensor that differs.
    pub other_factor: Option<f64>,
}

/// Where a search stands.
pub(super) struct Search<'a> {
    pub weights: &'a [Weight],
    pub carriers: &'a [Carrier],
    pub matches: Vec<Match>,
    /// The factors that exporters fold into a query's or key's weight: `d^±½`, `d^±¼`.
    pub factors: Vec<f64>,
    pub expect: Expect,
    /// Which weights were found, and which of them for sure.
    found: Vec<bool>,
    sure: Vec<bool>,
    /// What was found in each carrier.
    taken: Vec<Vec<Placement>>,
}

/// A way in which a weight fits, found and not yet chosen.
#[derive(Clone, Copy)]
struct Fit<'a> {
    weight: usize,
    layout: Layout,
    placement: Placement,
    rule: Rule<'a>,
    plus: Option<(usize, usize)>,
}

impl<'a> Search<'a> {
    pub fn new(weights: &'a [Weight], carriers: &'a [Carrier], factors: Vec<f64>, expect: Expect) -> Self {
        let (found, taken) = (vec![false; weights.len()], vec![Vec::new(); carriers.len()]);
        Self { weights, carriers, matches: Vec::new(), factors, expect, sure: found.clone(), found, taken }
    }

    /// Everything whose elements are all what they should be.
    pub fn exact(&mut self) {
        // By the graph's tensor and the place in it.
        let mut groups: BTreeMap<(usize, usize), Vec<Fit>> = BTreeMap::new();
        for (at, carrier) in self.carriers.iter().enumerate() {
            for fit in self.fits(carrier) {
                groups.entry((at, fit.placement.offset)).or_default().push(fit);
            }
        }
        // Of several tensors with the same elements, the one that names speak of.
        let chosen = |at: usize, group: &[Fit]| {
            let first = group.first()?.weight;
            let alone = group.iter().all(|fit| fit.weight == first);
            let hint = self.carriers[at].hint();
            if alone { Some(first) } else { hint.filter(|&hint| group.iter().any(|fit| fit.weight == hint)) }
        };
        let decided: Vec<Option<usize>> = groups.iter().map(|(&(at, _), group)| chosen(at, group)).collect();
        let mut found = vec![false; self.weights.len()];
        decided.iter().flatten().for_each(|&weight| found[weight] = true);
        for (((at, _), group), decided) in groups.into_iter().zip(decided) {
            let any_used = group.iter().any(|fit| self.weights[fit.weight].is_used());
            for fit in group {
                let open = decided.is_none() && self.weights[fit.weight].is_used() == any_used;
                let lost = !found[fit.weight] && self.weights[fit.weight].is_used();
                if decided == Some(fit.weight) || open || lost {
                    self.add(at, fit, decided != Some(fit.weight));
                }
            }
        }
    }

    /// The ways in which weights fit a tensor exactly, one for each weight and part.
    fn fits(&self, carrier: &'a Carrier) -> Vec<Fit<'a>> {
        let mut fits = Vec::new();
        for (index, weight) in self.weights.iter().enumerate() {
            let mut places: Vec<usize> = Vec::new();
            for (layout, placement) in layouts(weight, carrier) {
                if places.contains(&placement.offset) && !matches!(layout, Layout::Transposed) {
                    continue;
                }
                let fits_by = |rule: &Rule| matches(&weight.elements, &carrier.elements, placement, *rule);
                if let Some(rule) = self.rules(carrier).into_iter().find(|rule| fits_by(rule)) {
                    places.push(placement.offset);
                    fits.push(Fit { weight: index, layout, placement, rule, plus: None });
                }
            }
        }
        // What is a whole tensor is not taken for parts of others, as a vector of zeros could be.
        let whole = |fit: &Fit| fit.placement.len() == carrier.elements.len();
        if fits.iter().any(whole) {
            fits.retain(whole);
        }
        if fits.is_empty() && carrier.grid.is_none() {
            fits = self.folded(carrier);
        }
        fits
    }

    /// What the elements may be, by the dtype and by what the user expects.
    fn rules(&self, carrier: &'a Carrier) -> Vec<Rule<'a>> {
        if let Some(grid) = &carrier.grid {
            return vec![Rule::Grid(grid)];
        }
        match (carrier.dtype, self.expect) {
            (DType::F16, _) => vec![Rule::Cast(Cast::F16)],
            (DType::BF16, _) => vec![Rule::Cast(Cast::BF16)],
            (_, Expect::F16) => vec![Rule::Same, Rule::Cast(Cast::F16), Rule::Cast(Cast::BF16)],
            _ => vec![Rule::Same],
        }
    }

    /// A scale folded into a query or key; a token type's row folded into the positions.
    fn folded(&self, carrier: &'a Carrier) -> Vec<Fit<'a>> {
        let mut fits = Vec::new();
        for (index, weight) in self.weights.iter().enumerate().filter(|(_, weight)| weight.is_used()) {
            for (layout, placement) in layouts(weight, carrier) {
                let mut push = |rule: Rule<'a>, plus| {
                    let fits_by = matches(&weight.elements, &carrier.elements, placement, rule);
                    if fits_by {
                        fits.push(Fit { weight: index, layout, placement, rule, plus });
                    }
                    fits_by
                };
                if weight.takes_scale() {
                    let ways =
                        self.factors.iter().flat_map(|&factor| (0..PRODUCTS).map(move |way| (factor, way)));
                    for (factor, way) in ways {
                        if push(Rule::Factor(factor, way), None) {
                            break;
                        }
                    }
                } else if weight.is_of(Block::Positions) {
                    let types = self.weights.iter().position(|weight| weight.is_of(Block::Types));
                    let Some(types) = types else { continue };
                    let table = &self.weights[types];
                    for (row, elements) in table.elements.chunks(table.columns.max(1)).enumerate() {
                        if push(Rule::Plus(elements), Some((types, row))) {
                            break;
                        }
                    }
                }
            }
        }
        fits
    }

    fn add(&mut self, at: usize, fit: Fit<'a>, shared: bool) {
        let carrier = &self.carriers[at];
        let weight = &self.weights[fit.weight];
        let known = self.matches.iter_mut().find(|found| {
            found.carrier == at
                && found.weight == fit.weight
                && found.placement.offset == fit.placement.offset
        });
        if let Some(known) = known {
            // The same elements in both orientations.
            known.symmetric = true;
            return;
        }
        let distance = measure(&weight.elements, &weight.shape, &carrier.elements, fit.placement, fit.rule);
        let (factor, cast) = match fit.rule {
            Rule::Factor(factor, _) => (Some(factor), None),
            Rule::Cast(cast) => (None, Some(cast)),
            _ => (None, None),
        };
        self.found[fit.weight] = true;
        self.sure[fit.weight] |= !shared;
        self.taken[at].push(fit.placement);
        self.matches.push(Match {
            weight: fit.weight,
            carrier: at,
            layout: fit.layout,
            placement: fit.placement,
            factor,
            cast,
            plus: fit.plus,
            distance,
            shared,
            symmetric: false,
            other_factor: None,
        });
    }

    /// Whether no tensor was found where this one would lie.
    fn is_free(&self, at: usize, placement: Placement) -> bool {
        let whole = |placement: Placement| placement.len() == self.carriers[at].elements.len();
        self.taken[at]
            .iter()
            .all(|&taken| !whole(taken) && !whole(placement) && taken.offset != placement.offset)
    }

    /// Tensors that are still without an origin, as changed copies of the checkpoint's: by their elements, and by names.
    pub fn nearest(&mut self) {
        struct Candidate<'a> {
            at: usize,
            fit: Fit<'a>,
            named: bool,
            equal: f64,
            far: f64,
        }
        let mut candidates = Vec::new();
        for (at, carrier) in self.carriers.iter().enumerate() {
            let Some(&rule) = self.rules(carrier).first() else { continue };
            for (weight, tensor) in self.weights.iter().enumerate() {
                for (layout, placement) in layouts(tensor, carrier) {
                    if !self.is_free(at, placement) {
                        continue;
                    }
                    // Something near a node of a tensor's module need not be that tensor, if that is known to be elsewhere.
                    let named =
                        carrier.named == Some(weight) || carrier.scoped == Some(weight) && !self.sure[weight];
                    let (equal, far) = if carrier.uniform {
                        (0.0, f64::INFINITY)
                    } else {
                        sample(&tensor.elements, &carrier.elements, placement, rule)
                    };
                    let near = far <= NEAR && !self.found[weight];
                    if equal >= MOSTLY_EQUAL || near || named {
                        let fit = Fit { weight, layout, placement, rule, plus: None };
                        candidates.push(Candidate { at, fit, named, equal, far });
                    }
                }
            }
        }
        candidates.sort_by(|a, b| {
            let rank = |c: &Candidate| (c.equal >= MOSTLY_EQUAL, c.named);
            rank(b).cmp(&rank(a)).then(b.equal.total_cmp(&a.equal)).then(a.far.total_cmp(&b.far))
        });
        for Candidate { at, fit, named, equal, .. } in candidates {
            let again = self.found[fit.weight] && !named && equal < MOSTLY_EQUAL;
            if self.is_free(at, fit.placement) && !again {
                self.add_differing(at, fit);
            }
        }
    }

    /// What is neither equal nor near nor named: tensors that are left over on both sides, where one fits the other's place: see
    /// [`place`].
    pub fn eliminate(&mut self, flow: &Flow) {
        let missing: Vec<usize> =
            (0..self.weights.len()).filter(|&at| self.weights[at].is_used() && !self.found[at]).collect();
        let anchors: Vec<(Option<usize>, usize)> = self
            .matches
            .iter()
            .filter(|found| !found.shared && self.weights[found.weight].stage.is_some())
            .filter_map(|found| {
                Some((self.weights[found.weight].stage, depth(flow, &self.carriers[found.carrier])?))
            })
            .collect();
        // What has the shape of a tensor is not taken for two others.
        let joined: Vec<bool> = self
            .carriers
            .iter()
            .map(|carrier| {
                let size = carrier.elements.len();
                let whole = |weight: &Weight| {
                    let mut layouts = layouts(weight, carrier).into_iter();
                    weight.is_used()
                        && layouts
                            .any(|at| at.1.len() == size && place(flow, weight, carrier, at.0).is_some())
                };
                !self.weights.iter().any(whole)
            })
            .collect();
        for &weight in &missing {
            let tensor = &self.weights[weight];
            if self.found[weight] {
                continue;
            }
            let earlier = anchors.iter().filter(|anchor| anchor.0 < tensor.stage).map(|anchor| anchor.1);
            let later = anchors.iter().filter(|anchor| anchor.0 > tensor.stage).map(|anchor| anchor.1);
            let window = earlier.max().unwrap_or(0)..=later.min().unwrap_or(usize::MAX);
            let alike = |other: &Weight| other.shape == tensor.shape && other.is_used();
            let rivals = missing.iter().copied().filter(|&at| {
                alike(&self.weights[at]) && self.weights[at].stage == tensor.stage && !self.found[at]
            });
            let rivals: Vec<usize> = rivals.collect();
            let places = self.places(flow, tensor, &joined, window);
            if places.len() == rivals.len() {
                self.pair(&rivals, &places);
                continue;
            }
            // Nothing of this shape was found at all: another model. Both sides in the order of execution.
            let known = self.weights.iter().zip(&self.sure).any(|(other, &sure)| alike(other) && sure);
            if !known {
                let all: Vec<usize> = missing
                    .iter()
                    .copied()
                    .filter(|&at| alike(&self.weights[at]) && !self.found[at])
                    .collect();
                let places = self.places(flow, tensor, &joined, 0..=usize::MAX);
                self.pair(&all, &places);
            }
        }
    }

    /// Where a tensor could lie, in the order of execution; parts only of what is `joined`.
    fn places(
        &self,
        flow: &Flow,
        tensor: &Weight,
        joined: &[bool],
        window: RangeInclusive<usize>,
    ) -> Vec<(usize, Layout, Placement)> {
        let mut places: Vec<(usize, usize, Layout, Placement)> = Vec::new();
        for (at, carrier) in self.carriers.iter().enumerate() {
            let mut offsets = BTreeSet::new();
            for (layout, placement) in layouts(tensor, carrier) {
                let fits = joined[at] || placement.len() == carrier.elements.len();
                let place = place(flow, tensor, carrier, layout).filter(|depth| window.contains(depth));
                let Some(depth) = place.filter(|_| fits && self.is_free(at, placement)) else { continue };
                if offsets.insert(placement.offset) {
                    places.push((depth, at, layout, placement));
                }
            }
        }
        places.sort_by_key(|&(depth, at, _, placement)| (depth, at, placement.offset));
        places.into_iter().map(|(_, at, layout, placement)| (at, layout, placement)).collect()
    }

    fn pair(&mut self, weights: &[usize], places: &[(usize, Layout, Placement)]) {
        for (&weight, &(at, layout, placement)) in weights.iter().zip(places) {
            if let Some(&rule) = self.rules(&self.carriers[at]).first() {
                self.add_differing(at, Fit { weight, layout, placement, rule, plus: None });
            }
        }
    }

    fn add_differing(&mut self, at: usize, fit: Fit<'a>) {
        let (weight, carrier) = (&self.weights[fit.weight], &self.carriers[at]);
        let factor = ratio(&weight.elements, &carrier.elements, fit.placement);
        self.add(at, fit, false);
        if let Some(added) = self.matches.last_mut() {
            added.other_factor = factor;
        }
    }
}

/// The part of the elements that are right, and the sine of the angle between both tensors, over a sample.
fn sample(weight: &[f32], held: &[f32], placement: Placement, rule: Rule) -> (f64, f64) {
    let stride = (placement.len() / SAMPLE).max(1);
    // A stride that shares a factor with the number of columns would look at a few columns only.
    let stride = if stride > 1 { stride | 1 } else { 1 };
    let (mut count, mut equal) = (0usize, 0usize);
    let (mut product, mut of_weight, mut of_found) = (0f64, 0f64, 0f64);
    for flat in (0..placement.len()).step_by(stride) {
        let (row, column) = (flat / placement.columns, flat % placement.columns);
        let w = (placement.first_row + row) * placement.columns + column;
        let g = placement.offset + row * placement.row_step + column * placement.column_step;
        let (Some(&weight), Some(&found)) = (weight.get(w), held.get(g)) else { continue };
        count += 1;
        equal += usize::from(rule.holds(weight, found, column, g));
        let (weight, found) = (f64::from(weight), f64::from(found));
        if weight.is_finite() && found.is_finite() {
            product += weight * found;
            of_weight += weight * weight;
            of_found += found * found;
        }
    }
    let cosine = product / (of_weight * of_found).sqrt();
    (equal as f64 / count.max(1) as f64, (1.0 - cosine * cosine).max(0.0).sqrt())
}

/// What every element was multiplied with, if it is the same for all: two f32 roundings apart at most.
fn ratio(weight: &[f32], held: &[f32], placement: Placement) -> Option<f64> {
    let mut ratio = None;
    for (w, g) in placement.pairs() {
        let (weight, found) = (f64::from(*weight.get(w)?), f64::from(*held.get(g)?));
        if weight == 0.0 && found == 0.0 {
            continue;
        }
        let ratio = *ratio.get_or_insert(found / weight);
        if !f64::is_finite(ratio)
            || (found - ratio * weight).abs() > 2.0 * f64::from(f32::EPSILON) * found.abs()
        {
            return None;
        }
    }
    ratio.filter(|&ratio| ratio != 1.0)
}
