//! One binary for the cross-crate suite: it links once.

mod robustness;
