//! What torch's pickles do beyond making plain Python objects: name a storage, and call the few functions that make a tensor.

use super::super::TorchError;
use super::super::globals::{Element, Global};
use super::{MAX_RANK, Machine, Object, Span, Storage, Tensor};

impl<'a> Machine<'a> {
    /// `("storage", type, key, device, elements)`, and in the older format `None` or `(key, offset, elements)` at the end.
    pub(super) fn storage(&mut self, id: Object<'a>) -> Result<Object<'a>, TorchError> {
        let Object::Tuple(span) = id else { return Err(self.wrong("a storage's name is not a tuple")) };
        let &[
            Object::Str("storage"),
            Object::Global(Global::Storage(element)),
            Object::Str(key),
            Object::Str(_),
            Object::Int(elements),
            ref part @ ..,
        ] = self.arena.tuple(span)
        else {
            return Err(self.wrong("a storage is not as torch.save describes it"));
        };
        let part = match *part {
            [] | [Object::None] => None,
            [Object::Tuple(part)] => match *self.arena.tuple(part) {
                [Object::Str(_), Object::Int(offset), Object::Int(length)] => Some((offset, length)),
                _ => return Err(self.wrong("a part of a storage is not as torch.save describes it")),
            },
            [_] => return Err(self.wrong("a part of a storage is not as torch.save describes it")),
            _ => return Err(self.wrong("a storage is not as torch.save describes it")),
        };
        self.arena.storages.push(Storage { key, element, elements, part });
        Ok(Object::Storage(self.arena.storages.len() - 1))
    }

    pub(super) fn reduce(
        &mut self,
        callable: Object<'a>,
        arguments: Object<'a>,
    ) -> Result<Object<'a>, TorchError> {
        let Object::Tuple(span) = arguments else {
            return Err(self.wrong("it calls with what is not a tuple"));
        };
        let Object::Global(global) = callable else {
            return Err(self.wrong("it calls what is not a function"));
        };
        let unknown = |this: &Self| this.wrong("it does not call a function as torch.save does");
        match (global, self.arena.tuple(span)) {
            (Global::OrderedDict, []) => Ok(self.dict()),
            // Python 2 gives the items here.
            (Global::OrderedDict, &[Object::List(list)]) => self.dict_of(list),
            (Global::Size, &[Object::Tuple(sizes)]) => Ok(Object::Tuple(sizes)),
            (Global::Parameter, &[tensor @ Object::Tensor(_), Object::Bool(_), hooks]) => {
                self.nothing(hooks)?;
                Ok(tensor)
            }
            (Global::Tensor, &[storage, offset, shape, strides]) => {
                self.tensor([storage, offset, shape, strides], None)
            }
            (
                Global::TensorV2 | Global::TensorV3,
                &[storage, offset, shape, strides, Object::Bool(_), hooks, ref rest @ ..],
            ) => {
                let (dtype, metadata) = match (global, rest) {
                    (Global::TensorV2, []) => (None, Object::None),
                    (Global::TensorV2, &[metadata]) => (None, metadata),
                    (Global::TensorV3, &[Object::Global(Global::DType(name))]) => (Some(name), Object::None),
                    (Global::TensorV3, &[Object::Global(Global::DType(name)), metadata]) => {
                        (Some(name), metadata)
                    }
                    _ => return Err(unknown(self)),
                };
                self.nothing(hooks)?;
                self.nothing(metadata)?;
                self.tensor([storage, offset, shape, strides], dtype)
            }
            _ => Err(unknown(self)),
        }
    }

    /// Hooks are code, and metadata says that the numbers are to be negated or conjugated: neither may be there.
    fn nothing(&self, object: Object<'a>) -> Result<(), TorchError> {
        match object {
            Object::None => Ok(()),
            Object::Dict(dict) if self.arena.dict(dict).is_empty() => Ok(()),
            _ => Err(self.wrong("a tensor has hooks or metadata")),
        }
    }

    fn dict_of(&mut self, list: usize) -> Result<Object<'a>, TorchError> {
        let mut items = Vec::new();
        for &pair in self.arena.list(list) {
            let pair = match pair {
                Object::List(pair) => self.arena.list(pair),
                Object::Tuple(pair) => self.arena.tuple(pair),
                _ => &[],
            };
            let &[key, value] = pair else { return Err(self.wrong("an item is not a key and a value")) };
            items.push((key, value));
        }
        // Taken out of the list, so that one list cannot fill many dicts.
        if let Some(list) = self.arena.lists.get_mut(list) {
            list.clear();
        }
        self.arena.dicts.push(items);
        Ok(Object::Dict(self.arena.dicts.len() - 1))
    }

    fn tensor(
        &mut self,
        arguments: [Object<'a>; 4],
        dtype: Option<&'static str>,
    ) -> Result<Object<'a>, TorchError> {
        let [Object::Storage(storage), Object::Int(offset), Object::Tuple(shape), Object::Tuple(strides)] =
            arguments
        else {
            return Err(self.wrong("a tensor is not as torch.save describes it"));
        };
        let stored = self.arena.storages.get(storage).map(|storage| storage.element);
        let dtype = match (stored, dtype) {
            (Some(Element::Typed(dtype)), None) | (Some(Element::Byte), Some(dtype)) => dtype,
            _ => return Err(self.wrong("a tensor's storage has no dtype, or two")),
        };
        if !self.is_sizes(shape) || !self.is_sizes(strides) || shape.length != strides.length {
            return Err(self.wrong("a tensor's shape or strides are not a few integers"));
        }
        self.arena.tensors.push(Tensor { storage, dtype, offset, shape, strides });
        Ok(Object::Tensor(self.arena.tensors.len() - 1))
    }

    fn is_sizes(&self, span: Span) -> bool {
        span.length <= MAX_RANK && self.arena.tuple(span).iter().all(|item| matches!(item, Object::Int(_)))
    }

    /// The one attribute that a state dict has: the versions of its modules.
    pub(super) fn build(&mut self, state: Object<'a>) -> Result<(), TorchError> {
        let is_metadata = match (self.top(), state) {
            (Some(Object::Dict(_)), Object::Dict(state)) => {
                self.arena.dict(state).iter().all(|(key, _)| *key == Object::Str("_metadata"))
            }
            _ => false,
        };
        if is_metadata { Ok(()) } else { Err(self.wrong("it sets attributes other than a state dict's")) }
    }
}
