"""A real server behind TLS: a real handshake on the client's side, certificates too."""

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.processes import ROOT, end

#: Curves make keys in no time.
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


class Authority:
    """A certificate authority in a folder, with the certificates that it gave out."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self.name = name
        #: The certificate of the authority itself.
        self.certificate = folder / f"{name}.pem"
        head = ("req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}")
        out = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        _openssl(*head, *out, folder=folder)

    def issue(self, name: str, hosts: str = "IP:127.0.0.1") -> tuple[Path, Path]:
        """A certificate for ``hosts`` and its key."""
        _openssl(
            *("req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}"),
            *("-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key"),
            *("-addext", f"subjectAltName={hosts}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
            folder=self.folder,
        )
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


@contextlib.contextmanager
def tls_in_front_of(
    port: int, certificate: tuple[Path, Path], clients: Authority | None = None
) -> Iterator[int]:
    """Speak TLS on a port of its own, which is yielded, for a server without it.

    With ``clients`` it wants certificates of this authority. A process of its own.
    """
    more = [str(clients.certificate)] if clients else []
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(port), *map(str, certificate), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        with process.stdout:
            yield int(process.stdout.readline())
    finally:
        end(process)


async def _serve(port: int, context: ssl.SSLContext) -> None:
    async def forward(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            there = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def main(port: str, certificate: str, key: str, clients: str = "") -> None:
    """Forward until somebody ends this process."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    asyncio.run(_serve(int(port), context))


if __name__ == "__main__":
    main(*sys.argv[1:])
