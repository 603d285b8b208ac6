use ndarray::ArrayD;

use super::*;
use crate::ErrorKind;
use crate::format::float::Float;
use crate::format::tensors::scratch;

fn bytes(name: &'static str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Tensor<'static> {
    Tensor { name: name.into(), dtype, shape: shape.to_vec(), data: Data::Bytes(bytes.into()) }
}

fn example(bias: &ArrayD<f32>) -> Vec<Record<'_>> {
    let codes = bytes("codes", Dtype::U8, &[4], vec![0x10, 0x32, 0x54, 0x76]);
    let scales = bytes("scales", Dtype::F16, &[2, 1], vec![0, 0x3c, 0, 0x40]);
    let bitmap = bytes("support", Dtype::U8, &[8], 5u64.to_le_bytes().to_vec());
    let values = bytes("values", Dtype::F32, &[2], vec![1; 8]);
    vec![
        Record {
            name: "z:codes".into(),
            shape: vec![2, 4],
            form: Form::Quantized { scheme: "int4 g4".into() },
            parts: vec![codes, scales],
            kind: String::new(),
        },
        Record {
            name: "a.bias".into(),
            shape: vec![2],
            form: Form::Dense,
            parts: vec![Tensor::array(VALUES, bias.view(), Float::F32)],
            kind: "bias".into(),
        },
        Record {
            name: "a".into(),
            shape: vec![3],
            form: Form::Sparse,
            parts: vec![bitmap, values],
            kind: String::new(),
        },
        Record {
            name: "a:b".into(),
            shape: vec![2],
            form: Form::Dense,
            parts: vec![Tensor::array(VALUES, bias.view(), Float::F16)],
            kind: String::new(),
        },
    ]
}

#[test]
fn there_and_back_and_the_length_is_known() {
    let folder = scratch("compressed");
    let path = folder.join("model.safetensors");
    let bias = ArrayD::from_shape_vec(vec![2], vec![0.5f32, -2.0]).unwrap();
    let extra = BTreeMap::from([("trained on".to_owned(), "digits".to_owned())]);
    let stored = example(&bias);
    let written = save(&path, &stored, &extra).unwrap();
    assert_eq!(written, std::fs::metadata(&path).unwrap().len());
    assert_eq!(encoded_len(&stored, &extra).unwrap(), written);

    let (loaded, metadata) = load(&path).unwrap();
    assert_eq!(metadata, extra);
    for (a, b) in stored.iter().zip(&loaded) {
        assert_eq!((&a.name, &a.shape, &a.form, &a.kind), (&b.name, &b.shape, &b.form, &b.kind));
        let names = |s: &Record<'_>| {
            let mut names: Vec<_> =
                s.parts.iter().map(|p| (p.name.to_string(), p.dtype.to_string())).collect();
            names.sort();
            names
        };
        assert_eq!(names(a), names(b));
    }
    assert_eq!(loaded[1].parts[0].to_array::<f32>().unwrap(), bias);
    let scales = Part::try_from(loaded[0].parts.iter().find(|p| p.name == "scales").unwrap()).unwrap();
    assert_eq!(
        (scales.dtype, &scales.shape[..], &scales.bytes[..]),
        (PartType::F16, &[2, 1][..], &[0, 0x3c, 0, 0x40][..])
    );
    // Saved again, the same bytes.
    let first = std::fs::read(&path).unwrap();
    save(&path, &loaded, &metadata).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    // Any reader of the format can open it.
    let plain = ::safetensors::SafeTensors::deserialize(&first).unwrap();
    assert_eq!(plain.tensor("z:codes:codes").unwrap().data(), [0x10, 0x32, 0x54, 0x76]);
    assert_eq!(plain.tensor("a:b").unwrap().dtype(), Dtype::F16);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_document_is_short() {
    let bias = ArrayD::from_elem(vec![2], 1.0f32);
    let (_, metadata) = lay_out(&example(&bias), &BTreeMap::new()).unwrap();
    let text =
        r#"{"parameters":[["z:codes","",[2,4],"int4 g4"],["a.bias","bias"],["a","",[3]],"a:b"],"version":1}"#;
    assert_eq!(metadata[KEY], text);
}

#[test]
fn collisions_are_refused() {
    let bias = ArrayD::from_elem(vec![2], 1.0f32);
    let refused = |records: &[Record<'_>]| encoded_len(records, &BTreeMap::new()).unwrap_err().kind();
    let mut stored = example(&bias);
    stored[3].name = "a:support".into();
    assert_eq!(refused(&stored), ErrorKind::Name);
    let mut stored = example(&bias);
    stored[0].parts[0].name = "a:b".into();
    assert_eq!(refused(&stored), ErrorKind::Name);
    let mut stored = example(&bias);
    stored[1].shape = vec![1];
    assert_eq!(refused(&stored), ErrorKind::Shape);
    let own = BTreeMap::from([(KEY.to_owned(), String::new())]);
    assert_eq!(encoded_len(&example(&bias), &own).unwrap_err().kind(), ErrorKind::Name);
}

#[test]
fn documents_are_checked() {
    let folder = scratch("compressed-documents");
    let path = folder.join("model.safetensors");
    let error = |document: &str| {
        let tensors = [bytes("w", Dtype::U8, &[1], vec![1]), bytes("q:codes", Dtype::U8, &[1], vec![2])];
        let metadata = BTreeMap::from([(KEY.to_owned(), document.to_owned())]);
        container::save(&path, &tensors, &metadata).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Unsupported), "{error}");
        error.to_string()
    };
    let of = |parameters: &str| format!(r#"{{"version":1,"parameters":[{parameters}]}}"#);
    let q = r#"["q","",[1],"s"]"#;
    assert!(error("").contains("metadata `niwaki`"));
    assert!(error(r#"{"version":2}"#).contains("version 2, and this crate reads version 1"));
    assert!(error(r#"{"version":1}"#).contains("no list named `parameters`"));
    assert!(
        error(&of("")).contains("tensor `w` is part of no parameter")
            || error(&of("")).contains("tensor `q:codes`")
    );
    assert!(error(&of(&format!(r#"{q},"w","w""#))).contains("two parameters are named `w`"));
    assert!(error(&of(&format!(r#"{q},"w","v""#))).contains("parameter `v` has no tensor"));
    assert!(error(&of(r#""w",["q","",[1],"s",2]"#)).contains("parameter `q` is not described"));
    assert!(error(&of(&format!(r#""w",["q","",[{0},{0}]]"#, u64::MAX))).contains("`q`"));
    assert!(error(&of(&format!(r#"{q},"w",[]"#))).contains("a parameter has no name"));
    container::save(&path, &[], &BTreeMap::new()).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("no compressed model"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn no_change_of_a_file_panics() {
    let folder = scratch("compressed-changes");
    let path = folder.join("model.safetensors");
    let bias = ArrayD::from_elem(vec![2], 1.0f32);
    save(&path, &example(&bias), &BTreeMap::new()).unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut state = 3u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..5000 {
        let mut bad = good.clone();
        for _ in 0..=noise() % 3 {
            let at = noise() % bad.len();
            // A digit or a letter keeps the JSON whole more often than any byte does.
            bad[at] = b"0123456789abz:\"{}[],"[noise() % 20];
        }
        let read = Reader::bytes(&bad).and_then(|reader| assemble(&reader));
        if let Ok((records, _)) = read {
            assert!(records.iter().all(|r| !r.parts.is_empty()));
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}
