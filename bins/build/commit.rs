//! The commit of the sources: that which is checked out, or that of a package. It is read from Git's files: no `git` has to be installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Digits of a commit that are shown.
const SHOWN: usize = 12;
/// Digits of a commit, in repositories of either kind (SHA-1, SHA-256).
const LONGEST: usize = 64;

/// What is checked out.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// Its first digits. `None` without a repository, or before its first commit.
    pub(crate) commit: Option<String>,
    /// The files that change with it. All of them exist: cargo runs a build script again and again for one that does not.
    pub(crate) files: Vec<PathBuf>,
}

/// The commit's first digits, if it is one.
pub(crate) fn short(commit: &str) -> Option<String> {
    let is_commit = (SHOWN..=LONGEST).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit[..SHOWN].to_ascii_lowercase())
}

/// The commit of the work tree at `root` itself: a folder inside another repository has none.
pub(crate) fn head(root: &Path) -> Head {
    let Some(git) = git_folder(root) else { return Head::default() };
    let Some(head) = line(&git.join("HEAD")) else { return Head::default() };
    let mut files = vec![git.join("HEAD")];
    let Some(reference) = head.strip_prefix("ref: ") else {
        return Head { commit: short(&head), files };
    };
    // The branches of a linked work tree are in the main one's folder.
    let common = line(&git.join("commondir")).map_or_else(|| git.clone(), |common| git.join(common));
    let (loose, packed) = (common.join(reference), common.join("packed-refs"));
    if let Some(commit) = line(&loose) {
        files.push(loose);
        return Head { commit: short(&commit), files };
    }
    let refs = fs::read_to_string(&packed).unwrap_or_default();
    let commit = refs.lines().filter_map(|line| line.split_once(' ')).find(|(_, name)| *name == reference);
    // The next commit makes the file of the branch.
    files.extend([packed, common.join("refs/heads")].into_iter().filter(|file| file.exists()));
    Head { commit: commit.and_then(|(commit, _)| short(commit)), files }
}

/// The commit of a package, from the file that `cargo package` adds to it.
pub(crate) fn packaged(package: &Path) -> Head {
    let file = package.join(".cargo_vcs_info.json");
    let Ok(text) = fs::read_to_string(&file) else { return Head::default() };
    // {"git": {"sha1": "…"}, …}
    let commit = text.split("\"sha1\"").nth(1).and_then(|rest| rest.split('"').nth(1));
    Head { commit: commit.and_then(short), files: vec![file] }
}

/// `.git`, or the folder that this file of a linked work tree names.
fn git_folder(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    Some(root.join(line(&git)?.strip_prefix("gitdir: ")?))
}

/// The first line of a file.
fn line(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()?.lines().next().map(|line| line.trim_end().to_owned())
}
