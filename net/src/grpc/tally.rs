//! Tallies pushes before prost decodes them. A header or an empty message takes two bytes on the wire and a hundred in
//! memory, so requests beyond the limits must not be decoded at all.

use std::marker::PhantomData;

use prost::Message;
use rmom_core::{broker::BrokerError, model::limits::MAX_HEADERS};
use rmom_proto::messages::{Push, PushStreamRequest};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::{parse, status::to_status};

const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const DELIMITED: u64 = 2;
const GROUP_START: u64 = 3;
const GROUP_END: u64 = 4;
const FOUR_BYTES: u64 = 5;

/// `Push::headers`.
const PUSH_HEADERS: u64 = 6;
/// `PushStreamRequest::messages`, the run.
const REQUEST_RUN: u64 = 2;
/// `PushStreamMessages::messages`.
const RUN_MESSAGES: u64 = 2;
/// `PushMessage::headers`.
const MESSAGE_HEADERS: u64 = 3;

/// The number of repeated elements in the encoded request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    messages: usize,
    /// The headers of the message that has the most.
    headers: usize,
}

/// The bytes are not a Protobuf message; prost would come to the same result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A request whose parts can be counted before it is decoded.
pub(super) trait Tallied: Message + Default + Send + 'static {
    /// Counts at least the elements that prost would decode. A request that prost accepts is never [`Malformed`].
    fn tally(encoded: &[u8]) -> Result<Tally, Malformed>;
}

impl Tallied for Push {
    fn tally(encoded: &[u8]) -> Result<Tally, Malformed> {
        Ok(Tally { messages: 1, headers: occurrences(encoded, PUSH_HEADERS)? })
    }
}

impl Tallied for PushStreamRequest {
    fn tally(encoded: &[u8]) -> Result<Tally, Malformed> {
        let mut tally = Tally::default();
        each(encoded, REQUEST_RUN, |run| {
            each(run, RUN_MESSAGES, |message| {
                tally.messages += 1;
                tally.headers = tally.headers.max(occurrences(message, MESSAGE_HEADERS)?);
                Ok(())
            })
        })?;
        Ok(tally)
    }
}

fn occurrences(encoded: &[u8], field: u64) -> Result<usize, Malformed> {
    let mut found = 0;
    each(encoded, field, |_| {
        found += 1;
        Ok(())
    })?;
    Ok(found)
}

/// Calls `found` with the contents of each occurrence of a field that is a message. prost trusts lengths and notices only
/// after decoding both that an inner message reaches beyond its outer one, so such a message is refused here.
fn each<'a>(
    mut encoded: &'a [u8],
    field: u64,
    mut found: impl FnMut(&'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut groups = 0_usize;
    while !encoded.is_empty() {
        let key = varint(&mut encoded)?;
        match key & 7 {
            VARINT => _ = varint(&mut encoded)?,
            EIGHT_BYTES => _ = take(&mut encoded, 8)?,
            DELIMITED => {
                let length = varint(&mut encoded)?;
                let contents = take(&mut encoded, usize::try_from(length).map_err(|_| Malformed)?)?;
                if key >> 3 == field && groups == 0 {
                    found(contents)?;
                }
            }
            GROUP_START => groups += 1,
            GROUP_END => groups = groups.checked_sub(1).ok_or(Malformed)?,
            FOUR_BYTES => _ = take(&mut encoded, 4)?,
            _ => return Err(Malformed),
        }
    }
    if groups == 0 { Ok(()) } else { Err(Malformed) }
}

fn take<'a>(encoded: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = encoded.split_at_checked(length).ok_or(Malformed)?;
    *encoded = rest;
    Ok(taken)
}

