//! A failure in a few lines.

use super::promise;
use crate::{
    check::Violation,
    report::{Verdict, commit},
};

/// The number of violations described; a replay shows all.
const SHOWN_VIOLATIONS: usize = 3;

/// The description of a failure: first what failed and at which commit, last the command that replays it.
#[must_use]
pub fn failure(what: &str, verdict: &Verdict, violations: &[Violation], replay: &str) -> Vec<String> {
    let mut lines = vec![match verdict {
        Verdict::Crashed(why) => format!("{what} crashed at commit {}: {why}", commit()),
        _ => format!("{what} failed at commit {}", commit()),
    }];
    for violation in violations.iter().take(SHOWN_VIOLATIONS) {
        lines.push(format!("  {} is broken: {}", promise(violation.promise), violation.what));
    }
    match violations.len().saturating_sub(SHOWN_VIOLATIONS) {
        0 => {}
        1 => lines.push("  … and 1 more violation".to_owned()),
        more => lines.push(format!("  … and {more} more violations")),
    }
    lines.push(format!("  replay it: {replay}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Promise;

    #[test]
    fn a_failure_has_its_cause_and_the_replay_command() {
        let crashed = failure("seed 17", &Verdict::Crashed("signal 6".into()), &[], "replay 17");
        assert_eq!(
            crashed,
            [format!("seed 17 crashed at commit {}: signal 6", commit()), "  replay it: replay 17".into()]
        );

        let violation = Violation { promise: Promise::NoLoss, what: "it is gone".into(), records: Vec::new() };
        let lost = failure("it", &Verdict::Safety, &vec![violation; 5], "replay");
        assert_eq!(lost[1], "  promise 2 (no loss) is broken: it is gone");
        assert_eq!(lost[4], "  … and 2 more violations");
        assert_eq!(lost.len(), 6);
    }
}
