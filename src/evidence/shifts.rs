//! Gram matrices of patches without the patches.
//!
//! Two columns (channel c, tap t) and (c′, t′) of unfolded patches multiply the same pairs of inputs as any other two
//! whose taps are as far apart, up to the ends of the planes: for a 3×3 kernel there are 13 such distances (up to
//! sign) and not 45 pairs of taps. For each distance the planes are multiplied with themselves shifted, in segments
//! at whose borders the window of a tap begins or ends, and each pair of taps takes the segments it reads.

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayViewMut2, Axis, Slice};

use crate::Element;
use crate::evidence::gram::{Patches, RUN, view};
use crate::evidence::unfold::{Places, Reach, Segment};
use crate::kernel::par;

/// Channels that are multiplied with all others at a time.
const BLOCK: usize = 128;
/// How many tasks the products are dealt out to.
const TASKS: usize = 16;
/// Channels whose rows of the Gram matrix one task adds up.
const ROWS: usize = 8;

/// gram += Xᵀ·X, with products in T.
pub(super) fn add_gram<T: Element, F: Element>(gram: &mut Array2<f64>, x: &Patches<'_, F>) {
    if !gram.is_standard_layout() {
        *gram = gram.as_standard_layout().into_owned();
    }
    let reaches = x.unfold.reaches();
    let shifted: Vec<Shifted<'_, F>> = distances(&reaches)
        .iter()
        .flat_map(|d| (0..x.channels).step_by(BLOCK).map(|start| Shifted::new(x, d, start)))
        .collect();
    let products = par::map(TASKS.min(shifted.len()), |task| {
        let mut buffers = Buffers::<T>::default();
        let own = shifted.iter().skip(task).step_by(TASKS);
        own.flat_map(|shifted| shifted.products(&mut buffers)).collect::<Vec<_>>()
    });
    let (taps, d) = (x.unfold.taps(), gram.ncols());
    let Some(gram) = gram.as_slice_mut() else { return };
    par::for_chunks_mut(gram, ROWS * taps * d, |k, rows| {
        for product in products.iter().flatten() {
            product.add_to(rows, k * ROWS, taps, d);
        }
    });
}

/// A reach of each axis, for every distance that is 0 or whose first shift that is not 0 is forward: the others are
/// the same with taps exchanged.
fn distances(reaches: &[Vec<Reach>]) -> Vec<Vec<&Reach>> {
    let all = product(reaches.iter().map(Vec::len));
    let all = all.iter().map(|at| at.iter().zip(reaches).map(|(&k, axis)| &axis[k]).collect::<Vec<_>>());
    all.filter(|distance| distance.iter().find(|r| r.shift != 0).is_none_or(|r| r.shift > 0)).collect()
}

/// Some channels, and at a distance from them the channels from `first` on.
struct Shifted<'a, F> {
    x: &'a Patches<'a, F>,
    distance: Vec<&'a Reach>,
    own: Range<usize>,
    first: usize,
}

/// What a task uses again and again.
#[derive(Default)]
struct Buffers<T> {
    own: Vec<T>,
    all: Vec<T>,
    part: Vec<T>,
    sums: Vec<f64>,
}

/// Products of the channels from `start` on, read by one tap, with `width` channels from `first` on, read by another.
struct Product {
    taps: (usize, usize),
    start: usize,
    first: usize,
    width: usize,
    sums: Vec<f64>,
}

