//! Products of matrices.

use std::collections::BTreeMap;

use super::{Found, Miss, Op, Outputs, broadcast, ensure, one};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    let dims = match op.node.op_type() {
        "MatMul" | "MatMulInteger" | "MatMulIntegerToFloat" | "DynamicQuantizeMatMul" => product(op, 1),
        "QLinearMatMul" => product(op, 3),
        "FusedMatMul" | "TransposeMatMul" => fused(op),
        "Gemm" | "FusedGemm" | "GemmFastGelu" => gemm(op, 1),
        "QGemm" => gemm(op, 3),
        "MatMulNBits" | "MatMulBnb4" => packed(op),
        "Einsum" => einsum(op),
        "Det" => determinant(op),
        _ => return None,
    };
    Some(dims.map(one))
}

/// `NumPy`'s `matmul`: vectors get an axis for the product, which goes again.
pub(super) fn matmul(a: &[usize], b: &[usize]) -> Found<Vec<usize>> {
    let ([.., inner], [length] | [.., length, _]) = (a, b) else { return Err(Miss::Wrong) };
    ensure(inner == length)?;
    let mut dims = broadcast(&[&a[..a.len().saturating_sub(2)], &b[..b.len().saturating_sub(2)]])?;
    if a.len() > 1 {
        dims.push(a[a.len() - 2]);
    }
    if b.len() > 1 {
        dims.push(b[b.len() - 1]);
    }
    Ok(dims)
}

fn product(op: &Op<'_>, right: usize) -> Found<Vec<usize>> {
    matmul(op.dims(0)?, op.dims(right)?)
}

fn fused(op: &Op<'_>) -> Found<Vec<usize>> {
    let turned = |at: usize, inner: &str, outer: &str| {
        let mut dims = op.dims(at)?.to_vec();
        // The first axis goes to the place before the last, then the last two may change places.
        if op.flag(outer) && dims.len() > 2 {
            let last = dims.len() - 1;
            dims[..last].rotate_left(1);
        }
        if op.flag(inner) && dims.len() > 1 {
            let last = dims.len() - 1;
            dims.swap(last - 1, last);
        }
        Ok(dims)
    };
    matmul(&turned(0, "transA", "transBatchA")?, &turned(1, "transB", "transBatchB")?)
}

fn gemm(op: &Op<'_>, right: usize) -> Found<Vec<usize>> {
    let (&[a, b], &[c, d]) = (op.dims(0)?, op.dims(right)?) else { return Err(Miss::Wrong) };
    let (rows, inner) = if op.flag("transA") { (b, a) } else { (a, b) };
    let (other, columns) = if op.flag("transB") { (d, c) } else { (c, d) };
    ensure(inner == other)?;
    Ok(vec![rows, columns])
}

fn packed(op: &Op<'_>) -> Found<Vec<usize>> {
    let mut dims = op.dims(0)?.to_vec();
    let last = dims.last_mut().ok_or(Miss::Wrong)?;
    ensure(*last == op.count("K")?)?;
    *last = op.count("N")?;
    Ok(dims)
}

/// Letters name axes; `...` stands for axes that are broadcast.
fn einsum(op: &Op<'_>) -> Found<Vec<usize>> {
    let text: String = op.node.text("equation").ok_or(Miss::Wrong)?.chars().filter(|c| *c != ' ').collect();
    let (left, right) =
        text.split_once("->").map_or((text.as_str(), None), |(left, right)| (left, Some(right)));
    let mut lengths: BTreeMap<char, (usize, usize)> = BTreeMap::new();
    let mut rest: Vec<usize> = Vec::new();
    ensure(left.split(',').count() == op.inputs.len())?;
    for (at, term) in left.split(',').enumerate() {
        let dims = op.dims(at)?;
        let (front, back) = term.split_once("...").unwrap_or((term, ""));
        let named = front.chars().count() + back.chars().count();
        ensure(named == dims.len() || (term.contains("...") && named < dims.len()))?;
        let (front_len, back_at) = (front.chars().count(), dims.len() - back.chars().count());
        rest = broadcast(&[&rest, &dims[front_len..back_at]])?;
        let letters = front.chars().zip(dims).chain(back.chars().zip(&dims[back_at..]));
        for (letter, &length) in letters {
            let (known, times) = lengths.entry(letter).or_insert((length, 0));
            ensure(*known == length || *known == 1 || length == 1)?;
            *known = if *known == 1 { length } else { *known };
            *times += 1;
        }
    }
    let length = |letter: char| lengths.get(&letter).map(|&(length, _)| length).ok_or(Miss::Wrong);
    let Some(right) = right else {
        // Without an arrow: letters that stand once, in the order of the alphabet.
        let once = lengths.values().filter(|(_, times)| *times == 1).map(|&(length, _)| length);
        return Ok(rest.into_iter().chain(once).collect());
    };
    let (front, back) = right.split_once("...").unwrap_or((right, ""));
    let mut dims: Vec<usize> = front.chars().map(length).collect::<Found<_>>()?;
    if right.contains("...") {
        dims.extend(rest);
    }
    for letter in back.chars() {
        dims.push(length(letter)?);
    }
    Ok(dims)
}

fn determinant(op: &Op<'_>) -> Found<Vec<usize>> {
    let dims = op.dims(0)?;
    ensure(dims.len() > 1)?;
    Ok(dims[..dims.len() - 2].to_vec())
}
