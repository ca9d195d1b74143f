"""``modelserver metrics``: serves the fleet's state to Prometheus."""

import signal

import click
from prometheus_client import CollectorRegistry, start_http_server

from modelserver.cli.up import StoppedBySignal, stop_by_signal
from modelserver.errors import ModelserverError
from modelserver.operations.prometheus import FleetCollector
from modelserver.settings import load


@click.command()
@click.option(
    "--port",
    default=9808,
    show_default=True,
    help="Port to listen at; with 0 any free one.",
)
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at. There is no password: keep strangers away from it.",
)
def metrics(port: int, address: str) -> None:
    """Serve metrics of the whole fleet for Prometheus, until Ctrl-C.

    One for a whole fleet is enough, on any host.
    """
    registry = CollectorRegistry()
    registry.register(FleetCollector(load()))
    stop_by_signal()
    try:
        server, thread = start_http_server(port, address, registry)
    except (OSError, OverflowError) as error:
        raise ModelserverError(
            f"cannot listen at {address}:{port} ({error}); name another with --port "
            "or --address"
        ) from error
    click.echo(f"Metrics at http://{address}:{server.server_port}/metrics")
    try:
        while True:
            signal.pause()
    except StoppedBySignal:
        server.shutdown()
        thread.join()
