//! The closed sets of names that keys and flags take.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::problem::nearest;

/// Declares a closed set of names: the enum, its names, and the way back.
macro_rules! names {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[$inner])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Every name.
            pub const NAMES: &'static [&'static str] = &[$($text,)*];

            /// The name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(UnknownName { given: text.to_owned(), allowed: Self::NAMES }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.name())
            }
        }
    };
}

names! {
    /// Where the gateway of this configuration is.
    GatewayMode {
        /// On this machine.
        Local = "local",
        /// On another one: `gateway.remote.url`.
        Remote = "remote",
    }
}

names! {
    /// Which addresses a gateway listens on.
    BindMode {
        /// Only programs on the same machine: 127.0.0.1, and `::1` where the system has it.
        Loopback = "loopback",
        /// Every IPv4 address of this machine.
        Lan = "lan",
        /// The machine's address in its tailnet: 100.64.0.0/10, or fd7a:115c:a1e0::/48.
        Tailnet = "tailnet",
        /// As `loopback`; in a container as `lan`, because nobody else is on its loopback.
        Auto = "auto",
        /// The address in `gateway.customBindHost`.
        Custom = "custom",
    }
}

names! {
    /// Who reaches a gateway through tailscale, at the name that the tailnet gives this machine.
    TailscaleMode {
        /// Nobody.
        Off = "off",
        /// The machines of the tailnet: `tailscale serve`.
        Serve = "serve",
        /// Everybody: `tailscale funnel`.
        Funnel = "funnel",
    }
}

names! {
    /// What callers must present.
    AuthMode {
        /// Nothing: every caller may do everything.
        None = "none",
        /// A token.
        Token = "token",
        /// A password.
        Password = "password",
        /// A header that a proxy sets. Stock has it; a start with it is refused here.
        TrustedProxy = "trusted-proxy",
    }
}

names! {
    /// How much a gateway tells the networks it is on about itself, with multicast DNS.
    MdnsMode {
        /// Nothing: it is not announced.
        Off = "off",
        /// What a client needs to find it.
        Minimal = "minimal",
        /// Also hints for SSH: the port, where the command line lies, the name in the tailnet.
        Full = "full",
    }
}

names! {
    /// How the gateway on another machine is reached.
    RemoteTransport {
        /// Through a tunnel that `ssh` makes.
        Ssh = "ssh",
        /// At `gateway.remote.url`.
        Direct = "direct",
    }
}

names! {
    /// Which host keys `ssh` takes.
    SshHostKeyPolicy {
        /// Known ones alone, whatever the user's `ssh` configuration says.
        Strict = "strict",
        /// What the user's `ssh` configuration says.
        Openssh = "openssh",
    }
}

names! {
    /// The least severe level that is logged.
    LogLevel {
        /// Nothing is logged.
        Silent = "silent",
        /// What ends the gateway.
        Fatal = "fatal",
        /// What failed.
        Error = "error",
        /// What may fail.
        Warn = "warn",
        /// What happened.
        Info = "info",
        /// How it happened.
        Debug = "debug",
        /// Every step.
        Trace = "trace",
    }
}

names! {
    /// How lines on the console look.
    ConsoleStyle {
        /// For a person who watches.
        Pretty = "pretty",
        /// For a file or a journal.
        Compact = "compact",
        /// For programs: one JSON object a line.
        Json = "json",
    }
}

names! {
    /// What a running gateway does when its configuration file changes.
    ReloadMode {
        /// It takes over what needs no restart, and says what does.
        Hybrid = "hybrid",
        /// It says what has changed, and takes nothing over before a restart.
        Off = "off",
    }
}

names! {
    /// How a command-line back end gets its prompt.
    CliInputMode {
        /// On standard input.
        Stdin = "stdin",
        /// As its last argument.
        Argument = "arg",
    }
}

names! {
    /// What a command-line back end writes.
    CliOutputMode {
        /// The answer as text.
        Text = "text",
        /// One JSON document.
        Json = "json",
        /// One JSON object a line.
        JsonLines = "jsonl",
    }
}

/// A name that is not in its set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    /// The name as given.
    pub given: String,
    /// The names of the set.
    pub allowed: &'static [&'static str],
}

impl UnknownName {
    /// The name of the set that was probably meant.
    #[must_use]
    pub fn nearest(&self) -> Option<&'static str> {
        nearest(&self.given, self.allowed.iter().copied())
    }

    /// The set as text.
    #[must_use]
    pub fn listed(&self) -> String {
        self.allowed.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\" is none of {}", self.given, self.listed())
    }
}

impl std::error::Error for UnknownName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in BindMode::NAMES {
            assert_eq!(name.parse::<BindMode>().expect("it is in the set").to_string(), *name);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_set_and_offers_the_nearest() {
        let error = "paswd".parse::<AuthMode>().expect_err("it is unknown");
        assert_eq!(
            error.to_string(),
            "\"paswd\" is none of \"none\", \"token\", \"password\", \"trusted-proxy\""
        );
        assert_eq!(error.nearest(), Some("password"));
    }
}
