"""A propensity model as bytes, and back: JSON with its arrays in base64, checked whatever it says; never pickle."""

from __future__ import annotations

import zlib
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.propensity import MAX_LOSSES, STRENGTHS, PropensityModel
from bandits.propensity_forest import RING
from bandits.propensity_progress import BINS
from bandits.propensity_score import MEMBERS, Members, Scorer, Trees, checked
from bandits.snapshot import SnapshotError

MAX_STATE_BYTES: Final = 2_000_000
_Count = Annotated[int, msgspec.Meta(ge=0)]
_KINDS: Final = {"f8": "<f8", "f4": "<f4", "i8": "<i8", "b1": "|b1", "u1": "|u1"}


class _Array(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """An array: its type, shape and bytes, little-endian and deflated."""

    kind: str
    shape: list[Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]]
    data: bytes


class _Scoring(msgspec.Struct, frozen=True):
    """What scores."""

    mean: float
    strength: float
    intercept: float
    champion: int
    depth: int
    arrays: dict[str, _Array]


class _Learning(msgspec.Struct, frozen=True):
    """What goes on learning."""

    examples: _Count
    drifts: _Count
    weight: float
    forest_count: Annotated[int, msgspec.Meta(ge=0, lt=RING)]
    forest_generation: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    forest_allowance: float
    forest_unexported: _Count
    compared: float
    arrays: dict[str, _Array]


class _State(msgspec.Struct, frozen=True):
    scoring: _Scoring
    learning: _Learning


class _OnlyScoring(msgspec.Struct, frozen=True):
    scoring: _Scoring


_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_DECODER: Final = msgspec.json.Decoder(_State)
_SCORING_DECODER: Final = msgspec.json.Decoder(_OnlyScoring)


def encode(model: PropensityModel) -> bytes:
    """All of a model. Models that have learned the same give the same bytes."""
    members, forest, progress = model.members, model.forest, model.progress
    trees = members.trees
    scoring = _Scoring(
        members.mean,
        members.strength,
        members.intercept,
        members.champion,
        trees.depth,
        _packed(
            centre=members.centre,
            scale=members.scale,
            weights=members.weights,
            blend=members.blend,
            platt=members.platt,
            roots=trees.roots,
            votes_of=trees.weights,
            feature=trees.feature,
            threshold=trees.threshold,
            left=trees.left,
            right=trees.right,
            value=trees.value,
            votes=trees.votes,
        ),
    )
    waiting = np.array(model.waiting_x, np.float64).reshape(-1, members.width)
    learning = _Learning(
        model.examples,
        model.drifts,
        progress.weight,
        forest.count,
        forest.generation,
        forest.allowance,
        forest.unexported,
        progress.compared,
        _packed(
            histogram=progress.histogram,
            loss=progress.loss,
            advantage=progress.advantage,
            losses=np.array(model.losses, np.uint8),
            ring_x=forest.x[: forest.count],
            ring_y=forest.y[: forest.count],
            waiting_x=waiting,
            waiting_y=np.array(model.waiting_y, np.bool_),
            outcomes=model.outcomes,
            strength_loss=model.strength_loss,
            moments=model.moments,
            squares=model.squares,
            blend_information=model.blend.information,
            platt_information=model.platt.information,
        ),
    )
    return _ENCODER.encode(_State(scoring, learning))


def scorer(data: bytes, width: int) -> Scorer:
    """What scores, without what learns.

    Raises
    ------
    SnapshotError
        If the bytes are no model of this width.
    """
    return Scorer(_members(_decoded(_SCORING_DECODER, data).scoring, width))


