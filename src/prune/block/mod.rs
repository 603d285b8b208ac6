//! Blocks, at two grains: [`Tiles`] of a weight matrix, and [`Modules`] of a network.
//!
//! Both first give weights that several blocks of the model share to each block as its own copy, named
//! `{block}/{parameter}`; [`Block::parameter`](crate::Block::parameter) finds it. A forward pass that asks its
//! blocks for their parameters needs no change.

mod modules;
mod tiles;
mod unshare;

pub use modules::Modules;
pub use tiles::{Pool, Tiles};