impl<'a, F: Element> Shifted<'a, F> {
    fn new(x: &'a Patches<'a, F>, distance: &[&'a Reach], start: usize) -> Self {
        let own = start..(start + BLOCK).min(x.channels);
        // At no distance the channels are multiplied once.
        let first = if distance.iter().all(|reach| reach.shift == 0) { start } else { 0 };
        Self { x, distance: distance.to_vec(), own, first }
    }

    fn width(&self) -> usize {
        self.x.channels - self.first
    }

    /// All pairs of taps at this distance.
    fn products<T: Element>(&self, buffers: &mut Buffers<T>) -> Vec<Product> {
        let (kernel, width) = (self.x.unfold.kernel(), self.width());
        let pairs = product(self.distance.iter().map(|reach| reach.taps.len()));
        let of_pair = |pair: &Vec<usize>| {
            let along = pair.iter().zip(&self.distance).map(|(&k, reach)| reach.taps[k]);
            let taps = along.zip(&kernel).fold((0, 0), |(t, u), ((a, b), len)| (t * len + a, u * len + b));
            let sums = vec![0.0; self.own.len() * width];
            Product { taps, start: self.own.start, first: self.first, width, sums }
        };
        let mut products: Vec<Product> = pairs.iter().map(of_pair).collect();
        for cell in product(self.distance.iter().map(|reach| reach.segments.len())) {
            let cell: Vec<&Segment> =
                cell.iter().zip(&self.distance).map(|(&k, reach)| &reach.segments[k]).collect();
            self.multiply(&cell, buffers);
            for (pair, product) in pairs.iter().zip(&mut products) {
                if pair.iter().zip(&cell).all(|(k, segment)| segment.read_by.contains(k)) {
                    product.sums.iter_mut().zip(&buffers.sums).for_each(|(sum, x)| *sum += x);
                }
            }
        }
        products
    }

    /// Sums over a cell of segments.
    fn multiply<T: Element>(&self, cell: &[&Segment], buffers: &mut Buffers<T>) {
        let (x, height, width) = (self.x, self.own.len(), self.width());
        let here = Places {
            first: cell.iter().map(|segment| segment.first).collect(),
            step: x.unfold.strides(),
            count: cell.iter().map(|segment| segment.count).collect(),
        };
        let there = cell.iter().zip(&self.distance).map(|(segment, reach)| segment.first + reach.shift);
        let there = Places { first: there.collect(), ..here.clone() };
        let Buffers { own, all, part, sums } = buffers;
        sums.clear();
        sums.resize(height * width, 0.0);
        part.resize(height * width, T::zero());
        let rows = x.samples * here.count.iter().product::<usize>();
        for run in (0..rows).step_by(RUN) {
            let run = run..(run + RUN).min(rows);
            x.gather(&there, self.first..x.channels, run.clone(), all);
            let all = view([width, run.len()], all);
            let own = if here.first == there.first {
                all.slice_axis(Axis(0), Slice::from(..height))
            } else {
                x.gather(&here, self.own.clone(), run.clone(), own);
                view([height, run.len()], own)
            };
            if let Ok(mut part) = ArrayViewMut2::from_shape((height, width), part) {
                general_mat_mul(T::one(), &own, &all.t(), T::zero(), &mut part);
            }
            sums.iter_mut().zip(part.iter()).for_each(|(sum, x)| *sum += x.widen());
        }
    }
}

impl<F: Element> Patches<'_, F> {
    /// What these channels hold at these places, none of them in the padding.
    fn gather<T: Element>(
        &self,
        places: &Places,
        channels: Range<usize>,
        rows: Range<usize>,
        to: &mut Vec<T>,
    ) {
        to.resize(channels.len() * rows.len(), T::zero());
        let (runs, step) = (self.planes.runs(places, rows.clone()), places.step.last().copied().unwrap_or(1));
        for (channel, to) in channels.zip(to.chunks_exact_mut(rows.len())) {
            self.planes.copy(channel, &runs, step, to);
        }
    }
}

impl Product {
    /// Adds to the rows of the Gram matrix that begin with those of channel `channel`.
    fn add_to(&self, rows: &mut [f64], channel: usize, taps: usize, d: usize) {
        let (&Self { taps: (t, u), width, .. }, sums) = (self, &self.sums);
        let (end, channels) = (self.start + sums.len() / width, channel..channel + rows.len() / (taps * d));
        for own in channels.start.max(self.start)..channels.end.min(end) {
            let row = &mut rows[((own - channel) * taps + t) * d..][..d];
            let sums = &sums[(own - self.start) * width..][..width];
            for (to, x) in row[self.first * taps + u..].iter_mut().step_by(taps).zip(sums) {
                *to += x;
            }
        }
        // Turned. A channel with itself at no distance is there once.
        let least = if t == u { end } else { self.first };
        let (low, high) = (channels.start.max(least), channels.end);
        if low < high {
            for (own, sums) in (self.start..).zip(sums.chunks_exact(width)) {
                let column = &mut rows[((low - channel) * taps + u) * d + own * taps + t..];
                for (to, x) in
                    column.iter_mut().step_by(taps * d).zip(&sums[low - self.first..high - self.first])
                {
                    *to += x;
                }
            }
        }
    }
}

