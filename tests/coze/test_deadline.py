"""``deadline``: our own becomes our error, everybody else's stays what it is."""

import asyncio

import pytest

from app.coze.deadline import Deadline
from app.exceptions import CozeApiError, CozeTimeout, UpstreamError


def late() -> UpstreamError:
    return CozeTimeout("late")


async def test_what_is_too_late_is_broken_off_with_our_error() -> None:
    with pytest.raises(CozeTimeout, match="late") as caught:
        async with Deadline(0.0, late):
            await asyncio.Event().wait()

    assert caught.value.__cause__ is None


async def test_without_a_time_it_waits_until_it_is_given_one() -> None:
    with pytest.raises(CozeTimeout):  # noqa: PT012
        async with Deadline(None, late) as scope:
            await asyncio.sleep(0)
            scope.reschedule(0.0)
            await asyncio.Event().wait()


async def test_a_connection_that_breaks_as_it_is_broken_off_is_late() -> None:
    with pytest.raises(CozeTimeout, match="late"):  # noqa: PT012
        async with Deadline(0.0, late):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise CozeApiError("broke") from None


@pytest.mark.parametrize("error", [TimeoutError(), CozeApiError("broke"), ValueError()], ids=repr)
async def test_what_others_raise_stays_what_it_is(error: Exception) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(type(error)) as caught:
        async with Deadline(loop.time() + 60, late):
            raise error

    assert caught.value is error


async def test_a_cancel_at_the_same_moment_stays_a_cancel() -> None:
    async def wait() -> None:
        async with Deadline(0.0, late):
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(wait())
