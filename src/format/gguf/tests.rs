use std::fs;

use ndarray::{Array, Array2};

use super::*;
use crate::ErrorKind;
use crate::format::tensors::scratch;
use crate::quantize::{BlockFormat, Ggml, Quantizer};
use crate::{Layer, Parameter};

fn wave(rows: usize, columns: usize) -> Array2<f32> {
    Array::from_shape_fn((rows, columns), |(i, j)| ((3 * i + 5 * j) as f32).sin())
}

/// Every type of value.
fn metadata() -> Metadata {
    let mut all = Metadata::new();
    all.set("general.architecture", "mine");
    all.set("a.u8", 200u8);
    all.set("a.i8", Value::I8(-3));
    all.set("a.u16", 40_000u16);
    all.set("a.i16", -7i16);
    all.set("a.u32", u32::MAX);
    all.set("a.i32", i32::MIN);
    all.set("a.f32", 0.5f32);
    all.set("a.bool", true);
    all.set("a.u64", u64::MAX);
    all.set("a.i64", i64::MIN);
    all.set("a.f64", -0.25f64);
    for (k, array) in [
        List::U8(vec![1, 2]),
        List::I8(vec![-1]),
        List::U16(vec![]),
        List::I16(vec![-2]),
        List::U32(vec![3; 3]),
        List::I32(vec![-4]),
        List::F32(vec![1.5]),
        List::Bool(vec![true, false]),
        List::Text(vec!["ä".into(), String::new()]),
        List::Lists(vec![List::U8(vec![9]), List::Text(vec!["b".into()])]),
        List::U64(vec![5]),
        List::I64(vec![-6]),
        List::F64(vec![2.5]),
    ]
    .into_iter()
    .enumerate()
    {
        all.set(format!("a.array.{k}"), Value::List(array));
    }
    all
}

/// Blocks of every format, floats of every type, and all values of metadata.
fn example() -> Vec<u8> {
    let folder = scratch(&format!("gguf-example-{:?}", std::thread::current().id()));
    let path = folder.join("a.gguf");
    let tensors = BlockFormat::ALL.map(|(format, name)| {
        let parameter = Parameter::linear(name, wave(3, 256));
        (name, Ggml::new(format).quantize(&Layer::new(&parameter)).unwrap())
    });
    let plain = wave(5, 3).into_dyn();
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    for (name, tensor) in &tensors {
        let (format, blocks) = tensor.blocks_of_ggml().unwrap();
        let (shape, data) = (tensor.shape().to_vec(), Data::Bytes(blocks.into()));
        drafts.push(Draft { name: (*name).into(), shape, kind: format.into(), data });
    }
    for (name, float) in
        [("f16", Float::F16), ("bf16", Float::BF16), ("f32", Float::F32), ("f64", Float::F64)]
    {
        drafts.push(Draft::array(name, plain.view(), float));
    }
    save(&path, &drafts, &completed(&metadata(), &drafts)).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::remove_dir_all(folder).unwrap();
    bytes
}

#[test]
fn what_is_written_is_read() {
    let bytes = example();
    let tensors = read_bytes::<f32>(&bytes).unwrap();
    for (format, name) in BlockFormat::ALL {
        let parameter = Parameter::linear(name, wave(3, 256));
        let expected = Ggml::new(format).quantize(&Layer::new(&parameter)).unwrap().decode::<f32>();
        assert_eq!(tensors.array(name).unwrap(), &expected);
    }
    assert_eq!(tensors.array("f32").unwrap(), &wave(5, 3).into_dyn());
    assert_eq!(tensors.array("f64").unwrap(), &wave(5, 3).into_dyn());
    let half = tensors.array("f16").unwrap()[[1, 2]];
    assert!((half - wave(5, 3)[[1, 2]]).abs() < 5e-4);
    assert_eq!(tensors.metadata()["a.u16"], "40000");
    assert_eq!(tensors.metadata()["general.quantization_version"], "2");
    assert!(!tensors.metadata().contains_key("a.array.0"));
}

#[test]
fn a_file_that_nobody_changed_keeps_its_bytes() {
    let bytes = example();
    let folder = scratch("gguf-same");
    let path = folder.join("a.gguf");
    let mut file = Gguf::read_bytes(&bytes).unwrap();
    let mut expected = metadata();
    expected.set("general.quantization_version", 2u32);
    assert_eq!(file.metadata(), &expected);
    assert_eq!(file.save(&path).unwrap(), bytes.len() as u64);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(read_metadata(&path).unwrap(), expected);
    // Another alignment, and back.
    file.metadata_mut().set("general.alignment", 256u32);
    file.save(&path).unwrap();
    let wide = Gguf::read(&path).unwrap();
    assert_eq!(wide.tensors(), file.tensors());
    assert!(fs::read(&path).unwrap().len() > bytes.len());
    fs::remove_dir_all(folder).unwrap();
}

