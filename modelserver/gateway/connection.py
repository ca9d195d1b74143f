"""One connection: what is wrong below HTTP's paths is told in OpenAI's form as well."""

from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from modelserver.gateway.faults import Fault
from modelserver.gateway.writing import error_response

#: Most bytes of a request's path with its query, and of one of its headers, and most
#: headers. The first two differ: by them aiohttp's error says which it was.
MOST_TARGET_BYTES, MOST_HEADER_BYTES, MOST_HEADERS = 4_096, 8_190, 128
#: How aiohttp says that they are more.
_TOO_MANY = "Too many headers"


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
        super().__init__(
            manager,
            auto_decompress=False,
            max_line_size=MOST_TARGET_BYTES,
            max_field_size=MOST_HEADER_BYTES,
            max_headers=MOST_HEADERS,
            **options,
        )

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
            fault = _find_excess_of_head(exc, told) or Fault(
                status, f"the request is no HTTP: {told}", code="invalid_http"
            )
        response = error_response(fault)
        response.force_close()
        return response


def _find_excess_of_head(error: BaseException | None, told: str) -> Fault | None:
    """What a request's head has too much of, if that is what is wrong with it."""
    if isinstance(error, LineTooLong):
        if error.args[1] == MOST_TARGET_BYTES:
            text = f"the request's path has more than {MOST_TARGET_BYTES:,} bytes"
            text = f"{text}; leave out of it what it need not have"
            return Fault(414, text, code="uri_too_long")
        text = f"a header has more than {MOST_HEADER_BYTES:,} bytes"
    elif told.startswith(_TOO_MANY):
        text = f"the request has more than {MOST_HEADERS} headers"
    else:
        return None
    code = "request_header_fields_too_large"
    return Fault(431, f"{text}; leave out those that it need not have", code=code)
