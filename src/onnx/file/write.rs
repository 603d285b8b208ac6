//! Writing a model: one message, or one with a data file beside it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use buffa::{Message, Rope, SizeCache};

use crate::format::atomic;
use crate::onnx::Graph;
use crate::onnx::file::MAX_MESSAGE;
use crate::onnx::file::external::{External, folder_of};
use crate::onnx::file::place::{Place, title};
use crate::onnx::file::tensor::clear_values;
use crate::onnx::file::walk::{self, Role};
use crate::onnx::proto::{EXTERNAL, ModelProto, StringStringEntryProto, TensorProto};
use crate::{Error, Result};

/// When a model's values go to a data file, and which.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// The most bytes of one message.
    message: u64,
    /// From how many bytes on a tensor goes out.
    tensor: u64,
    /// From how many bytes on it begins on a page.
    page: u64,
}

/// Those of the `onnx` package, but that small tensors are aligned too.
const LIMITS: Limits = Limits { message: MAX_MESSAGE, tensor: 1 << 10, page: 1 << 20 };
const PAGE: u64 = 4096;
/// Where tensors below a page's size begin: a line of a cache, and a multiple of every element.
const LINE: u64 = 64;
const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

pub(crate) fn to_bytes(graph: &Graph) -> Result<Vec<u8>> {
    to_bytes_within(graph, LIMITS)
}

/// Writes the model, and its data file if it has one; both are replaced, or none.
pub(crate) fn write(graph: &Graph, path: &Path) -> Result<u64> {
    write_within(graph, path, LIMITS)
}

fn to_bytes_within(graph: &Graph, limits: Limits) -> Result<Vec<u8>> {
    let survey = Survey::of(graph)?;
    if survey.whole() > limits.message {
        return Err(too_large(survey.whole(), limits));
    }
    let (mut model, folder) = (survey.model, graph.folder.as_deref());
    walk::tensors(&mut model, &mut |tensor, _| match tensor.data_location {
        Some(EXTERNAL) => inline(tensor, folder),
        _ => Ok(()),
    })?;
    model.try_encode_to_vec().map_err(|_| too_large(length(&model), limits))
}

fn write_within(graph: &Graph, path: &Path, limits: Limits) -> Result<u64> {
    let survey = Survey::of(graph)?;
    if survey.sources.is_empty() && survey.message <= limits.message {
        return atomic::write(path, |file| encode(&survey.model, file));
    }
    if path.canonicalize().is_ok_and(|path| survey.sources.contains(&path)) {
        let path = path.display();
        return Err(Error::setting(format!("{path}: the model's own values are in this file")));
    }
    let left = survey.message.saturating_sub(survey.initializers(limits));
    let constants = left > limits.message;
    let least = if constants { left.saturating_sub(survey.constants(limits)) } else { left };
    if least > limits.message {
        return Err(too_large(least, limits).context(path.display()));
    }
    let (data, location) = data_path(path, &survey.sources)?;
    let mut model = survey.model;
    atomic::write_two(&data, path, |data, file| {
        let mut out = Data { out: BufWriter::with_capacity(1 << 16, data), at: 0 };
        walk::tensors(&mut model, &mut |tensor, role| {
            let place = Place::of(tensor, graph.folder.as_deref())?;
            let goes = role == Role::Initializer || role == Role::Constant && constants;
            let large = || place.len(tensor).is_ok_and(|len| len >= limits.tensor);
            if matches!(place, Place::External(_)) || goes && large() {
                let External { offset, len, .. } = out.put(tensor, &place, limits)?;
                point(tensor, &location, offset, len);
            }
            Ok(())
        })?;
        out.out.flush()?;
        encode(&model, file)
    })
}

/// What decides how a model is written.
struct Survey {
    /// A copy, which shares raw values with the model.
    model: ModelProto,
    /// The message as it is, without external data.
    message: u64,
    /// Bytes of external data.
    external: u64,
    /// The files that hold them.
    sources: Vec<PathBuf>,
    /// Bytes in the message, by tensor.
    inline: Vec<(Role, u64)>,
}

