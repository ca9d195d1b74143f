"""Why an engine failed to start, read from its log, and whether a retry may heal it."""

import re
from dataclasses import dataclass

#: Last lines of the log that are read; vLLM writes long tracebacks after the cause.
DIAGNOSED_LINES = 300


@dataclass(frozen=True, slots=True)
class KnownCause:
    """A known cause: its line in the log, its meaning and the remedy."""

    pattern: re.Pattern[str]
    meaning: str
    remedy: str
    #: Whether it may go away by itself, as memory that somebody else holds.
    may_heal: bool = False


@dataclass(frozen=True, slots=True)
class FoundCause:
    """A known cause as one log shows it."""

    #: What it is and what to do, for people.
    text: str
    #: Whether it may go away by itself.
    may_heal: bool


def _cause(
    pattern: str, meaning: str, remedy: str, may_heal: bool = False
) -> KnownCause:
    return KnownCause(re.compile(pattern, re.IGNORECASE), meaning, remedy, may_heal)


#: What engines write of files and folders that are not there.
NOT_THERE = (
    r"No such file\b|can't open file|Can't load the (?:configuration|"
    r"tokenizer|model)|does not appear to have (?:a|the) files? named|Invalid "
    r"repository ID or local directory specified"
)
#: A path from the root, as it stands in a sentence.
LOCAL_PATH = r"""(?:^|[\s'"`(=])~?/[\w.-]"""
#: The causes; the first that fits a line counts.
KNOWN_CAUSES = (
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
    # Memory may be short because somebody else was quicker.
    _cause(
        r"less than desired GPU memory utilization",
        "its GPUs are not as empty as it needs them",
        "end what else is on them, or give the model gpu_memory_gib and share_gpu",
        may_heal=True,
    ),
    _cause(
        r"CUDA (?:error: )?out of memory|OutOfMemoryError|Not enough memory\. Please"
        r"|No available memory for the cache blocks"
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
    _cause(
        r"LocalEntryNotFoundError|We couldn't connect to|outgoing traffic has been"
        r"|Max retries exceeded|Temporary failure in name resolution"
        r"|CERTIFICATE_VERIFY_FAILED|\b5\d\d Server Error|huggingface.*Read timed out",
        "the hub cannot be reached from here",
        "see to this host's network, proxy and certificates, or fetch the model by "
        "`modelserver weights pull`",
        may_heal=True,
    ),
    _cause(
        r"trust_remote_code=True",
        "its model comes with code of its own, which engines run only when told to",
        'give it extra_args = ["--trust-remote-code"] if you trust its authors',
    ),
    _cause(
        r"No such file or directory: '(?:nvcc|ninja|gcc|g\+\+)'|\b(?:nvcc|ninja): not "
        r"found|\blib[\w.+-]+\.so[\d.]*: cannot open shared object file",
        "a compiler or library that the engine needs is not there",
        "install it on this host, or run `modelserver engines install`",
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
        r"|contains no weights|HeaderTooLarge|InvalidHeaderDeserialization"
        r"|MetadataIncompleteBuffer|incomplete metadata",
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
    _cause(
        r"RepositoryNotFoundError|is not a local folder and is not a valid model"
        rf"|Repo id must|Unrecognized model in|EntryNotFoundError|{NOT_THERE}",
        "a file or a model is not there",
        "correct path or command of this model in the fleet file",
    ),
    _cause(
        r"ModuleNotFoundError: |: No module named [\w.]+$",
        "the engine's environment is incomplete",
        "run `modelserver engines install` for this engine, or correct interpreter",
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


def find_cause(log: str) -> FoundCause | None:
    """The known cause, with its remedy.

    The last line that fits decides: engines recover from earlier ones.

    >>> find_cause("error: unrecognized arguments: --tp").text.split(";")[0]
    'the engine does not know an argument (error: unrecognized arguments: --tp)'
    """
    for line in reversed(log.splitlines()[-DIAGNOSED_LINES:]):
        for cause in KNOWN_CAUSES if not HARMLESS.search(line) else ():
            if cause.pattern.search(line):
                said = f"{cause.meaning} ({line.strip()[:200]}); {cause.remedy}"
                return FoundCause(said, cause.may_heal)
    return None


def find_cuda_error(log: str) -> str:
    """The last line that tells of an error of CUDA while it computed, "" for none.

    >>> find_cuda_error("RuntimeError: CUDA error: an illegal memory access was met")
    'RuntimeError: CUDA error: an illegal memory access was met'
    """
    for line in reversed(log.splitlines()[-DIAGNOSED_LINES:]):
        if CUDA_ERROR.search(line):
            return line.strip()[:200]
    return ""


def last_words(log: str) -> str:
    """The last line that an engine wrote, '' if it wrote none."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return "" if not lines or lines[-1].startswith("--- ") else lines[-1][:200]
