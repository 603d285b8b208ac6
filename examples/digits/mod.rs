//! The digits network as its owner wrote it: reading data, the forward pass, accuracy.
//!
//! conv1, a residual block (conv2, conv3), conv4, one linear layer; batch norm after every convolution. The
//! forward pass reads every size from the arrays, so that it runs the smaller network too.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{Array, Array1, Array2, Array4, ArrayD, Axis, Ix1, Ix2, Ix4, Slice};
use niwaki::format::safetensors;
use niwaki::prune::{Mask, Plan};
use niwaki::{Block, Compressed, Coupling, Evidence, Geometry, Model, Slot};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// The first images are for training, and so for calibration; the rest no training has seen.
const TRAINING_IMAGES: usize = 1437;

/// Labelled images [n, 1, 8, 8], pixels in 0..=1.
pub(crate) struct Digits {
    pub(crate) images: Array4<f32>,
    pub(crate) labels: Vec<u8>,
}

impl Digits {
    /// Training images and test images.
    pub(crate) fn load() -> Outcome<(Self, Self)> {
        let pixels = fs::read(data("digits-images-idx3-ubyte"))?;
        let labels = fs::read(data("digits-labels-idx1-ubyte"))?;
        let images = pixels[16..].iter().map(|&p| f32::from(p) / 16.0).collect::<Array1<f32>>();
        let images = images.into_shape_with_order((labels.len() - 8, 1, 8, 8))?;
        let all = Self { images, labels: labels[8..].to_vec() };
        Ok((all.part(0, TRAINING_IMAGES), all.part(TRAINING_IMAGES, all.labels.len())))
    }

    /// The images from `start` up to `end`.
    pub(crate) fn part(&self, start: usize, end: usize) -> Self {
        let images = self.images.slice_axis(Axis(0), Slice::from(start..end)).to_owned();
        Self { images, labels: self.labels[start..end].to_vec() }
    }

    /// In batches of 100.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Self> {
        (0..self.labels.len())
            .step_by(100)
            .map(|start| self.part(start, (start + 100).min(self.labels.len())))
    }
}

/// A file in examples/data.
pub(crate) fn data(name: &str) -> PathBuf {
    // Also from a package within this one.
    let folders =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("examples/data"));
    folders.map(|folder| folder.join(name)).find(|path| path.exists()).unwrap_or_else(|| name.into())
}

/// Reads trained weights and says what binds them together.
pub(crate) fn read_model(file: &str) -> Outcome<Model<f32>> {
    let padded = Geometry::new().padding(1);
    let norm =
        |stem: &str| ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{stem}.{part}"));
    Ok(Model::builder()
        .tensors(safetensors::read(data(file))?)
        .conv("conv1.weight", padded)
        .conv("conv2.weight", padded)
        .conv("conv3.weight", padded)
        .conv("conv4.weight", padded)
        .batch_norm("bn1", "conv1.weight")
        .batch_norm("bn2", "conv2.weight")
        .batch_norm("bn3", "conv3.weight")
        .batch_norm("bn4", "conv4.weight")
        .coupling(
            // What is added must lose the same channels.
            Coupling::builder("residual")
                .outputs(["conv1.weight", "conv3.weight"])
                .outputs(norm("bn1"))
                .outputs(norm("bn3"))
                .inputs(["conv2.weight", "conv4.weight"]),
        )
        .coupling(
            Coupling::builder("inner")
                .outputs(["conv2.weight"])
                .outputs(norm("bn2"))
                .inputs(["conv3.weight"]),
        )
        .coupling(
            // Each channel is four pixels when it reaches the linear layer.
            Coupling::builder("last")
                .outputs(["conv4.weight"])
                .outputs(norm("bn4"))
                .slot(Slot::input("fc.weight").repeat(4)),
        )
        .block(
            Block::new("block")
                .parameters(["conv2.weight", "conv3.weight"])
                .parameters(norm("bn2"))
                .parameters(norm("bn3")),
        )
        .build()?)
}

/// The network: weights, and masks of feature maps where some were pruned.
pub(crate) struct Network {
    model: Model<f32>,
    masks: HashMap<String, Mask>,
}

impl From<Model<f32>> for Network {
    fn from(model: Model<f32>) -> Self {
        Self { model, masks: HashMap::new() }
    }
}

impl Network {
    /// A pruned model, with the masks that its plan asks the forward pass for.
    pub(crate) fn pruned(model: Model<f32>, plan: &Plan) -> Self {
        Self {
            model,
            masks: plan.activation_masks().map(|(name, mask)| (name.to_owned(), mask.clone())).collect(),
        }
    }

    /// A compressed model, decoded.
    pub(crate) fn decoded(compressed: &Compressed<f32>) -> Outcome<Self> {
        let masks = compressed.activation_masks().map(|(name, mask)| (name.to_owned(), mask.clone()));
        Ok(Self { model: compressed.decode()?, masks: masks.collect() })
    }

