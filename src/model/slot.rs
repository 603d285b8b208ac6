//! Where a coupling's index space lies in a parameter's axis.

/// Which axis of its parameter a slot is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotAxis {
    Out,
    In,
    At(usize),
}

/// One (parameter, axis) pair that shares a coupling's index space, and how the space maps into the axis.
///
/// Index i of a space of size n, in copy c and repeat r, is position
///
/// ```text
/// offset + c · stride + i · repeat + r        c < copies, r < repeat, stride = n · repeat unless said
/// ```
///
/// | what | setting |
/// |---|---|
/// | channels of a convolution, neurons | nothing: position i |
/// | concat | [`offset`](Self::offset): where this part begins |
/// | flatten of [C, H, W] | [`repeat`](Self::repeat)(H·W) |
/// | gates of an LSTM or GRU | nothing on an output axis: as [`copies`](Self::copies)(4 or 3) |
/// | attention heads | [`repeat`](Self::repeat)(head size) |
/// | grouped convolution, the same place in each group | [`copies`](Self::copies)(groups) on what feeds it |
/// | grouped convolution, whole groups | [`repeat`](Self::repeat)(filters of a group), and channels of a group on what feeds it |
///
/// ```
/// use ndarray::Array;
/// use niwaki::{Coupling, Model, Parameter, Slot};
///
/// # fn main() -> niwaki::Result<()> {
/// // Two hidden units of an LSTM: rows u, 2 + u, 4 + u and 6 + u of its four gates.
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::recurrent("cell", Array::ones((4 * 2, 3)), 4))
///     .parameter(Parameter::linear("fc", Array::ones((1, 5 + 2))))
///     .coupling(
///         Coupling::builder("hidden")
///             .slot(Slot::output("cell").copies(4))
///             .slot(Slot::input("fc").offset(5)),
///     )
///     .build()?;
/// let slots = model.coupling("hidden")?.slots();
/// assert_eq!(slots[0].positions(1), [1, 3, 5, 7]);
/// assert_eq!(slots[1].positions(1), [6]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub(crate) parameter: String,
    pub(crate) axis: SlotAxis,
    /// Set: the slot is a part of its axis. Not set: it fills the axis from 0 on.
    pub(crate) offset: Option<usize>,
    pub(crate) copies: usize,
    pub(crate) stride: Option<usize>,
    pub(crate) repeat: usize,
}

impl Slot {
    /// The output axis of a parameter (of a vector: its only axis).
    pub fn output(parameter: impl Into<String>) -> Self {
        Self::new(parameter.into(), SlotAxis::Out)
    }

    /// The input axis of a parameter.
    pub fn input(parameter: impl Into<String>) -> Self {
        Self::new(parameter.into(), SlotAxis::In)
    }

    /// An axis by number.
    pub fn at(parameter: impl Into<String>, axis: usize) -> Self {
        Self::new(parameter.into(), SlotAxis::At(axis))
    }

    fn new(parameter: String, axis: SlotAxis) -> Self {
        Self { parameter, axis, offset: None, copies: 1, stride: None, repeat: 1 }
    }

    /// The space begins at this position of the axis, and others may fill the rest (a concat). A slot without
    /// an offset must fill its axis.
    pub fn offset(self, offset: usize) -> Self {
        Self { offset: Some(offset), ..self }
    }

    /// Each index is this many neighbours on the axis.
    pub fn repeat(self, repeat: usize) -> Self {
        Self { repeat, ..self }
    }

    /// The whole space stands this many times on the axis.
    pub fn copies(self, copies: usize) -> Self {
        Self { copies, ..self }
    }

    /// Distance from one copy to the next, where it is not the space's own length.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride: Some(stride), ..self }
    }

    /// Whether the slot says nothing about where it begins or how it is spaced, so that it fills its axis.
    pub(crate) fn fills_axis(&self) -> bool {
        self.offset.is_none() && self.stride.is_none()
    }

    /// Whether nothing was said of how the space maps into the axis.
    pub(crate) fn is_plain(&self) -> bool {
        self.fills_axis() && self.copies == 1 && self.repeat == 1
    }

    /// The size of the space if this slot fills an axis of `len` positions.
    pub(crate) fn implied_size(&self, len: usize) -> Option<usize> {
        let per_index = self.copies.checked_mul(self.repeat).filter(|&n| n > 0)?;
        len.is_multiple_of(per_index).then_some(len / per_index)
    }

    /// Positions of every index in a space of `size`; `None` when one is past an axis of `len` positions, or
    /// when they are more than the axis has.
    pub(crate) fn positions(&self, size: usize, len: usize) -> Option<Vec<Vec<usize>>> {
        let run = size.checked_mul(self.repeat).filter(|&run| run > 0)?;
        let stride = self.stride.unwrap_or(run);
        let offset = self.offset.unwrap_or(0);
        let last = offset.checked_add(self.copies.checked_sub(1)?.checked_mul(stride)?)?.checked_add(run)?;
        if last > len || run.checked_mul(self.copies)? > len {
            return None;
        }
        let of = |i| {
            let copies = (0..self.copies).map(move |c| offset + c * stride + i * self.repeat);
            copies.flat_map(|start| start..start + self.repeat).collect()
        };
        Some((0..size).map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_concat_and_flatten() {
        let gates = Slot::output("w").copies(3).positions(2, 6).unwrap();
        assert_eq!(gates, [[0, 2, 4], [1, 3, 5]]);
        let concat = Slot::input("w").offset(4).positions(2, 6).unwrap();
        assert_eq!(concat, [[4], [5]]);
        let flatten = Slot::input("w").repeat(3).positions(2, 6).unwrap();
        assert_eq!(flatten, [[0, 1, 2], [3, 4, 5]]);
        assert_eq!(Slot::input("w").offset(5).positions(2, 6), None);
        assert_eq!(Slot::output("w").copies(4).implied_size(8), Some(2));
    }

    #[test]
    fn numbers_past_any_axis_are_refused() {
        let max = usize::MAX;
        for slot in [
            Slot::input("w").offset(max),
            Slot::input("w").copies(max),
            Slot::input("w").copies(max).stride(0),
            Slot::input("w").repeat(max),
            Slot::input("w").copies(max).repeat(max),
            Slot::input("w").copies(2).stride(max),
            Slot::input("w").copies(0),
            Slot::input("w").repeat(0),
        ] {
            assert_eq!(slot.positions(2, 6), None, "{slot:?}");
        }
        assert_eq!(Slot::input("w").positions(max, 6), None);
        assert_eq!(Slot::input("w").positions(0, 6), None);
    }
}
