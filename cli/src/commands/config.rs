//! `gateway config`: reads and changes the configuration file. No gateway is asked.

pub(crate) mod edit;
