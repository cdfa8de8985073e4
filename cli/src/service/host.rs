//! What the machine is like, as far as services ask: platform, account, folders. Read once; tests make their own.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

/// The kinds of machine that have a service manager of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Platform {
    Linux,
    MacOs,
    Windows,
    Other,
}

/// An account of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
}

/// What the machine is like.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) platform: Platform,
    /// Whose command this is.
    pub(crate) account: Account,
    /// Who became root through `sudo` to run it.
    pub(crate) invoker: Option<Account>,
    /// `HOME`, which may be another directory than the account's.
    pub(crate) home: PathBuf,
    /// `XDG_CONFIG_HOME`, else `.config` in the home directory.
    pub(crate) config_home: PathBuf,
    /// Where units of the system lie.
    pub(crate) system_units: PathBuf,
    /// Where root keeps what it knows of services of the machine.
    pub(crate) system_records: PathBuf,
    /// `XDG_RUNTIME_DIR`, else the usual one of the account if it is there.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Whether this is a container.
    pub(crate) is_container: bool,
    /// Whether SELinux refuses what its rules do not allow.
    pub(crate) enforces_selinux: bool,
    /// This program, by the path that stays when it is updated.
    pub(crate) program: PathBuf,
    /// The environment, values that are no text left out.
    pub(crate) variables: BTreeMap<String, String>,
}

impl Host {
    /// The machine that this process runs on.
    pub(crate) fn current() -> Self {
        let variables: BTreeMap<String, String> = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let text = |name: &str| variables.get(name).filter(|value| !value.is_empty());
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let uid = rustix::process::geteuid().as_raw();
        let home = text("HOME").map(PathBuf::from).or_else(env::home_dir).unwrap_or_else(|| "/".into());
        let account = account(&passwd, |entry| entry.uid == uid).unwrap_or_else(|| Account {
            // Accounts of a directory service are not in the file.
            name: text("USER").or_else(|| text("LOGNAME")).cloned().unwrap_or_else(|| uid.to_string()),
            uid,
            gid: rustix::process::getegid().as_raw(),
            home: home.clone(),
        });
        let invoker = (uid == 0)
            .then(|| text("SUDO_USER"))
            .flatten()
            .and_then(|name| self::account(&passwd, |entry| entry.name == *name && entry.uid != 0));
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        Self {
            platform: match env::consts::OS {
                "linux" => Platform::Linux,
                "macos" => Platform::MacOs,
                "windows" => Platform::Windows,
                _ => Platform::Other,
            },
            account,
            invoker,
            config_home: text("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from),
            system_units: "/etc/systemd/system".into(),
            system_records: "/var/lib/openclaw-gateway".into(),
            runtime_dir: text("XDG_RUNTIME_DIR")
                .map(PathBuf::from)
                // The manager's own socket: without the package of the session bus there is no other.
                .or_else(|| usual.join("systemd/private").exists().then_some(usual)),
            is_container: ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists()),
            enforces_selinux: fs::read_to_string("/sys/fs/selinux/enforce")
                .is_ok_and(|mode| mode.trim() == "1"),
            program: stable_program(text("PATH").map_or("", String::as_str)),
            home,
            variables,
        }
    }

    /// Whether the command runs as root.
    pub(crate) fn is_root(&self) -> bool {
        self.account.uid == 0
    }
}

/// The first account of a passwd file that `is_meant`.
fn account(passwd: &str, is_meant: impl Fn(&Account) -> bool) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        let entry = Account {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.into(),
        };
        is_meant(&entry).then_some(entry)
    })
}

/// This program as the shell finds it, if that is the same file: package managers keep such a link in place when
/// they update, and the folder behind it changes.
fn stable_program(path: &str) -> PathBuf {
    let program = env::current_exe().unwrap_or_else(|_| "openclaw".into());
    let Ok(real) = program.canonicalize() else { return program };
    env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program.file_name().unwrap_or_default()))
        .find(|candidate| candidate.canonicalize().is_ok_and(|found| found == real))
        .unwrap_or(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_what_is_known_of_it() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n";
        let ada = account(passwd, |entry| entry.uid == 1000).expect("she is there");
        assert_eq!((ada.name.as_str(), ada.gid, ada.home.as_path()), ("ada", 1001, Path::new("/home/ada")));
        assert_eq!(account(passwd, |entry| entry.name == "bob"), None);
    }
}
