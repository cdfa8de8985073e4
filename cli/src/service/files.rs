//! Puts planned files in place, and takes them away again: each whole or not at all, with a record of what was
//! there before, so that `uninstall` leaves things as `install` found them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, lchown},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{
    Account,
    plan::{PlannedFile, Role},
};

/// What `install` did to the file system. It is kept in the state directory, for services of the machine in a folder
/// of root's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Footprint {
    /// Files that were not there before, or that have a backup.
    pub(crate) files: Vec<Written>,
    /// Folders that were not there before, outermost first.
    pub(crate) folders: Vec<PathBuf>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Written {
    pub(crate) path: PathBuf,
    /// Where the earlier content is, if there was one that is to be put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backup: Option<PathBuf>,
    /// The content at which `uninstall` removes it; absent for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) only_if: Option<String>,
}

/// What went wrong with a file.
#[derive(Debug)]
pub(crate) struct FileError {
    pub(crate) action: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl FileError {
    fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

/// Writing in progress: what was done so far, so that it can be undone.
#[derive(Debug)]
pub(crate) struct Writing {
    footprint: Footprint,
    /// Where the footprint of an earlier `install` is, and this one will be.
    record: PathBuf,
    /// Whose the files are, when root writes for another account.
    owner: Option<(u32, u32)>,
    /// Earlier contents, to undo.
    earlier: Vec<Earlier>,
    made: Vec<PathBuf>,
}

/// What was at a path before.
#[derive(Debug)]
struct Earlier {
    path: PathBuf,
    /// The content and the mode; absent when nothing was there.
    content: Option<(Vec<u8>, u32)>,
    owner: Option<(u32, u32)>,
}

impl Writing {
    /// Begins. `record` is where the footprint is kept.
    pub(crate) fn begin(record: PathBuf, owner: Option<&Account>) -> Self {
        Self {
            footprint: read_footprint(&record).unwrap_or_default(),
            record,
            owner: owner.map(|account| (account.uid, account.gid)),
            earlier: Vec::new(),
            made: Vec::new(),
        }
    }

    /// Puts `file` in place. With `keep`, what was there is kept as a backup and put back by `uninstall`.
    pub(crate) fn put(&mut self, file: &PlannedFile, keep: bool) -> Result<(), FileError> {
        // Definitions of the machine are root's, the rest is the account's.
        let owner = self.owner.filter(|_| file.role != Role::Definition);
        self.folders_of(&file.path, owner)?;
        let before = read(&file.path)?;
        let known = self.footprint.files.iter().any(|written| written.path == file.path);
        if !known {
            let backup = match &before {
                Some((bytes, mode)) if keep => {
                    let backup = beside(&file.path, "bak");
                    replace(&backup, bytes, *mode, owner)?;
                    self.earlier.push(Earlier { path: backup.clone(), content: None, owner });
                    Some(backup)
                }
                _ => None,
            };
            if before.is_none() || backup.is_some() || file.role == Role::Definition {
                let only_if = (file.role == Role::Config).then(|| file.content.clone());
                self.footprint.files.push(Written { path: file.path.clone(), backup, only_if });
            }
        }
        self.earlier.push(Earlier { path: file.path.clone(), content: before, owner });
        replace(&file.path, file.content.as_bytes(), file.mode, owner)
    }

    /// Writes the footprint. From now on, nothing is undone. It belongs to whoever runs this: root must not take the
    /// word of a file that another account can change for what to remove.
    pub(crate) fn end(mut self) -> Result<(), FileError> {
        let record = self.record.clone();
        self.folders_of(&record, None)?;
        let mut text = serde_json::to_string_pretty(&self.footprint).expect("a footprint is paths and texts");
        text.push('\n');
        replace(&record, text.as_bytes(), 0o600, None)
    }

    /// Puts everything back.
    pub(crate) fn undo(self) {
        // What counts is the error that led here; whatever cannot be put back stays.
        for Earlier { path, content, owner } in self.earlier.iter().rev() {
            let _ = match content {
                Some((bytes, mode)) => replace(path, bytes, *mode, *owner).map_err(|error| error.source),
                None => fs::remove_file(path),
            };
        }
        for folder in self.made.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }

    fn folders_of(&mut self, path: &Path, owner: Option<(u32, u32)>) -> Result<(), FileError> {
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            DirBuilder::new()
                .mode(0o700)
                .create(folder)
                .map_err(FileError::at("create the folder", folder))?;
            if let Some((uid, gid)) = owner {
                lchown(folder, Some(uid), Some(gid)).map_err(FileError::at("give away", folder))?;
            }
            self.made.push(folder.to_owned());
            self.footprint.folders.push(folder.to_owned());
        }
        Ok(())
    }
}

/// The footprint that an `install` left.
pub(crate) fn read_footprint(record: &Path) -> Option<Footprint> {
    serde_json::from_slice(&fs::read(record).ok()?).ok()
}

/// Takes away what `install` wrote: the definition, and what the footprint names. Returns what was removed and what
/// was put back.
pub(crate) fn remove(record: &Path, definition: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), FileError> {
    let mut footprint = read_footprint(record).unwrap_or_default();
    if !footprint.files.iter().any(|written| written.path == definition) {
        footprint.files.push(Written { path: definition.to_owned(), backup: None, only_if: None });
    }
    footprint.files.push(Written { path: record.to_owned(), backup: None, only_if: None });
    let (mut removed, mut restored) = (Vec::new(), Vec::new());
    for written in &footprint.files {
        if let Some(backup) = &written.backup
            && backup.exists()
        {
            fs::rename(backup, &written.path).map_err(FileError::at("put back", &written.path))?;
            restored.push(written.path.clone());
            continue;
        }
        if let Some(content) = &written.only_if
            && fs::read_to_string(&written.path).ok().as_ref() != Some(content)
        {
            continue;
        }
        match fs::remove_file(&written.path) {
            Ok(()) => removed.push(written.path.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::at("remove", &written.path)(error)),
        }
    }
    for folder in footprint.folders.iter().rev() {
        // One that is in use by now stays.
        let _ = fs::remove_dir(folder);
    }
    Ok((removed, restored))
}

/// `path` with an ending more.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// The content and the mode of a file, if it is there. A link is not followed: under `sudo` it could lead to what the
/// account must not read.
fn read(path: &Path) -> Result<Option<(Vec<u8>, u32)>, FileError> {
    let no_follow =
        i32::try_from(OFlags::NOFOLLOW.bits()).expect("the flag is one of open(2), which takes an int");
    let open = || {
        let mut file = OpenOptions::new().read(true).custom_flags(no_follow).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        io::Result::Ok((bytes, file.metadata()?.permissions().mode() & 0o777))
    };
    match open() {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at("read", path)(error)),
    }
}

