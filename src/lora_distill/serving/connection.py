"""A server's connections: which are kept, and how long."""

import asyncio
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

IDLE_SECONDS = 15  # that a connection is kept without a request's head, or with an answer that is not read
LEAST_READ = 2**14  # bytes of an answer that count as reading, in those seconds
MOST_HEAD = 2**16  # bytes of a request's head


class _Parser:
    """Httptools' parser, for which a request that asks for another protocol is one like others.

    A server may ignore that (RFC 9110, 7.8), and here there is no other. But Java's client asks for HTTP/2 with each
    request, and httptools takes what follows such a head for that protocol: the body would be lost, or be read as the
    next request. So that head is read once more, without what it asks for.
    """

    def __init__(self, protocol: "Protocol") -> None:
        self._protocol = protocol
        self._begin()

    def __getattr__(self, name: str) -> object:
        """All else is httptools'."""
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> None:
        """Read what has come."""
        while True:
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as asked:
                if self._parser.get_method() == b"CONNECT":
                    raise HttpParserError("this is no proxy") from None
                data = self._protocol.head() + data[asked.args[0] :]
                self._begin()

    def _begin(self) -> None:
        self._parser = HttpRequestParser(self._protocol)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it


class Protocol(HttpToolsProtocol):
    """Drops a connection whose next request's head does not come, does not end, or is too long.

    Nor does a body that goes on after its answer keep a connection: it counts as time without a head. Nor does an
    answer that is not read, which nobody but the client could end. A connection too many is dropped as it comes;
    uvicorn itself would keep it, and answer its requests in a form that is not ours and that nobody counts.
    """

    _head: asyncio.TimerHandle | None = None
    _outside = 0  # bytes since the last head or part of a body: of a head, a chunk's size or a trailer
    _reading: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **named)
        self.parser = _Parser(self)  # type: ignore[assignment] # has all of its that uvicorn uses

    def head(self) -> bytes:
        """Of the request that is read, without the protocol that it asks for."""
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Keep it, or drop one too many."""
        super().connection_made(transport)
        most, self.limit_concurrency = self.limit_concurrency, None
        if most and len(self.connections) > most:
            transport.abort()
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Read what has come, of a head no more than fits."""
        self._outside += len(data)
        super().data_received(data)
        if self._outside > MOST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"A request's head has at most {MOST_HEAD:,} bytes here.")

    def on_message_begin(self) -> None:
        """A request's head has begun."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """It has ended."""
        if self.parser.should_upgrade():  # it will be read once more
            return
        self._outside = 0
        self._expect_no_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request's body has ended."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """A part of it has come."""
        self._outside = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """The next request may come."""
        super().on_response_complete()
        if self.cycle.response_complete:  # else another request came meanwhile
            self._expect_head()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._expect_no_reading()
        if self.transport.is_closing():  # the rest must be read too
            self._expect_reading()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection on which nothing happens."""
        super().timeout_keep_alive_handler()  # closes it, once all is read
        if not self._reading:
            self._expect_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is awaited."""
        self._expect_no_head()
        self._expect_no_reading()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._expect_no_head()
        self._head = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _expect_no_head(self) -> None:
        if self._head:
            self._head.cancel()
            self._head = None

    def _expect_reading(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.timeout_keep_alive, self._check_reading, unread)

    def _check_reading(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() > unread - LEAST_READ:
            self.transport.abort()
        else:
            self._expect_reading()

    def _expect_no_reading(self) -> None:
        if self._reading:
            self._reading.cancel()
            self._reading = None
