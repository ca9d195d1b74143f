"""Completion and embedding requests as Celery tasks on engines of your own GPU hosts.

>>> from modelserver import complete                              # doctest: +SKIP
>>> complete.delay("Once upon a time").get(timeout=60)            # doctest: +SKIP
' there was a server of models'

``api`` is for callers, ``fleet`` reads the fleet file and signs it, ``settings`` reads
the environment, ``joined`` what `join` wrote, ``server_address`` a Redis URL,
``keyring`` keeps engines' API keys, ``births`` tells processes apart, ``user`` is who
runs one, ``logs`` is how programs log, ``tracing`` how requests are followed through
them, ``errors`` are what callers catch. ``values``,
``measured``, ``adapters``, ``schedules`` and ``inventory`` are passed around,
``decoding`` makes them from JSON, ``extent`` counts what JSON holds, ``parameters`` and
``media_urls`` check a request,
``engine_client`` asks one engine, ``engine_protocol`` is what both sides say there,
``missing_files`` says what of a path is not there, ``disk_errors`` what disks refuse,
``whole_files`` writes files in one step, ``private_folders`` makes folders,
``python310`` what the oldest Python lacks, ``garbage`` keeps Python's collection of it
rare. ``policy`` decides, ``control`` carries out,
``store`` is Redis, ``messaging`` is between callers and workers, ``runs`` are many
requests as one job, ``gateway`` is OpenAI's HTTP, ``page`` the fleet's, ``operations``
is what operators read and order, ``cli`` the commands.
"""

from typing import TYPE_CHECKING, Any

from modelserver.errors import (
    AnswerFormError,
    BatchFileError,
    ConfigurationError,
    DeadlineExceededError,
    EngineEnvironmentError,
    EngineError,
    ModelserverError,
    ModelUnavailableError,
    PoisonError,
    RequestError,
    StoreFullError,
    StoreUnreachableError,
    UnknownModelError,
)

if TYPE_CHECKING:
    from modelserver.api import InferenceTask
    from modelserver.runs.embedding import embed_texts
    from modelserver.runs.mapping import map_prompts
    from modelserver.runs.rollouts.mapping import map_rows

    chat: InferenceTask
    complete: InferenceTask
    embed: InferenceTask

__all__ = [
    "AnswerFormError",
    "BatchFileError",
    "ConfigurationError",
    "DeadlineExceededError",
    "EngineEnvironmentError",
    "EngineError",
    "ModelUnavailableError",
    "ModelserverError",
    "PoisonError",
    "RequestError",
    "StoreFullError",
    "StoreUnreachableError",
    "UnknownModelError",
    "chat",
    "complete",
    "embed",
    "embed_texts",
    "map_prompts",
    "map_rows",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: `import modelserver.errors` is to be light.
    if name in ("complete", "chat", "embed"):
        from modelserver.api import default_task

        return globals().setdefault(name, default_task(f"modelserver.{name}"))
    if name == "map_prompts":
        from modelserver.runs.mapping import map_prompts

        return map_prompts
    if name == "map_rows":
        from modelserver.runs.rollouts.mapping import map_rows

        return map_rows
    if name == "embed_texts":
        from modelserver.runs.embedding import embed_texts

        return embed_texts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
