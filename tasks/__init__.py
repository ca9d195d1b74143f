"""The Celery application: ``celery -A tasks worker``, ``beat`` and ``flower``.

- ``app``: the application itself
- ``inference``: complete, chat and embed as workers execute them
- ``control``: the beat job
"""

from tasks.app import app
from tasks.control import steer
from tasks.inference import chat, complete, embed

__all__ = ["app", "chat", "complete", "embed", "steer"]
