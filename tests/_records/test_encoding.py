"""What is encoded at once is what kafka-python would write record by record."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatchBuilder

from pooledkafka._records import Record, decode, encode

HEADER = 61
content = (
    st.none() | st.binary(max_size=12) | st.binary(min_size=60, max_size=70) | st.integers(8_185, 8_195).map(bytes)
)
records = st.lists(
    st.builds(
        Record,
        content,
        content | st.integers(16_380, 16_390).map(bytes),
        st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=70)), max_size=2),
        st.sampled_from([1_000, 1_000, 999, 1_070, 20_000, 0]),
    ),
    min_size=1,
    max_size=12,
)


def stock(sent: list[Record], room: int) -> tuple[bytes, int]:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, room + HEADER)
    count = 0
    for key, value, headers, timestamp in sent:
        if builder.append(count, timestamp, key, value, headers) is None:
            break
        count += 1
    return bytes(builder.build()[HEADER:]), count


@settings(max_examples=300, deadline=None)
@given(sent=records, room=st.integers(0, 200) | st.just(1 << 20), cut=st.integers(0, 12))
def test_it_is_what_kafka_python_writes(sent: list[Record], room: int, cut: int) -> None:
    data, count = stock(sent, room)
    whole = encode(sent, 0, sent[0].timestamp, room)
    assert (whole.data, whole.number) == (data, count)
    assert whole.max_timestamp == max(record.timestamp for record in sent[:count] or sent[:1])
    first = encode(sent[:cut] or sent[:1], 0, sent[0].timestamp, room)
    rest = encode(sent[first.number :], first.number, sent[0].timestamp, room - len(first.data))
    assert first.data + rest.data == data


@given(sent=records)
def test_it_is_decoded_to_what_was_sent(sent: list[Record]) -> None:
    data = encode(sent, 0, sent[0].timestamp, 1 << 30).data
    columns = decode(data, 0, len(data), len(sent), 70, sent[0].timestamp)
    assert list(columns.offsets) == list(range(70, 70 + len(sent)))
    keys = columns.keys or [None] * len(sent)
    assert list(zip(keys, columns.values, columns.timestamps, strict=True)) == [
        (record.key, record.value, record.timestamp) for record in sent
    ]
    headers = columns.headers or [()] * len(sent)
    assert [list(each) for each in headers] == [list(record.headers) for record in sent]


def test_a_batch_of_more_records_than_are_in_the_table() -> None:
    sent = [Record(None, b"", (), 5)] * 20_000
    data = encode(sent, 0, 5, 1 << 30).data
    assert decode(data, 0, len(data), len(sent), 0, 5).offsets == range(20_000)
    assert (data, len(sent)) == stock(sent, 1 << 30)


@given(
    sent=records,
    kept=st.lists(st.booleans(), min_size=20, max_size=20),
    begins=st.integers(0, 3),
)
def test_records_between_which_others_were_compacted_away_keep_their_offsets(
    sent: list[Record], kept: list[bool], begins: int
) -> None:
    left = [at for at in range(len(sent)) if kept[at % 20]]
    data = b"".join(encode([sent[at]], at + begins, sent[0].timestamp, 1 << 30).data for at in left)
    columns = decode(data, 0, len(data), len(left), 70, sent[0].timestamp)
    assert list(columns.offsets) == [70 + begins + at for at in left]
    assert columns.values == [sent[at].value for at in left]
