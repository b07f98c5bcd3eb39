"""Seeds for every random draw: one per (seed, purpose, epoch), so that no draw depends on another's count."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def derive_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed that depends on all three and on nothing else."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, epoch: int = 0) -> "np.random.Generator":
    """A numpy generator for one purpose."""
    import numpy as np

    return np.random.default_rng(derive_seed(seed, purpose, epoch))
