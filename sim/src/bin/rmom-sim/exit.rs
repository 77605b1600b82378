//! Exit codes; `rmom-sim --help` tells them.

use std::process::ExitCode;

use rmom_sim::report::Verdict;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All promises were kept.
    Passed,
    /// Wrong usage, or the program itself failed.
    Error,
    /// A promise of safety was broken.
    Safety,
    /// Something did not proceed in time.
    Liveness,
    /// Something crashed.
    Crashed,
    /// The runs say too little.
    TooLittle,
    /// The user stopped it.
    Interrupted,
}

impl Exit {
    /// How a single run ends. That it was vacuous is no failure: only many such runs are.
    pub(crate) fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Passed | Verdict::Vacuous(_) => Self::Passed,
            Verdict::Safety => Self::Safety,
            Verdict::Liveness => Self::Liveness,
            Verdict::Crashed(_) => Self::Crashed,
        }
    }

    /// The exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Error => 1,
            Self::Safety => 2,
            Self::Liveness => 3,
            Self::Crashed => 4,
            Self::TooLittle => 5,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
