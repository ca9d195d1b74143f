"""What was looked at, and how it was found."""

from dataclasses import dataclass, field


@dataclass
class Findings:
    """What was looked at, in order: each with a fact, and whether it is as promised."""

    rows: list[tuple[str, bool, str]] = field(default_factory=list)

    def add(self, what: str, ok: bool, fact: str) -> None:
        """Note one, and show it at once."""
        self.rows.append((what, ok, fact))
        print(f"{'ok' if ok else 'NOT OK':7} {what}: {fact}", flush=True)

    def table(self) -> str:
        """All of them in Markdown."""
        lines = ["| what | as promised | seen |", "|---|---|---|"]
        lines += [
            f"| {w} | {'yes' if ok else '**no**'} | {f} |" for w, ok, f in self.rows
        ]
        return "\n".join(lines)
