"""Whether clusters can be started on this machine at all."""

from __future__ import annotations

from contextlib import closing

from . import _engine
from ._errors import ClusterError
from ._image import check_image


def docker_unavailable_reason(image: str | None = None) -> str | None:
    """Say in one sentence why KafkaCluster(image=image) cannot be started here; None when it can.

    Changes nothing: an image is neither pulled nor built, but it is asked whether it could be.

    Example:
        >>> if reason := docker_unavailable_reason():  # doctest: +SKIP
        ...     pytest.skip(reason)
    """
    try:
        with closing(_engine.connect()) as client:
            check_image(client, image)
    except ClusterError as error:
        return str(error)
    return None
