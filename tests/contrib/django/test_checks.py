from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from pooledkafka.contrib.django._checks import check_settings

SHOP = "tests.contrib.django.shop"


def found(settings: Any, given: Any) -> list[tuple[str, str]]:
    settings.POOLEDKAFKA = given
    return [((message.id or "").rpartition(".")[2], message.msg) for message in check_settings()]


def test_good_settings_pass(settings: Any) -> None:
    settings.POOLEDKAFKA = {
        "default": {
            "bootstrap_servers": ["one:9092", "two:9092"],
            "max_in_flight_requests": 100,
            "producer": {"linger_ms": 5, "value_serializer": "json.dumps"},
            "consumer": {"max_poll_records": 10},
        },
        "v6": {"bootstrap_servers": "[::1]:9092"},
        "test": {"BACKEND": "memory"},
        "real": {"BACKEND": "embedded", "cluster": {"brokers": 3}},
    }
    call_command("check")


@pytest.mark.parametrize(
    ("given", "number", "text"),
    [
        (None, "E001", "is not set"),
        ([], "E001", "must be a dict of aliases, not list"),
        ({"other": {"bootstrap_servers": "a:1"}}, "E002", "no alias 'default'"),
        ({"default": "localhost:9092"}, "E003", "must be a dict of options"),
        ({"default": {"BACKEND": "memry"}}, "E003", "Did you mean 'memory'?"),
        ({"default": {"bootstrap_servers": "a:1", "producer": 5}}, "E003", "['producer'] must be a dict"),
        ({"default": {"bootstrap_servers": "a:1", "consumer": {"value_deserializer": "no.such"}}}, "E003", "no.such"),
        (
            {"default": {"bootstrap_servers": "a:1", "producer": {"value_serializer": f"{SHOP}.NeedsArguments"}}},
            "E003",
            "NeedsArguments', which cannot be used: TypeError: ",
        ),
        (
            {"default": {"bootstrap_servers": "a:1", "producer": {"value_serializer": f"{SHOP}.broken.serializer"}}},
            "E003",
            "which cannot be used: LookupError: no such variable",
        ),
        ({"default": {}}, "E004", "['bootstrap_servers'] is missing"),
        ({"default": {"bootstrap_servers": 9092}}, "E004", "or a list of them, not 9092"),
        ({"default": {"bootstrap_servers": "a:kafka"}}, "E004", "port is no number"),
        ({"default": {"bootstrap_servers": ["a:1", None]}}, "E004", "has None in it"),
        ({"default": {"bootstrap_servers": "a:1", "client_di": "x"}}, "E005", "Did you mean client_id?"),
        ({"default": {"bootstrap_servers": "a:1", "request_timeout_ms": "5"}}, "E005", "must be a number"),
        ({"default": {"bootstrap_servers": "a:1", "security_protocol": "SLL"}}, "E005", "Did you mean SSL?"),
        ({"default": {"bootstrap_servers": "a:1", "producer": {"ack": 1}}}, "E006", "Did you mean acks?"),
        ({"default": {"bootstrap_servers": "a:1", "consumer": {"groupid": "x"}}}, "E007", "Did you mean group_id?"),
        ({"default": {"bootstrap_servers": "a:1", "cluster": {"brokers": 1}}}, "E008", "is for BACKEND 'embedded'"),
        ({"default": {"BACKEND": "embedded", "cluster": {"brokers": 0}}}, "E008", "expected a whole number"),
    ],
)
def test_what_cannot_work_is_explained(settings: Any, given: Any, number: str, text: str) -> None:
    messages = found(settings, given)
    assert [each for each, _ in messages] == [number], messages
    assert text in messages[0][1]


def test_manage_py_check_fails(settings: Any) -> None:
    settings.POOLEDKAFKA = {"default": {"bootstrap_server": "a:1"}}
    with pytest.raises(SystemCheckError, match=r"pooledkafka\.E005") as error:
        call_command("check")
    assert "pooledkafka.E004" in str(error.value)


def test_passwords_are_not_told(settings: Any) -> None:
    settings.POOLEDKAFKA = {"default": {"bootstrap_servers": "a:1", "sasl_plain_password": "secret", "x": 1}}
    assert "secret" not in str(check_settings())
