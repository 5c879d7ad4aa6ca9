//! From a pickle to named tensors, and from those and their storages to entries of a checkpoint.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use engine::DType;
use indexmap::IndexMap;

use super::globals::{self, Element};
use super::pickle::{Arena, Object, Pickle, Tensor};
use super::view::View;
use super::{Budget, TENSOR, TorchError};
use crate::TensorEntry;

/// What training scripts call the model's state dict among all that they save.
const MODEL_NAMES: [&str; 3] = ["model_state_dict", "state_dict", "model"];

/// The most names that an error lists, and the most characters of each: a hostile file has a million of them.
const LISTED: usize = 10;
const LISTED_CHARS: usize = 64;

/// The longest key of a storage. PyTorch's are numbers; each is looked up for every tensor in it.
const MAX_KEY_BYTES: usize = 255;

/// The named tensors of a pickle, and what each of their storages must be. Nothing of the storages is read.
pub(super) struct StateDict<'a> {
    tensors: Vec<Named<'a>>,
    /// By key, in the order in which the pickle first needs them.
    pub storages: IndexMap<&'a str, Wanted<'a>>,
}

struct Named<'a> {
    name: &'a str,
    key: &'a str,
    dtype: DType,
    view: View,
}

/// What a storage must be.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The first tensor that lies in it, for errors.
    pub tensor: &'a str,
    element: Element,
    /// How many elements it has, by the pickle.
    pub elements: u64,
    /// The size of one, in bytes.
    pub size: u64,
}

/// A storage as it was found: a slice of the file, or what was unpacked.
#[derive(Clone)]
pub(super) struct Found {
    pub bytes: Bytes,
    /// Where it begins in the file; `None` if it was unpacked.
    pub offset: Option<u64>,
}

impl Wanted<'_> {
    /// The size of the storage, in bytes.
    pub fn bytes(&self) -> u64 {
        self.elements.saturating_mul(self.size)
    }
}

impl<'a> StateDict<'a> {
    pub fn new(pickle: &Pickle<'a>, budget: &mut Budget) -> Result<Self, TorchError> {
        let arena = &pickle.arena;
        let Object::Dict(dict) = pickle.object else {
            return Err(TorchError::NotAStateDict { found: kind(pickle.object) });
        };
        let (mut names, mut used) = (HashSet::new(), HashSet::new());
        let mut this = Self { tensors: Vec::new(), storages: IndexMap::new() };
        for &(key, value) in arena.dict(dict) {
            let Object::Str(name) = key else {
                return Err(TorchError::NotAStateDict { found: "a dict whose keys are not names" });
            };
            let tensor = match value {
                Object::Tensor(index) => arena.tensors.get(index).inspect(|_| _ = used.insert(index)),
                _ => None,
            };
            let Some(tensor) = tensor else {
                return Err(match wrapped(arena, arena.dict(dict)) {
                    Some((under, beside)) => TorchError::Training { under, beside },
                    None => TorchError::NotATensor { name: name.to_owned(), found: kind(value) },
                });
            };
            budget.spend(TENSOR + name.len() as u64)?;
            if !names.insert(name) {
                return Err(TorchError::NamedTwice { name: name.to_owned() });
            }
            this.add(name, tensor, pickle)?;
        }
        match arena.tensors.len() - used.len() {
            0 => Ok(this),
            count => Err(TorchError::Nameless { count }),
        }
    }