/// Writes a file whole: to another name, down to the disk, then into its place.
fn replace(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<(), FileError> {
    let temporary = beside(path, &format!("{}.tmp", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if let Some((uid, gid)) = owner {
            // Of the open file: the name may lead elsewhere by now.
            fchown(&file, Some(uid), Some(gid))?;
        }
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        FileError::at("write", path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(path: PathBuf, content: &str, role: Role) -> PlannedFile {
        PlannedFile { path, content: content.to_owned(), mode: 0o600, is_secret: false, role }
    }

    #[test]
    fn removing_leaves_what_was_there_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        let (unit, token, record) =
            (root.join("a/b/unit"), root.join("token"), root.join("state/record.json"));
        fs::write(&token, "old").expect("it writes");
        let mut writing = Writing::begin(record.clone(), None);
        writing.put(&planned(unit.clone(), "unit", Role::Definition), false).expect("it writes");
        writing.put(&planned(token.clone(), "new", Role::Token), true).expect("it writes");
        writing.end().expect("it writes");
        // A second time, the backup is still that of the first.
        let mut writing = Writing::begin(record.clone(), None);
        writing.put(&planned(token.clone(), "newer", Role::Token), true).expect("it writes");
        writing.end().expect("it writes");
        let (removed, restored) = remove(&record, &unit).expect("it removes");
        assert_eq!(removed, [unit, record]);
        assert_eq!(restored, std::slice::from_ref(&token));
        assert_eq!(fs::read_to_string(&token).expect("it is there"), "old");
        let left: Vec<_> = fs::read_dir(root).expect("it lists").filter_map(Result::ok).collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_failed_half_way_is_undone() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        fs::write(root.join("file"), "before").expect("it writes");
        let mut writing = Writing::begin(root.join("record"), None);
        writing.put(&planned(root.join("x/new"), "1", Role::Secrets), false).expect("it writes");
        writing.put(&planned(root.join("file"), "after", Role::Token), true).expect("it writes");
        let error = writing.put(&planned(root.join("file/below"), "2", Role::Secrets), false);
        assert_eq!(error.expect_err("a file has no children").path, root.join("file/below"));
        writing.undo();
        assert_eq!(fs::read_to_string(root.join("file")).expect("it is there"), "before");
        let left: Vec<_> = fs::read_dir(root).expect("it lists").filter_map(Result::ok).collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (secret, token) = (dir.path().join("secret"), dir.path().join("token"));
        fs::write(&secret, "not yours").expect("it writes");
        std::os::unix::fs::symlink(&secret, &token).expect("it links");
        let mut writing = Writing::begin(dir.path().join("record"), None);
        let error =
            writing.put(&planned(token.clone(), "mine", Role::Token), true).expect_err("it is a link");
        assert_eq!((error.action, error.path), ("read", token));
        writing.undo();
        assert_eq!(fs::read_to_string(&secret).expect("it is there"), "not yours");
        assert_eq!(fs::read_dir(dir.path()).expect("it lists").count(), 2);
    }

    #[test]
    fn a_configuration_that_was_changed_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let (config, record) = (dir.path().join("openclaw.json"), dir.path().join("record"));
        let mut writing = Writing::begin(record.clone(), None);
        writing.put(&planned(config.clone(), "{}", Role::Config), false).expect("it writes");
        writing.end().expect("it writes");
        fs::write(&config, "{ mine: 1 }").expect("it writes");
        remove(&record, &dir.path().join("unit")).expect("it removes");
        assert!(config.exists() && !record.exists());
    }
}
