//! What the messages of a file will take of memory, counted before one of them is built.
//!
//! An empty attribute is two bytes in a file and some hundred in memory, so a file of 20 MB can ask
//! for gigabytes. One walk over the fields adds up what prost makes of them, and [`Budget`] says
//! when that is too much. Whether they are sound is not looked at: where prost will stop, the walk
//! may.

mod schema;

use engine::memory::{Budget, OverBudget, TEXT};

use crate::sniff::{FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, Varint};

pub(crate) use schema::{MODEL, TENSOR};

/// prost goes no deeper.
const MAX_DEPTH: usize = 100;

/// A message: what it takes by itself, what is made of it later, and its fields.
pub(crate) struct Message {
    /// The size of its type here.
    size: usize,
    /// What a graph makes of it beside what it holds: its place in a map, say.
    more: u64,
    fields: &'static [(u32, Field)],
}

/// What a field holds, where that takes memory of its own.
enum Field {
    /// One text.
    Text,
    /// A list of texts.
    Texts,
    /// One piece of bytes that is copied into a text; what stays in the file is not listed.
    Bytes,
    /// A list of pieces of bytes.
    ListOfBytes,
    /// A list of numbers of so many bytes here and in the file, whether it is packed or not; it is
    /// copied once.
    Fixed(u64),
    /// A list of whole numbers, of so many bytes here and one to ten in the file; it is copied
    /// once.
    Varints(u64),
    /// One message, within the one it belongs to.
    One(&'static Message),
    /// One message, apart from the one it belongs to.
    Boxed(&'static Message),
    /// A list of messages.
    Many(&'static Message),
}

/// What older writers put around fields, and prost skips.
const GROUP_BEGINS: u64 = 3;
const GROUP_ENDS: u64 = 4;

/// The most fields that take memory in one message.
const MAX_FIELDS: usize = 16;

/// Counts what a message takes, with all that is in it.
///
/// # Errors
/// If that is more than what is left.
pub(crate) fn weigh(bytes: &[u8], message: &Message, budget: &mut Budget) -> Result<(), OverBudget> {
    budget.spend(message.size as u64 + message.more)?;
    inner(bytes, message, budget, 0)
}

fn inner(bytes: &[u8], message: &Message, budget: &mut Budget, depth: usize) -> Result<(), OverBudget> {
    let mut counts = [0u64; MAX_FIELDS];
    // What is within a group is skipped, whatever its number.
    let mut groups = 0usize;
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(key) = varint(&mut rest) else { return Ok(()) };
        let (number, wire_type) = (key >> 3, key & 7);
        let length = match wire_type {
            VARINT => match varint(&mut rest) {
                Some(_) => 0,
                None => return Ok(()),
            },
            FIXED64 => 8,
            FIXED32 => 4,
            LENGTH_DELIMITED => match varint(&mut rest).and_then(|length| usize::try_from(length).ok()) {
                Some(length) => length,
                None => return Ok(()),
            },
            GROUP_BEGINS => {
                groups += 1;
                continue;
            }
            GROUP_ENDS if groups > 0 => {
                groups -= 1;
                continue;
            }
            _ => return Ok(()),
        };
        let Some((payload, after)) = rest.split_at_checked(length) else { return Ok(()) };
        rest = after;
        let place = message.fields.iter().position(|(known, _)| u64::from(*known) == number);
        let (Some(place), 0) = (place, groups) else { continue };
        let count = &mut counts[place];
        let size = payload.len() as u64;
        match &message.fields[place].1 {
            Field::Text => budget.spend(TEXT + size)?,
            Field::Texts => {
                budget.spend(grown(count, 1, size_of::<String>()) + TEXT + size)?;
            }
            Field::Bytes => budget.spend(size)?,
            Field::ListOfBytes => budget.spend(grown(count, 1, size_of::<bytes::Bytes>()) + TEXT + size)?,
            Field::Fixed(element) | Field::Varints(element) => {
                let elements = match (&message.fields[place].1, wire_type) {
                    (Field::Fixed(_), LENGTH_DELIMITED) => size / element,
                    // The last byte of each has its highest bit clear.
                    (_, LENGTH_DELIMITED) => payload.iter().filter(|&&byte| byte < 0x80).count() as u64,
                    _ => 1,
                };
                budget.spend(grown(count, elements, *element as usize) + elements * element)?;
            }
            Field::One(message) => below(payload, message, budget, depth)?,
            Field::Boxed(message) => {
                budget.spend(message.size as u64)?;
                below(payload, message, budget, depth)?;
            }
            Field::Many(message) => {
                budget.spend(grown(count, 1, message.size) + message.more)?;
                below(payload, message, budget, depth)?;
            }
        }
    }
    Ok(())
}

fn below(bytes: &[u8], message: &Message, budget: &mut Budget, depth: usize) -> Result<(), OverBudget> {
    if depth < MAX_DEPTH { inner(bytes, message, budget, depth + 1) } else { Ok(()) }
}

/// How many bytes more a list takes for so many elements more: it has room for four of them at
/// least, and doubles when it is full.
fn grown(count: &mut u64, elements: u64, size: usize) -> u64 {
    let room = |count: u64| match count {
        0 => 0,
        count => count.max(4).checked_next_power_of_two().unwrap_or(u64::MAX),
    };
    let before = room(*count);
    *count = count.saturating_add(elements);
    (room(*count) - before).saturating_mul(size as u64)
}

/// Takes a number off the front; `None` where there is none.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    match crate::sniff::varint(rest) {
        Varint::Value(value) => Some(value),
        Varint::Cut | Varint::TooLong => None,
    }
}
