"""The two networks of a cluster, and cutting a broker off from either.

Clients come in through the ports that Docker publishes from the one; brokers talk to each other over the other, which
leads nowhere else. A broker's name exists on the brokers' network only, so that no broker traffic takes the clients'.

A broker is cut off by taking its end of a network down, so that packets are lost as when a cable is pulled. To
disconnect the container instead would not do: Docker 20 then publishes the ports from the other network, and after
reconnecting the broker may have another address.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from . import _engine
from ._errors import ClusterError
from ._properties import broker_host

Side = Literal["clients", "brokers", "everyone"]

# Interfaces are known to Docker by their hardware address, and to `ip` by their name.
_SET_LINK = """
for interface in /sys/class/net/*; do
    for address in $ADDRESSES; do
        if [ "$(cat $interface/address)" = $address ]; then ip link set ${interface##*/} $STATE || exit 1; fi
    done
done
"""


def checked_side(side: str) -> Side:
    """Raises ValueError that lists the sides there are."""
    if side not in get_args(Side):
        raise ValueError(f"from_ is {side!r}; expected one of {', '.join(map(repr, get_args(Side)))}")
    return side  # type: ignore[return-value]


class Networks:
    """Both networks. Holds no state of its own: who is cut off is for the interfaces to know."""

    def __init__(self, client: Any, run_id: str) -> None:
        """Name the networks; `create()` makes them."""
        self._client = client
        self.run_id = run_id
        self.clients = f"pooledkafka-{run_id}-clients"
        self.brokers = f"pooledkafka-{run_id}-brokers"

    def create(self) -> None:
        """Make both."""
        for name, internal in ((self.clients, False), (self.brokers, True)):
            with _engine.translated_errors(f"create the network {name}"):
                self._client.networks.create(
                    name, driver="bridge", internal=internal, labels={_engine.RUN_LABEL: self.run_id}
                )

    def join(self, container: Any, node_id: int) -> None:
        """Connect a container that was created on the clients' network to the brokers' too, and give it its name."""
        with _engine.translated_errors(f"connect {container.name} to {self.brokers}"):
            self._client.networks.get(self.brokers).connect(container, aliases=[broker_host(node_id)])

    def cut(self, container: Any, side: Side) -> None:
        """Take the running container's end of one network down, or of both."""
        cut = {"clients": [self.clients], "brokers": [self.brokers], "everyone": [self.clients, self.brokers]}
        self._set_links(container, cut[side], "down")

    def heal(self, container: Any) -> None:
        """Bring the running container's ends of both networks up."""
        self._set_links(container, [self.clients, self.brokers], "up")

    def remove(self) -> None:
        """Remove both. Their containers must be gone."""
        with _engine.translated_errors("remove the cluster's networks"):
            for network in self._client.networks.list(filters={"label": f"{_engine.RUN_LABEL}={self.run_id}"}):
                network.remove()

    def _set_links(self, container: Any, names: list[str], state: str) -> None:
        with _engine.translated_errors(f"take a network of {container.name} {state}"):
            container.reload()
            networks = container.attrs["NetworkSettings"]["Networks"]
            addresses = " ".join(networks[name]["MacAddress"] for name in names)
            status, output = container.exec_run(
                ["sh", "-c", _SET_LINK],
                environment={"ADDRESSES": addresses, "STATE": state},
                user="root",
            )
        if status:
            raise ClusterError(
                f"`ip link set` failed in {container.name} with status {status}: {output.decode(errors='replace')}"
            )
