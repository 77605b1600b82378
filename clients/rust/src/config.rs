//! The client's settings.

use std::{fmt, sync::Arc, time::Duration};

use rand::{TryRngCore as _, rngs::OsRng};
use rmom_proto::contract::limits::{GRPC_DEFAULT_MAX_MESSAGE_BYTES, MAX_DELIVERY_TIMEOUT};
use tokio_rustls::rustls;

use crate::{
    Client, Connector, Error, TcpConnector,
    connect::{DEFAULT_KEEPALIVE, Dialer},
    rest::{Manager, Managers},
    uptime::{self, Moments},
};

/// Default for the size of the largest message as delivered. Brokers accept 4 KiB less by default, for what they may add to it.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = GRPC_DEFAULT_MAX_MESSAGE_BYTES;

/// A source of 128 random bits. All ids and jitter come from it.
pub type Entropy = Arc<dyn Fn() -> u128 + Send + Sync>;

/// Settings of a client.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) entropy: Entropy,
    pub(crate) moments: Moments,
    /// Limit on the time of one administrative call.
    pub(crate) request_timeout: Duration,
    /// Limit on the time of one look-up of a queue or channel at one manager.
    pub(crate) lookup_timeout: Duration,
    /// Limit on the time of opening a stream at a broker.
    pub(crate) open_timeout: Duration,
    /// How long a broker that owes an acknowledgement may stay silent.
    pub(crate) ack_timeout: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) max_message_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            entropy: Arc::new(os_entropy),
            moments: Moments::new(Arc::new(uptime::of_this_machine)),
            request_timeout: Duration::from_secs(15),
            lookup_timeout: Duration::from_secs(2),
            open_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(120),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("delivery_timeout", &self.delivery_timeout).finish_non_exhaustive()
    }
}

impl Settings {
    /// A number in `0..bound`, or 0 if `bound` is 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        u64::try_from((self.entropy)() % u128::from(bound.max(1))).unwrap_or(0)
    }
}

fn os_entropy() -> u128 {
    let mut bytes = [0; 16];
    OsRng.try_fill_bytes(&mut bytes).expect("every supported system has a source of random numbers");
    u128::from_ne_bytes(bytes)
}

/// Sets up a [`Client`]. Only [`ClientBuilder::managers`] is required.
#[must_use]
pub struct ClientBuilder {
    managers: Vec<String>,
    connector: Arc<dyn Connector>,
    tls: Option<Arc<rustls::ClientConfig>>,
    connect_timeout: Duration,
    keepalive: (Duration, Duration),
    settings: Settings,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("managers", &self.managers).finish_non_exhaustive()
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            managers: Vec::new(),
            connector: Arc::new(TcpConnector),
            tls: None,
            connect_timeout: Duration::from_secs(1),
            keepalive: DEFAULT_KEEPALIVE,
            settings: Settings::default(),
        }
    }
}

impl ClientBuilder {
    /// The managers' URLs, such as `http://127.0.0.1:8082`. Any of them can answer; the one that answered last is asked
    /// first. Another call adds to them.
    pub fn managers<I>(mut self, urls: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.managers.extend(urls.into_iter().map(Into::into));
        self
    }

    /// Opens connections with this connector instead of TCP.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Arc::new(connector);
        self
    }

    /// Uses TLS with the brokers, and with managers whose URL starts with `https`. The client sets the protocol negotiation
    /// (ALPN).
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// The source of randomness for ids and jitter. Default: the operating system.
    pub fn entropy(mut self, entropy: impl Fn() -> u128 + Send + Sync + 'static) -> Self {
        self.settings.entropy = Arc::new(entropy);
        self
    }

    /// The time since the machine was switched on, suspension included: a message whose time ran out while the machine slept
    /// is not sent again. Only differences count. Default: the operating system's clock.
    pub fn uptime(mut self, uptime: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        self.settings.moments = Moments::new(Arc::new(uptime));
        self
    }

    /// How long opening a connection may take, TLS included. Default: 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How often a broker is asked whether it is there, and how long it may take to answer before its connection counts as
    /// broken. A program that blocks its runtime for longer than both, in a debugger or in a long computation, loses its
    /// connections. Longer times avoid this, but the client then notices later that a broker has vanished. Default: 2 s and
    /// 1 s.
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive = (interval, timeout);
        self
    }

    /// How long one administrative call may take, including the time to connect. Creating a queue waits until it is served.
    /// Default: 15 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout;
        self
    }

    /// How long one manager may take to answer where a queue or channel is, before the next is asked. Default: 2 s.
    pub fn lookup_timeout(mut self, timeout: Duration) -> Self {
        self.settings.lookup_timeout = timeout;
        self
    }

    /// How long a broker may take to open a stream of pushes or a subscription. It may have to activate the queue first.
    /// Default: 10 s.
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.settings.open_timeout = timeout;
        self
    }

    /// How long a broker that owes acknowledgements may be silent before a producer reconnects. Default: 30 s.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ack_timeout = timeout;
        self
    }

    /// How long a producer goes on retrying a message, at most [`MAX_DELIVERY_TIMEOUT`]. Default: 120 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// The waits between attempts: jittered, doubling from `min` to `max`. Default: 20 ms and 1 s.
    pub fn retry_backoff(mut self, min: Duration, max: Duration) -> Self {
        (self.settings.backoff_min, self.settings.backoff_max) = (min, max);
        self
    }

    /// The size of the largest message as delivered, framing included. Brokers have a setting of the same name, and refuse
    /// larger messages. Default: [`DEFAULT_MAX_MESSAGE_BYTES`].
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_message_bytes = bytes;
        self
    }

    /// Checks the settings. Does not connect yet.
    ///
    /// # Errors
    /// [`Error::Config`], which names the setting.
    pub fn build(self) -> Result<Client, Error> {
        let Self { managers, connector, tls, connect_timeout, keepalive, settings } = self;
        let refuse = |setting, reason: &str| Err(Error::Config { setting, reason: reason.to_owned() });
        if managers.is_empty() {
            return refuse("managers", "there are none; name at least one, such as \"http://127.0.0.1:8082\"");
        }
        for (setting, timeout) in [
            ("connect_timeout", connect_timeout),
            ("keepalive", keepalive.0.min(keepalive.1)),
            ("request_timeout", settings.request_timeout),
            ("lookup_timeout", settings.lookup_timeout),
            ("open_timeout", settings.open_timeout),
            ("ack_timeout", settings.ack_timeout),
            ("delivery_timeout", settings.delivery_timeout),
            ("retry_backoff", settings.backoff_min),
        ] {
            if timeout.is_zero() {
                return refuse(setting, "it has to be more than zero");
            }
        }
        if settings.backoff_max < settings.backoff_min {
            return refuse("retry_backoff", "the longest wait is shorter than the first");
        }
        check_delivery_timeout(settings.delivery_timeout)?;
        let managers =
            managers.iter().map(|url| Manager::parse(url, tls.is_some())).collect::<Result<Vec<_>, Error>>()?;
        let dialer = Dialer { connector, tls, timeout: connect_timeout, keepalive };
        Ok(Client::new(dialer.clone(), settings, Managers::new(managers, dialer)))
    }
}

/// Brokers forget producers some time after the limit.
pub(crate) fn check_delivery_timeout(timeout: Duration) -> Result<(), Error> {
    if timeout.is_zero() || timeout > MAX_DELIVERY_TIMEOUT {
        let reason = format!("it is {timeout:?}; it takes more than zero and at most {MAX_DELIVERY_TIMEOUT:?}");
        return Err(Error::Config { setting: "delivery_timeout", reason });
    }
    Ok(())
}
