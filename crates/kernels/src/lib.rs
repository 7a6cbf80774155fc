//! The operations that training's networks spend their time on, for Burn's CPU backend and its autodiff.
//!
//! [`conv`] is convolution, bias, ReLU and max pooling as one operation (m1 to m10); [`mobile`] has the convolutions of a
//! MobileNet-like network and batch normalisation (m11). On every other backend the same functions call Burn's own
//! operations, and the tests compare the two. All sums have one order whatever the number of threads, so a training
//! repeats bit for bit.

mod buffers;
pub mod conv;
mod layout;
pub mod mobile;
mod sum;

pub use conv::{ConvBackend, conv_relu_pool};