/// A header by hand: version, numbers of tensors and pairs, and what follows.
fn file(tensors: u64, pairs: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes =
        [&b"GGUF"[..], &3u32.to_le_bytes(), &tensors.to_le_bytes(), &pairs.to_le_bytes()].concat();
    for part in rest {
        bytes.extend(*part);
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    value::write_text(text, &mut bytes);
    bytes
}

/// Name, axes as the file has them, type, offset.
fn info(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
    let count = (dims.len() / 8) as u32;
    [&text(name)[..], &count.to_le_bytes(), &dims, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

fn error(bytes: &[u8]) -> String {
    let error = read_bytes::<f32>(bytes).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Unsupported), "{error}");
    error.to_string()
}

#[test]
fn starts_that_lie() {
    assert_eq!(error(b""), "4 bytes from byte 0 on are past the end of the file: 0 are left");
    let version = |v: u32| error(&[&b"GGUF"[..], &v.to_le_bytes(), &[0; 40]].concat());
    assert_eq!(version(1), "GGUF version 1; versions 2 and 3 are read");
    assert_eq!(version(3u32.swap_bytes()), "a GGUF file of big-endian numbers is not read");
    assert!(error(&file(u64::MAX, 0, &[])).contains("tensors cannot be in the"));
    assert!(error(&file(0, 1 << 40, &[])).contains("pairs of metadata cannot be in the"));
    assert!(read_bytes::<f32>(&file(0, 0, &[])).unwrap().is_empty());
}

#[test]
fn metadata_that_lies() {
    let pair = |kind: u32, rest: &[u8]| file(0, 1, &[&text("k"), &kind.to_le_bytes(), rest, &[0; 32]]);
    assert_eq!(error(&pair(13, &[])), "key `k`: values of type 13 are not known");
    assert_eq!(error(&pair(7, &[2])), "key `k`: a truth value is 2, neither 0 nor 1");
    assert!(
        error(&pair(8, &u64::MAX.to_le_bytes()))
            .starts_with("key `k`: 18446744073709551615 bytes of a string")
    );
    assert!(error(&pair(8, &[&1u64.to_le_bytes()[..], &[0xff]].concat())).contains("no UTF-8"));
    let array = |kind: u32, count: u64| pair(9, &[&kind.to_le_bytes()[..], &count.to_le_bytes()].concat());
    assert!(error(&array(12, 1 << 61)).contains("numbers cannot be in the"));
    assert!(error(&array(8, 1 << 30)).contains("strings cannot be in the"));
    let nested: Vec<u8> = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(100_000);
    assert!(error(&pair(9, &nested)).contains("more than 8 deep"));
    let twice: Vec<u8> = [&text("k")[..], &0u32.to_le_bytes(), &[1]].concat().repeat(2);
    assert_eq!(error(&file(0, 2, &[&twice])), "the key `k` is there twice");
    let alignment = |x: u32| file(0, 1, &[&text("general.alignment"), &4u32.to_le_bytes(), &x.to_le_bytes()]);
    assert!(
        error(&alignment(0)).contains("0 is no power of two") && error(&alignment(24)).contains("24 is no")
    );
}

#[test]
fn tensors_that_lie() {
    let one = |info: Vec<u8>| file(1, 0, &[&info, &[0; 64]]);
    assert!(error(&one(info("w", &[1; 5], 0, 0))).starts_with("tensor 0: `w`: 5 axes"));
    assert!(error(&one(info("w", &[4], 99, 0))).contains("tensors of type 99 are not known"));
    assert!(error(&one(info("w", &[4], 0, 8))).contains("offset 8 is no multiple of the alignment 32"));
    assert!(error(&one(info("w", &[1 << 40], 0, 0))).contains("past the end of the data"));
    assert!(error(&one(info("w", &[4], 0, u64::MAX - 31))).contains("past the end of the data"));
    assert!(error(&one(info("w", &[u64::MAX, 2], 0, 0))).contains("no number of bytes"));
    assert!(error(&one(info("w", &[48, 2], 8, 0))).contains("rows of 48 are no multiple of the 32 numbers"));
    let two = |a: &str, b: &str| file(2, 0, &[&info(a, &[4], 0, 0), &info(b, &[4], 0, 0), &[0; 64]]);
    assert_eq!(error(&two("w", "w")), "two tensors are named `w`");
    assert_eq!(error(&two("v", "w")), "tensors `v` and `w` share bytes");
    assert!(
        error(&file(1, 0, &[&info("w", &[256], 13, 0), &[0; 224]]))
            .starts_with("tensor `w`: numbers of its type")
    );
    let integers = file(1, 0, &[&info("n", &[4], 26, 0), &[0; 64]]);
    assert_eq!(read_bytes::<f32>(&integers).unwrap().skipped()[0].dtype, "I32");
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let folder = scratch("gguf-refusals");
    let path = folder.join("a.gguf");
    let array = wave(2, 2).into_dyn();
    let refused = |tensors: &[&str], options: &WriteOptions| {
        write(&path, tensors.iter().map(|name| (*name, array.view())), options).unwrap_err()
    };
    let plain = WriteOptions::new();
    assert_eq!(refused(&["w", "w"], &plain).kind(), ErrorKind::Name);
    let long = "n".repeat(64);
    assert!(refused(&[&long], &plain).to_string().contains("its name has 64 bytes, and at most 63 can be"));
    assert_eq!(refused(&["w"], &plain.metadata("general.alignment", 3u32)).kind(), ErrorKind::Format);
    let deep = ArrayD::from_elem(vec![1; 5], 1.0f32);
    assert_eq!(
        write(&path, [("w", deep.view())], &WriteOptions::new()).unwrap_err().kind(),
        ErrorKind::Shape
    );
    let large = ndarray::arr2(&[[1e6f32]]).into_dyn();
    let half = WriteOptions::new().precision(Precision::F16);
    assert_eq!(write(&path, [("w", large.view())], &half).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn no_change_of_a_file_panics() {
    let good = example();
    // Only the zeros behind the last tensor may be missing.
    for end in 0..good.len() - 31 {
        error(&good[..end]);
    }
    let mut state = 5u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    // Most of what can go wrong is in the header.
    let header = 2200;
    for round in 0..4000 {
        let mut bad = good.clone();
        for _ in 0..=noise() % 3 {
            let at = noise() % if round % 2 == 0 { header } else { good.len() };
            bad[at] = noise() as u8;
        }
        if let Ok(tensors) = read_bytes::<f32>(&bad) {
            assert!(tensors.len() <= 10);
        }
    }
}
