//! Writes the configuration file so that nothing is lost: one writer at a time, in one step, the old content kept.
//!
//! Who writes with this holds a lock on the directory of the file, so that two of them cannot lose an edit. Editors know
//! no such lock: what they have written meanwhile is noticed before the file is replaced.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    edit::{EditError, directory},
    json5,
    redact::holds_secrets,
};
use crate::state::create_private_dir;

/// How many backups are kept: `openclaw.json.bak`, the newest, then `.bak.1` to `.bak.4`. As stock's ring.
const BACKUPS: usize = 5;
/// How long another writer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// How often an edit is made anew because an editor was faster.
const ATTEMPTS: usize = 5;
/// What the names of files end with that are not complete yet.
const UNFINISHED: &str = ".edit";

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Whether the file is another one now.
    pub changed: bool,
    /// Where its old content is, if there was any.
    pub backup: Option<PathBuf>,
}

/// Changes the file at `path` to what `change` makes of its content, which is absent where there is no file. It may be
/// called more than once. A link is followed, and stays. Blocks.
///
/// The mode is kept; a file that is new or holds a secret is for its owner alone (0600).
pub(super) fn save<E: From<EditError>>(
    path: &Path,
    mut change: impl FnMut(Option<&str>) -> Result<String, E>,
) -> Result<Saved, E> {
    let target = target(path)?;
    create_private_dir(directory(&target)).map_err(EditError::from)?;
    let _lock = Lock::of(directory(&target), path)?;
    sweep(&target);
    for _ in 0..ATTEMPTS {
        let before = read(&target)?;
        let after = change(before.as_deref())?;
        if before.as_deref() == Some(after.as_str()) {
            return Ok(Saved { changed: false, backup: None });
        }
        let unfinished = Unfinished::write(&target, &after)?;
        let kept = before.as_ref().map(|before| Unfinished::copy(path, before)).transpose()?;
        if read(&target)? != before {
            continue;
        }
        let backup = kept.map(|kept| rotate(path, kept)).transpose()?;
        unfinished.rename(&target)?;
        sync(directory(&target))?;
        return Ok(Saved { changed: true, backup });
    }
    Err(EditError::Changed { file: path.to_owned() }.into())
}

/// The file that a path means, should it be a link.
fn target(path: &Path) -> Result<PathBuf, EditError> {
    match fs::canonicalize(path) {
        Ok(target) => Ok(target),
        // The file is not there; neither is what a link leads to, perhaps.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(match fs::read_link(path) {
            Ok(link) => directory(path).join(link),
            Err(_) => path.to_owned(),
        }),
        Err(error) => Err(EditError::io("find", path)(error)),
    }
}

fn read(path: &Path) -> Result<Option<String>, EditError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EditError::io("read", path)(error)),
    }
}

/// The right to write the files of a directory, among those that ask for it.
struct Lock {
    /// Closing it gives the lock back, also when the process is killed.
    _directory: File,
}

impl Lock {
    fn of(directory: &Path, file: &Path) -> Result<Self, EditError> {
        let opened = File::open(directory).map_err(EditError::io("open", directory))?;
        let begun = Instant::now();
        loop {
            match opened.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(EditError::Busy { file: file.to_owned() }),
                // A file system without locks on directories (NFS): what others write is noticed all the same.
                Err(TryLockError::Error(_)) => break,
            }
        }
        Ok(Self { _directory: opened })
    }
}

/// A file that is to take the place of another one. Gone with this value, unless it has.
struct Unfinished {
    path: PathBuf,
    is_done: bool,
}

