//! `#[contract]`: the one attribute that stands over jsonrpsee's `#[rpc]` and turns a trait into method records.
//!
//! jsonrpsee's own code generation is left alone. This macro reads the same declaration and adds, beside the
//! trait `Logs`,
//!
//! - `LogsContract`, whose `METHODS` is a `const` table of `MethodRecord`s (no start-up cost), and
//! - `LogsMethod`, an enum with one variant per method, so that code names a method without a string.
//!
//! Every fault of a declaration is reported at once, each at its own place. What a macro cannot see (the
//! attributes of a params type) is asserted by `openclaw_schema::document::lint`.

mod declaration;
mod render;

use proc_macro::TokenStream;
use syn::{ItemTrait, parse_macro_input};

/// Declares the methods of one namespace, once.
///
/// Stands directly above `#[rpc(server, client, …)]`. Each method carries a doc comment (first paragraph: the
/// summary; the rest: the description) and `#[meta(…)]` with these keys:
///
/// | key | meaning |
/// | --- | --- |
/// | `scope = "operator.read"` | what the caller must hold; `"none"` for any authenticated caller. Required. |
/// | `since = "0.1.0"` | the contract version that introduced the method. Required. |
/// | `examples = function` | `fn() -> Examples<Params, Result>`. Required. |
/// | `errors(NotFound, …)` | variants of `ErrorCode` beyond those that every method may answer |
/// | `idempotent` | calling it twice does what calling it once does; clients may retry it |
/// | `long_poll` | bounded by a parameter of its own, not by the gateway's call timeout |
/// | `outcome = Type, wait = "method"` | two-phase: the result is an acknowledgement, the outcome is had by `wait` |
///
/// A subscription also names its notification: `#[subscription(name = "follow" => "line", …, item = LogLine)]`.
#[proc_macro_attribute]
pub fn contract(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(attribute as declaration::Entries);
    let mut item = parse_macro_input!(item as ItemTrait);
    let rendered = match declaration::Declaration::read(&options, &mut item) {
        Ok(declaration) => render::records(&declaration, &item),
        Err(faults) => {
            // The trait stays without our attributes, so that the rest of the crate still resolves and the
            // faults below are all that is reported.
            let faults = faults.to_compile_error();
            quote::quote!(#item #faults)
        }
    };
    rendered.into()
}
