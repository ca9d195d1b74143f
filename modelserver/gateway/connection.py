"""One connection: what is wrong below HTTP's paths is told in OpenAI's form as well."""

from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from modelserver.gateway.faults import Fault
from modelserver.gateway.writing import error_response


class Connection(RequestHandler):
    """A connection of the gateway's server."""

    __slots__ = ()

    def __init__(self, manager: web.Server, **options: Any) -> None:
        # aiohttp would unpack bodies on the loop, and some hold it for seconds.
        super().__init__(manager, auto_decompress=False, **options)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Tell what is no HTTP, or no request that can be read."""
        plain: Any = super().handle_error(request, status, exc, message)
        if not 400 <= status < 500:
            fault = Fault(status, "an error of ours", "server_error")
        else:
            told = (message or plain.text).splitlines()[0].rstrip(" :")
            text = f"the request is no HTTP: {told}"
            fault = Fault(status, text, code="invalid_http")
        response = error_response(fault)
        response.force_close()
        return response
