//! A valid configuration with one changed setting.

use std::fmt::Write as _;

use arbitrary::{Result, Unstructured};
use rmom::config::{ConfigError, Environment};

use super::{
    Accepted, PASSWORD, Program, check_error, parse,
    settings::{Takes, belong_together},
};

/// The limits of all ranges, and values around them.
const NUMBERS: [u64; 12] = [0, 1, 10, 300, 600, 65_535, 65_536, 1 << 20, 1 << 31, 1 << 32, 1 << 62, i64::MAX as u64];

/// A value, spelled alike in YAML and TOML unless noted.
enum Value {
    Number(u64),
    Negative,
    Fraction,
    /// Not a number, which both formats spell differently and accept as a number.
    Nan,
    Bool,
    Text(String),
    List,
}

impl Value {
    fn arbitrary(input: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match input.arbitrary::<u8>()? % 8 {
            0 | 1 => Self::Number(NUMBERS[usize::from(input.arbitrary::<u8>()?) % NUMBERS.len()]),
            2 => Self::Negative,
            3 => Self::Fraction,
            4 => Self::Nan,
            5 => Self::Bool,
            6 => Self::List,
            _ => {
                let length = usize::from(input.arbitrary::<u8>()? % 24).min(input.len());
                Self::Text(String::from_utf8_lossy(input.bytes(length)?).into_owned())
            }
        })
    }

    fn written(&self, program: Program) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Negative => "-1".to_owned(),
            Self::Fraction => "1.5".to_owned(),
            Self::Nan if program == Program::Broker => ".nan".to_owned(),
            Self::Nan => "nan".to_owned(),
            Self::Bool => "true".to_owned(),
            Self::Text(text) => quoted(text),
            Self::List => "[]".to_owned(),
        }
    }

    /// True if a setting of kind `takes` must refuse the value, false if it must accept it; `None` if that depends on more.
    fn is_refused_by(&self, takes: Takes) -> Option<bool> {
        match (self, takes) {
            // A text or a list may be valid or not, depending on its meaning and on other settings; NaN may be refused even
            // for an ignored key.
            (Self::Text(_), Takes::Text) | (Self::List, Takes::Section) | (Self::Nan, Takes::Anything) => None,
            (_, Takes::Anything) | (Self::Bool, Takes::Bool) => Some(false),
            // A number within its range may still conflict with another setting.
            (Self::Number(number), Takes::Number(..)) => (!takes.takes_number(*number)).then_some(true),
            _ => Some(true),
        }
    }
}

/// A quoted text, with escapes that both formats know.
fn quoted(text: &str) -> String {
    let escaped = text.chars().fold(String::new(), |mut escaped, c| {
        if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "\\U{:08x}", u32::from(c));
        }
        escaped
    });
    format!("\"{escaped}\"")
}

/// Tries a configuration with one setting that the input chooses, in the file or in the environment, or misspelt.
pub(super) fn try_out(program: Program, input: &mut Unstructured<'_>) -> Result<()> {
    let (path, takes) = program.setting(input.arbitrary()?);
    let how = input.arbitrary::<u8>()?;
    let value = Value::arbitrary(input)?;
    let (mut path, mut environment) = (path, Vec::new());
    let mut refused = value.is_refused_by(takes);
    let mut lines = base(program, how);
    match how % 4 {
        0 | 1 => lines.push((path.clone(), value.written(program))),
        2 => {
            let Value::Number(number) = value else { return Ok(()) };
            environment.push((format!("RMOM_{}", path.replace('.', "__").to_uppercase()), number.to_string()));
            // Settings of another kind may or may not accept a number from the environment.
            refused = refused.filter(|_| matches!(takes, Takes::Number(..)));
        }
        _ => {
            path.insert(path.len() - 1, char::from(b'a' + how % 26));
            if program.knows(&path) {
                return Ok(());
            }
            lines.push((path.clone(), value.written(program)));
            refused = Some(true);
        }
    }
    let text = written(program, &lines);
    match text.find(PASSWORD) {
        // The file ends in the middle of the line with the password.
        Some(at) if how & 32 != 0 => {
            let cut = &text[..at + PASSWORD.len()];
            let error = parse(program, cut, &environment).err().expect("a text without its end is no text");
            check_error(&error);
            assert!(!error.to_string().contains(PASSWORD), "{error}");
        }
        _ => judge(program, &text, &environment, &path, refused),
    }
    Ok(())
}

fn judge(program: Program, text: &str, environment: &Environment, path: &str, refused: Option<bool>) {
    match parse(program, text, environment) {
        Ok(accepted) => {
            assert_ne!(refused, Some(true), "{path} is accepted:\n{text}\n{environment:?}");
            accepted.check(program);
            let Accepted { printed, debug, warnings } = accepted;
            for shown in warnings.iter().chain([&printed, &debug]) {
                assert!(!shown.contains(PASSWORD), "{shown}");
            }
        }
        Err(error) => {
            check_error(&error);
            assert!(!error.to_string().contains(PASSWORD), "{error}");
            assert_ne!(refused, Some(false), "{path} is refused:\n{text}\n{environment:?}\n{error}");
            let ConfigError::Settings { problems, .. } = &error else {
                panic!("{error}\n{text}");
            };
            for problem in problems {
                // A manager's file has a table for each profile.
                let place = problem.place.strip_prefix("default.").unwrap_or(&problem.place);
                let here = place == path || belong_together(path, place);
                // A section of the wrong kind lacks its settings.
                let below = place.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
                assert!(here || below, "{path}: {problem:?}\n{text}");
            }
        }
    }
}

/// The settings that a program requires: the database's address and password.
fn base(program: Program, how: u8) -> Vec<(String, String)> {
    let database = program.database();
    let parts = how & 64 != 0 && program == Program::Broker;
    if parts {
        let part = |key: &str, value: &str| (format!("{database}.{key}"), format!("{value:?}"));
        return vec![part("dbname", "d"), part("password", PASSWORD)];
    }
    let url = format!("postgres://u:{PASSWORD}@h/d?password={PASSWORD}");
    vec![(format!("{database}.url"), format!("{url:?}"))]
}

/// Lines as a file. Later lines replace earlier ones of the same path.
fn written(program: Program, lines: &[(String, String)]) -> String {
    let mut text = String::new();
    match program {
        Program::Manager => {
            text.push_str("[default]\n");
            for (path, value) in lines {
                let _ = writeln!(text, "{path} = {value}");
            }
        }
        Program::Broker => {
            let mut sections: Vec<&str> = Vec::new();
            for (path, value) in lines {
                match path.split_once('.') {
                    None => drop(writeln!(text, "{path}: {value}")),
                    Some((section, _)) if sections.contains(&section) => {}
                    Some((section, _)) => {
                        sections.push(section);
                        let _ = writeln!(text, "{section}:");
                        for (path, value) in lines {
                            if let Some((of, key)) = path.split_once('.')
                                && of == section
                            {
                                let _ = writeln!(text, "  {key}: {value}");
                            }
                        }
                    }
                }
            }
        }
    }
    text
}
