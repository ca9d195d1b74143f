"""What Flower is told, looked at before it starts: its port, and who may come in."""

from collections.abc import Mapping, Sequence

from modelserver.cli.listening import listen
from modelserver.page.password import FLOWER_USER, Password

#: Flower's own choice.
FLOWER_PORT = 5555
#: Where flowerconfig.py has it listen.
FLOWER_ADDRESS = "127.0.0.1"


def refuse_taken_port(args: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raises ModelserverError where Flower could not listen."""
    port = given("port", args, environ) or str(FLOWER_PORT)
    address = given("address", args, environ) or FLOWER_ADDRESS
    if port.isdigit() and not given("unix_socket", args, environ):
        listen(address, int(port)).close()


def tell_login(
    password: Password,
    is_terminal: bool,
    args: Sequence[str],
    environ: Mapping[str, str],
) -> str:
    """Who may come in to Flower, in words."""
    for name in ("auth", "basic_auth"):
        if given(name, args, environ):
            return f"users as --{name} or FLOWER_{name.upper()} says"
    return f"user {FLOWER_USER}, {password.told(is_terminal)}"


def find_basic_login(password: Password, environ: Mapping[str, str]) -> str:
    """A "user:password" that Flower takes, "" where it takes none."""
    if given("auth", (), environ):
        return ""
    first = given("basic_auth", (), environ).partition(",")[0]
    return first or f"{FLOWER_USER}:{password.text}"


def given(name: str, args: Sequence[str], environ: Mapping[str, str]) -> str:
    """What an option of Flower's says, "" where nothing does."""
    for place, arg in enumerate(args):
        for form in (f"--{name}", f"--{name.replace('_', '-')}"):
            if arg == form and place + 1 < len(args):
                return args[place + 1]
            if arg.startswith(f"{form}="):
                return arg.partition("=")[2]
    return environ.get(f"FLOWER_{name.upper()}", "")
