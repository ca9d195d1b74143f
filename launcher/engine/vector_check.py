"""Whether a new engine gives a text the same vector whatever it was asked before."""

import logging
import math
from collections.abc import Sequence

import aiohttp

from modelserver.engine_client import ask
from modelserver.engine_protocol import EMBEDDINGS_PATH, EngineFault, RequestFault
from modelserver.values import Kind, ModelSpec

_log = logging.getLogger(__name__)

#: About 50 tokens.
TEXT = """\
The old lighthouse stood at the end of a long road, and every evening its keeper \
climbed the stairs to clean the lamp and to write down which ships had passed."""
#: Texts that begin as it does, and others: what an engine keeps of them must not show.
OTHERS = (TEXT[:20], TEXT[:60], TEXT[:100], TEXT[::-1], TEXT[40:], TEXT + TEXT)
#: The least cosine of one text's vectors. Half precision differs by 0.001 among other
#: texts; an engine that pools over the wrong tokens by 0.2 and more.
LEAST_COSINE = 0.99
#: Seconds that each request may take; an engine that is slower is not checked.
CHECK_SECONDS = 30.0


async def find_unsteady_vector(
    session: aiohttp.ClientSession, url: str, model: ModelSpec
) -> str:
    """Why its vectors cannot be right, "" where a text has one vector."""
    if model.kind is not Kind.EMBEDDING:
        return ""

    async def embed(*texts: str) -> list[Sequence[float]]:
        body = {"model": model.name, "input": texts}
        answer = await ask(session, url + EMBEDDINGS_PATH, body, CHECK_SECONDS)
        return [item["embedding"] for item in answer["data"]]

    try:
        (before,) = await embed(TEXT)
        (among, *_) = await embed(TEXT, *OTHERS)
        (after,) = await embed(TEXT)
    except (
        EngineFault,
        RequestFault,
        TimeoutError,
        LookupError,
        ValueError,
        TypeError,
    ) as error:
        _log.warning("the vectors of %s were not compared: %r", url, error)
        return ""
    least = min(_cosine(before, among), _cosine(before, after))
    if least >= LEAST_COSINE:
        return ""
    return (
        f"it gives one text different vectors before and after others (cosine "
        f"{least:.2f}), so that none can be trusted; use another type or version of "
        "engine, and no extra_args that cache or split prompts"
    )


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of two vectors, 0 where they cannot be compared.

    >>> _cosine([1.0, 0.0], [2.0, 0.0]), _cosine([1.0], [1.0, 2.0])
    (1.0, 0.0)
    """
    if len(one) != len(other):
        return 0.0
    lengths = math.hypot(*one) * math.hypot(*other)
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / lengths if lengths else 0.0
