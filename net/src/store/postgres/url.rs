//! The URL of a database: which ones mean something else here than they say.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use crate::store::OpenError;

/// Parameters of libpq that choose among servers. sqlx ignores them, and would connect to whatever answers.
const CHOOSE_A_SERVER: [&str; 2] = ["target_session_attrs", "load_balance_hosts"];

/// Reads a URL, and refuses what would be ignored although the data depend on it.
pub(super) fn parse(url: &str) -> Result<PgConnectOptions, OpenError> {
    let refused = |reason: String| Err(OpenError::BadUrl { reason });
    let (rest, query) = url.split_once('?').unwrap_or((url, ""));
    for pair in query.split('&') {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if CHOOSE_A_SERVER.contains(&name) {
            return refused(format!(
                "{name} is not supported: take it out; only a server that can be written is ever used, so one name that \
                 leads to the primary does"
            ));
        }
    }
    let place = rest.split_once("://").map_or(rest, |(_, place)| place);
    // The password may hold the `/`. Then another host is meant than the one that would be read, and the password would be
    // shown as the name of a database.
    if place.find(['/', '#']).is_some_and(|end| place[end..].contains('@')) {
        return refused(AT_SIGN.into());
    }
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let host = place.split_once('/').map_or(place, |(host, _)| host);
    if host.contains(',') {
        return refused(SEVERAL.into());
    }
    let options = PgConnectOptions::from_str(url).map_err(|error| OpenError::BadUrl { reason: error.to_string() })?;
    // As a parameter, or in the environment (PGHOST).
    if options.get_host().contains(',') {
        return refused(SEVERAL.into());
    }
    Ok(options)
}

const AT_SIGN: &str = "there is an @ after the first / or #: write the characters of a name or password in their percent-encoded \
                       form (@ is %40, / is %2F, # is %23)";

const SEVERAL: &str = "several hosts are not supported: name one, which leads to the primary (a virtual address, a proxy \
                       that checks which server can be written, or a DNS name that follows the primary)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_ignored_is_refused() {
        let refused = |url: &str| match parse(url) {
            Err(OpenError::BadUrl { reason }) => reason,
            other => panic!("{url}: {other:?}"),
        };
        for url in [
            "postgres://u:p@a,b/d",
            "postgres://u:p@a:1,b:2/d",
            "postgres://a,b/d?sslmode=require",
            "postgres:///d?host=a,b",
            "postgres:///d?hostaddr=127.0.0.1,127.0.0.2",
        ] {
            let reason = refused(url);
            assert!(!reason.contains("u:p"), "{reason}");
            assert!(reason.contains("several hosts") || url.contains("hostaddr"), "{url}: {reason}");
        }
        for value in ["any", "read-write", "primary", "prefer-standby"] {
            let reason = refused(&format!("postgres://u:p@h/d?sslmode=require&target_session_attrs={value}"));
            assert!(reason.contains("target_session_attrs") && reason.contains("take it out"), "{reason}");
        }
    }

    #[test]
    fn a_password_is_not_taken_for_a_host_and_a_database() {
        for url in ["postgres://user:12/34@host/db", "postgres://user:12#34@host/db", "postgres://u:p@h/d@"] {
            match parse(url) {
                Err(OpenError::BadUrl { reason }) => {
                    assert!(reason.contains("%2F") && !reason.contains("34"), "{reason}");
                }
                other => panic!("{url}: {other:?}"),
            }
        }
        for url in
            ["postgres://user:12%2F34@host/db", "postgres://u:p@h/d%40", "postgres://u:p@h/d?application_name=a@b"]
        {
            assert!(parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_meant_is_read() {
        for url in
            ["postgres://u:p,q@h:1/d", "postgres:///d?host=/run/postgresql", "postgres://u@h/a,b?sslmode=disable"]
        {
            assert!(parse(url).is_ok(), "{url}");
        }
    }
}
