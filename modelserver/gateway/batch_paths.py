"""``/v1/files`` and ``/v1/batches``."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiohttp import web
from celery import Celery
from redis.exceptions import RedisError

from modelserver.errors import ModelserverError, RequestError
from modelserver.gateway.batch_records import BatchRecord
from modelserver.gateway.batches import BatchFolder
from modelserver.gateway.faults import Fault, Refused
from modelserver.gateway.files import PURPOSE, FileFolder, FileRecord
from modelserver.gateway.reading import (
    read_chunks,
    read_field,
    read_json_body,
    read_parts,
)
from modelserver.gateway.unpacking import find_packing
from modelserver.gateway.writing import LISTED, MOST_LISTED, json_response, list_page
from modelserver.settings import Settings

R = TypeVar("R", FileRecord, BatchRecord)

#: Batches that a gateway left, or whose time is over, are looked for so often, in
#: seconds.
LOOK_SECONDS = 5.0
#: A list of files shows so many at most, and as many unless told otherwise.
MOST_FILES = 10_000

logger = logging.getLogger(__name__)


class BatchPathsHandler:
    """Answers what is asked about files and batches."""

    def __init__(self, settings: Settings, app: Celery) -> None:
        self._files = FileFolder(settings.files_dir)
        self._batches = BatchFolder(settings, app, self._files)
        #: By batch: what is done about it beside the requests.
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def routes(self) -> list[web.RouteDef]:
        """The paths."""
        return [
            web.post("/v1/files", self._upload),
            web.get("/v1/files", self._list_files),
            web.get("/v1/files/{file}", self._show_file),
            web.delete("/v1/files/{file}", self._delete_file),
            web.get("/v1/files/{file}/content", self._content),
            web.post("/v1/batches", self._create),
            web.get("/v1/batches", self._list_batches),
            web.get("/v1/batches/{batch}", self._show_batch),
            web.post("/v1/batches/{batch}/cancel", self._cancel),
        ]

    async def look_after(self) -> None:
        """Take up what gateways left, for ever."""
        while True:
            try:
                await asyncio.to_thread(self._batches.look_after)
            except (ModelserverError, RedisError, OSError) as error:
                logger.warning("batches wait: %s", error)
            except Exception:
                logger.exception("batches wait")
            await asyncio.sleep(LOOK_SECONDS)

    # Files.

    async def _upload(self, request: web.Request) -> web.Response:
        if request.content_type != "multipart/form-data":
            raise Refused(
                Fault(400, "file is missing; send it as a multipart form", param="file")
            )
        if find_packing(request.headers.getall("Content-Encoding", [])):
            text = (
                "a form is taken as it is; pack the file in it by gzip, if at all, and "
                "leave Content-Encoding out"
            )
            raise Refused(Fault(415, text, code="unsupported_media_type"))
        kept: list[FileRecord] = []
        try:
            purpose = await self._read_form(request, kept)
            if len(kept) != 1:
                text = f"file is there {len(kept)} times in the form; send one"
                raise Refused(Fault(400, text, param="file"))
            if purpose != PURPOSE:
                text = f'purpose must be "{PURPOSE}", not {purpose[:64]!r}'
                raise Refused(Fault(400, text, param="purpose"))
        except BaseException:
            for each in kept:
                self._files.remove(each)
            raise
        return json_response(self._files.describe(kept[0]))

    async def _read_form(self, request: web.Request, kept: list[FileRecord]) -> str:
        """Keep a form's files, noted in ``kept`` as they come; its purpose."""
        purpose = ""
        try:
            async for part in read_parts(request):
                if part.name == "file":
                    name = (part.filename or "upload.jsonl")[-255:]
                    chunks = read_chunks(part)
                    kept.append(
                        await self._files.keep(name, request["visitor"].owner, chunks)
                    )
                    continue
                text = await read_field(part)
                if part.name == "purpose":
                    purpose = text
        except (ValueError, AssertionError, RuntimeError, LookupError) as error:
            raise RequestError(f"the form cannot be read: {error}") from error
        return purpose

    async def _list_files(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._files.all, request["visitor"].owner)
        if purpose := request.query.get("purpose"):
            found = [each for each in found if each.purpose == purpose]
        return await self._listed(request, found, self._files.describe, MOST_FILES)

    def _file(self, request: web.Request) -> FileRecord:
        name = request.match_info["file"]
        found = self._files.find(name, request["visitor"].owner)
        if found is None:
            raise Refused(Fault(404, f"there is no file {name!r} of yours", param="id"))
        return found

    async def _show_file(self, request: web.Request) -> web.Response:
        return json_response(self._files.describe(self._file(request)))

    async def _delete_file(self, request: web.Request) -> web.Response:
        record = self._file(request)
        # The system takes a while to free gigabytes.
        await asyncio.to_thread(self._files.remove, record)
        return json_response({"id": record.id, "object": "file", "deleted": True})

    async def _content(self, request: web.Request) -> web.StreamResponse:
        path = self._files.content(self._file(request))
        if not path.exists():
            raise Refused(Fault(404, "the file's content is not there any more"))
        if "Range" in request.headers and request.if_range is None:
            _check_range(request, path.stat().st_size)
        return web.FileResponse(
            path, headers={"Content-Type": "application/octet-stream"}
        )

    # Batches.

    async def _create(self, request: web.Request) -> web.Response:
        body = await read_json_body(request)
        if not isinstance(body, dict):
            raise RequestError("the body must be a JSON object")
        request["body"] = body
        key = request["visitor"].key
        models, least = (key.models, key.priority) if key else ((), 0)
        record = await asyncio.to_thread(
            self._batches.create, body, request["visitor"].owner, models, least
        )
        self._begin(self._batches.validate, record.id)
        return await self._described(record)

    def _begin(self, work: Callable[[str], None], batch: str) -> None:
        """Have something done about a batch, unless something is."""
        if batch not in self._under_way:
            task = asyncio.create_task(asyncio.to_thread(work, batch))
            self._under_way[batch] = task
            task.add_done_callback(lambda done: self._done(batch, done))

    def _done(self, batch: str, task: "asyncio.Task[None]") -> None:
        del self._under_way[batch]
        if not task.cancelled() and (error := task.exception()):
            # It is tried again, here or by another gateway.
            logger.warning("the batch %s waits: %s", batch, error)

    async def _described(self, record: BatchRecord) -> web.Response:
        told = await asyncio.to_thread(self._batches.describe, record)
        if told["status"] in ("cancelling", "finalizing"):
            self._begin(self._batches.finish, record.id)
        return json_response(told)

    def _batch(self, request: web.Request) -> BatchRecord:
        name = request.match_info["batch"]
        found = self._batches.find(name, request["visitor"].owner)
        if found is None:
            text = f"there is no batch {name!r} of yours"
            raise Refused(Fault(404, text, param="id"))
        return found

    async def _show_batch(self, request: web.Request) -> web.Response:
        return await self._described(self._batch(request))

    async def _cancel(self, request: web.Request) -> web.Response:
        found = self._batch(request)
        return await self._described(
            await asyncio.to_thread(self._batches.cancel, found)
        )

    async def _list_batches(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._batches.all, request["visitor"].owner)
        return await self._listed(request, found, self._batches.describe)

    async def _listed(
        self,
        request: web.Request,
        found: Sequence[R],
        describe: Callable[[R], dict[str, Any]],
        listed: int = LISTED,
    ) -> web.Response:
        most = max(listed, MOST_LISTED)
        ids, query = [each.id for each in found], request.query
        return json_response(
            await asyncio.to_thread(
                lambda: list_page(found, ids, describe, query, listed, most)
            )
        )


def _check_range(request: web.Request, size: int) -> None:
    """Raises Refused where a file of this size has not what is asked of it."""
    try:
        is_there = (request.http_range.start or 0) < size
    except ValueError:
        is_there = False
    if not is_there:
        told = request.headers["Range"][:64]
        text = (
            f"Range must be one like bytes=0-99 that begins within the file's {size:,} "
            f"bytes, not {told!r}"
        )
        headers = {"Content-Range": f"bytes */{size}"}
        raise Refused(Fault(416, text, param="Range", headers=headers))
