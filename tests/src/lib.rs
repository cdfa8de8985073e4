#![doc = include_str!("../README.md")]

pub mod decoding;
pub mod harness;
pub mod hazards;
pub mod load;
pub mod model_server;
pub mod processes;
pub mod servers;
