//! Identifies the build.

/// The commit from which this was built, with the suffix `-dirty` if files had changed since; `unknown` outside of a
/// repository. A seed determines a run only for one state of the sources.
#[must_use]
pub fn commit() -> &'static str {
    match env!("RMOM_COMMIT") {
        "" => "unknown",
        commit => commit,
    }
}
