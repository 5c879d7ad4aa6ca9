//! Tensors that a graph holds in another form and computes the same with.
//!
//! The audit goes by elements and places, and cannot see that a change in one matrix is undone in
//! the next. Where the structure of the graph shows that its outputs are the model's for every
//! input, that is the case for whatever was only moved. So these are excused, each with a note:
//!
//! | what | as long as |
//! | --- | --- |
//! | heads or neurons in another order, signs, powers of two | but for these all is there |
//! | query, key and value interleaved | likewise |
//! | a table in parts, padded, or in another order | each row is there as it is |
//! | names, orientations, places and roles | – |
//! | the bias of a key | only a softmax of products reads it, which does not see it |
//!
//! Nothing else is: the structure is held within a bound, and this is exact. A tensor that is
//! needed and is neither traced nor excused leaves the audit inconclusive.

use std::collections::{HashMap, HashSet};

use architecture::{BindError, Family, Task};
use checkpoint::Checkpoint;
use onnx_graph::Model;
use report::{Audit, Finding, FindingKind, Verdict};

use super::carriers::{Carrier, carriers};
use super::flow::Flow;
use super::weights::{Weight, weights};

/// Excuses what was only moved, in a graph that is proven for every input. `needed` are the tensors
/// that the compared outputs are made of.
///
/// # Errors
/// If the checkpoint does not fit its config.
pub(crate) fn excuse(
    audit: &mut Audit,
    checkpoint: &Checkpoint,
    task: Task,
    family: &dyn Family,
    model: &Model,
    needed: &HashSet<&str>,
) -> Result<(), BindError> {
    let lost = audit.untraced.iter().any(|tensor| needed.contains(tensor.as_str()));
    if audit.verdict != Verdict::Fail && !lost {
        return Ok(());
    }
    let (weights, program) = weights(checkpoint, task, family)?;
    let flow = Flow::new(model);
    let (carriers, _) = carriers(&flow, &weights);
    let differing = |name: &str| audit.traced.iter().any(|of| of.initializer == name && of.differing > 0);
    let traced = |name: &str| audit.traced.iter().any(|of| of.initializer == name);
    let is_open = |carrier: &&Carrier| {
        carrier.grid.is_none() && !carrier.rounded && (differing(&carrier.name) || !traced(&carrier.name))
    };
    let open: Vec<&Carrier> = carriers.iter().filter(is_open).collect();
    let wanted: Vec<&Weight> =
        weights.iter().filter(|weight| needed.contains(weight.name.as_str())).collect();
    let is_key_bias =
        |weight: &Weight| weight.part.is_some_and(|part| part.is_bias && program.is_only_key(part.step));
    // Why a tensor need not be as it is in the checkpoint, where it was looked for in that carrier.
    let reason = |tensor: &str, initializer: Option<&str>| {
        let weight = wanted.iter().find(|weight| weight.name == tensor)?;
        if is_key_bias(weight) {
            return Some(format!("{tensor} is not held as it is, and no softmax sees the bias of a key"));
        }
        let looked: Vec<&Carrier> = open
            .iter()
            .filter(|carrier| initializer.is_none_or(|name| name == carrier.name))
            .copied()
            .collect();
        let (place, how) = place(weight, &wanted, &looked)?;
        Some(format!(
            "all {how} of {tensor} are in '{place}', and what was moved there is undone elsewhere: the structure \
             of the graph is the model's for every input"
        ))
    };
    let mut excused: HashSet<String> = HashSet::new();
    let of_places = [FindingKind::Name, FindingKind::Orientation, FindingKind::Order, FindingKind::Role];
    for finding in audit.findings.iter_mut().filter(|finding| finding.fails) {
        let of_needed = finding.tensors.iter().all(|tensor| needed.contains(tensor.as_str()));
        let sentence = match (finding.kind, &finding.tensors[..]) {
            (kind, _) if of_places.contains(&kind) && of_needed => Some(format!(
                "{}, which changes nothing: the structure of the graph is the model's for every input",
                finding.message
            )),
            (FindingKind::Difference, [tensor]) => {
                let held = audit.traced.iter().filter(|of| of.tensor == *tensor && of.differing > 0);
                let reasons: Option<Vec<String>> =
                    held.map(|of| reason(tensor, Some(&of.initializer))).collect();
                reasons.and_then(|reasons| reasons.into_iter().next())
            }
            _ => None,
        };
        if let Some(sentence) = sentence {
            excused.extend(finding.tensors.iter().cloned());
            let tensors = std::mem::take(&mut finding.tensors);
            let module = finding.module.take();
            *finding = Finding { tensors, module, ..Finding::note(FindingKind::Moved, sentence) };
        }
    }
    let mut is_whole = true;
    for tensor in audit.untraced.iter().filter(|tensor| needed.contains(tensor.as_str())) {
        let (kind, sentence) = match reason(tensor, None) {
            Some(sentence) => (FindingKind::Moved, sentence),
            None => {
                is_whole = false;
                let sentence = format!(
                    "{tensor} is needed, and its elements are nowhere in the graph: what stands for them \
                     is within the proof's bound, which is not the same"
                );
                (FindingKind::Untraced, sentence)
            }
        };
        audit.findings.push(Finding { tensors: vec![tensor.clone()], ..Finding::note(kind, sentence) });
    }
    // As they would stand had nothing been found to contradict.
    audit.findings.sort_by_key(|finding| !finding.fails);
    if audit.verdict == Verdict::Fail && audit.findings.iter().all(|finding| !finding.fails) {
        let is_exact = |of: &report::Trace| of.exact || excused.contains(&of.tensor);
        audit.verdict = if audit.traced.iter().all(is_exact) { Verdict::Pass } else { Verdict::Rounding };
    }
    if !is_whole {
        audit.verdict = audit.verdict.max(Verdict::Inconclusive);
    }
    Ok(())
}

