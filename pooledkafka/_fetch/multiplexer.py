"""One fetch for all: turns the fetches of any number of consumers into at most two requests to one broker.

The insight: only a reader at the end of a log ever waits, and all who are at the end of a partition wait at the same
offset. A reader that lags has data, so its fetch returns at once. Hence one parked Fetch, covering every partition
that anybody is at the end of, serves them all; what lags is fetched on a second connection and never waits long there.
"""

from __future__ import annotations

import heapq
import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence

from kafka.structs import TopicPartition

from pooledkafka._fetch.batches import end_of
from pooledkafka._fetch.model import Limits, Line, LogicalFetch, PartitionAnswer, Position, Step, WireFetch
from pooledkafka._fetch.stream import Chunk, Cursor, ReadAhead, Stream

__all__ = ["Multiplexer"]

Answers = dict[TopicPartition, PartitionAnswer]


class Multiplexer:
    """All fetching from one broker with one isolation level and rack.

    A state machine: events go in (``submit``, ``release``, ``forget``, ``answered``, ``failed``), and ``step`` says
    what to send, whom to answer, and when to come back. It does no I/O, has no threads and no clock: ``now`` is handed
    in, in seconds of any steady clock. For one thread.

    Args:
        read_committed: the isolation level; readers then end at the last stable offset.
        read_ahead: bytes read ahead, and their bound, shared by the multiplexers of all brokers.
        join: makes one answer of several that follow each other.
    """

    def __init__(
        self,
        *,
        read_committed: bool,
        read_ahead: ReadAhead,
        join: Callable[[Sequence[PartitionAnswer]], PartitionAnswer],
        limits: Limits | None = None,
    ) -> None:
        self._read_committed = read_committed
        self._read_ahead = read_ahead
        self._join = join
        self._limits = limits or Limits()
        self._now = 0.0
        self._order = itertools.count()  # breaks ties in the heaps
        self._streams: dict[TopicPartition, list[Stream]] = {}
        self._places: dict[int, dict[TopicPartition, Stream]] = {}  # by reader: where it reads
        self._pending: dict[int, LogicalFetch] = {}  # by reader
        self._touched: dict[LogicalFetch, None] = {}  # to look at in the next step
        self._refused: dict[LogicalFetch, Answers] = {}  # answers without records that end a wait: errors and the like
        self._superseded: list[LogicalFetch] = []
        self._delivered: dict[Stream, None] = {}  # in this step
        self._came_to: dict[Stream, None] = {}  # streams that readers came to since the last step
        # A stream that may be fetched is in one of these two, in the order in which they are served; a stream that is
        # in flight, or has been read far enough ahead, is in neither.
        self._at_end: dict[Stream, None] = {}
        self._behind: dict[Stream, None] = {}
        self._starved: dict[Stream, None] = {}  # would be read ahead if the pool's bound allowed
        self._in_flight: dict[Line, WireFetch | None] = {Line.PARKED: None, Line.CATCH_UP: None}
        self._failures: dict[object, int] = {}  # in a row, by partition or line
        self._retry_at: dict[object, float] = {}  # likewise
        self._retries: list[tuple[float, int, TopicPartition]] = []  # heap
        # Heap; weak, since a fetch that was answered, with all that was read for it, need not live until its deadline.
        self._deadlines: list[tuple[float, int, weakref.ref[LogicalFetch]]] = []
        self._sweep_at = 0.0

    # -- events --------------------------------------------------------------------------------------------------------

    def submit(self, fetch: LogicalFetch, now: float) -> None:
        """A consumer fetches; what it waited for before, if anything, is answered as it stands."""
        self._now = now
        previous = self._pending.get(fetch.reader)
        if previous is not None:
            self._stop_waiting(previous)
            self._superseded.append(previous)
        self._pending[fetch.reader] = fetch
        for partition, position in fetch.partitions.items():
            self._place(fetch, partition, position)
        heapq.heappush(self._deadlines, (fetch.deadline, next(self._order), weakref.ref(fetch)))
        self._touched[fetch] = None

    def release(self, reader: int) -> LogicalFetch | None:
        """End a reader's wait, as if it had come to its end without records; returns the fetch that waited."""
        fetch = self._pending.get(reader)
        if fetch is not None:
            self._stop_waiting(fetch)
        return fetch

    def forget(self, reader: int) -> None:
        """A consumer is gone: its fetch is not answered, and nothing is read for it any more."""
        self.release(reader)
        for partition in list(self._places.get(reader, ())):
            self._leave(reader, partition)
        self._places.pop(reader, None)

    def answered(self, wire: WireFetch, answers: Mapping[TopicPartition, PartitionAnswer], now: float) -> None:
        """The broker has answered. A partition that is missing has nothing new (KIP-227)."""
        self._now = now
        self._in_flight[wire.line] = None
        self._succeeded(wire.line)
        for stream in wire.streams:
            stream.in_flight = None
            if stream.closed:
                continue
            answer = answers.get(stream.partition)
            if answer is not None:
                self._take(stream, answer)
            if not stream.closed:
                self._sort(stream)

    def failed(self, wire: WireFetch, now: float) -> None:
        """The request was not answered; its streams are fetched again after a backoff. Nobody's wait ends early."""
        self._now = now
        self._in_flight[wire.line] = None
        self._back_off(wire.line)
        self._touched.update(dict.fromkeys(self._pending.values()))  # the patient may find another leader
        for stream in wire.streams:
            stream.in_flight = None
            if not stream.closed:
                self._sort(stream)

    # -- decisions -----------------------------------------------------------------------------------------------------

    def step(self, now: float) -> Step:
        """What to do now: requests to send, fetches to answer, and when to call this again at the latest."""
        self._now = now
        self._come_due()
        completions = [(fetch, Answers()) for fetch in self._superseded]
        self._superseded = []
        touched, self._touched = self._touched, {}
        for fetch in touched:
            if self._pending.get(fetch.reader) is fetch:
                answers = self._answers_for(fetch)
                if answers is not None:
                    completions.append((fetch, answers))
        self._keep_the_bound()
        return Step(self._requests(), completions, self._wake_at())

    @property
    def idle(self) -> bool:
        """Whether nobody reads here, so that this may be dropped; what is still in flight is for nobody."""
        return not self._streams and not self._pending

    @property
    def starved(self) -> bool:
        """Whether partitions are left out only because too much has been read ahead for all brokers together."""
        return bool(self._starved)

    def _come_due(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= self._now:
            fetch = heapq.heappop(self._deadlines)[2]()
            if fetch is not None:
                self._touched[fetch] = None
        while self._retries and self._retries[0][0] <= self._now:
            for stream in self._streams.get(heapq.heappop(self._retries)[2], ()):
                self._sort(stream)
        if self._sweep_at <= self._now:
            self._sweep_at = self._now + self._limits.idle_s / 2
            for reader, places in list(self._places.items()):
                for partition, stream in list(places.items()):
                    cursor = stream.cursors.get(reader)
                    if cursor is None or (not cursor.waiting and cursor.asked_at + self._limits.idle_s <= self._now):
                        self._leave(reader, partition)

    def _keep_the_bound(self) -> None:
        # Now that everybody who waited has been served: what is left for those who did not come has to go, if it is
        # more than may be read ahead. They read it again when they come.
        came_to, self._came_to = self._came_to, {}
        for stream in came_to:
            if stream.full and stream.wanted_now and not stream.closed:
                stream.drop_before(stream.offset)  # a slow reader keeps no fast one waiting
                self._sort(stream)
        delivered, self._delivered = self._delivered, {}
        for stream in delivered:
            if stream.cursors and not self._read_ahead.has_room:
                stream.drop_before(max(cursor.offset for cursor in stream.cursors.values()))
                # Whoever waited for this was answered with another partition while it was on its way.
                if not any(cursor.waiting is not None for cursor in stream.cursors.values()):
                    stream.give_back()
                self._sort(stream)
        if self._starved and self._read_ahead.has_room:
            for stream in list(self._starved):
                self._sort(stream)

    def _wake_at(self) -> float | None:
        times = [self._sweep_at] if self._streams else []
        while self._deadlines:
            fetch = self._deadlines[0][2]()
            if fetch is not None and self._pending.get(fetch.reader) is fetch:
                break
            heapq.heappop(self._deadlines)  # answered before its time
        if self._deadlines:
            times.append(self._deadlines[0][0])
        if self._retries:
            times.append(self._retries[0][0])
        if self._at_end or self._behind:
            times.extend(at for line in Line if (at := self._retry_at.get(line, 0.0)) > self._now)
        return min(times, default=None)

    def _requests(self) -> list[WireFetch]:
        requests = []
        if self._at_end and self._free(Line.PARKED):
            requests.append(self._request(Line.PARKED, list(self._at_end), self._limits.parked_wait_ms))
        # The parked fetch is on its way and does not cover these: they are at the end, and somebody waits there.
        uncovered = [stream for stream in self._at_end if stream.wanted_now]
        if (self._behind or uncovered) and self._free(Line.CATCH_UP):
            wait_ms = 0 if self._behind else self._limits.catch_up_wait_ms
            requests.append(self._request(Line.CATCH_UP, [*self._behind, *uncovered], wait_ms))
        return requests

    def _free(self, line: Line) -> bool:
        return self._in_flight[line] is None and self._retry_at.get(line, 0.0) <= self._now

    def _request(self, line: Line, streams: list[Stream], max_wait_ms: int) -> WireFetch:
        # A partition can be in a request once. Two streams of one are served in turns.
        chosen = {stream.partition: stream for stream in reversed(streams)}
        largest = max(stream.max_bytes for stream in chosen.values())
        room = max(largest, min(self._limits.max_bytes, self._read_ahead.limit - self._read_ahead.used))
        wire = WireFetch(line, {}, max_wait_ms, room)
        for stream in streams:
            if chosen[stream.partition] is stream:
                wire.partitions[stream.partition] = Position(
                    stream.offset, stream.leader_epoch, stream.last_fetched_epoch, stream.max_bytes
                )
                wire.streams.append(stream)
                stream.in_flight = wire
                self._at_end.pop(stream, None)
                self._behind.pop(stream, None)
        self._in_flight[line] = wire
        return wire

    # -- answering readers ---------------------------------------------------------------------------------------------

    def _answers_for(self, fetch: LogicalFetch) -> Answers | None:
        """What ``fetch`` is answered with now; None if it goes on waiting."""
        refused = self._refused.get(fetch, {})
        places = self._places.get(fetch.reader, {})
        taken: dict[TopicPartition, list[Chunk]] = {}
        size = 0
        cannot_wait = bool(refused) or fetch.deadline <= self._now
        for partition in fetch.partitions:
            stream = places.get(partition)
            cursor = stream.cursors.get(fetch.reader) if stream is not None else None
            if stream is None or cursor is None or cursor.waiting is not fetch or not stream.has_for(cursor):
                continue
            chunks = stream.chunks_for(cursor, stream.max_bytes)
            length = sum(len(chunk.answer.records) for chunk in chunks)
            if taken and size + length > fetch.max_bytes:
                break
            taken[partition] = chunks
            size += length
            cannot_wait = cannot_wait or stream.full
        if not cannot_wait and size < max(1, fetch.min_bytes):
            return None

        answers: Answers = dict(refused)
        for partition, chunks in taken.items():
            stream = places[partition]
            cursor = stream.cursors[fetch.reader]
            answers[partition] = chunks[0].answer if len(chunks) == 1 else self._join([c.answer for c in chunks])
            cursor.offset = chunks[-1].next_offset
            cursor.told_high_watermark = answers[partition].high_watermark
        for partition in fetch.partitions:
            stream = places.get(partition)
            if stream is not None and partition not in answers:
                self._tell_high_watermark(stream, fetch.reader, answers)
        if not answers and self._waits_on(fetch):
            return None
        self._stop_waiting(fetch)
        for partition in taken:
            places[partition].trim()
            self._sort(places[partition])
            self._delivered[places[partition]] = None
        return answers

    def _tell_high_watermark(self, stream: Stream, reader: int, answers: Answers) -> None:
        # Without records, a reader still learns how far the log goes: kafka-python reports its lag by it.
        cursor = stream.cursors.get(reader)
        latest = stream.latest
        if cursor is None or latest is None or cursor.offset != stream.offset:
            return
        if latest.high_watermark != cursor.told_high_watermark:
            cursor.told_high_watermark = latest.high_watermark
            answers[stream.partition] = latest

    def _waits_on(self, fetch: LogicalFetch) -> bool:
        """Whether a fetch that is due, with nothing to tell, is patient and still waits where something will come.

        Not while the broker cannot be reached: its reader may find that the leader is another one.
        """
        if not fetch.patient or any(self._retry_at.get(line, 0.0) > self._now for line in Line):
            return False
        places = self._places.get(fetch.reader, {})
        return all(
            (stream := places.get(partition)) is not None
            and (cursor := stream.cursors.get(fetch.reader)) is not None
            and cursor.waiting is fetch
            for partition in fetch.partitions
        )

    def _stop_waiting(self, fetch: LogicalFetch) -> None:
        del self._pending[fetch.reader]
        self._refused.pop(fetch, None)
        for stream in self._places.get(fetch.reader, {}).values():
            cursor = stream.cursors.get(fetch.reader)
            if cursor is not None and cursor.waiting is fetch:
                cursor.waiting = None
                cursor.asked_at = self._now  # it has asked all the while
                if stream.in_flight is None:
                    self._sort(stream)

    # -- where readers are ---------------------------------------------------------------------------------------------

    def _place(self, fetch: LogicalFetch, partition: TopicPartition, position: Position) -> None:
        places = self._places.setdefault(fetch.reader, {})
        current = places.get(partition)
        serving = [stream for stream in self._streams.get(partition, ()) if stream.serves(position)]
        # A reader that has caught up with others joins them: of the streams that serve it, the one furthest on.
        stream = max(serving, key=lambda s: (s.offset, len(s.cursors)), default=None)
        if current is not None and current is not stream:
            self._leave(fetch.reader, partition)
        if stream is None:
            stream = Stream(partition, position, self._read_ahead)
            self._streams.setdefault(partition, []).append(stream)
        places[partition] = stream
        cursor = stream.cursors.setdefault(fetch.reader, Cursor(position.fetch_offset, self._now))
        cursor.offset = position.fetch_offset
        cursor.asked_at = self._now
        cursor.waiting = fetch
        stream.trim()
        self._came_to[stream] = None
        self._sort(stream)

    def _leave(self, reader: int, partition: TopicPartition) -> None:
        stream = self._places[reader].pop(partition)
        if stream.closed:
            return  # by the last of the others, after this reader had been left behind
        stream.cursors.pop(reader, None)
        if stream.cursors:
            stream.trim()
            self._sort(stream)
        else:
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        stream.closed = True
        stream.clear()
        stream.cursors.clear()
        remaining = self._streams[stream.partition]
        remaining.remove(stream)
        if not remaining:
            del self._streams[stream.partition]
        for queue in (self._at_end, self._behind, self._starved):
            queue.pop(stream, None)

    def _sort(self, stream: Stream) -> None:
        """Put a stream that is not in flight where it is fetched from, or nowhere."""
        for queue in (self._at_end, self._behind, self._starved):
            queue.pop(stream, None)
        if stream.closed or stream.in_flight is not None or not stream.cursors:
            return
        if self._retry_at.get(stream.partition, 0.0) > self._now:
            return
        if not stream.wanted_now:
            if stream.full:
                return
            if not self._read_ahead.has_room:
                self._starved[stream] = None
                return
        (self._at_end if stream.at_end else self._behind)[stream] = None

    # -- answers of the broker -----------------------------------------------------------------------------------------

    def _take(self, stream: Stream, answer: PartitionAnswer) -> None:
        if answer.error_code:
            self._back_off(stream.partition)
            self._refuse(stream, answer)
            return
        diverging = answer.diverging_epoch
        if answer.preferred_read_replica >= 0 or (diverging is not None and diverging.end_offset >= 0):
            self._refuse(stream, answer)
            return
        bound = answer.last_stable_offset if self._read_committed else answer.high_watermark
        if not answer.records:
            self._succeeded(stream.partition)
            stream.latest = answer
            self._touch_waiting(stream)  # the patient hear how far the log goes
            # Empty, with more in the log: the response was full before this partition's turn came.
            stream.at_end = bound < 0 or stream.offset >= bound
            return
        end = end_of(answer.records)
        if end is None or end.next_offset <= stream.offset:
            # No whole batch, or nothing new: there is no reading on from here. Whoever waits gets it to judge.
            self._back_off(stream.partition)
            self._refuse(stream, answer)
            return
        self._succeeded(stream.partition)
        if end.size < len(answer.records):
            # A broker may cut the last batch off where its answer is full. What follows does not continue that piece.
            answer.records = answer.records[: end.size]
        stream.latest = None  # what it said of the high watermark is older than this
        stream.append(answer, end)
        self._delivered[stream] = None
        stream.at_end = stream.offset >= bound
        self._touch_waiting(stream)

    def _touch_waiting(self, stream: Stream) -> None:
        for cursor in stream.cursors.values():
            if cursor.waiting is not None:
                self._touched[cursor.waiting] = None

    def _refuse(self, stream: Stream, answer: PartitionAnswer) -> None:
        """Pass on an answer that ends this stream; readers come back knowing better, and start anew."""
        for reader, cursor in list(stream.cursors.items()):
            if cursor.waiting is not None:
                if cursor.offset >= stream.offset:
                    self._refused.setdefault(cursor.waiting, {})[stream.partition] = answer
                else:
                    cursor.waiting.deadline = self._now  # the more that it waits for will not come
                self._touched[cursor.waiting] = None
            places = self._places[reader]
            if places.get(stream.partition) is stream:
                del places[stream.partition]
        self._close(stream)

    # -- backoff -------------------------------------------------------------------------------------------------------

    def _back_off(self, what: TopicPartition | Line) -> None:
        failures = self._failures[what] = self._failures.get(what, 0) + 1
        delay = min(self._limits.retry_s * 2 ** min(failures - 1, 10), self._limits.retry_max_s)
        self._retry_at[what] = self._now + delay
        if not isinstance(what, Line):
            heapq.heappush(self._retries, (self._now + delay, next(self._order), what))

    def _succeeded(self, what: TopicPartition | Line) -> None:
        if what in self._failures:
            del self._failures[what]
            del self._retry_at[what]
