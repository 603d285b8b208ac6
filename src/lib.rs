/*!
niwaki makes trained neural networks smaller: it removes what a network does not need and stores the rest in few
bits, so that the network takes less disk and memory and keeps its accuracy.

# Overview

A [`Model`] is the named arrays of a network and what binds them together. An [`Evidence`] is what a calibration
run of it showed. A [`Compressor`] takes both through five verbs:

1. **score**: an [`Importance`](importance::Importance) says how much each weight or unit matters;
2. **plan**: a [`Pruner`](prune::Pruner) says what would go, and what that saves: a [`Plan`](prune::Plan) is looked
   at before anything changes;
3. **apply**: the plan makes arrays smaller, in every place that has to follow, or sets weights to zero;
4. **recover**: a [`Recovery`](recover::Recovery) gives accuracy back, from the evidence, without training;
5. **quantize**: a [`Quantizer`](quantize::Quantizer) stores what is left in few bits.

The result is [`Compressed`]: it decodes itself, saves itself to one file, and counts its bytes in a [`Report`].
Each verb also stands alone.

# A network, and what binds it

The forward pass stays yours; the crate sees arrays. What it must know is which axes shrink together: if the first
layer loses a neuron, the second loses an input. That is a [`Coupling`].

```
use ndarray::Array;
use niwaki::{Coupling, Geometry, Model, Parameter, Slot};

# fn main() -> niwaki::Result<()> {
// A convolution of 8 filters on 5×5 images, flattened into a linear layer.
let model = Model::<f32>::builder()
    .parameter(Parameter::conv("conv.weight", Array::ones((8, 3, 3, 3)), Geometry::new().padding(1)))
    .parameter(Parameter::bias("conv.bias", Array::zeros(8), "conv.weight"))
    .parameter(Parameter::linear("fc.weight", Array::ones((10, 8 * 25))))
    .coupling(
        Coupling::builder("filters")
            .outputs(["conv.weight", "conv.bias"])
            .slot(Slot::input("fc.weight").repeat(25)), // each filter is 25 inputs
    )
    .build()?;
assert_eq!(model.coupling("filters")?.size(), 8);
# Ok(())
# }
```

A [`Slot`] has an offset for a concat, repeats for a flatten or for attention heads, copies for the gates of an
LSTM or the groups of a convolution. Couplings that contradict the shapes do not build.

# Evidence

Some criteria read weights only. Others, and all recoveries, read what passes through the network.
[`Compressor::evidence`] makes an [`Evidence`] that keeps what the stages need; your forward pass feeds it batch by
batch, in constant memory.

```
use ndarray::array;
use niwaki::importance::{Importance, MaxActivation};
use niwaki::{Evidence, Model, Needs, Parameter};

# fn main() -> niwaki::Result<()> {
let weights = array![[1.0f32, 0.0], [0.0, 0.1]];
let model = Model::builder().parameter(Parameter::linear("fc", weights.clone())).build()?;
let mut evidence = Evidence::new(&model, Needs::MOMENTS);
for batch in [array![[1.0f32, 2.0]], array![[-3.0, 1.0]]] {
    evidence.record_output("fc", &batch.dot(&weights.t()))?;
}
let layer = evidence.layer(&model, "fc")?;
let score = MaxActivation::new().score(&layer)?;
assert_eq!(score.per_unit(layer.parameter())[0], 3.0);
# Ok(())
# }
```

# Plans

A plan is decided, printable, and not done yet. Printing it shows every coupling, layer and block that it touches;
[`Plan::apply`](prune::Plan::apply) does all of it or nothing.

```
use ndarray::array;
use niwaki::prune::{Sparsity, Unstructured};
use niwaki::{Compressor, Model, Parameter};

# fn main() -> niwaki::Result<()> {
let weights = array![[0.1f32, -2.0], [3.0, -0.2]];
let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
let half = Unstructured::new(Sparsity::new(0.5)?).include_ends();
let compressor = Compressor::builder().pruner(half).build()?;
let plan = compressor.plan(&model, &compressor.evidence(&model))?;
println!("{plan}");
assert_eq!(plan.apply(&model)?.parameter("fc")?.values(), [0.0, -2.0, 3.0, 0.0]);
# Ok(())
# }
```

# ONNX

A file says what is connected, so nothing has to be declared: [`onnx`](crate#features) traces it to a model with couplings
and writes a plan back. The tool `niwaki` does the same from the command line.

# Fewer bits

A quantizer turns weights into codes that decode themselves. A weight that is 0 decodes to exactly 0, so pruning
and quantization do not disturb each other.

```
use ndarray::array;
use niwaki::quantize::{Quantizer, Uniform};
use niwaki::{Layer, Parameter};

# fn main() -> niwaki::Result<()> {
let parameter = Parameter::linear("fc", array![[0.5f32, -1.27, 0.0, 1.0]]);
let codes = Uniform::int8().quantize(&Layer::new(&parameter))?;
let decoded = codes.decode::<f32>();
assert!((decoded[[0, 0]] - 0.5).abs() < 0.005);
assert_eq!(decoded[[0, 2]], 0.0);
assert_eq!(codes.bytes(), 4 + 4); // a code each, and one scale
# Ok(())
# }
```

Two and three bits cost accuracy that no layer can give back alone. [`distill`] trains the whole network while its
weights are rounded, against the original's own answers; gradients come from your engine.

# Features

| feature | default | what it adds |
|---|---|---|
| `rayon` | yes | all cores; the bytes are the same without it |
| `safetensors` | yes | models and compressed models in safetensors files |
| `npz` | yes | models in NumPy archives |
| `gguf` | no | models and compressed models in GGUF files |
| `regex` | yes | `re:` patterns that name layers |
| `onnx` | no | ONNX files: read, traced, pruned, written |
| `rten` | no | running them: evidence, recovery in graph order, comparison (needs Rust 1.94) |
| `cli` | no | the tool `niwaki` |

The design and its reasons are in `docs/design.md`, the methods with their papers in `docs/methods.md`, the file
layout in `docs/formats.md`.
*/

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::float_cmp, reason = "tests compare exact results"))]

mod element;
mod error;
mod kernel;
mod nothing;

pub mod compress;
pub mod distill;
pub mod evidence;
pub mod format;
pub mod importance;
pub mod model;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod prune;
pub mod quantize;
pub mod recover;
pub mod rescale;

pub use compress::{Compressed, Compressor, Report};
pub use element::Element;
pub use error::{Error, ErrorKind, Result};
pub use evidence::{Evidence, Layer, Needs};
pub use model::{Block, Coupling, Geometry, Kind, Model, ModelBuilder, NormRole, Parameter, Pattern, Slot};
pub use ndarray;
pub use nothing::Nothing;

/// The examples of the README are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
