//! Layers in the plainest way, and numbers to fill them with.

use ndarray::{Array, Array1, Array2, Array4, ArrayD, Axis, Dimension, IxDyn};
use niwaki::Model;

/// A stream of numbers in [-1, 1): splitmix64 of Steele, Lea and Flood (2014).
pub(crate) struct Numbers(pub u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn array(&mut self, shape: &[usize]) -> ArrayD<f32> {
        ArrayD::from_shape_simple_fn(IxDyn(shape), || self.next())
    }

    /// Named arrays of these shapes.
    pub(crate) fn tensors<const N: usize>(
        &mut self,
        shapes: [(&str, &[usize]); N],
    ) -> Vec<(String, ArrayD<f32>)> {
        shapes.iter().map(|(name, shape)| ((*name).to_owned(), self.array(shape))).collect()
    }

    /// The four vectors of a batch norm.
    pub(crate) fn batch_norm(&mut self, stem: &str, channels: usize) -> Vec<(String, ArrayD<f32>)> {
        let vector = |part: &str, array: ArrayD<f32>| (format!("{stem}.{part}"), array);
        vec![
            vector("weight", self.array(&[channels])),
            vector("bias", self.array(&[channels])),
            vector("running_mean", self.array(&[channels])),
            vector("running_var", self.array(&[channels]).mapv(|v| v.abs() + 0.5)),
        ]
    }
}

/// Names of a batch norm's vectors.
pub(crate) fn norm(stem: &str) -> [String; 4] {
    ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{stem}.{part}"))
}

/// A parameter's values.
pub(crate) fn get<D: Dimension>(model: &Model<f32>, name: &str) -> Array<f32, D> {
    let array = model.parameter(name).map(|p| p.array().clone());
    let array = array.unwrap_or_else(|error| panic!("{error}"));
    array.into_dimensionality().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A square convolution without a bias.
pub(crate) fn conv(
    model: &Model<f32>,
    name: &str,
    x: &Array4<f32>,
    stride: usize,
    padding: usize,
) -> Array4<f32> {
    let (weights, groups): (Array4<f32>, usize) = (get(model, name), parameter_groups(model, name));
    let (n, channels, h, w) = x.dim();
    let (filters, features, kernel, _) = weights.dim();
    assert_eq!(channels, features * groups, "{name} reads another number of channels");
    let out = |len: usize| (len + 2 * padding - kernel) / stride + 1;
    Array4::from_shape_fn((n, filters, out(h), out(w)), |(n, f, i, j)| {
        let first = f / (filters / groups) * features;
        let mut sum = 0.0;
        for ((c, a, b), weight) in weights.index_axis(Axis(0), f).indexed_iter() {
            let (y, z) = (i * stride + a, j * stride + b);
            if (padding..h + padding).contains(&y) && (padding..w + padding).contains(&z) {
                sum += weight * x[[n, first + c, y - padding, z - padding]];
            }
        }
        sum
    })
}

fn parameter_groups(model: &Model<f32>, name: &str) -> usize {
    model.find(name).map_or(1, niwaki::Parameter::groups)
}

pub(crate) fn batch_norm(model: &Model<f32>, stem: &str, x: Array4<f32>) -> Array4<f32> {
    let [scale, shift, mean, variance] = norm(stem).map(|name| get::<ndarray::Ix1>(model, &name));
    assert_eq!(x.len_of(Axis(1)), scale.len(), "{stem} normalizes another number of channels");
    let mut y = x;
    for (c, mut channel) in y.axis_iter_mut(Axis(1)).enumerate() {
        let factor = scale[c] / (variance[c] + 1e-5).sqrt();
        channel.mapv_inplace(|v| (v - mean[c]) * factor + shift[c]);
    }
    y
}

/// Adds a bias to each channel.
pub(crate) fn add_bias(model: &Model<f32>, name: &str, x: Array4<f32>) -> Array4<f32> {
    let bias: Array1<f32> = get(model, name);
    assert_eq!(x.len_of(Axis(1)), bias.len(), "{name} has another number of channels");
    x + bias.insert_axis(Axis(1)).insert_axis(Axis(2))
}

pub(crate) fn relu<D: Dimension>(x: Array<f32, D>) -> Array<f32, D> {
    x.mapv_into(|v| v.max(0.0))
}

/// x·Wᵀ + b with `{stem}.weight` and `{stem}.bias`.
pub(crate) fn linear(model: &Model<f32>, stem: &str, x: &Array2<f32>) -> Array2<f32> {
    let weight: Array2<f32> = get(model, &format!("{stem}.weight"));
    x.dot(&weight.t()) + get::<ndarray::Ix1>(model, &format!("{stem}.bias"))
}

/// [n, c, h, w] → [n, c·h·w]
pub(crate) fn flatten(x: &Array4<f32>) -> Array2<f32> {
    let n = x.dim().0;
    Array2::from_shape_fn((n, x.len() / n), |(n, k)| {
        x.index_axis(Axis(0), n).iter().copied().nth(k).unwrap_or(0.0)
    })
}

/// [n, c, h, w] → [n, c]
pub(crate) fn pool(x: &Array4<f32>) -> Array2<f32> {
    let places = (x.dim().2 * x.dim().3) as f32;
    x.sum_axis(Axis(3)).sum_axis(Axis(2)) / places
}

pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// W·x + b, with one of a recurrent cell's two matrices.
pub(crate) fn gates(model: &Model<f32>, stem: &str, part: &str, x: &Array1<f32>) -> Array1<f32> {
    let weight: Array2<f32> = get(model, &format!("{stem}.weight_{part}"));
    weight.dot(x) + get::<ndarray::Ix1>(model, &format!("{stem}.bias_{part}"))
}
