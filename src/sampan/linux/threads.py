"""Work in a thread of its own, for what a thread does to itself alone: unshare(2) and setns(2).

Not part of `namespaces`: the launcher, which has one thread and stays small, imports that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(work: Callable[[], T]) -> T:
    """Run in a thread that ends afterwards, and with it what it did to its own view of the machine.

    Raises:
        BaseException: what `work` raised.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
