"""Causes of a failed start, by what SGLang and vLLM really write."""

from dataclasses import replace

import pytest

from launcher.startup_log.diagnosis import (
    DIAGNOSED_LINES,
    find_cause,
    find_cuda_error,
    last_words,
)
from modelserver.values import Kind, ModelSpec

MODEL = ModelSpec("m", Kind.COMPLETION, "/m", "vllm")

CORE = "(EngineCore pid=3709) ERROR 09-18 21:38:02 [core.py:1374] "
#: A line, and a word of the remedy that it comes with.
CAUSES = {
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB": "more gpus",
    "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. "
    "Current value: mem_fraction_static=0.3": "smaller context_length",
    f"{CORE}ValueError: Free memory on device cuda:0 (6.9/8.0 GiB) on startup is less "
    "than desired GPU memory utilization (0.9, 7.2 GiB).": "end what else is on them",
    f"{CORE}ValueError: No available memory for the cache blocks. Try increasing "
    "`gpu_memory_utilization` when initializing the engine.": "more gpus",
    f"{CORE}ValueError: The model's max seq len (131072) is larger than the maximum "
    "number of tokens that can be stored in KV cache (93936).": "context_length",
    "(5.62 GiB KV cache is needed, which is larger than the available KV cache memory "
    "(4.50 GiB). Based on the available memory": "context_length",
    "ValueError: Warning: User-specified context_length (65536) is greater than the "
    "derived context_length (4096).": "smaller context_length in the fleet file",
    "  Value error, User-specified max_model_len (65536) is greater than the derived "
    "max_model_len (max_position_embeddings=4096)": "smaller context_length",
    "  Value error, Total number of attention heads (32) must be divisible by tensor "
    "parallel size (3).": "divides its attention heads",
    "sglang: error: unrecognized arguments: --x": "extra_args",
    "vllm: error: argument --dtype: invalid choice: 'int3'": "extra_args",
    "OSError: You are trying to access a gated repo.": "HF_TOKEN",
    "huggingface_hub.errors.GatedRepoError: 403 Client Error.": "HF_TOKEN",
    "ValueError: Model architectures ['MadeUpForCausalLM'] are not supported for now. "
    "Supported architectures: dict_keys(['A'])": "another model",
    "  Value error, Model architectures ['MadeUp'] are not supported for now.": (
        "another model"
    ),
    "ValueError: MadeUp has no vLLM implementation and the Transformers implementation "
    "is not compatible with vLLM.": "another model",
    "ValueError: The checkpoint you are trying to load has model type `made_up` but "
    "Transformers does not recognize this architecture.": "another model",
    "RuntimeError: Cannot find any model weights with `/m`": "download the model",
    "safetensors_rust.SafetensorError: Error while deserializing header: "
    "incomplete metadata, file not fully covered": "download the model",
    "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: "
    "invalid header length": "download the model",
    "safetensors_rust.SafetensorError: Error while deserializing header: invalid JSON "
    "in header: expected value at line 1 column 9": "download the model",
    "OSError: /m does not appear to have a file named config.json": "correct path",
    "OSError: Can't load the configuration of '/m'.": "correct path",
    "  Value error, Invalid repository ID or local directory specified: '/m'.": (
        "correct path"
    ),
    "FileNotFoundError: [Errno 2] No such file or directory: '/m'": "correct path",
    'docker: Error response from daemon: could not select device driver "" with '
    "capabilities: [[gpu]].": "container toolkit",
    "Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=GPU-1": (
        "nvidia-ctk cdi generate"
    ),
    "Error: crun: setrlimit `RLIMIT_NPROC`: Operation not permitted: OCI permission "
    "denied": "--ulimit",
    "Error: runc: runc create failed: unable to start container process: error during "
    "container init: error setting rlimits for ready process: error setting rlimit "
    "type 7: operation not permitted: OCI permission denied": "--ulimit",
    "Error: runc: runc create failed: unable to start container process: exec: "
    '"python3"'
    ": executable file not found in $PATH: OCI runtime attempted to invoke a command "
    "that was not found": "correct image",
    "Error: statfs /models/m: no such file or directory": "container_args",
    "/bin/sh: 0: cannot open /nfs/serve.sh: No such file": "is mounted",
    "OSError: [Errno 116] Stale file handle: '/nfs/m/config.json'": "dmesg",
    "OSError: [Errno 107] Transport endpoint is not connected: '/nfs/m'": "dmesg",
    "OSError: org/m does not appear to have a file named config.json. Checkout "
    "'https://huggingface.co/org/m/tree/main' for available files.": "correct path",
    "OSError: Can't load the configuration of 'org/m'. If you were trying to load it "
    "from 'https://huggingface.co/models', make sure": "correct path",
    "OSError: org/m is not a local folder and is not a valid model identifier listed "
    "on 'https://huggingface.co/models'": "correct path",
    "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' "
    "or 'namespace/repo_name': '/nfs/models/m'.": "is mounted",
    "python: can't open file '/nfs/serve.py': [Errno 2] No such file or directory": (
        "is mounted"
    ),
    "RuntimeError: CUDA error: out of memory": "more gpus",
    "RuntimeError: Rank 0 scheduler died during initialization (exit code: -9). If "
    "exit code is -9 (SIGKILL), a common cause is the OS OOM killer.": "dmesg",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed "
    "core proc(s): {'EngineCore_DP0': -9}": "dmesg",
    "OSError: [Errno 24] Too many open files: '/proc/self/maps'": "LimitNOFILE",
    "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to "
    "locate the file on the Hub": "weights pull",
    "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and "
    "couldn't find them in the cached files.": "weights pull",
    "requests.exceptions.SSLError: HTTPSConnectionPool(host='huggingface.co', port=443)"
    ": Max retries exceeded with url: /api (Caused by SSLError": "certificates",
    "huggingface_hub.errors.HfHubHTTPError: 504 Server Error: Gateway": "weights pull",
    "ValueError: Please set the option `trust_remote_code=True`": "--trust-remote-code",
    "FileNotFoundError: [Errno 2] No such file or directory: 'ninja'": "install it",
    "ImportError: libcudart.so.12: cannot open shared object file: No such file or "
    "directory": "engines install",
    "FileNotFoundError: [Errno 2] No such file or directory: '/tmp/torchinductor/a'": (
        "the next start"
    ),
    "requests.exceptions.HTTPError: 429 Client Error: Too Many Requests": "wait",
    "ModuleNotFoundError: No module named 'sglang'": "engines install",
    "/opt/python: No module named vllm": "engines install",
    "safetensors_rust.SafetensorError: Error while deserializing header: header too "
    "large": "download the model",
    "safetensors_rust.SafetensorError: Error while deserializing header: header too "
    "small": "download the model",
    "safetensors_rust.SafetensorError: Error while deserializing header: invalid JSON "
    "in header: EOF while parsing a value at line 1 column 0": "download the model",
    "_pickle.UnpicklingError: Weights only load failed.": "download the model",
    "OSError: It looks like the config file at '/m/config.json' is not a valid JSON "
    "file.": "download the model",
    "FileNotFoundError: [Errno 2] No such file or directory: '/usr/local/cuda/bin/nvcc'"
    "": "install it on this host",
    "/tmp/x/main.c:5:10: fatal error: Python.h: No such file or directory": "install",
    "/usr/bin/ld: cannot find -lcuda: No such file or directory": "install it on this",
    "RuntimeError: Failed to find C compiler. Please specify via CC": "install it on",
    "ImportError: /lib/libstdc++.so.6: version `GLIBCXX_3.4' not found": "install it",
    "ImportError: /opt/vllm/_C.abi3.so: undefined symbol: _ZN3c106": "install it on",
    "ImportError: This modeling file requires the following packages that were not "
    "found in your environment: einops.": "the model's own code imports",
    "OSError: Can't load tokenizer for '/m'.": "correct path",
    "huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.": "correct path",
}
#: The same for what goes away by itself, or on another host or GPU.
PASSING = {
    "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1970, "
    "unhandled system error": "NCCL_DEBUG",
    "RuntimeError: [gloo/transport/tcp/pair.cc:525] Read error [127.0.1.1]:13422: "
    "Connection reset by peer": "NCCL_DEBUG",
    "Last error: Error while creating shared memory segment /dev/shm/nccl-AbCdEf (size "
    "33554432), error: No space left on device (28)": "--shm-size",
    "RuntimeError: unable to write to file </torch_1234_567>": "--shm-size",
    "MemoryError": "fewer engines",
    "RuntimeError: can't start new thread": "ulimit -u",
    "RuntimeError: The NVIDIA driver on your system is too old (found 12020).": (
        "engine_version"
    ),
    "Failed to initialize NVML: Driver/library version mismatch": "restart the host",
    "RuntimeError: No CUDA GPUs are available": "nvidia-smi",
    "Error 802: system not yet initialized": "fabricmanager",
    "RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable": (
        "nvidia-smi"
    ),
    "nvidia-container-cli: initialization error: nvml error: driver not loaded": (
        "nvidia-smi"
    ),
    "ValueError: Bfloat16 is only supported on GPUs with compute capability of at "
    "least 8.0. Your Tesla T4 GPU has compute capability 7.5.": "gpu_name",
    "torch.AcceleratorError: CUDA error: no kernel image is available for execution": (
        "gpu_name"
    ),
    "ValueError: The quantization method fp8 is not supported for the current GPU.": (
        "gpu_name"
    ),
    "RuntimeError: Triton Error [CUDA]: out of memory": "more gpus",
    "RuntimeError: CUDA driver error: out of memory": "more gpus",
    "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas`": (
        "more gpus"
    ),
    "ValueError: The memory capacity is unbalanced. Some GPUs may be occupied by other "
    "processes.": "end what else is on them",
    "AssertionError: Error in memory profiling. Initial free memory 1.0 GiB, current "
    "free memory 2.0 GiB.": "end what else is on them",
    "httpx.ReadTimeout: The read operation timed out": "weights pull",
    "requests.exceptions.ChunkedEncodingError: ('Connection broken: IncompleteRead(1 "
    "bytes read, 2 more expected)'": "weights pull",
    "RuntimeError: Data processing error: CAS service error : Reqwest Error: HTTP "
    "status server error (503 Service Unavailable)": "weights pull",
    "OSError: Consistency check failed: file should be of size 4999802720 but has size "
    "1234 (model-00001-of-00004.safetensors).": "weights pull",
    "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.": (
        "systemctl start docker"
    ),
    "docker: Error response from daemon: toomanyrequests: You have reached your pull "
    "rate limit.": "pull the image before",
}


