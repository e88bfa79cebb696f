"""The demo's web server: a page of static files, and a JSON API to the runs.

    GET  /                            the page                    GET  /api/about          runs, limits, colours
    POST /api/runs/R/picture          upload -> square            GET  /api/examples?...   to pick from
    POST /api/runs/R/look|sweep|field question -> answer          GET  /api/examples/N     one, as a file

The server keeps no state: every request carries its picture, so visitors cannot see each other's pictures, and no
upload is written to disk. Only files in the folder ``static`` are served. Only this page can send requests: before a
browser sends these content types to another site, it asks for permission, which the server never grants.
"""

import contextlib
import errno
import functools
import ipaddress
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glimpsenet.demo.examples import Example
from glimpsenet.demo.exhibit import Exhibit, Question, read_question
from glimpsenet.demo.pictures import MAX_BYTES, MAX_PIXELS, make_square, thumbnail, to_url
from glimpsenet.errors import AddressError, DamagedError, SettingError, UserError
from glimpsenet.inspection.arrows import LONGEST
from glimpsenet.inspection.figures import PALETTE
from glimpsenet.runs import Run

STATIC = str(files("glimpsenet.demo") / "static")
THUMBNAIL = 80
"""Largest side of an example's thumbnail, in pixels."""
MAX_EXAMPLES = 24
"""Most examples per request."""
HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}
LOOPBACK_NAMES = ["localhost", "127.0.0.1", "::1", "[::1]"]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def build_app(exhibits: Sequence[Exhibit], examples: Sequence[Example], host: str = "127.0.0.1") -> Starlette:
    """The web application.

    Args:
        exhibits: runs to show; one or more.
        examples: images that visitors can pick.
        host: address to listen on; on loopback, only requests to this machine's own names are answered, whatever DNS
            says.
    """
    show = _Show(exhibits, examples)
    return Starlette(
        routes=[
            Route("/", _page),
            Route("/api/about", show.tell_about),
            Route("/api/examples", show.list_examples),
            Route("/api/examples/{place:int}", show.send_example),
            Route("/api/runs/{run:int}/picture", show.open_picture, methods=["POST"]),
            Route("/api/runs/{run:int}/look", show.ask(Exhibit.look, show.quick), methods=["POST"]),
            Route("/api/runs/{run:int}/sweep", show.ask(Exhibit.sweep, show.slow), methods=["POST"]),
            Route("/api/runs/{run:int}/field", show.ask(Exhibit.field, show.slow), methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[
            Middleware(SafeHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES if is_loopback(host) else ["*"]),
        ],
        exception_handlers={UserError: _refuse, HTTPException: _refuse, ClientDisconnect: _leave, Exception: _fail},
    )


async def _page(_: Request) -> Response:
    return FileResponse(f"{STATIC}/index.html")


class _Show:
    """Endpoints under /api."""

    def __init__(self, exhibits: Sequence[Exhibit], examples: Sequence[Example]):
        self.exhibits, self.examples = exhibits, examples
        self.about: dict[str, Any] = {
            "palette": PALETTE,
            "longest_arrow": LONGEST,
            "max_bytes": MAX_BYTES,
            "max_pixels": MAX_PIXELS,
            "num_examples": len(examples),
            "runs": [exhibit.describe() for exhibit in exhibits],
        }
        # Looks are short and run in parallel; sweeps and decoding take long or much memory, and run one at a time.
        self.quick = anyio.CapacityLimiter(max(2, os.cpu_count() or 1))
        self.slow = anyio.CapacityLimiter(1)

    def exhibit_of(self, request: Request) -> Exhibit:
        place = request.path_params["run"]
        if place >= len(self.exhibits):
            raise UserError(f"no run {place} on this page; reload it")
        return self.exhibits[place]

    async def tell_about(self, _: Request) -> Response:
        return JSONResponse(self.about)

    async def open_picture(self, request: Request) -> Response:
        exhibit, upload = self.exhibit_of(request), await _body(request, "application/octet-stream")
        url = await anyio.to_thread.run_sync(lambda: to_url(make_square(upload, exhibit.run)), limiter=self.slow)
        return JSONResponse({"picture": url})

    def ask(self, call: Callable[[Exhibit, Question], dict[str, Any]], limiter: anyio.CapacityLimiter) -> Any:
        async def endpoint(request: Request) -> Response:
            exhibit, body = self.exhibit_of(request), await _body(request, "application/json")
            try:
                question = read_question(json.loads(body))
            except (ValueError, RecursionError) as error:
                raise DamagedError(f"cannot read the question: not JSON: {error}") from error
            return JSONResponse(await anyio.to_thread.run_sync(call, exhibit, question, limiter=limiter))

        return endpoint

    async def list_examples(self, request: Request) -> Response:
        try:
            start, count = (int(request.query_params[name]) for name in ("start", "count"))
        except (KeyError, ValueError) as error:
            raise UserError("start and count must be given as integers: ?start=0&count=8") from error
        chosen = range(len(self.examples))[max(0, start) : max(0, start) + min(count, MAX_EXAMPLES)]
        describe = functools.partial(_describe_example, self.examples, self.exhibits[0].run)
        rows = [await anyio.to_thread.run_sync(describe, place, limiter=self.slow) for place in chosen]
        return JSONResponse(rows)

    async def send_example(self, request: Request) -> Response:
        place = request.path_params["place"]
        if place >= len(self.examples):
            raise UserError(f"no example {place}; reload the page")
        example = await anyio.to_thread.run_sync(self.examples.__getitem__, place, limiter=self.slow)
        return Response(example.data, media_type="application/octet-stream")


class SafeHeaders:
    """Middleware: stops the browser from loading content from elsewhere, guessing types and caching."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add :data:`HEADERS` to the response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS.items()]
            await send(message)

        await self.app(scope, receive, send_with_headers)


async def _body(request: Request, media_type: str) -> bytes:
    """The body of a request, read up to the limit."""
    if request.headers.get("content-type", "").split(";")[0] != media_type:
        raise HTTPException(415, f"send {media_type}")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"the file is larger than {MAX_BYTES / 1e6:.0f} MB; send a smaller picture")
    return bytes(body)


def _describe_example(examples: Sequence[Example], run: Run, place: int) -> dict[str, Any]:
    try:
        example = examples[place]
        return {"place": place, "label": example.label, "thumbnail": thumbnail(example.data, run, THUMBNAIL)}
    except (UserError, OSError):  # reported when a visitor picks it
        return {"place": place, "label": None, "thumbnail": None}


def _refuse(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    return JSONResponse({"error": " ".join(str(error).split())}, 400)


def _leave(_: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the client has disconnected


def _fail(_: Request, error: Exception) -> Response:
    """A bug, or out of memory: report only the error's type, since its message may name files."""
    return JSONResponse({"error": f"the server could not answer ({type(error).__name__})"}, 500)


def serve(app: Starlette, host: str, port: int, tell: Callable[[str], None] = print) -> None:
    """Serve until interrupted.

    Args:
        app: from :func:`build_app`.
        host: address to listen on.
        port: 0 for any free port.
        tell: called with the address once the page can be opened.

    Raises:
        SettingError: if the port is out of range.
        UserError: if the server cannot listen on the address.
    """
    if not 0 <= port <= 65535:
        raise SettingError(f"port must be 0 to 65535, got {port}")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        way = "choose another port, or 0 for any free one" if taken else "choose another host or port"
        raise AddressError(f"cannot listen on {host}, port {port}: {error}; {way}") from error
    with listener:
        shown = f"[{host}]" if ":" in host else host
        tell(f"http://{shown}:{listener.getsockname()[1]}  (press Ctrl+C to stop)")
        sys.stdout.flush()
        # No access log, which would list every request; errors go to standard error.
        web = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        with contextlib.suppress(KeyboardInterrupt):  # the intended way to stop
            web.run(sockets=[listener])
