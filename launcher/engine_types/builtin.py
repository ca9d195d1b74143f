"""What this project brings itself: tiny models, and stand-ins for CUDA's packages.

The models need no download: ``path = "builtin:tiny-chat"`` or ``tiny-embed``.
"""

from pathlib import Path

from launcher.environments import ensure_tiny_models, standins_path
from modelserver.errors import ConfigurationError
from modelserver.values import ModelSpec

#: How the path of a builtin model begins.
PREFIX = "builtin:"
#: The builtin models.
NAMES = ("tiny-chat", "tiny-embed")


def model_path(model: ModelSpec, home: Path) -> str:
    """What an engine gets as its model: a folder or a Hugging Face id.

    Raises ConfigurationError for a builtin model that does not exist.
    """
    if not model.path.startswith(PREFIX):
        return model.path
    name = model.path.removeprefix(PREFIX)
    if name not in NAMES:
        known = " or ".join(f'"{PREFIX}{known}"' for known in NAMES)
        raise ConfigurationError(
            f'model "{model.name}" has path "{model.path}", which is no builtin model; '
            f"write {known}"
        )
    return str(_folder(home) / name)


def ensure(model: ModelSpec, interpreter: Path, home: Path) -> None:
    """Write the builtin models if this is one of them; the first time takes seconds."""
    if model.path.startswith(PREFIX):
        model_path(model, home)
        _folder(home).mkdir(parents=True, exist_ok=True)
        ensure_tiny_models(interpreter, _folder(home))


def standins(model: ModelSpec) -> dict[str, str]:
    """The variables by which an engine finds stand-ins; images need none."""
    return {} if model.image else {"PYTHONPATH": str(standins_path())}


def _folder(home: Path) -> Path:
    return home / "models"
