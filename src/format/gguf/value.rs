//! Metadata: keys and typed values, in the order of the file.

use std::fmt::{self, Display};

/// A value of a file's metadata.
///
/// ```
/// use niwaki::format::gguf::{List, Value};
/// let value = Value::from("llama");
/// assert_eq!((value.as_text(), value.to_string()), (Some("llama"), "llama".to_owned()));
/// assert_eq!(Value::List(List::U8(vec![1, 2])).to_string(), "2 numbers");
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// 8 bits without a sign.
    U8(u8),
    /// 8 bits.
    I8(i8),
    /// 16 bits without a sign.
    U16(u16),
    /// 16 bits.
    I16(i16),
    /// 32 bits without a sign.
    U32(u32),
    /// 32 bits.
    I32(i32),
    /// Single precision.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// Words.
    Text(String),
    /// Several of one type.
    List(List),
    /// 64 bits without a sign.
    U64(u64),
    /// 64 bits.
    I64(i64),
    /// Double precision.
    F64(f64),
}

/// Values of one type. Empty ones have a type too.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum List {
    /// 8 bits without a sign.
    U8(Vec<u8>),
    /// 8 bits.
    I8(Vec<i8>),
    /// 16 bits without a sign.
    U16(Vec<u16>),
    /// 16 bits.
    I16(Vec<i16>),
    /// 32 bits without a sign.
    U32(Vec<u32>),
    /// 32 bits.
    I32(Vec<i32>),
    /// Single precision.
    F32(Vec<f32>),
    /// True or false.
    Bool(Vec<bool>),
    /// Words.
    Text(Vec<String>),
    /// Lists, each with a type of its own.
    Lists(Vec<List>),
    /// 64 bits without a sign.
    U64(Vec<u64>),
    /// 64 bits.
    I64(Vec<i64>),
    /// Double precision.
    F64(Vec<f64>),
}

/// Numbers of the types in a file.
pub(super) mod types {
    pub(in crate::format::gguf) const U8: u32 = 0;
    pub(in crate::format::gguf) const I8: u32 = 1;
    pub(in crate::format::gguf) const U16: u32 = 2;
    pub(in crate::format::gguf) const I16: u32 = 3;
    pub(in crate::format::gguf) const U32: u32 = 4;
    pub(in crate::format::gguf) const I32: u32 = 5;
    pub(in crate::format::gguf) const F32: u32 = 6;
    pub(in crate::format::gguf) const BOOL: u32 = 7;
    pub(in crate::format::gguf) const TEXT: u32 = 8;
    pub(in crate::format::gguf) const ARRAY: u32 = 9;
    pub(in crate::format::gguf) const U64: u32 = 10;
    pub(in crate::format::gguf) const I64: u32 = 11;
    pub(in crate::format::gguf) const F64: u32 = 12;
}

impl Value {
    /// The words, if that is what it is.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Type and bytes, as in a file.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut put = |kind: u32, bytes: &[u8]| {
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Self::U8(x) => put(types::U8, &x.to_le_bytes()),
            Self::I8(x) => put(types::I8, &x.to_le_bytes()),
            Self::U16(x) => put(types::U16, &x.to_le_bytes()),
            Self::I16(x) => put(types::I16, &x.to_le_bytes()),
            Self::U32(x) => put(types::U32, &x.to_le_bytes()),
            Self::I32(x) => put(types::I32, &x.to_le_bytes()),
            Self::F32(x) => put(types::F32, &x.to_le_bytes()),
            Self::Bool(x) => put(types::BOOL, &[u8::from(*x)]),
            Self::U64(x) => put(types::U64, &x.to_le_bytes()),
            Self::I64(x) => put(types::I64, &x.to_le_bytes()),
            Self::F64(x) => put(types::F64, &x.to_le_bytes()),
            Self::Text(text) => {
                out.extend(types::TEXT.to_le_bytes());
                write_text(text, out);
            }
            Self::List(array) => {
                out.extend(types::ARRAY.to_le_bytes());
                array.write(out);
            }
        }
    }
}

