"""What the kernels use of torch without a public name, in one place, each with the reason."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes, is_in_torch_dispatch_mode

Function = TypeVar("Function", bound=Callable[..., object])


def below_autograd() -> AbstractContextManager[object]:
    """Dispatch past autograd within a ``with`` block.

    An autograd implementation in Python needs it to call on. The public ``torch.library.register_autograd`` uses the
    same guard, and costs several times more per call for an operator that takes a list of tensors.
    """
    return torch._C._AutoDispatchBelowAutograd()


def traced() -> bool:
    """Whether calls are recorded or watched: by torch.compile, or by a dispatch mode (make_fx, fake tensors).

    Only the first has a public question.
    """
    return torch.compiler.is_compiling() or is_in_torch_dispatch_mode()


def outside_modes() -> AbstractContextManager[object]:
    """Leave all dispatch modes within a ``with`` block: for tensors that are kept, and must not be those of a trace."""
    return _disable_current_modes()


def only_autograd_sees(operands: list[Tensor]) -> bool:
    """Whether the operands are ordinary tensors, outside every trace, mode and transform (vmap, jvp).

    Transforms have no public question.
    """
    return not (traced() or torch._C._are_functorch_transforms_active() or torch.jit.is_tracing()) and all(
        type(t) in (Tensor, torch.nn.Parameter) and (t.is_cpu or t.is_cuda) for t in operands
    )


def constant_in_traces(function: Function) -> Function:
    """Have tracers take the results of a function as constants.

    The public ``torch.compiler.assume_constant_result`` sets the same mark, and imports the tracer for a second.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