def model(data: bytes, width: int) -> PropensityModel:
    """The model, ready to go on learning.

    Raises
    ------
    SnapshotError
        If the bytes are no model of this width.
    """
    state = _decoded(_DECODER, data)
    made = PropensityModel(width)
    made.adopt(_members(state.scoring, width))
    learning, arrays = state.learning, _Arrays(state.learning.arrays)
    made.examples, made.drifts = learning.examples, learning.drifts
    progress, forest = made.progress, made.forest
    progress.weight = _finite(learning.weight)
    count, inputs, blended = len(MEMBERS), width - 1, len(made.members.blend)
    progress.histogram = arrays.take("histogram", "f8", count, 3, BINS)
    progress.loss = arrays.take("loss", "f8", count)
    progress.advantage = arrays.take("advantage", "f8", count, count, 2)
    progress.compared = _finite(learning.compared)
    made.losses = arrays.take("losses", "u1", None).tolist()
    if len(made.losses) > MAX_LOSSES:
        raise SnapshotError(f"propensity model has {len(made.losses)} losses; expected at most {MAX_LOSSES}")
    kept = learning.forest_count
    forest.x[:kept] = arrays.take("ring_x", "f4", kept, width)
    forest.y[:kept] = arrays.take("ring_y", "b1", kept)
    forest.count, forest.generation = kept, learning.forest_generation
    forest.allowance, forest.unexported = _finite(learning.forest_allowance), learning.forest_unexported
    forest.trees = made.members.trees
    waiting = arrays.take("waiting_x", "f8", None, width)
    made.waiting_x = list(waiting)
    made.waiting_y = arrays.take("waiting_y", "b1", len(waiting)).tolist()
    made.outcomes = arrays.take("outcomes", "f8", 2)
    made.strength_loss = arrays.take("strength_loss", "f8", len(STRENGTHS))
    made.moments = arrays.take("moments", "f8", 2, inputs)
    made.squares = arrays.take("squares", "f8", inputs)
    made.blend.information = arrays.take("blend_information", "f8", 1, blended, blended)
    made.platt.information = arrays.take("platt_information", "f8", count, 2, 2)
    if min(made.outcomes[1], *made.squares, *made.moments[1]) < 0.0 or made.outcomes[1] == 0.0:
        raise SnapshotError("propensity model has negative sums of squares; expected none")
    return made


def _members(stored: _Scoring, width: int) -> Members:
    arrays, inputs = _Arrays(stored.arrays), width - 1
    roots = arrays.take("roots", "i8", None)
    feature = arrays.take("feature", "i8", None)
    nodes = len(feature)
    trees = Trees(
        roots,
        arrays.take("votes_of", "f8", len(roots)),
        feature,
        arrays.take("threshold", "f8", nodes),
        arrays.take("left", "i8", nodes),
        arrays.take("right", "i8", nodes),
        arrays.take("value", "f8", nodes),
        arrays.take("votes", "f8", nodes),
        stored.depth,
    )
    members = Members(
        _finite(stored.mean),
        _finite(stored.strength),
        arrays.take("centre", "f8", inputs),
        arrays.take("scale", "f8", inputs),
        arrays.take("weights", "f8", inputs),
        _finite(stored.intercept),
        trees,
        arrays.take("blend", "f8", len(MEMBERS) + inputs),
        arrays.take("platt", "f8", len(MEMBERS), 2),
        stored.champion,
    )
    problem = checked(members)
    if problem is not None:
        raise SnapshotError(f"propensity model cannot be used: {problem}")
    return members


class _Arrays:
    """Arrays by name, each with the type and shape that is expected."""

    def __init__(self, stored: dict[str, _Array]) -> None:
        self._stored = stored

    def take(self, name: str, kind: str, *shape: int | None) -> NDArray[Any]:
        """Raise `SnapshotError` unless there is such an array, all finite; None in `shape` is any length."""
        found = self._stored.get(name)
        if found is None or found.kind != kind or len(found.shape) != len(shape):
            raise SnapshotError(f"propensity model has no array {name!r} of type {kind} and {len(shape)} dimensions")
        if any(wanted not in (None, length) for wanted, length in zip(shape, found.shape, strict=True)):
            raise SnapshotError(f"array {name!r} has shape {tuple(found.shape)}; expected {shape}")
        size = int(np.prod(found.shape, dtype=np.int64)) * np.dtype(_KINDS[kind]).itemsize
        if size > MAX_STATE_BYTES:
            raise SnapshotError(f"array {name!r} has {size} bytes; expected at most {MAX_STATE_BYTES}")
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(found.data, size + 1)
        except zlib.error as error:
            raise SnapshotError(f"array {name!r} cannot be read: {error}") from error
        if len(data) != size:
            raise SnapshotError(f"array {name!r} has other than {size} bytes")
        array = np.frombuffer(data, _KINDS[kind]).reshape(found.shape).copy()
        if not np.isfinite(array).all():
            raise SnapshotError(f"array {name!r} has numbers that are not finite")
        return array


def _packed(**arrays: NDArray[Any]) -> dict[str, _Array]:
    return {
        name: _Array(
            f"{array.dtype.kind}{array.dtype.itemsize}",
            list(array.shape),
            zlib.compress(np.ascontiguousarray(array).tobytes(), 1),
        )
        for name, array in arrays.items()
    }


def _finite(number: float) -> float:
    if not np.isfinite(number):
        raise SnapshotError("propensity model has a number that is not finite")
    return number


def _decoded(decoder: Any, data: bytes) -> Any:
    if len(data) > MAX_STATE_BYTES:
        raise SnapshotError(f"propensity model has {len(data)} bytes; expected at most {MAX_STATE_BYTES}")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotError(f"propensity model cannot be read: {error}") from error
