//! ONNX files in and out.
//!
//! A message is decoded without copying: raw values are slices of the bytes that were read. After that every tensor
//! is held against its dimensions, so that code further up can trust them.

mod external;
mod place;
mod tensor;
mod walk;
mod write;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;

use buffa::bytes::Bytes;
use buffa::{DecodeError, DecodeOptions};

use crate::format::io;
use crate::kernel::par;
use crate::onnx::Graph;
use crate::onnx::file::place::Place;
use crate::onnx::proto::ModelProto;
use crate::{Error, ErrorKind, Result};

pub(crate) use place::dims;
pub(crate) use tensor::{floats, integers, put_floats};
pub(crate) use write::{to_bytes, write};

/// The most bytes of a protobuf message.
const MAX_MESSAGE: u64 = buffa::MAX_MESSAGE_BYTES as u64;
/// Messages within messages that are read; three are a subgraph.
const DEEPEST: u32 = 100;
/// The memory of nodes, attributes and names against the file's size. They take more room than their bytes; weights
/// do not. Small files may be all nodes, large ones are mostly weights.
const SMALL: (usize, usize) = (64, 1 << 20);
const LARGE: (usize, usize) = (8, 1 << 26);
/// The IR version from which on a model names its operator sets.
const OPSETS_SINCE: i64 = 3;

pub(crate) fn read(path: &Path) -> Result<Graph> {
    let bytes = bytes_of(path)?;
    from_bytes(bytes, Some(external::folder_of(path))).map_err(|e| e.context(path.display()))
}

pub(crate) fn from_bytes(bytes: Vec<u8>, folder: Option<&Path>) -> Result<Graph> {
    let mut model = decode(bytes.into())?;
    walk::tensors(&mut model, &mut |tensor, _| Place::of(tensor, folder).map(drop))?;
    let graph = Graph { model, folder: folder.map(Path::to_owned) };
    graph.view()?;
    Ok(graph)
}

/// A file that can be one message.
fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| io(path, &e))?;
    let whole = file.metadata().map_err(|e| io(path, &e))?;
    if whole.is_dir() {
        return Err(Error::new(ErrorKind::Io, format!("{}: is a folder", path.display())));
    }
    let too_long = |len: u64| {
        let what = format!("{len} bytes are no ONNX model, which is at most {MAX_MESSAGE}");
        Error::format(what).context(path.display())
    };
    if whole.len() > MAX_MESSAGE {
        return Err(too_long(whole.len()));
    }
    if whole.is_file() {
        return pieces_of(path, whole.len() as usize);
    }
    let mut bytes = Vec::new();
    // What is no plain file does not tell its length.
    file.take(MAX_MESSAGE + 1).read_to_end(&mut bytes).map_err(|e| io(path, &e))?;
    if bytes.len() as u64 > MAX_MESSAGE { Err(too_long(bytes.len() as u64)) } else { Ok(bytes) }
}

/// A file of this length, read in several places at once: filling new memory takes as long as reading.
fn pieces_of(path: &Path, len: usize) -> Result<Vec<u8>> {
    const PIECE: usize = 1 << 23;
    let mut bytes = vec![0; len];
    let failed = Mutex::new(None);
    par::for_chunks_mut(&mut bytes, PIECE, |k, piece| {
        let mut read = || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start((k * PIECE) as u64))?;
            file.read_exact(piece)
        };
        if let (Err(error), Ok(mut failed)) = (read(), failed.lock()) {
            failed.get_or_insert(error);
        }
    });
    match failed.into_inner().unwrap_or(None) {
        Some(error) => Err(io(path, &error)),
        None => Ok(bytes),
    }
}

