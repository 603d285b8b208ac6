//! What a caller can get wrong is an error that names the layer, the value and the limit; nothing changes then.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use ndarray::{Array, ArrayD, array};
use niwaki::importance::{
    GradientCompare, Importance, MaxActivation, Penalty, Score, Scores, Subset, Taylor, TotalConfidence,
    Wanda,
};
use niwaki::prune::{Channel, FeatureMap, Modules, NOfM, Pruner, Sparsity, Tiles, Unstructured};
use niwaki::quantize::{Bits, ElementWise, GroupSize, MultiScale, Range, Uniform};
use niwaki::recover::{BatchNorm, LeastSquares, MeanFold};
use niwaki::{Compressed, Compressor, Coupling, ErrorKind, Layer, Model, Parameter, Result};

fn wave(rows: usize, columns: usize) -> ndarray::Array2<f32> {
    Array::from_shape_fn((rows, columns), |(i, j)| ((3 * i + 5 * j) as f32).sin())
}

fn two_layers() -> Model<f32> {
    Model::builder()
        .parameter(Parameter::linear("fc1", wave(6, 4)))
        .parameter(Parameter::linear("fc2", wave(3, 6)))
        .coupling(Coupling::builder("hidden").outputs(["fc1"]).inputs(["fc2"]))
        .build()
        .unwrap()
}

/// The error of a whole run with this pruner.
fn pruning(pruner: impl Pruner<f32>) -> niwaki::Error {
    let model = two_layers();
    let compressor = Compressor::builder().pruner(pruner).build();
    compressor.and_then(|c| c.compress(&model, &c.evidence(&model))).unwrap_err()
}

