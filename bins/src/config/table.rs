//! The tables of settings. A row has the key, the type, the unit, the default, the limits and the meaning of one setting; it
//! makes the field of the configuration, the reading, the variable of the environment, and the row in
//! docs/configuration.md, which a test compares.

use std::{borrow::Cow, ops::RangeInclusive};

use super::{PREFIX, tree::Setting};

/// A setting as docs/configuration.md shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The heading of its table.
    pub heading: &'static str,
    /// The path of its key, such as `database.port`.
    pub path: String,
    /// Its unit, or its type.
    pub unit: &'static str,
    /// Its default.
    pub default: Cow<'static, str>,
    /// The values that it takes.
    pub limits: Cow<'static, str>,
    /// What it does.
    pub meaning: &'static str,
}

impl Row {
    /// The environment variable that overrides the file.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.to_uppercase().replace('.', "__"))
    }
}

/// The parts of a row that do not depend on its type.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub(super) key: &'static str,
    pub(super) unit: &'static str,
    pub(super) meaning: &'static str,
}

/// The values that a setting takes, and what the documents say about them and about its default.
pub(super) struct Limits<T> {
    pub(super) range: Option<RangeInclusive<T>>,
    pub(super) says: Cow<'static, str>,
    pub(super) default_says: Option<&'static str>,
}

impl<T> Limits<T> {
    /// What the documents say, if the range does not say it all.
    pub(super) fn says(self, says: &'static str) -> Self {
        Self { says: says.into(), ..self }
    }

    /// The text that the documents have in place of the value of the default.
    pub(super) fn default_says(self, says: &'static str) -> Self {
        Self { default_says: Some(says), ..self }
    }
}

impl<T: Setting> From<RangeInclusive<T>> for Limits<T> {
    fn from(range: RangeInclusive<T>) -> Self {
        let says = format!("{}, {}", range.start().shown(), range.end().shown()).into();
        Self { range: Some(range), says, default_says: None }
    }
}

impl<T> From<&'static str> for Limits<T> {
    /// For values that the type limits, or a check of its own.
    fn from(says: &'static str) -> Self {
        Self { range: None, says: says.into(), default_says: None }
    }
}

/// Declares a configuration by its settings, one row for each:
///
/// ```text
/// == "Heading of the table"
/// key: type ["unit"] = default, limits => "Meaning.";
/// ```
///
/// A default may use the values of the rows before it. Parts that have tables of their own follow below `+ parts`.
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        pub struct $Config:ident = $read:ident($section:ident $(, $argument:ident: $Argument:ty)*);
        $(
            $(== $heading:literal)?
            $key:ident: $type:ty [$unit:literal] = $default:expr, $limits:expr => $meaning:literal;
        )*
        $(
            + parts
            $( $(#[$part_attribute:meta])* $part:ident: $Part:ty = $value:expr; )*
        )?
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, serde::Serialize)]
        pub struct $Config {
            $( #[doc = $meaning] pub $key: $type, )*
            $($( $(#[$part_attribute])* pub $part: $Part, )*)?
        }

        impl $Config {
            fn $read($section: &mut $crate::config::tree::Section<'_> $(, $argument: $Argument)*) -> Self {
                $(
                    $( $section.heading($heading); )?
                    let about =
                        $crate::config::table::About { key: stringify!($key), unit: $unit, meaning: $meaning };
                    let limits = $crate::config::table::Limits::<$type>::from($limits);
                    let $key: $type = $section.setting(about, $default, limits);
                )*
                $($( let $part: $Part = $value; )*)?
                Self { $($key,)* $($($part,)*)? }
            }
        }
    };
}

pub(super) use settings;