/// Where a tensor lies in another form, and what of it is there.
fn place(weight: &Weight, wanted: &[&Weight], open: &[&Carrier]) -> Option<(String, &'static str)> {
    if weight.is_table() {
        let rows: Vec<(&str, HashSet<Vec<u32>>)> = open
            .iter()
            .filter(|carrier| carrier.shape.len() > 1 && carrier.shape.last() == Some(&weight.columns))
            .map(|carrier| (carrier.name.as_str(), bits(&carrier.elements, weight.columns).collect()))
            .collect();
        let mut used = Vec::new();
        for row in bits(&weight.elements, weight.columns) {
            let (name, _) = rows.iter().find(|(_, rows)| rows.contains(&row))?;
            if !used.contains(name) {
                used.push(*name);
            }
        }
        return Some((used.join("', '"), "rows"));
    }
    let whole = |carrier: &&&Carrier| {
        let mut left = Elements::of(&carrier.elements)?;
        left.take(&Elements::of(&weight.elements)?).then_some(())?;
        // What a matrix is joined with is whole, too.
        for other in wanted.iter().filter(|other| other.name != weight.name && !other.is_table()) {
            if left.is_nothing() {
                break;
            }
            if other.elements.len() <= left.count {
                left.take(&Elements::of(&other.elements)?);
            }
        }
        left.is_nothing().then_some(())
    };
    if let Some(carrier) = open.iter().find(|carrier| whole(carrier).is_some()) {
        return Some((carrier.name.clone(), "elements"));
    }
    let mut left = Elements::of(&weight.elements)?;
    let mut used = Vec::new();
    for carrier in open.iter().filter(|carrier| carrier.elements.len() < weight.elements.len()) {
        if Elements::of(&carrier.elements).is_some_and(|part| left.take(&part)) {
            used.push(carrier.name.as_str());
        }
    }
    (left.is_nothing() && !used.is_empty()).then(|| (used.join("', '"), "elements"))
}

/// The rows of a table, bit by bit.
fn bits(elements: &[f32], columns: usize) -> impl Iterator<Item = Vec<u32>> {
    elements.chunks(columns.max(1)).map(|row| row.iter().map(|x| x.to_bits()).collect())
}

/// How often each element is there, but for its sign and powers of two, and for zeros, which say
/// nothing.
struct Elements {
    counts: HashMap<u32, usize>,
    count: usize,
}

impl Elements {
    /// Nothing if one is not finite.
    fn of(elements: &[f32]) -> Option<Self> {
        let mut found = Self { counts: HashMap::new(), count: 0 };
        for &x in elements {
            if !x.is_finite() {
                return None;
            }
            if x != 0.0 {
                *found.counts.entry(digits(x)).or_default() += 1;
                found.count += 1;
            }
        }
        Some(found)
    }

    /// Takes others out, if all of them are there.
    fn take(&mut self, others: &Self) -> bool {
        let has = |(digits, count): (&u32, &usize)| self.counts.get(digits).is_some_and(|own| own >= count);
        if !others.counts.iter().all(has) {
            return false;
        }
        for (digits, count) in &others.counts {
            self.counts.entry(*digits).and_modify(|own| *own -= count);
        }
        self.count -= others.count;
        true
    }

    fn is_nothing(&self) -> bool {
        self.count == 0
    }
}

/// The binary digits of a number, the first one 1.
fn digits(x: f32) -> u32 {
    const MANTISSA: u32 = (1 << (f32::MANTISSA_DIGITS - 1)) - 1;
    let bits = x.abs().to_bits();
    if x.is_subnormal() {
        return (bits << (bits.leading_zeros() - (u32::BITS - f32::MANTISSA_DIGITS))) & MANTISSA;
    }
    bits & MANTISSA
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_powers_of_two_do_not_tell_and_a_last_digit_does() {
        let x = 0.1f32;
        let next = f32::from_bits(x.to_bits() + 1);
        assert_eq!(digits(x), digits(-x * 1024.0));
        assert_ne!(digits(x), digits(next));
        // 3 · 2⁻¹⁴⁸ is subnormal.
        assert_eq!(digits(f32::from_bits(6)), digits(3.0));
        let of = |elements: &[f32]| Elements::of(elements).unwrap();
        let mut all = of(&[0.0, -0.2, 0.3, 0.3]);
        assert!(!all.take(&of(&[0.3, 0.3, 0.3])));
        assert!(all.take(&of(&[0.1, 0.3])) && !all.is_nothing());
        assert!(all.take(&of(&[0.3])) && all.is_nothing());
        assert!(Elements::of(&[f32::NAN]).is_none());
    }
}
