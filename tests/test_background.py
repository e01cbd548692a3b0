"""Threads beside the main one: order, errors, bounds."""

import threading
import time

import pytest

from se_det.background import SerialExecutor, prefetch


def test_ahead_fetches_the_next_item_meanwhile_and_no_more():
    fetched = []

    def source():
        for i in range(5):
            fetched.append((i, threading.current_thread() is threading.main_thread()))
            yield i

    seen = []
    for item in prefetch(source()):
        deadline = time.monotonic() + 5
        while len(fetched) < min(item + 2, 5) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(fetched) == min(item + 2, 5)
        seen.append(item)
    assert seen == list(range(5)) and not any(main for _, main in fetched)


def test_ahead_raises_in_its_place_and_ends_when_left():
    def source():
        yield 1
        raise ValueError("broken")

    items = prefetch(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)
    for _ in prefetch(range(10**9)):
        break
    assert all("ThreadPool" not in t.name or not t.is_alive() for t in threading.enumerate())


def test_calls_keep_their_order_and_their_number_is_bounded():
    done, waiting, most = [], 0, 0

    def call(number):
        nonlocal most
        most = max(most, waiting - len(done))
        time.sleep(0.002)
        done.append(number)

    with SerialExecutor(call, depth=2) as later:
        for number in range(20):
            waiting += 1
            later(number)
    assert done == list(range(20)) and most <= 4


def test_an_error_reaches_the_caller_and_later_calls_are_not_made():
    done = []

    def call(number):
        if number == 3:
            raise ValueError("third")
        done.append(number)

    with pytest.raises(ValueError, match="third"), SerialExecutor(call) as later:
        for number in range(10):
            later(number)
    assert done == [0, 1, 2]


def test_the_callers_own_error_wins():
    with pytest.raises(KeyError), SerialExecutor(lambda: 1 / 0) as later:
        later()
        raise KeyError
