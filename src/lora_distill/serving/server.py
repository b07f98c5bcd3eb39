"""A server process: its socket, its key, its start and its end."""

import asyncio
import logging
import math
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lora_distill.deployment.classifier import Classifier
from lora_distill.errors import UserError
from lora_distill.home import expanded
from lora_distill.run_folder import RunFolder
from lora_distill.serving.app import create_app
from lora_distill.serving.gate import is_local
from lora_distill.serving.logs import log_as_json
from lora_distill.serving.settings import ServeSettings

logger = logging.getLogger(__name__)

KEY = "LORA_DISTILL_KEY"  # environment variable
CARDS = ("README.md", "student/README.md")  # of an exported folder, of a run
IDLE_SECONDS = 15  # that a connection is kept without a request's head, or with an answer that is not read
LEAST_READ = 2**14  # bytes of an answer that count as reading, in those seconds
MOST_HEAD = 2**16  # bytes of a request's head
OTHER_CONNECTIONS = 384  # than those whose texts wait or are computed; what is over is dropped, before 1,024 files
BACKLOG = 1000  # connections that wait to be accepted


def serve(folder: Path, settings: ServeSettings, announce: Callable[[str], None]) -> None:
    """Serve a model until the process is asked to stop (SIGINT, SIGTERM), and then finish what was accepted.

    Args:
        folder: as `Classifier.load` takes it.
        settings: where to listen, and what is taken.
        announce: is told the server's URL once it answers.

    Raises:
        UserError: the model cannot be used, the address cannot be had, or the key cannot be read.
    """
    key, folder = read_key(settings.key_file), expanded(folder, f"model {folder}")
    with listen(settings.host, settings.port) as listener:
        classifier = Classifier.load(folder, threads=settings.threads)
        first = "The first text takes longer than those after it."
        classifier.logits([(first, first)] if classifier.pairs else [first])
        log_as_json()
        if not key and not is_local(settings.host):
            logger.warning("Whoever can reach this server can use it: it has no key.")
        app = create_app(classifier, settings, key=key, card=read_card(folder))
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        with suppress(KeyboardInterrupt):  # the signal that stopped it, which uvicorn raises again when all is done
            Server(configure(app, settings), lambda: announce(url)).run(sockets=[listener])


def configure(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """How uvicorn runs the application."""
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_queue + settings.max_batch + OTHER_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=math.ceil(2 * settings.timeout) + 1,
    )


def read_key(file: str | None) -> str:
    """The key that requests must bear: from a file, else from the environment; empty if there is none.

    Raises:
        UserError: it cannot be read, or cannot stand in a header.
    """
    if file:
        origin = f"--key_file {file}"
        try:
            key = expanded(file, origin).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "is not UTF-8"
            raise UserError(f"{origin}: {reason}. Give a file that holds the key and nothing else.") from None
    else:
        origin = KEY
        if KEY not in os.environ:
            return ""
        key = os.environ[KEY].strip()
    if not key or not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(
            f"{origin}: holds no key. It is a word of printable ASCII, such as `openssl rand -hex 32` gives."
        )
    return key


def read_card(folder: Path) -> str:
    """The model card, in Markdown, without places of this machine; empty if there is none."""
    card = next((folder / name for name in CARDS if (folder / name).is_file()), None)
    if not card:
        return ""
    text, run = card.read_text(encoding="utf-8", errors="replace"), RunFolder(card.resolve().parent.parent)
    if not run.finished:
        return text
    from lora_distill.reporting.public import public_text  # for a run, which needs more than what serving brings

    return public_text(text, run)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        UserError: the address is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, TypeError, UnicodeError) as error:  # the latter two: it is no name that a host can have
        reason = (getattr(error, "strerror", None) or "no such host").partition(" (")[0]  # the rest repeats the address
        raise UserError(
            f"--host {host} --port {port}: {reason}. Give another; --port 0 takes one that is free."
        ) from None


class Server(uvicorn.Server):
    """Uvicorn's, which says when it answers."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._announce()


class _Parser:
    """Httptools' parser, for which a request that asks for another protocol is one like others.

    A server may ignore that (RFC 9110, 7.8), and here there is no other. But Java's client asks for HTTP/2 with each
    request, and httptools takes what follows such a head for that protocol: the body would be lost, or be read as the
    next request. So that head is read once more, without what it asks for.
    """

    def __init__(self, protocol: "_Protocol") -> None:
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


class _Protocol(HttpToolsProtocol):
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
        super().connection_made(transport)
        most, self.limit_concurrency = self.limit_concurrency, None
        if most and len(self.connections) > most:
            transport.abort()
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        self._outside += len(data)
        super().data_received(data)
        if self._outside > MOST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"A request's head has at most {MOST_HEAD:,} bytes here.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():  # it will be read once more
            return
        self._outside = 0
        self._expect_no_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._outside = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # else another request came meanwhile
            self._expect_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._expect_no_reading()
        if self.transport.is_closing():  # the rest must be read too
            self._expect_reading()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()  # closes it, once all is read
        if not self._reading:
            self._expect_reading()

    def connection_lost(self, exc: Exception | None) -> None:
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
