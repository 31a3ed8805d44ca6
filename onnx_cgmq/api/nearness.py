"""Whether a model that differs from another one is as near to the float model all the same.

Where activations have few bits, sums that are rounded in another order flip codes, and what flips
in one layer spreads to the next. Two models may then differ by as much as each of them differs from
the float model, and be equally good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from onnx_cgmq.api.agreement import Agreement
from onnx_cgmq.data import Batch, Samples
from onnx_cgmq.ort.session import Outputs

Run = Callable[[Batch], Outputs]
"""Runs a model on a batch."""

_TOLERANCE_DB: Final = 1.0
"""By how much a ratio from a few dozen samples may be lower by chance. Our choice."""


def as_near(
    float_model: Run, deployed: Run, others: Sequence[Run], samples: Samples, batch_size: int
) -> bool:
    """Whether a deployed model is as near to the float model as each of the others is.

    Args:
        float_model: Runs the float model.
        deployed: Runs the deployed model.
        others: Run what the deployed model was compared with.
        samples: The samples.
        batch_size: Samples in a batch.

    Returns:
        ``False`` too if there are no float outputs of one size to compare.
    """
    near, references = Agreement(), [Agreement() for _ in others]
    for batch in samples.batches(batch_size):
        wanted = float_model(batch)
        near.add(deployed(batch), wanted, batch)
        for run, agreement in zip(others, references, strict=True):
            agreement.add(run(batch), wanted, batch)
    ratios = [agreement.decibels for agreement in references]
    found, known = near.decibels, [ratio for ratio in ratios if ratio is not None]
    if found is None or len(known) < len(ratios):
        return False
    return all(found >= ratio - _TOLERANCE_DB for ratio in known)