impl Survey {
    fn of(graph: &Graph) -> Result<Self> {
        let mut model = graph.model.clone();
        let (mut external, mut sources, mut inline) = (0, Vec::new(), Vec::new());
        walk::tensors(&mut model, &mut |tensor, role| {
            match Place::of(tensor, graph.folder.as_deref())? {
                Place::External(part) => {
                    external += part.len;
                    if !sources.contains(&part.path) {
                        sources.push(part.path);
                    }
                }
                place => inline.extend(place.len(tensor).ok().map(|len| (role, len))),
            }
            Ok(())
        })?;
        // The message's own count ends at 4 GiB.
        let message = length(&model).max(inline.iter().map(|(_, len)| len).sum());
        Ok(Self { model, message, external, sources, inline })
    }

    fn whole(&self) -> u64 {
        self.message.saturating_add(self.external)
    }

    fn initializers(&self, limits: Limits) -> u64 {
        self.bytes(Role::Initializer, limits)
    }

    fn constants(&self, limits: Limits) -> u64 {
        self.bytes(Role::Constant, limits)
    }

    fn bytes(&self, role: Role, limits: Limits) -> u64 {
        self.inline.iter().filter(|(of, len)| *of == role && *len >= limits.tensor).map(|(_, len)| len).sum()
    }
}

/// A data file that is being written.
struct Data<W> {
    out: W,
    at: u64,
}

impl<W: Write> Data<W> {
    /// Appends a tensor's values and says where they are.
    fn put(&mut self, tensor: &TensorProto, place: &Place<'_>, limits: Limits) -> Result<External> {
        let len = place.len(tensor)?;
        let offset = self.at.next_multiple_of(if len >= limits.page { PAGE } else { LINE });
        self.out.write_all(&ZEROS[..(offset - self.at) as usize])?;
        let mut written = 0;
        place.pieces(tensor, &mut |bytes| {
            written += bytes.len() as u64;
            Ok(self.out.write_all(bytes)?)
        })?;
        if written != len {
            return Err(Error::format(format!("{}: {written} bytes are not {len}", title(tensor))));
        }
        self.at = offset + len;
        Ok(External { path: PathBuf::new(), offset, len })
    }
}

fn length(model: &ModelProto) -> u64 {
    u64::from(model.compute_size(&mut SizeCache::new()))
}

fn too_large(bytes: u64, limits: Limits) -> Error {
    let limit = limits.message;
    Error::unsupported(format!("the model takes {bytes} bytes as one message, past the limit of {limit}"))
}

/// Writes a message; raw values are not copied on the way.
fn encode(model: &ModelProto, file: &mut File) -> Result<()> {
    let mut rope = Rope::new();
    model.try_encode(&mut rope).map_err(|_| too_large(length(model), LIMITS))?;
    rope.into_segments().iter().try_for_each(|segment| Ok(file.write_all(segment)?))
}

/// Puts external data in the message.
fn inline(tensor: &mut TensorProto, folder: Option<&Path>) -> Result<()> {
    let place = Place::of(tensor, folder)?;
    let mut bytes = Vec::with_capacity(place.len(tensor)? as usize);
    place.pieces(tensor, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    clear_values(tensor);
    tensor.raw_data = Some(bytes.into());
    Ok(())
}

/// Makes a tensor point to the data file instead of holding values. A checksum was that of the file before.
fn point(tensor: &mut TensorProto, location: &str, offset: u64, len: u64) {
    let ours = |key: Option<&str>| matches!(key, Some("location" | "offset" | "length" | "checksum"));
    let mut rest = std::mem::take(&mut tensor.external_data);
    rest.retain(|entry| !ours(entry.key.as_deref()));
    clear_values(tensor);
    let entries =
        [("location", location.to_owned()), ("offset", offset.to_string()), ("length", len.to_string())];
    tensor.external_data = entries.map(|(key, value)| entry(key, value)).into_iter().chain(rest).collect();
    tensor.data_location = Some(EXTERNAL);
}

fn entry(key: &str, value: String) -> StringStringEntryProto {
    StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
        ..StringStringEntryProto::default()
    }
}

