"""What a starting engine does, by lines that SGLang and vLLM really write."""

from pathlib import Path

import pytest

from launcher.startup_log import weights
from launcher.startup_log.progress import (
    BASE_START_SECONDS,
    NOTHING_NEW_SECONDS,
    SECONDS_PER_GIB,
    StartProgress,
    is_overdue,
    last_step,
    start_limit,
)
from launcher.startup_log.weights import Weights
from modelserver.inventory import GIB

LINES = {
    # SGLang.
    "[2026-11-22 20:50:16] Load weight begin. avail mem=18.78 GB": "loading weights",
    "Multi-thread loading shards:  50% Completed | 1/2 [00:00<00:00, 392.17it/s]": (
        "loading weights 50 % (1/2 shards)"
    ),
    "Loading safetensors checkpoint shards:  43% Completed | 3/7 [00:09<00:12]": (
        "loading weights 43 % (3/7 shards)"
    ),
    "Loading pt checkpoint shards: 100% Completed | 7/7 [00:09<00:00]": (
        "loading weights 100 % (7/7 shards)"
    ),
    "Loading safetensors using Fastsafetensor loader:  25%|██▌  | 1/4 [00:01<]": (
        "loading weights 25 % (1/4 shards)"
    ),
    "[2026-11-22 20:50:16] Load weight end. elapsed=0.02 s, type=Qwen3": (
        "allocating the cache"
    ),
    "Capturing batches (bs=120 avail_mem=74.66 GB):   5%|▌   | 1/20 [00:01<00:36]": (
        "capturing CUDA graphs 1/20"
    ),
    "Capturing prefill shape (num_tokens=64 avail_mem=7.10 GB): 10%|█ | 3/30 [0<1]": (
        "capturing CUDA graphs 3/30"
    ),
    "Capture target decode CUDA graph begin. backend=full, avail mem=7.10 GB": (
        "capturing CUDA graphs"
    ),
    "Compiling num tokens (num_tokens=7680):   2%|▏   | 1/58 [00:02<02:21]": (
        "compiling 1/58"
    ),
    "[2026-11-22 20:50:17] INFO:     Application startup complete.": "warming up",
    "[2026-11-22 20:50:18] The server is fired up and ready to roll!": "warming up",
    # vLLM.
    "(EngineCore pid=2) INFO 04-20 [gpu_model_runner.py:4] Starting to load model "
    "Qwen/Qwen3-8B...": "loading weights",
    "(EngineCore pid=2) INFO 05-30 [monitor.py:53] torch.compile took 25.99 s": (
        "compiling"
    ),
    "(Worker_TP0 pid=48) INFO 01-14 [backends.py:278] Compiling a graph for compile "
    "range (1, 4096) takes 55.98 s": "compiling",
    "INFO 12-24 [gpu_worker.py:1] Available KV cache memory: 5.03 GiB": (
        "allocating the cache"
    ),
    "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  33%|███ | 12/36 [0<1]": (
        "capturing CUDA graphs 12/36"
    ),
    "[AutoTuner]: Tuning mxfp8_gemm:  39%|███▉   | 9/23 [00:01<00:00, 16.5profile/s]": (
        "tuning kernels 9/23"
    ),
    "INFO [api_server.py:1] Starting vLLM API server 0 on http://127.0.0.1:8000": (
        "warming up"
    ),
    # The download of either.
    "Fetching 7 files:  43%|████▎     | 3/7 [00:05<00:07,  1.9s/it]": (
        "downloading the model 43 %"
    ),
    "model-00001-of-00004.safetensors:  41%|████      | 2.03G/4.98G [00:10<00:14]": (
        "downloading the model 41 %"
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_line_says_what_the_engine_does(line: str) -> None:
    assert last_step(f"something else\n{line}\nno news\n") == LINES[line]


@pytest.mark.parametrize(
    "line",
    [
        "server_args={'skip_server_warmup': True, 'enable_torch_compile': False}",
        "Ignore import error when loading sglang.srt.models.grok: '_OpNamespace'",
        "Loading safetensors checkpoint shards:  43% Compl",
        "",
    ],
)
def test_line_without_news_says_nothing(line: str) -> None:
    assert last_step(line) == ""


def test_last_of_a_bars_states_counts() -> None:
    bar = "\rLoading safetensors checkpoint shards:  {} Completed | {}/7 [00:01<00:02]"
    assert last_step(bar.format("14%", 1) + bar.format("29%", 2)) == (
        "loading weights 29 % (2/7 shards)"
    )


def follow(tmp_path: Path, path: str = "") -> StartProgress:
    log = tmp_path / "log"
    log.write_text("Load weight begin of the start before\n")
    return StartProgress(log, log.stat().st_size, Weights(path))


def write(progress: StartProgress, text: str) -> str:
    with progress.log.open("a") as log:
        log.write(text)
    progress.look()
    return progress.doing


def test_log_is_read_from_this_start_on_and_in_pieces(tmp_path: Path) -> None:
    progress = follow(tmp_path)
    assert write(progress, "") == ""
    assert write(progress, "\rLoading safetensors checkpoint shards:  43% Compl") == ""
    assert write(progress, "eted | 3/7 [00:01<00:02, 1it/s]") == (
        "loading weights 43 % (3/7 shards)"
    )
    moved = progress.moved
    assert write(progress, "\nno news\n") == "loading weights 43 % (3/7 shards)"
    assert progress.moved == moved
    assert write(progress, "Load weight end. elapsed\n") == "allocating the cache"
    assert progress.moved > moved


def test_engine_that_goes_in_circles_makes_no_progress(tmp_path: Path) -> None:
    progress = follow(tmp_path)
    write(progress, "Load weight begin\n")
    write(progress, "Load weight end\n")
    moved = progress.moved
    assert write(progress, "Load weight begin\n") == "loading weights"
    assert progress.moved == moved


def test_log_that_is_not_there_yet_says_nothing(tmp_path: Path) -> None:
    progress = StartProgress(tmp_path / "none", 0, Weights(""))
    progress.look()
    assert progress.doing == ""


def test_growing_download_is_progress_and_its_size_is_told(tmp_path: Path) -> None:
    files = Weights("org/m", {"HF_HOME": str(tmp_path)})
    progress = StartProgress(tmp_path / "none", 0, files)
    progress.look()
    blobs = tmp_path / "hub" / "models--org--m" / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / "abc.incomplete"
    for size in (GIB, 3 * GIB):
        with part.open("wb") as file:
            file.truncate(size)
        before = progress.moved
        progress.look()
        assert progress.doing == f"downloading the model, {size / GIB:.1f} GiB so far"
        assert progress.moved > before
    before = progress.moved
    progress.look()
    assert progress.moved == before


def sparse(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def test_weights_are_weighed_in_a_folder_and_in_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    sparse(folder / "model-1.safetensors", 100)
    sparse(folder / "model-2.safetensors", 50)
    sparse(folder / "pytorch_model.bin", 1000)
    (folder / "config.json").write_text("{}")
    assert Weights(str(folder)).size() == 150
    hub = tmp_path / "hub"
    sparse(hub / "models--org--m/snapshots/1/model.bin", 70)
    assert weights.weights_of("org/m", {"HF_HUB_CACHE": str(hub)}).size() == 70
    assert Weights("org/none", {"HF_HUB_CACHE": str(hub)}).size() == 0
    assert Weights("").size() == Weights("").downloaded() == 0


def test_limit_grows_with_the_weights() -> None:
    assert start_limit(0) == BASE_START_SECONDS
    assert start_limit(10 * GIB) == BASE_START_SECONDS + 10 * SECONDS_PER_GIB


def test_start_is_overdue_beyond_its_limit_unless_it_gets_on() -> None:
    assert not is_overdue(100.0, began=0.0, limit=100.0, moved=float("-inf"))
    assert is_overdue(100.1, began=0.0, limit=100.0, moved=float("-inf"))
    assert not is_overdue(100.1, began=0.0, limit=100.0, moved=99.0)
    assert is_overdue(99.1 + NOTHING_NEW_SECONDS, began=0.0, limit=100.0, moved=99.0)
