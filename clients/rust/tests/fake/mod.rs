//! A cluster in memory: brokers that keep the contract, unless a script says otherwise, and managers that know where
//! the queue is. Real gRPC and HTTP over in-memory streams, on paused time.

#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses a part of it

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use rmom_client::{Client, ClientBuilder, Connector, Io};
use rmom_proto::messages::{
    message_stream_server::{MessageStream, MessageStreamServer},
    push_stream_request::Request as Push,
    *,
};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Response as Reply, Status};
use tonic_types::{ErrorInfo, StatusExt as _};

pub const QUEUE_ID: u64 = 7;
pub const EPOCH: u64 = 3;

/// What a stream of pushes does instead of keeping the contract.
#[derive(Clone, Debug)]
pub enum PushScript {
    /// Keeps it.
    Normal,
    /// Is not opened.
    Refuse(Status),
    /// Acknowledges `runs` runs, and ends after one more, without acknowledging that.
    EndAfter { runs: usize, store_last: bool, status: Status },
    /// Acknowledges `runs` runs, and says nothing any more.
    Silence { runs: usize, store_last: bool },
    /// Is opened by an acknowledgement of this instead of 0.
    BadOpening(u64),
    /// Acknowledges more than it was sent.
    AckTooMuch,
    /// Does not look at the queue id that the client means.
    AnyQueue,
}

/// What a subscription does.
#[derive(Clone, Debug)]
pub enum SubScript {
    Refuse(Status),
    /// Delivers these offsets, whatever was asked for, then ends with the status.
    Deliver(Vec<u64>, Status),
    /// Is of another queue.
    OtherQueue,
    /// Has no headers.
    NoHeaders,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub producer: Vec<u8>,
    pub sequence: u64,
    pub content: String,
}

#[derive(Debug, Default)]
pub struct State {
    /// Where managers say the queue is; none: 503.
    pub host: Option<&'static str>,
    /// Manager `m1` answers this instead.
    pub manager_error: Option<(u16, &'static str)>,
    /// Managers that can be reached, and brokers.
    pub up: Vec<&'static str>,
    /// Connections to these never come about.
    pub hanging: Vec<&'static str>,
    pub queue_id: u64,
    pub log: Vec<Stored>,
    /// Epoch and last sequence.
    pub producers: BTreeMap<Vec<u8>, (u64, u64)>,
    pub max_content: Option<usize>,
    pub push_scripts: VecDeque<PushScript>,
    pub sub_scripts: VecDeque<SubScript>,
    /// What the client did, in words.
    pub seen: Vec<String>,
    names: Vec<Vec<u8>>,
    connections: Vec<(String, AbortHandle)>,
    pub answers: BTreeMap<String, (u16, String)>,
}

#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    grown: Arc<Notify>,
}

impl World {
    /// Manager `m1`, brokers `b1` and `b2`; the queue is at `b1`.
    pub fn new() -> Self {
        let state = State {
            host: Some("b1"),
            up: vec!["m1", "b1", "b2"],
            queue_id: QUEUE_ID,
            max_content: None,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(state)), grown: Arc::new(Notify::new()) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn builder(&self) -> ClientBuilder {
        let counter = Arc::new(Mutex::new(0_u128));
        Client::builder().managers(["http://m1"]).connector(self.clone()).entropy(move || {
            let mut counter = counter.lock().unwrap();
            *counter += 1;
            *counter
        })
    }

    pub fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    pub fn script_pushes(&self, scripts: impl IntoIterator<Item = PushScript>) {
        self.state().push_scripts.extend(scripts);
    }

    pub fn script_subscriptions(&self, scripts: impl IntoIterator<Item = SubScript>) {
        self.state().sub_scripts.extend(scripts);
    }

    /// Somebody else pushes.
    pub fn store(&self, content: &str) {
        self.state().log.push(Stored { producer: Vec::new(), sequence: 0, content: content.to_owned() });
        self.grown.notify_waiters();
    }

    /// Breaks all connections to a host.
    pub fn cut(&self, host: &str) {
        self.state().connections.retain(|(at, connection)| {
            if at == host {
                connection.abort();
            }
            at != host
        });
    }

    pub fn contents(&self) -> Vec<String> {
        self.state().log.iter().map(|stored| stored.content.clone()).collect()
    }

    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.state().seen)
    }

    fn see(&self, what: String) {
        self.state().seen.push(what);
    }
}

