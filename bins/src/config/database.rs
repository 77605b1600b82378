//! The store's database.

use std::{
    borrow::Cow,
    fmt,
    fmt::Write as _,
    net::Ipv6Addr,
    path::{Path, PathBuf},
};

use rmom_net::store::{OpenError, PostgresOptions};
use serde::{Serialize, Serializer};

use super::{
    Secret, beside,
    table::{About, Limits, settings},
    tree::Section,
};

const URL: About = About {
    key: "url",
    unit: "text",
    meaning: "The database. The path of an SQLite file is relative to the configuration file.",
};

/// The database and the login.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `postgres://` or `postgresql://`.
    Postgres(Secret),
    /// `sqlite:PATH`: a file, for one process alone.
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// The expected form; never the URL itself, since it may contain a password.
    pub fn parse(url: &str) -> Result<Self, Cow<'static, str>> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err("expected sqlite:PATH".into()) } else { Ok(Self::Sqlite(path.into())) };
        }
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        match rest {
            Some(rest) if !rest.is_empty() => match PostgresOptions::check_url(url) {
                Ok(()) => Ok(Self::Postgres(Secret::new(url))),
                Err(OpenError::BadUrl { reason }) => Err(reason.into()),
                Err(other) => Err(other.to_string().into()),
            },
            _ => Err("expected postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:PATH".into()),
        }
    }

    /// The URL without its password, for output.
    #[must_use]
    pub fn redacted(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(url) => redact(url.reveal()),
        }
    }
}

