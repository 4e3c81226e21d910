"""One measurement to be made: a library, a cluster, and what to do there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Protocol, TypeVar

from benchmarks.libraries import Library

__all__ = ["Brokers", "Case", "Fill", "Plan", "Result", "Topic", "WrongCountError"]

Result = dict[str, Any]
Self = TypeVar("Self", bound="Case")


class WrongCountError(Exception):
    """Not exactly the records that were sent are in the log, or were read: what was timed means nothing."""


@dataclass(frozen=True)
class Fill:
    """Records that are in a topic before anything is measured."""

    records: int
    size: int
    codec: str


@dataclass(frozen=True)
class Topic:
    """A topic that is there while a plan is carried out."""

    name: str
    partitions: int
    replicas: int = 3
    fill: Fill | None = None


class Brokers(Protocol):
    """The cluster, as those see it who prepare a measurement and check it."""

    def create(self, topics: list[Topic]) -> None: ...

    def delete(self, topics: list[str]) -> None: ...

    def ends(self, topic: str) -> list[int]:
        """The offset after the last record, for each partition."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What to measure. It goes to the process that measures as JSON, so its fields are plain values."""

    benchmark: ClassVar[str]
    named_by: ClassVar[tuple[str, ...]]
    """The fields that tell one case of the benchmark from another."""

    libraries: tuple[str, ...] = ()
    """None: every one is measured."""
    library: str = ""
    bootstrap: str = ""

    def of(self: Self, library: str) -> list[Self]:
        """This case for one library: several where that has several ways to do it."""
        return [replace(self, library=library)] if library in self.libraries or not self.libraries else []

    def about_s(self) -> float:
        """How long it takes, roughly."""
        raise NotImplementedError

    def prepared(self: Self, brokers: Brokers) -> AbstractContextManager[Self]:
        """What must be there for this measurement only."""
        return nullcontext(self)

    def measure(self, library: Library) -> Result:
        """Measure, in the process that is there for it."""
        raise NotImplementedError

    def check(self, figures: Result, brokers: Brokers) -> None:
        """Raise WrongCountError where the counts are not right."""

    def what(self) -> Result:
        """What its figures are the figures of."""
        return {
            "benchmark": self.benchmark,
            "library": self.library,
            **{name: getattr(self, name) for name in self.named_by},
        }

    def as_plain_values(self) -> dict[str, Any]:
        return {"benchmark": self.benchmark, **asdict(self)}

    def __str__(self) -> str:
        return ", ".join([self.library, self.benchmark, *(f"{name} {getattr(self, name)}" for name in self.named_by)])


@dataclass
class Plan:
    """All that is measured in one round, but for the library."""

    topics: list[Topic] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)

    def __add__(self, other: Plan) -> Plan:
        return Plan([*self.topics, *other.topics], [*self.cases, *other.cases])