/// An error as a broker reports it.
pub fn refusal(code: &str, details: &[(&str, &str)]) -> Status {
    let status = match code {
        "MESSAGE_TOO_LARGE" | "INVALID_ARGUMENT" | "INVALID_NAME" => tonic::Code::InvalidArgument,
        "QUEUE_NOT_FOUND" | "CHANNEL_NOT_FOUND" => tonic::Code::NotFound,
        "QUEUE_REPLACED" | "SEQUENCE_GAP" | "PRODUCER_FENCED" | "NOT_HOSTED" => tonic::Code::FailedPrecondition,
        _ => tonic::Code::Unavailable,
    };
    let mut info = ErrorInfo::new(code, "rmom", []);
    info.metadata.extend(details.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
    Status::with_error_details_vec(status, format!("scripted {code}"), [info.into()])
}

#[async_trait]
impl Connector for World {
    async fn connect(&self, authority: &str) -> io::Result<Box<dyn Io>> {
        let host = authority.split(':').next().unwrap().to_owned();
        if self.state().hanging.contains(&&*host) {
            std::future::pending::<()>().await;
        }
        if !self.state().up.contains(&&*host) {
            self.see(format!("cannot reach {host}"));
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        let (world, at) = (self.clone(), host.clone());
        let connection = tokio::spawn(async move {
            let io = TokioIo::new(theirs);
            if at.starts_with('m') {
                let service = service_fn(|request| world.clone().manage(at.clone(), request));
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            } else {
                let broker = MessageStreamServer::new(FakeBroker { world, at }).max_decoding_message_size(64 << 20);
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(io, TowerToHyperService::new(broker))
                    .await;
            }
        });
        self.state().connections.push((host, connection.abort_handle()));
        Ok(Box::new(ours))
    }
}

impl World {
    async fn manage(self, at: String, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let (method, path) = (parts.method, parts.uri.path().to_owned());
        let asked = parts.uri.path_and_query().map_or(path.clone(), ToString::to_string);
        let state = self.state();
        let (status, answer) = if let Some((status, code)) = state.manager_error.filter(|_| at == "m1") {
            (status, format!(r#"{{"code":"{code}","detail":"scripted"}}"#))
        } else if let Some((status, answer)) = state.answers.get(&format!("{method} {asked} {body}")) {
            (*status, answer.clone())
        } else if let Some(("queues" | "channels", _)) = path.trim_start_matches('/').split_once('/') {
            match state.host {
                Some(host) => (200, format!(r#"{{"host":"{host}","port":1}}"#)),
                None => (503, r#"{"code":"NO_BROKER","detail":"no live broker"}"#.to_owned()),
            }
        } else {
            (404, format!("no answer is scripted for {method} {path} {body}"))
        };
        Ok(Response::builder().status(status).body(Full::from(answer)).unwrap())
    }
}

#[derive(Clone)]
struct FakeBroker {
    world: World,
    at: String,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl State {
    /// Producers by order of appearance: p0, p1 …
    fn name(&mut self, id: &[u8]) -> String {
        let at = self.names.iter().position(|known| known == id).unwrap_or_else(|| {
            self.names.push(id.to_vec());
            self.names.len() - 1
        });
        format!("p{at}")
    }

    /// All or nothing, as brokers do; how many were duplicates.
    fn append(&mut self, stamp: &ProducerStamp, run: &PushStreamMessages) -> Result<u64, Status> {
        let (epoch, last) =
            self.producers.get(&stamp.id[..]).copied().unwrap_or((stamp.epoch, stamp.lowest_unacknowledged.max(1) - 1));
        if stamp.epoch < epoch {
            return Err(refusal("PRODUCER_FENCED", &[]));
        }
        let fresh = (last + 1).saturating_sub(run.first_sequence);
        if run.first_sequence > last + 1 {
            return Err(refusal("SEQUENCE_GAP", &[("expected", &(last + 1).to_string())]));
        }
        let duplicates = fresh.min(run.messages.len() as u64);
        let new = &run.messages[duplicates as usize..];
        if new.iter().any(|message| message.content.len() > self.max_content.unwrap_or(usize::MAX)) {
            return Err(refusal("MESSAGE_TOO_LARGE", &[]));
        }
        for (i, message) in new.iter().enumerate() {
            self.log.push(Stored {
                producer: stamp.id.to_vec(),
                sequence: run.first_sequence + duplicates + i as u64,
                content: String::from_utf8_lossy(&message.content).into_owned(),
            });
        }
        let through = last.max(run.first_sequence + run.messages.len() as u64 - 1);
        self.producers.insert(stamp.id.to_vec(), (stamp.epoch, through));
        Ok(duplicates)
    }

    fn offset_of(&self, id: &[u8], sequence: u64) -> u64 {
        let at = self.log.iter().position(|stored| stored.producer == id && stored.sequence == sequence);
        at.map_or(0, |at| at as u64 + 1)
    }
}

impl FakeBroker {
    async fn serve_pushes(
        &self,
        mut requests: tonic::Streaming<PushStreamRequest>,
        acks: &mpsc::Sender<Result<PushAck, Status>>,
    ) -> Result<(), Status> {
        let Some(PushStreamRequest { request: Some(Push::Open(open)) }) = requests.message().await? else {
            return Err(Status::invalid_argument("the first request has to open the stream"));
        };
        let stamp = open.producer.clone().expect("the client names its producer");
        let (script, queue_id) = {
            let mut state = self.world.state();
            let name = state.name(&stamp.id);
            let what = format!(
                "{}: open {} {name}/{} from {} queue {}",
                self.at, open.queue_label, stamp.epoch, stamp.lowest_unacknowledged, open.queue_id
            );
            state.seen.push(what);
            (state.push_scripts.pop_front().unwrap_or(PushScript::Normal), state.queue_id)
        };
        let any_queue = matches!(script, PushScript::AnyQueue) || open.queue_id == 0;
        if !any_queue && open.queue_id != queue_id {
            return Err(refusal("QUEUE_REPLACED", &[]));
        }
        let opening = match &script {
            PushScript::Refuse(status) => return Err(status.clone()),
            PushScript::BadOpening(sequence) => *sequence,
            _ => 0,
        };
        let ack = |through_sequence, offset, duplicates| Ok(PushAck { through_sequence, offset, queue_id, duplicates });
        let _ = acks.send(ack(opening, 0, 0)).await;
        let (mut runs, mut duplicates) = (0, 0);
        while let Some(request) = requests.message().await? {
            let Some(Push::Messages(run)) = request.request else {
                return Err(Status::invalid_argument("a stream is opened once"));
            };
            let last = run.first_sequence + run.messages.len() as u64 - 1;
            self.world
                .see(format!("{}: run {}..={last} lowest {}", self.at, run.first_sequence, run.lowest_unacknowledged));
            let over = matches!(&script,
                PushScript::EndAfter { runs: n, .. } | PushScript::Silence { runs: n, .. } if runs >= *n);
            if over {
                match &script {
                    PushScript::EndAfter { store_last, status, .. } => {
                        if *store_last {
                            self.world.state().append(&stamp, &run)?;
                        }
                        return Err(status.clone());
                    }
                    PushScript::Silence { store_last, .. } => {
                        if *store_last {
                            self.world.state().append(&stamp, &run)?;
                        }
                        std::future::pending::<()>().await;
                    }
                    _ => {}
                }
            }
            let offset = {
                let mut state = self.world.state();
                duplicates += state.append(&stamp, &run)?;
                state.offset_of(&stamp.id, last)
            };
            self.world.grown.notify_waiters();
            runs += 1;
            let through = if let PushScript::AckTooMuch = script { last + 1 } else { last };
            let _ = acks.send(ack(through, offset, duplicates)).await;
        }
        self.world.see(format!("{}: closed", self.at));
        Ok(())
    }

    async fn serve_subscription(
        &self,
        from: u64,
        script: Option<SubScript>,
        messages: &mpsc::Sender<Result<Message, Status>>,
    ) {
        let message = |offset: u64, content: &str| Message {
            id: format!("{offset:032x}"),
            content: content.to_owned().into(),
            topic: "__none__".to_owned(),
            offset,
            ..Message::default()
        };
        if let Some(SubScript::Deliver(offsets, status)) = script {
            for offset in offsets {
                let content = self.world.state().log[offset as usize - 1].content.clone();
                let _ = messages.send(Ok(message(offset, &content))).await;
            }
            let _ = messages.send(Err(status)).await;
            return;
        }
        let mut next = from;
        loop {
            let grown = self.world.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            let stored = self.world.state().log.get(next as usize).cloned();
            match stored {
                Some(stored) => {
                    next += 1;
                    if messages.send(Ok(message(next, &stored.content))).await.is_err() {
                        return;
                    }
                }
                None => grown.await,
            }
        }
    }
}

#[async_trait]
impl MessageStream for FakeBroker {
    type PushStreamStream = Streamed<PushAck>;
    type SubscribeToChannelStream = Streamed<Message>;

    async fn push_stream(
        &self,
        request: tonic::Request<tonic::Streaming<PushStreamRequest>>,
    ) -> Result<Reply<Self::PushStreamStream>, Status> {
        let (acks, receiver) = mpsc::channel(64);
        let broker = self.clone();
        tokio::spawn(async move {
            if let Err(status) = broker.serve_pushes(request.into_inner(), &acks).await {
                let _ = acks.send(Err(status)).await;
            }
        });
        Ok(Reply::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn open_producer(
        &self,
        request: tonic::Request<OpenProducerRequest>,
    ) -> Result<Reply<OpenProducerResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.world.state();
        let name = state.name(&request.producer_id);
        let queue_id = state.queue_id;
        let (epoch, last_sequence) = {
            let known = state.producers.entry(request.producer_id.to_vec()).or_default();
            known.0 += 1;
            *known
        };
        state.seen.push(format!("{}: producer {name} takes epoch {epoch}", self.at));
        Ok(Reply::new(OpenProducerResponse { producer_epoch: epoch, last_sequence, queue_id }))
    }

    async fn subscribe_to_channel(
        &self,
        request: tonic::Request<SubscriptionRequest>,
    ) -> Result<Reply<Self::SubscribeToChannelStream>, Status> {
        let request = request.into_inner();
        let position = request.position.map(|p| format!("{}:{}:{}", p.queue_id, p.epoch, p.offset));
        let script = {
            let mut state = self.world.state();
            state.seen.push(format!("{}: subscribe after {}", self.at, position.as_deref().unwrap_or("start")));
            state.sub_scripts.pop_front()
        };
        if let Some(SubScript::Refuse(status)) = script {
            return Err(status);
        }
        let queue_id =
            if let Some(SubScript::OtherQueue) = script { QUEUE_ID + 1 } else { self.world.state().queue_id };
        let headers = !matches!(script, Some(SubScript::NoHeaders));
        let (messages, receiver) = mpsc::channel(64);
        let broker = self.clone();
        let from = request.position.map_or(0, |position| position.offset);
        tokio::spawn(async move { broker.serve_subscription(from, script, &messages).await });
        let mut reply: Reply<Self::SubscribeToChannelStream> = Reply::new(Box::pin(ReceiverStream::new(receiver)));
        if headers {
            reply.metadata_mut().insert("rmom-queue-id", queue_id.to_string().parse().unwrap());
            reply.metadata_mut().insert("rmom-epoch", EPOCH.to_string().parse().unwrap());
        }
        Ok(reply)
    }

    async fn push_to_queue(
        &self,
        _: tonic::Request<rmom_proto::messages::Push>,
    ) -> Result<Reply<PushOkResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn create_queue(
        &self,
        _: tonic::Request<CreateQueueRequest>,
    ) -> Result<Reply<CreateQueueOkResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn delete_queue(
        &self,
        _: tonic::Request<DeleteQueueRequest>,
    ) -> Result<Reply<DeleteQueueOkResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn rebuild_queue(
        &self,
        _: tonic::Request<RebuildQueueRequest>,
    ) -> Result<Reply<RebuildQueueOkResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn create_channel(
        &self,
        _: tonic::Request<CreateChannelRequest>,
    ) -> Result<Reply<CreateChannelResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn delete_channel(
        &self,
        _: tonic::Request<DeleteChannelRequest>,
    ) -> Result<Reply<DeleteChannelOkResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn get_heartbeat(&self, _: tonic::Request<HeartbeatRequest>) -> Result<Reply<HeartbeatOkResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn describe_queue(
        &self,
        _: tonic::Request<DescribeQueueRequest>,
    ) -> Result<Reply<DescribeQueueResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn list_queue_states(
        &self,
        _: tonic::Request<ListQueueStatesRequest>,
    ) -> Result<Reply<ListQueueStatesResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn list_complaints(
        &self,
        _: tonic::Request<ListComplaintsRequest>,
    ) -> Result<Reply<ListComplaintsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn refresh(&self, _: tonic::Request<RefreshRequest>) -> Result<Reply<RefreshResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}

/// Long enough for anything that is not stuck, on paused time.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it takes for ever")
}
