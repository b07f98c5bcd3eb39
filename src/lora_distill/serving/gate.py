"""What every request passes on its way in and out: name, key, size, time, headers, log and count."""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

# What a browser may load: this server's own files, nothing inline, nothing from elsewhere.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
CLIENT_GONE = 499  # in logs and metrics, as nginx has it; nobody reads the answer
MOST_HELD = 2**26  # bytes of all bodies together, unless one alone may have more
Observe = Callable[[str, int, float], None]  # path, status, seconds


def is_local(host: str) -> bool:
    """Whether it is a name or an address by which a machine means itself."""
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """ASGI middleware.

    Args:
        app: what answers.
        key: that requests must bear; none if empty.
        local: whether only such requests are taken as name this machine as it names itself. A browser lets a site's
            pages ask under the site's name, which its owner may have lead here.
        is_open: whether a GET of this path needs no key; nor does a HEAD then.
        max_body: bytes of a request's body.
        timeout: seconds for a body to arrive.
        observe: is told of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: str,
        local: bool,
        is_open: Callable[[str], bool],
        max_body: int,
        timeout: float,
        observe: Observe,
    ) -> None:
        self._app, self._local, self._is_open, self._observe = app, local, is_open, observe
        self._key = key.encode()
        self._max_body, self._timeout = max_body, timeout
        self._held = 0  # bytes of the bodies of all requests that are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, method, body = time.perf_counter(), 0, scope["method"], _Body()
        if method == "HEAD":  # a GET whose answer has no body, which the server leaves out
            scope = {**scope, "method": "GET"}

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if refusal := self._refusal(scope):
                await refusal(scope, receive, send_with_headers)
            else:
                await self._app(scope, self._limited(receive, body), send_with_headers)
        except Exception:
            logger.exception("failed")
            if not status:
                problem = JSONResponse({"error": "The server failed; its log says where."}, 500)
                await problem(scope, receive, send_with_headers)
        finally:
            self._held -= body.size
            self._tell(scope, method, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if self._local and not _names_this_machine(headers.get("host", "")):
            reason = "Ask this server as localhost or 127.0.0.1; it takes other names where it has a key."
            return JSONResponse({"error": reason}, 421)
        if self._key and not (scope["method"] == "GET" and self._is_open(scope["path"])):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if not hmac.compare_digest(given.encode("latin-1"), self._key) or scheme.lower() != "bearer":
                reason = "This needs the server's key: send the header 'Authorization: Bearer KEY'."
                return JSONResponse({"error": reason}, 401, {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._max_body:
            return JSONResponse({"error": self._too_large()}, 413)
        return None

    def _too_large(self) -> str:
        return f"A request's body has at most {self._max_body:,} bytes here. Send the texts in several requests."

    def _limited(self, receive: Receive, body: "_Body") -> Receive:
        """`receive` that ends a body that is too large or too slow, or one too many."""
        deadline = asyncio.get_running_loop().time() + self._timeout

        async def limited() -> Message:
            if body.is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                reason = f"The request's body did not arrive within {self._timeout:g} seconds."
                raise HTTPException(408, reason, {"Connection": "close"}) from None
            if message["type"] == "http.disconnect":
                raise HTTPException(CLIENT_GONE)
            came = len(message.get("body", b""))
            body.size += came
            self._held += came
            if body.size > self._max_body:
                raise HTTPException(413, self._too_large())
            if self._held > max(MOST_HELD, self._max_body):
                raise HTTPException(503, "Too much is sent here at once. Ask again.", {"Retry-After": "1"})
            body.is_whole = not message.get("more_body", False)
            return message

        return limited

    def _tell(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "") or "none"
        self._observe(path, status, seconds)
        fields = {"method": method, "path": path, "status": status, "ms": round(1000 * seconds, 2)}
        if "texts" in scope.get("state", {}):
            fields["texts"] = scope["state"]["texts"]
        logger.info("request", extra={"fields": fields})


@dataclass
class _Body:
    """What has come of a request's."""

    size: int = 0
    is_whole: bool = False


def _names_this_machine(host: str) -> bool:
    """Of a request's header; without one it is no browser's."""
    try:
        return not host or is_local(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
