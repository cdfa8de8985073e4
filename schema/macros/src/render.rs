//! Writes the record table and the method enum of a declaration.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, ItemTrait, Type, parse_quote};

use crate::declaration::{Declaration, Kind, Method};

/// The trait as written, plus `…Contract` and `…Method`.
pub(crate) fn records(declaration: &Declaration, item: &ItemTrait) -> TokenStream {
    let (trait_ident, visibility) = (&item.ident, &item.vis);
    let contract = format_ident!("{trait_ident}Contract");
    let methods = format_ident!("{trait_ident}Method");
    let group = &declaration.group;
    let rows = declaration.methods.iter().map(|method| record(method, group));
    let variants: Vec<Ident> = declaration.methods.iter().map(variant).collect();
    let summaries = declaration.methods.iter().map(|method| &method.summary);
    let indices = 0..variants.len();
    let contract_doc = format!("The method records of [`{trait_ident}`].");
    let methods_doc = format!("The methods of [`{trait_ident}`], so that code names one without a string.");
    quote! {
        #item

        #[doc = #contract_doc]
        #[derive(Debug, Clone, Copy)]
        #visibility struct #contract;

        impl ::openclaw_schema::contract::Contract for #contract {
            const GROUP: &'static str = #group;
            const METHODS: &'static [::openclaw_schema::contract::MethodRecord] = &[#(#rows),*];
        }

        #[doc = #methods_doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #visibility enum #methods {
            #(#[doc = #summaries] #variants),*
        }

        impl #methods {
            /// Every method of the trait, in the order of declaration.
            pub const ALL: &'static [Self] = &[#(Self::#variants),*];

            /// The record of this method.
            #[must_use]
            pub const fn record(self) -> &'static ::openclaw_schema::contract::MethodRecord {
                let records = <#contract as ::openclaw_schema::contract::Contract>::METHODS;
                match self {
                    #(Self::#variants => &records[#indices],)*
                }
            }

            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                self.record().name
            }
        }
    }
}

fn record(method: &Method, group: &syn::LitStr) -> TokenStream {
    let schema = quote!(::openclaw_schema::contract);
    let Method {
        wire_name,
        summary,
        description,
        deprecated,
        with_extensions,
        since,
        examples,
        errors,
        idempotent,
        long_poll,
        ..
    } = method;
    let scope_text = &method.scope;
    let scope = quote_spanned!(scope_text.span()=> ::openclaw_schema::Scope::required(#scope_text));
    let params: Type =
        method.params.clone().unwrap_or_else(|| parse_quote!(::openclaw_schema::types::NoParams));
    let takes_params = method.params.is_some();
    let (result_type, result, subscription): (Type, _, _) = match &method.kind {
        Kind::Call { result } => (result.clone(), quote!(#schema::TypeRef::of::<#result>()), quote!(None)),
        Kind::Subscription { notification, unsubscribe, item } => (
            parse_quote!(::openclaw_schema::types::SubscriptionId),
            quote!(#schema::TypeRef::of::<::openclaw_schema::types::SubscriptionId>()),
            quote!(Some(#schema::SubscriptionRecord {
                notification: #notification,
                unsubscribe: #unsubscribe,
                item: #schema::TypeRef::of::<#item>(),
            })),
        ),
    };
    let two_phase = match &method.two_phase {
        Some((outcome, wait)) => {
            quote!(Some(#schema::TwoPhase { outcome: #schema::TypeRef::of::<#outcome>(), wait: #wait }))
        }
        None => quote!(None),
    };
    quote! {
        #schema::MethodRecord {
            name: #wire_name,
            group: #group,
            summary: #summary,
            description: #description,
            scope: const { #scope },
            since: #since,
            deprecated: #deprecated,
            idempotent: #idempotent,
            long_poll: #long_poll,
            with_extensions: #with_extensions,
            takes_params: #takes_params,
            params: #schema::ParamsRef::of::<#params>(),
            result: #result,
            two_phase: #two_phase,
            subscription: #subscription,
            errors: &[#(::openclaw_schema::ErrorCode::#errors),*],
            examples: || #schema::Examples::<#params, #result_type>::erase(#examples(), #wire_name),
        }
    }
}

/// `logs_tail` as `LogsTail`.
fn variant(method: &Method) -> Ident {
    let mut name = String::new();
    for word in method.ident.to_string().split('_').filter(|word| !word.is_empty()) {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    Ident::new(&name, method.ident.span())
}