/// A varint of at most ten bytes, as in prost.
fn varint(encoded: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for (at, &byte) in encoded.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *encoded = &encoded[at + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// Returns the reason if a request must not be decoded.
fn check<T: Tallied>(encoded: &[u8]) -> Result<(), Status> {
    let Ok(Tally { messages, headers }) = T::tally(encoded) else {
        // The same answer as tonic's when prost refuses a message.
        return Err(Status::internal("failed to decode Protobuf message: a length or a tag in it is wrong"));
    };
    parse::check_run_length(messages).map_err(|error| to_status(&error))?;
    if headers > MAX_HEADERS {
        return Err(to_status(&BrokerError::TooManyHeaders { found: headers }));
    }
    Ok(())
}

/// prost's codec, for requests that are tallied before decoding.
pub(super) struct TalliedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for TalliedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Tallied> Codec for TalliedCodec<T, U> {
    type Decode = U;
    type Decoder = TalliedDecoder<U>;
    type Encode = T;
    type Encoder = ProstEncoder<T>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        TalliedDecoder(ProstDecoder::default())
    }
}

/// See [`TalliedCodec`].
pub(super) struct TalliedDecoder<U>(ProstDecoder<U>);

impl<U: Tallied> Decoder for TalliedDecoder<U> {
    type Error = Status;
    type Item = U;

    fn decode(&mut self, encoded: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // tonic passes the whole message in one piece.
        check::<U>(bytes::Buf::chunk(encoded))?;
        self.0.decode(encoded)
    }
}

/// Tallies a request of a push stream, as the service does before decoding. For benchmarks.
///
/// # Errors
/// The refusal that the service would send.
#[cfg(feature = "testing")]
pub fn tally_run(encoded: &[u8]) -> Result<(), Box<Status>> {
    check::<PushStreamRequest>(encoded).map_err(Box::new)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rmom_proto::messages::{
        Header, ProducerStamp, PushMessage, PushStreamMessages, PushStreamOpen, push_stream_request::Request,
    };

    use super::*;

    fn headers() -> impl Strategy<Value = Vec<Header>> {
        let header = ("[a-z]{0,4}", prop::collection::vec(any::<u8>(), 0..6))
            .prop_map(|(name, value)| Header { name, value: value.into() });
        prop::collection::vec(header, 0..6)
    }

    fn content() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
    }

    fn pushes() -> impl Strategy<Value = Push> {
        (content(), "[a-z]{0,4}", headers(), any::<u64>(), any::<bool>()).prop_map(
            |(content, topic, headers, number, stamped)| Push {
                content,
                topic,
                queue_label: "q".into(),
                producer: stamped.then(|| ProducerStamp {
                    id: vec![7; 16].into(),
                    epoch: number,
                    lowest_unacknowledged: 1,
                }),
                sequence: number,
                headers,
                ttl_millis: number / 3,
                queue_id: 9,
            },
        )
    }

    fn requests() -> impl Strategy<Value = PushStreamRequest> {
        let message = (content(), "[a-z]{0,4}", headers(), any::<u64>())
            .prop_map(|(content, topic, headers, ttl_millis)| PushMessage { content, topic, headers, ttl_millis });
        let run = (any::<u64>(), prop::collection::vec(message, 0..6)).prop_map(|(number, messages)| {
            Request::Messages(PushStreamMessages {
                first_sequence: number,
                messages,
                lowest_unacknowledged: number / 2,
            })
        });
        let open = any::<u64>()
            .prop_map(|queue_id| Request::Open(PushStreamOpen { queue_label: "q".into(), producer: None, queue_id }));
        prop_oneof![4 => run, 1 => open].prop_map(|request| PushStreamRequest { request: Some(request) })
    }

    fn decoded_push(push: &Push) -> Tally {
        Tally { messages: 1, headers: push.headers.len() }
    }

    fn decoded_request(request: &PushStreamRequest) -> Tally {
        let Some(Request::Messages(run)) = &request.request else { return Tally::default() };
        let headers = run.messages.iter().map(|message| message.headers.len()).max().unwrap_or(0);
        Tally { messages: run.messages.len(), headers }
    }

    /// Either prost also refuses the damaged bytes, or the tally is no lower than what prost decodes.
    fn agrees<T: Tallied + std::fmt::Debug>(encoded: &[u8], decoded: fn(&T) -> Tally) {
        match (T::tally(encoded), T::decode(encoded)) {
            (Ok(tally), Ok(found)) => {
                let found = decoded(&found);
                assert!(tally.messages >= found.messages && tally.headers >= found.headers, "{tally:?} {found:?}");
            }
            (Err(Malformed), Ok(found)) => panic!("prost reads {found:?}"),
            (_, Err(_)) => {}
        }
    }

    /// Places to overwrite, and the length to keep.
    fn damage() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, prop::sample::Index)> {
        (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), any::<prop::sample::Index>())
    }

    fn damaged(
        mut encoded: Vec<u8>,
        damage: &[(prop::sample::Index, u8)],
        end: Option<prop::sample::Index>,
    ) -> Vec<u8> {
        if !encoded.is_empty() {
            damage.iter().for_each(|(at, byte)| *at.get_mut(&mut encoded) = *byte);
        }
        if let Some(end) = end {
            encoded.truncate(end.index(encoded.len() + 1));
        }
        encoded
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_counted(push in pushes(), request in requests()) {
            prop_assert_eq!(Push::tally(&push.encode_to_vec()), Ok(decoded_push(&push)));
            prop_assert_eq!(PushStreamRequest::tally(&request.encode_to_vec()), Ok(decoded_request(&request)));
        }

        #[test]
        fn no_damage_hides_anything(push in pushes(), request in requests(), (places, end) in damage(), cut in any::<bool>()) {
            let end = cut.then_some(end);
            agrees(&damaged(push.encode_to_vec(), &places, end), decoded_push);
            agrees(&damaged(request.encode_to_vec(), &places, end), decoded_request);
        }

        #[test]
        fn nonsense_hides_nothing(bytes in prop::collection::vec(prop_oneof![Just(0x12_u8), Just(0x1a), Just(0x32), 0..32_u8, any::<u8>()], 0..64)) {
            agrees(&bytes, decoded_push);
            agrees(&bytes, decoded_request);
        }
    }

    #[test]
    fn parts_of_one_run_add_up() {
        let part = |messages| {
            let run = PushStreamMessages { messages: vec![PushMessage::default(); messages], ..Default::default() };
            PushStreamRequest { request: Some(Request::Messages(run)) }.encode_to_vec()
        };
        let both = [part(2), part(3)].concat();
        assert_eq!(PushStreamRequest::decode(&both[..]).map(|request| decoded_request(&request).messages), Ok(5));
        assert_eq!(PushStreamRequest::tally(&both).map(|tally| tally.messages), Ok(5));
    }

    /// prost decodes the inner message in full before it notices that it reaches beyond the outer one.
    #[test]
    fn a_message_that_is_longer_than_its_run_is_refused() {
        let headers = [0x1a, 0].repeat(100);
        let encoded = [&[0x12, 2, 0x12, 200][..], &[1], &headers].concat();
        assert!(PushStreamRequest::decode(&encoded[..]).is_err());
        assert_eq!(PushStreamRequest::tally(&encoded), Err(Malformed));
    }
}
