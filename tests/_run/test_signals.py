from __future__ import annotations

import signal
import threading

import pytest

from pooledkafka import ConfigurationError
from pooledkafka._run import stopped_by_signals


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)], ids=["TERM", "INT"]
)
def test_the_first_is_soft_the_second_hard(number: signal.Signals, error: type[BaseException]) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    stops: list[int] = []

    def run() -> None:
        with stopped_by_signals(lambda: stops.append(1)):
            signal.raise_signal(signal.SIGTERM)
            assert stops == [1]
            signal.raise_signal(number)

    with pytest.raises(error) as raised:
        run()
    assert stops == [1]
    if error is SystemExit:
        assert raised.value.args == (143,)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_only_in_the_main_thread() -> None:
    errors: list[Exception] = []

    def run() -> None:
        try:
            with stopped_by_signals(lambda: None):
                pass
        except ConfigurationError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])