fn says(error: &niwaki::Error, kind: ErrorKind, parts: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn fractions_and_bits() {
    for wrong in [-0.1, 1.0, 2.0, f64::NAN, f64::INFINITY] {
        says(&Sparsity::new(wrong).unwrap_err(), ErrorKind::Setting, &["sparsity", "[0, 1)"]);
    }
    assert!(
        Sparsity::keeping(0.0).is_err()
            && Sparsity::keeping(1.5).is_err()
            && Sparsity::keeping(f64::NAN).is_err()
    );
    for wrong in [0, 9, 255] {
        says(&Bits::new(wrong).unwrap_err(), ErrorKind::Setting, &[&wrong.to_string()]);
    }
    assert!(GroupSize::new(0).is_err());
    assert!(MultiScale::nested(&[]).is_err() && MultiScale::nested(&[0]).is_err());
    assert!(NOfM::new(5, 4).is_err() && NOfM::new(2, 0).is_err());
    assert!(Compressor::builder().pruner(Tiles::new(0, 4, Sparsity::default())).build().is_err());
    assert!(
        Penalty::new(2.0, 1.0).is_err()
            && Penalty::new(0.5, -1.0).is_err()
            && Penalty::new(0.5, f64::NAN).is_err()
    );
    assert!(ElementWise::fixed(40, 40).is_err());
}

#[test]
fn patterns_and_names() {
    let half = Sparsity::new(0.5).unwrap();
    says(&pruning(Unstructured::new(half).exclude("fc9")), ErrorKind::Name, &["`fc9`", "matches nothing"]);
    says(&pruning(Channel::new(half).set("re:conv.*", half)), ErrorKind::Name, &["`re:conv.*`"]);
    says(&pruning(Unstructured::new(half).exclude("re:(")), ErrorKind::Setting, &["re:("]);
    says(&pruning(Unstructured::new(half)), ErrorKind::Setting, &["no weight takes part"]);
    says(&pruning(Channel::new(half).round_to(64)), ErrorKind::Setting, &["`hidden`", "64", "6 units"]);
    says(&pruning(Channel::new(half).round_to(0)), ErrorKind::Setting, &["round_to"]);
    says(&pruning(Modules::count(1)), ErrorKind::Setting, &["block"]);
    let error = pruning(NOfM::new(2, 4).unwrap().include_ends());
    says(&error, ErrorKind::Shape, &["fc2", "6", "4"]);
    says(&pruning(FeatureMap::new(half)), ErrorKind::Setting, &["no convolution"]);
    assert!(two_layers().parameter("fc3").is_err() && two_layers().coupling("none").is_err());
}

#[test]
fn evidence_that_is_missing_is_named() {
    let model = two_layers();
    let evidence = niwaki::Evidence::new(&model, niwaki::Needs::MOMENTS);
    let layer = evidence.layer(&model, "fc1").unwrap();
    let criteria: [(&str, Result<Score<f32>>); 6] = [
        ("record_output", MaxActivation::new().score(&layer)),
        ("record_output", TotalConfidence::new().score(&layer)),
        ("record_snapshot", GradientCompare::update().score(&layer)),
        ("record_input", Wanda::new().score(&layer)),
        ("record_gradient", Taylor::new().score(&layer)),
        ("record_output", Subset::new().score(&layer)),
    ];
    for (call, score) in criteria {
        says(&score.unwrap_err(), ErrorKind::MissingEvidence, &["`fc1`", call]);
    }
    let half = Sparsity::new(0.5).unwrap();
    let recover = |compressor: Result<Compressor<_, _, Box<dyn niwaki::recover::Recovery<f32>>, _>>| {
        let compressor = compressor.unwrap();
        compressor.compress(&model, &compressor.evidence(&model)).unwrap_err()
    };
    let recoveries: [Box<dyn niwaki::recover::Recovery<f32>>; 2] =
        [Box::new(LeastSquares::default()), Box::new(MeanFold::new())];
    for recovery in recoveries {
        let builder = Compressor::builder().pruner(Channel::new(half)).recovery(recovery);
        says(&recover(builder.build()), ErrorKind::MissingEvidence, &["`fc2`"]);
    }
    // No batch norm anywhere: nothing to re-estimate, and no reason to fail.
    let builder = Compressor::builder().pruner(Channel::new(half)).recovery(BatchNorm::new());
    let compressor = builder.build().unwrap();
    assert!(compressor.compress(&model, &compressor.evidence(&model)).is_ok());
}

#[test]
fn a_criterion_that_answers_nonsense_is_named() {
    #[derive(Debug)]
    struct Nonsense(ArrayD<f32>);
    impl Importance<f32> for Nonsense {
        fn score(&self, _: &Layer<'_, f32>) -> Result<Score<f32>> {
            Ok(Score::elements(self.0.clone()))
        }
    }
    let model = two_layers();
    let evidence = niwaki::Evidence::new(&model, niwaki::Needs::MOMENTS);
    let error = Scores::compute(&Nonsense(wave(2, 2).into_dyn()), &model, &evidence).unwrap_err();
    says(&error, ErrorKind::Shape, &["`fc1`", "[2, 2]"]);
    let mut scores = wave(6, 4).into_dyn();
    scores[[1, 1]] = f32::NAN;
    let error = Scores::compute(&Nonsense(scores), &model, &evidence).unwrap_err();
    says(&error, ErrorKind::NotFinite, &["`fc1`", "5"]);
}

#[test]
fn zero_width_ranges_and_constants_are_fine() {
    for values in [
        array![[0.0f32, 0.0], [0.0, 0.0]],
        array![[3.0, 3.0], [3.0, 3.0]],
        array![[-1e-38, 0.0], [0.0, 1e30]],
    ] {
        let model = Model::builder().parameter(Parameter::linear("fc", values.clone())).build().unwrap();
        for range in [Range::MinMax, Range::Mse, Range::Entropy, Range::percentile(99.0).unwrap()] {
            for quantizer in [Uniform::int8(), Uniform::new(Bits::new(3).unwrap()).affine().per_tensor()] {
                let compressor = Compressor::builder().quantizer(quantizer.range(range)).build().unwrap();
                let compressed = compressor.compress(&model, &compressor.evidence(&model)).unwrap();
                compressed.verify().unwrap();
                let decoded = compressed.array("fc").unwrap();
                assert!(values.iter().zip(&decoded).all(|(w, d)| d.is_finite() && (*w != 0.0 || *d == 0.0)));
            }
        }
    }
    assert!(
        Range::percentile(0.0).is_err()
            && Range::percentile(101.0).is_err()
            && Range::percentile(f64::NAN).is_err()
    );
}

#[test]
fn a_plan_for_another_model_changes_nothing() {
    let half = Sparsity::new(0.5).unwrap();
    let compressor = Compressor::builder().pruner(Channel::new(half)).build().unwrap();
    let model = two_layers();
    let plan = compressor.plan(&model, &compressor.evidence(&model)).unwrap();
    let mut other = Model::builder().parameter(Parameter::linear("fc1", wave(5, 4))).build().unwrap();
    let before = other.clone();
    says(&plan.apply_in_place(&mut other).unwrap_err(), ErrorKind::Shape, &["`fc1`", "[5, 4]", "[6, 4]"]);
    assert_eq!(other, before);
    // Twice is once too often.
    let smaller = plan.apply(&model).unwrap();
    assert!(plan.apply(&smaller).is_err());
}

#[cfg(feature = "safetensors")]
mod files {
    use super::*;

    /// A folder of its own that goes with the test.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(&self.0).unwrap();
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn compressed() -> Compressed<f32> {
        let model = two_layers();
        let compressor = Compressor::builder().quantizer(Uniform::int8()).build().unwrap();
        compressor.compress(&model, &compressor.evidence(&model)).unwrap()
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_panic() {
        let folder = Folder::new("damaged");
        let (good, bad) = (folder.0.join("good"), folder.0.join("bad"));
        compressed().save(&good).unwrap();
        let bytes = std::fs::read(&good).unwrap();
        let try_load = |bytes: &[u8]| {
            std::fs::write(&bad, bytes).unwrap();
            Compressed::<f32>::load(&bad)
        };
        for length in 0..bytes.len() {
            let error = try_load(&bytes[..length]).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Io), "{error}");
        }
        // A header that claims to be longer than the file, and than any memory.
        for claimed in [bytes.len() as u64, 1 << 40, u64::MAX] {
            let mut lie = bytes.clone();
            lie[..8].copy_from_slice(&claimed.to_le_bytes());
            says(&try_load(&lie).unwrap_err(), ErrorKind::Format, &["header"]);
        }
        for at in 0..bytes.len() {
            for bit in [0, 4, 7] {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                if let Ok(loaded) = try_load(&flipped) {
                    let _ = loaded.verify();
                    let _ = loaded.decode();
                }
            }
        }
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = Folder::new("whole");
        let error = compressed().save(folder.0.join("missing/file")).unwrap_err();
        says(&error, ErrorKind::Io, &["missing"]);
        assert!(folder.names().is_empty());
        let target = folder.0.join("file");
        compressed().save(&target).unwrap();
        assert_eq!(folder.names(), ["file"], "nothing temporary is left");
        // What stands in the way stays as it is.
        let blocked = folder.0.join("blocked");
        std::fs::create_dir(&blocked).unwrap();
        std::fs::write(blocked.join("inside"), "x").unwrap();
        assert!(compressed().save(&blocked).is_err());
        assert_eq!(std::fs::read_to_string(blocked.join("inside")).unwrap(), "x");
        assert_eq!(folder.names().len(), 2);
    }
}
