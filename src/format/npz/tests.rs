use ndarray::{Array, arr2};

use super::*;
use crate::format::tensors::{scratch, shared};

/// An archive of one member.
fn archive(name: &str, content: &[u8], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner()
}

fn npy(dictionary: &str, data: &[u8]) -> Vec<u8> {
    let len = (dictionary.len() + 1) as u16;
    [b"\x93NUMPY\x01\x00", &len.to_le_bytes()[..], dictionary.as_bytes(), b"\n", data].concat()
}

fn one(dictionary: &str, data: &[u8]) -> Result<Tensors<f32>> {
    read_bytes(&archive("w.npy", &npy(dictionary, data), CompressionMethod::Stored))
}

fn described(descr: &str, shape: &str, data: &[u8]) -> Result<Tensors<f32>> {
    one(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"), data)
}

#[test]
fn there_and_back() {
    let folder = scratch("npz");
    let path = folder.join("a.npz");
    let long = Array::from_iter((0..70_001).map(|i| f64::from(i).sqrt())).into_dyn();
    let turned = arr2(&[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).into_dyn().reversed_axes();
    let scalar = ndarray::arr0(7.0).into_dyn();
    let arrays = || [("long", long.view()), ("turned", turned.view()), ("scalar", scalar.view())];
    let bytes = write(&path, arrays()).unwrap();
    assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
    let tensors = read::<f64>(&path).unwrap();
    assert_eq!(tensors.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["long", "turned", "scalar"]);
    for (name, array) in arrays() {
        assert_eq!(tensors.array(name).unwrap(), array);
    }
    let first = std::fs::read(&path).unwrap();
    write(&path, arrays()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    assert_eq!(read::<f32>(&path).unwrap().array("long").unwrap()[3].to_bits(), 3f32.sqrt().to_bits());
    let twice = write(&path, [("a", long.view()), ("a", long.view())]).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Name);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn types_and_orders() {
    let tensors = described("'>f4'", "(2,)", &[0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0]).unwrap();
    assert_eq!(tensors.array("w").unwrap().as_slice().unwrap(), [1.0, -2.0]);
    let tensors = described("'<f2'", "()", &[0x00, 0x3c]).unwrap();
    assert_eq!(tensors.array("w").unwrap().iter().copied().collect::<Vec<_>>(), [1.0]);
    let by_columns = "{'descr': '<f2', 'fortran_order': True, 'shape': (2, 2), }";
    let tensors = one(by_columns, &[0, 0x3c, 0, 0x40, 0, 0x44, 0, 0x48]).unwrap();
    assert_eq!(tensors.array("w").unwrap().as_slice().unwrap(), [1.0, 4.0, 2.0, 8.0]);
    let deflated = archive(
        "w.npy",
        &npy("{'descr': '<f4', 'fortran_order': False, 'shape': (64,), }", &[0; 256]),
        CompressionMethod::Deflated,
    );
    assert_eq!(read_bytes::<f32>(&deflated).unwrap().array("w").unwrap().len(), 64);
    for skipped in ["'<i8'", "'|b1'", "'<U3'", "'|O'"] {
        let tensors = described(skipped, "(1,)", &[0; 8]).unwrap();
        assert_eq!((tensors.len(), tensors.skipped()[0].dtype.as_str()), (0, skipped.trim_matches('\'')));
    }
    for refused in ["'<c8'", "'<f16'", "'|V2'", "[('a', '<f4')]"] {
        let error = described(refused, "(1,)", &[0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().starts_with("array `w`: "), "{error}");
    }
    let other = archive("notes.txt", b"hello", CompressionMethod::Stored);
    assert_eq!(read_bytes::<f32>(&other).unwrap().skipped()[0].name, "notes.txt");
}

#[test]
fn lies_are_found_before_memory_is_taken() {
    let error = |result: Result<Tensors<f32>>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format, "{error}");
        error.to_string()
    };
    let huge = error(described("'<f4'", "(4000000000000,)", &[0; 4]));
    assert_eq!(huge, "array `w`: <f4 of shape [4000000000000] takes 16000000000000 bytes, and there are 4");
    assert!(error(described("'<f4'", "(4000000000000, 4000000000000)", &[])).contains("more than memory"));
    assert!(error(described("'<f8'", "(1,)", &[0; 4])).contains("takes 8 bytes, and there are 4"));
    assert!(error(described("'<f4'", "(1,)", &[0; 8])).contains("takes 4 bytes, and there are 8"));
    assert!(error(described("'<f4'", "(-1,)", &[])).contains("byte 0x2d"));
    assert!(error(described("'<f4'", &format!("({})", "9".repeat(9000)), &[])).contains("array `w`"));
    assert!(error(described("'<f4'", &"(".repeat(5000), &[])).contains("nests deeper"));
    assert!(error(one(&"{".repeat(20_000), &[])).contains("past the limit of 10000"));
    assert!(error(described("'<f4'", "(0, 18446744073709551615, 2)", &[])).contains("array `w`"));
    assert!(
        error(read_bytes(&archive("w.npy", b"\x93NUMPY", CompressionMethod::Stored))).contains("array `w`")
    );
    assert!(
        error(read_bytes(&archive("w.npy", b"\x93NUMPY\x09\x00", CompressionMethod::Stored)))
            .contains("version 9")
    );
    assert!(
        error(read_bytes(&archive("w.npy", b"not numpy", CompressionMethod::Stored)))
            .contains("does not begin")
    );
}

#[test]
fn sizes_of_members_are_checked() {
    let good = archive(
        "w.npy",
        &npy("{'descr': '<f4', 'fortran_order': False, 'shape': (64,), }", &[0; 256]),
        CompressionMethod::Deflated,
    );
    let central = good.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let mut bomb = good.clone();
    // The size after unpacking, in the archive's directory.
    bomb[central + 24..central + 28].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    let error = read_bytes::<f32>(&bomb).unwrap_err();
    assert!(error.to_string().contains("cannot hold the 2147483647 it claims"), "{error}");
    let mut longer = good.clone();
    longer[central + 20..central + 24].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    let error = read_bytes::<f32>(&longer).unwrap_err();
    assert!(error.to_string().contains("past the file's end"), "{error}");
    let mut sum = good.clone();
    sum[central + 16] ^= 1;
    let error = read_bytes::<f32>(&sum).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format);
    assert!(error.to_string().to_lowercase().contains("checksum"), "{error}");
}

#[test]
fn no_change_of_a_file_panics() {
    let mut state = 7u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let content = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), }", &[7; 64]);
        let good = archive("w.npy", &content, method);
        assert_eq!(read_bytes::<f32>(&good).unwrap().len(), 1);
        for cut in 0..good.len() {
            assert_eq!(read_bytes::<f32>(&good[..cut]).unwrap_err().kind(), ErrorKind::Format, "{cut}");
        }
        for _ in 0..5000 {
            let mut bad = good.clone();
            for _ in 0..=noise() % 3 {
                let at = noise() % bad.len();
                bad[at] = noise() as u8;
            }
            if let Ok(tensors) = read_bytes::<f32>(&bad) {
                assert!(tensors.iter().all(|(_, array)| array.len() <= 1032 * bad.len()));
            }
        }
        // The header alone, which the checksum else guards.
        for _ in 0..5000 {
            let mut bad = content.clone();
            for _ in 0..=noise() % 3 {
                let at = noise() % (bad.len() - 64);
                bad[at] = noise() as u8;
            }
            let _ = read_bytes::<f32>(&archive("w.npy", &bad, method));
        }
    }
}

#[test]
fn a_real_file() {
    let Some(path) = shared("data/g2p/checkpoint20.npz") else { return };
    let tensors = read::<f32>(&path).unwrap();
    assert_eq!((tensors.len(), tensors.skipped().len()), (12, 0));
    assert_eq!(tensors.iter().next().unwrap().0, "enc_emb");
    assert_eq!(tensors.array("enc_w_ih").unwrap().shape(), [768, 256]);
    // The plain reader of the crate that the format's header is parsed with agrees.
    let mut plain = ZipArchive::new(File::open(path).unwrap()).unwrap();
    let member = plain.by_name("dec_w_hh.npy").unwrap();
    let array = <ArrayD<f32> as ndarray_npy::ReadNpyExt>::read_npy(member).unwrap();
    assert_eq!(tensors.array("dec_w_hh").unwrap(), array);
}
