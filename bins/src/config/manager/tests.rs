use super::*;

const ORIGINAL: &str = include_str!("../../../../deploy/examples/Rocket.toml");

fn parse(text: &str, profile: Option<&str>, environment: &[(&str, &str)]) -> Result<Loaded<ManagerConfig>, String> {
    let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    ManagerConfig::parse(Path::new("m.toml"), text, profile, &environment).map_err(|error| error.to_string())
}

#[test]
fn the_originals_file_is_accepted_as_it_is() {
    let Loaded { config, warnings } = parse(ORIGINAL, None, &[]).unwrap();
    let ignored =
        ["workers", "max_blocking", "keep_alive"].map(|key| format!("{key}: has no meaning in rmom; ignored"));
    assert_eq!(warnings, ignored);
    assert_eq!((config.address.as_str(), config.port, config.manager_cycle_millis), ("127.0.0.1", 8082, 5_000));
    assert_eq!((config.life_probe_retry_delay_millis, config.life_probe_max_retries), (33, 3));
    let moms: Vec<String> = config.moms.iter().map(ToString::to_string).collect();
    assert_eq!(moms, ["127.0.0.1:50051", "127.0.0.2:50051", "127.0.0.3:50051", "127.0.0.4:50051"]);
    let database = &config.databases.rmom_manager;
    assert_eq!((database.min_connections, database.max_connections), (3, 5));
    assert_eq!((database.idle_timeout, database.connect_timeout), (120, 7));
    let super::super::DatabaseUrl::Postgres(url) = &database.url else { panic!("expected PostgreSQL") };
    assert_eq!(url.reveal(), "postgresql://postgres:secret@127.0.0.1:5432/rmom_manager");
}

#[test]
fn defaults_are_those_of_the_core() {
    let config = parse("[default.databases.rmom_manager]\nurl = 'sqlite:x.db'", None, &[]).unwrap().config;
    assert_eq!(format!("{:?}", config.settings()), format!("{:?}", ManagerSettings::default()));
}

/// Finds settings of the core that a file cannot set, or sets without effect.
#[test]
fn each_setting_of_the_core_can_be_set() {
    let text = "[default]\nmoms = [{host='a', port=1}]\nmanager_cycle_millis = 11\n\
                life_probe_retry_delay_millis = 12\nlife_probe_max_retries = 13\nlife_probe_timeout_millis = 14\n\
                lease_millis = 315\nstore_timeout_millis = 116\nadmin_timeout_millis = 117\n\
                create_timeout_millis = 118\nmax_admin_calls = 19\nrebalance = false\nrebalance_after_secs = 20\n\
                rebalance_tolerance = 21\nrebalance_moves_per_cycle = 22\ndrain_moves_per_cycle = 23\n\
                max_moves_per_cycle = 24\nnudge_timeout_millis = 25\ndescribe_timeout_millis = 26\n\
                max_concurrent_probes = 27\nmax_concurrent_nudges = 28\nmax_pending_nudges = 29\n\
                [default.databases.rmom_manager]\nurl = 'sqlite:x.db'";
    let millis = Duration::from_millis;
    let expected = ManagerSettings {
        moms: vec![BrokerAddr { host: "a".to_owned(), port: 1 }],
        cycle: millis(11),
        life_probe_retry_delay: millis(12),
        life_probe_max_retries: 13,
        probe_deadline: millis(14),
        lease: millis(315),
        store_timeout: millis(116),
        admin_deadline: millis(117),
        create_deadline: millis(118),
        max_admin_calls: 19,
        rebalance: false,
        rebalance_after: Duration::from_secs(20),
        rebalance_tolerance: 21,
        rebalance_moves_per_cycle: 22,
        drain_moves_per_cycle: 23,
        max_moves_per_cycle: 24,
        nudge_deadline: millis(25),
        describe_deadline: millis(26),
        max_concurrent_probes: 27,
        max_concurrent_nudges: 28,
        max_pending_nudges: 29,
        purge_batches: 30,
    };
    let config = parse(text, None, &[("RMOM_PURGE_BATCHES", "30")]).unwrap().config;
    assert_eq!(format!("{:?}", config.settings()), format!("{expected:?}"));
}

#[test]
fn the_flag_chooses_the_profile_before_the_variable() {
    let port = |profile, environment: &[_]| parse(ORIGINAL, profile, environment).unwrap().config.port;
    assert_eq!(port(None, &[]), 8082);
    assert_eq!(port(Some("release"), &[]), 8080);
    assert_eq!(port(None, &[("ROCKET_PROFILE", "Release")]), 8080);
    assert_eq!(port(Some("debug"), &[("ROCKET_PROFILE", "release")]), 8082);
    let error = parse(ORIGINAL, Some("relese"), &[]).unwrap_err();
    assert_eq!(error, "m.toml: there is no profile \"relese\"; known: debug, default, release");
}

