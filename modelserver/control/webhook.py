"""The POST of one alert to the webhook of the fleet file.

No text here shows the webhook's URL, or what it answers, which may repeat that: often
the URL itself is the secret. The fleet file has it by its key.
"""

import asyncio
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from modelserver.errors import ConfigurationError
from modelserver.fleet.sections import AlertsSection
from modelserver.settings import secret


def post(section: AlertsSection, body: bytes) -> None:
    """Give the webhook an alert, in ``hook_seconds`` at most.

    Raises OSError or ConfigurationError where it does not take it.
    """
    headers = {"Content-Type": "application/json"}
    if section.webhook_token_env:
        key = "alerts.webhook_token_env"
        token = secret(section.webhook_token_env, key, "worker")
        headers["Authorization"] = f"Bearer {token}"
    try:
        status = asyncio.run(_post_within(section, headers, body))
    except TimeoutError:
        seconds = f"{section.hook_seconds:g} s"
        raise TimeoutError(f"alerts.webhook took longer than {seconds}") from None
    except aiohttp.ClientConnectorError as error:
        raise ConnectionError(_describe_unreachable(error.os_error)) from None
    except (aiohttp.InvalidURL, ValueError):
        raise ConfigurationError(
            "alerts.webhook, or the proxy of this environment, is no URL that can be "
            "asked; correct it"
        ) from None
    except aiohttp.ClientError as error:
        raise ConnectionError(
            f"alerts.webhook breaks off, or does not speak HTTP ({type(error).__name__}"
            "); see what listens there"
        ) from None
    if status >= 400:
        raise ConfigurationError(
            f"alerts.webhook answers HTTP {status}; see what listens there, or correct "
            "the URL or its token"
        )
    if status >= 300:
        raise ConfigurationError(
            f"alerts.webhook is redirected (HTTP {status}), which is not followed; "
            "write the URL that takes the alerts"
        )


async def _post_within(
    section: AlertsSection, headers: Mapping[str, str], body: bytes
) -> int:
    """The status that it answers; all of that within ``hook_seconds``.

    Redirects are not followed: the alert would be left out, and the token handed on.
    They could also lead to what only this host can reach.
    """
    url = section.webhook
    within = aiohttp.ClientTimeout(total=section.hook_seconds)
    async with (
        aiohttp.ClientSession(timeout=within, headers=headers) as session,
        session.post(
            url, data=body, allow_redirects=False, proxy=_proxy_of(url)
        ) as answer,
    ):
        return answer.status


def _describe_unreachable(error: OSError) -> str:
    """Why no connection is made: refused, no such host, or a wrong certificate."""
    why = getattr(error, "verify_message", "") or error.strerror or type(error).__name__
    return (
        f"the host of alerts.webhook cannot be reached: {why}; see whether it runs, or "
        "correct it"
    )


def _proxy_of(url: str) -> str | None:
    """The proxy of the environment; none leads to this host itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
