"""What only root can have: a small disk that can be filled, and a network namespace whose link can be pulled."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.services import UnavailableError


def run(*words: str) -> None:
    """Run a command.

    Raises
    ------
    UnavailableError
        It is not there or fails; with what it said.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UnavailableError(f"{' '.join(words)}: {error}") from error
    if done.returncode:
        why, *_ = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise UnavailableError(f"{' '.join(words)}: {why}")


class SmallDisk:
    """A file system of its own in memory.

    Parameters
    ----------
    megabytes
        Its size; without the right to mount it is a folder like any other.

    Attributes
    ----------
    why_not
        Why it cannot be filled; empty if it can.
    """

    def __init__(self, megabytes: int) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="decisioning-disk-"))
        self._size = f"size={megabytes}m"
        self.why_not = ""
        atexit.register(self.close)
        try:
            run("mount", "-t", "tmpfs", "-o", self._size, "decisioning-chaos", str(self.path))
        except UnavailableError as error:
            self.why_not = str(error)

    def fill(self) -> None:
        """Leave no room but for a few pages: the file system shrinks to what is in it."""
        at = os.statvfs(self.path)
        used = (at.f_blocks - at.f_bfree) * at.f_frsize
        run("mount", "-o", f"remount,size={used + 4 * at.f_frsize}", str(self.path))

    def free(self) -> None:
        """Make room again."""
        run("mount", "-o", f"remount,{self._size}", str(self.path))

    def close(self) -> None:
        """Delete it; any number of times."""
        if not self.why_not:
            subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=False)
            self.why_not = "closed"
        shutil.rmtree(self.path, ignore_errors=True)
        atexit.unregister(self.close)


class Namespace:
    """A network namespace with one link to us.

    Attributes
    ----------
    outside, inside
        Addresses of the link's two ends.
    command
        What to put in front of a command so that it runs inside.

    Raises
    ------
    UnavailableError
        This machine does not let us.
    """

    def __init__(self) -> None:
        number = os.getpid()
        self._name, self._here, there = f"decisioning{number}", f"dn{number}a", f"dn{number}b"
        subnet = f"10.213.{number % 251}"
        self.outside, self.inside = f"{subnet}.1", f"{subnet}.2"
        self.command = ("ip", "netns", "exec", self._name)
        atexit.register(self.close)
        try:
            run("ip", "netns", "add", self._name)
            run("ip", "link", "add", self._here, "type", "veth", "peer", "name", there)
            run("ip", "link", "set", there, "netns", self._name)
            run("ip", "addr", "add", f"{self.outside}/30", "dev", self._here)
            run("ip", "link", "set", self._here, "up")
            run("ip", "-n", self._name, "addr", "add", f"{self.inside}/30", "dev", there)
            run("ip", "-n", self._name, "link", "set", there, "up")
            run("ip", "-n", self._name, "link", "set", "lo", "up")
        except UnavailableError:
            self.close()
            raise

    def pull(self) -> None:
        """Take the link down: nothing passes, and nobody inside is told."""
        run("ip", "link", "set", self._here, "down")

    def plug(self) -> None:
        """Bring the link up."""
        run("ip", "link", "set", self._here, "up")

    def close(self) -> None:
        """Delete it; any number of times."""
        for words in (["link", "del", self._here], ["netns", "del", self._name]):
            subprocess.run(["ip", *words], capture_output=True, check=False)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