/// Hides the text between `user:` and the last `@` before the path, and any `password=` in the query.
fn redact(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // A password that is not percent-encoded may contain any character, so the last `@` of all counts.
    let mut shown = match rest.rsplit_once('@') {
        None => format!("{scheme}://{rest}"),
        Some((login, place)) => match login.split_once(':') {
            None => format!("{scheme}://{login}@{place}"),
            Some((user, _)) => format!("{scheme}://{user}:{}@{place}", Secret::SHOWN),
        },
    };
    for (index, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
        let separator = if index == 0 { '?' } else { '&' };
        let _ = match name {
            "password" => write!(shown, "{separator}password={}", Secret::SHOWN),
            _ => write!(shown, "{separator}{pair}"),
        };
    }
    shown
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

settings! {
    /// The section `database` of a broker, or `databases.rmom_manager` of a manager.
    #[derive(PartialEq, Eq)]
    pub struct DatabaseConfig = read_rest(section, given: Option<DatabaseUrl>);

    == "Database"
    max_connections: u32 ["number"] = 10, 1..=1_000 =>
        "Connections to the database at once; clients' connections have `max_connections`. Two more are open for the lease.";
    min_connections: u32 ["number"] = 2.min(max_connections),
        Limits::from(0..=1_000).says("0, `max_connections`") => "Connections that stay open.";
    idle_timeout: u64 ["s"] = 120, 0..=86_400 =>
        "How long a connection beyond `min_connections` may be idle before it is closed; 0 means unlimited.";
    connect_timeout: u64 ["s"] = 5, 1..=300 =>
        "How long opening a connection may take; a call waits for `store_timeout_millis` at most.";
    migrate: bool ["yes/no"] = true, "" =>
        "Whether to create and update the tables at start. Otherwise another process must.";
    allow_unsafe_durability: bool ["yes/no"] = false, "" =>
        "Whether to start on a database that may lose what it confirmed (`fsync=off`, `synchronous_commit=off`).";

    + parts
    /// The database and the login.
    url: DatabaseUrl = given.unwrap_or_else(|| DatabaseUrl::Sqlite(PathBuf::new()));
}

impl DatabaseConfig {
    /// Reads a section that has `url` or, like the original's brokers, `host`, `port`, `user`, `password` and `dbname`.
    pub(super) fn read(mut section: Section<'_>, file: &Path, parts_allowed: bool) -> Self {
        section.heading("Database");
        section.note::<Secret>(URL, "`postgres://…`, `sqlite:PATH`", "none".into());
        let url = if section.has("url") || !parts_allowed {
            let from_environment = section.is_overridden("url");
            let url = Self::read_url(&mut section, file);
            if parts_allowed {
                for part in ["host", "port", "user", "password", "dbname"] {
                    // A URL from the environment overrides the file, whether that has a URL or its parts.
                    if section.has(part) && (!from_environment || section.is_overridden(part)) {
                        section.problem(part, "contradicts url; give one or the other");
                    }
                    section.skip(part);
                }
            }
            url
        } else {
            Self::read_parts(&mut section)
        };
        // After a reported problem the configuration is not used, but its other keys are still checked.
        let config = Self::read_rest(&mut section, url);
        let (least, most) = (config.min_connections, config.max_connections);
        if least > most {
            section.problem("min_connections", format!("found {least}; max_connections is {most}"));
        }
        section.finish();
        config
    }

    fn read_url(section: &mut Section<'_>, file: &Path) -> Option<DatabaseUrl> {
        if !section.has("url") {
            section.skip("url");
            section.problem("url", "missing; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:PATH");
            return None;
        }
        let url: Secret = section.value("url")?;
        match DatabaseUrl::parse(url.reveal()) {
            Ok(DatabaseUrl::Sqlite(path)) => Some(DatabaseUrl::Sqlite(beside(file, &path))),
            Ok(url) => Some(url),
            Err(reason) => {
                section.problem("url", reason);
                None
            }
        }
    }

    fn read_parts(section: &mut Section<'_>) -> Option<DatabaseUrl> {
        section.skip("url");
        section.heading("Instead of `url`");
        let text = |key, meaning| About { key, unit: "text", meaning };
        let host = text("host", "A name, an IP address, or the directory of a Unix socket.");
        let host: String = section.setting(host, "127.0.0.1".to_owned(), "one host".into());
        let port = About { key: "port", unit: "number", meaning: "" };
        let port = section.setting(port, 5432, (0..=u16::MAX).into());
        let user: String = section.setting(text("user", ""), "postgres".to_owned(), "".into());
        let password: Option<Secret> = section.optional(text("password", "Not percent-encoded."), "");
        let given = section.has("dbname");
        let name: Option<String> = section.optional(text("dbname", "Required without `url`."), "");
        if !given {
            section.problem("dbname", "missing; name the database, or give url: sqlite:PATH");
        }
        let mut url = format!("postgres://{}", encode(&user));
        if let Some(password) = password {
            let _ = write!(url, ":{}", encode(password.reveal()));
        }
        let Some(authority) = host_in_url(&host) else {
            let reason = format!("found {host:?}; give a name, an IP address, or the directory of a Unix socket");
            section.problem("host", reason);
            return None;
        };
        let _ = write!(url, "@{authority}:{port}/{}", encode(&name?));
        match DatabaseUrl::parse(&url) {
            Ok(url) => Some(url),
            Err(reason) => {
                section.problem("host", reason);
                None
            }
        }
    }
}

/// A host as written in a URL, or `None` if a URL would not take it for a single host.
fn host_in_url(host: &str) -> Option<String> {
    if host.starts_with('/') {
        return Some(encode(host)); // the directory of a Unix socket
    }
    if host.contains(':') {
        return host.parse::<Ipv6Addr>().ok().map(|address| format!("[{address}]"));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!host.is_empty() && host.bytes().all(fits)).then(|| host.to_owned())
}

/// Percent-encodes everything except letters and digits.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                write!(encoded, "{}", char::from(byte))
            }
            _ => write!(encoded, "%{byte:02X}"),
        };
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_wherever_they_stand() {
        let shown = |url: &str| DatabaseUrl::parse(url).unwrap().redacted();
        assert_eq!(shown("postgres://u:p@h:1/d"), "postgres://u:(hidden)@h:1/d");
        assert_eq!(shown("postgresql://u:p@x@y:z@h/d?sslmode=require"), "postgresql://u:(hidden)@h/d?sslmode=require");
        assert_eq!(shown("postgres://h/d?user=u&password=p"), "postgres://h/d?user=u&password=(hidden)");
        assert_eq!(shown("postgres://u@h/d"), "postgres://u@h/d");
        assert_eq!(shown("sqlite:a/b.db"), "sqlite:a/b.db");
        assert_eq!(format!("{:?}", DatabaseUrl::parse("postgres://u:p@h/d").unwrap()), "postgres://u:(hidden)@h/d");
    }

    #[test]
    fn other_urls_are_refused() {
        for url in ["", "mysql://x", "postgres://", "sqlite:", "/tmp/x.db"] {
            assert!(DatabaseUrl::parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn what_would_choose_among_servers_is_refused() {
        for (url, says) in [
            ("postgres://u:p@a,b/d", "several hosts are not supported"),
            ("postgres://h/d?target_session_attrs=read-write", "target_session_attrs is not supported"),
        ] {
            let reason = DatabaseUrl::parse(url).unwrap_err();
            assert!(reason.contains(says) && !reason.contains("u:p"), "{reason}");
        }
    }

    #[test]
    fn a_host_is_one_host() {
        for (host, in_url) in [
            ("db-1.example", "db-1.example"),
            ("10.0.0.7", "10.0.0.7"),
            ("::1", "[::1]"),
            ("/run/postgresql", "%2Frun%2Fpostgresql"),
        ] {
            assert_eq!(host_in_url(host).as_deref(), Some(in_url));
        }
        for host in ["", "db:5432", "a,b", "u:p@db", "db/other", "db?host=x", "[::1]", "d b"] {
            assert_eq!(host_in_url(host), None, "{host:?}");
        }
    }

    #[test]
    fn awkward_passwords_survive_encoding() {
        assert_eq!(encode("p@:/?#% ü"), "p%40%3A%2F%3F%23%25%20%C3%BC");
    }
}
