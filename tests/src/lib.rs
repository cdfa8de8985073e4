#![doc = include_str!("../README.md")]

pub mod harness;
pub mod hazards;
pub mod load;
pub mod process;
pub mod servers;
