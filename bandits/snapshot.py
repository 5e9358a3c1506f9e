"""Snapshots: models as data. A JSON envelope that says what it is, around the model's own bytes; never pickle."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Any, Final, Literal

import msgspec

SCHEMA: Final = 1
MAX_SNAPSHOT_BYTES: Final = 4_000_000
_DIGEST_BYTES: Final = 16
Kind = Literal["arms", "linear", "propensity"]


class SnapshotError(ValueError):
    """Bytes that are no snapshot this version can read; the message says why."""


def seal(data: bytes) -> bytes:
    """The data behind their digest.

    Examples
    --------
    >>> unseal(seal(b"sums"))
    b'sums'
    """
    return blake2b(data, digest_size=_DIGEST_BYTES).digest() + data


def unseal(sealed: bytes) -> bytes:
    """The data, if nothing of them has changed.

    Raises
    ------
    SnapshotError
        If their digest is another.
    """
    data = sealed[_DIGEST_BYTES:]
    if seal(data) != sealed:
        raise SnapshotError(f"model of {len(sealed)} bytes has another digest: not a model's bytes, or damaged")
    return data


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """A model as it was after the example at offset `version - 1`.

    Attributes
    ----------
    model
        Its name, `<campaign>/<choice>` for a policy.
    kind
        Which class reads `data`.
    version
        Offset of the first example it has not seen: where whoever resumes from it goes on.
    context_version
        Which layout of the context its numbers belong to.
    data
        The model's own bytes.
    meta
        What else whoever wrote it has to say.
    """

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    kind: Kind
    version: Annotated[int, msgspec.Meta(ge=0)]
    data: bytes
    context_version: Annotated[int, msgspec.Meta(ge=0)] = 0
    schema: Annotated[int, msgspec.Meta(ge=SCHEMA, le=SCHEMA)] = SCHEMA
    meta: dict[str, Any] = {}


_DECODER = msgspec.json.Decoder(Snapshot)
_ENCODER = msgspec.json.Encoder(order="deterministic")


def encode(snapshot: Snapshot) -> bytes:
    """The snapshot as JSON; `data` in base64. Equal snapshots give equal bytes.

    Examples
    --------
    >>> decode(encode(Snapshot(model="sale/subject", kind="arms", version=7, data=b"x"))).version
    7
    """
    return _ENCODER.encode(snapshot)


def decode(value: bytes) -> Snapshot:
    """Read a snapshot.

    Raises
    ------
    SnapshotError
        If these bytes are none, or of another schema, or too large.
    """
    if len(value) > MAX_SNAPSHOT_BYTES:
        raise SnapshotError(f"snapshot has {len(value)} bytes; expected at most {MAX_SNAPSHOT_BYTES}")
    try:
        return _DECODER.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotError(f"snapshot cannot be read: {error}") from error