/// All lists with a number below each length.
fn product(lengths: impl Iterator<Item = usize>) -> Vec<Vec<usize>> {
    lengths.fold(vec![Vec::new()], |lists, length| {
        let longer = |list: &Vec<usize>| {
            (0..length).map(|k| list.iter().copied().chain([k]).collect()).collect::<Vec<_>>()
        };
        lists.iter().flat_map(longer).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Geometry;
    use crate::evidence::gram;
    use crate::evidence::unfold::{Planes, Unfold};

    /// The Gram matrix with and without patches, of planes of whole numbers, which add up exactly.
    fn both(
        geometry: Geometry,
        kernel: &[usize],
        dims: &[usize],
        channels: usize,
        samples: usize,
    ) -> [Array2<f64>; 2] {
        let unfold = Unfold::new(geometry, kernel, dims).unwrap();
        let sample = channels * dims.iter().product::<usize>();
        let values: Vec<f64> = (0..samples * sample).map(|k| ((k * 7919) % 23) as f64 - 9.0).collect();
        let (planes, places) = (Planes { values: &values, dims, sample }, unfold.places());
        let x = Patches { planes, unfold: &unfold, places: &places, channels, samples };
        let d = channels * unfold.taps();
        let (mut with, mut without) = (Array2::zeros((d, d)), Array2::zeros((d, d)));
        gram::add_gram::<f64>(&mut with, &x);
        add_gram::<f64, f64>(&mut without, &x);
        assert!(with.iter().any(|&x| x != 0.0));
        [with, without]
    }

    #[test]
    fn equal_the_patches() {
        let new = Geometry::new;
        let cases = [
            (new().padding(1), vec![3, 3], vec![7, 6], 5),
            (new(), vec![3, 3], vec![9, 8], 3),
            (new().stride(2).padding(2), vec![5, 3], vec![9, 10], 2),
            (new().strides([3, 1]).paddings([(0, 2), (3, 0)]).dilations([2, 3]), vec![2, 3], vec![6, 7], 4),
            (new().padding(2).dilation(2), vec![3], vec![40], 6),
            (new().padding(1).strides([1, 2, 1]), vec![2, 3, 2], vec![3, 5, 4], 2),
            // more places in the padding than in the plane
            (new().padding(9).stride(4), vec![3, 4], vec![2, 3], 2),
            // two blocks of channels
            (new().padding(1), vec![2, 2], vec![3, 3], BLOCK + 5),
        ];
        for (geometry, kernel, dims, channels) in cases {
            let [with, without] = both(geometry, &kernel, &dims, channels, 3);
            assert_eq!(with, without, "{geometry:?} {kernel:?} {dims:?}");
        }
    }

    #[test]
    fn padding_costs_nothing() {
        let huge = Geometry::new().paddings([(1 << 36, 3)]).stride(5);
        let unfold = Unfold::new(huge, &[3], &[6]).unwrap();
        // 2³⁶ is 1 more than a multiple of 5.
        assert_eq!(unfold.window_sums(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]), [16.0, 1.0 + 32.0, 2.0]);
        let last = Geometry::new().stride(usize::MAX);
        assert_eq!(Unfold::new(last, &[2], &[6]).unwrap().window_sums(&[1.0; 6]), [1.0, 1.0]);
        assert!(Unfold::new(huge.padding(1 << 50), &[3], &[6]).is_none());
    }

    #[cfg(feature = "rayon")]
    #[test]
    fn any_number_of_threads_gives_the_same_bytes() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| both(Geometry::new().padding(1), &[3, 3], &[9, 9], 20, 30))
        };
        let one = on(1);
        assert_eq!(one, on(2));
        assert_eq!(one, on(7));
    }
}