impl Unfinished {
    /// The new content of `target`, down to the disk, beside it, with its owner and mode.
    fn write(target: &Path, text: &str) -> Result<Self, EditError> {
        let before = match fs::metadata(target) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(EditError::io("look at", target)(error)),
        };
        let is_secret = json5::parse(text, target).map_or(true, |value| holds_secrets(&value));
        let mode = before.as_ref().filter(|_| !is_secret).map_or(0o600, |before| before.mode() & 0o777);
        let (unfinished, file) = Self::new(target, text)?;
        if let Some(before) = before {
            let own = file.metadata().map_err(EditError::io("look at", &unfinished.path))?;
            if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
                // The gateway could not read what belongs to somebody else.
                fchown(&file, Some(before.uid()), Some(before.gid()))
                    .map_err(EditError::io("keep the owner of", target))?;
            }
        }
        file.set_permissions(Permissions::from_mode(mode)).map_err(EditError::io("write", target))?;
        Ok(unfinished)
    }

    /// A backup of `path` with this content.
    fn copy(path: &Path, text: &str) -> Result<Self, EditError> {
        Ok(Self::new(&backup(path, 0), text)?.0)
    }

    fn new(target: &Path, text: &str) -> Result<(Self, File), EditError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.{}{UNFINISHED}", Uuid::new_v4().simple()));
        let wrong = |error| EditError::io("write", &path)(error);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(wrong)?;
        let unfinished = Self { path: path.clone(), is_done: false };
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
        Ok((unfinished, file))
    }

    fn rename(mut self, target: &Path) -> Result<(), EditError> {
        fs::rename(&self.path, target).map_err(EditError::io("write", target))?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_done {
            // A file that stays is swept away by the next writer.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what writers left that were killed. Nobody else writes: the lock is held.
fn sweep(target: &Path) {
    let Some(name) = target.file_name().and_then(|name| name.to_str()) else { return };
    let prefix = format!(".{name}.");
    let Ok(entries) = fs::read_dir(directory(target)) else { return };
    for entry in entries.flatten() {
        let file = entry.file_name();
        if file.to_str().is_some_and(|file| file.starts_with(&prefix) && file.ends_with(UNFINISHED)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The path of a backup; the newest is number 0.
fn backup(path: &Path, number: usize) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".bak");
    if number > 0 {
        name.push(format!(".{number}"));
    }
    path.with_file_name(name)
}

/// Makes `kept` the newest backup, and forgets the oldest.
fn rotate(path: &Path, kept: Unfinished) -> Result<PathBuf, EditError> {
    for number in (0..BACKUPS - 1).rev() {
        let from = backup(path, number);
        match fs::rename(&from, backup(path, number + 1)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(EditError::io("move", &from)(error)),
        }
    }
    let newest = backup(path, 0);
    kept.rename(&newest)?;
    Ok(newest)
}

fn sync(directory: &Path) -> Result<(), EditError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(EditError::io("write", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().expect("a directory") }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("openclaw.json")
        }

        fn save(&self, text: &str) -> Saved {
            save(&self.path(), |_| Ok::<_, EditError>(text.to_owned())).expect("it is saved")
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.directory.path()).expect("it is listed");
            let mut names: Vec<String> = entries
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o777
    }

    #[test]
    fn the_last_five_contents_are_kept_as_backups() {
        let place = Place::new();
        assert_eq!(place.save("{n: 0}"), Saved { changed: true, backup: None });
        assert_eq!(place.save("{n: 0}"), Saved { changed: false, backup: None });
        for number in 1..=7 {
            place.save(&format!("{{n: {number}}}"));
        }
        let kept = |number| fs::read_to_string(backup(&place.path(), number)).expect("it is kept");
        assert_eq!([kept(0), kept(1), kept(4)], ["{n: 6}", "{n: 5}", "{n: 2}"]);
        assert_eq!(place.names().len(), 6, "{:?}", place.names());
        assert_eq!(mode(&backup(&place.path(), 0)), 0o600);
    }

    #[test]
    fn the_mode_is_kept_unless_a_secret_is_in_it() {
        let place = Place::new();
        place.save("{}");
        assert_eq!(mode(&place.path()), 0o600);
        fs::set_permissions(place.path(), Permissions::from_mode(0o644)).expect("it is ours");
        place.save("{gateway: {port: 1}}");
        assert_eq!(mode(&place.path()), 0o644);
        place.save("{gateway: {auth: {token: '${TOKEN}'}}}");
        assert_eq!(mode(&place.path()), 0o644, "the name of a variable is no secret");
        place.save("{gateway: {auth: {token: 'hush-hush'}}}");
        assert_eq!(mode(&place.path()), 0o600);
    }

    #[test]
    fn a_link_stays_and_what_it_leads_to_changes() {
        let place = Place::new();
        let elsewhere = tempfile::tempdir().expect("a directory");
        let real = elsewhere.path().join("dotfile.json");
        fs::write(&real, "{}").expect("it writes");
        std::os::unix::fs::symlink(&real, place.path()).expect("it links");
        let saved = place.save("{a: 1}");
        assert!(fs::symlink_metadata(place.path()).expect("it is there").is_symlink());
        assert_eq!(fs::read_to_string(&real).expect("it reads"), "{a: 1}");
        assert_eq!(saved.backup, Some(backup(&place.path(), 0)), "beside the link: it may hold a secret");
    }

    #[test]
    fn writers_at_once_lose_no_edit() {
        let place = Place::new();
        place.save("0");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let count = |text: Option<&str>| {
                            let text = text.expect("it is there");
                            Ok::<_, EditError>((text.parse::<u32>().expect("a number") + 1).to_string())
                        };
                        save(&place.path(), count).expect("it is saved");
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(place.path()).expect("it reads"), "40");
    }

    #[test]
    fn what_an_editor_writes_meanwhile_is_not_lost() {
        let place = Place::new();
        place.save("{n: 0}");
        let mut calls = 0;
        let saved = save(&place.path(), |text| {
            calls += 1;
            if calls == 1 {
                fs::write(place.path(), "{n: 1}").expect("it writes");
            }
            Ok::<_, EditError>(format!("{} // seen", text.unwrap_or_default()))
        });
        assert!(saved.expect("it is saved").changed);
        assert_eq!(fs::read_to_string(place.path()).expect("it reads"), "{n: 1} // seen");
        let stubborn = save(&place.path(), |_| {
            calls += 1;
            fs::write(place.path(), format!("{{n: {calls}}}")).expect("it writes");
            Ok::<_, EditError>("{}".to_owned())
        });
        assert!(matches!(stubborn, Err(EditError::Changed { .. })), "{stubborn:?}");
        assert_eq!(place.names(), ["openclaw.json", "openclaw.json.bak"], "nothing is left behind");
    }

    #[test]
    fn a_writer_that_was_killed_leaves_the_old_file_and_its_rest_is_swept_away() {
        let place = Place::new();
        place.save("{n: 0}");
        // As after SIGKILL between the new file and its renaming: nothing is dropped.
        let unfinished = Unfinished::write(&place.path(), "{n: 1}").expect("it writes");
        std::mem::forget(unfinished);
        assert_eq!(fs::read_to_string(place.path()).expect("it reads"), "{n: 0}");
        assert_eq!(place.names().len(), 2);
        place.save("{n: 2}");
        assert_eq!(place.names(), ["openclaw.json", "openclaw.json.bak"]);
    }

    #[test]
    fn an_error_of_the_change_writes_nothing() {
        let place = Place::new();
        place.save("{n: 0}");
        let refused =
            save(&place.path(), |_| Err(EditError::Missing { path: "x".into(), file: place.path() }));
        assert!(refused.is_err());
        assert_eq!(place.names(), ["openclaw.json"]);
    }

    #[test]
    fn what_cannot_be_written_names_the_place() {
        let place = Place::new();
        place.save("{}");
        let error = save(&place.path().join("openclaw.json"), |_| Ok::<_, EditError>(String::new()))
            .expect_err("no directory");
        assert!(error.to_string().contains("openclaw.json"), "{error}");
    }
}
