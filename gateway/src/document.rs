//! The document of the contract that a gateway serves. It is written when somebody first asks for it: few do, and
//! writing it at the start would cost every gateway its time and memory.

use std::sync::OnceLock;

use bytes::Bytes;
use openclaw_schema::{document::Api, methods::rpc::OpenRpcDocument, types::Prepared};

/// What a gateway serves, and the document of it once that is written.
#[derive(Debug)]
pub(crate) struct ContractDocument {
    api: Api,
    written: OnceLock<Prepared<OpenRpcDocument>>,
}

impl ContractDocument {
    pub(crate) fn new(api: Api) -> Self {
        Self { api, written: OnceLock::new() }
    }

    /// The document, for `rpc.discover`.
    ///
    /// # Errors
    ///
    /// When an embedding program's contract does not serialise.
    pub(crate) fn get(&self) -> Result<Prepared<OpenRpcDocument>, serde_json::Error> {
        if let Some(document) = self.written.get() {
            return Ok(document.clone());
        }
        let document = Prepared::new(&OpenRpcDocument(self.api.document()))?;
        // Two who ask at once both write it; one of the two is kept.
        Ok(self.written.get_or_init(|| document).clone())
    }

    /// The document as text, which is not copied.
    ///
    /// # Errors
    ///
    /// Those of [`Self::get`].
    pub(crate) fn text(&self) -> Result<Bytes, serde_json::Error> {
        self.get().map(|document| Bytes::from_owner(Text(document)))
    }
}

/// The text of a document that was written.
struct Text(Prepared<OpenRpcDocument>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.json().get().as_bytes()
    }
}