@pytest.mark.parametrize("line", CAUSES)
def test_known_cause_comes_with_its_remedy(line: str) -> None:
    cause = find_cause(f"loading\n{line}\nbye\n", MODEL)
    assert cause
    found = cause.text
    assert line.strip()[:60] in found
    assert CAUSES[line] in found


#: What a log says where an environment lacks something.
LACKS = (
    "ModuleNotFoundError: No module named 'sglang'",
    "ImportError: libcudart.so.12: cannot open shared object file: No such file",
)


@pytest.mark.parametrize("line", LACKS)
@pytest.mark.parametrize(
    ("model", "remedy"),
    [
        (MODEL, "run `modelserver engines install vllm`"),
        (
            replace(MODEL, engine_version="0.33.0"),
            "run `modelserver engines install vllm==0.33.0`",
        ),
        (
            replace(MODEL, interpreter="/opt/vllm/bin/python"),
            "install it for /opt/vllm/bin/python, or correct interpreter",
        ),
        (
            replace(MODEL, image="vllm/vllm-openai"),
            "put it into the image vllm/vllm-openai, or correct image",
        ),
        (
            replace(MODEL, engine="command", command=("/opt/py/python", "serve.py")),
            "install it where this model's command runs (/opt/py/python), "
            "or correct command",
        ),
    ],
)
def test_what_is_missing_is_to_be_put_into_the_environment_that_lacks_it(
    line: str, model: ModelSpec, remedy: str
) -> None:
    cause = find_cause(line, model)
    assert cause
    assert cause.text.endswith(remedy)
    assert ("engines install" in cause.text) is ("engines install" in remedy)


