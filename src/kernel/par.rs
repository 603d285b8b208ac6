//! The only place that knows whether there are threads. Work is cut into pieces of a fixed size and results come
//! back in order, so the answer is the same on any number of threads.

#[cfg(feature = "rayon")]
use rayon::prelude::*;

/// Elements in one piece: large enough to be worth handing over, small enough to stay in a core's cache.
pub(crate) const CHUNK: usize = 1 << 16;

/// `f(0), …, f(n − 1)`, in order.
pub(crate) fn map<T: Send>(n: usize, f: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    #[cfg(feature = "rayon")]
    return (0..n).into_par_iter().map(f).collect();
    #[cfg(not(feature = "rayon"))]
    (0..n).map(f).collect()
}

/// `f` on each chunk of `size` items, results in order; the last chunk may be short.
pub(crate) fn map_chunks<A: Sync, T: Send>(
    items: &[A],
    size: usize,
    f: impl Fn(usize, &[A]) -> T + Sync + Send,
) -> Vec<T> {
    #[cfg(feature = "rayon")]
    return items.par_chunks(size).enumerate().map(|(k, chunk)| f(k, chunk)).collect();
    #[cfg(not(feature = "rayon"))]
    items.chunks(size).enumerate().map(|(k, chunk)| f(k, chunk)).collect()
}

/// `f` on each chunk of `size` items, to change them in place.
pub(crate) fn for_chunks_mut<A: Send>(
    items: &mut [A],
    size: usize,
    f: impl Fn(usize, &mut [A]) + Sync + Send,
) {
    #[cfg(feature = "rayon")]
    items.par_chunks_mut(size).enumerate().for_each(|(k, chunk)| f(k, chunk));
    #[cfg(not(feature = "rayon"))]
    items.chunks_mut(size).enumerate().for_each(|(k, chunk)| f(k, chunk));
}

/// `f` on chunks of `size_a` and `size_b` items side by side, the second to be written.
pub(crate) fn zip_chunks_mut<A: Sync, B: Send>(
    a: &[A],
    size_a: usize,
    b: &mut [B],
    size_b: usize,
    f: impl Fn(usize, &[A], &mut [B]) + Sync + Send,
) {
    #[cfg(feature = "rayon")]
    a.par_chunks(size_a).zip(b.par_chunks_mut(size_b)).enumerate().for_each(|(k, (a, b))| f(k, a, b));
    #[cfg(not(feature = "rayon"))]
    a.chunks(size_a).zip(b.chunks_mut(size_b)).enumerate().for_each(|(k, (a, b))| f(k, a, b));
}
