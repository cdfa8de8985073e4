//! How a command ended: the exit codes, which scripts rely on. The table in `cli/README.md` is the promise.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what it was asked for; a server was stopped.
    Ok,
    /// The gateway answered with an error, or the run that was waited for failed.
    Refused,
    /// What was typed cannot be done: a bad flag, bad JSON, bad params, a bad configuration. Nothing was sent.
    Usage,
    /// No gateway answers at the address.
    Unreachable,
    /// The credential is missing, wrong, or not enough.
    Auth,
    /// The time was up.
    Timeout,
    /// Something answers, but it does not speak the protocol.
    Protocol,
    /// The gateway answers, and says that it is not well.
    Degraded,
    /// A server could not start now; later it may.
    Transient,
    /// A server cannot start with this configuration, however often it is tried.
    Configuration,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// Every exit, in the order of its code.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Ok,
        Self::Refused,
        Self::Usage,
        Self::Unreachable,
        Self::Auth,
        Self::Timeout,
        Self::Protocol,
        Self::Degraded,
        Self::Transient,
        Self::Configuration,
        Self::Interrupted,
    ];

    /// The number that the shell sees. 75 and 78 are `EX_TEMPFAIL` and `EX_CONFIG` of sysexits.h; 130 is what
    /// shells give a program that Ctrl-C ended.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Auth => 4,
            Self::Timeout => 5,
            Self::Protocol => 6,
            Self::Degraded => 7,
            Self::Transient => 75,
            Self::Configuration => 78,
            Self::Interrupted => 130,
        }
    }

    /// The name in `error.exit` of a JSON error.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Usage => "usage",
            Self::Unreachable => "unreachable",
            Self::Auth => "auth",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Degraded => "degraded",
            Self::Transient => "transient",
            Self::Configuration => "configuration",
            Self::Interrupted => "interrupted",
        }
    }

    /// What it means, for the help.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done; a server was stopped",
            Self::Refused => "the gateway answered with an error",
            Self::Usage => "bad flag, bad JSON, bad params, bad configuration; nothing was sent",
            Self::Unreachable => "no gateway answers at the address",
            Self::Auth => "the credential is missing, wrong, or not enough",
            Self::Timeout => "the time was up",
            Self::Protocol => "what answers does not speak the protocol",
            Self::Degraded => "the gateway says that it is not well",
            Self::Transient => "the server could not start now; later it may",
            Self::Configuration => "the server cannot start with this configuration",
            Self::Interrupted => "Ctrl-C",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_rise_and_names_are_unique() {
        assert!(Exit::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        let mut names: Vec<_> = Exit::ALL.iter().map(|exit| exit.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Exit::ALL.len());
    }

    #[test]
    fn the_readme_lists_every_exit() {
        let readme = include_str!("../README.md");
        for exit in Exit::ALL {
            let row = format!("| {} | `{}` |", exit.code(), exit.name());
            assert!(readme.contains(&row), "cli/README.md lacks a row that begins with {row}");
        }
    }
}
