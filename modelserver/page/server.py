"""The page's HTTP server: its paths, and the headers of every answer.

What is shown is read at most once a second, however many look.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from celery import Celery

from modelserver.errors import ModelserverError, StoreUnreachableError
from modelserver.page.acting import ACTIONS, Button, page_of
from modelserver.page.door import COOKIE, SESSION_SECONDS, Door
from modelserver.page.drawing import Drawing
from modelserver.page.pages import PAGES, fleet_page
from modelserver.page.reading import FleetReader, FleetReading
from modelserver.settings import Settings
from modelserver.store import Store, connect

#: The largest body that is read, in bytes: forms are small.
MOST_BODY_BYTES = 16_384
#: A form that has not come after so many seconds is not waited for.
FORM_SECONDS = 10.0
#: The fleet is read again after so many seconds, if somebody looks.
FRESH_SECONDS = 1.0
#: The fleet is read so often where nobody looks, in seconds: how long requests wait
#: is known from earlier looks.
WATCH_SECONDS = 10.0
#: Beside this module: all that is sent as it is.
STATIC = Path(__file__).parent / "static"
#: What is told without a password.
OPEN_PATHS = frozenset(
    {"/health", "/login", *(f"/static/{each.name}" for each in STATIC.iterdir())}
)
#: Sent with every answer: nothing comes from elsewhere, and nobody frames it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

#: The session that a request is of, "" for none.
SESSION = web.RequestKey("session", str)

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class PageOptions:
    """How the page is served."""

    #: Who orders what buttons order.
    who: str
    #: Whether there are buttons.
    actions: bool = False
    #: Where Flower is, "" for nowhere.
    flower_url: str = ""


class PageServer:
    """One process of the page."""

    def __init__(
        self, settings: Settings, app: Celery, password: str, options: PageOptions
    ) -> None:
        self._settings = settings
        self._app = app
        self._options = options
        self._door = Door(password)
        self._drawing = Drawing()
        self._reader = FleetReader(settings)
        self._store: Store | None = None
        self._view: FleetReading | None = None
        self._read_at = -math.inf
        self._reading = asyncio.Lock()
        self._files = {path.name: path.read_bytes() for path in STATIC.iterdir()}

    def application(self) -> web.Application:
        """The server's application."""
        app = web.Application(
            middlewares=[self._guarded], client_max_size=MOST_BODY_BYTES
        )
        app.add_routes(
            [
                web.get("/", self._page),
                *(web.get(f"/{folder}/{{name}}", self._page) for folder in PAGES),
                web.post("/{folder}/{name}/{action}", self._act),
                web.post("/login", self._log_in),
                web.get("/login", self._to_start),
                web.post("/logout", self._log_out),
                web.get("/health", self._health),
                web.get("/static/{name}", self._static),
            ]
        )
        app.cleanup_ctx.append(self._watching)
        return app

    async def _watching(self, app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        yield
        task.cancel()

    async def _watch(self) -> None:
        while True:
            try:
                # Whoever looks is told that Redis does not answer.
                with suppress(ModelserverError):
                    await self._fleet()
            except Exception:
                logger.exception("the fleet could not be read")
            await asyncio.sleep(WATCH_SECONDS)

    # Every answer.

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        session = request.cookies.get(COOKIE, "")
        is_open = self._door.is_open(session, time.time())
        request[SESSION] = session if is_open else ""
        try:
            if is_open or request.path in OPEN_PATHS:
                response = await handler(request)
            else:
                response = self._login_page(401)
        except web.HTTPException as error:
            response = self._failure(request, error.status, error.reason)
        except StoreUnreachableError as error:
            self._store = None
            response = self._failure(request, 503, str(error))
        except ModelserverError as error:
            response = self._failure(request, 409, str(error))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            response = self._failure(request, 500, "the page failed; see its log")
        response.headers.update(HEADERS)
        return response

    def _failure(self, request: web.Request, status: int, text: str) -> web.Response:
        content = self._drawing.draw("failure.html", text=text)
        return self._html(request, "Failure", content, status)

    def _html(
        self, request: web.Request, title: str, content: str, status: int = 200
    ) -> web.Response:
        """A whole page, or only what changes of it where that is asked for."""
        session = request.get(SESSION, "")
        if "part" not in request.query:
            content = self._drawing.draw(
                "shell.html",
                title=title,
                content=content,
                # What answers an order is at no address that can be read again.
                follows=request.method == "GET",
                options=self._options,
                token=self._door.token(session) if session else "",
            )
        return web.Response(text=content, status=status, content_type="text/html")

    # Reading.

    async def _fleet(self) -> FleetReading:
        """The fleet as it was a second ago at most. Raises StoreUnreachableError."""
        async with self._reading:
            if self._view and time.monotonic() - self._read_at < FRESH_SECONDS:
                return self._view
            self._view = await asyncio.to_thread(self._read)
            self._read_at = time.monotonic()
            return self._view

    def _read(self) -> FleetReading:
        try:
            return self._reader.read(self._opened())
        except StoreUnreachableError:
            # An embedded server may come back with another address.
            self._store = None
            raise

    def _opened(self) -> Store:
        store = self._store = self._store or connect(self._settings)
        return store

    async def _page(self, request: web.Request) -> web.Response:
        view = await self._fleet()
        name = request.match_info.get("name", "")
        folder = request.path.split("/")[1]
        page = PAGES[folder](view, name) if folder else fleet_page(view)
        if page is None:
            text = f"there is no {folder.rstrip('s')} {name}"
            return self._failure(request, 404, text)
        content = self._drawing.draw(
            page.template,
            view=view,
            actions=self._options.actions,
            token=self._door.token(request[SESSION]),
            **page.values,
        )
        return self._html(request, page.title, content)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._files:
            raise web.HTTPNotFound
        kind = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
        return web.Response(
            body=self._files[name], content_type=kind[name.rpartition(".")[2]]
        )

    # Coming in, and going.

    def _login_page(self, status: int, text: str = "") -> web.Response:
        content = self._drawing.draw("login.html", text=text)
        return web.Response(text=content, status=status, content_type="text/html")

    async def _to_start(self, request: web.Request) -> web.Response:
        return _go_to("/")

    async def _log_in(self, request: web.Request) -> web.Response:
        # Before anything is counted: nothing else may run in between.
        form = await _form(request)
        address, now = request.remote or "", time.time()
        if wait := math.ceil(self._door.wait_seconds(address, now)):
            text = f"too many wrong passwords; wait for {wait} s"
            response = self._login_page(429, text)
            response.headers["Retry-After"] = str(wait)
            return response
        if not self._door.is_right(form.get("password", ""), address, now):
            logger.warning("a wrong password came from %s", address)
            return self._login_page(403, "that is not the password")
        response = _go_to("/")
        response.set_cookie(
            COOKIE,
            self._door.open_session(now),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="Strict",
            # Whoever forges it makes only a cookie of their own stricter.
            secure=request.headers.get("X-Forwarded-Proto") == "https",
        )
        return response

    async def _log_out(self, request: web.Request) -> web.Response:
        await self._checked_form(request)
        response = _go_to("/")
        response.del_cookie(COOKIE)
        return response

    # Acting.

    async def _act(self, request: web.Request) -> web.Response:
        await self._checked_form(request)
        names = request.match_info
        act = ACTIONS.get((names["folder"], names["action"]))
        if act is None:
            raise web.HTTPNotFound
        if not self._options.actions:
            text = "the page only shows; start it with --actions for buttons"
            return self._failure(request, 403, text)
        target, who = names["name"], self._options.who
        logger.info("%s orders: %s %s", who, names["action"], target)

        def press() -> None:
            act(Button(self._opened(), self._settings, self._app, target, who))

        await asyncio.to_thread(press)
        async with self._reading:
            self._read_at = -math.inf
        return _go_to(page_of(names["folder"], target))

    async def _checked_form(self, request: web.Request) -> None:
        """Refuse a form that does not come from a page of this session."""
        form = await _form(request)
        if not self._door.is_token(form.get("token", ""), request[SESSION]):
            raise web.HTTPForbidden(
                reason="the form is not of this session; load the page again"
            )


async def _form(request: web.Request) -> dict[str, str]:
    """The texts of a form. Raises HTTPRequestTimeout, HTTPRequestEntityTooLarge."""
    try:
        async with asyncio.timeout(FORM_SECONDS):
            form = await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (ValueError, LookupError, web.RequestPayloadError):
        raise web.HTTPBadRequest from None
    return {name: value for name, value in form.items() if isinstance(value, str)}


def _go_to(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})
