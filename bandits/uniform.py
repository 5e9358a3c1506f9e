"""Every eligible arm alike: what is compared with, and what learns fastest about all arms."""

from __future__ import annotations

import numpy as np

from bandits.belief import Belief
from bandits.policy import Floats
from bandits.spec import PolicySpec


def shares(belief: Belief, spec: PolicySpec) -> Floats:
    """1 / arms for each."""
    del spec
    return np.full_like(belief.mean, 1.0 / belief.mean.shape[-1])
