//! How a convolution slides over its input.

/// Spatial axes that can be told apart.
pub(crate) const AXES: usize = 3;

/// How a convolution slides over its input, along each spatial axis.
///
/// Defaults: stride 1, padding 0, dilation 1 on all axes, one group. [`stride`](Self::stride),
/// [`padding`](Self::padding) and [`dilation`](Self::dilation) set one value for all spatial axes;
/// [`strides`](Self::strides), [`paddings`](Self::paddings) and [`dilations`](Self::dilations) set one for each, in
/// the order of the kernel's axes, for up to three. Needed only where evidence about the layer's inputs is recorded
/// (the layer then sees its input unfolded into patches), and for the groups.
///
/// ```
/// use niwaki::Geometry;
/// let depthwise = Geometry::new().padding(1).groups(32);
/// assert_eq!(depthwise.output_len(0, 8, 3), Some(8));
/// assert_eq!(Geometry::new().output_len(0, 2, 3), None);
/// // Rows in steps of 2, one column of zeros on the right only.
/// let uneven = Geometry::new().strides([2, 1]).paddings([(0, 0), (0, 1)]);
/// assert_eq!((uneven.output_len(0, 8, 2), uneven.output_len(1, 8, 2)), (Some(4), Some(8)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub(crate) strides: PerAxis<usize>,
    pub(crate) paddings: PerAxis<(usize, usize)>,
    pub(crate) dilations: PerAxis<usize>,
    pub(crate) groups: usize,
}

/// A number for each spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PerAxis<T> {
    /// The same for however many there are.
    All(T),
    /// As many as were given; those past [`AXES`] are counted and not kept.
    Each { values: [T; AXES], count: usize },
}

impl Default for Geometry {
    fn default() -> Self {
        let (strides, dilations) = (PerAxis::All(1), PerAxis::All(1));
        Self { strides, paddings: PerAxis::All((0, 0)), dilations, groups: 1 }
    }
}

impl Geometry {
    /// Stride 1, padding 0, dilation 1, one group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Steps of the kernel, the same along all axes.
    pub fn stride(self, stride: usize) -> Self {
        Self { strides: PerAxis::All(stride), ..self }
    }

    /// Steps of the kernel along each axis. A model is built only if there are as many as the kernel has axes.
    pub fn strides(self, strides: impl IntoIterator<Item = usize>) -> Self {
        Self { strides: PerAxis::each(strides, 1), ..self }
    }

    /// Zeros added on both sides of all axes.
    pub fn padding(self, padding: usize) -> Self {
        Self { paddings: PerAxis::All((padding, padding)), ..self }
    }

    /// Zeros added (before, after) each axis. A model is built only if there are as many as the kernel has axes.
    pub fn paddings(self, paddings: impl IntoIterator<Item = (usize, usize)>) -> Self {
        Self { paddings: PerAxis::each(paddings, (0, 0)), ..self }
    }