/// The data file beside a model, with its name. A file that the model still reads is not replaced: another name is
/// taken.
fn data_path(path: &Path, sources: &[PathBuf]) -> Result<(PathBuf, String)> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        let path = path.display();
        Error::setting(format!("{path}: the name of a model with a data file must be text"))
    })?;
    let folder = folder_of(path);
    let names = std::iter::once(format!("{name}.data")).chain((2..).map(|k| format!("{name}.{k}.data")));
    for location in names {
        let data = folder.join(&location);
        if !data.canonicalize().is_ok_and(|data| sources.contains(&data)) {
            return Ok((data, location));
        }
    }
    Err(Error::setting(format!("{}: no name is left for a data file", path.display())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ErrorKind;
    use crate::format::tensors::scratch;
    use crate::onnx::file::{floats, read};
    use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto, dtype};

    /// Small values of the real limits.
    const TINY: Limits = Limits { message: 2000, tensor: 100, page: 1000 };

    fn values(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|k| k as f32 * 0.5 - seed).collect()
    }

    fn raw(name: &str, values: &[f32]) -> TensorProto {
        TensorProto {
            name: Some(name.into()),
            data_type: Some(dtype::FLOAT),
            dims: vec![values.len() as i64],
            raw_data: Some(values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()),
            ..TensorProto::default()
        }
    }

    fn constant(name: &str, tensor: TensorProto) -> NodeProto {
        let value =
            AttributeProto { name: Some("value".into()), t: tensor.into(), ..AttributeProto::default() };
        NodeProto {
            op_type: Some("Constant".into()),
            output: vec![name.into()],
            attribute: vec![value],
            ..NodeProto::default()
        }
    }

    /// Initializers of 2000, 400 (a list) and 12 bytes, a constant of 1600.
    fn model() -> Graph {
        let listed =
            TensorProto { raw_data: None, float_data: values(100, 2.0), ..raw("b", &values(100, 2.0)) };
        let initializer = vec![raw("a", &values(500, 1.0)), listed, raw("c", &values(3, 3.0))];
        let node = vec![constant("d", raw("", &values(400, 4.0)))];
        let graph = GraphProto { initializer, node, ..GraphProto::default() };
        Graph { model: ModelProto { graph: graph.into(), ..ModelProto::default() }, folder: None }
    }

    fn all(graph: &Graph) -> Vec<Vec<f32>> {
        let mut all = Vec::new();
        let folder = graph.folder.clone();
        walk::tensors(&mut graph.model.clone(), &mut |tensor, _| {
            all.push(floats(tensor, folder.as_deref())?.iter().copied().collect());
            Ok(())
        })
        .unwrap();
        all
    }

    fn files(folder: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    fn location(tensor: &TensorProto) -> Vec<(&str, &str)> {
        let entries = tensor.external_data.iter();
        entries
            .map(|e| (e.key.as_deref().unwrap_or_default(), e.value.as_deref().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn a_small_model_is_one_file() {
        let folder = scratch("onnx-one");
        let (graph, path) = (model(), folder.join("m.onnx"));
        let bytes = write(&graph, &path).unwrap();
        assert_eq!(files(&folder), ["m.onnx"]);
        assert_eq!(fs::read(&path).unwrap(), to_bytes(&graph).unwrap());
        assert_eq!(bytes, fs::metadata(&path).unwrap().len());
        let again = read(&path).unwrap();
        assert_eq!(again.model, graph.model);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_large_model_gets_a_data_file() {
        let folder = scratch("onnx-two");
        let (graph, path) = (model(), folder.join("m.onnx"));
        let error = to_bytes_within(&graph, TINY).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("bytes as one message, past the limit of 2000"), "{error}");
        let bytes = write_within(&graph, &path, TINY).unwrap();
        assert_eq!(files(&folder), ["m.onnx", "m.onnx.data"]);
        let lengths =
            files(&folder).iter().map(|f| fs::metadata(folder.join(f)).unwrap().len()).collect::<Vec<_>>();
        assert_eq!(bytes, lengths.iter().sum::<u64>());
        let again = read(&path).unwrap();
        let tensors = &again.graph().initializer;
        // 2000 bytes begin on a page, 400 on the next line; 12 stay, and so does the constant, for which there is room.
        assert_eq!(location(&tensors[0]), [("location", "m.onnx.data"), ("offset", "0"), ("length", "2000")]);
        assert_eq!(
            location(&tensors[1]),
            [("location", "m.onnx.data"), ("offset", "2048"), ("length", "400")]
        );
        assert!(tensors[1].float_data.is_empty() && tensors[2].raw_data.is_some());
        assert_eq!(lengths[1], 2448);
        assert_eq!(all(&again), all(&graph));
        // With less room the constant goes too, and begins on a page.
        let tight = Limits { message: 1000, ..TINY };
        write_within(&graph, &path, tight).unwrap();
        let again = read(&path).unwrap();
        let value = again.graph().node[0].attr("value").unwrap();
        assert_eq!(location(&value.t)[1..], [("offset", "4096"), ("length", "1600")]);
        assert_eq!(all(&again), all(&graph));
        // Without any, nothing is written.
        let error = write_within(&graph, &folder.join("n.onnx"), Limits { message: 50, ..TINY }).unwrap_err();
        assert!(error.to_string().ends_with("past the limit of 50"), "{error}");
        assert_eq!(files(&folder), ["m.onnx", "m.onnx.data"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn external_data_go_along() {
        let folder = scratch("onnx-along");
        let path = folder.join("m.onnx");
        write_within(&model(), &path, TINY).unwrap();
        let mut graph = read(&path).unwrap();
        // An edited tensor goes out again, small or not what stays in.
        let edited = raw("a", &values(300, 9.0));
        graph.model.graph.get_or_insert_default().initializer[0] = edited;
        let want = all(&graph);
        // Inline: one message with all of it.
        let whole = crate::onnx::file::from_bytes(to_bytes(&graph).unwrap(), None).unwrap();
        assert_eq!(all(&whole), want);
        // Elsewhere.
        let other = folder.join("other");
        fs::create_dir(&other).unwrap();
        write(&graph, &other.join("n.onnx")).unwrap();
        assert_eq!(files(&other), ["n.onnx", "n.onnx.data"]);
        let moved = read(&other.join("n.onnx")).unwrap();
        assert_eq!(all(&moved), want);
        assert_eq!(moved.graph().initializer[0].data_location, Some(EXTERNAL));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_model_is_written_over_itself() {
        let folder = scratch("onnx-over");
        let path = folder.join("m.onnx");
        write_within(&model(), &path, TINY).unwrap();
        let mut graph = read(&path).unwrap();
        graph.model.graph.get_or_insert_default().initializer[0] = raw("a", &values(40, 9.0));
        let want = all(&graph);
        write(&graph, &path).unwrap();
        assert_eq!(files(&folder), ["m.onnx", "m.onnx.2.data", "m.onnx.data"]);
        assert_eq!(all(&graph), want, "the graph still reads the old file");
        let again = read(&path).unwrap();
        assert_eq!(all(&again), want);
        // The next time the first name is free again.
        write(&again, &path).unwrap();
        assert_eq!(all(&read(&path).unwrap()), want);
        assert_eq!(files(&folder), ["m.onnx", "m.onnx.2.data", "m.onnx.data"]);
        let again = read(&path).unwrap();
        let onto_data = write(&again, &folder.join("m.onnx.data")).unwrap_err();
        assert_eq!(onto_data.kind(), ErrorKind::Setting);
        assert_eq!(all(&again), want);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_error_leaves_both_files() {
        let folder = scratch("onnx-fail");
        let path = folder.join("m.onnx");
        write_within(&model(), &path, TINY).unwrap();
        let graph = read(&path).unwrap();
        let (other, data) = (folder.join("n.onnx"), folder.join("n.onnx.data"));
        fs::write(&data, b"old").unwrap();
        // The values are gone when they are to be copied.
        fs::write(folder.join("m.onnx.data"), b"short").unwrap();
        let error = write(&graph, &other).unwrap_err();
        assert!(error.to_string().contains("tensor `a`"), "{error}");
        assert_eq!(files(&folder), ["m.onnx", "m.onnx.data", "n.onnx.data"]);
        assert_eq!(fs::read(&data).unwrap(), b"old");
        // The model's place is taken by a folder.
        write_within(&model(), &path, TINY).unwrap();
        fs::create_dir(&other).unwrap();
        assert_eq!(write(&graph, &other).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(fs::read(&data).unwrap(), b"old");
        assert_eq!(files(&folder), ["m.onnx", "m.onnx.data", "n.onnx", "n.onnx.data"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
