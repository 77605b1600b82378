from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QueueActivity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUEUE_ACTIVITY_UNSPECIFIED: _ClassVar[QueueActivity]
    QUEUE_ACTIVITY_WAITING: _ClassVar[QueueActivity]
    QUEUE_ACTIVITY_SERVED: _ClassVar[QueueActivity]
    QUEUE_ACTIVITY_HALTED: _ClassVar[QueueActivity]
QUEUE_ACTIVITY_UNSPECIFIED: QueueActivity
QUEUE_ACTIVITY_WAITING: QueueActivity
QUEUE_ACTIVITY_SERVED: QueueActivity
QUEUE_ACTIVITY_HALTED: QueueActivity

class SubscriptionRequest(_message.Message):
    __slots__ = ("channel_id", "position")
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    channel_id: str
    position: Position
    def __init__(self, channel_id: _Optional[str] = ..., position: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("queue_id", "epoch", "offset")
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    queue_id: int
    epoch: int
    offset: int
    def __init__(self, queue_id: _Optional[int] = ..., epoch: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("id", "content", "topic", "offset", "headers", "ttl_millis")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    TTL_MILLIS_FIELD_NUMBER: _ClassVar[int]
    id: str
    content: bytes
    topic: str
    offset: int
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    ttl_millis: int
    def __init__(self, id: _Optional[str] = ..., content: _Optional[bytes] = ..., topic: _Optional[str] = ..., offset: _Optional[int] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., ttl_millis: _Optional[int] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class Push(_message.Message):
    __slots__ = ("content", "topic", "queue_label", "producer", "sequence", "headers", "ttl_millis", "queue_id")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LABEL_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    TTL_MILLIS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    topic: str
    queue_label: str
    producer: ProducerStamp
    sequence: int
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    ttl_millis: int
    queue_id: int
    def __init__(self, content: _Optional[bytes] = ..., topic: _Optional[str] = ..., queue_label: _Optional[str] = ..., producer: _Optional[_Union[ProducerStamp, _Mapping]] = ..., sequence: _Optional[int] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., ttl_millis: _Optional[int] = ..., queue_id: _Optional[int] = ...) -> None: ...

class ProducerStamp(_message.Message):
    __slots__ = ("id", "epoch", "lowest_unacknowledged")
    ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LOWEST_UNACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    epoch: int
    lowest_unacknowledged: int
    def __init__(self, id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., lowest_unacknowledged: _Optional[int] = ...) -> None: ...

class PushOkResponse(_message.Message):
    __slots__ = ("id", "offset", "duplicate", "queue_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    offset: int
    duplicate: bool
    queue_id: int
    def __init__(self, id: _Optional[str] = ..., offset: _Optional[int] = ..., duplicate: bool = ..., queue_id: _Optional[int] = ...) -> None: ...

class PushStreamRequest(_message.Message):
    __slots__ = ("open", "messages")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    open: PushStreamOpen
    messages: PushStreamMessages
    def __init__(self, open: _Optional[_Union[PushStreamOpen, _Mapping]] = ..., messages: _Optional[_Union[PushStreamMessages, _Mapping]] = ...) -> None: ...

class PushStreamOpen(_message.Message):
    __slots__ = ("queue_label", "producer", "queue_id")
    QUEUE_LABEL_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    queue_label: str
    producer: ProducerStamp
    queue_id: int
    def __init__(self, queue_label: _Optional[str] = ..., producer: _Optional[_Union[ProducerStamp, _Mapping]] = ..., queue_id: _Optional[int] = ...) -> None: ...

class PushStreamMessages(_message.Message):
    __slots__ = ("first_sequence", "messages", "lowest_unacknowledged")
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    LOWEST_UNACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    first_sequence: int
    messages: _containers.RepeatedCompositeFieldContainer[PushMessage]
    lowest_unacknowledged: int
    def __init__(self, first_sequence: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[PushMessage, _Mapping]]] = ..., lowest_unacknowledged: _Optional[int] = ...) -> None: ...

class PushMessage(_message.Message):
    __slots__ = ("content", "topic", "headers", "ttl_millis")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    TTL_MILLIS_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    topic: str
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    ttl_millis: int
    def __init__(self, content: _Optional[bytes] = ..., topic: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., ttl_millis: _Optional[int] = ...) -> None: ...

class PushAck(_message.Message):
    __slots__ = ("through_sequence", "offset", "queue_id", "duplicates")
    THROUGH_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    through_sequence: int
    offset: int
    queue_id: int
    duplicates: int
    def __init__(self, through_sequence: _Optional[int] = ..., offset: _Optional[int] = ..., queue_id: _Optional[int] = ..., duplicates: _Optional[int] = ...) -> None: ...

class OpenProducerRequest(_message.Message):
    __slots__ = ("queue_label", "producer_id")
    QUEUE_LABEL_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    queue_label: str
    producer_id: bytes
    def __init__(self, queue_label: _Optional[str] = ..., producer_id: _Optional[bytes] = ...) -> None: ...

class OpenProducerResponse(_message.Message):
    __slots__ = ("producer_epoch", "last_sequence", "queue_id")
    PRODUCER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    producer_epoch: int
    last_sequence: int
    queue_id: int
    def __init__(self, producer_epoch: _Optional[int] = ..., last_sequence: _Optional[int] = ..., queue_id: _Optional[int] = ...) -> None: ...

class RefreshRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RefreshResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeQueueRequest(_message.Message):
    __slots__ = ("queue_label",)
    QUEUE_LABEL_FIELD_NUMBER: _ClassVar[int]
    queue_label: str
    def __init__(self, queue_label: _Optional[str] = ...) -> None: ...

class DescribeQueueResponse(_message.Message):
    __slots__ = ("queue_id", "epoch", "last_offset", "depth_messages", "depth_bytes", "oldest_age_millis", "subscribers")
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DEPTH_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    DEPTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AGE_MILLIS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    queue_id: int
    epoch: int
    last_offset: int
    depth_messages: int
    depth_bytes: int
    oldest_age_millis: int
    subscribers: _containers.RepeatedCompositeFieldContainer[SubscriberInfo]
    def __init__(self, queue_id: _Optional[int] = ..., epoch: _Optional[int] = ..., last_offset: _Optional[int] = ..., depth_messages: _Optional[int] = ..., depth_bytes: _Optional[int] = ..., oldest_age_millis: _Optional[int] = ..., subscribers: _Optional[_Iterable[_Union[SubscriberInfo, _Mapping]]] = ...) -> None: ...

class SubscriberInfo(_message.Message):
    __slots__ = ("channel_id", "topic", "peer", "offset", "lag")
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    channel_id: str
    topic: str
    peer: str
    offset: int
    lag: int
    def __init__(self, channel_id: _Optional[str] = ..., topic: _Optional[str] = ..., peer: _Optional[str] = ..., offset: _Optional[int] = ..., lag: _Optional[int] = ...) -> None: ...

class ListQueueStatesRequest(_message.Message):
    __slots__ = ("first_label", "last_label")
    FIRST_LABEL_FIELD_NUMBER: _ClassVar[int]
    LAST_LABEL_FIELD_NUMBER: _ClassVar[int]
    first_label: str
    last_label: str
    def __init__(self, first_label: _Optional[str] = ..., last_label: _Optional[str] = ...) -> None: ...

class ListQueueStatesResponse(_message.Message):
    __slots__ = ("queues",)
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[QueueState]
    def __init__(self, queues: _Optional[_Iterable[_Union[QueueState, _Mapping]]] = ...) -> None: ...

class QueueState(_message.Message):
    __slots__ = ("queue_id", "activity", "reason", "epoch", "last_offset", "depth_messages", "depth_bytes", "oldest_age_millis", "subscribers", "largest_lag")
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DEPTH_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    DEPTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AGE_MILLIS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_LAG_FIELD_NUMBER: _ClassVar[int]
    queue_id: int
    activity: QueueActivity
    reason: str
    epoch: int
    last_offset: int
    depth_messages: int
    depth_bytes: int
    oldest_age_millis: int
    subscribers: int
    largest_lag: int
    def __init__(self, queue_id: _Optional[int] = ..., activity: _Optional[_Union[QueueActivity, str]] = ..., reason: _Optional[str] = ..., epoch: _Optional[int] = ..., last_offset: _Optional[int] = ..., depth_messages: _Optional[int] = ..., depth_bytes: _Optional[int] = ..., oldest_age_millis: _Optional[int] = ..., subscribers: _Optional[int] = ..., largest_lag: _Optional[int] = ...) -> None: ...

class ListComplaintsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListComplaintsResponse(_message.Message):
    __slots__ = ("complaints",)
    COMPLAINTS_FIELD_NUMBER: _ClassVar[int]
    complaints: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, complaints: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateQueueRequest(_message.Message):
    __slots__ = ("queue_label",)
    QUEUE_LABEL_FIELD_NUMBER: _ClassVar[int]
    queue_label: str
    def __init__(self, queue_label: _Optional[str] = ...) -> None: ...

class CreateQueueOkResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteQueueRequest(_message.Message):
    __slots__ = ("queue_label",)
    QUEUE_LABEL_FIELD_NUMBER: _ClassVar[int]
    queue_label: str
    def __init__(self, queue_label: _Optional[str] = ...) -> None: ...

class DeleteQueueOkResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RebuildQueueRequest(_message.Message):
    __slots__ = ("queue_label",)
    QUEUE_LABEL_FIELD_NUMBER: _ClassVar[int]
    queue_label: str
    def __init__(self, queue_label: _Optional[str] = ...) -> None: ...

class RebuildQueueOkResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateChannelRequest(_message.Message):
    __slots__ = ("queue_label", "topic")
    QUEUE_LABEL_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    queue_label: str
    topic: str
    def __init__(self, queue_label: _Optional[str] = ..., topic: _Optional[str] = ...) -> None: ...

class CreateChannelResponse(_message.Message):
    __slots__ = ("channel_id",)
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    channel_id: str
    def __init__(self, channel_id: _Optional[str] = ...) -> None: ...

class DeleteChannelRequest(_message.Message):
    __slots__ = ("channel_id",)
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    channel_id: str
    def __init__(self, channel_id: _Optional[str] = ...) -> None: ...

class DeleteChannelOkResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HeartbeatOkResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