    /// Spacing of the kernel's taps, the same along all axes.
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilations: PerAxis::All(dilation), ..self }
    }

    /// Spacing of the kernel's taps along each axis. A model is built only if there are as many as the kernel has
    /// axes.
    pub fn dilations(self, dilations: impl IntoIterator<Item = usize>) -> Self {
        Self { dilations: PerAxis::each(dilations, 1), ..self }
    }

    /// Groups of channels that do not see each other; a depthwise convolution has as many as channels.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Steps of the kernel along a spatial axis; 1 for an axis that was given none.
    pub fn stride_of(&self, axis: usize) -> usize {
        self.strides.of(axis).unwrap_or(1)
    }

    /// Zeros (before, after) a spatial axis; none for an axis that was given none.
    pub fn padding_of(&self, axis: usize) -> (usize, usize) {
        self.paddings.of(axis).unwrap_or_default()
    }

    /// Spacing of the kernel's taps along a spatial axis; 1 for an axis that was given none.
    pub fn dilation_of(&self, axis: usize) -> usize {
        self.dilations.of(axis).unwrap_or(1)
    }

    /// How many groups there are.
    pub fn group_count(&self) -> usize {
        self.groups
    }

    /// Output positions along a spatial axis of `len` inputs with a kernel of `kernel` taps; `None` when none fits,
    /// or the stride is 0, or the numbers are past any array.
    pub fn output_len(&self, axis: usize, len: usize, kernel: usize) -> Option<usize> {
        let span = self.dilation_of(axis).checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
        let (before, after) = self.padding_of(axis);
        let padded = before.checked_add(after)?.checked_add(len)?;
        padded.checked_sub(span)?.checked_div(self.stride_of(axis))?.checked_add(1)
    }

    /// What is wrong with it for a kernel of so many spatial axes.
    pub(crate) fn flaw(&self, axes: usize) -> Option<String> {
        let counts = [
            ("strides", self.strides.count()),
            ("paddings", self.paddings.count()),
            ("dilations", self.dilations.count()),
        ];
        for (what, count) in counts {
            if let Some(count) = count.filter(|&count| count != axes) {
                return Some(format!("{count} {what} for a kernel of {axes} axes"));
            }
            if count.is_some_and(|count| count > AXES) {
                return Some(format!("{axes} {what}, where each of at most {AXES} axes can have its own"));
            }
        }
        // All further axes are as the last one looked at.
        (0..axes.min(AXES)).find_map(|axis| {
            let (stride, dilation) = (self.stride_of(axis), self.dilation_of(axis));
            (stride == 0 || dilation == 0).then(|| {
                format!("stride {stride} and dilation {dilation} of spatial axis {axis} must be at least 1")
            })
        })
    }
}

impl<T: Copy> PerAxis<T> {
    pub(crate) fn each(given: impl IntoIterator<Item = T>, fill: T) -> Self {
        let (mut values, mut count) = ([fill; AXES], 0);
        for value in given {
            if let Some(slot) = values.get_mut(count) {
                *slot = value;
            }
            count += 1;
        }
        Self::Each { values, count }
    }

    fn of(&self, axis: usize) -> Option<T> {
        match self {
            Self::All(value) => Some(*value),
            Self::Each { values, count } => values.get(axis).filter(|_| axis < *count).copied(),
        }
    }

    fn count(&self) -> Option<usize> {
        if let Self::Each { count, .. } = self { Some(*count) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_their_own_numbers() {
        let g = Geometry::new().strides([2, 1]).paddings([(0, 1), (3, 0)]).dilations(vec![1, 2]);
        assert_eq!((g.stride_of(0), g.stride_of(1), g.stride_of(2)), (2, 1, 1));
        assert_eq!((g.padding_of(0), g.padding_of(1), g.padding_of(7)), ((0, 1), (3, 0), (0, 0)));
        assert_eq!((g.dilation_of(0), g.dilation_of(1)), (1, 2));
        // (7 + 1 − 3) / 2 + 1 and (6 + 3 − 5) / 1 + 1
        assert_eq!((g.output_len(0, 7, 3), g.output_len(1, 6, 3)), (Some(3), Some(5)));
        let all = Geometry::new().stride(3).padding(2);
        assert_eq!((all.stride_of(5), all.padding_of(5), all.dilation_of(5)), (3, (2, 2), 1));
    }

    #[test]
    fn numbers_fit_the_kernel() {
        let ok = Geometry::new().strides([2, 1]).padding(1);
        assert_eq!(ok.flaw(2), None);
        assert_eq!(ok.flaw(3).unwrap(), "2 strides for a kernel of 3 axes");
        assert_eq!(Geometry::new().dilations([]).flaw(1).unwrap(), "0 dilations for a kernel of 1 axes");
        assert_eq!(Geometry::new().padding(3).flaw(9), None);
        let four = Geometry::new().paddings([(0, 1); 4]).flaw(4).unwrap();
        assert!(four.contains("4 paddings") && four.contains("at most 3"), "{four}");
        let zero = Geometry::new().strides([1, 0]).flaw(2).unwrap();
        assert!(zero.contains("stride 0") && zero.contains("axis 1"), "{zero}");
        assert!(Geometry::new().dilation(0).flaw(5).unwrap().contains("dilation 0"));
    }
}
