"""What engines write into their logs when they fail to start, and what it means."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownCause:
    """A known cause: its line in the log, its meaning and the remedy."""

    pattern: re.Pattern[str]
    meaning: str
    remedy: str
    #: Whether it may go away by itself, as memory that somebody else holds.
    may_heal: bool = False
    #: Whether the remedy ends with what completes the engine's environment.
    is_of_environment: bool = False


def _cause(
    pattern: str,
    meaning: str,
    remedy: str,
    may_heal: bool = False,
    is_of_environment: bool = False,
) -> KnownCause:
    compiled = re.compile(pattern, re.IGNORECASE)
    return KnownCause(compiled, meaning, remedy, may_heal, is_of_environment)


#: What engines write of files and folders that are not there.
NOT_THERE = (
    r"No such file\b|can't open file|Can't load (?:the )?(?:configuration|tokenizer|"
    r"model)|does not appear to have (?:a|the) files? named|Error no file named|"
    r"Invalid repository ID or local directory specified"
)
#: A path from the root, as it stands in a sentence.
LOCAL_PATH = r"""(?:^|[\s'"`(=])~?/[\w.-]"""
#: What comes of a hub that cannot be asked; it may hide behind later lines.
NO_HUB = _cause(
    r"LocalEntryNotFoundError|We couldn't connect to|outgoing traffic has been"
    r"|Max retries exceeded|Temporary failure in name resolution"
    r"|Name or service not known|CERTIFICATE_VERIFY_FAILED|\b5\d\d Server Error"
    r"|huggingface.*Read timed out|offline mode is enabled|CAS (?:service|client) error"
    r"|Consistency check failed|Connection (?:aborted|broken)"
    r"|\b(?:httpx|httpcore|requests\.exceptions|urllib3\.exceptions)\."
    r"(?:\w*Timeout|Connect\w*|Read\w*|Remote\w*|Chunked\w*|Proxy\w*|SSL\w*)\b",
    "the hub cannot be reached from here",
    "see to this host's network, proxy and certificates, or fetch the model by "
    "`modelserver weights pull`",
    may_heal=True,
)
#: What is said of a file that is not there, also by whoever could not ask the hub.
MISSING = _cause(
    r"RepositoryNotFoundError|is not a local folder and is not a valid model"
    r"|Repo id must|Unrecognized model in|Couldn't instantiate the backend tokenizer"
    r"|EntryNotFoundError|RevisionNotFoundError|is not a valid git identifier"
    rf"|404 Client Error|{NOT_THERE}",
    "a file or a model is not there",
    "correct path or command of this model in the fleet file",
)
#: What the other processes of an engine say when one has died: it counts where the log
#: has no other cause.
CONSEQUENCE = _cause(
    r"\bnccl\w*Error\b|NCCL error|Dist(?:Backend|Network|Store)Error"
    r"|gloo/transport|Connection closed by peer|Connection reset by peer",
    "its processes did not reach each other",
    'see to its GPUs and the network between them; environment = {NCCL_DEBUG = "INFO"} '
    "of this model tells more",
    may_heal=True,
)
#: The causes; the first that fits a line counts.
KNOWN_CAUSES = (
    # Before those of containers, which get GPUs once the driver is there.
    _cause(
        r"nvidia-container-cli: .*driver not loaded",
        "the GPU driver of this host is not loaded yet",
        "see `nvidia-smi` on this host",
        may_heal=True,
    ),
    # Of containers, first: their lines also say that a file is not there.
    _cause(
        r"could not select device driver|unresolvable CDI devices?"
        r"|failed to discover GPU vendor|nvidia-container-cli: ",
        "containers on this host get no GPUs",
        "install NVIDIA's container toolkit; for podman also run `nvidia-ctk cdi "
        "generate --output=/etc/cdi/nvidia.yaml`",
    ),
    _cause(
        r"rlimits?\b.*operation not permitted",
        "this host does not allow a limit that its container asks for",
        "raise the launcher's own limits, or set lower ones by container_args = "
        '["--ulimit", "NAME=LIMIT"]',
    ),
    _cause(
        r"executable file .*not found in \$PATH|crun: executable file",
        "its image does not have the program",
        "correct image, interpreter or command of this model",
    ),
    _cause(
        r"statfs .*: no such file|bind source path does not exist",
        "this host does not have a folder that its container gets",
        "see whether its disk is mounted, or correct container_args of this model",
        may_heal=True,
    ),
    _cause(
        r"/dev/shm/.*No space left|shared memory (?:segment|object).*No space left"
        r"|unable to write to file </torch_|insufficient shared memory|\bBus error\b",
        "shared memory (/dev/shm) of this host or container is full",
        "make room in it, or give the container more by container_args = "
        '["--shm-size=16g"]',
        may_heal=True,
    ),
    _cause(
        r"No space left on device|Disk quota exceeded",
        "a disk of this host is full",
        "make room on it",
        may_heal=True,
    ),
    _cause(
        r"Stale (?:NFS )?file handle|Transport endpoint is not connected"
        r"|Input/output error|\[Errno 5\]|\[Errno 112\] Host is down",
        "a disk of this host fails, or is away",
        "see to its mount (`dmesg`)",
        may_heal=True,
    ),
    _cause(
        r"exit code:? -9\b|core proc\(s\): \{.*-9\b",
        "one of its processes was killed",
        "if nobody did that, the kernel did for want of memory (see `dmesg`): give the "
        "host fewer engines, or more memory",
        may_heal=True,
    ),
    _cause(
        r"Too many open files",
        "this host allows it too few open files",
        "raise the launcher's own limit (`ulimit -n`, LimitNOFILE of its unit)",
        may_heal=True,
    ),
    _cause(
        r"\bMemoryError\b|Cannot allocate memory|can't start new thread"
        r"|Thread creation failed|BlockingIOError: \[Errno 11\]",
        "this host is short of memory, or allows too few processes",
        "give the host fewer engines, or raise the launcher's limits (`ulimit -u`, "
        "TasksMax of its unit)",
        may_heal=True,
    ),
    # Another host or another GPU may be able to, and a driver can be updated.
    _cause(
        r"NVIDIA driver on your system is too old|unsupported display driver"
        r"|Driver/library version mismatch|NVML/RM version mismatch"
        r"|forward compatibility was attempted",
        "the GPU driver of this host does not fit the engine, or was just updated",
        "update it, restart the host after an update, or set an older engine_version",
        may_heal=True,
    ),
    _cause(
        r"No CUDA GPUs are available|Found no NVIDIA driver|CUDA unknown error - "
        r"|CUDA-capable devices? (?:are|is) (?:busy|detected)|system not yet "
        r"initialized|invalid device ordinal|DRIVER_NOT_LOADED|driver not loaded",
        "CUDA cannot use its GPUs now",
        "see `nvidia-smi` on this host; with NVSwitches nvidia-fabricmanager must run",
        may_heal=True,
    ),
    _cause(
        r"only supported on GPUs with compute capability|no kernel image is available"
        r"|not supported for the current GPU|Minimum capability: \d"
        r"|out of resource: shared memory|requires? (?:a )?GPUs? with compute cap",
        "its GPU is too old for how the model is run",
        "give the model other GPUs by gpu_name or hosts, or other extra_args, such as "
        '["--dtype", "half"]',
        may_heal=True,
    ),
    _cause(
        r"Cannot connect to the Docker daemon|toomanyrequests: |net/http: (?:request "
        r"canceled|TLS handshake timeout)",
        "what runs containers, or the registry of images, cannot be used now",
        "start it (`systemctl start docker`), or pull the image before",
        may_heal=True,
    ),
    # Memory may be short because somebody else was quicker.
    _cause(
        r"less than desired GPU memory utilization|memory capacity is unbalanced"
        r"|Error in memory profiling",
        "its GPUs are not as empty as it needs them",
        "end what else is on them, or give the model gpu_memory_gib and share_gpu",
        may_heal=True,
    ),
    _cause(
        r"CUDA\]?:? (?:\w+ )?(?:error: )?out of memory|OutOfMemoryError"
        r"|Not enough (?:GPU )?memory\b|No available memory for the cache blocks"
        r"|CUBLAS_STATUS_(?:ALLOC_FAILED|NOT_INITIALIZED)|cudaErrorMemoryAllocation"
        r"|DefaultCPUAllocator: (?:can't|not enough)",
        "its model does not fit into what is free of the GPUs' memory",
        "give it more gpus, a smaller context_length or a smaller model",
        may_heal=True,
    ),
    _cause(
        r"maximum number of tokens that can be stored in KV cache"
        r"|KV cache is needed, which is larger than",
        "its model does not fit the GPUs' memory",
        "give it more gpus, larger ones, a smaller context_length or a smaller model",
        # On larger ones it may fit.
        may_heal=True,
    ),
    _cause(
        r"value ?error.*(?:context_length|max_model_len) \(\d+\) is greater",
        "context_length is above what the model was made for",
        "give this model a smaller context_length in the fleet file, or leave it out",
    ),
    _cause(
        r"divisible by (?:the )?(?:tensor[ _]parallel|tp)[ _]?size",
        "its model cannot be split over so many GPUs",
        "give it a number of gpus that divides its attention heads: 1, 2, 4 or 8",
    ),
    _cause(
        r"unrecognized arguments?:|error: argument |invalid choice:"
        r"|error: ambiguous option|the following arguments are required",
        "the engine does not know an argument",
        "correct extra_args or command of this model in the fleet file",
    ),
    _cause(
        r"gated repo|GatedRepoError|401 Client Error|403 Client Error"
        r"|Access to model .* is restricted",
        "its model is behind a licence or a login",
        "accept the licence on the model's page and set HF_TOKEN",
        may_heal=True,
    ),
    _cause(
        r"429 Client Error|Too Many Requests",
        "the hub gets too many requests from here",
        "wait, or download the model before",
        may_heal=True,
    ),
    # Before what says that a file is not there: so says whoever cannot ask the hub.
    NO_HUB,
    _cause(
        r"trust_remote_code=True",
        "its model comes with code of its own, which engines run only when told to",
        'give it extra_args = ["--trust-remote-code"] if you trust its authors',
    ),
    _cause(
        r"No such file or directory: '(?:[^']*/)?(?:nvcc|ninja|gcc|g\+\+|cc|c\+\+)'"
        r"|\b(?:nvcc|ninja): not found|\w+\.h: No such file|cannot find -l"
        r"|\blib[\w.+-]+\.so[\d.]*: (?:cannot open shared object file|version `)"
        r"|\.so[\d.]*: undefined symbol|Failed to find C compiler|Could not find nvcc"
        r"|CUDA_HOME environment variable is not set|Ninja is required",
        "a compiler or library that the engine needs is not there",
        "install it on this host, or ",
        is_of_environment=True,
    ),
    _cause(
        r"No such file or directory.*(?:/\.cache/|/\.triton/|torchinductor|/dev/shm/)",
        "a file of a cache went away while it was read",
        "end what clears that cache; the next start writes it anew",
        may_heal=True,
    ),
    _cause(
        r"Model architectures? .*(?:not supported|failed to be inspected)"
        r"|Transformers does not recognize this architecture"
        r"|has no (?:SGLang|vLLM) implementation and the Transformers"
        r"|Cannot find model module\. |Unsupported model type",
        "the engine does not know this kind of model",
        "use a version or a type of engine that does, or another model",
    ),
    _cause(
        r"Cannot find any model weights with|No safetensors? weights found"
        r"|contains no weights|Error while deserializing header|SafetensorError: "
        r"|PytorchStreamReader failed|UnpicklingError|is not a valid JSON file",
        "its weights are not there, or not whole",
        "if nobody is copying them, download the model again, or correct path of this "
        "model in the fleet file",
        may_heal=True,
    ),
    # A path of this host, unlike the name of a model of a hub.
    _cause(
        rf"^(?=.*{LOCAL_PATH}).*(?:{NOT_THERE}|is not a local folder|Repo id must)",
        "a file of this host is not there",
        "see whether its disk is mounted, or correct path or command of this model in "
        "the fleet file",
        may_heal=True,
    ),
    MISSING,
    _cause(
        r"packages that were not found in your environment",
        "the model's own code imports what the engine's environment has not",
        "install it there",
    ),
    _cause(
        r"ModuleNotFoundError: |: No module named [\w.]+$"
        r"|ImportError: (?:Please install|cannot import name)",
        "the engine's environment is incomplete",
        "",
        is_of_environment=True,
    ),
)
#: Lines of starts that go well, which look like causes.
HARMLESS = re.compile(
    r"Ignore import error|server_args=|non-default args"
    # Python clears up shared memory that is gone already.
    r"|resource_tracker|No such file or directory: '/(?:psm|mp|sem)[-_.]"
)

#: Errors of CUDA of which a GPU may be the cause. Others are of its driver, of who else
#: uses it, or of the program.
CUDA_ERROR = re.compile(
    r"CUDA error: (?:an? (?:illegal|misaligned|uncorrectable)"
    r"|uncorrectable|unspecified launch failure|hardware stack error"
    r"|the launch timed out|unknown error|GPU is lost|invalid program counter"
    r"|operation not supported on global)"
    r"|CUBLAS_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR)|CUDNN_STATUS_EXECUTION_FAILED"
    r"|cudaError(?:IllegalAddress|LaunchFailure|ECCUncorrectable|HardwareStackError)"
    r"|uncorrectable (?:ECC|NVLink) error",
    re.IGNORECASE,
)
