//! `gateway schema`: the contract as an OpenRPC document.

use crate::{
    args::{GlobalArgs, SchemaArgs},
    connection,
    error::Result,
    exit::Exit,
    output::Printer,
};

/// Writes the document of this program's contract, or of a gateway. With or without `--json` it is the same.
pub(crate) fn schema(args: &SchemaArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let document = if args.live {
        connection::discover(&args.client, global)?
    } else {
        openclaw_schema::document::document()
    };
    printer.json(&document)?;
    Ok(Exit::Ok)
}
