"""One connection: what is wrong below HTTP's paths is told in OpenAI's form as well."""

from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.web_protocol import RequestHandler

from modelserver.gateway.faults import Fault
from modelserver.gateway.writing import error_response


async def answer_expectation(request: web.Request) -> web.StreamResponse | None:
    """Ask a client that waits with its body for it; what else it expects is refused."""
    expected = request.headers.get("Expect", "")
    if request.version < HttpVersion11:
        return None
    if expected.lower() != "100-continue":
        text = f"Expect must be 100-continue, not {expected[:64]!r}; leave it out"
        return error_response(Fault(417, text, code="expectation_failed"))
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # aiohttp takes this count for that of the answer.
    request.writer.output_size = 0
    return None


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
