//! The cross-crate suite, one module for each topic.

mod chat;
