"""What was logged of choices, as columns: from a mapping, a structured array, or records such as examples."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.policy import Floats

COLUMNS: Final = ("arm", "propensity", "reward", "context", "predicted", "arms", "propensities")
REQUIRED: Final = ("arm", "propensity", "reward")
_SUM_TOLERANCE: Final = 1e-6
_MOST_ARMS: Final = 2**31
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Logged:
    """Logged choices, checked.

    Attributes
    ----------
    arm : int64[n]
        Which arm was chosen, as a column of what has a column for each arm.
    names
        Arm -> its column; None where arms are columns already.
    propensity : float64[n]
        With which probability it was, in (0, 1].
    reward : float64[n]
        What came of it.
    context : float64[n, dim] or None
        What it was chosen in.
    predicted : float64[n, arms] or float64[n] or None
        The rewards some model expects, of every arm or of the row whatever the arm.
    propensities : float64[n, arms] or None
        Of all arms, 0 where an arm was not eligible.
    """

    arm: NDArray[np.int64]
    names: dict[Hashable, int] | None
    propensity: Floats
    reward: Floats
    context: Floats | None = None
    predicted: Floats | None = None
    propensities: Floats | None = None

    def __len__(self) -> int:
        return len(self.arm)

    @staticmethod
    def of(log: Any) -> Logged:
        """Read a log.

        Parameters
        ----------
        log
            A mapping, structured array, data frame or object with columns `arm`, `propensity`, `reward` and perhaps
            `context`, `predicted`, `propensities` and `arms`; or a sequence of records with these fields, where those
            with `correction: true` add their `delta` to the record of the same `decision_id` and `policy`. Arms are
            whole numbers from 0, or names: then columns of arms are in the order of `arms`, or else sorted.

        Raises
        ------
        ValueError
            Something is missing, empty, not finite or of another length.
        """
        if isinstance(log, Logged):
            return log
        found = _columns(log)
        propensity, reward = _numbers("propensity", found["propensity"]), _numbers("reward", found["reward"])
        listed = _vector(found["arm"])
        rows = len(listed)
        if rows == 0:
            raise ValueError("log is empty; expected at least one row: give what was logged")
        for name, values in (("propensity", propensity), ("reward", reward)):
            if values.shape != (rows,):
                raise ValueError(f"{name} has shape {values.shape}; expected ({rows},), one for each arm of the log")
        wrong = np.flatnonzero((propensity <= 0.0) | (propensity > 1.0))
        if len(wrong):
            raise ValueError(
                f"propensity of row {wrong[0]} is {propensity[wrong[0]]:g}; expected more than 0 and at most 1: "
                "log the probability with which the arm was chosen"
            )
        arm, names = _indices(listed, found["arms"])
        return Logged(
            arm,
            names,
            propensity,
            reward,
            _matrix("context", _context(found["context"]), rows),
            _matrix("predicted", found["predicted"], rows, flat=True),
            _matrix("propensities", found["propensities"], rows),
        )

    def chances(self, probabilities: Any) -> tuple[Floats, Floats | None]:
        """The new policy's probability of each logged arm, and of all arms where it is known.

        Parameters
        ----------
        probabilities
            float64[n] of the logged arms; or float64[n, arms], a mapping arm -> probability that holds for all rows, or
            one mapping a row.

        Raises
        ------
        ValueError
            They have another shape, or are not probabilities.
        """
        rows = len(self)
        if _is_mappings(probabilities):
            probabilities = self._spread(probabilities)
        p = _numbers("probabilities", probabilities)
        if p.ndim not in {1, 2} or len(p) != rows:
            expected = f"({rows},) or ({rows}, arms)"
            raise ValueError(f"probabilities have shape {p.shape}; expected {expected}, one row for each of the log")
        if p.min() < 0.0 or p.max() > 1.0 + _SUM_TOLERANCE:
            worst = p.min() if p.min() < 0.0 else p.max()
            raise ValueError(f"probabilities contain {worst:g}; expected numbers from 0 to 1")
        if p.ndim == 1:
            return p, None
        arms = len(self.names) if self.names is not None else int(self.arm.max()) + 1
        if p.shape[1] < arms or (self.names is not None and p.shape[1] != arms):
            expected = f"({rows}, {arms})"
            remedy = "name all arms in the log's `arms`, in the order of the columns"
            raise ValueError(
                f"probabilities have shape {p.shape}; expected {expected}, a column for each arm: {remedy}"
            )
        wrong = np.flatnonzero(np.abs(p.sum(axis=1) - 1.0) > _SUM_TOLERANCE)
        if len(wrong):
            total = p[wrong[0]].sum()
            raise ValueError(f"probabilities of row {wrong[0]} add to {total:g}; expected 1 over all arms")
        return p[np.arange(rows), self.arm], p

    def _spread(self, probabilities: Any) -> Floats:
        """Mappings arm -> probability as a matrix."""
        rows = [probabilities] if isinstance(probabilities, Mapping) else list(probabilities)
        names = self.names
        if names is None:
            names = {arm: arm for arm in range(int(max([self.arm.max(), *(arm for row in rows for arm in row)])) + 1)}
        found = np.zeros((len(rows), len(names)))
        for place, row in enumerate(rows):
            for name, value in row.items():
                if name in names:
                    found[place, names[name]] = value
                elif value:
                    known = ", ".join(map(str, names))
                    raise ValueError(f"probabilities name the arm {name!r}; the log has {known}: name it in `arms`")
        return np.broadcast_to(found, (len(self), len(names))) if isinstance(probabilities, Mapping) else found


def _is_mappings(values: Any) -> bool:
    if isinstance(values, Mapping):
        return True
    return isinstance(values, Sequence) and len(values) > 0 and isinstance(values[0], Mapping)


def _columns(log: Any) -> dict[str, Any]:
    if isinstance(log, Sequence) and not isinstance(log, str | bytes) and not hasattr(log, "arm"):
        return _of_records(log)
    found = {name: _column(log, name) for name in COLUMNS}
    for name in REQUIRED:
        if found[name] is None:
            raise ValueError(f"log has no column {name!r}; expected {', '.join(REQUIRED)}: name its columns so")
    return found


def _column(log: Any, name: str) -> Any:
    if isinstance(log, np.ndarray):
        return log[name] if log.dtype.names and name in log.dtype.names else None
    if isinstance(log, Mapping) or hasattr(log, "columns"):
        return log[name] if name in log else None  # noqa: SIM401 - a data frame's `get` is another
    return getattr(log, name, None)


def _of_records(records: Sequence[Any]) -> dict[str, Any]:
    """Columns of records; corrections are added to what they correct."""
    kept: list[dict[str, Any]] = []
    place: dict[tuple[Any, Any], int] = {}
    late: list[tuple[int, Any]] = []
    for number, record in enumerate(records):
        row = {name: _field(record, name) for name in (*COLUMNS, "correction", "delta", "decision_id", "policy")}
        if row["correction"] is True:
            late.append((number, row))
            continue
        missing = [name for name in REQUIRED if row[name] is _ABSENT]
        if missing:
            raise ValueError(f"record {number} of the log has no {missing[0]!r}; expected {', '.join(REQUIRED)}")
        if row["decision_id"] is not _ABSENT:
            place.setdefault((row["decision_id"], row["policy"]), len(kept))
        kept.append(row)
    rewards = [row["reward"] for row in kept]
    for number, row in late:
        which = place.get((row["decision_id"], row["policy"]))
        if which is None:
            raise ValueError(
                f"record {number} of the log corrects an example that is not in it: add the example's file"
            )
        rewards[which] = rewards[which] + row["delta"]
    found: dict[str, Any] = {name: _gathered([row[name] for row in kept], name) for name in COLUMNS}
    return found | {"reward": rewards, "arms": None}


def _field(record: Any, name: str) -> Any:
    return record.get(name, _ABSENT) if isinstance(record, Mapping) else getattr(record, name, _ABSENT)


def _gathered(values: list[Any], name: str) -> list[Any] | None:
    given = sum(value is not _ABSENT and value is not None for value in values)
    if given not in {0, len(values)}:
        raise ValueError(f"{given} of {len(values)} records of the log have {name!r}; expected all of them or none")
    return values if given else None


def _context(values: Any) -> Any:
    """Named numbers as columns, sorted by name; a name that a row lacks is 0 there."""
    rows = values if isinstance(values, Sequence) else values.tolist() if isinstance(values, np.ndarray) else None
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        return values
    names = {name: place for place, name in enumerate(sorted({name for row in rows for name in row}))}
    found = np.zeros((len(rows), len(names)))
    for place, row in enumerate(rows):
        for name, value in row.items():
            found[place, names[name]] = value
    return found


def _vector(values: Any) -> NDArray[Any]:
    found = np.asarray(values if isinstance(values, np.ndarray) else list(_iterable("arm", values)))
    if found.ndim != 1:
        raise ValueError(f"arm has shape {found.shape}; expected one dimension: an arm for each row")
    return found


def _iterable(name: str, values: Any) -> Iterable[Any]:
    if not isinstance(values, Iterable) or isinstance(values, str | bytes):
        raise ValueError(f"{name} is {values!r}; expected a column: one value for each row")  # noqa: TRY004 - a value
    return values


def _numbers(name: str, values: Any) -> Floats:
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not a column of numbers; expected float64, a number for each row") from None
    if not np.isfinite(found).all():
        where = int(np.argwhere(~np.isfinite(found))[0][0]) if found.ndim else 0
        raise ValueError(f"{name} of row {where} is not a finite number; expected finite ones: leave such rows out")
    return found


def _matrix(name: str, values: Any, rows: int, *, flat: bool = False) -> Floats | None:
    if values is None:
        return None
    found = _numbers(name, values)
    if len(found.shape) == 0 or len(found) != rows or found.ndim > 2:  # noqa: PLR2004 - rows and columns
        raise ValueError(f"{name} has shape {found.shape}; expected {rows} rows, as many as the log has")
    return found if flat or found.ndim > 1 else found[:, None]


def _indices(listed: NDArray[Any], order: Any) -> tuple[NDArray[np.int64], dict[Hashable, int] | None]:
    if listed.dtype.kind == "f" and (np.abs(listed) < _MOST_ARMS).all() and (listed == np.rint(listed)).all():
        listed = listed.astype(np.int64)  # as a table of floats has them
    if listed.dtype.kind in "iu" and order is None:
        if listed.min() < 0:
            raise ValueError(f"arm {listed.min()} is negative; expected whole numbers from 0, or names")
        return listed.astype(np.int64), None
    if listed.dtype.kind == "f":
        raise ValueError("arm is a column of fractions; expected whole numbers from 0, or names")
    each: list[Any] = listed.tolist()
    if order is None:
        try:
            order = sorted(set(each))
        except TypeError:
            raise ValueError("arm mixes kinds of values; expected names alone, or whole numbers alone") from None
    names = {name: column for column, name in enumerate(order)}
    unknown = next((arm for arm in each if arm not in names), None)
    if unknown is not None:
        raise ValueError(f"arm {unknown!r} is not among `arms`; expected one of {', '.join(map(str, names))}")
    return np.array([names[arm] for arm in each], dtype=np.int64), names
