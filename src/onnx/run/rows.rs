//! Some of the rows that a weight reads and answers.

use ndarray::{Array2, ArrayD};

use crate::{Error, ErrorKind, Geometry, Kind, Parameter, Result};

/// The golden ratio's fractional part: its multiples are spread evenly.
const SPREAD: f64 = 0.618_033_988_749_894_9;

/// At most `most` of `rows` rows, ascending: one from each of as many equal stretches, at a place in it that differs
/// from one to the next, so that the picks do not keep to some columns of a map. `salt` moves them all.
pub(crate) fn pick(rows: usize, most: usize, salt: usize) -> Vec<usize> {
    if rows <= most {
        return (0..rows).collect();
    }
    let step = rows as f64 / most as f64;
    let place =
        |k: usize| (((k as f64 + ((salt + k) as f64 * SPREAD).fract()) * step) as usize).min(rows - 1);
    let mut picked: Vec<usize> = (0..most).map(place).collect();
    picked.dedup();
    picked
}

/// The input of a weight as the rows that it is multiplied with: samples times positions.
#[derive(Debug)]
pub(crate) struct Reads<'a> {
    layer: &'a str,
    values: &'a [f32],
    /// axes but the last
    lead: &'a [usize],
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    /// Rows of so many features.
    Rows(usize),
    Patches(Box<Patches>),
}

/// A convolution's patches.
#[derive(Debug)]
struct Patches {
    geometry: Geometry,
    kernel: Vec<usize>,
    input: Vec<usize>,
    output: Vec<usize>,
    samples: usize,
    channels: usize,
}

impl<'a> Reads<'a> {
    /// # Errors
    /// The array is not what the weight reads.
    pub(crate) fn new(parameter: &'a Parameter<f32>, input: &'a ArrayD<f32>) -> Result<Self> {
        let (layer, dims) = (parameter.name(), input.shape());
        let wrong = || Error::shape(format!("layer `{layer}` {:?} reads {dims:?}", parameter.shape()));
        let values = input.as_slice().ok_or_else(wrong)?;
        let shape = match parameter.kind() {
            Kind::Conv(geometry) => {
                let kernel = parameter.shape().get(2..).unwrap_or_default().to_vec();
                let channels = parameter.shape()[1] * geometry.groups;
                if dims.len() != kernel.len() + 2 || dims[1] != channels {
                    return Err(wrong());
                }
                let output = dims[2..].iter().zip(&kernel).enumerate();
                let output = output.map(|(axis, (&len, &taps))| geometry.output_len(axis, len, taps));
                let output: Vec<usize> = output.collect::<Option<_>>().ok_or_else(wrong)?;
                let (input, samples) = (dims[2..].to_vec(), dims[0]);
                Shape::Patches(Box::new(Patches {
                    geometry: *geometry,
                    kernel,
                    input,
                    output,
                    samples,
                    channels,
                }))
            }
            Kind::Linear | Kind::Recurrent { .. } => {
                let features = parameter.fan_in();
                if dims.last() != Some(&features) {
                    return Err(wrong());
                }
                Shape::Rows(features)
            }
            _ => return Err(Error::unsupported(format!("layer `{layer}` reads no rows"))),
        };
        Ok(Self { layer, values, lead: &dims[..dims.len().saturating_sub(1)], shape })
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        match &self.shape {
            Shape::Rows(features) => self.values.len() / (*features).max(1),
            Shape::Patches(patches) => patches.samples * patches.positions(),
        }
    }

    /// Those of these rows that are of samples to learn from, and those of samples that are held out.
    pub(crate) fn sides(&self, rows: &[usize], held_out: &[bool]) -> [Vec<usize>; 2] {
        let (all, samples) = (self.rows(), held_out.len().max(1));
        // Steps of a sequence may come before samples; else all rows of a sample are together.
        let is_held_out = |row: usize| {
            let sample = if self.steps_first(samples) { row % samples } else { row / (all / samples).max(1) };
            held_out.get(sample).copied().unwrap_or(false)
        };
        [false, true].map(|side| rows.iter().copied().filter(|&row| is_held_out(row) == side).collect())
    }

    fn steps_first(&self, samples: usize) -> bool {
        let by_sample = self.lead.first() == Some(&samples);
        matches!(self.shape, Shape::Rows(_)) && !by_sample && self.lead.get(1..) == Some(&[samples][..])
    }

