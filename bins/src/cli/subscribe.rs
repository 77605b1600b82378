//! `rmom subscribe`.

use std::time::Duration;

use futures_util::FutureExt as _;
use rmom_client::{Consumer, Message, Uuid};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    args::{From, SubscribeArgs},
    error::CliError,
    output::{Out, plural, tell},
    session::Session,
};
use crate::service::Signals;

/// How long the end of a run may take to delete its channel.
const CLEAN_UP: Duration = Duration::from_secs(3);
/// Time limits and signals are checked after this many messages in a row.
const BURST: usize = 1_024;

pub(super) async fn run(session: &Session, args: SubscribeArgs, json: bool) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let source = Source::of(&args)?;
    let (channel, ours) = tokio::select! {
        biased;
        _ = signals.next() => return Err(CliError::interrupted()),
        channel = source.channel(session) => channel?,
    };
    if args.keep && ours {
        tell(format_args!("rmom: the channel {channel} is kept; go on with: rmom subscribe {channel}"));
    }
    let mut consumer = session.client.subscribe(channel).build();
    let printed = print(session, &mut consumer, &args, json, &mut signals).await;
    if ours && !args.keep {
        // No other client knows the channel. If deleting it fails, it only remains in `rmom channel list`.
        drop(consumer);
        let _ = timeout(CLEAN_UP, session.client.admin().delete_channel(channel)).await;
    }
    printed
}

/// The source of the messages.
enum Source<'a> {
    Channel(Uuid),
    Queue { label: &'a str, topic: Option<&'a str>, from: From },
}

impl<'a> Source<'a> {
    fn of(args: &'a SubscribeArgs) -> Result<Self, CliError> {
        let topic = args.topic.as_deref();
        match Uuid::parse_str(&args.source) {
            Ok(_) if topic.is_some() || args.from.is_some() || args.keep => {
                let error =
                    CliError::usage("--topic, --from and --keep are for queues; a channel has its own topic and start");
                Err(error
                    .hint("Create a channel as you want it with: rmom channel create QUEUE --topic TOPIC --from START"))
            }
            Ok(channel) => Ok(Self::Channel(channel)),
            Err(_) => Ok(Self::Queue { label: &args.source, topic, from: args.from.unwrap_or_default() }),
        }
    }

    /// The channel to read, and whether it was created for this run.
    async fn channel(&self, session: &Session) -> Result<(Uuid, bool), CliError> {
        match *self {
            Self::Channel(channel) => Ok((channel, false)),
            Self::Queue { label, topic, from } => {
                let created = session.client.admin().create_channel(label, topic, from.into()).await;
                created.map(|channel| (channel.id, true)).map_err(|error| session.explain(&error))
            }
        }
    }
}

async fn print(
    session: &Session,
    consumer: &mut Consumer,
    args: &SubscribeArgs,
    json: bool,
    signals: &mut Signals,
) -> Result<(), CliError> {
    let mut out = Out::new();
    let wanted = args.count.unwrap_or(u64::MAX);
    let end = args.timeout.map(|after| Instant::now() + after);
    let mut idle_end = args.idle_timeout.map(|after| Instant::now() + after);
    let mut printed = 0;
    let mut burst = 0;
    while printed < wanted {
        let at_hand = if burst < BURST { consumer.next().now_or_never() } else { None };
        let message = match at_hand {
            Some(message) => {
                burst += 1;
                message
            }
            None => {
                burst = 0;
                out.flush()?;
                tokio::select! {
                    biased;
                    _ = signals.next() => return Err(CliError::interrupted()),
                    () = at(end) => return time_is_up(args, printed),
                    message = consumer.next() => message,
                    () = at(idle_end) => return time_is_up(args, printed),
                }
            }
        };
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                out.flush()?;
                return Err(session.explain(&error));
            }
        };
        if json {
            out.line(message_json(&message).to_string())?;
        } else {
            out.line(&message.content)?;
        }
        printed += 1;
        idle_end = args.idle_timeout.map(|after| Instant::now() + after);
    }
    out.flush()
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// The end of the time is a normal end, unless a number of messages was requested.
fn time_is_up(args: &SubscribeArgs, printed: u64) -> Result<(), CliError> {
    match args.count {
        Some(wanted) => Err(CliError::unavailable(format_args!(
            "received {} of {wanted} before the time limit",
            plural(printed, "message")
        ))),
        None => Ok(()),
    }
}

/// Has `content` if it is text, otherwise `content_base64`.
fn message_json(message: &Message) -> Value {
    let mut json = json!({ "id": message.id, "offset": message.offset, "topic": message.topic });
    match std::str::from_utf8(&message.content) {
        Ok(text) => json["content"] = text.into(),
        Err(_) => json["content_base64"] = base64(&message.content).into(),
    }
    if !message.headers.is_empty() {
        let header = |header: &rmom_client::Header| json!({ "name": header.name, "value": String::from_utf8_lossy(&header.value) });
        json["headers"] = message.headers.iter().map(header).collect();
    }
    json
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for position in 0..4 {
            let digit = (bits >> (18 - 6 * position)) & 63;
            text.push(if position <= chunk.len() { char::from(ALPHABET[digit as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_the_rfc_has_it() {
        let examples =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in examples {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }
}
