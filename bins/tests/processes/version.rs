//! Versions include the commit of the build.

use std::{fs, path::Path};

use crate::{
    commit::{head, packaged, short},
    support::rmom_in,
};

const FIRST: &str = "0123456789abcdef0123456789abcdef01234567";
const SECOND: &str = "fedcba9876543210fedcba9876543210fedcba98";

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The commit, and the names of the files that the build script watches.
fn found(root: &Path) -> (Option<String>, Vec<String>) {
    let head = head(root);
    let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(head.files.iter().all(|file| file.exists()), "{head:?}");
    (head.commit, head.files.iter().map(|file| name(file)).collect())
}

#[test]
fn every_program_says_its_version_and_commit() {
    let version = env!("RMOM_VERSION_AND_COMMIT");
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.join("..");
    let commit = version.strip_prefix(env!("CARGO_PKG_VERSION")).unwrap();
    match option_env!("RMOM_COMMIT").filter(|named| !named.is_empty()) {
        Some(named) => assert_eq!(commit, format!(" ({})", short(named).unwrap())),
        // Another commit may have been made since the build.
        None => assert_eq!(commit.is_empty(), head(&root).commit.or(packaged(package).commit).is_none(), "{version}"),
    }
    for (program, args) in [
        ("rmom", &["--version"][..]),
        ("rmom-broker", &["--version"]),
        ("rmom-manager", &["--version"]),
        ("rmom", &["serve", "broker", "--version"]),
    ] {
        let output = rmom_in(&root, program, args, &[]).success();
        assert!(output.text().trim_end().ends_with(&format!(" {version}")), "{}", output.text());
    }
}

#[test]
fn a_branch_is_followed_also_when_it_is_packed() {
    let root = tempfile::tempdir().unwrap();
    let git = root.path().join(".git");
    write(&git.join("HEAD"), "ref: refs/heads/main\n");
    // A repository before its first commit.
    assert_eq!(found(root.path()), (None, vec!["HEAD".to_owned()]));
    write(
        &git.join("packed-refs"),
        &format!("# pack-refs with: peeled\n{SECOND} refs/heads/other\n{FIRST} refs/heads/main\n"),
    );
    fs::create_dir_all(git.join("refs/heads")).unwrap();
    assert_eq!(found(root.path()), (short(FIRST), ["HEAD", "packed-refs", "heads"].map(str::to_owned).to_vec()));
    write(&git.join("refs/heads/main"), &format!("{SECOND}\n"));
    assert_eq!(found(root.path()), (short(SECOND), ["HEAD", "main"].map(str::to_owned).to_vec()));
    write(&git.join("HEAD"), FIRST);
    assert_eq!(found(root.path()), (short(FIRST), vec!["HEAD".to_owned()]));
}

#[test]
fn a_linked_work_tree_has_a_commit_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (root, git) = (folder.path().join("linked"), folder.path().join("main/.git"));
    write(&root.join(".git"), &format!("gitdir: {}\n", git.join("worktrees/linked").display()));
    write(&git.join("worktrees/linked/HEAD"), "ref: refs/heads/topic/a\n");
    write(&git.join("worktrees/linked/commondir"), "../..\n");
    write(&git.join("refs/heads/topic/a"), SECOND);
    write(&git.join("HEAD"), FIRST);
    assert_eq!(found(&root), (short(SECOND), ["HEAD", "a"].map(str::to_owned).to_vec()));
}

#[test]
fn sources_without_a_repository_have_no_commit() {
    let outer = tempfile::tempdir().unwrap();
    write(&outer.path().join(".git/HEAD"), FIRST);
    let root = outer.path().join("rmom-0.1.0");
    fs::create_dir(&root).unwrap();
    assert_eq!(found(&root), (None, Vec::new()));
}

#[test]
fn a_package_names_its_commit() {
    let package = tempfile::tempdir().unwrap();
    let found = || packaged(package.path());
    assert_eq!((found().commit, found().files.len()), (None, 0));
    let file = package.path().join(".cargo_vcs_info.json");
    write(&file, &format!("{{\n  \"git\": {{\n    \"sha1\": \"{FIRST}\"\n  }},\n  \"path_in_vcs\": \"bins\"\n}}"));
    assert_eq!((found().commit, found().files), (short(FIRST), vec![file.clone()]));
    for text in ["", "{\"git\": {}}", "{\"git\": {\"sha1\": 5}}", "{\"sha1\": \"main\"}"] {
        write(&file, text);
        assert_eq!(found().commit, None, "{text}");
    }
}

#[test]
fn a_commit_is_hexadecimal_and_shown_short() {
    assert_eq!(short(&FIRST.to_uppercase()).as_deref(), Some("0123456789ab"));
    for text in ["", "main", "0123456789a", "0123456789ab; rm", &"0".repeat(65), "ref: refs/heads/.invalid"] {
        assert_eq!(short(text), None, "{text:?}");
    }
}
