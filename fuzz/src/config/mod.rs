//! The configuration files of both programs, with the environment over them. For any content, an error names the key but
//! never a password; and an accepted configuration is accepted again in its printed form.

mod one_change;
pub mod seeds;
mod settings;

use std::path::Path;

use arbitrary::{Result, Unstructured};
use rmom::config::{BrokerConfig, ConfigError, Environment, Loaded, ManagerConfig};

/// The name that errors give to the file.
const FILE: &str = "file";
/// A password, which no output may contain.
const PASSWORD: &str = "Xyzzy-7";

/// The program that the configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Broker,
    Manager,
}

/// Runs one input, whose first byte selects the kind.
///
/// # Panics
/// If it finds a bug.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // An input that is too short does nothing.
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

/// The text of a file, then variables as `NAME=VALUE`, each after a zero byte.
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

/// The result of an accepted file.
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
    /// The printed form is accepted without a warning, and is printed the same.
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
