//! Initial inputs: `cargo run -p rmom-fuzz --example seeds` writes them to `corpus/config`.

const BROKER: u8 = 0;
const MANAGER: u8 = 1;
const ONE_CHANGE: u8 = 2;

/// An input of a file and variables.
fn file(program: u8, text: &str, variables: &[&str]) -> Vec<u8> {
    let mut input = [&[program], text.as_bytes()].concat();
    for variable in variables {
        input.push(0);
        input.extend_from_slice(variable.as_bytes());
    }
    input
}

/// The name and content of each.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let broker = include_str!("../../../deploy/examples/mom1.yaml");
    let manager = include_str!("../../../deploy/examples/Rocket.toml");
    vec![
        ("broker", file(BROKER, broker, &[])),
        (
            "broker-sqlite",
            file(BROKER, "database: {url: 'sqlite:x.db'}\nlog: {level: 'warn,a=debug'}", &["RMOM_PORT=5"]),
        ),
        ("broker-anchors", file(BROKER, "database: &d {url: 'sqlite:x'}\n<<: {port: 5, log: *d}", &[])),
        ("manager", file(MANAGER, manager, &["ROCKET_PROFILE=release", "RMOM_MOMS=[::1]:5,b:6"])),
        (
            "manager-variables",
            file(
                MANAGER,
                "[default]\n[x]",
                &[
                    "ROCKET_PORT=5",
                    "ROCKET_DATABASES={rmom_manager={url=\"sqlite:x\"}}",
                    "RMOM_MOMS=[{host=\"b\",port=5}]",
                ],
            ),
        ),
        ("broker-port-as-text", vec![BROKER | ONE_CHANGE, 0, 0, 7, 2, b'x', b'y']),
        ("broker-lease-in-the-environment", vec![BROKER | ONE_CHANGE, 7, 2, 0, 3]),
        ("broker-password-in-parts", vec![BROKER | ONE_CHANGE, 9, 64, 0, 4]),
        ("manager-cut-in-the-password", vec![MANAGER | ONE_CHANGE, 0, 32, 0, 0]),
        ("manager-misspelt", vec![MANAGER | ONE_CHANGE, 6, 3, 0, 4]),
        ("manager-fraction", vec![MANAGER | ONE_CHANGE, 22, 0, 3]),
    ]
}
