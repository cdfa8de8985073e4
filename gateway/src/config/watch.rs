//! Tells when a file of the configuration may have changed.
//!
//! On Linux the directories that the path leads through are watched, not the file: editors put a new file in the place
//! of the old one. Elsewhere, and as a safety net where a file system tells nothing (NFS), the file is looked at from
//! time to time. Whether its content is really another one, whoever asks finds out.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long nothing must happen before a change counts as complete: editors write in several steps.
const SETTLED: Duration = Duration::from_millis(250);
/// How long a change is waited for at most to be complete.
const IMPATIENT: Duration = Duration::from_secs(2);
/// How often the file is looked at where its directory is watched.
const SELDOM: Duration = Duration::from_secs(30);
/// How often the file is looked at where it is not: one `stat`.
const OFTEN: Duration = Duration::from_secs(2);

/// How a file looks from outside; absent when it is not there.
type Stamp = Option<(u64, Option<SystemTime>, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some((metadata.len(), metadata.modified().ok(), inode))
}

/// Watches some files.
pub(crate) struct Watcher {
    files: Vec<PathBuf>,
    seen: Vec<Stamp>,
    events: Option<events::Events>,
}

impl Watcher {
    /// Watches these files, which need not be there.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub(crate) fn new(files: Vec<PathBuf>) -> Self {
        let events = events::Events::new(&files)
            .inspect_err(|error| tracing::debug!(%error, "the configuration is looked at every two seconds"))
            .ok();
        Self { seen: files.iter().map(|file| stamp(file)).collect(), files, events }
    }

    /// Watches these files from now on.
    pub(crate) fn watch(&mut self, files: Vec<PathBuf>) {
        if self.files != files {
            self.files = files;
            self.look();
        }
    }

    /// Remembers how the files are now, and where they are: a link may lead elsewhere, and a directory that was missing
    /// may be there. Says whether they are otherwise than before.
    fn look(&mut self) -> bool {
        if let Some(events) = &mut self.events {
            events.follow(&self.files);
        }
        let seen = self.files.iter().map(|file| stamp(file)).collect();
        let changed = self.seen != seen;
        self.seen = seen;
        changed
    }

    /// Ends when one of the files may have changed, once it has settled. May be cancelled at any time.
    pub(crate) async fn changed(&mut self) {
        loop {
            match &mut self.events {
                None => sleep(OFTEN).await,
                Some(events) => match timeout(SELDOM, events.next()).await {
                    Ok(Ok(())) => {
                        let patience = Instant::now() + IMPATIENT;
                        loop {
                            let settled = (Instant::now() + SETTLED).min(patience);
                            tokio::select! {
                                more = events.next() => if more.is_err() { break },
                                () = sleep_until(settled) => break,
                            }
                        }
                        self.look();
                        return;
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "the configuration is looked at every two seconds");
                        self.events = None;
                    }
                    Err(_) => {}
                },
            }
            if self.look() {
                // Whoever writes may not be done.
                sleep(SETTLED).await;
                self.look();
                return;
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod events {
    //! Changes in the directories that a path leads through, by inotify(7).

    use std::{
        collections::BTreeSet,
        ffi::OsString,
        fs, io,
        mem::MaybeUninit,
        os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
        path::{Path, PathBuf},
    };

    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
    use tokio::io::{Interest, unix::AsyncFd};

    /// How many links a path may lead through, as the kernel has it (path_resolution(7)).
    const MAX_LINKS: usize = 40;

    pub(super) struct Events {
        inotify: AsyncFd<OwnedFd>,
        /// Names that matter; empty when every name does.
        names: BTreeSet<OsString>,
    }

    impl Events {
        pub(super) fn new(files: &[PathBuf]) -> io::Result<Self> {
            let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            #[expect(
                deprecated,
                reason = "what takes its place is unsafe: the descriptor must be ours, and stay open and the same, as here"
            )]
            let inotify = AsyncFd::with_interest(inotify, Interest::READABLE)?;
            let mut events = Self { inotify, names: BTreeSet::new() };
            if events.follow(files) == 0 {
                return Err(io::Error::new(io::ErrorKind::NotFound, "its directory cannot be watched"));
            }
            Ok(events)
        }

        /// Watches the directories that lead to `files` now. Says how many that are.
        pub(super) fn follow(&mut self, files: &[PathBuf]) -> usize {
            let mut directories = BTreeSet::new();
            self.names.clear();
            let mut is_plain = true;
            for file in files {
                let (places, names) = places(file);
                is_plain &= !names.is_empty();
                directories.extend(places);
                self.names.extend(names);
            }
            if !is_plain {
                self.names.clear();
            }
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::MODIFY
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ONLYDIR;
            // A directory that is watched already gets no second watch.
            let watch = |directory: &PathBuf| inotify::add_watch(&self.inotify, directory, flags).is_ok();
            directories.iter().filter(|directory| watch(directory)).count()
        }

        /// Ends when something has happened that may concern the file.
        pub(super) async fn next(&mut self) -> io::Result<()> {
            loop {
                let mut ready = self.inotify.readable().await?;
                let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
                let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
                let mut concerns = false;
                loop {
                    match reader.next() {
                        Ok(event) => {
                            let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                            let is_named = event.file_name().is_some_and(|name| {
                                self.names.iter().any(|known| known.as_bytes() == name.to_bytes())
                            });
                            concerns |= lost || self.names.is_empty() || is_named;
                        }
                        Err(rustix::io::Errno::WOULDBLOCK) => break,
                        Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                ready.clear_ready();
                if concerns {
                    return Ok(());
                }
            }
        }
    }

    /// The directories whose entries decide what is at `path`, and the names of these entries; no names where links
    /// make every one of them matter.
    fn places(path: &Path) -> (BTreeSet<PathBuf>, BTreeSet<OsString>) {
        let mut directories = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut path = path.to_owned();
        let mut is_plain = true;
        for _ in 0..MAX_LINKS {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new(".")).to_owned();
            // A directory on the way may be a link that is turned to another one, as Kubernetes does.
            for ancestor in parent.ancestors() {
                if fs::symlink_metadata(ancestor).is_ok_and(|metadata| metadata.is_symlink()) {
                    is_plain = false;
                    directories.extend(ancestor.parent().map(Path::to_owned));
                }
            }
            names.extend(path.file_name().map(ToOwned::to_owned));
            directories.insert(parent.clone());
            match fs::read_link(&path) {
                Ok(target) => {
                    is_plain = false;
                    path = parent.join(target);
                }
                Err(_) => break,
            }
        }
        (directories, if is_plain { names } else { BTreeSet::new() })
    }
}

#[cfg(not(target_os = "linux"))]
mod events {
    //! No events: the file is looked at instead.

    use std::{io, path::PathBuf};

    pub(super) struct Events;

    impl Events {
        pub(super) fn new(_: &[PathBuf]) -> io::Result<Self> {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no inotify"))
        }

        pub(super) fn follow(&mut self, _: &[PathBuf]) -> usize {
            0
        }

        pub(super) async fn next(&mut self) -> io::Result<()> {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sees(watcher: &mut Watcher, what: &str) {
        timeout(Duration::from_secs(20), watcher.changed())
            .await
            .unwrap_or_else(|_| panic!("{what} is not seen"));
    }

    #[tokio::test]
    async fn every_way_in_which_editors_write_is_seen() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("openclaw.json");
        let mut watcher = Watcher::new(vec![path.clone()]);
        fs::write(&path, "{}").expect("it writes");
        sees(&mut watcher, "a new file").await;
        fs::write(&path, "{a: 1}").expect("it writes");
        sees(&mut watcher, "a file that is cut and written again").await;
        // As vim does: the old file becomes the backup, and a new one takes its place.
        fs::rename(&path, directory.path().join("openclaw.json~")).expect("it moves");
        fs::write(&path, "{a: 2}").expect("it writes");
        sees(&mut watcher, "a file in the place of one that was moved away").await;
        let temporary = directory.path().join(".new");
        fs::write(&temporary, "{a: 3}").expect("it writes");
        fs::rename(&temporary, &path).expect("it moves");
        sees(&mut watcher, "a file that was moved over the old one").await;
        fs::remove_file(&path).expect("it goes");
        sees(&mut watcher, "a file that is gone").await;
    }

    #[tokio::test]
    async fn a_link_that_is_turned_elsewhere_is_seen() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for (folder, text) in [("one", "{a: 1}"), ("two", "{a: 2}")] {
            fs::create_dir(at(folder)).expect("it is made");
            fs::write(at(folder).join("openclaw.json"), text).expect("it writes");
        }
        // The way of Kubernetes: the file is a link through a link to the folder of the moment.
        std::os::unix::fs::symlink("one", at("..data")).expect("it links");
        std::os::unix::fs::symlink("..data/openclaw.json", at("openclaw.json")).expect("it links");
        let mut watcher = Watcher::new(vec![at("openclaw.json")]);
        std::os::unix::fs::symlink("two", at("..next")).expect("it links");
        fs::rename(at("..next"), at("..data")).expect("it moves");
        sees(&mut watcher, "another folder").await;
        fs::write(at("two").join("openclaw.json"), "{a: 3}").expect("it writes");
        sees(&mut watcher, "a change in the new folder").await;
    }

    #[tokio::test]
    async fn a_file_that_comes_to_the_others_is_watched_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let elsewhere = tempfile::tempdir().expect("a directory");
        let (first, second) = (directory.path().join("a.json"), elsewhere.path().join("b.json"));
        let mut watcher = Watcher::new(vec![first.clone()]);
        watcher.watch(vec![first, second.clone()]);
        fs::write(&second, "{}").expect("it writes");
        sees(&mut watcher, "the second file").await;
    }

    #[tokio::test]
    async fn other_files_of_the_directory_do_not_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("openclaw.json");
        fs::write(&path, "{}").expect("it writes");
        let mut watcher = Watcher::new(vec![path.clone()]);
        fs::write(directory.path().join("other.json"), "{}").expect("it writes");
        assert!(timeout(Duration::from_millis(600), watcher.changed()).await.is_err());
    }
}
