//! What OpenClaw has in the sections that this gateway reads, and this gateway ignores. Such keys give no warning.
//!
//! OpenClaw 2026.9.6, `openclaw config schema`; and what earlier ones wrote. To add a key: its name in the row of its
//! section. A key that is read belongs to the section's type, not here.

/// What else may stand in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// These keys of OpenClaw. Any other key is unknown, and may be misspelt.
    Listed(&'static [&'static str]),
    /// Anything: OpenClaw has too much of its own there.
    Anything,
}

/// Each section that has keys of OpenClaw. `*` stands for a name that the user chooses, `[]` for each entry of a list.
const SECTIONS: &[(&str, Others)] = &[
    (
        "gateway",
        Others::Listed(&[
            "allowRealIpFallback",
            "channelHealthCheckMinutes",
            "cliAgents",
            "http",
            "portals",
            "publicOrigin",
            "push",
            "roles",
            "terminal",
            "tools",
        ]),
    ),
    ("gateway.auth", Others::Listed(&["allowTailscale", "identityScopes", "trustedProxy"])),
    ("gateway.tls", Others::Listed(&["caPath"])),
    ("gateway.remote", Others::Listed(&["edgeAuth"])),
    (
        "gateway.nodes",
        Others::Listed(&[
            "allowCommands",
            "allowSkills",
            "browser",
            "commands",
            "denyCommands",
            "pluginTools",
        ]),
    ),
    ("gateway.nodes.pairing", Others::Listed(&["autoApproveCidrs", "sshVerify"])),
    ("gateway.controlUi", Others::Anything),
    ("gateway.tailscale", Others::Listed(&["preserveFunnel"])),
    ("gateway.reload", Others::Listed(&["debounceMs"])),
    ("logging", Others::Listed(&["audit", "redactSensitive"])),
    (
        "commands",
        Others::Listed(&[
            "allowFrom",
            "bash",
            "bashForegroundMs",
            "config",
            "debug",
            "mcp",
            "native",
            "nativeSkills",
            "ownerAllowFrom",
            "ownerDisplay",
            "plugins",
            "text",
            "useAccessGroups",
        ]),
    ),
    ("agents", Others::Anything),
    ("agents.defaults", Others::Anything),
    ("agents.defaults.model", Others::Anything),
    ("agents.defaults.models.*", Others::Anything),
    ("agents.defaults.models.*.agentRuntime", Others::Anything),
    ("agents.defaults.models.*.params", Others::Anything),
    (
        "agents.defaults.cliBackends.*",
        Others::Listed(&[
            "imageArg",
            "imageMode",
            "imagePathScope",
            "jsonlDialect",
            "liveSession",
            "resumeArgs",
            "resumeOutput",
            "serialize",
            "sessionArg",
            "sessionArgs",
            "sessionIdFields",
            "sessionMode",
            "systemPromptFileArg",
            "systemPromptMode",
            "systemPromptWhen",
        ]),
    ),
    ("agents.defaults.cliBackends.*.reliability", Others::Anything),
    ("agents.defaults.cliBackends.*.reliability.watchdog", Others::Anything),
    ("agents.defaults.cliBackends.*.reliability.watchdog.fresh", Others::Anything),
    ("agents.entries.*", Others::Anything),
    ("agents.entries.*.model", Others::Anything),
    ("agents.entries.*.identity", Others::Anything),
    ("models", Others::Listed(&["bedrockDiscovery", "catalogRefresh", "mode", "pricing"])),
    (
        "models.providers.*",
        Others::Listed(&[
            "contextWindow",
            "injectNumCtxForOpenAICompat",
            "localService",
            "params",
            "region",
            "request",
        ]),
    ),
    ("models.providers.*.agentRuntime", Others::Anything),
    (
        "models.providers.*.models.[]",
        Others::Listed(&[
            "agentRuntime",
            "api",
            "baseUrl",
            "headers",
            "input",
            "mediaInput",
            "metadataSource",
            "params",
            "status",
            "thinkingLevelMap",
        ]),
    ),
    ("models.providers.*.models.[].compat", Others::Anything),
    ("models.providers.*.models.[].cost", Others::Anything),
    // The root, whose other sections are not ours.
    ("", Others::Anything),
];

/// What else may stand in the section at `path`. An entry of a list is `[n]` there.
#[must_use]
pub fn of(path: &[String]) -> Others {
    let is_meant = |pattern: &str| {
        let mut wanted = pattern.split('.').filter(|part| !part.is_empty());
        path.iter().all(|name| {
            wanted.next().is_some_and(|wanted| {
                wanted == "*" || wanted == name || (wanted == "[]" && name.starts_with('['))
            })
        }) && wanted.next().is_none()
    };
    SECTIONS.iter().find(|(pattern, _)| is_meant(pattern)).map_or(Others::Listed(&[]), |(_, others)| *others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{Key, parse_path, schema};

    #[test]
    fn every_row_is_a_section_and_no_key_is_both_read_and_ignored() {
        let schema = schema();
        for (pattern, others) in SECTIONS {
            let path = parse_path(&pattern.replace(".[]", "[0]").replace('*', "x")).expect("a path");
            let section = Key::root(&schema).find(&path).unwrap_or_else(|| panic!("there is no {pattern}"));
            let Others::Listed(names) = others else { continue };
            assert!(names.is_sorted(), "{pattern}");
            for name in *names {
                assert!(section.child(name).expect("it is in the schema").is_ignored(), "{pattern}.{name}");
            }
        }
    }

    #[test]
    fn a_section_is_found_by_its_path() {
        let of = |path: &str| of(&parse_path(path).expect("a path"));
        assert_eq!(of("gateway.tls"), Others::Listed(&["caPath"]));
        assert_eq!(of("models.providers.local.models[3].cost"), Others::Anything);
        assert_eq!(of("discovery"), Others::Listed(&[]));
        assert_eq!(of(""), Others::Anything);
    }
}
