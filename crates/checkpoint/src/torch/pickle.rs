//! An interpreter for the pickles of state dicts, and for nothing else.
//!
//! A pickle is a program for a stack machine. The instructions and the names that plain tensors need are listed here;
//! whatever else a pickle asks for is refused, by name, before anything happens. Nothing is ever run.
//!
//! Memory is bounded: texts are slices of the input, every compound object is an index into an [`Arena`], so that nothing
//! is ever copied, followed or dropped recursively, and each of the at most [`MAX_INSTRUCTIONS`] instructions adds at
//! most one object.

mod rebuild;

use std::collections::HashMap;

use super::TorchError;
use super::globals::{Element, Global};

/// A tensor takes about forty instructions: this is enough for fifty thousand of them.
pub(super) const MAX_INSTRUCTIONS: usize = 1 << 21;

/// Far more than any weight has. PyTorch allows 64, but a hostile file could give a million names to one tensor of that many.
const MAX_RANK: usize = 16;

/// The newest protocol of Python's pickle.
const NEWEST_PROTOCOL: u8 = 5;

/// What a pickle makes. Compound objects are indices into the [`Arena`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little-endian.
    Long(&'a [u8]),
    Float,
    Str(&'a str),
    Tuple(Span),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

/// The items of a tuple, within [`Arena::items`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    start: usize,
    length: usize,
}

/// A storage as the pickle names it, or a part of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    pub element: Element,
    /// The size of the whole storage, in elements.
    pub elements: i64,
    /// In the older format a storage may be a part of another: where it begins and how long it is, in elements.
    pub part: Option<(i64, i64)>,
}

/// A tensor as the pickle describes it; nothing of it is checked against its storage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensor {
    /// Index of its storage in [`Arena::storages`].
    pub storage: usize,
    /// As PyTorch spells it.
    pub dtype: &'static str,
    pub offset: i64,
    pub shape: Span,
    pub strides: Span,
}

/// All compound objects of a pickle.
#[derive(Debug, Default)]
pub(super) struct Arena<'a> {
    items: Vec<Object<'a>>,
    lists: Vec<Vec<Object<'a>>>,
    dicts: Vec<Vec<(Object<'a>, Object<'a>)>>,
    pub storages: Vec<Storage<'a>>,
    pub tensors: Vec<Tensor>,
}

impl<'a> Arena<'a> {
    pub fn tuple(&self, span: Span) -> &[Object<'a>] {
        self.items.get(span.start..span.start + span.length).unwrap_or_default()
    }

    pub fn list(&self, list: usize) -> &[Object<'a>] {
        self.lists.get(list).map_or(&[], Vec::as_slice)
    }

    pub fn dict(&self, dict: usize) -> &[(Object<'a>, Object<'a>)] {
        self.dicts.get(dict).map_or(&[], Vec::as_slice)
    }

    /// The integers of a tuple that is a shape or a list of strides.
    pub fn integers(&self, span: Span) -> impl Iterator<Item = i64> {
        self.tuple(span).iter().map(|item| match item {
            Object::Int(integer) => *integer,
            // A tensor is made of tuples of integers only: see `Machine::sizes`.
            _ => -1,
        })
    }
}

/// What a pickle left on the stack.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub object: Object<'a>,
    pub arena: Arena<'a>,
    /// How many bytes it took.
    pub length: usize,
}

/// Follows the pickle that begins with these bytes. What comes after it is left alone.
pub(super) fn load(bytes: &[u8]) -> Result<Pickle<'_>, TorchError> {
    let mut machine = Machine {
        bytes,
        next: 0,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        arena: Arena::default(),
    };
    for _ in 0..MAX_INSTRUCTIONS {
        machine.at = machine.next;
        let [opcode] = machine.array()?;
        if opcode == b'.' {
            let object = machine.pop()?;
            if !machine.stack.is_empty() || !machine.marks.is_empty() {
                return Err(machine.wrong("it ends with more than one object"));
            }
            return Ok(Pickle { object, arena: machine.arena, length: machine.next });
        }
        machine.step(opcode)?;
    }
    Err(TorchError::TooLong { limit: MAX_INSTRUCTIONS })
}

