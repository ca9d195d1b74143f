"""``/v1/responses``: what was answered, kept, shown and gone on from."""

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from modelserver.engine_protocol import RESPONSES_PATH
from modelserver.gateway.bodies import Asked
from modelserver.gateway.faults import Fault, Refused
from modelserver.gateway.responses import ResponseFolder, ResponseRecord, items_of
from modelserver.gateway.writing import json_response, list_page
from modelserver.settings import Settings

#: What nobody used for long is looked for so often, in seconds.
LOOK_SECONDS = 3_600.0
#: Ids of items that have none are made of their response's.
_IDS = uuid.UUID("0a0c9fc0-3b62-4b53-8f0c-2f6a4a7f4d51")

logger = logging.getLogger(__name__)


class ResponsePathsHandler:
    """Keeps responses, and answers what is asked about them."""

    def __init__(self, settings: Settings) -> None:
        self._folder = ResponseFolder(settings.files_dir / "responses")

    def routes(self) -> list[web.RouteDef]:
        """The paths."""
        one = f"{RESPONSES_PATH}/{{response}}"
        return [
            web.get(one, self._show),
            web.delete(one, self._remove),
            web.get(f"{one}/input_items", self._list_items),
        ]

    async def look_after(self) -> None:
        """Remove what is old, for ever."""
        while True:
            try:
                await asyncio.to_thread(self._folder.remove_old, time.time())
            except OSError as error:
                logger.warning("old responses stay: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

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
        try:
            await asyncio.to_thread(self._folder.keep, record, request["visitor"].owner)
        except OSError as error:
            # The answer is there: its client gets it.
            logger.warning("a response is not kept: %s", error)

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
