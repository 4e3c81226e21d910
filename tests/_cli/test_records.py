"""``produce`` and ``consume``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from kafka.structs import TopicPartition

from pooledkafka import Consumer, Producer
from pooledkafka._cli import main
from pooledkafka.testing import EmbeddedKafka
from tests._cli.conftest import Command, Start
from tests.pooled.waiting import until


@pytest.fixture
def topic(cluster: EmbeddedKafka, request: pytest.FixtureRequest) -> str:
    name = str(request.node.name).translate({ord("["): "-", ord("]"): None})
    cluster.create_topic(name, partitions=2)
    return name


def test_lines_there_and_back(command: Command, cluster: EmbeddedKafka, topic: str) -> None:
    where = ("-b", cluster.bootstrap_servers)
    result = command("produce", topic, "--partition", "1", *where, stdin=b"one\ntwo\r\n\xff\nlast, without an end")
    assert (result.code, result.out, result.err) == (0, "", f"4 records sent to {topic}\n")
    result = command("consume", topic, "--from-beginning", "--until-end", *where)
    assert result.code == 0
    assert result.out.splitlines() == ["one", "two", "\ufffd", "last, without an end"]
    result = command("consume", topic, "--from-beginning", "--max", "2", *where)
    assert result.out.splitlines() == ["one", "two"]
    result = command("consume", topic, "--offset", "-1", "--partition", "1", "--max", "1", *where)
    assert result.out.splitlines() == ["last, without an end"]
    result = command("consume", topic, "--offset", "1", "--until-end", *where, "--format", "{{{partition}/{offset}}}")
    assert result.out.splitlines() == ["{1/1}", "{1/2}", "{1/3}"]
    assert command("consume", topic, "--until-end", *where).out == "", "from now on"


def test_keys_and_headers(command: Command, cluster: EmbeddedKafka, topic: str) -> None:
    where = ("-b", cluster.bootstrap_servers)
    headers = ("--header", "from=here", "--header", "empty=")
    assert command("produce", topic, "--key", "k", "--value", "v", *headers, *where, "--json").json["sent"] == 1
    assert command("produce", topic, "--key-separator", ":", *where, stdin=b"a:1:2\n").code == 0
    result = command("consume", topic, "--from-beginning", "--until-end", "--json", *where)
    found = {record["key"]: record for record in map(json.loads, result.out.splitlines())}
    assert found["k"]["value"] == "v"
    assert found["k"]["headers"] == [["from", "here"], ["empty", ""]]
    assert (found["a"]["value"], found["a"]["topic"]) == ("1:2", topic)
    shape = ("--format", "{key}={value} {headers}")
    result = command("consume", topic, "--from-beginning", "--until-end", *shape, *where)
    assert sorted(result.out.splitlines()) == ["a=1:2 ", "k=v from=here,empty="]
    result = command("produce", topic, "--key-separator", ":", *where, stdin=b"no key\n")
    assert result.code == 1
    assert "there is no ':' in the line 'no key'" in result.err


def test_what_is_no_text_may_be_an_argument(command: Command, cluster: EmbeddedKafka, topic: str) -> None:
    where = ("-b", cluster.bootstrap_servers)
    no_text = os.fsdecode(b"\xff\xfe")
    arguments = ("--value", no_text, "--key", no_text, "--header", f"h={no_text}")
    assert command("produce", topic, *arguments, *where).code == 0
    found = json.loads(command("consume", topic, "--from-beginning", "--until-end", "--json", *where).out)
    assert [found["value"], found["key"], found["headers"][0][1]] == [{"base64": "//4="}] * 3


def test_what_is_no_text_is_base64(command: Command, cluster: EmbeddedKafka, topic: str) -> None:
    with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        producer.send(topic, b"\xff\xfe", key=None).get(10)
        producer.send(topic, None, key=b"gone").get(10)
    arguments = ("consume", topic, "--from-beginning", "--until-end", "--json", "-b", cluster.bootstrap_servers)
    found = [json.loads(line) for line in command(*arguments).out.splitlines()]
    assert {(record["key"], str(record["value"])) for record in found} == {
        (None, "{'base64': '//4='}"),
        ("gone", "None"),
    }


def test_a_group_commits_what_was_written_and_no_more(command: Command, cluster: EmbeddedKafka, topic: str) -> None:
    where = ("-b", cluster.bootstrap_servers)
    lines = [f"{number}" for number in range(10)]
    command("produce", topic, "--partition", "0", *where, stdin="\n".join(lines).encode())
    group = ("--group", topic, "--from-beginning")
    assert command("consume", topic, *group, "--max", "4", *where).out.split() == lines[:4]
    with Consumer(bootstrap_servers=cluster.bootstrap_servers, group_id=topic) as consumer:
        assert consumer.committed(TopicPartition(topic, 0)) == 4
    described = command("groups", "describe", topic, "--json", *where).json[topic]
    assert described["lag"] == 6
    assert command("consume", topic, *group, "--max", "6", *where).out.split() == lines[4:]


def test_a_group_commits_nothing_that_could_not_be_written(
    command: Command, cluster: EmbeddedKafka, topic: str, start: Start
) -> None:
    where = ("-b", cluster.bootstrap_servers)
    lines = [f"{number}" for number in range(10)]
    command("produce", topic, "--partition", "0", *where, stdin="\n".join(lines).encode())
    group = ("consume", topic, "--group", topic, "--from-beginning")
    with open("/dev/full", "wb") as full:
        consuming = start(*group, stdout=full)
        _, said = consuming.communicate(timeout=20)
    assert consuming.returncode == 1
    assert b"No space left" in said
    assert command("groups", "describe", topic, "--json", *where).json[topic]["lag"] == 10
    assert command(*group, "--max", "10", *where).out.split() == lines


def test_each_line_is_sent_when_it_is_there(cluster: EmbeddedKafka, topic: str, start: Start) -> None:
    producing = start("produce", topic, "--partition", "0", stdin=subprocess.PIPE)
    assert producing.stdin is not None
    with Consumer(bootstrap_servers=cluster.bootstrap_servers) as consumer:
        partition = TopicPartition(topic, 0)
        producing.stdin.write(b"first\n")
        producing.stdin.flush()
        until(lambda: consumer.end_offsets([partition])[partition] == 1, timeout_s=20)
        _, said = producing.communicate(b"second\n", timeout=20)
        assert producing.returncode == 0
        assert said == f"2 records sent to {topic}\n".encode()
        assert consumer.end_offsets([partition])[partition] == 2


def test_it_ends_by_a_signal(cluster: EmbeddedKafka, topic: str, start: Start) -> None:
    with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        producer.send(topic, b"there").get(10)
    consuming = start("consume", topic, "--from-beginning", stdout=subprocess.PIPE)
    assert consuming.stdout is not None
    assert consuming.stdout.readline() == b"there\n"
    consuming.send_signal(signal.SIGINT)
    out, said = consuming.communicate(timeout=20)
    assert (consuming.returncode, out, said) == (130, b"", b"")


def test_it_ends_when_nobody_reads_on(cluster: EmbeddedKafka, topic: str, start: Start) -> None:
    with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for _ in range(100):
            producer.send(topic, b"x" * 1000)
        producer.flush()
        consuming = start("consume", topic, "--from-beginning", stdout=subprocess.PIPE)
        assert consuming.stdout is not None
        assert consuming.stdout.readline() == b"x" * 1000 + b"\n"
        consuming.stdout.close()
        stop = threading.Event()

        def write_on() -> None:
            while not stop.wait(0.05):  # a rate, not a wait
                producer.send(topic, b"x" * 1000)

        writing = threading.Thread(target=write_on)
        writing.start()
        try:
            assert consuming.wait(20) == 0
        finally:
            stop.set()
            writing.join()
    assert consuming.stderr is not None
    with consuming.stderr:
        assert consuming.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["consume", "t", "--group", "g", "--offset", "1"], 2, "--group excludes"),
        (["consume", "t", "--from-beginning", "--offset", "1"], 2, "exclude each other"),
        (["consume", "t", "--json", "--format", "{key}"], 2, "exclude each other"),
        (["consume", "t", "--format", "{kee}"], 2, "--format has {kee}; there are {topic}, "),
        (["consume", "t", "--format", "{"], 2, "--format"),
        (["consume", "t", "--format", "{value:d}"], 2, "--format '{value:d}': Unknown format code"),
        (["consume", "t", "--format", "{offset:{partition}}"], 2, "--format"),
        (["produce", "t", "--key-separator", ""], 2, "--key-separator may not be empty"),
        (["consume", "not-there", "--until-end"], 1, "topic 'not-there' does not exist"),
        (["consume", "not-there", "--group", "g", "--max", "1"], 1, "topic 'not-there' does not exist"),
        (["produce", "not-there", "--value", "v"], 1, "topic 'not-there' does not exist"),
        (["produce", "a b", "--value", "v"], 1, "InvalidTopicError"),
        (["produce", "t", "--key", "k", "--key-separator", ":"], 2, "exclude each other"),
        (["produce", "t", "--header", "nothing"], 2, "must be NAME=VALUE"),
        (["produce", "t", "--value", "v", "-b", "127.0.0.1:1"], 1, "could not connect to the Kafka cluster"),
        (["no-such-command"], 2, "No such command"),
    ],
)
def test_what_cannot_be(cluster: EmbeddedKafka, command: Command, arguments: list[str], code: int, why: str) -> None:
    result = command(*arguments, BOOTSTRAP=cluster.bootstrap_servers)
    assert result.code == code
    assert why in result.err
    assert result.out == ""
    assert "Traceback" not in result.err


def test_a_closed_output_is_no_failure(cluster: EmbeddedKafka) -> None:
    arguments = f"{sys.executable} -m pooledkafka topics list -b {cluster.bootstrap_servers} >&-"
    done = subprocess.run(["sh", "-c", arguments], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_partition_that_there_is_not(command: Command, cluster: EmbeddedKafka, topic: str) -> None:
    result = command("consume", topic, "--partition", "2", "-b", cluster.bootstrap_servers)
    assert result.code == 1
    assert "has no partition 2; it has 2, from 0 to 1" in result.err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for missing in ("click", "psutil", "rich"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, missing, None)
            assert main(["topics", "list"]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"needs {missing}" in said
        assert "pip install 'pooledkafka[cli]'" in said