struct Machine<'a> {
    bytes: &'a [u8],
    /// Where the next byte lies.
    next: usize,
    /// Where this instruction began.
    at: usize,
    stack: Vec<Object<'a>>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Object<'a>>,
    arena: Arena<'a>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Result<(), TorchError> {
        let object = match opcode {
            // PROTO, FRAME: nothing that a reader of bytes in memory needs.
            0x80 => {
                let [protocol] = self.array()?;
                if protocol > NEWEST_PROTOCOL {
                    return Err(self.wrong("its protocol is newer than any known"));
                }
                return Ok(());
            }
            0x95 => return self.array::<8>().map(drop),
            // MARK
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            b'N' => Object::None,
            0x88 => Object::Bool(true),
            0x89 => Object::Bool(false),
            // BININT, BININT1, BININT2, LONG1, BINFLOAT
            b'J' => Object::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Object::Int(u8::from_le_bytes(self.array()?).into()),
            b'M' => Object::Int(u16::from_le_bytes(self.array()?).into()),
            0x8a => self.long()?,
            b'G' => {
                self.array::<8>()?;
                Object::Float
            }
            // BINUNICODE, SHORT_BINUNICODE; BINSTRING, SHORT_BINSTRING, which Python 2 wrote
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length)?
            }
            0x8c | b'U' => {
                let [length] = self.array()?;
                self.text(length.into())?
            }
            b']' => {
                self.arena.lists.push(Vec::new());
                Object::List(self.arena.lists.len() - 1)
            }
            b'}' => self.dict(),
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.tuple(0)?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let count = self.above_mark()?;
                self.tuple(count)?
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let [key] = self.array()?;
                return self.put(key.into());
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                return self.put(key);
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                return self.put(key);
            }
            // BINGET, LONG_BINGET
            b'h' => {
                let [key] = self.array()?;
                self.get(key.into())?
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.get(key)?
            }
            // APPEND, APPENDS
            b'a' => return self.append(1),
            b'e' => {
                let count = self.above_mark()?;
                return self.append(count);
            }
            // SETITEM, SETITEMS
            b's' => return self.set_items(2),
            b'u' => {
                let count = self.above_mark()?;
                return self.set_items(count);
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                Object::Global(Global::named(module, name)?)
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Object::Str(name), Object::Str(module)) => Object::Global(Global::named(module, name)?),
                _ => return Err(self.wrong("a global's name is not a text")),
            },
            // BINPERSID, REDUCE, BUILD
            b'Q' => {
                let id = self.pop()?;
                self.storage(id)?
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.reduce(callable, arguments)?
            }
            b'b' => {
                let state = self.pop()?;
                return self.build(state);
            }
            opcode => return Err(TorchError::Opcode { opcode, at: self.at }),
        };
        self.stack.push(object);
        Ok(())
    }

    fn wrong(&self, reason: &'static str) -> TorchError {
        TorchError::Pickle { at: self.at, reason }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], TorchError> {
        let bytes: &'a [u8] = self.bytes;
        let end = self.next.checked_add(count);
        let taken = end.and_then(|end| bytes.get(self.next..end));
        let taken = taken.ok_or(TorchError::PickleTruncated { at: self.at })?;
        self.next += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TorchError> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| TorchError::PickleTruncated { at })
    }

    fn text(&mut self, length: u32) -> Result<Object<'a>, TorchError> {
        let length = usize::try_from(length).map_err(|_| self.wrong("a text is too long"))?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(Object::Str).map_err(|_| self.wrong("a text is not UTF-8"))
    }

    /// Up to the end of the line.
    fn line(&mut self) -> Result<&'a str, TorchError> {
        let bytes: &'a [u8] = self.bytes;
        let rest = bytes.get(self.next..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or(TorchError::PickleTruncated { at: self.at })?;
        let line = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| self.wrong("a text is not UTF-8"))
    }

    /// A two's complement integer of as many bytes as it says.
    fn long(&mut self) -> Result<Object<'a>, TorchError> {
        let [length] = self.array()?;
        let bytes = self.take(length.into())?;
        if bytes.len() > size_of::<i64>() {
            return Ok(Object::Long(bytes));
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut integer = [if negative { 0xff } else { 0 }; size_of::<i64>()];
        integer[..bytes.len()].copy_from_slice(bytes);
        Ok(Object::Int(i64::from_le_bytes(integer)))
    }

    /// How many objects may be taken: those above the last mark.
    fn available(&self) -> usize {
        self.stack.len() - self.marks.last().copied().unwrap_or(0).min(self.stack.len())
    }

    fn pop(&mut self) -> Result<Object<'a>, TorchError> {
        let object = if self.available() == 0 { None } else { self.stack.pop() };
        object.ok_or_else(|| self.wrong("it takes an object that is not there"))
    }

    /// The last `count` objects.
    fn pop_many(&mut self, count: usize) -> Result<Vec<Object<'a>>, TorchError> {
        if self.available() < count {
            return Err(self.wrong("it takes an object that is not there"));
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    /// Forgets the last mark; gives how many objects were above it.
    fn above_mark(&mut self) -> Result<usize, TorchError> {
        let count = self.available();
        self.marks.pop().map(|_| count).ok_or_else(|| self.wrong("it goes back to a mark that is not there"))
    }

    fn top(&self) -> Option<Object<'a>> {
        if self.available() == 0 { None } else { self.stack.last().copied() }
    }

    fn put(&mut self, key: u32) -> Result<(), TorchError> {
        let top = self.top().ok_or_else(|| self.wrong("it keeps an object that is not there"))?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&self, key: u32) -> Result<Object<'a>, TorchError> {
        self.memo.get(&key).copied().ok_or_else(|| self.wrong("it recalls an object that was never kept"))
    }

    fn dict(&mut self) -> Object<'a> {
        self.arena.dicts.push(Vec::new());
        Object::Dict(self.arena.dicts.len() - 1)
    }

    fn tuple(&mut self, length: usize) -> Result<Object<'a>, TorchError> {
        let items = self.pop_many(length)?;
        let start = self.arena.items.len();
        self.arena.items.extend(items);
        Ok(Object::Tuple(Span { start, length }))
    }

    fn append(&mut self, count: usize) -> Result<(), TorchError> {
        let items = self.pop_many(count)?;
        let list = match self.top() {
            Some(Object::List(list)) => self.arena.lists.get_mut(list),
            _ => None,
        };
        let Some(list) = list else { return Err(self.wrong("it appends to what is not a list")) };
        list.extend(items);
        Ok(())
    }

    fn set_items(&mut self, count: usize) -> Result<(), TorchError> {
        let items = self.pop_many(count)?;
        let (pairs, []) = items.as_chunks::<2>() else { return Err(self.wrong("a key has no value")) };
        let dict = match self.top() {
            Some(Object::Dict(dict)) => self.arena.dicts.get_mut(dict),
            _ => None,
        };
        let Some(dict) = dict else { return Err(self.wrong("it sets an item of what is not a dict")) };
        dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }
}
