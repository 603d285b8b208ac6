//! Models in and out: [`safetensors`] files (PyTorch and most hubs write them), [`npz`] archives (NumPy), and [`gguf`]
//! files (llama.cpp and what is built on ggml).
//!
//! All give [`Tensors`]: named arrays in file order, which [`ModelBuilder::tensors`](crate::ModelBuilder::tensors)
//! takes. What is written replaces its target only when it is complete. What a file can get wrong is an
//! [`ErrorKind::Format`](crate::ErrorKind::Format) error that names the file and the tensor, and a file that lies
//! about its sizes makes nothing large.

#[cfg(any(feature = "safetensors", feature = "npz", feature = "gguf", feature = "onnx"))]
pub(crate) mod atomic;
#[cfg(any(feature = "safetensors", feature = "gguf"))]
pub(crate) mod data;
#[cfg(any(feature = "safetensors", feature = "npz", feature = "gguf", feature = "onnx"))]
pub(crate) mod float;
#[cfg(any(feature = "safetensors", feature = "gguf"))]
mod precision;
#[cfg(any(feature = "safetensors", feature = "gguf", feature = "onnx"))]
pub(crate) mod source;
#[cfg(any(feature = "safetensors", feature = "npz", feature = "gguf", all(test, feature = "onnx")))]
pub(crate) mod tensors;

#[cfg(feature = "safetensors")]
pub(crate) mod compressed;
#[cfg(feature = "safetensors")]
pub(crate) mod container;
#[cfg(feature = "gguf")]
pub mod gguf;
#[cfg(feature = "npz")]
pub mod npz;
#[cfg(feature = "safetensors")]
pub mod safetensors;

#[cfg(any(feature = "safetensors", feature = "gguf"))]
pub use precision::Precision;
#[cfg(any(feature = "safetensors", feature = "npz", feature = "gguf"))]
pub use tensors::{Iter, Skipped, Tensors};

/// An I/O error that names the file.
#[cfg(any(feature = "safetensors", feature = "npz", feature = "gguf", feature = "onnx"))]
pub(crate) fn io(path: &std::path::Path, error: &std::io::Error) -> crate::Error {
    crate::Error::new(crate::ErrorKind::Io, format!("{}: {error}", path.display()))
}
