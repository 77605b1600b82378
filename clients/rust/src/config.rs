//! The client's settings.

use std::{fmt, sync::Arc, time::Duration};

use rand::{TryRngCore as _, rngs::OsRng};
use tokio_rustls::rustls;

use crate::{
    Client, Connector, Error, TcpConnector,
    connect::{DEFAULT_KEEPALIVE, Dialer},
    rest::{Manager, Managers},
    uptime::{self, Moments},
};

/// Default for the largest message as it is delivered: what brokers have by default.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 4_194_304;
/// For how long a producer may go on retrying at most: brokers remember producers for longer than that.
pub const MAX_DELIVERY_TIMEOUT: Duration = Duration::from_secs(600);

/// A source of 128 random bits. Ids and jitter come from here and nowhere else.
pub type Entropy = Arc<dyn Fn() -> u128 + Send + Sync>;

/// What is set once per client.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) entropy: Entropy,
    pub(crate) moments: Moments,
    /// One administrative call.
    pub(crate) request_timeout: Duration,
    /// One question where a queue or channel is.
    pub(crate) lookup_timeout: Duration,
    /// Opening a stream at a broker.
    pub(crate) open_timeout: Duration,
    /// Silence of a broker that owes an acknowledgement.
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
    /// The managers' URLs, such as `http://127.0.0.1:8082`. Any of them will do; the one that answered last is asked
    /// first. Called again, it adds to them.
    pub fn managers<I>(mut self, urls: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.managers.extend(urls.into_iter().map(Into::into));
        self
    }

    /// Opens connections in another way than by TCP.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Arc::new(connector);
        self
    }

    /// Speaks TLS to the brokers, and to managers whose URL starts with `https`. Protocol negotiation (ALPN) is set by the
    /// client.
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Where randomness comes from, for ids and jitter. Default: the operating system.
    pub fn entropy(mut self, entropy: impl Fn() -> u128 + Send + Sync + 'static) -> Self {
        self.settings.entropy = Arc::new(entropy);
        self
    }

    /// How long the machine has been on, time that it was suspended included: a message whose time was up while the machine
    /// slept is not sent again. Only differences count. Default: the operating system's clock.
    pub fn uptime(mut self, uptime: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        self.settings.moments = Moments::new(Arc::new(uptime));
        self
    }

    /// How long opening a connection may take, TLS included. Default: 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How often a broker is asked whether it is there, and how long its answer may take before its connection counts as
    /// broken. A program that blocks its runtime for longer than both, in a debugger or in a long computation, loses its
    /// connections. Longer times bear with that, and find out later that a broker vanished. Default: 2 s and 1 s.
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive = (interval, timeout);
        self
    }

    /// How long one administrative call may take, its connection included. Creating a queue waits until it is served.
    /// Default: 15 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout;
        self
    }

    /// How long one manager may take to say where a queue or channel is, before the next is asked. Default: 2 s.
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

    /// How long a broker that owes acknowledgements may be silent before a producer connects anew. Default: 30 s.
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

    /// The largest message, framing included, as it is delivered; brokers have a setting of the same name, and refuse
    /// what is larger than theirs. Default: [`DEFAULT_MAX_MESSAGE_BYTES`].
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_message_bytes = bytes;
        self
    }

    /// Checks the settings. Nothing is connected yet.
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

/// Brokers forget producers some time after that.
pub(crate) fn check_delivery_timeout(timeout: Duration) -> Result<(), Error> {
    if timeout.is_zero() || timeout > MAX_DELIVERY_TIMEOUT {
        let reason = format!("it is {timeout:?}; it takes more than zero and at most {MAX_DELIVERY_TIMEOUT:?}");
        return Err(Error::Config { setting: "delivery_timeout", reason });
    }
    Ok(())
}