    fn add(&mut self, name: &'a str, tensor: &Tensor, pickle: &Pickle<'a>) -> Result<(), TorchError> {
        let layout = |reason| TorchError::Layout { tensor: name.to_owned(), reason };
        let arena = &pickle.arena;
        let dtype = globals::dtype(tensor.dtype)
            .ok_or_else(|| TorchError::DType { tensor: name.to_owned(), dtype: tensor.dtype })?;
        let storage = arena.storages.get(tensor.storage).ok_or_else(|| layout("it has no storage"))?;
        if storage.key.len() > MAX_KEY_BYTES {
            return Err(layout("its storage's key has more than 255 bytes"));
        }
        let elements =
            u64::try_from(storage.elements).map_err(|_| layout("its storage has a negative size"))?;
        let size = if storage.element == Element::Byte { 1 } else { dtype.size() as u64 };
        let wanted = Wanted { tensor: name, element: storage.element, elements, size };
        let first = *self.storages.entry(storage.key).or_insert(wanted);
        if (first.element, first.elements) != (wanted.element, wanted.elements) {
            return Err(layout("its storage is of another type or size elsewhere"));
        }

        let sizes = |span, reason| {
            arena
                .integers(span)
                .map(usize::try_from)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| layout(reason))
        };
        let (part_offset, part_elements) = storage.part.unwrap_or((0, storage.elements));
        let unsigned = |integer| usize::try_from(integer).map_err(|_| layout("its place is negative"));
        let (part_offset, part_elements) = (unsigned(part_offset)?, unsigned(part_elements)?);
        if part_offset.checked_add(part_elements).is_none_or(|end| end as u64 > elements) {
            return Err(layout("its part of the storage lies outside of it"));
        }
        // The sizes of a part and of its whole are in elements of the storage, all else in those of the tensor.
        let in_tensor = |elements: usize| {
            if storage.element == Element::Byte { elements / dtype.size() } else { elements }
        };
        let view = View {
            begin: part_offset
                .checked_mul(wanted.size as usize)
                .ok_or_else(|| layout("its place is too far"))?,
            elements: in_tensor(part_elements),
            offset: unsigned(tensor.offset)?,
            shape: sizes(tensor.shape, "its shape is negative")?,
            strides: sizes(tensor.strides, "its strides are negative")?,
        };
        self.tensors.push(Named { name, key: storage.key, dtype, view });
        Ok(())
    }

    /// The tensors as entries of a checkpoint, once their storages have been found, each of the size it must have.
    pub fn entries(
        self,
        file: &Arc<str>,
        found: &HashMap<&str, Found>,
        budget: &mut Budget,
    ) -> Result<Vec<TensorEntry>, TorchError> {
        self.tensors
            .into_iter()
            .map(|Named { name, key, dtype, view }| {
                let storage = found.get(key).ok_or_else(|| TorchError::NoStorage {
                    tensor: name.to_owned(),
                    storage: key.to_owned(),
                })?;
                let (bytes, begin) = view.read(name, dtype, &storage.bytes, budget)?;
                let offset = storage.offset.zip(begin).map(|(storage, begin)| storage + begin as u64);
                Ok(TensorEntry {
                    name: name.to_owned(),
                    dtype,
                    shape: view.shape,
                    file: Arc::clone(file),
                    offset,
                    bytes,
                })
            })
            .collect()
    }
}

/// The name in a training checkpoint under which the model's own state dict lies, and the names beside it.
fn wrapped(arena: &Arena<'_>, items: &[(Object<'_>, Object<'_>)]) -> Option<(String, String)> {
    // Many names may stand for one dict: it is looked through once.
    let mut seen = HashMap::new();
    let mut is_state_dict = |value: Object<'_>| {
        let Object::Dict(dict) = value else { return false };
        *seen.entry(dict).or_insert_with(|| {
            let items = arena.dict(dict);
            !items.is_empty() && items.iter().all(|item| matches!(item, (Object::Str(_), Object::Tensor(_))))
        })
    };
    let named = || {
        let names = items.iter().enumerate();
        names.filter_map(|(index, &(key, value))| match key {
            Object::Str(key) => Some((index, key, value)),
            _ => None,
        })
    };
    // An average of the weights may be kept beside them.
    let known = named().find(|&(_, name, value)| MODEL_NAMES.contains(&name) && is_state_dict(value));
    let (place, under, _) = known.or_else(|| named().find(|&(_, _, value)| is_state_dict(value)))?;
    // By its place: to compare a million long names takes too long.
    let mut others = named().filter(|&(index, ..)| index != place);
    let mut beside: Vec<_> =
        others.by_ref().take(LISTED).map(|(_, name, _)| format!("'{}'", cut(name))).collect();
    match (beside.is_empty(), others.next()) {
        (true, _) => beside.push("nothing".to_owned()),
        (false, Some(_)) => beside.push("…".to_owned()),
        (false, None) => {}
    }
    Some((cut(under), beside.join(", ")))
}

/// The beginning of a name that is too long to be shown.
fn cut(name: &str) -> String {
    match name.char_indices().nth(LISTED_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// What an object is, for a person to read.
fn kind(object: Object<'_>) -> &'static str {
    match object {
        Object::None => "None",
        Object::Bool(_) => "a bool",
        Object::Int(_) | Object::Long(_) => "an integer",
        Object::Float => "a float",
        Object::Str(_) => "a text",
        Object::Tuple(_) => "a tuple",
        Object::List(_) => "a list",
        Object::Dict(_) => "a dict",
        Object::Global(_) => "a class or function",
        Object::Storage(_) => "a storage",
        Object::Tensor(_) => "a tensor",
    }
}
