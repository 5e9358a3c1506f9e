"""Everything that learns from the log of examples: the policies of choices, and propensity models."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Mapping, Sequence

import msgspec

from bandits import propensity, snapshot
from bandits.arms import ArmModel
from bandits.learner import Learner
from bandits.linear import LinearModel
from bandits.propensity_fold import KIND, PREFIX, Measures, PropensityFold
from decisioning.scoring import FEATURES


class _Routed(msgspec.Struct):
    policy: str


class Learners:
    """Gives each record to whoever learns from it; it is asked like `bandits.learner.Learner`.

    Parameters
    ----------
    policies
        Learns what choices ask.
    labels
        Of propensity models; with none of them it is as if there were only `policies`.

    Attributes
    ----------
    offset
        Offset of the next record that is to be taken.
    """

    def __init__(self, policies: Learner, labels: Sequence[str] = ()) -> None:
        self.policies = policies
        self.propensities = PropensityFold(labels, FEATURES)
        self._names = frozenset(PREFIX + label for label in labels)
        self._decoder = msgspec.json.Decoder(_Routed)
        self._versions = ChainMap(policies.versions, self.propensities.versions)
        self.offset = 0

    @property
    def learned(self) -> int:
        """Number of records learned from, or kept to be."""
        return self.policies.learned + self.propensities.taken

    @property
    def refused(self) -> Counter[str]:
        """Reason -> number of records not learned from."""
        return self.policies.refused + self.propensities.refused

    @property
    def outcomes(self) -> Counter[str]:
        """Policy -> outcomes it learned from."""
        return self.policies.outcomes

    @property
    def versions(self) -> Mapping[str, int]:
        """Model -> offset after the last example its latest snapshot has seen."""
        return self._versions

    @property
    def since(self) -> int | None:
        """After `resume`: offset from which propensity models need the log again; None where there are none."""
        return self.propensities.since if self._names else None

    def take(self, record: bytes, offset: int) -> str | None:
        """Fold one record; the model of which a snapshot is due because of it."""
        self.offset = max(self.offset, offset + 1)
        if self._names and self._is_propensity(record):
            return self.propensities.take(record, offset)
        return self.policies.take(record, offset)

    def snapshots(self) -> dict[str, bytes]:
        """Models of which a snapshot is due, by name."""
        return self.policies.snapshots() | self.propensities.snapshots()

    def model(self, policy: str) -> ArmModel | LinearModel | None:
        """The model of a policy, as it is now."""
        return self.policies.model(policy)

    def prepare(self) -> None:
        """Import what learning needs and deciding does not: it takes seconds, so that it is better done beforehand."""
        if self._names:
            propensity.prepare()

    def resume(self, value: bytes) -> str:
        """Go on from a snapshot; the name of its model.

        Raises
        ------
        SnapshotError
            If it cannot be read or does not fit; nothing has changed then.
        """
        is_propensity = self._names and snapshot.decode(value).kind == KIND
        return self.propensities.resume(value) if is_propensity else self.policies.resume(value)

    def measures(self) -> dict[str, Measures]:
        """How each propensity model does."""
        return self.propensities.measures()

    def _is_propensity(self, record: bytes) -> bool:
        try:
            return self._decoder.decode(record).policy in self._names
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False  # the other one says what is wrong with it
