//! ONNX messages. `messages.rs` is generated from `tools/onnx_schema/onnx.proto`; fields that this schema does not
//! name stay in each message and are written back.

#[allow(
    clippy::all,
    dead_code,
    unused_imports,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
#[rustfmt::skip]
mod messages;

pub(crate) use messages::*;

/// Numbers of `TensorProto.DataType`.
pub(crate) mod dtype {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const UINT8: i32 = 2;
    pub(crate) const INT8: i32 = 3;
    pub(crate) const UINT16: i32 = 4;
    pub(crate) const INT16: i32 = 5;
    pub(crate) const INT32: i32 = 6;
    pub(crate) const INT64: i32 = 7;
    pub(crate) const STRING: i32 = 8;
    pub(crate) const BOOL: i32 = 9;
    pub(crate) const FLOAT16: i32 = 10;
    pub(crate) const DOUBLE: i32 = 11;
    pub(crate) const UINT32: i32 = 12;
    pub(crate) const UINT64: i32 = 13;
    pub(crate) const COMPLEX64: i32 = 14;
    pub(crate) const COMPLEX128: i32 = 15;
    pub(crate) const BFLOAT16: i32 = 16;
    pub(crate) const UINT4: i32 = 21;
    pub(crate) const INT4: i32 = 22;
    pub(crate) const UINT2: i32 = 25;
    pub(crate) const INT2: i32 = 26;

    /// Names of the types, by number.
    const NAMES: [&str; 29] = [
        "undefined",
        "f32",
        "u8",
        "i8",
        "u16",
        "i16",
        "i32",
        "i64",
        "string",
        "bool",
        "f16",
        "f64",
        "u32",
        "u64",
        "complex64",
        "complex128",
        "bf16",
        "f8e4m3fn",
        "f8e4m3fnuz",
        "f8e5m2",
        "f8e5m2fnuz",
        "u4",
        "i4",
        "f4e2m1",
        "f8e8m0",
        "u2",
        "i2",
        "f6e2m3",
        "f6e3m2",
    ];

    /// What to call a type in a message.
    pub(crate) fn name(data_type: i32) -> String {
        let known = usize::try_from(data_type).ok().and_then(|number| NAMES.get(number));
        known.map_or_else(|| format!("type {data_type}"), |name| (*name).to_owned())
    }

    /// Bits of one element where it is stored as bytes; `None` for strings and for types that are not known.
    pub(crate) fn bits(data_type: i32) -> Option<usize> {
        Some(match data_type {
            25 | 26 => 2,
            21..=23 => 4,
            27 | 28 => 6,
            2 | 3 | 9 | 17..=20 | 24 => 8,
            4 | 5 | 10 | 16 => 16,
            1 | 6 | 12 => 32,
            7 | 11 | 13 | 14 => 64,
            15 => 128,
            _ => return None,
        })
    }

    /// Whether weights of this type can be read as numbers.
    pub(crate) fn is_float(data_type: i32) -> bool {
        matches!(data_type, FLOAT | FLOAT16 | BFLOAT16 | DOUBLE)
    }
}

/// `TensorProto.DataLocation`: the values are in a file beside the model.
pub(crate) const EXTERNAL: i32 = 1;

/// Numbers of `AttributeProto.AttributeType`.
pub(crate) mod attribute_type {
    #[cfg(feature = "rten")]
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const INT: i32 = 2;
    #[cfg(test)]
    pub(crate) const STRING: i32 = 3;
    pub(crate) const INTS: i32 = 7;
}

impl NodeProto {
    /// The operator, with its domain in front unless that is ONNX's own.
    pub(crate) fn operator(&self) -> String {
        match self.domain.as_deref() {
            None | Some("" | "ai.onnx") => self.op_type().to_owned(),
            Some(domain) => format!("{domain}.{}", self.op_type()),
        }
    }

    pub(crate) fn op_type(&self) -> &str {
        self.op_type.as_deref().unwrap_or_default()
    }

    /// The node's name, or that of its first output where it has none.
    pub(crate) fn title(&self) -> &str {
        let name = self.name.as_deref().filter(|name| !name.is_empty());
        name.or_else(|| self.output.first().map(String::as_str)).unwrap_or("(nameless)")
    }

    pub(crate) fn attr(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|a| a.name.as_deref() == Some(name))
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.attr(name).and_then(|a| a.i)
    }

    pub(crate) fn float(&self, name: &str) -> Option<f32> {
        self.attr(name).and_then(|a| a.f)
    }

    pub(crate) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attr(name).map(|a| a.ints.as_slice())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.attr(name).and_then(|a| a.s.as_deref()).and_then(|s| std::str::from_utf8(s).ok())
    }

    /// Sets an integer attribute, which may not have been there.
    pub(crate) fn set_int(&mut self, name: &str, value: i64) {
        let attribute = self.attr_mut(name);
        attribute.i = Some(value);
        attribute.r#type = Some(attribute_type::INT);
    }

    /// Sets a list of integers, which may not have been there.
    pub(crate) fn set_ints(&mut self, name: &str, values: Vec<i64>) {
        let attribute = self.attr_mut(name);
        attribute.ints = values;
        attribute.r#type = Some(attribute_type::INTS);
    }

    fn attr_mut(&mut self, name: &str) -> &mut AttributeProto {
        let found = self.attribute.iter().position(|a| a.name.as_deref() == Some(name));
        let at = found.unwrap_or_else(|| {
            self.attribute.push(AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() });
            self.attribute.len() - 1
        });
        &mut self.attribute[at]
    }
}