impl List {
    /// How many values it has.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(all) => all.len(),
            Self::I8(all) => all.len(),
            Self::U16(all) => all.len(),
            Self::I16(all) => all.len(),
            Self::U32(all) => all.len(),
            Self::I32(all) => all.len(),
            Self::F32(all) => all.len(),
            Self::Bool(all) => all.len(),
            Self::Text(all) => all.len(),
            Self::Lists(all) => all.len(),
            Self::U64(all) => all.len(),
            Self::I64(all) => all.len(),
            Self::F64(all) => all.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn write(&self, out: &mut Vec<u8>) {
        let count = self.len() as u64;
        let mut head = |kind: u32| {
            out.extend(kind.to_le_bytes());
            out.extend(count.to_le_bytes());
        };
        macro_rules! numbers {
            ($kind:expr, $all:expr) => {{
                head($kind);
                for x in $all {
                    out.extend(x.to_le_bytes());
                }
            }};
        }
        match self {
            Self::U8(all) => numbers!(types::U8, all),
            Self::I8(all) => numbers!(types::I8, all),
            Self::U16(all) => numbers!(types::U16, all),
            Self::I16(all) => numbers!(types::I16, all),
            Self::U32(all) => numbers!(types::U32, all),
            Self::I32(all) => numbers!(types::I32, all),
            Self::F32(all) => numbers!(types::F32, all),
            Self::U64(all) => numbers!(types::U64, all),
            Self::I64(all) => numbers!(types::I64, all),
            Self::F64(all) => numbers!(types::F64, all),
            Self::Bool(all) => {
                head(types::BOOL);
                out.extend(all.iter().map(|&x| u8::from(x)));
            }
            Self::Text(all) => {
                head(types::TEXT);
                for text in all {
                    write_text(text, out);
                }
            }
            Self::Lists(all) => {
                head(types::ARRAY);
                for array in all {
                    array.write(out);
                }
            }
        }
    }
}

pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Numbers and words as they are, arrays by their length.
impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(x) => x.fmt(f),
            Self::I8(x) => x.fmt(f),
            Self::U16(x) => x.fmt(f),
            Self::I16(x) => x.fmt(f),
            Self::U32(x) => x.fmt(f),
            Self::I32(x) => x.fmt(f),
            Self::F32(x) => x.fmt(f),
            Self::Bool(x) => x.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::U64(x) => x.fmt(f),
            Self::I64(x) => x.fmt(f),
            Self::F64(x) => x.fmt(f),
            Self::List(array @ List::Text(_)) => write!(f, "{} words", array.len()),
            Self::List(array @ List::Lists(_)) => write!(f, "{} lists", array.len()),
            Self::List(array) => write!(f, "{} numbers", array.len()),
        }
    }
}

macro_rules! from {
    ($($type:ty => $name:ident),*) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$name(value)
            }
        }
    )*};
}

from!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, bool => Bool, String => Text,
    List => List, u64 => U64, i64 => I64, f64 => F64);

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Keys and values in the order of the file; a key is there once.
///
/// ```
/// use niwaki::format::gguf::{Metadata, Value};
/// let mut metadata = Metadata::new();
/// metadata.set("general.architecture", "llama");
/// metadata.set("llama.block_count", 2u32);
/// metadata.set("general.architecture", "gemma");
/// assert_eq!(metadata.get("llama.block_count"), Some(&Value::U32(2)));
/// assert_eq!(metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["general.architecture", "llama.block_count"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    pairs: Vec<(String, Value)>,
}

impl Metadata {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pairs.iter().find(|(other, _)| other == key).map(|(_, value)| value)
    }

    /// Sets a value: in the place of an earlier one, or as the last.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.pairs.iter_mut().find(|(other, _)| *other == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key, value)),
        }
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Pairs whose keys are known to differ.
    pub(super) fn of(pairs: Vec<(String, Value)>) -> Self {
        Self { pairs }
    }
}
