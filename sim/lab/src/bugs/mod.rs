//! Planted bugs: realistic mistakes, each kept as a small edit of the source, and the promises that catch them.
//!
//! A simulation that finds nothing may be missing the relevant cases. `rmom-sim bugs` makes each of the mistakes in
//! `sim/lab/bugs` in a copy of the sources, one after the other, builds it and sweeps seeds until one fails: every mistake has
//! to be found. The sources themselves are not changed.
//!
//! A bug is a file, `sim/lab/bugs/NAME.toml`:
//!
//! ```toml
//! rule = "6, Append"                 # section of the design, and the rule that is broken
//! mistake = "A push is acknowledged when it is accepted, not when it is stored."
//! caught_by = ["durable"]            # promises, at least one of which should be seen to break
//!
//! [[edit]]                           # one or more
//! file = "core/src/broker/queue/push.rs"
//! find = "…"                         # occurs once in the file
//! replace = "…"
//! ```
//!
//! Rules whose violation no promise can show are in [`UNSEEN`].

mod sandbox;
mod table;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::check::Promise;

pub use sandbox::{Sandbox, Sweep, Trial, TrialOutcome};
pub use table::markdown;

/// The rules without a planted mistake, and the tests that cover them, for the docs.
pub const UNSEEN: &str = include_str!("../../bugs/unseen.md");

/// The folder of the bugs, below the workspace.
const CATALOGUE: &str = "sim/lab/bugs";

/// A planted bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bug {
    /// The name of the bug's file, without the extension.
    pub name: String,
    /// The rule that it breaks, with its section of the design.
    pub rule: String,
    /// The mistake, in a sentence.
    pub mistake: String,
    /// The promises, at least one of which should be seen to break.
    pub caught_by: Vec<Promise>,
    /// The edits that make the mistake, in order.
    pub edits: Vec<Edit>,
}

/// An edit of a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The file, from the root of the workspace.
    pub file: PathBuf,
    /// The text to be replaced, which must occur exactly once.
    pub find: String,
    /// The new text.
    pub replace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BugFile {
    rule: String,
    mistake: String,
    caught_by: Vec<Promise>,
    edit: Vec<Edit>,
}

/// The reason why bugs cannot be planted or searched for.
#[derive(Debug, thiserror::Error)]
pub enum BugError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// A file of the catalogue has the wrong format.
    #[error("{}: {error}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The error.
        error: Box<toml::de::Error>,
    },
    /// The source has changed, so that the mistake cannot be planted any more.
    #[error("{name}: its text occurs {times} times in {}, not once:\n{find}", file.display())]
    Unplantable {
        /// The bug.
        name: String,
        /// The file to be edited.
        file: PathBuf,
        /// The text to be replaced.
        find: String,
        /// How often it occurs.
        times: usize,
    },
    /// No bug has this name.
    #[error("no bug is called {0:?}; `rmom-sim bugs --list` tells their names")]
    Unknown(String),
    /// No workspace contains this folder.
    #[error("no folder from {} up has {CATALOGUE}: run this within the sources of rmom", .0.display())]
    NoWorkspace(PathBuf),
    /// A required program cannot be run, or failed.
    #[error("{program}: {reason}")]
    Program {
        /// The program.
        program: String,
        /// Its error.
        reason: String,
    },
}

impl BugError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::File { path, error }
    }
}

/// The root of the workspace that contains a folder.
///
/// # Errors
/// [`BugError::NoWorkspace`].
pub fn workspace(from: &Path) -> Result<&Path, BugError> {
    let root = from.ancestors().find(|folder| folder.join(CATALOGUE).is_dir());
    root.ok_or_else(|| BugError::NoWorkspace(from.to_owned()))
}

/// All bugs of a workspace, by name.
///
/// # Errors
/// [`BugError::File`], [`BugError::Format`].
pub fn catalogue(workspace: &Path) -> Result<Vec<Bug>, BugError> {
    let folder = workspace.join(CATALOGUE);
    let entries = fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut files: Vec<PathBuf> = entries.map_err(BugError::file(&folder))?.iter().map(fs::DirEntry::path).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files.iter().map(|file| Bug::read(file)).collect()
}

