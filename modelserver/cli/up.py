"""``modelserver up``: runs everything on this machine, until Ctrl-C."""

import base64
import contextlib
import os
import time
import urllib.request

import click

from modelserver.cli.flower_options import find_basic_login, tell_login
from modelserver.cli.local_stack import Stack
from modelserver.cli.output import console, printer
from modelserver.cli.programs import load_with_fleet
from modelserver.cli.stopping import StoppedBySignal, stop_by_signal
from modelserver.errors import ModelserverError
from modelserver.operations.status import Status, read_status
from modelserver.page.password import find_password
from modelserver.store import connect

#: How often the programs and the engines are looked at, in seconds.
STACK_LOOK_SECONDS = 0.5
#: How long Flower is refreshed after an engine's change, in seconds: a worker takes a
#: moment to subscribe to another queue.
REFRESH_SECONDS = 5.0


@click.command()
@click.option("--flower/--no-flower", default=True, help="Whether to run Flower, too.")
@click.option(
    "--gateway/--no-gateway", default=True, help="Whether to serve OpenAI's API, too."
)
@click.option(
    "--page/--no-page", default=True, help="Whether to serve the fleet page, too."
)
@click.option("--actions", is_flag=True, help="Give the fleet page buttons.")
def up(flower: bool, gateway: bool, page: bool, actions: bool) -> None:
    """Start all programs of a fleet here; stop them on Ctrl-C."""
    settings = load_with_fleet()
    screen = console()
    say = printer(screen)
    password = find_password(settings) if flower or page else None
    stack = Stack(
        settings,
        printer(screen, markup=False, highlight=False),
        flower,
        gateway,
        page,
        actions,
    )
    stop_by_signal()
    try:
        stack.start()
        say(f"\nFleet file {settings.fleet_file}")
        if gateway:
            say(f"OpenAI API at {stack.api_url}")
        if flower and password:
            told = tell_login(password, screen.is_terminal, (), os.environ)
            say(f"Flower at {stack.flower_url}, {told}")
        if page and password:
            told = password.told(screen.is_terminal)
            say(f"Fleet page at {stack.page_url}, {told}")
        say("Ctrl-C stops everything.\n")
        watch(stack)
    except StoppedBySignal as stopped:
        say(f"{stopped}: stopping")
    finally:
        stack.stop()
    say("Everything is stopped.")


def watch(stack: Stack) -> None:
    """Keep the programs alive and say what becomes of the engines, for ever."""
    store = connect(stack.settings)
    seen: dict[str, str] = {}
    refresh_until = 0.0
    while True:
        now = time.monotonic()
        stack.look_after(now)
        try:
            lines = changes(seen, read_status(store, stack.settings))
            for line in lines:
                stack.say(line)
            if lines:
                refresh_until = now + REFRESH_SECONDS
            if now < refresh_until:
                refresh_flower(stack)
        except ModelserverError as error:
            stack.say(str(error))
        time.sleep(STACK_LOOK_SECONDS)


def refresh_flower(stack: Stack) -> None:
    """Have Flower ask workers for their queues again, which it never does by itself."""
    if not stack.flower_url:
        return
    # A worker subscribes a moment after the engine's state has changed.
    time.sleep(STACK_LOOK_SECONDS)
    login = find_basic_login(find_password(stack.settings), os.environ)
    token = base64.b64encode(login.encode()).decode()
    headers = {"Authorization": f"Basic {token}"} if login else {}
    url = f"{stack.flower_url}/workers?refresh=1"
    with contextlib.suppress(OSError):
        # On this host, whatever http_proxy says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(urllib.request.Request(url, headers=headers), timeout=5).close()


def changes(seen: dict[str, str], status: Status) -> list[str]:
    """A line for each engine whose state is not that in ``seen``, which is updated."""
    lines = []
    for engine in status.engines:
        state = f"{engine.state} {engine.incarnation}"
        if seen.get(engine.id) != state:
            seen[engine.id] = state
            why = f": {engine.reason}" if engine.reason else ""
            lines.append(
                f"engine {engine.id} is {engine.state}, incarnation "
                f"{engine.incarnation}{why}"
            )
    return lines
