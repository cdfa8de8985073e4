//! the suite
