//! Facts about the host and this process.

use std::{fs, path::Path};

/// The host name.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether Docker or Podman left its mark: the process is in a container.
pub(crate) fn has_container_mark() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists())
}

/// The release of the kernel.
pub(crate) fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The operating system for people; its plain name where it does not say more.
pub(crate) fn os_label() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let label = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    label.map_or_else(|| std::env::consts::OS.to_owned(), |label| label.trim_matches('"').to_owned())
}

/// Load averages over 1, 5 and 15 minutes; zeros where the system has none.
pub(crate) fn load_average() -> [f64; 3] {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut values = text.split(' ').map_while(|value| value.parse().ok());
    std::array::from_fn(|_| values.next().unwrap_or(0.0))
}

/// Memory of the host in bytes, all and available; zeros when unknown.
pub(crate) fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let find = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let bytes = |name| find(name).unwrap_or(0) * 1024;
    (bytes("MemTotal"), bytes("MemAvailable"))
}

/// Resident memory of this process in bytes, where the system tells.
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc/self/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
