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
from pooledkafka._fetch.reader import Reader
from pooledkafka._fetch.standing import Standing
from pooledkafka._fetch.stream import Chunk, Cursor, ReadAhead, Stream

__all__ = ["Multiplexer"]

Answers = dict[TopicPartition, PartitionAnswer]

_STARVED_AT_ONCE = 64


class Multiplexer:
    """All fetching from one broker with one isolation level and rack.

    A state machine: events go in (``submit``, ``release``, ``forget``, ``answered``, ``failed``), and ``step`` says
    what to send, whom to answer, and when to come back. It does no I/O, has no threads and no clock: ``now`` is handed
    in, in seconds of any steady clock. For one thread.

    Args:
        read_committed: the isolation level; readers then end at the last stable offset.
        read_ahead: bytes read ahead, and their bound, shared by the multiplexers of all brokers.
        join: makes one answer of one or several that follow each other; of a partition with so many readers.
    """

    def __init__(
        self,
        *,
        read_committed: bool,
        read_ahead: ReadAhead,
        join: Callable[[Sequence[PartitionAnswer], int], PartitionAnswer],
        limits: Limits | None = None,
    ) -> None:
        self._read_committed = read_committed
        self._read_ahead = read_ahead
        self._join = join
        self._limits = limits or Limits()
        self._now = 0.0
        self._order = itertools.count()  # breaks ties in the heaps
        self._streams: dict[TopicPartition, list[Stream]] = {}
        self._readers: dict[int, Reader] = {}
        self._touched: dict[LogicalFetch, None] = {}  # to look at in the next step
        self._refused: dict[LogicalFetch, Answers] = {}  # answers without records that end a wait: errors and the like
        self._superseded: list[LogicalFetch] = []
        self._delivered: dict[Stream, None] = {}  # in this step
        self._came_to: dict[Stream, None] = {}  # streams that readers came to since the last step
        # A stream that may be fetched is in one of these two, in the order in which they are served; a stream that is
        # in flight, or has been read far enough ahead, is in neither. One that the parked request covers is in flight.
        self._at_end: dict[Stream, None] = {}
        self._behind: dict[Stream, None] = {}
        self._asked = 0  # bytes that the request for lagging readers that is on its way may bring at most
        self._starved: dict[Stream, None] = {}  # would be read ahead if the pool's bound allowed
        self._standing = Standing()
        self._quiet = False  # the parked request was last answered with nothing
        self._calm = 0  # how often in a row, to the same question
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
        reader = self._readers.get(fetch.reader)
        if reader is None:
            reader = self._readers[fetch.reader] = Reader(fetch.reader)
        if reader.fetch is not None:
            self._superseded.append(reader.fetch)
            self._stop_waiting(reader)
        asked = reader.asked
        if len(asked) > len(fetch.partitions) or not asked.keys() <= fetch.partitions.keys():
            for partition in [partition for partition in asked if partition not in fetch.partitions]:
                self._ask_no_more(reader, partition)
        reader.fetch = fetch
        reader.asked_at = now
        for partition, position in fetch.partitions.items():
            if asked.get(partition) != position:
                self._place(reader, partition, position)
        reader.lost = False
        for due in {fetch.deadline, now + self._limits.breath_s}:
            heapq.heappush(self._deadlines, (due, next(self._order), weakref.ref(fetch)))
        self._touched[fetch] = None

    def release(self, reader: int) -> LogicalFetch | None:
        """End a reader's wait, as if it had come to its end without records; returns the fetch that waited."""
        known = self._readers.get(reader)
        fetch = known.fetch if known is not None else None
        if known is not None and fetch is not None:
            self._stop_waiting(known)
        return fetch

    def forget(self, reader: int) -> None:
        """A consumer is gone: its fetch is not answered, and nothing is read for it any more."""
        self.release(reader)
        known = self._readers.pop(reader, None)
        if known is not None:
            for partition in list(known.places):
                self._leave(known, partition)

    def answered(self, wire: WireFetch, answers: Mapping[TopicPartition, PartitionAnswer], now: float) -> None:
        """The broker has answered. A partition that is missing has nothing new (KIP-227)."""
        self._now = now
        self._came_back(wire.line)
        self._succeeded(wire.line)
        if wire.line is Line.PARKED:
            self._quiet = not answers
            self._calm = 0 if answers else self._calm + 1
            streams = [stream for partition in answers if (stream := self._standing.streams.get(partition)) is not None]
            for stream in streams:
                self._standing.remove(stream)
        else:
            streams = wire.streams
        for stream in streams:
            stream.in_flight = None
            if stream.closed:
                continue
            answer = answers.get(stream.partition)
            if answer is not None:
                self._take(stream, answer)
            if not stream.closed:
                self._sort(stream)

    def failed(self, wire: WireFetch, now: float) -> None:
        """The request was not answered; its streams are fetched again after a backoff. Nobody's wait ends early.

        The next parked one begins anew: it says of all that it asks for that it changed.
        """
        self._now = now
        self._came_back(wire.line)
        self._back_off(wire.line)
        for reader in self._readers.values():  # the patient may find another leader
            if reader.fetch is not None:
                self._touched[reader.fetch] = None
        for stream in self._standing.clear() if wire.line is Line.PARKED else wire.streams:
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
            reader = self._readers.get(fetch.reader)
            if reader is not None and reader.fetch is fetch:
                answers = self._answers_for(reader, fetch)
                if answers is not None:
                    completions.append((fetch, answers))
        self._keep_the_bound()
        return Step(self._requests(), completions, self._wake_at())

    @property
    def idle(self) -> bool:
        """Whether nobody reads here, so that this may be dropped; what is still in flight is for nobody."""
        return not self._streams and all(reader.fetch is None for reader in self._readers.values())

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
            for reader in self._readers.values():
                self._sweep(reader)
            for streams in self._streams.values():
                for stream in streams:
                    stream.drop_spare()

    def _sweep(self, reader: Reader) -> None:
        """Let a reader leave where it has not asked for long."""
        long_ago = self._now - self._limits.idle_s
        asks = reader.fetch is not None or reader.asked_at > long_ago
        if asks and len(reader.places) == len(reader.asked):
            return  # it asks for all that it reads
        for partition, stream in list(reader.places.items()):
            cursor = stream.cursors[reader.number]
            if not (asks if cursor.asks else cursor.asked_at > long_ago):
                self._leave(reader, partition)

    def _keep_the_bound(self) -> None:
        # Now that everybody who waited has been served: what is left for those who did not come has to go, if it is
        # more than may be read ahead. They read it again when they come.
        came_to, self._came_to = self._came_to, {}
        for stream in came_to:
            # A slow reader keeps no fast one waiting. While there is room it need not read what it missed on its own.
            far = stream.ahead >= self._limits.apart * stream.max_bytes or self._read_ahead.half_full
            if stream.full and far and stream.wanted_now and not stream.closed:
                self._drop_before(stream, stream.offset)
                self._sort(stream)
        delivered, self._delivered = self._delivered, {}
        for stream in delivered:
            if stream.cursors and not self._read_ahead.has_room:
                self._drop_before(stream, max(cursor.offset for cursor in stream.cursors.values()))
                # Whoever waited for this was answered with another partition while it was on its way. Not while what
                # follows it is: that would then come after a gap.
                if stream.in_flight is None and not any(c.waiting is not None for c in stream.cursors.values()):
                    stream.give_back()
                self._sort(stream)
        if self._starved and self._read_ahead.has_room:
            for stream in list(itertools.islice(self._starved, _STARVED_AT_ONCE)):  # the room may be gone again soon
                self._sort(stream)

    def _drop_before(self, stream: Stream, offset: int) -> None:
        for cursor in stream.drop_before(offset):
            cursor.reader.loses(stream.partition)  # until it comes back

    def _wake_at(self) -> float | None:
        times = [self._sweep_at] if self._streams else []
        while self._deadlines:
            fetch = self._deadlines[0][2]()
            if fetch is not None and (reader := self._readers.get(fetch.reader)) and reader.fetch is fetch:
                break
            heapq.heappop(self._deadlines)  # answered before its time
        if self._deadlines:
            times.append(self._deadlines[0][0])
        if self._retries:
            times.append(self._retries[0][0])
        if self._starved and self._read_ahead.has_room:
            times.append(self._now)
        if self._at_end or self._behind:
            times.extend(at for line in Line if (at := self._retry_at.get(line, 0.0)) > self._now)
        return min(times, default=None)

    def _requests(self) -> list[WireFetch]:
        requests = []
        more = False  # the parked request is answered at once, and the next one covers more
        if self._free(Line.PARKED) and not self._soon_more_to_park:
            for stream in self._standing.take_unsettled():
                self._sort(stream)
            added, more = self._to_park()
            if self._standing.streams:
                requests.append(self._parked(added, waits=not more))
        if (self._behind or self._at_end) and self._free(Line.CATCH_UP):
            most = self._limits.catch_up_partitions
            behind = list(itertools.islice(filter(self._still_wanted, list(self._behind)), most))
            # The parked fetch is on its way and does not cover these: they are at the end, and somebody waits there.
            wanted = (stream for stream in self._at_end if stream.wanted_now)
            uncovered = [] if more else list(itertools.islice(wanted, most - len(behind)))
            if behind or uncovered:
                wait_ms = 0 if behind else self._limits.catch_up_wait_ms
                requests.append(self._catch_up([*behind, *uncovered], wait_ms))
        return requests

    def _free(self, line: Line) -> bool:
        return self._in_flight[line] is None and self._retry_at.get(line, 0.0) <= self._now

    @property
    def _soon_more_to_park(self) -> bool:
        """Whether the parked request, with nothing going on, had better wait for the few milliseconds of a catch-up.

        What is at the end and not covered is on its way there nearly all the time: it would never be covered.
        """
        catching_up = self._in_flight[Line.CATCH_UP]
        return self._quiet and catching_up is not None and catching_up.max_wait_ms > 0

    def _still_wanted(self, stream: Stream) -> bool:
        """Whether a stream still is to be fetched, now that readers may have ceased to wait, and room to be."""
        if not stream.wanted_now and (stream.full or not self._read_ahead.has_room):
            self._sort(stream)
            return False
        return True

    def _to_park(self) -> tuple[list[Stream], bool]:
        """Cover streams at the end by the parked request; returns them, and whether there are more."""
        added: dict[TopicPartition, Stream] = {}
        for stream in list(self._at_end):
            if not self._still_wanted(stream) or stream.partition in added:
                continue
            if len(added) == self._limits.parked_additions:
                return list(added.values()), True
            other = self._standing.streams.get(stream.partition)
            if other is not None:
                # A partition can be in a request once. Two streams of one are served in turns.
                self._standing.remove(other)
                self._sort(other)
            self._standing.add(stream)
            added[stream.partition] = stream
            del self._at_end[stream]
        return list(added.values()), False

    def _parked(self, added: list[Stream], *, waits: bool) -> WireFetch:
        changed, forgotten = self._standing.differences(added)
        if changed or forgotten:
            self._calm = 0
        max_wait_ms = 0
        if waits:
            calm = self._calm >= self._limits.calm_after
            max_wait_ms = self._limits.calm_wait_ms if calm else self._limits.parked_wait_ms
        room = self._room(self._standing.largest)
        wire = WireFetch(Line.PARKED, self._standing.positions, max_wait_ms, room, changed, forgotten)
        self._in_flight[Line.PARKED] = wire
        return wire

    def _catch_up(self, streams: list[Stream], max_wait_ms: int) -> WireFetch:
        chosen = {stream.partition: stream for stream in reversed(streams)}  # of two of one partition the first
        wire = WireFetch(Line.CATCH_UP, {}, max_wait_ms, self._room(max(s.max_bytes for s in chosen.values())))
        for stream in streams:
            if chosen[stream.partition] is stream:
                wire.partitions[stream.partition] = stream.position
                wire.streams.append(stream)
                stream.in_flight = Line.CATCH_UP
                self._at_end.pop(stream, None)
                self._behind.pop(stream, None)
        self._in_flight[Line.CATCH_UP] = wire
        self._asked = min(wire.max_bytes, sum(stream.max_bytes for stream in wire.streams))
        self._read_ahead.asked += self._asked
        return wire

    def _room(self, largest: int) -> int:
        read_ahead = self._read_ahead
        return max(largest, min(self._limits.max_bytes, read_ahead.limit - read_ahead.used - read_ahead.asked))

    def _came_back(self, line: Line) -> None:
        self._in_flight[line] = None
        if line is Line.CATCH_UP:
            self._read_ahead.asked -= self._asked
            self._asked = 0

    # -- answering readers ---------------------------------------------------------------------------------------------

    def _answers_for(self, reader: Reader, fetch: LogicalFetch) -> Answers | None:
        """What ``fetch`` is answered with now; None if it goes on waiting."""
        refused = self._refused.get(fetch, {})
        taken: dict[TopicPartition, list[Chunk]] = {}
        told: list[TopicPartition] = []
        size = 0
        cannot_wait = bool(refused) or fetch.deadline <= self._now
        for partition in list(reader.news):
            stream = reader.places[partition]
            cursor = stream.cursors[reader.number]
            if not cursor.asks:
                del reader.news[partition]  # it hears of it when it asks again
                continue
            if not stream.has_for(cursor):
                if stream.high_watermark_for(cursor) is not None:
                    told.append(partition)
                else:
                    del reader.news[partition]
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
            cursor = reader.places[partition].cursors[reader.number]
            readers = sum(len(stream.cursors) for stream in self._streams[partition])
            answers[partition] = (
                self._join([c.answer for c in chunks], readers) if len(chunks) > 1 or readers > 1 else chunks[0].answer
            )
            cursor.offset = chunks[-1].next_offset
            cursor.told_high_watermark = answers[partition].high_watermark
            reader.looks_anew(partition)
            del reader.news[partition]
        for partition in told:
            # Without records, a reader still learns how far the log goes: kafka-python reports its lag by it.
            cursor = reader.places[partition].cursors[reader.number]
            if (latest := reader.places[partition].high_watermark_for(cursor)) is not None:
                cursor.told_high_watermark = latest.high_watermark
                answers[partition] = latest
            del reader.news[partition]
        if not answers and self._waits_on(reader, fetch):
            return None
        self._stop_waiting(reader)
        for partition in taken:
            stream = reader.places[partition]
            stream.trim()
            self._sort(stream)
            self._delivered[stream] = None
        return answers

    def _waits_on(self, reader: Reader, fetch: LogicalFetch) -> bool:
        """Whether a fetch that is due, with nothing to tell, is patient and still waits where something will come.

        Not for long while the broker cannot be reached: its reader may find that the leader is another one. But it
        would come back at once, with a deadline that has passed already if it has ``max_wait_ms`` 0.
        """
        if not fetch.patient or reader.lost:
            return False
        reachable = all(self._retry_at.get(line, 0.0) <= self._now for line in Line)
        return reachable or self._now < reader.asked_at + self._limits.breath_s

    def _stop_waiting(self, reader: Reader) -> None:
        # Streams that nobody waits for any more are noticed where they are to be fetched.
        if reader.fetch is not None:
            self._refused.pop(reader.fetch, None)
            reader.fetch = None
            reader.asked_at = self._now  # it has asked all the while

    # -- where readers are ---------------------------------------------------------------------------------------------

    def _place(self, reader: Reader, partition: TopicPartition, position: Position) -> None:
        current = reader.places.get(partition)
        # A reader that has caught up with others joins them: of the streams that serve it, the one furthest on. Of two
        # that are equally far the elder, since whoever is there already may not ask anew.
        again = current is not None and current.cursors[reader.number].offset > position.fetch_offset
        serving = [stream for stream in self._streams.get(partition, ()) if stream.serves(position, again=again)]
        stream = max(serving, key=lambda s: s.offset, default=None)
        if current is not None and current is not stream:
            self._leave(reader, partition)
        if stream is None:
            stream = Stream(partition, position, self._read_ahead)
            self._streams.setdefault(partition, []).append(stream)
        reader.places[partition] = stream
        reader.asked[partition] = position
        reader.news[partition] = None
        cursor = stream.cursors.get(reader.number)
        if cursor is None:
            cursor = stream.cursors[reader.number] = Cursor(reader, position.fetch_offset)
        cursor.offset = position.fetch_offset
        cursor.asks = True
        stream.trim()
        self._came_to[stream] = None
        self._sort(stream)

    def _ask_no_more(self, reader: Reader, partition: TopicPartition) -> None:
        """A reader asks for a partition no longer; it may again soon."""
        del reader.asked[partition]
        if (stream := reader.places.get(partition)) is not None:
            cursor = stream.cursors[reader.number]
            cursor.asks = False
            cursor.asked_at = reader.asked_at

    def _leave(self, reader: Reader, partition: TopicPartition) -> None:
        stream = reader.places[partition]
        reader.loses(partition)
        del stream.cursors[reader.number]
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
        self._sort(stream)

    def _sort(self, stream: Stream) -> None:
        """Put a stream that is not in flight where it is fetched from, or nowhere; it keeps its turn there."""
        if stream.in_flight is Line.PARKED:
            self._standing.unsettle(stream)
        queue = self._queue_of(stream)
        for other in (self._at_end, self._behind, self._starved):
            if other is not queue:
                other.pop(stream, None)
        if queue is not None:
            queue[stream] = None

    def _queue_of(self, stream: Stream) -> dict[Stream, None] | None:
        if stream.closed or stream.in_flight is not None or not stream.cursors:
            return None
        if self._retry_at.get(stream.partition, 0.0) > self._now:
            return None
        if not stream.wanted_now and (stream.full or not self._read_ahead.has_room):
            for cursor in stream.cursors.values():
                cursor.reader.looks_anew(stream.partition)  # whoever comes to wait here wants it fetched
            return None if stream.full else self._starved
        return self._at_end if stream.at_end else self._behind

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
            self._tell(stream)  # the patient hear how far the log goes
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
        stream.trim()
        self._tell(stream)

    def _tell(self, stream: Stream) -> None:
        for cursor in stream.cursors.values():
            cursor.reader.news[stream.partition] = None
            if cursor.waiting is not None:
                self._touched[cursor.waiting] = None

    def _refuse(self, stream: Stream, answer: PartitionAnswer) -> None:
        """Pass on an answer that ends this stream; readers come back knowing better, and start anew."""
        for cursor in list(stream.cursors.values()):
            reader = cursor.reader
            if cursor.waiting is not None:
                if cursor.offset >= stream.offset:
                    self._refused.setdefault(cursor.waiting, {})[stream.partition] = answer
                else:
                    cursor.waiting.deadline = self._now  # the more that it waits for will not come
                self._touched[cursor.waiting] = None
            reader.loses(stream.partition)
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
