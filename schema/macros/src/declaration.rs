//! Reads a contract trait: its attributes, doc comments and signatures, and collects every fault.

use proc_macro2::Span;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericArgument, Ident, ItemTrait, Lit, LitStr, Meta,
    PathArguments, Result, ReturnType, Token, TraitItem, TraitItemFn, Type,
    ext::IdentExt,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    spanned::Spanned,
};

/// A contract trait, understood.
pub(crate) struct Declaration {
    /// The heading that documents give the namespace.
    pub(crate) group: LitStr,
    pub(crate) methods: Vec<Method>,
}

/// One method or subscription.
pub(crate) struct Method {
    pub(crate) ident: Ident,
    /// The name on the wire, namespace included.
    pub(crate) wire_name: String,
    pub(crate) summary: String,
    pub(crate) description: String,
    pub(crate) deprecated: bool,
    pub(crate) with_extensions: bool,
    pub(crate) scope: LitStr,
    pub(crate) since: LitStr,
    pub(crate) examples: Expr,
    pub(crate) errors: Vec<Ident>,
    pub(crate) idempotent: bool,
    pub(crate) long_poll: bool,
    pub(crate) two_phase: Option<(Type, LitStr)>,
    pub(crate) params: Option<Type>,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Call { result: Type },
    Subscription { notification: String, unsubscribe: String, item: Type },
}

impl Declaration {
    /// Reads the trait and takes `#[meta]` off its methods.
    pub(crate) fn read(options: &Entries, item: &mut ItemTrait) -> Result<Self> {
        let mut faults = Faults::default();
        let group =
            faults.keep(options.only(&["group"]).and_then(|()| options.text("group", Span::call_site())));
        let namespace = faults.keep(namespace(item));
        let mut methods = Vec::new();
        for member in &mut item.items {
            let TraitItem::Fn(function) = member else {
                faults.add(Error::new(member.span(), "a contract trait holds methods and nothing else"));
                continue;
            };
            let attributes = function.attrs.clone();
            function.attrs.retain(|attribute| !attribute.path().is_ident("meta"));
            methods.extend(Method::read(function, &attributes, namespace.as_ref(), &mut faults));
        }
        match (group, faults.all) {
            (Some(group), None) => Ok(Self { group, methods }),
            (_, faults) => Err(faults.unwrap_or_else(|| Error::new(Span::call_site(), "invalid contract"))),
        }
    }
}

