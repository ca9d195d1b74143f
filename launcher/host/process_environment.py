"""The environment that a process was started with, as long as any of it lives."""

from contextlib import suppress

import psutil

from modelserver.births import thread_folders


def environment_of(process: psutil.Process) -> dict[str, str]:
    """What it was started with; empty where that cannot be read."""
    with suppress(psutil.Error, OSError):
        if found := process.environ():
            return dict(found)
    # Where its first thread has ended the others have it still.
    for folder in thread_folders(process.pid):
        with suppress(OSError):
            if text := (folder / "environ").read_text(errors="surrogateescape"):
                pairs = (each.partition("=") for each in text.split("\0") if each)
                return {name: value for name, _, value in pairs}
    return {}
