//! Exit codes, as listed by `rmom-sim --help`.

use std::process::ExitCode;

use rmom_sim_lab::report::Verdict;

/// The result of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All promises were kept.
    Passed,
    /// Wrong usage, or the program itself failed.
    Error,
    /// A safety promise was broken.
    Safety,
    /// Progress was not made in time.
    Liveness,
    /// A run crashed.
    Crashed,
    /// The runs prove too little.
    TooLittle,
    /// The user stopped it.
    Interrupted,
}

impl Exit {
    /// The result of a single run. A vacuous run alone is not a failure: only too many of them are.
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
