//! What a convolution reads: the windows of its taps along each axis, and the planes they are cut from.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::{Element, Geometry};

/// More output positions in one sample than this are not counted.
const MOST_POSITIONS: usize = 1 << 40;
/// More places along one axis, padding included, than this are not counted: two of them add up within an isize.
const MOST_PLACES: usize = isize::MAX as usize / 4;

/// A convolution over planes of one shape.
pub(super) struct Unfold {
    axes: Vec<Axis>,
    /// positions of one sample's output
    pub(super) positions: usize,
}

/// Tap t of output position p lies at `stride·p + origins[t]`, outside 0..len in the padding.
struct Axis {
    len: usize,
    stride: usize,
    output: usize,
    origins: Vec<isize>,
}

/// Taps of one axis that reach the same places, up to the ends of the axis, and with each another tap `shift` places
/// further on.
pub(super) struct Reach {
    pub(super) shift: isize,
    pub(super) taps: Vec<(usize, usize)>,
    pub(super) segments: Vec<Segment>,
}

/// Places `first`, `first + stride`, …; every tap reads all of them or none.
pub(super) struct Segment {
    pub(super) first: isize,
    pub(super) count: usize,
    /// indices into the taps of the reach
    pub(super) read_by: Vec<usize>,
}

impl Unfold {
    /// `None` where the kernel does not fit, or has more positions than can be counted.
    pub(super) fn new(geometry: Geometry, kernel: &[usize], input: &[usize]) -> Option<Self> {
        let axis = |(axis, (&len, &taps)): (usize, (&usize, &usize))| {
            let output = geometry.output_len(axis, len, taps)?;
            let (before, after) = geometry.padding_of(axis);
            if before.checked_add(len)?.checked_add(after)? > MOST_PLACES {
                return None;
            }
            let dilation = geometry.dilation_of(axis);
            let origins = (0..taps).map(|tap| (tap * dilation) as isize - before as isize).collect();
            // A stride that is never taken may be of any size.
            let stride = if output == 1 { 1 } else { geometry.stride_of(axis) };
            Some(Axis { len, stride, output, origins })
        };
        let axes = input.iter().zip(kernel).enumerate().map(axis).collect::<Option<Vec<_>>>()?;
        let positions = axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.output))?;
        (positions <= MOST_POSITIONS).then_some(Self { axes, positions })
    }

    /// A kernel of one tap over planes of so many places in a line.
    pub(super) fn pointwise(places: usize) -> Option<Self> {
        Self::new(Geometry::new(), &[1], &[places])
    }

    /// Taps of the kernel.
    pub(super) fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.origins.len()).product()
    }

    /// The taps along each axis.
    pub(super) fn kernel(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.origins.len()).collect()
    }

    pub(super) fn strides(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.stride).collect()
    }

    /// All places that each tap reads, one for each output position.
    pub(super) fn places(&self) -> Vec<Places> {
        let (kernel, step) = (self.kernel(), self.strides());
        let count: Vec<usize> = self.axes.iter().map(|axis| axis.output).collect();
        let of_tap = |tap: usize| {
            let at = unravel(tap, &kernel);
            let first = self.axes.iter().zip(&at).map(|(axis, &t)| axis.origins[t]).collect();
            Places { first, step: step.clone(), count: count.clone() }
        };
        (0..self.taps()).map(of_tap).collect()
    }

    /// Along each axis, all pairs of taps by what they reach.
    pub(super) fn reaches(&self) -> Vec<Vec<Reach>> {
        self.axes.iter().map(|axis| axis.reaches(|_, _| true)).collect()
    }

    /// Sums over the window of each tap, of a plane of numbers.
    pub(super) fn window_sums(&self, plane: &[f64]) -> Vec<f64> {
        let mut sums = plane.to_vec();
        // The last axis first: […, len, later taps] → […, taps, later taps].
        let mut inner = 1;
        for axis in self.axes.iter().rev() {
            let (taps, reaches) = (axis.origins.len(), axis.reaches(|a, b| a == b));
            let mut next = Vec::with_capacity(sums.len() / axis.len * taps);
            for slab in sums.chunks_exact(axis.len * inner) {
                let start = next.len();
                next.resize(start + taps * inner, 0.0);
                axis.add_windows(&reaches, slab, inner, &mut next[start..]);
            }
            sums = next;
            inner *= taps;
        }
        sums
    }
}

impl Axis {
    /// Pairs of taps grouped by their shift and by the places that their stride lets them reach.
    fn reaches(&self, wanted: impl Fn(usize, usize) -> bool) -> Vec<Reach> {
        let stride = self.stride as isize;
        let mut groups: BTreeMap<(isize, isize), Vec<(usize, usize)>> = BTreeMap::new();
        for (t, a) in self.origins.iter().enumerate() {
            for (u, b) in self.origins.iter().enumerate().filter(|&(u, _)| wanted(t, u)) {
                groups.entry((b - a, a.rem_euclid(stride))).or_default().push((t, u));
            }
        }
        let reach = |((shift, rest), taps): ((isize, isize), Vec<(usize, usize)>)| {
            let segments = self.segments(shift, rest, &taps);
            Reach { shift, taps, segments }
        };
        groups.into_iter().map(reach).collect()
    }

