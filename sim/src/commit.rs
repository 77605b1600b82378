//! Which build this is.

/// The commit that this was built from, with `-dirty` behind it if files had changed since; `unknown` outside of a repository.
/// A seed says what happens in one state of the sources only.
#[must_use]
pub fn commit() -> &'static str {
    match env!("RMOM_COMMIT") {
        "" => "unknown",
        commit => commit,
    }
}
