"""One connection: what is wrong below HTTP's paths is told in OpenAI's form as well."""

from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.web_protocol import RequestHandler

from modelserver.gateway.faults import Fault
from modelserver.gateway.writing import json_response

#: How a client may pack a body.
ENCODINGS = ("identity", "gzip", "deflate")


def find_encoding_fault(encoding: str) -> Fault | None:
    """What is told of a body that is packed so that nobody here can unpack it."""
    if encoding.strip().lower() in ("", *ENCODINGS):
        return None
    text = (
        f"the body's Content-Encoding {encoding[:64]!r} is not known here; send it as "
        f"{', '.join(ENCODINGS[1:])} or as it is"
    )
    return Fault(415, text, code="unsupported_media_type")


class Connection(RequestHandler):
    """A connection of the gateway's server."""

    __slots__ = ()

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
            return response_of(Fault(status, "an error of ours", "server_error"))
        if isinstance(exc, ContentEncodingError):
            text = f"{message}".partition("Please")[0].strip()
            text += f" Send {', '.join(ENCODINGS[1:])} or the body as it is"
            fault = Fault(415, text, code="unsupported_media_type")
        else:
            text = f"the request is no HTTP: {(message or plain.text).splitlines()[0]}"
            fault = Fault(status, text, code="invalid_http")
        return response_of(fault)


def response_of(fault: Fault) -> web.Response:
    """An error as the last answer of its connection."""
    response = json_response(fault.body())
    response.set_status(fault.status)
    response.force_close()
    return response
