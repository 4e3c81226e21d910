from __future__ import annotations

import io

import pytest

import pooledkafka._run.progress as progress_module
from pooledkafka._run.progress import Progress
from tests._wire.staged_consumer import Clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_it_shows_what_was_handled_how_fast_and_what_is_left(clock: Clock) -> None:
    terminal = Terminal()
    lag: int | None = None
    progress = Progress(True, "billing", lambda: lag, terminal)
    progress.handled(10)
    assert terminal.getvalue() == "", "not at every record"
    clock.now += 2
    progress.handled(4_990)
    lag = 1_234
    clock.now += 1
    progress.handled(100)
    progress.close()
    assert terminal.getvalue() == (
        "\r\x1b[Kbilling: 5,000 records, 2,500/s"
        "\r\x1b[Kbilling: 5,100 records, 100/s, lag 1,234"
        "\r\x1b[Kbilling: 5,100 records, lag 1,234\n"
    )


@pytest.mark.parametrize(("shown", "stream"), [(True, io.StringIO()), (False, Terminal())])
def test_it_hides_itself(clock: Clock, shown: bool, stream: io.StringIO) -> None:
    progress = Progress(shown, "billing", lambda: 1, stream)
    clock.now += 10
    progress.handled(1)
    progress.close()
    assert stream.getvalue() == ""


def test_without_a_standard_error_there_is_nothing_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    progress = Progress(True, "billing", lambda: 1)
    progress.handled(1)
    progress.close()


def test_a_terminal_that_goes_away_is_no_reason_to_end_the_run(clock: Clock) -> None:
    class Gone(Terminal):
        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    progress = Progress(True, "billing", lambda: 1, Gone())
    clock.now += 1
    progress.handled(1)
    progress.close()
