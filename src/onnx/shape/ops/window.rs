//! Windows that move along spatial axes.

use super::{Found, Op, ensure, length};

/// Of a convolution or pooling, a number for each spatial axis.
#[derive(Debug)]
pub(super) struct Window {
    kernel: Vec<i64>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    /// at the beginnings, then at the ends
    pads: Vec<i64>,
    auto: Auto,
    /// whether a last window counts that is not whole
    rounds_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Auto {
    NotSet,
    Same,
    Valid,
}

impl Window {
    pub(super) fn new(op: &Op<'_>, kernel: Vec<i64>) -> Found<Self> {
        let axes = kernel.len();
        let auto = match op.node.text("auto_pad") {
            Some("SAME_UPPER" | "SAME_LOWER") => Auto::Same,
            Some("VALID") => Auto::Valid,
            _ => Auto::NotSet,
        };
        let mut pads = op.list("pads", 2 * axes, 0)?;
        if auto != Auto::NotSet {
            pads.fill(0);
        }
        let strides = op.list("strides", axes, 1)?;
        let dilations = op.list("dilations", axes, 1)?;
        ensure([&kernel, &strides, &dilations].iter().all(|list| list.iter().all(|&n| n > 0)))?;
        Ok(Self { kernel, strides, dilations, pads, auto, rounds_up: op.flag("ceil_mode") })
    }

    /// How often it fits along an axis of this length.
    pub(super) fn count(&self, at: usize, whole: usize) -> Found<usize> {
        let (whole, stride) = (whole as i128, i128::from(self.strides[at]));
        if self.auto == Auto::Same {
            return length((whole + stride - 1) / stride);
        }
        let free = whole + self.padding(at) - self.reach(at);
        ensure(free >= 0)?;
        let mut steps = free / stride;
        if self.rounds_up && free % stride > 0 {
            // A window that would begin in the padding at the end does not count.
            let begin = whole + i128::from(self.pads[at]);
            steps += i128::from((steps + 1) * stride < begin);
        }
        length(steps + 1)
    }

    /// The length to which a transposed window spreads this one.
    pub(super) fn spread(&self, at: usize, whole: usize, more: i64) -> Found<usize> {
        let (whole, stride) = (whole as i128, i128::from(self.strides[at]));
        let all = stride * (whole - 1) + i128::from(more) + self.reach(at);
        if self.auto == Auto::Same {
            return length(all.min(stride * whole));
        }
        length(all - self.padding(at))
    }

    fn padding(&self, at: usize) -> i128 {
        i128::from(self.pads[at]) + i128::from(self.pads[at + self.kernel.len()])
    }

    /// From the first element of a window to its last.
    fn reach(&self, at: usize) -> i128 {
        i128::from(self.dilations[at]) * (i128::from(self.kernel[at]) - 1) + 1
    }
}
