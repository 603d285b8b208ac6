//! ONNX files that lie, are cut off or are noise: an error, never a panic, in memory that follows the file's size.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use niwaki::ErrorKind;
use niwaki::onnx::Graph;
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MODEL: &[u8] = include_bytes!("data/onnx/mlp.onnx");

/// Bytes held at the worst moment of `work`, beyond those held before it, and what it gives.
fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let output = work();
    (MEMORY.peak_usage() - before, output)
}

/// Reads bytes; those that are a model must be one when they are written, too. Gives the memory of reading.
fn read(bytes: Vec<u8>) -> Result<usize, TestCaseError> {
    let len = bytes.len();
    let (most, graph) = peak(|| Graph::from_bytes(bytes, None));
    prop_assert!(most <= len * 128 + (1 << 16), "{most} bytes for a file of {len}");
    match graph {
        Ok(graph) => {
            let again = Graph::from_bytes(graph.to_bytes().unwrap(), None).unwrap();
            prop_assert_eq!((again.inputs(), again.outputs()), (graph.inputs(), graph.outputs()));
        }
        Err(error) => prop_assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Io), "{error:?}"),
    }
    Ok(most)
}

fn framed(field: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    let mut len = body.len();
    while len > 0x7f {
        bytes.push(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
    [bytes.as_slice(), body].concat()
}

/// One test, so that no other counts while it runs.
#[test]
fn broken_files_are_errors_in_bounded_memory() {
    assert!(read(MODEL.to_vec()).is_ok());
    assert_eq!(Graph::from_bytes(MODEL.to_vec(), None).unwrap().to_bytes().unwrap().len(), MODEL.len());
    let mut runner = TestRunner::new(Config { cases: 4000, failure_persistence: None, ..Config::default() });
    let flips = prop::collection::vec((0..MODEL.len(), any::<u8>()), 1..6);
    let flipped = |flips: Vec<(usize, u8)>| {
        let mut bytes = MODEL.to_vec();
        for (at, byte) in flips {
            bytes[at] = byte;
        }
        read(bytes).map(drop)
    };
    runner.run(&flips, flipped).unwrap();
    let cuts = (0..MODEL.len(), 0..40usize, prop::collection::vec(any::<u8>(), 0..40));
    let patched = |(at, cut, more): (usize, usize, Vec<u8>)| {
        let mut bytes = MODEL.to_vec();
        bytes.splice(at..(at + cut).min(MODEL.len()), more);
        read(bytes).map(drop)
    };
    runner.run(&cuts, patched).unwrap();
    runner.run(&prop::collection::vec(any::<u8>(), 0..200), |noise| read(noise).map(drop)).unwrap();
    for len in 0..MODEL.len() {
        let cut = Graph::from_bytes(MODEL[..len].to_vec(), None);
        assert!(cut.is_err(), "{len} of {} bytes are a model", MODEL.len());
    }

    // A tensor of 2^52 bytes, of which four are there.
    let dims = [0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02];
    let tensor = [&dims[..], &[0x10, 1], &framed(8, b"w"), &framed(9, &[0; 4])].concat();
    let (most, error) = peak(|| Graph::from_bytes(framed(7, &framed(5, &tensor)), None).unwrap_err());
    assert!(most < 1 << 14, "{most} bytes");
    let lie = "tensor `w`: f32 of shape [1125899906842624] are 4503599627370496 bytes, and 4 are there";
    assert_eq!(error.to_string(), lie);

    // Four MiB of empty nodes would be half a GiB.
    let nodes = framed(7, &[0x0a, 0x00].repeat(2 << 20));
    let (most, error) = peak(|| Graph::from_bytes(nodes, None).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Format);
    assert!(most < 256 << 20, "{most} bytes");
}
