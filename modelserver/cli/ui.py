"""``modelserver ui``: the fleet page."""

import sys

import click
from aiohttp import web

from modelserver.api import client
from modelserver.cli.listening import listen, url_of
from modelserver.cli.local_stack import PAGE_PORT
from modelserver.logs import start_logging
from modelserver.page.password import find_password
from modelserver.settings import load
from modelserver.user import find_user


@click.command()
@click.option(
    "--port",
    default=PAGE_PORT,
    show_default=True,
    help="Port to listen at; with 0 any free one.",
)
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at. Passwords travel in clear text: put TLS before it "
    "where others than this machine can reach it.",
)
@click.option(
    "--actions/--no-actions",
    default=False,
    help="Whether there are buttons: drain, relaunch, pause, cancel.",
)
@click.option("--flower-url", default="", help="Where Flower is, for a link to it.")
def ui(port: int, address: str, actions: bool, flower_url: str) -> None:
    """Show the fleet in the browser, until Ctrl-C.

    One password is for this page and Flower: MODELSERVER_PASSWORD, or what stands in
    the file that MODELSERVER_PASSWORD_FILE names, else one that is made here once.
    """
    # Other commands start without the templates and what draws them.
    from modelserver.page.server import PageOptions, PageServer

    settings = load()
    start_logging(settings.json_logs)
    password = find_password(settings)
    sock = listen(address, port)
    options = PageOptions(find_user(), actions, flower_url)
    page = PageServer(settings, client(settings), password.text, options)
    known = password.told(sys.stdout.isatty())
    click.echo(f"Fleet page at {url_of(sock)}, {known}")
    web.run_app(page.application(), sock=sock, print=None, access_log=None)
