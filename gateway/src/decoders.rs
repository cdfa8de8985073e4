//! The decoders of the frame protocol by themselves, for the fuzz targets and their property tests in `tests/`.
//!
//! No part of the crate's interface: what is here may change with any version.

use openclaw_schema::methods::connect::ConnectParams;

use crate::wire;

/// What a message of a connection that is past its handshake is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A request, which the dispatcher answers.
    Request {
        /// Its id.
        id: String,
        /// Its method.
        method: String,
        /// Its params, as they were written.
        params: Option<String>,
    },
    /// No request. This answers it.
    Answered(String),
    /// Not JSON. Nothing answers it.
    PassedOver,
}

/// What the first message of a connection is.
#[derive(Debug)]
pub enum Connect {
    /// A sound `connect`; who is behind it is another question.
    Params {
        /// Its id, as JSON.
        id: String,
        /// Its params.
        params: Box<ConnectParams>,
    },
    /// Nothing that opens a connection.
    Refused {
        /// The answer, if it gets one.
        response: Option<String>,
        /// The code of the close frame that follows.
        code: u16,
        /// The reason in it.
        reason: String,
    },
}

/// Reads a message of a connection that is past its handshake.
#[must_use]
pub fn frame(text: &str) -> Frame {
    wire::decode_frame(text)
}

/// Reads the first message of a connection.
#[must_use]
pub fn connect(text: &str) -> Connect {
    wire::decode_connect(text)
}
