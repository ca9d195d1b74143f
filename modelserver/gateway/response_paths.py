"""``/v1/responses``: what was answered, kept, shown and gone on from."""

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from modelserver.engine_protocol import RESPONSES_PATH
from modelserver.gateway.bodies import Asked
from modelserver.gateway.faults import Fault, Refused
from modelserver.gateway.responses import ResponseFolder, ResponseRecord, items_of
from modelserver.gateway.writing import json_response, list_page
from modelserver.inventory import GIB
from modelserver.operations.kept_responses import folder_of
from modelserver.settings import Settings

#: What nobody used for long is looked for so often, in seconds, and where so much of
#: what may be kept is new.
LOOK_SECONDS = 3_600.0
NEW_SHARE = 0.05
#: Ids of items that have none are made of their response's.
_IDS = uuid.UUID("0a0c9fc0-3b62-4b53-8f0c-2f6a4a7f4d51")

logger = logging.getLogger(__name__)


class ResponsePathsHandler:
    """Keeps responses, and answers what is asked about them."""

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self._folder = ResponseFolder(folder_of(settings.files_dir))
        self._most_bytes = settings.fleet.gateway.responses_gib * GIB
        name, told = "modelserver_gateway_responses_bytes", "Bytes of kept responses."
        self._size = Gauge(name, told, registry=registry)
        #: Bytes that were kept since the last look, and set where they are many.
        self._new = 0
        self._is_time = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """The paths."""
        one = f"{RESPONSES_PATH}/{{response}}"
        return [
            web.get(one, self._show),
            web.delete(one, self._remove),
            web.get(f"{one}/input_items", self._list_items),
        ]

    async def look_after(self) -> None:
        """Remove what is old or too much, for ever."""
        while True:
            try:
                left = await asyncio.to_thread(
                    self._folder.remove_old, time.time(), self._most_bytes
                )
                self._size.set(left)
            except OSError as error:
                logger.warning("old responses stay: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._is_time.wait()
            self._is_time.clear()
            self._new = 0

    async def with_past(self, request: web.Request, body: Any) -> Any:
        """A request's body with what was said before in its input. Raises Refused."""
        if request.path != RESPONSES_PATH or not isinstance(body, Mapping):
            return body
        return await asyncio.to_thread(
            self._folder.with_past, body, request["visitor"].owner
        )

    async def keep(
        self, request: web.Request, asked: Asked, answer: Mapping[str, Any]
    ) -> None:
        """Keep a response, if its client has not said that it shall not be."""
        if not asked.beside.get("store"):
            return
        record = ResponseRecord(
            answer,
            items_of(request["body"]["input"]),
            asked.beside["previous_response_id"] or "",
        )
        owner = request["visitor"].owner
        try:
            size = await asyncio.to_thread(self._folder.keep, record, owner)
        except OSError as error:
            # The answer is there: its client gets it.
            logger.warning("a response is not kept: %s", error)
            return
        self._size.inc(size)
        self._new += size
        if self._new > NEW_SHARE * self._most_bytes:
            self._is_time.set()

    async def _find(self, request: web.Request) -> ResponseRecord:
        name, owner = request.match_info["response"], request["visitor"].owner
        found = await asyncio.to_thread(self._folder.find, name, owner)
        if found is None:
            text = f"there is no response {name!r} of yours; it may be too old"
            raise Refused(Fault(404, text, param="id"))
        return found

    async def _show(self, request: web.Request) -> web.Response:
        return json_response((await self._find(request)).body)

    async def _remove(self, request: web.Request) -> web.Response:
        record = await self._find(request)
        await asyncio.to_thread(self._folder.remove, record, request["visitor"].owner)
        return json_response(
            {"id": record.body["id"], "object": "response", "deleted": True}
        )

    async def _list_items(self, request: web.Request) -> web.Response:
        record = await self._find(request)
        said = await asyncio.to_thread(
            self._folder.said, record, request["visitor"].owner
        )
        items = [
            {"id": _item_id(record, place), **said[place]}
            for place in reversed(range(len(said)))
        ]
        ids = [str(each["id"]) for each in items]
        return json_response(list_page(items, ids, lambda item: item, request.query))


def _item_id(record: ResponseRecord, place: int) -> str:
    """The id of an item that its client gave none; the same each time."""
    name = f"{record.body['id']} {place}"
    return f"msg_{uuid.uuid5(_IDS, name).hex}"
