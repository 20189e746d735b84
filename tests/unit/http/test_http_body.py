"""The back-pressure of request bodies."""

import asyncio

from sampan.http.body import HIGH_BYTES, LOW_BYTES, Body


def test_reading_goes_on_when_bytes_arrive_while_the_body_drains():
    """What was read from the socket before the stop is fed while the reader is between the two marks."""

    async def scenario():
        resumed = asyncio.Event()
        body = Body(asyncio.get_running_loop(), lambda: None, resumed.set)
        pieces = [LOW_BYTES] * (HIGH_BYTES // LOW_BYTES) + [1]
        assert [body.feed(bytes(size)) for size in pieces][-1] is False
        await body.read_some()
        await body.read_some()
        assert body.feed(b"y") is False  # still stopped: nobody has resumed it
        while not resumed.is_set():
            async with asyncio.timeout(1):
                await body.read_some()
            await asyncio.sleep(0)

    asyncio.run(scenario())