impl Method {
    fn read(
        function: &TraitItemFn,
        attributes: &[Attribute],
        namespace: Option<&Namespace>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let ident = function.sig.ident.clone();
        let find = |name: &str| attributes.iter().find(|attribute| attribute.path().is_ident(name));

        let (summary, description) = documentation(attributes);
        if summary.is_empty() {
            faults.add(Error::new(
                ident.span(),
                format!("`{ident}` needs a doc comment: it is the method's summary"),
            ));
        }

        let meta = match find("meta") {
            Some(attribute) => faults.keep(Entries::of(attribute)),
            None => {
                faults.add(Error::new(
                    ident.span(),
                    format!("`{ident}` needs #[meta(scope = \"…\", since = \"…\", examples = …)]"),
                ));
                None
            }
        };
        let (wire, is_subscription) = match (find("method"), find("subscription")) {
            (Some(attribute), None) => (faults.keep(Entries::of(attribute)), false),
            (None, Some(attribute)) => (faults.keep(Entries::of(attribute)), true),
            _ => {
                faults.add(Error::new(
                    ident.span(),
                    format!("`{ident}` needs either #[method(name = \"…\")] or #[subscription(…)]"),
                ));
                (None, false)
            }
        };

        let mut arguments = function.sig.inputs.iter().filter_map(|argument| match argument {
            FnArg::Typed(typed) => Some((*typed.ty).clone()),
            FnArg::Receiver(_) => None,
        });
        let params = arguments.next();
        if let Some(extra) = arguments.next() {
            faults.add(Error::new(
                extra.span(),
                "a contract method takes one argument at most: the struct that is the whole params object",
            ));
        }

        if let Some(meta) = &meta {
            faults.keep(meta.only(META_KEYS));
        }
        let required = |faults: &mut Faults, key: &str| match &meta {
            Some(meta) => faults.keep(meta.text(key, ident.span())),
            None => None,
        };
        let scope = required(faults, "scope");
        if let Some(scope) = scope.as_ref().filter(|scope| !SCOPES.contains(&scope.value().as_str())) {
            faults.add(Error::new(
                scope.span(),
                format!("unknown scope `{}`; scopes: {}", scope.value(), SCOPES.join(", ")),
            ));
        }
        let since = required(faults, "since");
        let examples = meta.as_ref().and_then(|meta| faults.keep(meta.expression("examples", ident.span())));
        let two_phase = meta.as_ref().and_then(|meta| match (meta.find("outcome"), meta.find("wait")) {
            (None, None) => None,
            (Some(outcome), Some(_)) => {
                let outcome = faults.keep(outcome.as_type());
                let wait = faults.keep(meta.text("wait", ident.span()));
                outcome.zip(wait)
            }
            (Some(entry), None) | (None, Some(entry)) => {
                faults
                    .add(Error::new(entry.key.span(), "a two-phase method names both `outcome` and `wait`"));
                None
            }
        });

        let wire = wire?;
        let name = faults.keep(wire.text("name", ident.span()))?;
        let full_name =
            |local: &str| namespace.map_or_else(|| local.to_owned(), |namespace| namespace.full_name(local));
        let kind = if is_subscription {
            let unsubscribe = faults.keep(wire.text("unsubscribe", ident.span()));
            let item = faults.keep(
                wire.find("item")
                    .ok_or_else(|| Error::new(ident.span(), "a subscription needs `item = Type`"))
                    .and_then(Entry::as_type),
            );
            let notification = wire
                .find("name")
                .and_then(|entry| entry.renamed.as_ref())
                .map_or_else(|| name.value(), LitStr::value);
            Kind::Subscription {
                notification: full_name(&notification),
                unsubscribe: full_name(&unsubscribe?.value()),
                item: item?,
            }
        } else {
            Kind::Call { result: faults.keep(result_type(&function.sig.output, &ident))? }
        };
        let meta = meta?;
        Some(Self {
            wire_name: full_name(&name.value()),
            summary,
            description,
            deprecated: find("deprecated").is_some(),
            with_extensions: wire.find("with_extensions").is_some(),
            scope: scope?,
            since: since?,
            examples: examples?,
            errors: meta.find("errors").map(|entry| entry.list.clone()).unwrap_or_default(),
            idempotent: meta.find("idempotent").is_some(),
            long_poll: meta.find("long_poll").is_some(),
            two_phase,
            params,
            kind,
            ident,
        })
    }
}

const META_KEYS: &[&str] =
    &["scope", "since", "examples", "errors", "idempotent", "long_poll", "outcome", "wait"];

/// The names of `openclaw_schema::Scope`, which this crate cannot see. One that stands here alone fails the
/// build in `Scope::required`; one that is missing here fails the case `contract/pass/every_scope.rs`.
const SCOPES: &[&str] =
    &["none", "operator.read", "operator.write", "operator.approvals", "operator.pairing", "operator.admin"];

/// Faults of a declaration, combined so that one compilation shows them all.
#[derive(Default)]
struct Faults {
    all: Option<Error>,
}

impl Faults {
    fn add(&mut self, fault: Error) {
        match &mut self.all {
            Some(all) => all.combine(fault),
            None => self.all = Some(fault),
        }
    }

    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|fault| self.add(fault)).ok()
    }
}

/// `namespace` and `namespace_separator` of `#[rpc(…)]`.
struct Namespace {
    prefix: Option<String>,
}

impl Namespace {
    fn full_name(&self, local: &str) -> String {
        match &self.prefix {
            Some(prefix) => format!("{prefix}{local}"),
            None => local.to_owned(),
        }
    }
}

fn namespace(item: &ItemTrait) -> Result<Namespace> {
    let rpc = item
        .attrs
        .iter()
        .find(|attribute| attribute.path().segments.last().is_some_and(|segment| segment.ident == "rpc"))
        .ok_or_else(|| Error::new(item.ident.span(), "#[contract] stands above #[rpc(server, client, …)]"))?;
    let rpc = Entries::of(rpc)?;
    let Some(name) = rpc.find("namespace") else { return Ok(Namespace { prefix: None }) };
    let separator = rpc.text("namespace_separator", name.key.span()).map_err(|_| {
        Error::new(name.key.span(), "add `namespace_separator = \".\"`: jsonrpsee's default is `_`")
    })?;
    let name = rpc.text("namespace", name.key.span())?;
    Ok(Namespace { prefix: Some(format!("{}{}", name.value(), separator.value())) })
}