    /// These rows, for each group of a convolution.
    ///
    /// # Errors
    /// A value that is not finite.
    pub(crate) fn gather(&self, rows: &[usize]) -> Result<Vec<Array2<f64>>> {
        let mut groups = Vec::new();
        self.append(rows, &mut groups)?;
        let array = |values: Vec<f64>| {
            let width = values.len() / rows.len().max(1);
            Array2::from_shape_vec((rows.len(), width), values).map_err(|e| Error::shape(e.to_string()))
        };
        groups.into_iter().map(array).collect()
    }

    /// Appends these rows to those that each group has.
    ///
    /// # Errors
    /// A value that is not finite; nothing is appended then.
    pub(crate) fn append(&self, rows: &[usize], groups: &mut Vec<Vec<f64>>) -> Result<()> {
        let count = if let Shape::Patches(patches) = &self.shape { patches.geometry.groups } else { 1 };
        groups.resize_with(count, Vec::new);
        let before = groups[0].len();
        match &self.shape {
            Shape::Rows(features) => {
                for &row in rows {
                    let row = &self.values[row * features..(row + 1) * features];
                    groups[0].extend(row.iter().map(|&x| f64::from(x)));
                }
            }
            Shape::Patches(patches) => patches.append(self.values, rows, groups),
        }
        for k in 0..count {
            if let Some(x) = groups[k][before..].iter().find(|x| !x.is_finite()) {
                let text = format!("layer `{}`: a value that it reads is {x}", self.layer);
                for group in groups.iter_mut() {
                    group.truncate(before);
                }
                return Err(Error::new(ErrorKind::NotFinite, text));
            }
        }
        Ok(())
    }
}

impl Patches {
    fn positions(&self) -> usize {
        self.output.iter().product()
    }

    fn append(&self, values: &[f32], rows: &[usize], groups: &mut [Vec<f64>]) {
        let (plane, positions) = (self.input.iter().product::<usize>(), self.positions().max(1));
        let per_group = self.channels / self.geometry.groups.max(1);
        let tables: Vec<Vec<Option<usize>>> = (0..self.input.len()).map(|axis| self.table(axis)).collect();
        let (mut places, mut next) = (Vec::new(), Vec::new());
        for row in rows {
            let (sample, position) = (row / positions, row % positions);
            self.places(position, &tables, &mut places, &mut next);
            let image = &values[sample * self.channels * plane..(sample + 1) * self.channels * plane];
            for (channels, group) in image.chunks_exact((per_group * plane).max(1)).zip(&mut *groups) {
                for channel in channels.chunks_exact(plane.max(1)) {
                    group.extend(places.iter().map(|place| place.map_or(0.0, |at| f64::from(channel[at]))));
                }
            }
        }
    }

    /// Along an axis, for each output position the place that each tap reads; `None` in the padding.
    fn table(&self, axis: usize) -> Vec<Option<usize>> {
        let g = &self.geometry;
        let place = |(at, tap): (usize, usize)| {
            let from = at * g.stride_of(axis) + tap * g.dilation_of(axis);
            from.checked_sub(g.padding_of(axis).0).filter(|&x| x < self.input[axis])
        };
        let pairs = (0..self.output[axis]).flat_map(|at| (0..self.kernel[axis]).map(move |tap| (at, tap)));
        pairs.map(place).collect()
    }

    /// For a position the place in a plane of each tap.
    fn places(
        &self,
        position: usize,
        tables: &[Vec<Option<usize>>],
        places: &mut Vec<Option<usize>>,
        next: &mut Vec<Option<usize>>,
    ) {
        places.clear();
        places.push(Some(0));
        let mut left: usize = self.output.iter().product();
        for (axis, table) in tables.iter().enumerate() {
            left /= self.output[axis];
            let (at, taps) = (position / left % self.output[axis], self.kernel[axis]);
            let along = &table[at * taps..(at + 1) * taps];
            next.clear();
            for start in &*places {
                next.extend(along.iter().map(|tap| Some((*start)? * self.input[axis] + (*tap)?)));
            }
            std::mem::swap(places, next);
        }
    }
}

