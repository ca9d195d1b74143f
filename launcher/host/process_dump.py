"""What an engine's processes are doing: their tree, and where their threads stand."""

import asyncio
import re
import shutil
import sys
import time
from pathlib import Path

import psutil

from launcher.host.process import Identity, survivors

#: Processes of which stacks are taken at most.
DUMPED_PROCESSES = 16
#: Seconds that py-spy may take for one process.
DUMP_SECONDS = 3.0
#: Files of /proc that say where a process stands, where py-spy says nothing.
PROC_FILES = ("wchan", "syscall", "stack")

#: A secret: what follows such a name, by itself or after "=" or ":".
_SECRET = re.compile(
    r"((?:api|admin|access|auth|secret|private|hf|hub)[_-]?(?:key|token)s?"
    r"|passw(?:or)?d|secret)(['\"]?\s*[=:]\s*|['\"]?,?\s+)(['\"]?)[^\s'\",}]+",
    re.IGNORECASE,
)
#: Tokens of Hugging Face and of OpenAI's kind.
_TOKEN = re.compile(r"\b(hf_|sk-)[\w-]{8,}")
#: User and password in an address.
_USER = re.compile(r"://[^/\s@]+@")


def redact(text: str) -> str:
    """The text without what looks like a key, a token or a password.

    >>> redact("serve --api-key abc --port 1 HF_TOKEN=hf_12345678 redis://:pw@h/0")
    'serve --api-key *** --port 1 HF_TOKEN=*** redis://***@h/0'
    """
    text = _SECRET.sub(r"\1\2\3***", text)
    return _USER.sub("://***@", _TOKEN.sub(r"\1***", text))


def tree(identity: Identity) -> str:
    """The living processes of an engine, one per line."""
    lines = ["pid ppid state threads rss_mib cpu_seconds age_seconds command"]
    found = sorted(survivors(identity), key=lambda each: each.pid)
    lines += [_line(each) for each in found] or ["none lives"]
    return "\n".join(lines) + "\n"


def _line(process: psutil.Process) -> str:
    try:
        with process.oneshot():
            cpu = process.cpu_times()
            values = (
                process.pid,
                process.ppid(),
                process.status(),
                process.num_threads(),
                process.memory_info().rss // 2**20,
                f"{cpu.user + cpu.system:.1f}",
                f"{time.time() - process.create_time():.0f}",
                redact(" ".join(process.cmdline()).strip()),
            )
    except psutil.Error as error:
        return f"{process.pid} not readable: {error}"
    return " ".join(map(str, values))


async def dump(identity: Identity) -> str:
    """Where each thread of each process stands: by py-spy, else by the kernel."""
    found = await asyncio.to_thread(survivors, identity)
    found.sort(key=lambda each: each.pid)
    texts = await asyncio.gather(*(_dump(each) for each in found[:DUMPED_PROCESSES]))
    left_out = len(found) - len(texts)
    more = f"{left_out} more processes are left out\n" if left_out else ""
    return ("\n".join(texts) or "none lives\n") + more


async def _dump(process: psutil.Process) -> str:
    try:
        title, program = " ".join(process.cmdline()).strip(), Path(process.exe()).name
    except psutil.Error as error:
        return f"=== pid {process.pid}\nnot readable: {error}\n"
    text, fault = "", "it is no Python program"
    if program.startswith("python"):
        text, fault = await _spy(process.pid)
    if not text:
        text = f"no Python stack: {fault}\n{_kernel(process.pid)}"
    return redact(f"=== pid {process.pid} {title[:200]}\n{text}")


async def _spy(pid: int) -> tuple[str, str]:
    """What py-spy prints, or "" and why it prints nothing."""
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if not program:
        return "", "py-spy is not installed"
    # --nonblocking: a process that is stopped already cannot be stopped again.
    child = await asyncio.create_subprocess_exec(
        *(program, "dump", "--nonblocking", "--pid", str(pid)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DUMP_SECONDS):
            out, err = await child.communicate()
    except TimeoutError:
        return "", f"py-spy took more than {DUMP_SECONDS:g} s"
    finally:
        if child.returncode is None:
            child.kill()
    if child.returncode == 0 and out:
        return out.decode(errors="replace"), ""
    said = err.decode(errors="replace").strip().replace("\n", " ")
    if "ermission" in said:
        said += "; stacks need the right to trace (CAP_SYS_PTRACE, ptrace_scope 0)"
    return "", f"py-spy: {said}"


def _kernel(pid: int) -> str:
    lines = []
    for name in PROC_FILES:
        try:
            text = Path(f"/proc/{pid}/{name}").read_text().strip()
        except OSError as error:
            text = f"not readable ({error.strerror})"
        lines.append(f"{name}: {text}\n")
    return "".join(lines)