/// The first paragraph and the rest of a doc comment.
fn documentation(attributes: &[Attribute]) -> (String, String) {
    let mut text = String::new();
    for attribute in attributes {
        if let Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) = &pair.value
        {
            for line in line.value().split('\n') {
                text.push_str(line.strip_prefix(' ').unwrap_or(line).trim_end());
                text.push('\n');
            }
        }
    }
    let text = text.trim();
    let (summary, description) = text.split_once("\n\n").unwrap_or((text, ""));
    (summary.replace('\n', " "), description.trim().to_owned())
}

/// `T` of `RpcResult<T>` or `Result<T, E>`.
fn result_type(output: &ReturnType, ident: &Ident) -> Result<Type> {
    if let ReturnType::Type(_, written) = output
        && let Type::Path(path) = &**written
        && let Some(segment) = path.path.segments.last()
        && (segment.ident == "RpcResult" || segment.ident == "Result")
        && let PathArguments::AngleBracketed(arguments) = &segment.arguments
        && let Some(GenericArgument::Type(ok)) = arguments.args.first()
    {
        return Ok(ok.clone());
    }
    Err(Error::new(ident.span(), format!("`{ident}` must return RpcResult<T>")))
}

/// `key`, `key = value`, `key = "a" => "b"`, `key(A, B)`, separated by commas.
pub(crate) struct Entries(Vec<Entry>);

pub(crate) struct Entry {
    key: Ident,
    value: Option<Expr>,
    /// The right-hand side of `name = "a" => "b"`.
    renamed: Option<LitStr>,
    list: Vec<Ident>,
}

impl Entries {
    fn of(attribute: &Attribute) -> Result<Self> {
        match &attribute.meta {
            Meta::List(list) => syn::parse2(list.tokens.clone()),
            _ => Ok(Self(Vec::new())),
        }
    }

    fn find(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    fn expression(&self, key: &str, at: Span) -> Result<Expr> {
        self.find(key)
            .and_then(|entry| entry.value.clone())
            .ok_or_else(|| Error::new(at, format!("missing `{key} = …`")))
    }

    fn text(&self, key: &str, at: Span) -> Result<LitStr> {
        match self.expression(key, at)? {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text),
            other => Err(Error::new(other.span(), format!("`{key}` takes a string"))),
        }
    }

    /// All keys that are not in `known`, as one error.
    fn only(&self, known: &[&str]) -> Result<()> {
        let mut faults = Faults::default();
        for entry in self.0.iter().filter(|entry| !known.contains(&entry.key.to_string().as_str())) {
            faults.add(Error::new(
                entry.key.span(),
                format!("unknown key `{}`; known keys: {}", entry.key, known.join(", ")),
            ));
        }
        faults.all.map_or(Ok(()), Err)
    }
}

impl Entry {
    fn as_type(&self) -> Result<Type> {
        match &self.value {
            Some(Expr::Path(path)) => {
                Ok(Type::Path(syn::TypePath { qself: path.qself.clone(), path: path.path.clone() }))
            }
            _ => Err(Error::new(self.key.span(), format!("`{}` takes a type", self.key))),
        }
    }
}

impl Parse for Entries {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        Ok(Self(Punctuated::<Entry, Token![,]>::parse_terminated(input)?.into_iter().collect()))
    }
}

impl Parse for Entry {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut entry =
            Self { key: input.call(Ident::parse_any)?, value: None, renamed: None, list: Vec::new() };
        if input.peek(syn::token::Paren) {
            let list;
            syn::parenthesized!(list in input);
            entry.list = Punctuated::<Ident, Token![,]>::parse_terminated(&list)?.into_iter().collect();
        } else if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            entry.value = Some(input.parse()?);
            if input.peek(Token![=>]) {
                input.parse::<Token![=>]>()?;
                entry.renamed = Some(input.parse()?);
            }
        }
        Ok(entry)
    }
}