impl Bug {
    fn read(path: &Path) -> Result<Self, BugError> {
        let text = fs::read_to_string(path).map_err(BugError::file(path))?;
        let BugFile { rule, mistake, caught_by, edit } = toml::from_str(&text)
            .map_err(|error| BugError::Format { path: path.to_owned(), error: Box::new(error) })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, rule, mistake, caught_by, edits: edit })
    }

    /// The files that it changes, each once, with their new contents.
    ///
    /// # Errors
    /// [`BugError::File`], [`BugError::Unplantable`].
    pub fn planted(&self, workspace: &Path) -> Result<Vec<(PathBuf, String)>, BugError> {
        let mut changed: Vec<(PathBuf, String)> = Vec::new();
        for Edit { file, find, replace } in &self.edits {
            let at = match changed.iter().position(|(path, _)| path == file) {
                Some(at) => at,
                None => {
                    let path = workspace.join(file);
                    changed.push((file.clone(), fs::read_to_string(&path).map_err(BugError::file(&path))?));
                    changed.len() - 1
                }
            };
            let text = &mut changed[at].1;
            match text.matches(find).count() {
                1 => *text = text.replacen(find, replace, 1),
                times => {
                    let (name, file, find) = (self.name.clone(), file.clone(), find.clone());
                    return Err(BugError::Unplantable { name, file, find, times });
                }
            }
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn root() -> &'static Path {
        workspace(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("these are the sources")
    }

    #[test]
    fn every_bug_can_still_be_planted() {
        let bugs = catalogue(root()).unwrap();
        assert!(bugs.len() >= 24, "only {} bugs", bugs.len());
        for bug in &bugs {
            let planted = bug.planted(root()).unwrap_or_else(|error| panic!("{error}"));
            assert!(!planted.is_empty() && !bug.caught_by.is_empty(), "{}", bug.name);
            for (file, text) in planted {
                assert_ne!(fs::read_to_string(root().join(file)).unwrap(), text, "{}", bug.name);
            }
        }
    }

    #[test]
    fn the_bugs_are_of_every_section_that_can_be_broken() {
        let bugs = catalogue(root()).unwrap();
        let sections: BTreeSet<_> = bugs.iter().filter_map(|bug| bug.rule.split(',').next()).collect();
        for section in ["6", "7", "8", "10"] {
            assert!(sections.contains(section), "no bug breaks a rule of section {section}");
        }
    }

    #[test]
    fn each_mistake_of_the_original_is_among_them() {
        let bugs = catalogue(root()).unwrap();
        for mistake in [
            "a broker that was replaced goes on accepting pushes",
            "the id is minted by the broker",
            "a retried push is a second message",
            "rebuild comes before the ownership update",
            "channels are deleted at failover",
            "the buffer drops the oldest message silently",
            "expiry compares the broker's clock",
            "nothing is ever purged",
            "pushed between a rebuild and its publication",
            "deleting a queue drops other queues' channels",
            "labels are lower-cased in some calls",
            "heartbeats have no deadline",
            "counts as alive",
            "channels are not rebuilt when a broker restarts",
            "a message is stored for a queue that the broker does not host, then refused",
        ] {
            assert!(bugs.iter().any(|bug| bug.rule.starts_with("10, ") && bug.rule.contains(mistake)), "{mistake}");
        }
    }

    #[test]
    fn rules_without_a_planted_bug_have_a_test() {
        let words: Vec<_> = UNSEEN.split('`').collect();
        // The quoted parts have odd indices: the names of tests, and then their file.
        let mut tests = Vec::new();
        let mut files = 0;
        for quoted in words.iter().skip(1).step_by(2) {
            if !quoted.contains('/') {
                tests.push(format!("fn {quoted}("));
                continue;
            }
            let source = fs::read_to_string(root().join(quoted)).unwrap_or_else(|error| panic!("{quoted}: {error}"));
            assert!(!tests.is_empty(), "no test of {quoted} is named");
            for test in tests.drain(..) {
                assert!(source.contains(&test), "{quoted} has no {test}");
            }
            files += 1;
        }
        assert!(tests.is_empty() && files >= 10, "{files} files, and no file has {tests:?}");
    }

    #[test]
    fn an_edit_that_fits_nowhere_or_twice_is_refused() {
        let edit = |find: &str| Edit { file: "sim/bugs.txt".into(), find: find.into(), replace: String::new() };
        let folder = std::env::temp_dir().join(format!("rmom-bugs-{}", std::process::id()));
        fs::create_dir_all(folder.join("sim")).unwrap();
        fs::write(folder.join("sim/bugs.txt"), "one two two").unwrap();
        let planted = |find: &str| {
            let bug = Bug {
                name: "b".into(),
                rule: String::new(),
                mistake: String::new(),
                caught_by: Vec::new(),
                edits: vec![edit(find)],
            };
            bug.planted(&folder).map(|mut changed| changed.remove(0).1).map_err(|error| match error {
                BugError::Unplantable { times, .. } => times,
                error => panic!("{error}"),
            })
        };
        assert_eq!(planted("one "), Ok("two two".into()));
        assert_eq!(planted("two"), Err(2));
        assert_eq!(planted("three"), Err(0));
        fs::remove_dir_all(folder).unwrap();
    }
}
