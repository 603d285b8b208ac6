//! Removing units gives what the network answers with the same units zeroed, whatever its shape.
//!
//! Each file declares a small network by hand, as its owner would, and runs it with a plain forward pass that
//! reads every size from the arrays.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

mod cnn;
mod grouped;
mod gru;
mod layers;
mod lstm;
mod removal;
mod separable;
mod transformer;
