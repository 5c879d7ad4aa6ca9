//! Where two graphs part.
//!
//! Every value of one graph is looked for among the other's, by its elements in f64, in whatever order of axes. What an optimizer leaves alone or fuses is
//! there; what it arranges otherwise is not, but whatever is computed from it is. A value of the second graph that is not there, and from which a way
//! leads to a wrong output past nothing that is, may be wrong. (That something that follows from it is there says little: a softmax that picks one
//! token is the same for many scores.) The culprit is the first of them in whose place a value of the first graph makes later ones right. It stays
//! there, so that what comes after it can be judged by itself.

use std::collections::{HashMap, HashSet};

use engine::{EngineError, NamedValues, Value};
use onnx_eval::Oracle;
use report::Culprit;

use super::orders::orders;
use crate::ParityError;
use crate::blame::graph::{Found, Graph, Tried, Values, most_right};
use crate::blame::layout::{Layout, Layouts};
use crate::inputs::Case;

/// How far two values may be apart and be the same, relative to the largest element where that is above 1. Two correct graphs come to 1e-13 on a stiff
/// model, and one wrong bit in one f32 weight is 1e-9 and more.
const SAME: f64 = 1e-11;

/// How many values of the first graph are tried in the place of one of the second: the nearest, and the first in the order of execution, since
/// what belongs there follows soon after what both graphs still have in common. Each costs a run.
const NEAREST: usize = 4;
const FIRST: usize = 8;

/// A value that is this near, as the mean square over that of the value itself, and makes later ones right is taken without a look at others.
const NEAR: f64 = 1e-2;

/// As many nodes of the first graph are named for a culprit.
const NAMED: usize = 8;

/// How many runs a search may take. A culprit takes one or two where its own value is wrong alone.
const MOST_RUNS: usize = 300;

/// The values from which, over however many nodes, something follows that is good.
fn leading<'a>(graph: &Graph<'a>, good: impl Fn(&str) -> bool) -> HashSet<&'a str> {
    let mut leading = HashSet::new();
    for node in graph.nodes.iter().rev() {
        if node.outputs.iter().any(|output| good(output) || leading.contains(output.as_str())) {
            leading.extend(node.inputs.iter().map(String::as_str));
        }
    }
    leading
}

/// The values from which a way leads to one that is `wrong`, past none that is `right`; the wrong
/// ones with them.
fn on_the_way<'a>(
    graph: &Graph<'a>,
    wrong: impl Fn(&str) -> bool,
    right: impl Fn(&str) -> bool,
) -> HashSet<&'a str> {
    let mut open: HashSet<&str> = graph.names.iter().copied().filter(|name| wrong(name)).collect();
    for node in graph.nodes.iter().rev() {
        if node.outputs.iter().any(|output| open.contains(output.as_str())) {
            open.extend(node.inputs.iter().map(String::as_str).filter(|input| !right(input)));
        }
    }
    open
}

/// Finds the nodes of the second graph that compute something else than the first on an input.
///
/// # Errors
/// If one of them does not take the input, or fails on it.
pub(super) fn culprits(raw: &Oracle, optimised: &Oracle, case: &Case) -> Result<Vec<Culprit>, ParityError> {
    let case = with_tokens_in_all_rows(case);
    let (raw, optimised) = (Graph::new(raw, &case.inputs)?, Graph::new(optimised, &case.inputs)?);
    let of_raw = raw.run(&NamedValues::new())?;
    let mut by_size: HashMap<usize, Vec<&str>> = HashMap::new();
    for &name in &raw.names {
        if let Some(found) = of_raw.get(name) {
            by_size.entry(found.data.len()).or_default().push(name);
        }
    }
    let search = Search { raw, of_raw: &of_raw, by_size, optimised, orders: Layouts::new(&orders) };
    Ok(search.all()?)
}

/// The same input with a full mask for rows that have no real token: such rows never decide, and two correct graphs may differ there.
fn with_tokens_in_all_rows(case: &Case) -> Case {
    let mut case = case.clone();
    let filled = || {
        let mask = case.inputs.get("attention_mask")?;
        let &[.., sequence] = mask.shape() else { return None };
        let mut bits = mask.as_slice::<i64>().ok()?.to_vec();
        bits.chunks_mut(sequence.max(1)).filter(|row| !row.contains(&1)).for_each(|row| row.fill(1));
        Value::new(mask.shape(), bits).ok()
    };
    if let Some(mask) = filled() {
        case.inputs.insert("attention_mask", mask);
    }
    case
}

struct Search<'a> {
    raw: Graph<'a>,
    of_raw: &'a Values,
    /// The first graph's values by their number of elements, in the order of execution.
    by_size: HashMap<usize, Vec<&'a str>>,
    optimised: Graph<'a>,
    orders: Layouts<'a>,
}

/// What of both graphs is in the other.
struct Aligned<'a> {
    of_raw: HashSet<&'a str>,
    of_optimised: HashSet<&'a str>,
}

/// A value of the second graph that is wrong, and the one of the first that belongs there.
struct Parted<'a> {
    value: &'a str,
    raw: Option<&'a str>,
    max_abs: Option<f64>,
}