@pytest.mark.parametrize(
    "line",
    [
        "Segmentation fault",
        "[Errno 98] address already in use",
        "/usr/lib/python3.11/multiprocessing/resource_tracker.py:239: UserWarning: "
        "resource_tracker: '/psm_21': [Errno 2] No such file or directory: '/psm_21'",
        "FileNotFoundError: [Errno 2] No such file or directory: '/psm_21b3'",
        "[2026-11-22 20:50:16] Ignore import error when loading sglang.srt.models."
        "inkling: No module named 'cutlass'",
        "TransformersForCausalLM has no vLLM implementation, falling back to "
        "Transformers implementation.",
        "server_args={'model_path': '/m', 'api': 'invalid choice: no'}",
        "Warning: User-specified context_length (65536) is greater than the derived "
        "context_length (4096).",
    ],
)
def test_line_that_a_healthy_start_writes_too_is_no_cause(line: str) -> None:
    assert find_cause(f"loading\n{line}\nbye\n", MODEL) is None


@pytest.mark.parametrize("line", PASSING)
def test_what_passes_is_tried_again_and_comes_with_its_remedy(line: str) -> None:
    cause = find_cause(f"loading\n{line}\nbye\n", MODEL)
    assert cause
    assert cause.may_heal
    assert PASSING[line] in cause.text


