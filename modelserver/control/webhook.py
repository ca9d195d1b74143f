"""The POST of one alert to the webhook of the fleet file."""

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

    Raises OSError, ValueError or ConfigurationError where it does not take it.
    """
    headers = {"Content-Type": "application/json"}
    if section.webhook_token_env:
        key = "alerts.webhook_token_env"
        token = secret(section.webhook_token_env, key, "worker")
        headers["Authorization"] = f"Bearer {token}"
    try:
        asyncio.run(_post_within(section, headers, body))
    except TimeoutError as error:
        seconds = f"{section.hook_seconds:g} s"
        raise TimeoutError(f"alerts.webhook took longer than {seconds}") from error
    except aiohttp.ClientError as error:
        raise ConnectionError(f"alerts.webhook cannot be used: {error}") from error


async def _post_within(
    section: AlertsSection, headers: Mapping[str, str], body: bytes
) -> None:
    """Post it; all of that within ``hook_seconds``. Any status below 300 will do.

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
        if answer.status < 300:
            return
        if answer.status < 400:
            raise ConfigurationError(
                f"alerts.webhook is redirected (HTTP {answer.status}) to "
                f"{answer.headers.get('Location', '?')}, which is not followed; write "
                "the URL that takes the alerts"
            )
        raise ConfigurationError(
            f"alerts.webhook answers HTTP {answer.status} {answer.reason}"
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