/// A value of the first graph that may belong in a place of the second.
struct Candidate<'a> {
    raw: &'a str,
    order: Layout,
    max_abs: Option<f64>,
    /// See [`distance`].
    relative: f64,
}

impl<'a> Search<'a> {
    fn all(&self) -> Result<Vec<Culprit>, EngineError> {
        let mut substitutes = NamedValues::new();
        let mut parted: Vec<Parted> = Vec::new();
        let mut values = self.optimised.run(&substitutes)?;
        let mut runs = 0;
        while self.wrong_outputs(&values).next().is_some() && runs < MOST_RUNS {
            let Some((found, with)) = self.next(&values, &substitutes, &mut runs)? else { break };
            parted.push(found);
            substitutes = with;
            values = self.optimised.run(&substitutes)?;
        }
        let aligned = self.align(&values);
        let is_substitute = |name: &str| substitutes.contains(name);
        let tells =
            |name: &str| values.get(name).is_some_and(Found::tells) && aligned.of_optimised.contains(name);
        let leading = leading(&self.optimised, |name| tells(name) && !is_substitute(name));
        // An output that nothing could be put in the place of hides all before it that is wrong.
        if let Some(output) = self.wrong_outputs(&values).next() {
            parted.push(Parted {
                value: output,
                raw: self.raw.names.iter().find(|name| **name == output).copied(),
                max_abs: None,
            });
        }
        let culprit = |parted: &Parted| Culprit {
            module: parted
                .raw
                .and_then(|raw| self.raw.producer.get(raw))
                .map_or_else(|| parted.value.to_string(), |node| node.name.clone()),
            max_abs: parted.max_abs,
            nodes: self
                .optimised
                .nodes_before(parted.value, |name| {
                    aligned.of_optimised.contains(name) || leading.contains(name)
                })
                .into_iter()
                .map(String::from)
                .collect(),
            explanation: parted.raw.map(|raw| {
                let nodes = self.raw.nodes_before(raw, |name| aligned.of_raw.contains(name));
                let more = if nodes.len() > NAMED {
                    format!(" and {} more", nodes.len() - NAMED)
                } else {
                    String::new()
                };
                let named: Vec<&str> = nodes.into_iter().take(NAMED).collect();
                format!("the first graph computes this by {}{more}", named.join(", "))
            }),
        };
        Ok(parted.iter().map(culprit).collect())
    }

