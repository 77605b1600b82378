//! A cluster that uses TLS and requires clients' certificates.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rmom_net::testing::PgServer;

use super::doctor::server;
use crate::support::{Output, Process, command, eventually, program, rmom};

/// Writes `NAME.pem` and `NAME.key`, signed by `ca`.
fn identity(directory: &Path, ca: &CertifiedIssuer<'_, KeyPair>, name: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    fs::write(directory.join(format!("{name}.pem")), params.signed_by(&key, ca).unwrap().pem()).unwrap();
    fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn start(directory: &Path, binary: &str, config: &str) -> (Process, String) {
    let file = directory.join(format!("{binary}.conf"));
    fs::write(&file, config).unwrap();
    let mut command = command(program(binary));
    command.arg(&file);
    let mut process = Process::spawn(binary, directory, command);
    let line = process.wait_for_log(&format!("{binary} runs"));
    let address = line.split("listening=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    (process, address)
}

#[test]
fn manager_broker_and_client_know_each_other_by_their_certificates() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(PgServer::shared().create_database());
    let directory = tempfile::tempdir().unwrap();
    let ca = CertifiedIssuer::self_signed(ca_params(), KeyPair::generate().unwrap()).unwrap();
    fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
    for name in ["manager", "broker", "client"] {
        identity(directory.path(), &ca, name);
    }

    // Paths are relative to the configuration file.
    let url = database.url();
    let broker = format!(
        "port: 0\nexternal_port: 0\ndatabase: {{url: \"{url}\"}}\n\
         tls: {{cert: broker.pem, key: broker.key, client_ca: ca.pem}}\n"
    );
    let (_broker, broker) = start(directory.path(), "rmom-broker", &broker);
    let manager = format!(
        "[default]\nport = 0\nmanager_cycle_millis = 200\n[default.databases.rmom_manager]\nurl = \"{url}\"\n\
         [default.tls]\ncert = \"manager.pem\"\nkey = \"manager.key\"\nca = \"ca.pem\"\nclient_ca = \"ca.pem\"\n"
    );
    let (_manager, address) = start(directory.path(), "rmom-manager", &manager);
    let manager = format!("https://{address}");

    let path = |name: &str| directory.path().join(name).display().to_string();
    let (authority, cert, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let known = |args: &[&str]| -> Output {
        rmom(&manager, &[args, &["--ca", &authority, "--cert", &cert, "--key", &key]].concat(), "")
    };
    eventually("a queue can be created", || (known(&["queue", "create", "q"]).code == Some(0)).then_some(()));
    known(&["push", "q", "hello"]).success();
    assert_eq!(known(&["subscribe", "q", "--count", "1"]).success().text(), "hello\n");
    let output = known(&["doctor"]).success();
    assert!(output.text().contains("ok       connection  broker 1 at "), "{}", output.text());

    // Clients without a certificate, or without TLS, are refused.
    let stranger = rmom(&manager, &["queue", "list", "--ca", &authority], "");
    assert_eq!(stranger.code, Some(4), "{}", stranger.stderr);
    let stranger = rmom(&manager, &["doctor", "--ca", &authority], "");
    assert!(stranger.code == Some(4) && stranger.text().contains("cannot be reached: "), "{stranger:?}");
    assert!(stranger.text().contains("--cert FILE"), "{stranger:?}");
    let other = CertifiedIssuer::self_signed(ca_params(), KeyPair::generate().unwrap()).unwrap();
    fs::write(directory.path().join("other.pem"), other.pem()).unwrap();
    let stranger = rmom(&manager, &["doctor", "--ca", &path("other.pem"), "--cert", &cert, "--key", &key], "");
    assert!(stranger.text().contains("invalid peer certificate"), "{stranger:?}");
    assert!(stranger.text().contains("Check that --ca names"), "{stranger:?}");
    // The same at the broker, while a manager without TLS answers.
    let port = broker.rsplit_once(':').unwrap().1;
    let status = format!(
        r#"{{"manager_id":"00000000-0000-0000-0000-000000000001","leading":true,"leader_id":null,"term":1,"brokers":[
        {{"id":1,"host":"127.0.0.1","port":{port},"state":"up","live":true,"queues":0,"gone":false}}],"healthy":true,
        "counters":{{"failovers":0,"handovers":0,"rebalanced":0}},"problems":[],"notes":[]}}"#
    );
    let open = server(move |path| (path == "/v1/status").then(|| format!("200 OK\r\n\r\n{status}")));
    for (file, next) in [("ca.pem", "--cert FILE"), ("other.pem", "Check that --ca names")] {
        let stranger = rmom(&open, &["doctor", "--ca", &path(file), "--timeout", "4s"], "");
        let lines: Vec<&str> = stranger.text().lines().collect();
        let line = lines.iter().position(|line| line.starts_with("problem  connection")).unwrap();
        assert!(lines[line + 1].contains(next), "{}", stranger.text());
    }
    let plain = rmom(&format!("http://{address}"), &["queue", "list"], "");
    assert_eq!(plain.code, Some(4), "{}", plain.stderr);
    let unconfigured = rmom(&manager, &["queue", "list"], "");
    assert_eq!(unconfigured.code, Some(2), "{}", unconfigured.stderr);
    assert!(unconfigured.stderr.contains("needs TLS"), "{}", unconfigured.stderr);
}
