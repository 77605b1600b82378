//! `rmom-sim bugs`: planted bugs, and who finds them.

use crate::{args::BugsArgs, error::Error, exit::Exit};

pub(crate) fn run(_args: &BugsArgs) -> Result<Exit, Error> {
    Err(Error::Usage("this build has no catalogue of bugs".into()))
}