    /// The outputs of the second graph that are not the first's of the same name.
    fn wrong_outputs<'b>(&'b self, values: &'b Values) -> impl Iterator<Item = &'a str> + 'b {
        let is_output = |name: &&&str| self.optimised.outputs().any(|output| output == **name);
        self.optimised.names.iter().filter(is_output).copied().filter(|name| {
            let pair = self.of_raw.get(*name).zip(values.get(*name));
            pair.is_some_and(|(raw, found)| raw.shape != found.shape || !is(raw, found.data.iter().copied()))
        })
    }

    /// The first value that is wrong by itself, and the substitutes with that of the first graph in its place.
    fn next(
        &self,
        values: &Values,
        substitutes: &NamedValues,
        runs: &mut usize,
    ) -> Result<Option<(Parted<'a>, NamedValues)>, EngineError> {
        let aligned = self.align(values);
        let tells = |values: &Values, name: &str| values.get(name).is_some_and(Found::tells);
        let right = |name: &str| aligned.of_optimised.contains(name) && tells(values, name);
        let wrong: Vec<&str> = self.wrong_outputs(values).collect();
        let open = on_the_way(&self.optimised, |name| wrong.contains(&name), right);
        let right_in_raw = |name: &str| aligned.of_raw.contains(name) && tells(self.of_raw, name);
        let raw_open = on_the_way(&self.raw, |name| wrong.contains(&name), right_in_raw);
        let suspects = self.optimised.names.iter().copied();
        let suspects = suspects.filter(|name| {
            open.contains(name)
                && !aligned.of_optimised.contains(name)
                && values.get(*name).is_some_and(|found| found.is_float)
        });
        let suspects: Vec<&str> = suspects.collect();
        for &suspect in &suspects {
            let Some(found) = values.get(suspect) else { continue };
            // The substitute itself is one more that is there.
            let as_it_is = aligned.of_optimised.len() + 1;
            let mut stopped = false;
            let tries = |Candidate { raw, order, .. }: &Candidate| {
                if *runs >= MOST_RUNS {
                    stopped = true;
                    return Ok::<_, EngineError>(Tried::Stop);
                }
                *runs += 1;
                let with = self.substituted(substitutes, suspect, found, raw, order);
                let later = with.and_then(|with| self.optimised.run(&with).ok());
                Ok(match later {
                    Some(later) => Tried::Right(self.align(&later).of_optimised.len()),
                    None => Tried::Impossible,
                })
            };
            let candidates = self.candidates(found, |name| raw_open.contains(name));
            let best = most_right(candidates, as_it_is, tries, |candidate| candidate.relative <= NEAR)?;
            // What is found with the search cut short is not known to be the first.
            if stopped {
                return Ok(None);
            }
            if let Some(Candidate { raw, order, max_abs, .. }) = best {
                let with = self.substituted(substitutes, suspect, found, raw, &order);
                return Ok(with.map(|with| (Parted { value: suspect, raw: Some(raw), max_abs }, with)));
            }
        }
        // An output from which nothing follows is wrong by itself if nothing before it was found to be.
        for output in self.wrong_outputs(values) {
            let found = values.get(output).filter(|_| suspects.contains(&output));
            let Some((found, name)) = found.zip(self.raw.names.iter().find(|name| **name == output)) else {
                continue;
            };
            let Some(raw) = self.of_raw.get(*name).filter(|raw| raw.shape == found.shape) else { continue };
            let Some(order) = self.orders.of(&raw.shape, &found.shape).first().cloned() else { continue };
            let Some(with) = self.substituted(substitutes, output, found, name, &order) else { continue };
            let max_abs = distance(raw, found, &order).0;
            return Ok(Some((Parted { value: output, raw: Some(name), max_abs }, with)));
        }
        Ok(None)
    }

    fn substituted(
        &self,
        substitutes: &NamedValues,
        suspect: &str,
        found: &Found,
        raw: &str,
        order: &Layout,
    ) -> Option<NamedValues> {
        let elements = order.scatter(&self.of_raw.get(raw)?.data, &found.data);
        let mut with = substitutes.clone();
        with.insert(suspect, Value::new(found.shape.as_slice(), elements).ok()?);
        Some(with)
    }

    /// The values of the first graph that may belong in the place of one, the nearest first, each in the order of axes in which it is nearest.
    fn candidates(&self, found: &Found, missing: impl Fn(&str) -> bool) -> Vec<Candidate<'a>> {
        let mut all: Vec<Candidate> = Vec::new();
        for &name in self.by_size.get(&found.data.len()).into_iter().flatten().filter(|name| missing(name)) {
            let Some(raw) = self.of_raw.get(name).filter(|raw| raw.is_float) else { continue };
            let orders = self.orders.of(&raw.shape, &found.shape);
            // Of one shape, they are of one order: where they are far apart, another may be the nearer by chance.
            let likely = if raw.shape == found.shape { 1 } else { orders.len() };
            let distances = orders.iter().take(likely).map(|order| (order, distance(raw, found, order)));
            let best = distances.min_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b));
            if let Some((order, (max_abs, relative))) = best {
                all.push(Candidate { raw: name, order: order.clone(), max_abs, relative });
            }
        }
        // In the order of execution up to here.
        let mut rest = all.split_off(FIRST.min(all.len()));
        rest.sort_by(|a, b| a.relative.total_cmp(&b.relative));
        all.extend(rest.into_iter().take(NEAREST));
        all.sort_by(|a, b| a.relative.total_cmp(&b.relative));
        all
    }

    fn align(&self, values: &Values) -> Aligned<'a> {
        let mut aligned = Aligned { of_raw: HashSet::new(), of_optimised: HashSet::new() };
        for &name in &self.optimised.names {
            let Some(found) = values.get(name) else { continue };
            for &raw_name in self.by_size.get(&found.data.len()).into_iter().flatten() {
                let Some(raw) = self.of_raw.get(raw_name).filter(|raw| may_be(raw, found)) else { continue };
                let mut orders =
                    std::iter::once(()).flat_map(|()| self.orders.of(&raw.shape, &found.shape).to_vec());
                if orders.any(|order| is(raw, order.elements(&found.data))) {
                    aligned.of_raw.insert(raw_name);
                    aligned.of_optimised.insert(name);
                }
            }
        }
        aligned
    }
}

/// Whether two values may be the same but for the order of their elements.
fn may_be(raw: &Found, found: &Found) -> bool {
    let count = raw.data.len() as f64;
    let (raw_sums, sums) = (raw.sums(), found.sums());
    // The sum of so many errors; for squares, each times twice the element.
    let bounds = [count * SAME * raw_sums.scale, 4.0 * count * SAME * raw_sums.scale * raw_sums.scale];
    let near = |at: usize| (raw_sums.print[at] - sums.print[at]).abs() <= bounds[at];
    raw.is_float == found.is_float && near(0) && near(1)
}

/// Whether these elements are those of a value. What is not finite never is.
fn is(raw: &Found, mut found: impl Iterator<Item = f64>) -> bool {
    let bound = SAME * raw.sums().scale;
    raw.data.iter().all(|a| found.next().is_some_and(|b| (a - b).abs() <= bound))
}

/// The largest difference, unless one is not finite, and the mean square over that of the first, which is infinite then.
fn distance(raw: &Found, found: &Found, order: &Layout) -> (Option<f64>, f64) {
    let (mut largest, mut squares) = (0f64, 0.0);
    for (a, b) in raw.data.iter().zip(order.elements(&found.data)) {
        let difference = (a - b).abs();
        if !difference.is_finite() {
            return (None, f64::INFINITY);
        }
        largest = largest.max(difference);
        squares += difference * difference;
    }
    (Some(largest), squares / raw.sums().print[1].max(f64::MIN_POSITIVE))
}