#[test]
fn global_goes_over_the_profile_and_tables_are_merged() {
    let text = "[default.databases.rmom_manager]\nurl = 'postgres://h/d'\nmax_connections = 7\n\
                [release]\nport = 1\n[release.databases.rmom_manager]\nurl = 'postgres://other/d'\n\
                [global]\naddress = '::1'";
    let config = parse(text, Some("release"), &[]).unwrap().config;
    assert_eq!((config.address.as_str(), config.port), ("::1", 1));
    assert_eq!(config.databases.rmom_manager.url.redacted(), "postgres://other/d");
    assert_eq!(config.databases.rmom_manager.max_connections, 7);
}

#[test]
fn the_effective_configuration_reads_back_and_hides_the_password() {
    let shown = parse(ORIGINAL, Some("release"), &[]).unwrap().config.to_toml();
    assert!(!shown.contains("secret"), "{shown}");
    let again = parse(&shown, None, &[]).unwrap();
    assert_eq!((again.config.to_toml(), again.warnings), (shown, Vec::new()));
}

#[test]
fn the_environment_overrides_rockets_names_first_then_ours() {
    let variables = [
        ("RMOM_PORT", "9001"),
        ("ROCKET_PORT", "9000"),
        ("ROCKET_ADDRESS", "0.0.0.0"),
        ("ROCKET_WORKERS", "3"),
        ("ROCKET_DATABASES", "{rmom_manager={url=\"postgres://h/rockets\"}}"),
        ("RMOM_MOMS", "a:1, [::1]:2"),
        ("ROCKET_PROT", "1"),
    ];
    let Loaded { config, warnings } = parse(ORIGINAL, None, &variables).unwrap();
    assert_eq!((config.address.as_str(), config.port), ("0.0.0.0", 9001));
    assert_eq!(config.databases.rmom_manager.url.redacted(), "postgres://h/rockets");
    assert_eq!(config.databases.rmom_manager.max_connections, 5);
    assert_eq!(config.moms.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "[::1]:2"]);
    let hint =
        "the environment variable ROCKET_PROT names no setting of this program; ignored; did you mean ROCKET_PORT?";
    assert!(warnings.iter().any(|warning| warning == hint), "{warnings:?}");
    let config = parse(ORIGINAL, None, &[("RMOM_DATABASE__URL", "postgres://h/short")]).unwrap().config;
    assert_eq!(config.databases.rmom_manager.url.redacted(), "postgres://h/short");
}

#[test]
fn a_variable_below_a_setting_does_not_set_it() {
    let error = parse("", None, &[("RMOM_DATABASE__URL__X", "sqlite:x.db")]).unwrap_err();
    assert!(error.contains("databases.rmom_manager.url: missing"), "{error}");
}

#[test]
fn mistakes_are_named() {
    let table = [
        (
            "",
            "m.toml: databases.rmom_manager.url: missing; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:PATH",
        ),
        ("port = 1", "m.toml: port: stands outside of a profile; put it below the line [default]"),
        ("[tls]\ncert = 'x'", "m.toml: tls: stands outside of a profile; write [default.tls]"),
        (
            "[default]\nmanager_cycle_sec = 1",
            "m.toml: manager_cycle_sec: there is no such setting; did you mean manager_cycle_secs?",
        ),
        ("[default]\ndrain_moves_per_cycle = 101", "m.toml: drain_moves_per_cycle: found 101, expected 1 to 100"),
        ("[default]\nmanager_cycle_secs = 0", "m.toml: manager_cycle_secs: found 0, expected 1 to 3600"),
        ("[default]\nport = '8082'", "m.toml: port: found the text \"8082\", expected a whole number from 0 to 65535"),
        ("[default]\nmoms = ['a:1']", "m.toml: moms: found a list, expected a list of { host = \"…\", port = … }"),
        ("[default]\nmoms = [{host='a', port=0}]", "m.toml: moms: found host \"a\", port 0, expected both"),
        (
            "[default.databases.other]\nurl = ''",
            "m.toml: databases.other: there is no such setting; known here: rmom_manager",
        ),
        (
            "[default.databases.rmom_manager]\nhost = 'h'",
            "m.toml: databases.rmom_manager.host: there is no such setting; known here: url, max_connections, min_connections, idle_timeout, connect_timeout, migrate, allow_unsafe_durability",
        ),
    ];
    for (text, expected) in table {
        let error = parse(text, None, &[]).unwrap_err();
        assert!(error.lines().any(|line| line == expected), "{text}:\n{error}");
    }
}