    /// Scores [n, 10] of images [n, 1, 8, 8]; evidence, where it is given, sees what passes by.
    pub(crate) fn forward(
        &self,
        images: &Array4<f32>,
        mut evidence: Option<&mut Evidence<f32>>,
    ) -> Outcome<Array2<f32>> {
        let mut see = |layer: &str, input: &ArrayD<f32>, output: &ArrayD<f32>| -> niwaki::Result<()> {
            if let Some(evidence) = evidence.as_deref_mut() {
                evidence.record_input(layer, input)?;
                evidence.record_output(layer, output)?;
            }
            Ok(())
        };
        let x = images.to_owned();
        let h1 = self.mask("conv1.weight", relu(self.conv_norm("conv1.weight", "bn1", &x)?));
        see("conv1.weight", &x.into_dyn(), &h1.clone().into_dyn())?;
        let mut h3 = h1;
        if self.model.block("block").is_some() {
            let h2 = self.mask("conv2.weight", relu(self.conv_norm("conv2.weight", "bn2", &h3)?));
            see("conv2.weight", &h3.clone().into_dyn(), &h2.clone().into_dyn())?;
            let sum = self.mask("conv3.weight", relu(self.conv_norm("conv3.weight", "bn3", &h2)? + &h3));
            see("conv3.weight", &h2.into_dyn(), &sum.clone().into_dyn())?;
            h3 = sum;
        }
        let h3 = average_pool(&h3);
        let h4 = average_pool(&relu(self.conv_norm("conv4.weight", "bn4", &h3)?));
        let flat = self.flatten("conv4.weight", &h4);
        see("conv4.weight", &h3.into_dyn(), &h4.into_dyn())?;
        let weights = self.array("fc.weight")?.into_dimensionality::<Ix2>()?;
        let y = flat.dot(&weights.t()) + &self.array("fc.bias")?.into_dimensionality::<Ix1>()?;
        see("fc.weight", &flat.into_dyn(), &y.clone().into_dyn())?;
        Ok(y)
    }

    /// The fraction of images whose highest score is their label.
    pub(crate) fn accuracy(&self, digits: &Digits) -> Outcome<f64> {
        let mut right = 0;
        for batch in digits.batches() {
            let scores = self.forward(&batch.images, None)?;
            for (row, &label) in scores.rows().into_iter().zip(&batch.labels) {
                let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(k, _)| k);
                right += usize::from(best == Some(usize::from(label)));
            }
        }
        Ok(right as f64 / digits.labels.len() as f64)
    }

    fn array(&self, name: &str) -> Outcome<ArrayD<f32>> {
        Ok(self.model.parameter(name)?.array().clone())
    }

    /// A 3×3 convolution, padded by one, and its batch norm.
    fn conv_norm(&self, weight: &str, norm: &str, x: &Array4<f32>) -> Outcome<Array4<f32>> {
        let weights = self.array(weight)?.into_dimensionality::<Ix4>()?;
        let vector = |part: &str| self.array(&format!("{norm}.{part}"));
        let (scale, shift) = (vector("weight")?, vector("bias")?);
        let (mean, variance) = (vector("running_mean")?, vector("running_var")?);
        let mut y = conv3x3(x, &weights);
        for (channel, mut plane) in y.axis_iter_mut(Axis(1)).enumerate() {
            let factor = scale[channel] / (variance[channel] + 1e-5).sqrt();
            plane.mapv_inplace(|v| (v - mean[channel]) * factor + shift[channel]);
        }
        Ok(y)
    }

    /// Zeroes the pruned positions of a feature map.
    fn mask(&self, layer: &str, mut map: Array4<f32>) -> Array4<f32> {
        if let Some(mask) = self.masks.get(layer) {
            for mut image in map.axis_iter_mut(Axis(0)) {
                image.iter_mut().enumerate().filter(|(k, _)| !mask.keeps(*k)).for_each(|(_, v)| *v = 0.0);
            }
        }
        map
    }

    /// [n, c, h, w] to [n, c·h·w], without the pruned positions.
    fn flatten(&self, layer: &str, map: &Array4<f32>) -> Array2<f32> {
        let kept = |k: usize| self.masks.get(layer).is_none_or(|mask| mask.keeps(k));
        let rows: Vec<Vec<f32>> = map
            .axis_iter(Axis(0))
            .map(|image| image.iter().enumerate().filter(|(k, _)| kept(*k)).map(|(_, &v)| v).collect())
            .collect();
        Array::from_shape_fn((rows.len(), rows[0].len()), |(i, j)| rows[i][j])
    }
}

fn relu(x: Array4<f32>) -> Array4<f32> {
    x.mapv_into(|v| v.max(0.0))
}

fn conv3x3(x: &Array4<f32>, weights: &Array4<f32>) -> Array4<f32> {
    let (n, channels, height, width) = x.dim();
    let positions = height * width;
    let kernels = weights.to_shape((weights.dim().0, channels * 9)).map(|w| w.to_owned()).unwrap_or_default();
    let mut y = Array4::zeros((n, kernels.nrows(), height, width));
    for (image, mut out) in x.axis_iter(Axis(0)).zip(y.axis_iter_mut(Axis(0))) {
        // Row (channel, tap) of the patches holds what that tap sees at each position.
        let patches = Array2::from_shape_fn((channels * 9, positions), |(row, at)| {
            let (channel, tap) = (row / 9, row % 9);
            let (i, j) = (at / width + tap / 3, at % width + tap % 3);
            let inside = (1..=height).contains(&i) && (1..=width).contains(&j);
            if inside { image[[channel, i - 1, j - 1]] } else { 0.0 }
        });
        for (mut plane, values) in out.outer_iter_mut().zip(kernels.dot(&patches).outer_iter()) {
            plane.iter_mut().zip(values).for_each(|(p, &v)| *p = v);
        }
    }
    y
}

/// 2×2 means.
fn average_pool(x: &Array4<f32>) -> Array4<f32> {
    let (n, channels, height, width) = x.dim();
    Array4::from_shape_fn((n, channels, height / 2, width / 2), |(b, c, i, j)| {
        let corner = |di, dj| x[[b, c, 2 * i + di, 2 * j + dj]];
        0.25 * (corner(0, 0) + corner(0, 1) + corner(1, 0) + corner(1, 1))
    })
}
