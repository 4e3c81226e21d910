"""What uWSGI has to be told so that threads run in it, and survive its forks."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["uwsgi_concerns"]


def uwsgi_concerns() -> list[str]:
    """What endangers a pool that connects now, in this process of uWSGI; nothing outside of uWSGI."""
    uwsgi: Any = sys.modules.get("uwsgi")  # put there by uWSGI, and by nobody else
    if not hasattr(uwsgi, "worker_id"):
        return []
    concerns = []
    if not getattr(uwsgi, "has_threads", True):
        concerns.append(
            "uWSGI runs without threads, so what is sent goes on, and consumers stay in their groups, only while a "
            "request waits for something; set enable-threads = true"
        )
    forks = uwsgi.worker_id() == 0 and (uwsgi.masterpid() or uwsgi.numproc > 1)
    if forks and not uwsgi.opt.get("py-call-uwsgi-fork-hooks"):
        # Python's lock that lets one thread run at a time is copied as it is: held by a thread, or awaited by one, that
        # is not there. Nothing that runs in Python can mend that.
        concerns.append(
            "uWSGI forks its workers after this without telling Python, and a worker may hang if a thread runs "
            "meanwhile; set py-call-uwsgi-fork-hooks = true, or lazy-apps = true, or connect in the workers only"
        )
    return concerns