/// The same rows of what some units of a weight answered: units on axis 1 of a convolution, on the last of all else.
///
/// # Errors
/// The array has other units, or another number of rows, or a value that is not finite.
pub(crate) fn answers(
    parameter: &Parameter<f32>,
    output: &ArrayD<f32>,
    all_rows: usize,
    rows: &[usize],
    units: &[usize],
) -> Result<Array2<f64>> {
    let (layer, dims) = (parameter.name(), output.shape());
    let conv = matches!(parameter.kind(), Kind::Conv(_));
    let unit_axis = if conv { 1 } else { dims.len().saturating_sub(1) };
    let count = dims.get(unit_axis).copied().unwrap_or(0);
    let places: usize = if conv { dims.get(2..).unwrap_or_default().iter().product() } else { 1 };
    let values = output.as_slice().filter(|v| v.len() == all_rows * count);
    let Some(values) = values.filter(|_| units.iter().all(|&u| u < count)) else {
        return Err(Error::shape(format!("layer `{layer}` answers {dims:?} to {all_rows} rows")));
    };
    let mut picked = Vec::with_capacity(rows.len() * units.len());
    for row in rows {
        let (sample, place) = (row / places.max(1), row % places.max(1));
        let start = sample * count * places + place;
        picked.extend(units.iter().map(|unit| f64::from(values[start + unit * places])));
    }
    if let Some(x) = picked.iter().find(|x| !x.is_finite()) {
        return Err(Error::new(ErrorKind::NotFinite, format!("layer `{layer}`: an output is {x}")));
    }
    Array2::from_shape_vec((rows.len(), units.len()), picked).map_err(|e| Error::shape(e.to_string()))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, array};

    use super::*;

    #[test]
    fn picks_are_spread_over_rows_and_columns() {
        assert_eq!(pick(5, 7, 3), [0, 1, 2, 3, 4]);
        let picked = pick(28 * 28 * 10, 280, 5);
        assert_eq!(picked.len(), 280);
        assert!(picked.windows(2).all(|pair| pair[0] < pair[1]));
        for column in 0..28 {
            let seen = picked.iter().filter(|row| *row % 28 == column).count();
            assert!((4..=17).contains(&seen), "{seen} of column {column}");
        }
    }

    #[test]
    fn rows_times_weights_are_answers() {
        let weights =
            Array::from_shape_fn((4, 2, 2, 3), |(o, i, y, x)| (o * 7 + i * 5 + y * 3 + x) as f32 - 9.0);
        let geometry = Geometry::new().padding(1).stride(2).groups(2);
        let conv = Parameter::conv("conv", weights.clone(), geometry);
        let input = ArrayD::from_shape_fn(vec![2, 4, 5, 4], |i| {
            ((i[0] * 31 + i[1] * 17 + i[2] * 5 + i[3]) % 13) as f32
        });
        let reads = Reads::new(&conv, &input).unwrap();
        // (5 + 2 − 2) / 2 + 1 = 3 by (4 + 2 − 3) / 2 + 1 = 2
        assert_eq!(reads.rows(), 2 * 3 * 2);
        let rows = reads.gather(&[8]).unwrap(); // sample 1, row 1, column 0
        assert_eq!((rows.len(), rows[0].shape()), (2, &[1, 12][..]));
        let at =
            |c: usize, y: usize, x: isize| usize::try_from(x).map_or(0.0, |x| f64::from(input[[1, c, y, x]]));
        assert_eq!(rows[1][[0, 0]], at(2, 1, -1));
        assert_eq!(rows[1][[0, 4]], at(2, 2, 0));
        assert_eq!(rows[1][[0, 11]], at(3, 2, 1));
    }

    #[test]
    fn answers_are_of_the_same_rows() {
        let conv = Parameter::conv("conv", Array::<f32, _>::ones((3, 1, 1)), Geometry::new());
        let output = array![[[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]], [[7.0, 8.0], [9.0, 10.0], [11.0, 12.0]]]
            .into_dyn();
        let picked = answers(&conv, &output, 4, &[1, 2], &[2, 0]).unwrap();
        assert_eq!(picked, array![[6.0, 2.0], [11.0, 7.0]]);
        assert!(answers(&conv, &output, 5, &[1], &[0]).is_err());
        let linear = Parameter::linear("fc", Array::<f32, _>::ones((2, 3)));
        let output = array![[[1.0f32, 2.0], [3.0, 4.0]]].into_dyn();
        assert_eq!(answers(&linear, &output, 2, &[1], &[0, 1]).unwrap(), array![[3.0, 4.0]]);
    }
}
