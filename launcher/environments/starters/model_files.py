"""Fetch the small files that say how a model makes its vectors into the hub's cache.

    ENGINE_PYTHON model_files.py MODEL_ID REVISION

A file that the model does not have is left out. Run it with the interpreter of an
engine environment: it needs huggingface_hub, and imports nothing of this project.
"""

import json
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    model, revision = arguments

    def fetch(name: str) -> Path:
        return Path(hf_hub_download(model, name, revision=revision))

    fetch("config.json")
    try:
        for module in json.loads(fetch("modules.json").read_text()):
            if module["type"].rpartition(".")[2] == "Pooling":
                fetch(f"{module['path']}/config.json")
    except LocalEntryNotFoundError:
        raise  # The hub could not be asked.
    except EntryNotFoundError:
        pass  # No model of sentence-transformers'.
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
