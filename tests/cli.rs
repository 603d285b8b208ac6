//! The tool `niwaki` as scripts see it: exit codes, what stands on stdout and stderr, and what is written.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::Array;
use niwaki::format::{gguf, npz, safetensors};
use niwaki::onnx::Graph;
use niwaki::{Compressed, Model};
use serde_json::Value;

/// A folder of a test's own, with a small model of two layers in it.
struct Scene(PathBuf);

impl Scene {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let wave = |shape: &[usize]| {
            let len = shape.iter().product::<usize>();
            let values = (0..len).map(|k| (1.0 + k as f32 * 0.7).sin()).collect();
            Array::from_shape_vec(shape.to_vec(), values).unwrap()
        };
        let arrays = [
            ("a.weight", wave(&[16, 8])),
            ("a.bias", wave(&[16])),
            ("b.weight", wave(&[16, 16])),
            ("c.weight", wave(&[4, 16])),
        ];
        let views = || arrays.iter().map(|(name, array)| (*name, array.view()));
        safetensors::write(folder.join("m.safetensors"), views(), &safetensors::WriteOptions::new()).unwrap();
        npz::write(folder.join("m.npz"), views()).unwrap();
        Self(folder)
    }

    /// Runs the tool in the folder, with words split at blanks.
    fn run(&self, words: &str) -> Answer {
        let tool = Command::new(env!("CARGO_BIN_EXE_niwaki"));
        let mut tool = tool;
        Answer(tool.current_dir(&self.0).args(words.split_whitespace()).output().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Errors with this code, saying this, and leaves the folder as it was.
    fn refuses(&self, code: i32, words: &str, says: &str) {
        let before = self.files();
        let answer = self.run(words);
        let text = answer.err();
        assert_eq!(answer.code(), code, "{words}\n{text}");
        assert!(text.starts_with("error: "), "{words}\n{text}");
        assert!(text.contains(says), "{words}\n{text}");
        assert_eq!(answer.out(), "", "{words}");
        assert_eq!(self.files(), before, "{words}");
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            paths.map(|path| (path.clone(), fs::read(path).unwrap_or_default())).collect();
        files.sort();
        files
    }
}

struct Answer(Output);

impl Answer {
    fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    fn done(self) -> Self {
        assert_eq!(self.code(), 0, "{}", self.err());
        self
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.done().out()).unwrap()
    }
}

