"""A member of a consumer group that speaks the protocol itself."""

from __future__ import annotations

from typing import Any

from kafka.errors import MemberIdRequiredError

from contract.lab import Lab
from contract.requests import heartbeat, join, leave, sync
from contract.wire import Wire

__all__ = ["Member"]


class Member:
    """One member with a connection of its own; ``id`` and ``generation`` are those of its last join."""

    def __init__(self, lab: Lab, group: str, node_id: int, version: int = 5, **options: Any) -> None:
        self.wire: Wire = lab.connect(node_id)
        self.group = group
        self.id = ""
        self.generation = -1
        self._version = version
        self._options = options
        self._joining = 0

    def introduce(self) -> None:
        """Ask for a member id, as a new member must."""
        response = self.wire.ask(join(self.group, **self._options), self._version)
        assert response.error_code == MemberIdRequiredError.errno
        self.id = response.member_id

    def send_join(self) -> None:
        """Join, without waiting."""
        if not self.id and self._version >= 4 and not self._options.get("instance_id"):
            self.introduce()
        self._joining = self.wire.send(join(self.group, self.id, **self._options), self._version)

    def joined(self) -> Any:
        """Wait for the answer to the join; without an error, this is the member's generation."""
        response = self.wire.answer(self._joining)
        if response.error_code == 0:
            self.id, self.generation = response.member_id, response.generation_id
        return response

    def join(self) -> Any:
        """Join, and wait for the answer."""
        self.send_join()
        return self.joined()

    def sync(self, assignments: dict[str, bytes] | None = None) -> Any:
        return self.wire.ask(sync(self.group, self.generation, self.id, assignments), 3)

    def lead(self, *others: Member) -> None:
        """Assign to each member its own id, in bytes."""
        members = [self, *others]
        response = self.sync({member.id: member.id.encode() for member in members})
        assert (response.error_code, response.assignment) == (0, self.id.encode())

    def heartbeat(self) -> int:
        """The error code of a heartbeat."""
        return int(self.wire.ask(heartbeat(self.group, self.generation, self.id), 3).error_code)

    def leave(self) -> int:
        """Leave; returns the error code."""
        response = self.wire.ask(leave(self.group, self.id), 3)
        assert response.error_code == 0
        return int(response.members[0].error_code)
