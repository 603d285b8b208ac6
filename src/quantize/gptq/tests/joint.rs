//! Masks and codes in one sweep.

use super::*;

#[test]
fn mask_and_codes_together() {
    let size = |n| GroupSize::new(n).unwrap();
    // More rows than a chunk, and a last block that is short.
    for (rows, columns) in [(3, 9), (300, 44)] {
        let w = weights::<f32>(rows, columns, 0.1);
        let layer = model(Parameter::linear("w", w.clone()));
        let evidence = seen(&layer, &inputs::<f32>(200, columns));
        for uniform in [four(), four().affine().per_tensor(), four().per_group(size(8)).range(Range::Mse)] {
            for settings in
                [gptq(), gptq().act_order(), gptq().block(32).unwrap(), gptq().polish(3), gptq().search()]
            {
                let tensor = quantize(uniform.rounding(settings.sparsity(half())), &layer, &evidence);
                let decoded = tensor.decode::<f32>();
                let outcome = tensor.outcome().unwrap();
                assert!(outcome.error <= outcome.nearest, "{uniform:?} {settings:?} {outcome:?}");
                let zeros = decoded.iter().filter(|q| **q == 0.0).count();
                assert!(zeros >= half().of(rows * columns), "{uniform:?} {settings:?} {zeros}");
                assert!(w.iter().zip(&decoded).all(|(w, q)| *w != 0.0 || q.to_bits() == 0));
            }
        }
        // Fine codes are 0 where weights went, and hardly anywhere else.
        let tensor = quantize(Uniform::int8().rounding(gptq().sparsity(half())), &layer, &evidence);
        let zeros = tensor.decode::<f32>().iter().filter(|q| **q == 0.0).count();
        assert!(zeros - half().of(rows * columns) <= rows * columns / 20, "{zeros}");
    }
}

#[test]
fn n_of_m_with_codes() {
    let w = weights::<f32>(30, 48, 0.0);
    let check = |decoded: &ArrayD<f32>, axis: usize| {
        for lane in decoded.lanes(Axis(axis)) {
            let lane = lane.to_vec();
            assert!(lane.chunks(4).all(|four| four.iter().filter(|q| **q != 0.0).count() <= 2), "{lane:?}");
        }
    };
    let two_of_four = gptq().n_of_m(2, 4).unwrap();
    let linear = model(Parameter::linear("w", w.clone()));
    let evidence = seen(&linear, &inputs::<f32>(200, 48));
    for uniform in
        [four(), four().per_group(GroupSize::new(8).unwrap()), four().per_group(GroupSize::new(6).unwrap())]
    {
        for settings in [two_of_four, two_of_four.act_order(), two_of_four.polish(2), two_of_four.search()] {
            let tensor = quantize(uniform.rounding(settings), &linear, &evidence);
            check(&tensor.decode::<f32>(), 1);
        }
    }
    let array = Array4::from_shape_vec((30, 12, 2, 2), w.iter().copied().collect()).unwrap();
    let conv = model(Parameter::conv("w", array, Geometry::new()));
    let x = Array4::from_shape_vec((6, 12, 5, 5), inputs::<f32>(6, 300).into_iter().collect()).unwrap();
    for settings in [two_of_four, two_of_four.act_order()] {
        check(&quantize(four().rounding(settings), &conv, &seen(&conv, &x)).decode::<f32>(), 1);
    }
    let wrong = gptq().n_of_m(2, 5).unwrap();
    let error = four().rounding(wrong).quantize(&evidence.layer(&linear, "w").unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "layer `w` [30, 48]: 2 of 5: its 48 inputs are not a multiple of 5");
    assert!(gptq().n_of_m(0, 4).is_err() && gptq().n_of_m(5, 4).is_err() && gptq().block(0).is_err());
}

/// Of the weights that go, each block's are those that a direct surgeon takes.
#[test]
fn takes_what_a_direct_surgeon_takes() {
    let (rows, columns, block) = (5, 24, 8);
    let w = weights::<f64>(rows, columns, 0.0);
    let layer = model(Parameter::linear("w", w.clone()));
    let x = inputs::<f64>(60, columns);
    let gram = x.t().dot(&x);
    let h = &gram + &(Array2::<f64>::eye(columns) * (0.01 * gram.diag().mean().unwrap()));
    let mut left = w.clone();
    for start in (0..columns).step_by(block) {
        // All cells of a block by w² / [H⁻¹]_jj over what is left from column j on.
        let mut cells = Vec::new();
        for row in 0..rows {
            for j in start..start + block {
                let rest: Vec<usize> = (j..columns).collect();
                let inverse = inverse(&h.select(Axis(0), &rest).select(Axis(1), &rest));
                cells.push((left[[row, j]].powi(2) / inverse[[0, 0]], row, j));
            }
        }
        cells.sort_by(|a, b| a.0.total_cmp(&b.0));
        let gone: Vec<(usize, usize)> = cells[..rows * block / 2].iter().map(|c| (c.1, c.2)).collect();
        for row in 0..rows {
            for j in start..start + block {
                let rest: Vec<usize> = (j..columns).collect();
                let inverse = inverse(&h.select(Axis(0), &rest).select(Axis(1), &rest));
                let q = if gone.contains(&(row, j)) {
                    0.0
                } else {
                    let scale = 1e-4;
                    (left[[row, j]] / scale).round_ties_even() * scale
                };
                let step = (left[[row, j]] - q) / inverse[[0, 0]];
                rest.iter().enumerate().for_each(|(at, &i)| left[[row, i]] -= step * inverse[[at, 0]]);
                left[[row, j]] = q;
            }
        }
    }
    let settings = gptq().sparsity(half()).block(block).unwrap();
    let tensor = quantize(Uniform::int8().rounding(settings), &layer, &seen(&layer, &x));
    let decoded = tensor.decode::<f64>();
    let differ = left.iter().zip(&decoded).filter(|(a, b)| (**a == 0.0) != (**b == 0.0)).count();
    assert!(differ <= 2, "{differ}");
}

#[test]
fn searching_and_polishing_pay() {
    let (rows, columns) = (40, 60);
    let w = weights::<f32>(rows, columns, 0.1);
    let layer = model(Parameter::linear("w", w));
    let evidence = seen(&layer, &inputs::<f32>(400, columns));
    let three = Uniform::new(Bits::new(3).unwrap());
    let error = |settings: Gptq| {
        quantize(three.rounding(settings), &layer, &evidence).outcome().map(|o| o.error).unwrap()
    };
    let plain = error(gptq());
    assert!(error(gptq().search()) < 0.9 * plain);
    assert!(error(gptq().polish(5)) < plain);
    assert!(error(gptq().search().polish(5)) < error(gptq().search()));
    let joint = error(gptq().sparsity(half()));
    assert!(error(gptq().sparsity(half()).polish(5)) < 0.98 * joint);
}
