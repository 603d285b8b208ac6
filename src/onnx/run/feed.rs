//! Tensors in the order in which evidence takes them.

use ndarray::{ArrayD, Axis, IxDyn, Slice};

use crate::onnx::trace::Order;
use crate::{Error, Result};

/// A tensor of the graph as a layer's input or output.
pub(crate) fn arrange(array: ArrayD<f32>, order: &Order) -> Result<ArrayD<f32>> {
    match order {
        Order::Plain => Ok(array),
        Order::Features(axis) if *axis < array.ndim() => {
            let mut axes: Vec<usize> = (0..array.ndim()).filter(|a| a != axis).collect();
            axes.push(*axis);
            Ok(array.permuted_axes(IxDyn(&axes)).as_standard_layout().into_owned())
        }
        Order::Direction(direction) if array.ndim() == 4 && *direction < array.shape()[1] => {
            let one = array.index_axis_move(Axis(1), *direction);
            Ok(one.permuted_axes(IxDyn(&[1, 0, 2])).as_standard_layout().into_owned())
        }
        Order::State { direction, back } if array.ndim() == 4 && *direction < array.shape()[1] => {
            let one = array.index_axis_move(Axis(1), *direction).permuted_axes(IxDyn(&[1, 0, 2]));
            let last = one.shape()[1].saturating_sub(1) as isize;
            let (from, to) = if *back { (1, 0) } else { (0, 1) };
            let mut states = ArrayD::zeros(one.raw_dim());
            let mut later = states.slice_axis_mut(Axis(1), Slice::new(to, Some(to + last), 1));
            later.assign(&one.slice_axis(Axis(1), Slice::new(from, Some(from + last), 1)));
            Ok(states)
        }
        Order::Stretched(zeros) if array.ndim() == zeros.len() + 2 => Ok(stretch(&array, zeros)),
        order => Err(Error::shape(format!("a tensor of shape {:?} is no {order:?}", array.shape()))),
    }
}

/// So many zeros after each place but the last, along each spatial axis.
fn stretch(array: &ArrayD<f32>, zeros: &[usize]) -> ArrayD<f32> {
    let mut shape = array.shape().to_vec();
    for (len, zeros) in shape[2..].iter_mut().zip(zeros) {
        *len = (*len * (zeros + 1)).saturating_sub(*zeros);
    }
    let mut stretched = ArrayD::zeros(shape);
    let mut places = stretched.view_mut();
    for (axis, zeros) in zeros.iter().enumerate() {
        places.slice_axis_inplace(Axis(axis + 2), Slice::new(0, None, (zeros + 1) as isize));
    }
    places.assign(array);
    stretched
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn features_move_to_the_end() {
        let array = array![[[1.0f32, 2.0], [3.0, 4.0]]].into_dyn();
        let moved = arrange(array.clone(), &Order::Features(1)).unwrap();
        assert_eq!(moved, array![[[1.0f32, 3.0], [2.0, 4.0]]].into_dyn());
        assert_eq!(arrange(array.clone(), &Order::Plain).unwrap(), array);
        assert!(arrange(array, &Order::Features(3)).is_err());
    }

    #[test]
    fn one_direction_is_taken_with_samples_in_front() {
        let array =
            ArrayD::from_shape_fn(vec![3, 2, 4, 5], |i| (i[0] * 100 + i[1] * 50 + i[2] * 5 + i[3]) as f32);
        let one = arrange(array.clone(), &Order::Direction(1)).unwrap();
        assert_eq!(one.shape(), [4, 3, 5]);
        assert_eq!(one[[3, 2, 4]], array[[2, 1, 3, 4]]);
        let state = |back| arrange(array.clone(), &Order::State { direction: 1, back }).unwrap();
        let (before, after) = (state(false), state(true));
        assert_eq!(before.shape(), [4, 3, 5]);
        assert_eq!((before[[3, 0, 4]], before[[3, 2, 4]]), (0.0, array[[1, 1, 3, 4]]));
        assert_eq!((after[[3, 0, 4]], after[[3, 2, 4]]), (array[[1, 1, 3, 4]], 0.0));
    }

    #[test]
    fn zeros_go_between_places() {
        let array = array![[[1.0f32, 2.0, 3.0]]].into_dyn();
        let stretched = arrange(array, &Order::Stretched(vec![1])).unwrap();
        assert_eq!(stretched, array![[[1.0f32, 0.0, 2.0, 0.0, 3.0]]].into_dyn());
    }
}
