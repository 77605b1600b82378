//! Reads settings from a parsed file, and reports all mistakes at once, each with its place.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    ConfigError, Problem, Secret,
    table::{About, Limits, Row},
};

/// Least similarity at which a known key is suggested for a mistyped one.
const SIMILAR: f64 = 0.7;

/// A setting that an environment variable overrides.
#[derive(Clone, Debug)]
struct Override {
    variable: String,
    text: String,
}

/// A configuration while it is read: the file, the environment that overrides it, and the problems found so far.
pub(super) struct Reader {
    file: PathBuf,
    overrides: RefCell<BTreeMap<String, Override>>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
    /// The settings that were asked for so far, for the documents.
    rows: RefCell<Vec<Row>>,
    heading: Cell<&'static str>,
}

impl Reader {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            overrides: RefCell::default(),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            rows: RefCell::default(),
            heading: Cell::default(),
        }
    }

    /// The rows of all settings that were asked for.
    pub(super) fn rows(self) -> Vec<Row> {
        self.rows.into_inner()
    }

    /// Lets a variable override the setting at `path` (`database.host`); a later call for the same path replaces an earlier
    /// one.
    pub(super) fn override_with(&self, path: String, variable: &str, text: &str) {
        let variable = variable.to_owned();
        self.overrides.borrow_mut().insert(path, Override { variable, text: text.to_owned() });
    }

    /// Changes the beginning of overrides' paths from `from` to `to`, so that one name serves both programs.
    pub(super) fn rename_overrides(&self, from: &str, to: &str) {
        let mut overrides = self.overrides.borrow_mut();
        let renamed: Vec<_> = overrides
            .extract_if(.., |path, _| path.starts_with(from))
            .map(|(path, value)| (format!("{to}{}", &path[from.len()..]), value))
            .collect();
        overrides.extend(renamed);
    }

    pub(super) fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    pub(super) fn problem(&self, place: impl Into<String>, reason: impl Display) {
        self.problems.borrow_mut().push(Problem { place: place.into(), reason: reason.to_string() });
    }

    /// The root section, with an empty path or (for profiles) a name that appears only in messages.
    pub(super) fn section(&self, path: &str, map: Map<String, Value>) -> Section<'_> {
        Section { reader: self, path: path.to_owned(), map, known: Vec::new() }
    }

    /// The warnings, if there were no problems.
    pub(super) fn finish(self) -> Result<Vec<String>, ConfigError> {
        let mut warnings = self.warnings.into_inner();
        for Override { variable, .. } in self.overrides.into_inner().into_values() {
            warnings.push(format!("the environment variable {variable} names no setting of this program; ignored"));
        }
        let problems = self.problems.into_inner();
        if problems.is_empty() { Ok(warnings) } else { Err(ConfigError::Settings { file: self.file, problems }) }
    }
}

