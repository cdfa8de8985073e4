#![doc = include_str!("../README.md")]

pub mod harness;
pub mod hazards;
pub mod processes;
pub mod servers;
