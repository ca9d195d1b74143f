"""What the clients ask: both engines on the CPU behind one gateway."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from launcher import environments
from modelserver import settings as settings_module
from tests.acceptance.product import Product

#: By engine type: the name of its model, and the arguments with which weights by chance
#: come to the end of a format and engines take tools.
WRITERS = {
    "sglang-cpu": (
        "sglang-chat",
        ["--constrained-json-disable-any-whitespace", "--tool-call-parser=pythonic"],
    ),
    "vllm-cpu": (
        "vllm-chat",
        [
            '--structured-outputs-config={"backend":"xgrammar",'
            '"disable_any_whitespace":true}',
            "--enable-auto-tool-choice",
            "--tool-call-parser=pythonic",
        ],
    ),
}
#: How long three engines may take to start, in seconds, on two cores at work.
START_SECONDS = 600.0
EMBEDDER = "tiny-embed"
#: Takes messages of tools, and of assistants without content.
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
WRITER_TABLE = """
[[models]]
name = "{name}"
path = "builtin:tiny-chat"
engine = "{engine}"
context_length = 4096
drain_seconds = 5
extra_args = {arguments}
"""
EMBEDDER_TABLE = f"""
[[models]]
name = "{EMBEDDER}"
kind = "embedding"
path = "builtin:tiny-embed"
engine = "sglang-cpu"
drain_seconds = 5
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a program is told: whom to ask, and by what."""

    #: The gateway's, as clients take it.
    base_url: str
    writer: str
    embedder: str
    #: The folder of the writer's tokenizer.
    tokenizer: str
    #: The engine of the writer itself, to compare with.
    engine_url: str
    engine_key: str

    def as_json(self) -> dict[str, str]:
        return asdict(self)


@contextmanager
def open_clients_fleet() -> Iterator[dict[str, Callable[[], Subject]]]:
    """A fleet that is ready: by engine type, what finds out what a client is told.

    An engine that was relaunched has another address than before.
    """
    home = settings_module.load().home
    writers = {
        engine: (name, [*arguments, f"--chat-template={TEMPLATE}"])
        for engine, (name, arguments) in WRITERS.items()
        if environments.is_installed(engine, home)
    }
    text = EMBEDDER_TABLE + "".join(
        WRITER_TABLE.format(name=name, engine=engine, arguments=arguments)
        for engine, (name, arguments) in writers.items()
    )
    engines = [f"{EMBEDDER}-0", *(f"{name}-0" for name, _ in writers.values())]
    with tempfile.TemporaryDirectory() as folder:
        product = Product(Path(folder), home, text, engines)
        try:
            product.await_ready(START_SECONDS)

            def find(name: str) -> Subject:
                product.await_ready(START_SECONDS)
                return Subject(
                    base_url=product.api_url,
                    writer=name,
                    embedder=EMBEDDER,
                    tokenizer=str(home / "models" / "tiny-chat"),
                    engine_url=product.engine(f"{name}-0").url,
                    engine_key=product.key(f"{name}-0"),
                )

            yield {engine: partial(find, name) for engine, (name, _) in writers.items()}
        finally:
            product.close()
