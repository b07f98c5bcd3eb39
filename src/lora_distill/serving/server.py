"""A server process: its socket, its key, its start and its end."""

import logging
import math
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from lora_distill.deployment.classifier import Classifier
from lora_distill.errors import UserError
from lora_distill.home import expanded
from lora_distill.run_folder import RunFolder
from lora_distill.serving import connection
from lora_distill.serving.app import create_app
from lora_distill.serving.gate import is_local
from lora_distill.serving.logs import log_as_json
from lora_distill.serving.settings import ServeSettings

logger = logging.getLogger(__name__)

KEY = "LORA_DISTILL_KEY"  # environment variable
CARDS = ("README.md", "student/README.md")  # of an exported folder, of a run
OTHER_CONNECTIONS = 384  # than those whose texts wait or are computed; what is over is dropped
OTHER_FILES = 64  # than connections; with the defaults 1,024 in all
BACKLOG = 1000  # connections that wait to be accepted


def serve(folder: Path, settings: ServeSettings, announce: Callable[[str], None]) -> None:
    """Serve a model until the process is asked to stop (SIGINT, SIGTERM), and then finish what was accepted.

    Args:
        folder: as `Classifier.load` takes it.
        settings: where to listen, and what is taken.
        announce: is told the server's URL once it answers.

    Raises:
        UserError: the model cannot be used, the address cannot be had, the key cannot be read, or so many connections
            are more than this process may have.
    """
    key, folder = read_key(settings.key_file), expanded(folder, f"model {folder}")
    allow_files(settings)
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
        server = Server(configure(app, settings), lambda: announce(url))
        hang_up = getattr(signal, "SIGHUP", None)  # a closed terminal, which uvicorn does not know as an end
        with suppress(KeyboardInterrupt):  # the signal that stopped it, which uvicorn raises again when all is done
            if hang_up and signal.getsignal(hang_up) is not signal.SIG_IGN:
                signal.signal(hang_up, server.handle_exit)
            server.run(sockets=[listener])


def configure(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """How uvicorn runs the application."""
    return uvicorn.Config(
        app,
        http=connection.Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=connections(settings),
        timeout_keep_alive=connection.IDLE_SECONDS,
        timeout_graceful_shutdown=math.ceil(2 * settings.timeout) + 1,
    )


def connections(settings: ServeSettings) -> int:
    """That may be open at once."""
    return settings.max_queue + settings.max_batch + OTHER_CONNECTIONS


def allow_files(settings: ServeSettings) -> None:
    """Let this process have as many files open as it may have connections: over that, none could be accepted.

    Raises:
        UserError: it may not.
    """
    try:
        import resource
    except ModuleNotFoundError:  # where there is no such limit
        return
    needed, (now, most) = connections(settings) + OTHER_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (now, most) and most < needed:
        raise UserError(
            f"--max_queue {settings.max_queue}, --max_batch {settings.max_batch}: that takes {needed:,} open files, and"
            f" this process may have {most:,}.\nGive less, or raise the limit (ulimit -n)."
        )
    if now != resource.RLIM_INFINITY and now < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


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
            f"{origin}: holds no key that a request could bear. That is a word of printable ASCII, such as"
            " `openssl rand -hex 32` gives."
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
