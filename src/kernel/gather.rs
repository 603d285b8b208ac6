//! Positions of several axes at once.

/// The values of a row-major array of this shape at the positions that are kept along each axis (`None`: all), in
/// row-major order. Positions are within their axes.
pub(crate) fn gather<F: Copy>(values: &[F], shape: &[usize], kept: &[Option<&[usize]>]) -> Vec<F> {
    let len = shape.iter().zip(kept).map(|(&len, kept)| kept.map_or(len, <[usize]>::len)).product();
    let mut out = Vec::with_capacity(len);
    append(values, shape, kept, &mut out);
    out
}

fn append<F: Copy>(values: &[F], shape: &[usize], kept: &[Option<&[usize]>], out: &mut Vec<F>) {
    if kept.iter().all(Option::is_none) {
        return out.extend_from_slice(values);
    }
    let inner: usize = shape[1..].iter().product();
    match kept[0] {
        None => values.chunks_exact(inner.max(1)).for_each(|part| append(part, &shape[1..], &kept[1..], out)),
        Some(places) if inner == 1 => out.extend(places.iter().map(|&at| values[at])),
        Some(places) => {
            for &at in places {
                append(&values[at * inner..(at + 1) * inner], &shape[1..], &kept[1..], out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Axis};

    use super::*;

    #[test]
    fn equals_one_axis_after_another() {
        let array = Array3::from_shape_fn((3, 4, 5), |(i, j, k)| 100 * i + 10 * j + k);
        let values = array.as_slice().unwrap();
        let (rows, columns): (&[usize], &[usize]) = (&[0, 2], &[1, 4]);
        let expected = array.select(Axis(0), rows).select(Axis(2), columns);
        let got = gather(values, &[3, 4, 5], &[Some(rows), None, Some(columns)]);
        assert_eq!(got, expected.iter().copied().collect::<Vec<_>>());
        assert_eq!(gather(values, &[3, 4, 5], &[None, None, None]), values);
        assert!(gather(values, &[3, 4, 5], &[None, Some(&[]), None]).is_empty());
    }
}