    /// Where the windows of these taps, at places stride·m + rest, begin and end, less the places that lie in the
    /// padding themselves or `shift` further on.
    fn segments(&self, shift: isize, rest: isize, taps: &[(usize, usize)]) -> Vec<Segment> {
        let (len, stride) = (self.len as isize, self.stride as isize);
        let ceil = |place: isize| -((rest - place).div_euclid(stride));
        let (low, high) = (ceil(0.max(-shift)), ceil(len.min(len.saturating_sub(shift))));
        let windows: Vec<Range<isize>> = taps
            .iter()
            .map(|&(t, _)| {
                let start = self.origins[t].div_euclid(stride);
                start.max(low)..(start + self.output as isize).min(high)
            })
            .collect();
        let mut ends: Vec<isize> =
            windows.iter().filter(|w| !w.is_empty()).flat_map(|w| [w.start, w.end]).collect();
        ends.sort_unstable();
        ends.dedup();
        let segment = |ends: &[isize]| Segment {
            first: ends[0] * stride + rest,
            count: (ends[1] - ends[0]) as usize,
            read_by: (0..windows.len())
                .filter(|&k| windows[k].start <= ends[0] && ends[1] <= windows[k].end)
                .collect(),
        };
        ends.windows(2).map(segment).filter(|segment| !segment.read_by.is_empty()).collect()
    }

    /// Adds the window of each tap over [len, inner] to [taps, inner].
    fn add_windows(&self, reaches: &[Reach], slab: &[f64], inner: usize, windows: &mut [f64]) {
        let mut sum = vec![0.0; inner];
        for reach in reaches {
            for segment in &reach.segments {
                sum.fill(0.0);
                let rows = slab[segment.first as usize * inner..].chunks(self.stride.min(self.len) * inner);
                for rows in rows.take(segment.count) {
                    sum.iter_mut().zip(rows).for_each(|(sum, x)| *sum += x);
                }
                for &k in &segment.read_by {
                    let to = &mut windows[reach.taps[k].0 * inner..][..inner];
                    to.iter_mut().zip(&sum).for_each(|(to, x)| *to += x);
                }
            }
        }
    }
}

/// A box of places in a plane: along each axis `count` of them, `step` apart, from `first` on.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) first: Vec<isize>,
    pub(super) step: Vec<usize>,
    pub(super) count: Vec<usize>,
}

/// A batch [samples, channels, positions…], or some neighbouring channels of it.
pub(super) struct Planes<'a, F> {
    /// from the first channel of the first sample on
    pub(super) values: &'a [F],
    pub(super) dims: &'a [usize],
    /// elements from one sample to the next
    pub(super) sample: usize,
}

/// A run of places within the plane: `count` of them, from the row `to` on.
pub(super) struct Run {
    to: usize,
    from: usize,
    count: usize,
}

impl<F: Element> Planes<'_, F> {
    fn plane(&self) -> usize {
        self.dims.iter().product()
    }

    /// Where these places are in the first channel, all samples one after the other, of which `rows` are asked for;
    /// without those in the padding.
    pub(super) fn runs(&self, places: &Places, rows: Range<usize>) -> Vec<Run> {
        let last = self.dims.len() - 1;
        let (len, wide, step) = (self.dims[last] as isize, places.count[last], places.step[last] as isize);
        let lines: usize = places.count[..last].iter().product();
        let (mut runs, mut row) = (Vec::with_capacity(rows.len() / wide + 2), rows.start);
        while row < rows.end {
            let (line, column) = (row / wide, row % wide);
            let here = (wide - column).min(rows.end - row);
            let place = places.first[last] + column as isize * step;
            // Columns that are not in the padding.
            let skip = if place < 0 { (-place + step - 1) / step } else { 0 };
            let stop = ((len - place + step - 1) / step).clamp(0, here as isize);
            if let Some(line_at) = self.line(places, line % lines).filter(|_| skip < stop) {
                let from = line / lines * self.sample + line_at + (place + skip * step) as usize;
                runs.push(Run { to: row - rows.start + skip as usize, from, count: (stop - skip) as usize });
            }
            row += here;
        }
        runs
    }

    /// Where a line of places along the last axis begins; `None` in the padding.
    fn line(&self, places: &Places, mut line: usize) -> Option<usize> {
        let last = self.dims.len() - 1;
        let (mut offset, mut size) = (0, self.dims[last]);
        for axis in (0..last).rev() {
            let (at, len) = (line % places.count[axis], self.dims[axis]);
            line /= places.count[axis];
            let place = places.first[axis] + (at * places.step[axis]) as isize;
            offset += usize::try_from(place).ok().filter(|&place| place < len)? * size;
            size *= len;
        }
        Some(offset)
    }

    /// Copies runs of a channel.
    pub(super) fn copy<T: Element>(&self, channel: usize, runs: &[Run], step: usize, to: &mut [T]) {
        let values = &self.values[channel * self.plane()..];
        for run in runs {
            let to = &mut to[run.to..run.to + run.count];
            let from = &values[run.from..];
            if step == 1 {
                to.iter_mut().zip(from).for_each(|(to, x)| *to = T::narrow(x.widen()));
            } else {
                to.iter_mut().zip(from.iter().step_by(step)).for_each(|(to, x)| *to = T::narrow(x.widen()));
            }
        }
    }
}

/// The index along each axis of a flat index.
pub(super) fn unravel(mut flat: usize, dims: &[usize]) -> Vec<usize> {
    let mut index = vec![0; dims.len()];
    for axis in (0..dims.len()).rev() {
        index[axis] = flat % dims[axis];
        flat /= dims[axis];
    }
    index
}
