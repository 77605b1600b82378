//! The configuration files of both programs and the environment over them: whatever they hold, an error names the key,
//! never a password; and what is accepted is accepted again as it is printed.

mod one_change;
pub mod seeds;
mod settings;

use std::path::Path;

use arbitrary::{Result, Unstructured};
use rmom::config::{BrokerConfig, ConfigError, Environment, Loaded, ManagerConfig};

/// The name that errors give to the file.
const FILE: &str = "file";
/// A password, which nobody is ever shown.
const PASSWORD: &str = "Xyzzy-7";

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Broker,
    Manager,
}

/// One input: a byte says of which kind.
///
/// # Panics
/// If it found something.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // An input that is too short says nothing.
    let _ = act(&mut input);
}

fn act(input: &mut Unstructured<'_>) -> Result<()> {
    let kind = input.arbitrary::<u8>()?;
    let program = if kind & 1 == 0 { Program::Broker } else { Program::Manager };
    if kind & 2 == 0 {
        any_text(program, input.bytes(input.len())?);
        Ok(())
    } else {
        one_change::try_out(program, input)
    }
}

/// A file, and after each zero byte a variable: `NAME=VALUE`.
fn any_text(program: Program, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let variables = parts.filter_map(|part| part.split_once('='));
    let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    match parse(program, file, &environment) {
        Ok(accepted) => accepted.check(program),
        Err(error) => check_error(&error),
    }
}

/// What an accepted file comes to.
struct Accepted {
    printed: String,
    debug: String,
    warnings: Vec<String>,
}

fn parse(program: Program, text: &str, environment: &Environment) -> std::result::Result<Accepted, ConfigError> {
    let file = Path::new(FILE);
    Ok(match program {
        Program::Broker => {
            let Loaded { config, warnings } = BrokerConfig::parse(file, text, environment)?;
            let settings = config.settings(1);
            assert!(settings.store_timeout < settings.lease, "{settings:?}");
            Accepted { printed: config.to_yaml(), debug: format!("{config:?}"), warnings }
        }
        Program::Manager => {
            let Loaded { config, warnings } = ManagerConfig::parse(file, text, None, environment)?;
            let settings = config.settings();
            assert!(settings.store_timeout < settings.lease, "{settings:?}");
            Accepted { printed: config.to_toml(), debug: format!("{config:?}"), warnings }
        }
    })
}

impl Accepted {
    /// As it is printed it is accepted, without a warning, and printed alike.
    fn check(&self, program: Program) {
        let again = parse(program, &self.printed, &Vec::new());
        let again = again.unwrap_or_else(|error| panic!("{error}\n{}", self.printed));
        assert_eq!(again.printed, self.printed);
        assert_eq!(again.warnings, Vec::<String>::new(), "{}", self.printed);
    }
}

fn check_error(error: &ConfigError) {
    assert!(error.to_string().starts_with(FILE), "{error}");
    if let ConfigError::Settings { problems, .. } = error {
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(!problem.reason.is_empty(), "{problem:?}");
        }
    }
}
