//! One table of all RPCs and routes, with the right that each needs.

use Server::{Both, Broker, Dev, Manager};
use rmom_core::access::Right::{self, Admin, Consume, Create, Delete, Inspect, Push};

/// The server that has a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Brokers.
    Broker,
    /// Managers.
    Manager,
    /// Brokers and managers.
    Both,
    /// The manager of `rmom dev`.
    Dev,
}

/// An RPC or a route.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The server that has it.
    pub server: Server,
    /// The HTTP method; `POST` for RPCs. `*` stands for all.
    pub method: &'static str,
    /// The path, with the names of its variable segments.
    pub path: &'static str,
    /// The right that a caller needs. `None`: it is open to everybody.
    pub right: Option<Right>,
}

const fn on(server: Server, method: &'static str, path: &'static str, right: Right) -> Entry {
    Entry { server, method, path, right: Some(right) }
}

const fn open(server: Server, method: &'static str, path: &'static str) -> Entry {
    Entry { server, method, path, right: None }
}

/// All RPCs and routes. Those that are called for each message come first.
pub const TABLE: &[Entry] = &[
    on(Broker, "POST", "/messages.MessageStream/PushToQueue", Push),
    on(Broker, "POST", "/messages.MessageStream/PushStream", Push),
    on(Broker, "POST", "/messages.MessageStream/OpenProducer", Push),
    on(Broker, "POST", "/messages.MessageStream/SubscribeToChannel", Consume),
    on(Broker, "POST", "/messages.MessageStream/CreateChannel", Consume),
    on(Broker, "POST", "/messages.MessageStream/DeleteChannel", Delete),
    on(Broker, "POST", "/messages.MessageStream/CreateQueue", Create),
    on(Broker, "POST", "/messages.MessageStream/DeleteQueue", Delete),
    on(Broker, "POST", "/messages.MessageStream/DescribeQueue", Inspect),
    on(Broker, "POST", "/messages.MessageStream/ListQueueStates", Inspect),
    on(Broker, "POST", "/messages.MessageStream/ListComplaints", Inspect),
    on(Broker, "POST", "/messages.MessageStream/GetHeartbeat", Inspect),
    on(Broker, "POST", "/messages.MessageStream/RebuildQueue", Inspect),
    on(Broker, "POST", "/messages.MessageStream/Refresh", Inspect),
    open(Broker, "POST", "/grpc.health.v1.Health/Check"),
    open(Broker, "POST", "/grpc.health.v1.Health/Watch"),
    open(Broker, "POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    open(Broker, "POST", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    on(Broker, "GET", "/metrics/per-object", Inspect),
    on(Both, "GET", "/metrics", Inspect),
    open(Both, "GET", "/healthz"),
    open(Both, "GET", "/readyz"),
    open(Both, "GET", "/version"),
    on(Manager, "GET", "/v1/queues", Inspect),
    on(Manager, "POST", "/v1/queues", Create),
    on(Manager, "GET", "/v1/queues/{label}", Inspect),
    on(Manager, "DELETE", "/v1/queues/{label}", Delete),
    on(Manager, "GET", "/v1/queues/{label}/channels", Inspect),
    on(Manager, "POST", "/v1/queues/{label}/channels", Consume),
    on(Manager, "GET", "/v1/channels", Inspect),
    on(Manager, "GET", "/v1/channels/{id}", Inspect),
    on(Manager, "DELETE", "/v1/channels/{id}", Delete),
    on(Manager, "GET", "/v1/brokers", Inspect),
    on(Manager, "DELETE", "/v1/brokers/{id}", Admin),
    on(Manager, "POST", "/v1/brokers/rebalance", Admin),
    on(Manager, "POST", "/v1/brokers/{id}/drain", Admin),
    on(Manager, "POST", "/v1/brokers/{id}/undrain", Admin),
    on(Manager, "GET", "/v1/status", Inspect),
    open(Manager, "GET", "/v1/openapi.json"),
    on(Manager, "GET", "/queues", Inspect),
    // It only answers that the label is empty.
    open(Manager, "*", "/queues/"),
    on(Manager, "POST", "/queues/{label}", Create),
    on(Manager, "DELETE", "/queues/{label}", Delete),
    on(Manager, "GET", "/queues/{label}", Inspect),
    on(Manager, "GET", "/queue/{label}/topics", Inspect),
    on(Manager, "GET", "/queues/{label}/topics", Inspect),
    on(Manager, "PUT", "/queues/{label}/channels/{topic}", Consume),
    on(Manager, "GET", "/channels", Inspect),
    on(Manager, "GET", "/channels/{id}", Inspect),
    on(Manager, "DELETE", "/channels/{id}", Delete),
    on(Dev, "POST", "/v1/dev/brokers/{number}/crash", Admin),
    on(Dev, "POST", "/v1/dev/brokers/{number}/restart", Admin),
];

/// The entry of a method. `HEAD` is answered as `GET` is.
#[must_use]
pub fn entry(method: &str, path: &str) -> Option<&'static Entry> {
    let method = if method == "HEAD" { "GET" } else { method };
    TABLE.iter().find(|entry| entry.path == path && (entry.method == method || entry.method == "*"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    /// The parts of a `FileDescriptorSet` that name the methods.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Set {
        #[prost(message, repeated, tag = "1")]
        files: Vec<File>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct File {
        #[prost(string, tag = "2")]
        package: String,
        #[prost(message, repeated, tag = "6")]
        services: Vec<Service>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Service {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        methods: Vec<Method>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Method {
        #[prost(string, tag = "1")]
        name: String,
    }

    fn rpcs() -> BTreeSet<String> {
        let mut rpcs = BTreeSet::new();
        for descriptors in [
            rmom_proto::FILE_DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            for file in Set::decode(descriptors).unwrap().files {
                for service in &file.services {
                    let path = |method: &Method| format!("/{}.{}/{}", file.package, service.name, method.name);
                    rpcs.extend(service.methods.iter().map(path));
                }
            }
        }
        rpcs
    }

    #[test]
    fn the_table_has_every_rpc_and_no_other() {
        let listed = TABLE.iter().filter(|entry| entry.server == Broker && entry.method == "POST");
        assert_eq!(listed.map(|entry| entry.path.to_owned()).collect::<BTreeSet<_>>(), rpcs());
    }

    #[test]
    fn no_method_is_listed_twice() {
        let mut listed = BTreeSet::new();
        for entry in TABLE {
            assert!(listed.insert((entry.method, entry.path)), "{entry:?}");
        }
    }

    #[test]
    fn the_protocols_page_shows_the_table() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md"));
        let mut table = "| server | method | right |\n| --- | --- | --- |\n".to_owned();
        for Entry { server, method, path, right } in TABLE {
            let server = match server {
                Broker => "broker",
                Manager => "manager",
                Both => "both",
                Dev => "`rmom dev`",
            };
            let method = match (*method, path.split('.').count()) {
                ("POST", 2..) => format!("`{}`", path.trim_start_matches('/')),
                ("*", _) => format!("`{path}`, any method"),
                _ => format!("`{method} {path}`"),
            };
            table.push_str(&format!("| {server} | {method} | {} |\n", right.map_or("–", Right::name)));
        }
        assert!(page.contains(&table), "docs/protocol.md needs this table under \"Rights\":\n{table}");
    }

    #[test]
    fn a_head_request_needs_the_right_of_get() {
        assert_eq!(entry("HEAD", "/v1/queues").and_then(|entry| entry.right), Some(Inspect));
        assert_eq!(entry("POST", "/v1/queues").and_then(|entry| entry.right), Some(Create));
        assert!(entry("PATCH", "/v1/queues").is_none() && entry("GET", "/v1/queue").is_none());
    }
}
