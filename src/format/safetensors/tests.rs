use ndarray::{Array, ArrayD};

use super::*;
use crate::format::tensors::{scratch, shared};
use crate::{ErrorKind, Parameter};

/// A file from its JSON and data.
fn file(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), data].concat()
}

fn numbers(n: usize) -> ArrayD<f32> {
    Array::from_iter((0..n).map(|i| (i as f32).sin() * 1e3)).into_dyn()
}

#[test]
fn every_precision_there_and_back() {
    let folder = scratch("safetensors-precision");
    let path = folder.join("a.safetensors");
    // Longer than a task's piece, and a second one that is not in row-major order.
    let long = numbers(600_001);
    let turned = numbers(6).into_shape_with_order(vec![2, 3]).unwrap().reversed_axes();
    for (precision, bits) in
        [(Precision::F64, 64), (Precision::F32, 32), (Precision::F16, 16), (Precision::BF16, 16)]
    {
        let options = WriteOptions::new().precision(precision).metadata("a", "1");
        let bytes = write(&path, [("long", long.view()), ("turned", turned.view())], &options).unwrap();
        assert_eq!(bytes % 8, (600_007 * bits / 8) % 8, "the data begin at a multiple of 8");
        let tensors = read::<f32>(&path).unwrap();
        let unit = match precision {
            Precision::F16 => 2f32.powi(-11),
            Precision::BF16 => 2f32.powi(-8),
            _ => 0.0,
        };
        for (name, array) in [("long", &long), ("turned", &turned)] {
            let read = tensors.array(name).unwrap();
            assert_eq!(read.shape(), array.shape());
            assert!(read.is_standard_layout());
            assert!(read.iter().zip(array).all(|(a, b)| (a - b).abs() <= unit * b.abs().max(2f32.powi(-14))));
        }
        assert_eq!(read_bytes::<f32>(&std::fs::read(&path).unwrap()).unwrap(), tensors);
        let wide = read::<f64>(&path).unwrap();
        assert!(
            wide.array("long")
                .unwrap()
                .iter()
                .zip(tensors.array("long").unwrap())
                .all(|(a, b)| a.to_bits() == f64::from(*b).to_bits())
        );
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn values_that_do_not_fit_are_named() {
    let folder = scratch("safetensors-narrow");
    let path = folder.join("a.safetensors");
    let array = ArrayD::from_shape_vec(vec![2], vec![1.0f32, 70000.0]).unwrap();
    let half = WriteOptions::new().precision(Precision::F16);
    let error = write(&path, [("w", array.view())], &half).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("tensor `w`: value 70000 at flat index 1 is past"), "{error}");
    let array = ArrayD::from_elem(vec![2], f64::NAN);
    let single = WriteOptions::new().precision(Precision::F32);
    assert_eq!(write(&path, [("w", array.view())], &single).unwrap_err().kind(), ErrorKind::NotFinite);
    // As wide as the array, all goes: it is the model that refuses NaN.
    write(&path, [("w", array.view())], &WriteOptions::new()).unwrap();
    assert!(read::<f64>(&path).unwrap().array("w").unwrap()[0].is_nan());
    let big = file(r#"{"w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}"#, &1e300f64.to_le_bytes());
    let error = read_bytes::<f32>(&big).unwrap_err();
    assert_eq!(error.to_string(), "tensor `w`: the value at flat index 0 is past the range of F32");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn integers_are_skipped_and_strange_numbers_refused() {
    let json = |dtype: &str| {
        format!(
            r#"{{"n":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,8]}},"w":{{"dtype":"F8_E4M3","shape":[2],"data_offsets":[8,10]}}}}"#
        )
    };
    let data = [1, 0, 0, 0, 0, 0, 0, 0, 0x38, 0xb8];
    let tensors = read_bytes::<f32>(&file(&json("I64"), &data)).unwrap();
    assert_eq!(tensors.skipped(), [Skipped { name: "n".into(), dtype: "I64".into() }]);
    assert_eq!(tensors.array("w").unwrap().as_slice().unwrap(), [1.0, -1.0]);
    let missing = tensors.array("n").unwrap_err();
    assert_eq!(missing.to_string(), "tensor `n` is of type I64 and was skipped");
    assert_eq!(tensors.array("m").unwrap_err().kind(), ErrorKind::Name);
    let error = read_bytes::<f32>(&file(&json("C64"), &data)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("tensor `n`: numbers of type C64"));
}

#[test]
fn same_input_same_bytes() {
    let folder = scratch("safetensors-bytes");
    let (a, b) = (folder.join("a"), folder.join("b"));
    let array = numbers(10);
    let words = |keys: [&str; 3]| keys.iter().fold(WriteOptions::new(), |o, k| o.metadata(*k, "v"));
    write(&a, [("x", array.view()), ("y", array.view())], &words(["p", "q", "r"])).unwrap();
    write(&b, [("y", array.view()), ("x", array.view())], &words(["r", "p", "q"])).unwrap();
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_model_is_read_by_the_reference_reader() {
    let folder = scratch("safetensors-model");
    let path = folder.join("m.safetensors");
    let weight = numbers(12).into_shape_with_order((3, 4)).unwrap();
    let model = Model::builder().parameter(Parameter::linear("fc.weight", weight)).build().unwrap();
    write_model(&path, &model, &WriteOptions::new()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let plain = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = plain.tensor("fc.weight").unwrap();
    assert_eq!((view.dtype(), view.shape()), (Dtype::F32, &[3, 4][..]));
    let values: Vec<u8> = model.parameters()[0].values().iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(view.data(), values);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn shards_are_joined() {
    let folder = scratch("safetensors-shards");
    let index = folder.join("model.safetensors.index.json");
    let array = numbers(4);
    let options = WriteOptions::new().metadata("format", "pt");
    for (shard, name) in [("s-1.safetensors", "b"), ("s-2.safetensors", "a")] {
        write(folder.join(shard), [(name, array.view())], &options).unwrap();
    }
    let reads = |map: &str| {
        std::fs::write(&index, format!(r#"{{"metadata":{{"total_size":32}},"weight_map":{map}}}"#)).unwrap();
        read::<f32>(&index)
    };
    let tensors = reads(r#"{"a":"s-2.safetensors","b":"s-1.safetensors"}"#).unwrap();
    assert_eq!(tensors.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(tensors.metadata()["format"], "pt");
    for (map, part) in [
        (r#"{"a":"s-1.safetensors"}"#, "tensor `a` is not in `s-1.safetensors`"),
        (r#"{"a":"s-2.safetensors","c":"s-2.safetensors"}"#, "tensor `c` is not in"),
        (r#"{"a":"../s-2.safetensors"}"#, "is no name of a file beside the index"),
        (r#"{"a":"/etc/passwd"}"#, "is no name of a file beside the index"),
        (r#"{"a":1}"#, "tensor `a`: 1 is no name"),
        ("[]", "no map named `weight_map`"),
    ] {
        let error = reads(map).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format);
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains("index.json"), "{error}");
    }
    assert_eq!(reads(r#"{"a":"gone.safetensors"}"#).unwrap_err().kind(), ErrorKind::Io);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn errors_name_the_file() {
    let folder = scratch("safetensors-errors");
    let error = read::<f32>(folder.join("gone.safetensors")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("gone.safetensors"));
    std::fs::write(folder.join("cut.safetensors"), b"12345").unwrap();
    let error = read::<f32>(folder.join("cut.safetensors")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format);
    assert!(error.to_string().contains("cut.safetensors: 5 bytes cannot hold"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// A small stream of numbers.
fn noise(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

#[test]
fn no_change_of_a_file_panics() {
    let json = r#"{"__metadata__":{"k":"v"},"a":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[16,28]},"n":{"dtype":"I32","shape":[],"data_offsets":[28,32]}}"#;
    let good = file(json, &[0x3f; 32]);
    assert_eq!(read_bytes::<f32>(&good).unwrap().len(), 2);
    let mut state = 1;
    for cut in 0..good.len() {
        assert_eq!(read_bytes::<f32>(&good[..cut]).unwrap_err().kind(), ErrorKind::Format, "{cut}");
    }
    for _ in 0..5000 {
        let mut bad = good.clone();
        for _ in 0..=noise(&mut state) % 3 {
            let at = noise(&mut state) % bad.len();
            bad[at] = noise(&mut state) as u8;
        }
        bad.truncate(bad.len() - noise(&mut state) % 2);
        if let Ok(tensors) = read_bytes::<f32>(&bad) {
            assert!(tensors.iter().all(|(_, array)| array.len() <= bad.len()));
        }
    }
}

#[test]
fn real_files() {
    for (name, tensors, skipped) in [
        ("data/mnist-cnn/model.safetensors", 0, "num_batches_tracked"),
        ("data/silero/silero_vad_16k.safetensors", 0, ""),
    ] {
        let Some(path) = shared(name) else { continue };
        let bytes = std::fs::read(&path).unwrap();
        let read = read::<f32>(&path).unwrap();
        let plain = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.len() + read.skipped().len(), plain.len());
        assert!(read.len() > tensors);
        assert!(read.skipped().iter().all(|s| s.name.ends_with(skipped)));
        for (name, array) in &read {
            let view = plain.tensor(name).unwrap();
            assert_eq!((array.shape(), view.dtype()), (view.shape(), Dtype::F32));
            assert!(array.iter().flat_map(|v| v.to_le_bytes()).eq(view.data().iter().copied()), "{name}");
        }
        Model::builder().tensors(read).build().unwrap();
    }
}
