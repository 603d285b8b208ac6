//! Writing tensors one after the other, without the file in memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::Write;
use std::path::Path;

use ::safetensors::Dtype;
use ndarray::ArrayViewD;
use serde_json::Value;

use super::{MAX_HEADER, METADATA, dtype, size};
use crate::format::atomic;
use crate::format::data::{Counting, Data};
use crate::format::float::Float;
use crate::{Element, Error, Result};

/// A tensor to be written.
#[derive(Debug)]
pub(crate) struct Tensor<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data<'a>,
}

impl<'a> Tensor<'a> {
    /// An array, in this floating-point type.
    pub(crate) fn array<F: Element>(
        name: impl Into<Cow<'a, str>>,
        array: ArrayViewD<'a, F>,
        float: Float,
    ) -> Self {
        let (name, shape) = (name.into(), array.shape().to_vec());
        let named = name.clone();
        let data = Data::Stream(Box::new(move |out| float.write(&named, &array, out)));
        Self { name, dtype: dtype(float), shape, data }
    }

    /// Its bytes; a stream's are made now.
    pub(crate) fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match &self.data {
            Data::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            stream @ Data::Stream(_) => {
                let mut bytes = Vec::new();
                stream.write(&mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    fn fail<T>(&self, what: impl fmt::Display) -> Result<T> {
        Err(Error::format(format!("tensor `{}`: {what}", self.name)))
    }
}

/// Writes a file: types of wide alignment first, then by name, as the reference writer does; the same tensors give
/// the same bytes. Gives the file's length.
pub(crate) fn save(path: &Path, tensors: &[Tensor<'_>], metadata: &BTreeMap<String, String>) -> Result<u64> {
    let layout = Layout::new(tensors, metadata).map_err(|e| e.context(path.display()))?;
    atomic::write(path, |file| {
        let mut out = Counting { out: std::io::BufWriter::with_capacity(1 << 16, file), bytes: 0 };
        out.write_all(&(layout.header.len() as u64).to_le_bytes())?;
        out.write_all(layout.header.as_bytes())?;
        for tensor in &layout.order {
            let start = out.bytes;
            tensor.data.write(&mut out)?;
            let written = out.bytes - start;
            if size(tensor.dtype, &tensor.shape).map(|n| n as u64) != Some(written) {
                return tensor.fail(format_args!(
                    "{written} bytes are not {} of shape {:?}",
                    tensor.dtype, tensor.shape
                ));
            }
        }
        Ok(out.flush()?)
    })
}

/// The length of the file that [`save`] would write.
pub(crate) fn encoded_len(tensors: &[Tensor<'_>], metadata: &BTreeMap<String, String>) -> Result<u64> {
    let layout = Layout::new(tensors, metadata)?;
    Ok(8 + layout.header.len() as u64 + layout.data)
}

/// The header, and the tensors in the order of the file.
struct Layout<'a, 'b> {
    header: String,
    order: Vec<&'b Tensor<'a>>,
    data: u64,
}

impl<'a, 'b> Layout<'a, 'b> {
    fn new(tensors: &'b [Tensor<'a>], metadata: &BTreeMap<String, String>) -> Result<Self> {
        let mut order: Vec<_> = tensors.iter().collect();
        order.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        check_names(&order)?;
        let mut parts = Vec::with_capacity(order.len() + 1);
        if !metadata.is_empty() {
            let words: Vec<_> =
                metadata.iter().map(|(k, v)| format!("{}:{}", quoted(k), quoted(v))).collect();
            parts.push(format!("{}:{{{}}}", quoted(METADATA), words.join(",")));
        }
        let mut begin = 0usize;
        for tensor in &order {
            let end = size(tensor.dtype, &tensor.shape).and_then(|n| begin.checked_add(n));
            let Some(end) = end else {
                return tensor.fail(format_args!(
                    "{} of shape {:?} is no number of bytes",
                    tensor.dtype, tensor.shape
                ));
            };
            let shape: Vec<_> = tensor.shape.iter().map(usize::to_string).collect();
            parts.push(format!(
                r#"{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{begin},{end}]}}"#,
                quoted(&tensor.name),
                tensor.dtype,
                shape.join(","),
            ));
            begin = end;
        }
        let mut header = format!("{{{}}}", parts.join(","));
        let padding = header.len().next_multiple_of(8) - header.len();
        header.extend(std::iter::repeat_n(' ', padding));
        if header.len() as u64 > MAX_HEADER {
            let len = header.len();
            return Err(Error::format(format!(
                "the header's length {len} is past the limit of {MAX_HEADER}"
            )));
        }
        Ok(Self { header, order, data: begin as u64 })
    }
}

fn check_names(tensors: &[&Tensor<'_>]) -> Result<()> {
    let mut names = HashSet::with_capacity(tensors.len());
    for tensor in tensors {
        if tensor.name == METADATA {
            return Err(Error::name(format!("`{METADATA}` cannot name a tensor")));
        }
        if !names.insert(&*tensor.name) {
            return Err(Error::name(format!("two tensors are named `{}`", tensor.name)));
        }
    }
    Ok(())
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::format::container::Reader;
    use crate::format::tensors::scratch;

    fn bytes(name: &'static str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Tensor<'static> {
        Tensor { name: name.into(), dtype, shape: shape.to_vec(), data: Data::Bytes(bytes.into()) }
    }

    #[test]
    fn same_bytes_as_the_reference_writer() {
        let folder = scratch("container-reference");
        let path = folder.join("a.safetensors");
        let metadata = BTreeMap::from([("format".to_owned(), "p\"t\u{1f33f}\n".to_owned())]);
        let tensors = [
            bytes("a", Dtype::U8, &[3], vec![1, 2, 3]),
            bytes("z", Dtype::F32, &[2, 1], vec![4; 8]),
            bytes("b.\"é", Dtype::F32, &[], vec![5; 4]),
            bytes("h", Dtype::F16, &[0, 7], vec![]),
            bytes("c", Dtype::BF16, &[1], vec![7, 8]),
        ];
        let written = save(&path, &tensors, &metadata).unwrap();
        let views = tensors.iter().map(|t| {
            let Data::Bytes(bytes) = &t.data else { unreachable!() };
            (
                t.name.to_string(),
                ::safetensors::tensor::TensorView::new(t.dtype, t.shape.clone(), bytes).unwrap(),
            )
        });
        let reference =
            ::safetensors::serialize(views, Some(metadata.clone().into_iter().collect())).unwrap();
        let ours = std::fs::read(&path).unwrap();
        assert_eq!(ours, reference);
        assert_eq!(written, ours.len() as u64);
        assert_eq!(encoded_len(&tensors, &metadata).unwrap(), written);
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.metadata(), &metadata);
        let entry = reader.entries().iter().find(|e| e.name == "a").unwrap();
        assert_eq!(reader.data(entry).unwrap(), [1, 2, 3]);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let folder = scratch("container-refusals");
        let path = folder.join("a.safetensors");
        let none = BTreeMap::new();
        let refused = |tensors: &[Tensor<'_>]| save(&path, tensors, &none).unwrap_err();
        let short = refused(&[bytes("w", Dtype::F32, &[2], vec![0; 4])]);
        assert!(short.to_string().ends_with("tensor `w`: 4 bytes are not F32 of shape [2]"), "{short}");
        let twice = refused(&[bytes("w", Dtype::U8, &[0], vec![]), bytes("w", Dtype::F32, &[0], vec![])]);
        assert_eq!(twice.kind(), ErrorKind::Name);
        assert_eq!(refused(&[bytes(METADATA, Dtype::U8, &[0], vec![])]).kind(), ErrorKind::Name);
        assert_eq!(refused(&[bytes("w", Dtype::U8, &[usize::MAX, 2], vec![])]).kind(), ErrorKind::Format);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