def test_a_file_that_the_hub_could_not_be_asked_for_may_be_there() -> None:
    missing = "OSError: Can't load the configuration of 'org/m'."
    asked = "httpx.ConnectTimeout: timed out"
    found = find_cause(
        f"{asked}\nDuring handling of that, another one:\n{missing}\n", MODEL
    )
    assert found
    assert found.may_heal
    assert asked in found.text
    alone = find_cause(missing, MODEL)
    assert alone
    assert not alone.may_heal


def test_what_the_other_processes_say_of_a_death_does_not_hide_its_cause() -> None:
    others = "torch.distributed.DistBackendError: NCCL error: remote process exited"
    found = find_cause(f"CUDA out of memory\n{others}\n", MODEL)
    assert found
    assert "more gpus" in found.text


def test_cause_before_a_long_traceback_of_the_head_is_found() -> None:
    cause = f"{CORE}ValueError: No available memory for the cache blocks."
    tail = '(APIServer pid=1)   File "x.py", line 1, in run\n' * (DIAGNOSED_LINES - 10)
    found = find_cause(f"{cause}\n{tail}", MODEL)
    assert found
    assert "more gpus" in found.text


def test_last_telling_line_decides() -> None:
    log = "OSError: You are trying to access a gated repo.\nCUDA out of memory\n"
    found = find_cause(log, MODEL)
    assert found
    assert "more gpus" in found.text


def test_last_words_are_the_engines_own() -> None:
    assert last_words("--- 2026 engine=a: srv\nloading\n\n") == "loading"
    assert last_words("--- 2026 engine=a: srv\n") == ""
    assert last_words("") == ""


@pytest.mark.parametrize("line", CAUSES)
def test_what_a_change_of_the_fleet_cannot_mend_may_heal(line: str) -> None:
    cause = find_cause(line, MODEL)
    assert cause
    memory = "out of memory" in line or "Not enough memory" in line
    memory = memory or "KV cache" in line
    others = ("desired GPU memory", "No available memory", "gated", "Gated", "429")
    others += ("-9", "Errno 24", "LocalEntry", "connect", "retries", "504", "inductor")
    # What is on a disk of this host may be mounted or copied yet.
    others += (
        ": /m does not",
        "'/m'",
        "`/m`",
        "/nfs",
        "statfs",
        "header: ",
        "Unpickling",
        "'/m/config.json",
    )
    assert cause.may_heal == (memory or any(word in line for word in others))


@pytest.mark.parametrize(
    ("error", "blames_gpu"),
    [
        ("an illegal memory access was encountered", True),
        ("uncorrectable ECC error encountered", True),
        ("unspecified launch failure", True),
        ("all CUDA-capable devices are busy or unavailable", False),
        ("system not yet initialized", False),
        ("system has unsupported display driver / cuda driver combination", False),
        ("peer access is not supported between these two devices", False),
        ("device-side assert triggered", False),
        ("invalid configuration argument", False),
        ("out of memory", False),
    ],
)
def test_a_gpu_is_blamed_for_what_it_may_have_done(error: str, blames_gpu: bool):
    line = f"RuntimeError: CUDA error: {error}"
    assert find_cuda_error(line) == (line if blames_gpu else "")
