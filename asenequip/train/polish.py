"""The end of training: L-BFGS on all training frames at once, from the averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from asenequip.train.checkpoint import Checkpoint, pack_optimizer, unpack_optimizer

_ITERATIONS = 10
"""Of one round."""
_HISTORY = 20
"""Pairs of steps and changes of the gradient that the inverse Hessian is made of."""


class Polisher:
    """Rounds of L-BFGS with a strong Wolfe line search (Nocedal and Wright, Numerical Optimization, algorithm 7.5).

    Parameters
    ----------
    parameters : sequence of Parameter
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.optimizer = torch.optim.LBFGS(
            list(parameters),
            max_iter=_ITERATIONS,
            history_size=_HISTORY,
            line_search_fn="strong_wolfe",
            tolerance_grad=0.0,
            tolerance_change=0.0,
        )

    def round(self, loss: Callable[[], float]) -> float:
        """One round.

        Parameters
        ----------
        loss : callable
            Gives the loss on all frames and leaves its gradients in the parameters.

        Returns
        -------
        float
            The loss at the start of the round.
        """

        def closure() -> torch.Tensor:
            return torch.tensor(loss(), dtype=torch.float64)

        return float(self.optimizer.step(closure))  # type: ignore[arg-type]

    def pack(self) -> Checkpoint:
        """The whole state."""
        return pack_optimizer(self.optimizer)

    def unpack(self, packed: Checkpoint) -> None:
        """Put a packed state back."""
        unpack_optimizer(self.optimizer, packed)
