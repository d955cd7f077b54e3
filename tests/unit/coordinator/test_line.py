"""One after the other, the most urgent first."""

import asyncio
import itertools
import time

from cutoff.coordinator.line import Line


def test_turns_go_by_priority_and_age_and_are_apart():
    turns = []

    async def take(line, who, priority, since):
        await line.turn(priority, since)
        turns.append((who, time.monotonic()))

    async def main():
        line = Line(0.05)
        takers = [("first", 0, 9.0), ("young", 0, 3.0), ("old", 0, 1.0), ("urgent", 5, 4.0), ("gone", 9, 0.0)]
        tasks = [asyncio.create_task(take(line, *each)) for each in takers]
        await asyncio.sleep(0.01)
        tasks[-1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.11)
        await take(line, "later", 0, 0.0)

    asyncio.run(main())
    assert [who for who, _ in turns] == ["first", "urgent", "old", "young", "later"]
    moments = [moment for _, moment in turns]
    assert all(later - earlier >= 0.049 for earlier, later in itertools.pairwise(moments))