/// A group of settings. Each is taken out by name; [`Section::finish`] reports those that are left.
pub(super) struct Section<'r> {
    reader: &'r Reader,
    path: String,
    map: Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'r> Section<'r> {
    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take_override(&self, key: &str) -> Option<Override> {
        self.reader.overrides.borrow_mut().remove(&self.path_of(key))
    }

    /// The value of `key` from the environment, otherwise from the file.
    pub(super) fn value<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        self.known.push(key);
        let in_file = self.map.remove(key).filter(|value| !value.is_null());
        if let Some(Override { variable, text }) = self.take_override(key) {
            let parsed = T::from_text(&text);
            if parsed.is_none() {
                let found = if T::SECRET { "something else" } else { &format!("{text:?}") };
                self.reader.problem(
                    self.path_of(key),
                    format!("the environment variable {variable} is {found}, expected {}", T::EXPECTED),
                );
            }
            return parsed;
        }
        let value = in_file?;
        let parsed = T::from_value(&value);
        if parsed.is_none() {
            let reason = format!("found {}, expected {}", describe(&value, T::SECRET), T::EXPECTED);
            self.reader.problem(self.path_of(key), reason);
        }
        parsed
    }

    /// The settings that follow are in the documents' table below this heading.
    pub(super) fn heading(&self, heading: &'static str) {
        self.reader.heading.set(heading);
    }

    /// Adds a row to the documents' tables.
    pub(super) fn note<T: Setting>(&self, about: About, limits: impl Into<Limits<T>>, default: Cow<'static, str>) {
        let About { key, unit, meaning } = about;
        let heading = self.reader.heading.get();
        let limits = limits.into().says;
        self.reader.rows.borrow_mut().push(Row { heading, path: self.path_of(key), unit, default, limits, meaning });
    }

    /// A setting of the tables: its value, or its default.
    pub(super) fn setting<T: Setting>(&mut self, about: About, default: T, limits: Limits<T>) -> T {
        let shown = limits.default_says.map_or_else(|| format!("`{}`", default.shown()).into(), Cow::Borrowed);
        let range = limits.range.clone();
        self.note::<T>(about, limits, shown);
        match range {
            Some(range) => self.number(about.key, default, range),
            None => self.value(about.key).unwrap_or(default),
        }
    }

    /// A setting of the tables that has no default.
    pub(super) fn optional<T: Setting>(&mut self, about: About, limits: &'static str) -> Option<T> {
        self.note::<T>(about, limits, "none".into());
        self.value(about.key)
    }

    /// A value that has to lie in a range.
    pub(super) fn number<T: Setting>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T {
        let Some(number) = self.value::<T>(key) else { return default };
        if range.contains(&number) {
            return number;
        }
        let (number, first, last) = (number.shown(), range.start().shown(), range.end().shown());
        self.problem(key, format!("found {number}, expected {first} to {last}"));
        default
    }

    /// Accepts a key of the original's that has no meaning here.
    pub(super) fn ignore(&mut self, key: &'static str) {
        self.known.push(key);
        let in_environment = self.take_override(key).is_some();
        if self.map.remove(key).is_some() || in_environment {
            self.reader.warn(format!("{}: has no meaning in rmom; ignored", self.path_of(key)));
        }
    }

    /// Accepts `key` without reading it.
    pub(super) fn skip(&mut self, key: &'static str) {
        self.known.push(key);
        self.map.remove(key);
        self.take_override(key);
    }

    /// True if an environment variable sets `key`.
    pub(super) fn is_overridden(&self, key: &str) -> bool {
        self.reader.overrides.borrow().contains_key(&self.path_of(key))
    }

    /// True if `key` is set and not taken yet. `key` must not be a section.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null()) || self.is_overridden(key)
    }

    /// The section `key`, which is empty if absent.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'r> {
        self.known.push(key);
        let path = self.path_of(key);
        let map = match self.map.remove(key) {
            Some(Value::Object(map)) => map,
            None | Some(Value::Null) => Map::new(),
            Some(other) => {
                self.reader.problem(path.clone(), format!("found {}, expected a section", describe(&other, true)));
                Map::new()
            }
        };
        self.reader.section(&path, map)
    }

    /// Reports a problem with the value of `key`.
    pub(super) fn problem(&self, key: &str, reason: impl Display) {
        self.reader.problem(self.path_of(key), reason);
    }

    /// Reports every key that was not taken.
    pub(super) fn finish(self) {
        for key in self.map.keys() {
            let nearest = nearest(key, &self.known);
            let hint = nearest.map_or_else(
                || format!("known here: {}", self.known.join(", ")),
                |known| format!("did you mean {}?", self.path_of(known)),
            );
            self.reader.problem(self.path_of(key), format!("there is no such setting; {hint}"));
        }
    }
}

/// The known name most similar to `name`, if one is similar enough.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.to_lowercase();
    known
        .iter()
        .map(|known| (strsim::jaro_winkler(&name, known), *known))
        .filter(|&(similarity, _)| similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// A value as shown in messages; for `secret` ones only the kind.
fn describe(value: &Value, secret: bool) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a section".to_owned(),
        Value::Bool(_) if secret => "a yes/no value".to_owned(),
        Value::Number(_) if secret => "a number without quotes".to_owned(),
        Value::String(_) if secret => "a text".to_owned(),
        Value::Bool(value) => format!("the yes/no value {value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {text:?}"),
    }
}

/// A type for the value of a setting.
pub(super) trait Setting: Clone + PartialOrd {
    /// The expected value, for error messages.
    const EXPECTED: &'static str;
    /// True if error messages must not show the value.
    const SECRET: bool = false;

    /// The value in messages and documents.
    fn shown(&self) -> String;

    /// From a file.
    fn from_value(value: &Value) -> Option<Self>;

    /// From an environment variable.
    fn from_text(text: &str) -> Option<Self>;
}

macro_rules! whole_numbers {
    ($($type:ty: $expected:literal),*) => {
        $(impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn shown(&self) -> String {
                self.to_string()
            }

            fn from_value(value: &Value) -> Option<Self> {
                value.as_u64()?.try_into().ok()
            }

            fn from_text(text: &str) -> Option<Self> {
                text.trim().parse().ok()
            }
        })*
    };
}

whole_numbers! {
    u16: "a whole number from 0 to 65535",
    u32: "a whole number from 0 to 4294967295",
    u64: "a whole number, 0 or more",
    usize: "a whole number, 0 or more"
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn shown(&self) -> String {
        self.to_string()
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn from_text(text: &str) -> Option<Self> {
        match text.trim().to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        }
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a text";

    fn shown(&self) -> String {
        self.clone()
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "the path of a file";

    fn shown(&self) -> String {
        self.display().to_string()
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().and_then(Self::from_text)
    }

    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }
}

impl Setting for Secret {
    const EXPECTED: &'static str = "a text in quotes";
    const SECRET: bool = true;

    fn shown(&self) -> String {
        Self::SHOWN.to_owned()
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(Self::new)
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(Self::new(text))
    }
}
