"""Messages that a consumer has received and the application has not taken yet."""

from __future__ import annotations

from collections import deque

from .errors import MoMError, anew
from .model import Message, Position

#: Limit on the messages received ahead of the application; beyond it the broker has to wait.
MAX_MESSAGES = 1_000
#: The same limit in bytes of content.
MAX_BYTES = 4 << 20


class Inbox:
    """Messages in order, followed by the error that ended the consumer."""

    def __init__(self, position: Position | None) -> None:
        #: The last message that the application has taken.
        self.position = position
        self.error: MoMError | None = None
        self._messages: deque[tuple[Message, Position]] = deque()
        self._bytes = 0

    def is_full(self) -> bool:
        """True if the program has to wait."""
        return len(self._messages) >= MAX_MESSAGES or self._bytes >= MAX_BYTES

    def is_empty(self) -> bool:
        """True if there are no messages."""
        return not self._messages

    def fail(self, error: MoMError) -> None:
        """Ends the consumer once the application has taken all messages."""
        self.error = self.error or error

    def end(self, error: MoMError) -> None:
        """Ends it: the application takes no further messages."""
        self.fail(error)
        self._messages.clear()
        self._bytes = 0

    def put(self, message: Message, position: Position) -> None:
        """A message has arrived."""
        self._messages.append((message, position))
        self._bytes += len(message.content)

    def take(self) -> Message | None:
        """The next message. ``None`` means that there is none yet. Once all are taken, fails with the error that ended
        the consumer."""
        if not self._messages:
            if self.error is not None:
                raise anew(self.error)
            return None
        message, self.position = self._messages.popleft()
        self._bytes -= len(message.content)
        return message
