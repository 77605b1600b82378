//! The programs as their users start them: real processes, real sockets, standard input and output.

mod bench;
mod check_config;
mod command_line;
#[path = "../../build/commit.rs"]
mod commit;
mod configuration_page;
mod dev;
mod doctor;
mod generated;
mod overload;
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod version;
