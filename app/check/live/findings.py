"""What a probe found: one line that begins with its name, and what of it may be shown to others."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from attrs import field, frozen

Verdict = Literal["holds", "differs", "unknown"]
_TOLD: Final = ("name", "verdict", "needed", "assumed", "seen")
_MARKS: Final[dict[Verdict, str]] = {"holds": "[ ok ]", "differs": "[diff]", "unknown": "[ -- ]"}


@frozen
class Finding:
    """One assumption about Coze, and how it is.

    Attributes:
        name: of the probe.
        verdict: ``unknown``: it could not be looked at.
        assumed: how the service takes Coze to be.
        seen: how it was: counts, seconds, codes and names of events only. It goes into the report, so it
            holds no token, no id and nothing that anybody or the bot said.
        does: what the service does about it.
        needed: that no answer is lost rests on it.
    """

    name: str
    verdict: Verdict
    assumed: str
    seen: str
    does: str
    needed: bool = field(default=False, kw_only=True)

    @property
    def fails(self) -> bool:
        return self.needed and self.verdict != "holds"

    def __str__(self) -> str:
        mark = "[FAIL]" if self.fails else _MARKS[self.verdict]
        return f"{self.name:<14} {mark} assumed: {self.assumed}; seen: {self.seen}; so it {self.does}."


@frozen
class Report:
    """All of one run. ``made_at``: ISO 8601, UTC. ``use_stream``: COZE_USE_STREAM."""

    version: str
    host: str
    use_stream: bool
    findings: Sequence[Finding]
    made_at: str = field(factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def holds(self) -> bool:
        """Whether all holds that no answer is lost."""
        return not any(finding.fails for finding in self.findings)

    @property
    def summary(self) -> str:
        """One line, for whoever starts the service later."""
        failed = [finding.name for finding in self.findings if finding.fails]
        other = [f.name for f in self.findings if f.verdict == "differs" and not f.fails]
        text = f"answers can be lost here ({', '.join(failed)})" if failed else "no answer is lost here"
        return text + (f"; different from what is assumed: {', '.join(other)}" if other else "")

    def as_json(self) -> dict[str, Any]:
        """What is kept and may be sent to others."""
        return {
            "made_at": self.made_at,
            "service": self.version,
            "host": self.host,
            "use_stream": self.use_stream,
            "holds": self.holds,
            "summary": self.summary,
            "findings": [{name: getattr(found, name) for name in _TOLD} for found in self.findings],
        }