fn decode(mut bytes: Bytes) -> Result<ModelProto> {
    if bytes.is_empty() {
        return Err(Error::format("0 bytes are no ONNX model"));
    }
    let within = |(factor, more): (usize, usize)| bytes.len().saturating_mul(factor).saturating_add(more);
    let options = DecodeOptions::new()
        .with_recursion_limit(DEEPEST)
        .with_element_memory_limit(within(SMALL).min(within(LARGE)))
        .with_unknown_field_limit((within(SMALL).min(within(LARGE))) / 64);
    let model: ModelProto = options.decode(&mut bytes).map_err(|e| Error::format(refusal(&e)))?;
    if !model.graph.is_set() {
        return Err(Error::format("no ONNX model: it holds no graph"));
    }
    // Fields of a message have no end mark: a file may be cut off between two of them.
    if model.ir_version.is_some_and(|version| version >= OPSETS_SINCE) && model.opset_import.is_empty() {
        return Err(Error::format("the model names no operator set; the file may be cut off"));
    }
    Ok(model)
}

fn refusal(error: &DecodeError) -> String {
    match error {
        DecodeError::UnexpectedEof => "no ONNX model, or one that is cut off".to_owned(),
        DecodeError::RecursionLimitExceeded => {
            format!("messages are nested deeper than {DEEPEST}, or it is no ONNX model")
        }
        DecodeError::ElementMemoryLimitExceeded | DecodeError::UnknownFieldLimitExceeded => {
            "no ONNX model: it holds more parts than a file of this size has".to_owned()
        }
        other => format!("no ONNX model: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use buffa::Message;

    use super::*;
    use crate::format::tensors::{scratch, shared};
    use crate::onnx::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, dtype};

    fn error(bytes: &[u8]) -> String {
        from_bytes(bytes.to_vec(), None).unwrap_err().to_string()
    }

    fn model(graph: GraphProto) -> ModelProto {
        ModelProto { graph: graph.into(), ..ModelProto::default() }
    }

    /// Dimensions that nothing fills.
    fn liar() -> TensorProto {
        let dims = vec![1 << 40];
        TensorProto { name: Some("w".into()), dims, data_type: Some(dtype::FLOAT), ..TensorProto::default() }
    }

    #[test]
    fn what_is_no_model_is_told() {
        assert_eq!(error(b""), "0 bytes are no ONNX model");
        assert_eq!(error(b"PK\x03\x04\x14\x00"), "no ONNX model: invalid field number");
        assert_eq!(error(b"\x08\x07"), "no ONNX model: it holds no graph");
        assert_eq!(error(b"\x08\x07\x3a\x05\x0a"), "no ONNX model, or one that is cut off");
        assert_eq!(error(b"\x08\x07\x3a\x00"), "the model names no operator set; the file may be cut off");
        assert!(from_bytes(b"\x3a\x00".to_vec(), None).is_ok());
        let folder = scratch("onnx-none");
        let path = folder.join("a.onnx");
        let missing = read(&path).unwrap_err();
        assert!(missing.kind() == ErrorKind::Io && missing.to_string().contains("a.onnx"), "{missing}");
        std::fs::write(&path, b"").unwrap();
        assert!(read(&path).unwrap_err().to_string().ends_with("a.onnx: 0 bytes are no ONNX model"));
        assert!(read(&folder).unwrap_err().to_string().ends_with(": is a folder"));
        // Three GiB that take no room on the disk.
        File::create(&path).unwrap().set_len(3 << 30).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("3221225472 bytes are no ONNX model"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_lie_is_told_wherever_it_is() {
        let lie = "tensor `w`: f32 of shape [1099511627776] are 1099511627776 values, and 0 are there";
        let of = |graph: GraphProto| error(&model(graph).encode_to_vec());
        assert_eq!(of(GraphProto { initializer: vec![liar()], ..GraphProto::default() }), lie);
        let value =
            AttributeProto { name: Some("value".into()), t: liar().into(), ..AttributeProto::default() };
        let node = NodeProto {
            name: Some("c".into()),
            op_type: Some("Constant".into()),
            output: vec!["c".into()],
            attribute: vec![value],
            ..NodeProto::default()
        };
        let body = GraphProto { node: vec![node.clone()], ..GraphProto::default() };
        assert_eq!(of(body.clone()), format!("node `c`: attribute `value`: {lie}"));
        let branch =
            AttributeProto { name: Some("body".into()), g: body.into(), ..AttributeProto::default() };
        let outer = NodeProto { name: Some("l".into()), attribute: vec![branch], ..NodeProto::default() };
        let nested = GraphProto { node: vec![outer], ..GraphProto::default() };
        assert_eq!(of(nested), format!("node `l`: attribute `body`: node `c`: attribute `value`: {lie}"));
        let mut whole = model(GraphProto::default());
        let function = FunctionProto { name: Some("f".into()), node: vec![node], ..FunctionProto::default() };
        whole.functions.push(function);
        let told = error(&whole.encode_to_vec());
        assert_eq!(told, format!("function `f`: node `c`: attribute `value`: {lie}"));
    }

    #[test]
    fn nesting_is_bounded() {
        let nest = |depth: usize| {
            (0..depth).fold(GraphProto::default(), |body, _| {
                let branch = AttributeProto { g: body.into(), ..AttributeProto::default() };
                let node = NodeProto { attribute: vec![branch], ..NodeProto::default() };
                GraphProto { node: vec![node], ..GraphProto::default() }
            })
        };
        assert!(from_bytes(model(nest(32)).encode_to_vec(), None).is_ok());
        assert!(error(&model(nest(33)).encode_to_vec()).contains("nested deeper than"));
        // A message built by hand, each length around the one before: 20,000 subgraphs.
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..20_000 {
            for tag in [0x32, 0x2a, 0x0a] {
                let mut outer = vec![tag];
                buffa::encoding::encode_varint(bytes.len() as u64, &mut outer);
                outer.append(&mut bytes);
                bytes = outer;
            }
        }
        let mut outer = vec![0x3a];
        buffa::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.append(&mut bytes);
        assert!(error(&outer).contains("nested deeper than 100"), "{}", error(&outer));
    }

    #[test]
    fn many_empty_parts_are_refused() {
        // Two bytes each: an empty node.
        let mut bytes = vec![0x3a];
        buffa::encoding::encode_varint(4 << 20, &mut bytes);
        bytes.extend(std::iter::repeat_n([0x0a, 0x00], 2 << 20).flatten());
        assert_eq!(error(&bytes), "no ONNX model: it holds more parts than a file of this size has");
    }

    #[test]
    fn unedited_models_keep_every_field() {
        // Field 6 of a model is a text that the schema does not name, field 99 nobody's.
        let known = b"\x08\x07\x42\x02\x10\x11\x3a\x00";
        let bytes = [&known[..], b"\x32\x03doc", b"\x9a\x06\x02hi"].concat();
        let graph = from_bytes(bytes.clone(), None).unwrap();
        let again = to_bytes(&graph).unwrap();
        assert_eq!((again.len(), again.ends_with(b"\x32\x03doc\x9a\x06\x02hi")), (bytes.len(), true));
        for name in [
            "mnist-cnn/model.onnx",
            "ppocr-cls/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            "basic-pitch/nmp.onnx",
            "silero/silero_vad_16k_op15.onnx",
        ] {
            let Some(path) = shared(&format!("data/{name}")) else { continue };
            same_again(&path);
        }
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx");
        for path in std::fs::read_dir(own).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|e| e == "onnx") {
                same_again(&path);
            }
        }
    }

    fn same_again(path: &Path) {
        let graph = read(path).unwrap();
        let message = graph.model.encode_to_vec();
        assert_eq!(message.len() as u64, std::fs::metadata(path).unwrap().len(), "{}", path.display());
        let again = from_bytes(message, graph.folder.as_deref()).unwrap();
        assert_eq!(again.model, graph.model, "{}", path.display());
    }
}
