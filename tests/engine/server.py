"""Run the engine: `python -m tests.engine.server --port N --model NAME`.

It listens on 127.0.0.1 only, and says on standard output when it does.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

if not __package__:
    # Run by its path: the repository's root is not on the import path yet.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from aiohttp import web

from tests.engine.app import App, Model
from tests.engine.batching import StepCosts
from tests.engine.faults import Fault, FaultBoard, FaultError, value_type
from tests.engine.nodes import follow, lead
from tests.engine.pace import FixedPace, Pace, SteppedPace

#: How long an idle connection stays open, in seconds, as with uvicorn, which serves the
#: real engines.
KEEPALIVE_SECONDS = 5.0
#: Connections that wait to be accepted, as with uvicorn.
BACKLOG = 2048
#: A child that stays behind ends by itself after this time, in seconds.
CHILD_SECONDS = 600
MAX_BODY_BYTES = 1 << 28


def parse_options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.engine.server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--model", default="test-model")
    parser.add_argument("--context-length", type=int, default=32768)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key-env", default="", help="names a variable with a key")
    parser.add_argument("--no-metrics", action="store_true")
    parser.add_argument("--spawn-child", action="store_true")
    parser.add_argument("--share-port", action="store_true", help="by SO_REUSEPORT")
    parser.add_argument(
        "--sigterm", choices=("exit", "drain", "ignore"), default="exit"
    )
    nodes = parser.add_argument_group("one node of several, with --meeting")
    nodes.add_argument("--meeting", default="", metavar="HOST:PORT")
    nodes.add_argument("--node", type=int, default=0)
    nodes.add_argument("--nodes", type=int, default=1)
    fixed = parser.add_argument_group("a fixed time per request")
    fixed.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    steps = parser.add_argument_group("continuous batching, with --step-seconds")
    steps.add_argument("--step-seconds", type=float)
    steps.add_argument("--batch-seconds", type=float, default=0.0)
    steps.add_argument("--prefill-seconds", type=float, default=0.0)
    steps.add_argument("--max-running", type=int, default=64)
    steps.add_argument("--chunk-tokens", type=int, default=2048)
    faults = parser.add_argument_group("faults, as in POST /fault")
    for one in fields(Fault):
        flag = "--" + one.name.replace("_", "-")
        kind = value_type(one.name)
        if kind is bool:
            faults.add_argument(flag, action="store_true")
        else:
            faults.add_argument(flag, type=kind, default=one.default)
    return parser.parse_args(argv)


def fault_from_options(options: argparse.Namespace) -> Fault:
    values: dict[str, Any] = {
        one.name: getattr(options, one.name) for one in fields(Fault)
    }
    return Fault(**values)


def pace_from_options(options: argparse.Namespace, faults: FaultBoard) -> Pace:
    if options.step_seconds is None:
        return FixedPace(options.latency, faults)
    costs = StepCosts(
        step_seconds=options.step_seconds,
        batch_seconds=options.batch_seconds,
        prefill_seconds=options.prefill_seconds,
        max_running=options.max_running,
        chunk_tokens=options.chunk_tokens,
    )
    return SteppedPace(costs, faults)


def spawn_child() -> int:
    """Start a process that outlives the engine and ignores SIGTERM; its pid."""
    # What is ignored stays so over exec: there is no moment without it.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", str(CHILD_SECONDS)])
    signal.signal(signal.SIGTERM, before)
    print(f"child pid {child.pid}", flush=True)
    return child.pid


async def serve(options: argparse.Namespace, fault: Fault) -> None:
    """Serve until a SIGTERM or SIGINT that ends it."""
    if options.node:
        await follow(options.meeting, options.node)
    loop = asyncio.get_running_loop()
    faults = FaultBoard(fault, options.seed, loop.time)
    pace = pace_from_options(options, faults)
    child_pid = spawn_child() if options.spawn_child else None
    model = Model(
        *(options.model, options.context_length, options.max_running),
        child_pid,
        metrics=not options.no_metrics,
    )
    app = App(model, faults, pace, os.environ.get(options.key_env, ""))
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    if options.sigterm == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGTERM, stop.set)
    if options.meeting:
        hang = lambda: faults.put(Fault(hang=True))  # noqa: E731
        await lead(options.meeting, options.nodes, hang)
    runner = _runner(app, drain=options.sigterm == "drain")
    await runner.setup()
    share = options.share_port or None
    await web.TCPSite(
        runner, "127.0.0.1", options.port, backlog=BACKLOG, reuse_port=share
    ).start()
    host, port = runner.addresses[0][:2]
    print(f"listening on http://{host}:{port}", flush=True)
    async with asyncio.TaskGroup() as group:
        turning = group.create_task(pace.turn())
        await stop.wait()
        if options.sigterm == "drain":
            app.draining = True
            # Without a time limit, and new requests are still taken: as SGLang.
            await app.idle.wait()
        turning.cancel()
    await runner.cleanup()


def _runner(app: App, drain: bool) -> web.ServerRunner:
    loop = asyncio.get_running_loop()

    def large_request(
        message: Any, payload: Any, protocol: Any, writer: Any, task: Any
    ) -> web.BaseRequest:
        return web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            loop,
            client_max_size=MAX_BODY_BYTES,
        )

    server = web.Server(
        app.handle,
        request_factory=large_request,
        # A client that closes its connection ends its generation.
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_SECONDS,
        access_log=None,
    )
    # Not 0, which aiohttp takes for no limit.
    return web.ServerRunner(server, shutdown_timeout=5.0 if drain else 0.05)


def main() -> None:
    options = parse_options(sys.argv[1:])
    try:
        fault = fault_from_options(options)
    except FaultError as error:
        sys.exit(f"bad fault: {error}")
    asyncio.run(serve(options, fault))


if __name__ == "__main__":
    main()