fn onnx(name: &str) -> String {
    format!("{}/tests/data/onnx/{name}.onnx", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn help_is_for_newcomers() {
    let scene = Scene::new("help");
    let help = scene.run("--help").done().out();
    assert!(help.contains("niwaki inspect model.onnx") && help.contains("Exit codes"), "{help}");
    let help = scene.run("compress --help").done().out();
    assert!(help.contains("--prune channel=0.5 --plan") && help.contains("max-sparsity=S"), "{help}");
    assert!(scene.run("--version").done().out().contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(scene.run("").code(), 2);
}

#[test]
fn a_wrong_command_line_is_code_2() {
    let scene = Scene::new("usage");
    for (words, says) in [
        ("compress m.onnx -o o.onnx", "nothing to do"),
        ("compress m.onnx --prune channel=0.5", "--output <OUT>"),
        ("compress m.onnx -o o.onnx --prune channel=1.5", "sparsity 1.5 is outside [0, 1)"),
        ("compress m.onnx -o o.onnx --prune chanel=0.5", "`channel`, `unstructured`"),
        ("compress m.onnx -o o.onnx --prune n-of-m=4:2", "cannot keep 4 of every 2"),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --importance best", "`l2`"),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --importance taylor", "gradients"),
        (
            "compress m.onnx -o o.onnx --prune channel=0.5 --importance wanda",
            "--importance wanda needs inputs",
        ),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --importance gradient-compare", "--snapshot MODEL"),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --snapshot e.onnx", "--importance gradient-compare"),
        (
            "compress m.onnx -o o.onnx --prune channel=0.5 --recover mean-fold",
            "--recover mean-fold needs inputs",
        ),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --recover luck", "least-squares"),
        ("compress m.onnx -o o.onnx --prune modules=1,by-influence", "modules=1,by-influence needs inputs"),
        ("compress m.onnx -o o.onnx --quantize int8", "uniform:BITS"),
        ("compress m.onnx -o o.onnx --quantize uniform:9:channel", "9 bits are outside 1 to 8"),
        ("compress m.onnx -o o.onnx --quantize planes:2+2:channel", "`multi-scale:2+2+4"),
        ("compress m.onnx -o o.onnx --quantize uniform:4:gray", "`group:SIZE`"),
        ("compress m.onnx -o o.onnx --quantize gptq:4:channel", "--quantize gptq:4:channel needs inputs"),
        ("compress m.onnx -o o.onnx --quantize gptq:4:g128", "--quantize gptq:4:group:128 needs inputs"),
        ("compress m.onnx -o o.onnx --quantize gptq:9:channel", "9 bits are outside 1 to 8"),
        ("compress m.onnx -o o.onnx --quantize gptq:4:channel,damp=-1", "damping of -1"),
        ("compress m.onnx -o o.onnx --quantize gptq:4:channel,sparsity=half", "no number"),
        ("compress m.onnx -o o.onnx --quantize gptq:4:channel,n-of-m=0.5", "2:4"),
        (
            "compress m.onnx -o o.onnx --quantize gptq:4:channel,n-of-m=2:4,sparsity=0.5",
            "only one of `sparsity` and `n-of-m`",
        ),
        ("compress m.onnx -o o.onnx --quantize distill:4:channel:adversarial", ":adversarial needs inputs"),
        ("compress m.onnx -o o.onnx --quantize distill:4:model", "its scales are per"),
        ("compress m.onnx -o o.onnx --quantize distill:4:channel,act-order", "no option `act-order`"),
        ("compress m.onnx -o o.onnx --prune 4:2", "cannot keep 4 of every 2"),
        ("compress m.onnx -o o.onnx --prune sparsegpt=0.5", "--prune sparsegpt=0.5 needs inputs"),
        ("compress m.onnx -o o.onnx --prune sparsegpt=2:4,axis=1", "no option `axis`"),
        (
            "compress m.onnx -o o.onnx --prune sparsegpt=0.5 --importance l1 --calibration i.npz",
            "--importance brain-surgeon",
        ),
        ("compress m.onnx -o o.onnx --prune 2:4 --recover sparsegpt", "--recover sparsegpt needs inputs"),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --equalize", "--quantize <SCHEME>"),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --correct-bias", "--quantize <SCHEME>"),
        ("compress m.onnx -o o.onnx --quantize uniform:4 --correct-bias", "--correct-bias needs inputs"),
        ("compress m.onnx -o o.onnx --quantize uniform:4 --awq", "--awq needs inputs"),
        ("compress m.onnx -o o.onnx --quantize uniform:4 --smooth", "--smooth needs inputs"),
        ("compress m.onnx -o o.onnx --quantize uniform:4 --smooth=2 --calibration i.npz", "from 0 to 1"),
        ("compress m.onnx -o o.onnx --quantize f16 --awq --calibration i.npz", "uniform, gptq or distill"),
        ("compress m.onnx -o o.onnx --quantize uniform:4 --memory 4G", "--calibration <INPUTS>"),
        ("compress m.onnx -o o.onnx --quantize gptq:4 --calibration i.npz --memory lots", "16G"),
        ("compress m.npz -o o.npz --quantize gptq:4:channel", "cannot be run"),
        ("compress m.npz -o o.npz --quantize uniform:4 --equalize", "what reads which units"),
        ("compress m.npz -o o.npz --quantize uniform:4 --correct-bias", "cannot be run"),
        ("compress m.onnx -o o.onnx --quantize f16 --recover batch-norm", "--prune <KIND=AMOUNT>"),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --keep re:(", "re:("),
        ("compress m.onnx -o o.onnx --prune unstructured=0.5 --round-to 8", "--prune channel=…"),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --input x=1,0", "above 0"),
        ("compress m.safetensors -o o.safetensors --prune channel=0.5", "shrink together"),
        ("compress m.npz -o o.npz --prune unstructured=0.5 --importance wanda", "cannot be run"),
        ("compress m.npz -o o.npz --prune unstructured=0.5 --calibration i.npz", "cannot be run"),
        ("compare a.onnx b.onnx", "--inputs <INPUTS>"),
    ] {
        scene.refuses(2, words, says);
    }
}

#[test]
fn what_files_get_wrong_is_code_1() {
    let scene = Scene::new("files");
    fs::write(scene.path("broken.onnx"), b"no protobuf at all, only words").unwrap();
    fs::write(scene.path("broken.npz"), b"PK").unwrap();
    fs::write(scene.path("broken.safetensors"), b"12345678").unwrap();
    fs::create_dir(scene.path("folder.npz")).unwrap();
    for (words, says) in [
        ("inspect none.onnx", "none.onnx: No such file"),
        ("inspect m.txt", "m.txt: the name should end in .onnx, .safetensors, .npz or .gguf"),
        ("inspect broken.onnx", "broken.onnx"),
        ("inspect broken.npz", "broken.npz"),
        ("inspect broken.safetensors", "broken.safetensors"),
        ("compress none.npz -o o.npz --prune unstructured=0.5", "none.npz: No such file"),
        ("compress m.npz -o nowhere/o.npz --prune unstructured=0.5", "there is no folder nowhere"),
        ("compress m.npz -o folder.npz --prune unstructured=0.5", "is a folder"),
        ("compress m.npz -o m.npz --prune unstructured=0.5", "write to another one"),
        ("compress m.npz -o ./m.npz --prune unstructured=0.5", "write to another one"),
        ("compress m.npz -o o.onnx --prune unstructured=0.5", "arrays stay arrays"),
        ("compress m.npz -o o.bin --prune unstructured=0.5", "should end in"),
        ("compress m.npz -o o.npz --prune unstructured=0.5 --report nowhere/r.json", "no folder nowhere"),
        ("compress m.npz -o o.npz --prune unstructured=0.5 --report m.npz", "write to another one"),
        ("compress m.npz -o o.npz --prune unstructured=0.5 --keep b.wait", "--keep b.wait: no weight"),
        ("compress m.npz -o o.npz --prune unstructured=0.5,set=d:0.1", "pattern `d` matches nothing"),
        ("compress m.npz -o o.npz --quantize f16,keep=re:d.*", "no weight has such a name"),
        ("compress m.npz -o o.npz --prune n-of-m=3:5", "not a multiple of 5"),
        ("compress m.npz -o o.npz --prune unstructured=0.5 --keep re:.*", "no weight takes part"),
        ("compare m.npz m.npz --inputs m.npz", "only ONNX models"),
    ] {
        scene.refuses(1, words, says);
    }
}

#[test]
fn arrays_are_pruned_and_quantized() {
    let scene = Scene::new("arrays");
    let words = "compress m.safetensors -o o.safetensors --importance l1 --prune unstructured=0.5,ends \
                 --keep c.weight --quantize uniform:8:channel,keep=a.weight --report r.json";
    let answer = scene.run(words).done();
    assert_eq!(answer.err(), "");
    assert!(answer.out().contains("o.safetensors written"), "{}", answer.out());
    let compressed = Compressed::<f32>::load(scene.path("o.safetensors")).unwrap();
    let forms: Vec<String> =
        compressed.report().rows().iter().map(|row| format!("{} {}", row.name(), row.form())).collect();
    let int8 = "int8 symmetric channel:0";
    let wanted = [
        "a.weight sparse".to_owned(),
        "a.bias dense".to_owned(),
        format!("b.weight {int8}"),
        format!("c.weight {int8}"),
    ];
    let mut sorted = forms.clone();
    sorted.sort();
    let mut wanted = wanted.to_vec();
    wanted.sort();
    assert_eq!(sorted, wanted);
    let zeros = |name: &str| compressed.array(name).unwrap().iter().filter(|v| **v == 0.0).count();
    assert_eq!((zeros("a.weight"), zeros("c.weight")), (64, 0));

    let report: Value = serde_json::from_slice(&fs::read(scene.path("r.json")).unwrap()).unwrap();
    assert_eq!(report["parameters"]["before"], 16 * 8 + 16 + 16 * 16 + 4 * 16);
    assert_eq!(report["bytes"]["after"], fs::metadata(scene.path("o.safetensors")).unwrap().len());
    assert_eq!(report["settings"]["prune"][0], "unstructured=0.5,ends");
    let row = report["layers"].as_array().unwrap().iter().find(|row| row["name"] == "b.weight").unwrap();
    assert_eq!((row["nonzero"].as_u64(), row["stored"]["as"].as_str()), (Some(128), Some(int8)));
}

#[test]
fn both_forms_of_arrays_and_back() {
    let scene = Scene::new("forms");
    scene.run("compress m.npz -o sparse.safetensors --prune n-of-m=2:4,ends --quiet").done();
    let answer = scene.run("compress sparse.safetensors -o coded.npz --quantize uniform:4:group:8").done();
    assert!(answer.err().contains("codes are decoded"), "{}", answer.err());
    let (before, after) =
        (npz::read::<f32>(scene.path("m.npz")).unwrap(), npz::read::<f32>(scene.path("coded.npz")));
    let after = after.unwrap();
    assert_eq!(before.len(), after.len());
    for (name, array) in &before {
        let close = after.array(name).unwrap();
        assert_eq!(close.shape(), array.shape());
        let gone = close.iter().filter(|v| **v == 0.0).count();
        assert!(array.ndim() == 1 || gone * 2 >= array.len(), "{name}: {gone}");
    }
}

#[test]
fn a_plan_writes_nothing() {
    let scene = Scene::new("plan");
    let before = scene.files();
    let text = scene.run("compress m.npz --prune tiles=0.5,size=4x4,ends --plan").done().out();
    assert!(text.contains("b.weight") && text.contains("256 -> 128"), "{text}");
    let plan = scene.run("compress m.npz -o o.npz --prune unstructured=0.25 --plan --json").json();
    assert_eq!(plan["parameters"]["nonzero"], 16 * 8 + 16 + 192 + 4 * 16);
    assert_eq!((&plan["output"], &plan["bytes"]["after"]), (&Value::Null, &Value::Null));
    assert_eq!(scene.files(), before);
}

#[test]
fn json_and_quiet_mean_what_they_say() {
    let scene = Scene::new("quiet");
    let answer = scene.run("compress m.npz -o o.npz --prune unstructured=0.5 --quiet").done();
    assert_eq!((answer.out(), answer.err()), (String::new(), String::new()));
    let report = scene.run("compress m.npz -o o.npz --prune unstructured=0.5 --json --report r.json").json();
    assert_eq!(report["output"], "o.npz");
    let written: Value = serde_json::from_slice(&fs::read(scene.path("r.json")).unwrap()).unwrap();
    assert_eq!(report, written);
}

#[test]
fn the_same_seed_and_any_threads_make_the_same_file() {
    let scene = Scene::new("seed");
    let run = |seed: u32, threads: u32| {
        let words = format!(
            "compress m.npz -o s.npz --importance random --prune unstructured=0.5 --seed {seed} --threads {threads} -q"
        );
        scene.run(&words).done();
        fs::read(scene.path("s.npz")).unwrap()
    };
    assert_eq!(run(1, 1), run(1, 2));
    assert_ne!(run(1, 1), run(2, 1));
}

#[test]
fn snapshots_are_compared_with() {
    let scene = Scene::new("snapshot");
    let model = Model::builder().tensors(npz::read::<f32>(scene.path("m.npz")).unwrap()).build().unwrap();
    let mut early = model.parameter("b.weight").unwrap().array().clone();
    // Training moved only the first half of the rows.
    early.iter_mut().take(128).for_each(|w| *w += 1.0);
    npz::write_model(scene.path("early.npz"), &model.clone().with_values("b.weight", early).unwrap())
        .unwrap();
    let words = "compress m.npz -o o.npz --importance gradient-compare --snapshot early.npz --prune unstructured=0.5 -q";
    scene.run(words).done();
    let pruned = npz::read::<f32>(scene.path("o.npz")).unwrap();
    let b = pruned.array("b.weight").unwrap();
    assert!(b.iter().take(128).all(|w| *w != 0.0) && b.iter().skip(128).all(|w| *w == 0.0));

    npz::write(scene.path("other.npz"), [("x", Array::<f32, _>::ones((2, 2)).into_dyn().view())]).unwrap();
    let words =
        "compress m.npz -o p.npz --importance gradient-compare --snapshot other.npz --prune unstructured=0.5";
    scene.refuses(1, words, "other.npz: ");
}

#[test]
fn arrays_are_inspected() {
    let scene = Scene::new("inspect");
    let text = scene.run("inspect m.safetensors").done().out();
    assert!(
        text.contains("b.weight") && text.contains("[16, 16]") && text.contains("464 parameters"),
        "{text}"
    );
    let document = scene.run("inspect m.npz --json").json();
    assert_eq!((&document["format"], &document["parameters"]), (&Value::from("npz"), &Value::from(464)));
}

#[test]
fn graphs_are_inspected() {
    let scene = Scene::new("graphs");
    for name in ["resnet18", "bert", "lstm-tagger", "unet", "gemm-external", "custom-op"] {
        let document = scene.run(&format!("inspect {} --json", onnx(name))).json();
        assert!(document["parameters"].as_u64().unwrap() > 0, "{name}");
        assert!(!document["inputs"].as_array().unwrap().is_empty(), "{name}");
        let text = scene.run(&format!("inspect {}", onnx(name))).done().out();
        assert!(text.contains("\nLayers\n") && text.contains("reads "), "{name}\n{text}");
    }
    let model = onnx("resnet18");
    scene.refuses(1, &format!("inspect {model} --input image=1,3,8,8"), "has no such input; it reads `");
}

/// The network of the examples: 2 convolutions, 1 linear layer; and its inputs.
fn digits(name: &str) -> String {
    format!("{}/examples/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_graph_is_pruned_recovered_quantized_and_compared() {
    let scene = Scene::new("digits");
    let (model, calibration, test) =
        (digits("digits.onnx"), digits("digits-calibration.npz"), digits("digits-test.npz"));
    let words = |output: &str| {
        format!(
            "compress {model} -o {output} --calibration {calibration} --importance subset --prune channel=0.5 \
             --recover least-squares --report r.json"
        )
    };
    scene.run(&words("pruned.onnx")).done();
    let report: Value = serde_json::from_slice(&fs::read(scene.path("r.json")).unwrap()).unwrap();
    // The report's figures are those of the file.
    let inspected = scene.run("inspect pruned.onnx --json").json();
    assert_eq!(inspected["macs"], report["macs"]["after"]);
    assert_eq!(inspected["parameters"], report["parameters"]["after"]);
    assert_eq!(inspected["bytes"], report["bytes"]["after"]);

    let words = words("small.onnx") + " --quantize uniform:8:channel";
    let answer = scene.run(&words).done();
    assert_eq!(answer.err(), "");
    assert!(answer.out().contains("small.onnx written"), "{}", answer.out());
    let report: Value = serde_json::from_slice(&fs::read(scene.path("r.json")).unwrap()).unwrap();
    let of = |key: &str, when: &str| report[key][when].as_u64().unwrap();
    assert_eq!(of("bytes", "after"), fs::metadata(scene.path("small.onnx")).unwrap().len());
    assert!(of("bytes", "after") * 4 < of("bytes", "before"), "{report:#}");
    assert!(of("parameters", "after") * 10 < of("parameters", "before") * 6, "{report:#}");
    assert!(of("macs", "after") * 10 < of("macs", "before") * 6, "{report:#}");

    let same = scene.run(&format!("compare {model} {model} --inputs {test} --json")).json();
    assert_eq!(same["outputs"][0]["top1_agreement"], 1.0);
    let found = scene.run(&format!("compare {model} small.onnx --inputs {test} --json")).json();
    assert!(found["outputs"][0]["top1_agreement"].as_f64().unwrap() > 0.9, "{found:#}");
    assert_eq!(found["bytes"]["b"], report["bytes"]["after"]);
    let text = scene.run(&format!("compare {model} small.onnx --inputs {test}")).done().out();
    assert!(text.contains("same top 1") && text.contains("milliseconds"), "{text}");
}

/// The report of a run, and how often and how alike the network that was made answers.
fn quantized(scene: &Scene, more: &str) -> (Value, f64, f64) {
    let (model, calibration, test) =
        (digits("digits.onnx"), digits("digits-calibration.npz"), digits("digits-test.npz"));
    let words = format!("compress {model} -o q.onnx --calibration {calibration} --json --quiet {more}");
    let report = scene.run(&words).json();
    let found = scene.run(&format!("compare {model} q.onnx --inputs {test} --json")).json();
    let output = &found["outputs"][0];
    (report, output["top1_agreement"].as_f64().unwrap(), output["mean_cosine"].as_f64().unwrap())
}

fn weights(report: &Value) -> Vec<&Value> {
    let layers = report["layers"].as_array().unwrap().iter();
    layers
        .filter(|layer| layer["stored"]["as"].as_str().is_some_and(|form| form.starts_with("int")))
        .collect()
}

#[test]
fn learned_rounding_answers_more_like_the_original_than_nearest() {
    let scene = Scene::new("learned");
    let (_, _, nearest) = quantized(&scene, "--quantize uniform:3:channel");
    for words in [
        "--quantize gptq:3:channel",
        "--quantize gptq:3:g16,mse",
        "--quantize gptq:3:channel,act-order,damp=0.02 --correct-bias",
        "--quantize distill:3:channel,steps=50",
        "--quantize distill:3:channel:adversarial,steps=50 --correct-bias",
        "--quantize uniform:3:channel,mse --equalize --correct-bias",
        "--quantize gptq:3:channel,mse --awq --correct-bias",
        "--quantize gptq:3:channel,mse --equalize --smooth --awq --correct-bias",
    ] {
        let (report, agreement, cosine) = quantized(&scene, words);
        assert!(cosine > nearest && agreement > 0.85, "{words}: {agreement}, {cosine} against {nearest}");
        let learns = words.contains("gptq") || words.contains("distill");
        assert_eq!(weights(&report).len(), 5);
        for layer in weights(&report) {
            let learned = &layer["stored"]["learned"];
            assert_eq!(learned.is_object(), learns, "{words}: {layer:#}");
            if learns {
                assert!(learned["error"].as_f64() <= learned["nearest"].as_f64(), "{words}: {layer:#}");
                assert!(learned["rows_nearest"].as_u64() <= learned["rows"].as_u64(), "{words}: {layer:#}");
                assert_eq!(learned["held_out"].is_object(), words.contains("distill"), "{words}: {layer:#}");
            }
        }
    }
    let settings = &quantized(&scene, "--quantize gptq:4:g16 --equalize --smooth").0["settings"];
    assert_eq!((&settings["quantize"], &settings["equalize"]), (&"gptq:4:group:16".into(), &true.into()));
    assert_eq!((&settings["smooth"], &settings["correct_bias"]), (&0.5.into(), &false.into()));
}

#[test]
fn learned_rounding_is_told_in_words() {
    let scene = Scene::new("told");
    let (model, calibration) = (digits("digits.onnx"), digits("digits-calibration.npz"));
    let run = |scheme: &str| {
        let words = format!("compress {model} -o q.onnx --calibration {calibration} --quantize {scheme}");
        scene.run(&words).done().out()
    };
    let text = run("gptq:4:channel");
    assert!(
        text.contains("output error, mean of 5 weights") && text.contains("rows stay with nearest"),
        "{text}"
    );
    let text = run("distill:4:channel,steps=20");
    assert!(text.contains("on held-out samples, mean of 5 weights"), "{text}");
    assert!(!run("uniform:4:channel").contains("output error"));
}

#[test]
fn weights_go_in_one_sweep_with_codes_or_before_them() {
    let scene = Scene::new("joint");
    for words in [
        "--quantize gptq:4:channel,sparsity=0.5 --correct-bias",
        "--prune sparsegpt=0.5,ends --quantize gptq:4:channel --correct-bias",
        "--prune sparsegpt=0.5,ends --quantize uniform:4:channel,mse --correct-bias",
        "--prune unstructured=0.5,ends --importance brain-surgeon --recover sparsegpt --quantize distill:4,steps=20",
    ] {
        let (report, agreement, _) = quantized(&scene, words);
        for layer in weights(&report) {
            let all: u64 =
                layer["shape"]["after"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
            assert!(layer["nonzero"].as_u64().unwrap() * 2 <= all + 1, "{words}: {layer:#}");
        }
        assert!(agreement > 0.8, "{words}: {agreement}");
    }
    // Without codes.
    let (_, agreement, _) = quantized(&scene, "--prune sparsegpt=0.5,ends");
    assert!(agreement > 0.9, "{agreement}");
    // The first convolution reads one channel.
    let (report, ..) = quantized(&scene, "--quantize gptq:4:channel,n-of-m=2:4");
    let notes = |layer: &Value| layer["stored"]["notes"].to_string();
    let [first, second, ..] = weights(&report)[..] else { panic!("{report:#}") };
    assert!(notes(first).contains("not a multiple of 4"), "{first:#}");
    assert!(!notes(second).contains("multiple"), "{second:#}");
    let all: u64 = second["shape"]["after"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
    assert!(second["nonzero"].as_u64().unwrap() * 2 <= all, "{second:#}");
    let words = "--prune 2:4 --keep re:conv1.* --quantize gptq:4:channel --plan";
    let (model, calibration) = (digits("digits.onnx"), digits("digits-calibration.npz"));
    scene.run(&format!("compress {model} --calibration {calibration} {words}")).done();
}

#[test]
fn what_cannot_learn_is_rounded_to_nearest_and_said() {
    let scene = Scene::new("fallback");
    // Weights in the branches of an `If`; embeddings, tied or not.
    for (name, shape, whole) in [
        ("if-branches", vec![64, 3, 12, 12], false),
        ("llama", vec![64, 8], true),
        ("llama-tied", vec![64, 8], true),
        ("lstm-tagger", vec![64, 8], true),
    ] {
        let model = onnx(name);
        if whole {
            write_integers(&scene.path("i.npy"), &shape);
        } else {
            let wave = Array::from_shape_fn(shape.as_slice(), |i| (i[0] * 7 + i[2] * 3 + i[3]) as f32 * 0.1);
            npz::write(scene.path("i.npz"), [("x", wave.mapv(f32::sin).view())]).unwrap();
        }
        let file = if whole { "i.npy" } else { "i.npz" };
        for scheme in ["gptq:4:channel", "distill:4:channel,steps=10"] {
            let words =
                format!("compress {model} -o o.onnx --calibration {file} --quantize {scheme} --json -q");
            let report = scene.run(&words).json();
            assert!(weights(&report).len() > 1, "{name}");
            for layer in weights(&report) {
                let (learned, notes) = (&layer["stored"]["learned"], &layer["stored"]["notes"]);
                assert!(learned.is_object() || notes[0].is_string(), "{name} {scheme}: {layer:#}");
            }
        }
    }
}

/// Small whole numbers as NumPy writes them.
fn write_integers(path: &Path, shape: &[usize]) {
    let dims = shape.iter().map(|dim| format!("{dim}, ")).collect::<Vec<_>>().concat();
    let header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({dims}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(header.as_bytes());
    let len: usize = shape.iter().product();
    (0..len).for_each(|k| bytes.extend(((k * k + k / 3) as i64 % 13).to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_same_codes_on_any_threads() {
    let scene = Scene::new("learned-threads");
    let (model, calibration) = (digits("digits.onnx"), digits("digits-calibration.npz"));
    for scheme in ["gptq:3:channel,mse,sparsity=0.5", "distill:3:channel:adversarial,steps=20"] {
        let files = ["1", "2"].map(|threads| {
            let words = format!(
                "compress {model} -o t.onnx --calibration {calibration} --quantize {scheme} --equalize --awq \
                 --correct-bias --threads {threads} -q"
            );
            scene.run(&words).done();
            fs::read(scene.path("t.onnx")).unwrap()
        });
        assert!(files[0] == files[1], "{scheme}");
    }
}

#[test]
fn every_criterion_and_recovery_works_on_a_graph() {
    let scene = Scene::new("criteria");
    let (model, calibration) = (digits("digits.onnx"), digits("digits-calibration.npz"));
    for criterion in [
        "l0",
        "l1",
        "l2",
        "linf",
        "std-dev",
        "random",
        "max-activation",
        "std-dev-activations",
        "total-confidence",
        "wanda",
        "subset",
        "brain-surgeon",
    ] {
        let words = format!(
            "compress {model} --plan --json --calibration {calibration} --importance {criterion} --prune channel=0.25"
        );
        let plan = scene.run(&words).json();
        assert!(plan["parameters"]["after"].as_u64() < plan["parameters"]["before"].as_u64(), "{criterion}");
    }
    for recovery in ["mean-fold", "batch-norm", "least-squares", "sparsegpt"] {
        let words = format!(
            "compress {model} -o o.onnx --calibration {calibration} --prune channel=0.25 --recover {recovery} -q"
        );
        scene.run(&words).done();
    }
    for prune in [
        "unstructured=0.5,ends",
        "tiles=0.5,size=2x2,ends",
        "channel=0.25,round-to=4",
        "n-of-m=2:4 --keep re:conv1.*",
    ] {
        scene.run(&format!("compress {model} -o o.onnx --prune {prune} -q")).done();
    }
    let words = format!(
        "compress {model} -o o.onnx --importance gradient-compare --snapshot {model} --prune channel=0.5"
    );
    scene.run(&words).done();
}

#[test]
fn graphs_of_many_architectures_are_compressed() {
    let scene = Scene::new("architectures");
    for name in
        ["resnet18", "mobilenetv2", "densenet", "vgg", "unet", "bert", "llama", "lstm-tagger", "convnext"]
    {
        let model = onnx(name);
        let words =
            format!("compress {model} -o o.onnx --prune channel=0.5 --quantize uniform:8:channel --json");
        let report = scene.run(&words).json();
        let (before, after) = (&report["parameters"]["before"], &report["parameters"]["after"]);
        assert!(after.as_u64() < before.as_u64(), "{name}: {before} -> {after}");
        scene.run("inspect o.onnx --json").json();
    }
}

#[test]
fn what_is_kept_keeps_its_units() {
    let scene = Scene::new("keep");
    let model = onnx("vgg");
    let inspected = scene.run(&format!("inspect {model} --json")).json();
    let names = |key: &str| {
        let list = inspected[key].as_array().unwrap();
        list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = names("couplings")[0].clone();
    let plan = |keep: &str| {
        scene.run(&format!("compress {model} --prune channel=0.5 --plan --json --keep {keep}")).json()
    };
    let sizes = |plan: &Value, name: &str| {
        let couplings = plan["couplings"].as_array().unwrap();
        let found = couplings.iter().find(|coupling| coupling["name"] == name).unwrap();
        (found["before"].as_u64().unwrap(), found["after"].as_u64().unwrap())
    };
    let kept = plan(&first);
    let (before, after) = sizes(&kept, &first);
    assert_eq!(before, after);
    let others = names("couplings").into_iter().filter(|name| *name != first);
    others.for_each(|name| assert!(sizes(&kept, &name).1 * 2 <= sizes(&kept, &name).0 + 1, "{name}"));
    // A weight's name keeps its outputs.
    let weight = inspected["couplings"][0]["slots"][0]["parameter"].as_str().unwrap();
    assert_eq!(sizes(&plan(weight), &first), (before, after));
    assert_eq!(fs::read_dir(&scene.0).unwrap().count(), 2);
}

#[test]
fn external_data_count_and_are_not_overwritten() {
    let scene = Scene::new("external");
    for file in ["gemm-external.onnx", "gemm-external.bin"] {
        fs::copy(onnx("x").replace("x.onnx", file), scene.path(file)).unwrap();
    }
    let data = fs::metadata(scene.path("gemm-external.bin")).unwrap().len();
    let report = scene.run("compress gemm-external.onnx -o o.onnx --prune channel=0.5 --json").json();
    assert!(report["bytes"]["before"].as_u64().unwrap() > data, "{report:#}");
    assert_eq!(fs::metadata(scene.path("gemm-external.bin")).unwrap().len(), data);
    scene.run("inspect o.onnx").done();
}

#[test]
fn inputs_that_nobody_reads_are_noted() {
    let scene = Scene::new("unread");
    let (model, calibration) = (digits("digits.onnx"), digits("digits-calibration.npz"));
    let words = format!("compress {model} --prune channel=0.5 --plan --calibration {calibration}");
    assert!(scene.run(&words).done().err().contains("no stage reads the calibration inputs"));
    assert_eq!(scene.run(&(words + " --quiet")).done().err(), "");
}

#[test]
fn what_a_graph_gets_wrong_is_code_1() {
    let scene = Scene::new("graph-errors");
    let (model, calibration) = (digits("digits.onnx"), digits("digits-calibration.npz"));
    fs::copy(&model, scene.path("m.onnx")).unwrap();
    fs::copy(&calibration, scene.path("c.npz")).unwrap();
    let other = Array::<f32, _>::zeros((4, 1, 3, 3)).into_dyn();
    npz::write(scene.path("name.npz"), [("pictures", other.view())]).unwrap();
    let input = Graph::read(&model).unwrap().inputs()[0].name.clone();
    npz::write(scene.path("shape.npz"), [(input.as_str(), other.view())]).unwrap();
    fs::write(scene.path("cut.onnx"), &fs::read(&model).unwrap()[..1000]).unwrap();
    for (words, says) in [
        ("compress m.onnx -o m.onnx --prune channel=0.5", "write to another one"),
        ("compress m.onnx -o c.npz --prune channel=0.5", "an ONNX model stays one"),
        ("compress m.onnx -o nowhere/o.onnx --prune channel=0.5", "no folder nowhere"),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --keep head", "--keep head: no weight"),
        (
            "compress m.onnx -o o.onnx --prune channel=0.5 --importance subset --calibration none.npz",
            "none.npz",
        ),
        (
            "compress m.onnx -o o.onnx --prune channel=0.5 --importance subset --calibration name.npz",
            "`pictures`",
        ),
        (
            "compress m.onnx -o o.onnx --prune channel=0.5 --importance subset --calibration shape.npz",
            "the model reads",
        ),
        (
            "compress m.onnx -o o.onnx --prune channel=0.5 --recover least-squares --calibration name.npz",
            "`pictures`",
        ),
        ("compress m.onnx -o o.onnx --prune channel=0.5 --input pictures=1,1,8,8", "has no such input"),
        ("compress m.onnx -o o.onnx --quantize multi-scale:2+2:channel", "planes"),
        (
            "compress m.onnx -o o.onnx --quantize gptq:4:channel --calibration c.npz --memory 100K",
            "--memory: the Gram matrices of 5 layers",
        ),
        (
            "compress m.onnx -o o.onnx --quantize gptq:4:channel,keep=none --calibration c.npz",
            "no weight has such a name",
        ),
        ("compress cut.onnx -o o.onnx --prune channel=0.5", "cut.onnx: "),
        ("compare m.onnx cut.onnx --inputs c.npz", "cut.onnx: "),
        ("compare m.onnx m.onnx --inputs name.npz", "`pictures`"),
        ("compare m.onnx m.onnx --inputs none.npz", "none.npz"),
    ] {
        scene.refuses(1, words, says);
    }
}

/// A reader that has seen enough is no error.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    use std::process::Stdio;
    let scene = Scene::new("pipe");
    let mut tool = Command::new(env!("CARGO_BIN_EXE_niwaki"));
    tool.current_dir(&scene.0).args(["inspect", "m.npz"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tool.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn blocks_in_gguf_files() {
    let scene = Scene::new("gguf");
    let wave = |rows: usize, columns: usize| {
        Array::from_shape_fn((rows, columns), |(i, j)| (1.0 + (i * columns + j) as f32 * 0.7).sin())
            .into_dyn()
    };
    let arrays = [("a.weight", wave(8, 256)), ("b.weight", wave(4, 96)), ("c.weight", wave(4, 9))];
    let options =
        gguf::WriteOptions::new().metadata("general.architecture", "mine").metadata("mine.layers", 3u32);
    gguf::write(scene.path("m.gguf"), arrays.iter().map(|(n, a)| (*n, a.view())), &options).unwrap();
    let report = scene.run("compress m.gguf -o o.gguf --quantize gguf:q4_k --json").json();
    let stored = |k: usize| report["layers"][k]["stored"].clone();
    assert_eq!([0, 1, 2].map(|k| stored(k)["as"].clone()), ["ggml q4-k", "ggml q5-0", "f16"]);
    assert_eq!(stored(1)["notes"][0], "its rows of 96 are no multiple of 256: stored as q5-0, not q4-k");
    let file = gguf::Gguf::read(scene.path("o.gguf")).unwrap();
    assert_eq!(file.metadata().get("mine.layers"), Some(&gguf::Value::U32(3)));
    let kinds: Vec<String> = file.tensors().iter().map(|tensor| tensor.kind().to_string()).collect();
    assert_eq!(kinds, ["Q4_K", "Q5_0", "F16"]);
    // The same codes in the other file, and values for what has no blocks.
    assert_eq!(scene.run("compress m.gguf -o o.safetensors --quantize gguf:q4_k").code(), 0);
    let decoded = Compressed::<f32>::load(scene.path("o.safetensors")).unwrap();
    for tensor in file.tensors() {
        assert_eq!(tensor.decode::<f32>().unwrap(), decoded.array(tensor.name()).unwrap());
    }
    scene.refuses(1, "compress m.gguf -o p.gguf --quantize uniform:8:channel", "no GGUF type holds");
    assert_eq!(scene.run("compress m.gguf -o q.npz --quantize gguf:q8_0").code(), 0);
}

#[test]
fn graphs_compute_in_integers() {
    let scene = Scene::new("integers");
    let (model, calibration, test) =
        (digits("digits.onnx"), digits("digits-calibration.npz"), digits("digits-test.npz"));
    for scheme in ["qdq:8", "qdq:8,mse", "qdq:7,percentile=99.99,signed", "dynamic:8"] {
        let inputs =
            if scheme.starts_with("qdq") { format!("--calibration {calibration}") } else { String::new() };
        scene.run(&format!("compress {model} -o out.onnx --quantize {scheme} {inputs} -q")).done();
        let first = fs::read(scene.path("out.onnx")).unwrap();
        assert!(3 * first.len() < fs::read(&model).unwrap().len(), "{scheme}");
        scene
            .run(&format!("compress {model} -o out.onnx --quantize {scheme} {inputs} --threads 1 -q"))
            .done();
        assert_eq!(fs::read(scene.path("out.onnx")).unwrap(), first, "{scheme}");
        let told = scene.run(&format!("compare {model} out.onnx --inputs {test} --json")).done().out();
        let told: Value = serde_json::from_str(&told).unwrap();
        let near = told["outputs"][0]["mean_cosine"].as_f64().unwrap();
        // Dynamic codes of 8 bits are cut where the processor has no VNNI.
        assert!(near > if scheme == "dynamic:8" { 0.98 } else { 0.999 }, "{scheme}: {near}");
    }
    // Pruned, recovered and in integers; the layer that is kept is named.
    let line = format!(
        "compress {model} -o out.onnx --prune channel=0.5 --recover least-squares --quantize qdq:8,keep=conv2.weight"
    );
    let answer = scene.run(&format!("{line} --calibration {calibration}")).done();
    assert!(answer.err().contains("(Conv) computes in floats: its weight has no codes"), "{}", answer.err());
    scene.refuses(2, &line, "needs inputs to run the model on");
    scene.refuses(2, "compress m.npz -o out.npz --quantize dynamic:8", "is for ONNX models");
    scene.refuses(2, &format!("compress {model} -o o.onnx --quantize qdq:4"), "qdq:8");
}

#[test]
fn files_are_converted() {
    let scene = Scene::new("convert");
    let read = |name: &str| {
        let path = scene.path(name);
        let tensors = match name.rsplit('.').next() {
            Some("npz") => npz::read::<f32>(path),
            Some("gguf") => gguf::read::<f32>(path),
            _ => safetensors::read::<f32>(path),
        };
        Model::builder().tensors(tensors.unwrap()).build().unwrap()
    };
    let before = read("m.npz");
    for (from, to) in [("m.npz", "a.safetensors"), ("a.safetensors", "b.gguf"), ("b.gguf", "c.npz")] {
        let answer = scene.run(&format!("convert {from} -o {to}")).done();
        assert!(answer.out().starts_with(&format!("{from} -> {to}: ")), "{}", answer.out());
        let after = read(to);
        assert_eq!(after.parameters().len(), before.parameters().len(), "{to}");
        for parameter in before.parameters() {
            assert_eq!(after.parameter(parameter.name()).unwrap().array(), parameter.array(), "{to}");
        }
    }
    // Half the bytes; a name that does not say the format; blocks that stay blocks.
    scene.run("convert m.npz -o half.bin --format gguf --precision f16 -q").done();
    scene.run("compress m.npz -o blocks.gguf --quantize gguf:q4_0 -q").done();
    scene.run("convert blocks.gguf -o same.gguf").done();
    assert_eq!(fs::read(scene.path("same.gguf")).unwrap(), fs::read(scene.path("blocks.gguf")).unwrap());
    // Words go along.
    let words = safetensors::WriteOptions::new().metadata("author", "somebody");
    let array = Array::from_elem(vec![2, 2], 1.0f32);
    safetensors::write(scene.path("w.safetensors"), [("w", array.view())], &words).unwrap();
    for to in ["w.gguf", "again.safetensors"] {
        scene.run(&format!("convert w.safetensors -o {to}")).done();
    }
    assert_eq!(
        safetensors::read::<f32>(scene.path("again.safetensors")).unwrap().metadata()["author"],
        "somebody"
    );
    assert_eq!(gguf::read::<f32>(scene.path("w.gguf")).unwrap().metadata()["author"], "somebody");
    // What was compressed is decoded, and a graph gives up its weights.
    scene.run("compress m.npz -o small.safetensors --prune unstructured=0.5 -q").done();
    scene.run("convert small.safetensors -o plain.safetensors").done();
    let small = Compressed::<f32>::load(scene.path("small.safetensors")).unwrap().decode().unwrap();
    assert_eq!(read("plain.safetensors").parameter_count(), small.parameter_count());
    scene.run(&format!("convert {} -o weights.npz", digits("digits.onnx"))).done();
    assert!(read("weights.npz").find("conv1.weight").is_some());
    scene.refuses(1, "convert m.npz -o m.onnx", "a file of arrays holds none");
    scene.refuses(1, "convert m.npz -o n.npz --precision f16", "--precision f16 is for safetensors and gguf");
    scene.refuses(1, "convert m.npz -o m.npz", "is a file that is read");
    scene.refuses(1, "convert none.npz -o n.npz", "none.npz");
    scene.refuses(1, "convert m.npz -o out.bin", "the name should end in");
}
