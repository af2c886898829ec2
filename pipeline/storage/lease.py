"""One writer in a store without locks: a lease is an object that its holder renews, and that expires without renewals.

No clock of another machine is trusted: a process that waits takes the lease once it has seen it unchanged for
``EXPIRY_SECONDS``. The holder checks before each renewal that the lease is still its own; a holder that was cut off for
too long finds another name there, and stops writing. Until then both may have written the same groups, whose rows are
the same.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable

from upath import UPath

from pipeline.storage.read import content, reaching
from pipeline.storage.retry import Retries, with_retries
from pipeline.storage.writer import StorageBusyError

LEASE_NAME = ".lock"
RENEW_SECONDS = 5.0
#: How long a lease stays unchanged before it expires.
EXPIRY_SECONDS = 30.0
POLL_SECONDS = 1.0


class Lease:
    """The right to write a folder.

    Args:
        file: The object that names the holder.
    """

    def __init__(self, file: UPath) -> None:
        self._file = file
        self._name = uuid.uuid4().hex.encode()
        self._renewals = 0
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None
        self.lost = False
        """Whether another process has taken the lease."""

    def acquire(self, announce: Callable[[str], None]) -> None:
        """Take the lease, if need be after it has expired.

        Raises:
            StorageBusyError: Another process holds the lease.
            OSError: The store cannot be written.
        """
        while not self._create():
            before = self._read()
            if before is not None and self._expires(before, announce):
                self._put()
                # Others that waited for the same lease have put their names there too; the last one holds it.
                time.sleep(POLL_SECONDS)
                break
        if not self._is_mine():
            raise StorageBusyError
        self.lost = False
        # A new event: while a store does not answer, an earlier renewer may not have seen its own yet.
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, args=(self._ended,), name="lease", daemon=True)
        self._renewer.start()

    def release(self) -> None:
        """Release the lease; does nothing if this process does not hold it."""
        if self._renewer is None:
            return
        self._ended.set()
        self._renewer.join(timeout=EXPIRY_SECONDS)
        self._renewer = None
        with contextlib.suppress(Exception):  # it is not renewed any more, and expires soon
            if self._is_mine():
                self._file.fs.rm_file(self._file.path)

    def _create(self) -> bool:
        """Create the lease if there is none; atomic in stores that know such a condition. Whether it is now our own."""
        if self._read() is not None:
            return False
        try:
            self._put(mode="create")
        except FileExistsError:
            return self._is_mine()  # of a first try whose response was lost
        return True

    def _expires(self, before: bytes, announce: Callable[[str], None]) -> bool:
        """Wait for as long as a lease lasts: True if it was not renewed and has expired, False if it was released.

        Raises:
            StorageBusyError: The lease was renewed.
        """
        announce(
            f"Another search may be writing {self._file.parent}; waiting {EXPIRY_SECONDS:g} seconds for a sign of it."
        )
        deadline = time.monotonic() + EXPIRY_SECONDS
        while time.monotonic() < deadline:
            time.sleep(min(POLL_SECONDS, EXPIRY_SECONDS / 4))
            now = self._read()
            if now is None:
                return False
            if now != before:
                raise StorageBusyError
        return True

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(RENEW_SECONDS):
            # After an outage the lease is renewed, or belongs to another process by then.
            with contextlib.suppress(Exception):
                self._check_holder()
                if self.lost:
                    return
                self._renewals += 1
                self._put()

    def _check_holder(self) -> None:
        self.lost = not self._is_mine()

    def _is_mine(self) -> bool:
        now = self._read()
        return now is not None and now.partition(b" ")[0] == self._name

    def _read(self) -> bytes | None:
        try:
            return content(self._file)
        except FileNotFoundError:
            return None

    def _put(self, **options: str) -> None:
        text = self._name + b" %d" % self._renewals
        with reaching(self._file):
            with_retries(lambda: self._file.fs.pipe_file(self._file.path, text, **options), Retries.SHORT)
