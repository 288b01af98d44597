"""The optimizer of the last pass: Muon for the weights of convolutions, Adam for all else.

Sources: Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024), and arXiv 2502.16982, section 2.2, for the scale
by which both kinds of steps have one learning rate. torch has its own from 2.9 on, of matrices only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

BETAS = (0.9, 0.999)
EPS = 1e-8
COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of the Newton-Schulz iteration
ITERATIONS = 5
ROOT_MEAN_SQUARE = 0.2  # of Adam's steps, which Muon's are scaled to


class Muon(torch.optim.Optimizer):
    """Steps of one size in all directions for the weights of convolutions that mix channels, Adam's for all other parameters."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, muon_lr: float) -> None:
        """Sort the parameters.

        Args:
            parameters: Those of a model.
            lr: Learning rate of Adam's steps.
            muon_lr: That of Muon's, of the same root mean square at the same rate.
        """
        sorts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in parameters:
            sorts[parameter.ndim == 4 and parameter.shape[1] > 1].append(parameter)
        rates = {True: muon_lr, False: lr}
        groups = [{"params": params, "muon": muon, "lr": rates[muon]} for muon, params in sorts.items() if params]
        super().__init__(groups, {"betas": BETAS})
        self.rates = [rates[muon] for muon, params in sorts.items() if params]  # of the groups, before any schedule

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step against the gradients that there are."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                step = self._muon_step if group["muon"] else self._adam_step
                step(parameter, parameter.grad, self.state[parameter], group["lr"], *group["betas"])

    def _muon_step(
        self, weight: torch.Tensor, grad: torch.Tensor, state: dict[str, Any], lr: float, beta: float, _: float
    ) -> None:
        """Update a convolution's weight (c2, c1, h, w) by its orthogonalised Nesterov momentum."""
        if not state:
            state["mean"] = torch.zeros_like(grad)
        mean = state["mean"].lerp_(grad, 1 - beta)
        matrix = grad.lerp(mean, beta).flatten(1)
        scale = ROOT_MEAN_SQUARE * max(matrix.shape) ** 0.5
        weight.add_(orthogonalize(matrix).view_as(weight), alpha=-lr * scale)

    def _adam_step(
        self,
        parameter: torch.Tensor,
        grad: torch.Tensor,
        state: dict[str, Any],
        lr: float,
        beta: float,
        square_beta: float,
    ) -> None:
        """Update any other parameter by Adam (arXiv 1412.6980)."""
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(grad), "square": torch.zeros_like(grad)}
        state["step"] += 1
        mean = state["mean"].lerp_(grad, 1 - beta)
        square = state["square"].lerp_(grad.square(), 1 - square_beta)
        root = (square / (1 - square_beta ** state["step"])).sqrt_().add_(EPS)
        parameter.addcdiv_(mean / (1 - beta ** state["step"]), root, value=-lr)


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Return U V^T of a matrix U S V^T (m, n), roughly: its singular values come to lie around 1.

    The iteration is x -> (a + b x x^T + c (x x^T)^2) x. It is run on x x^T (m, m) alone, and the product of its factors taken
    times x at the end: with n several times m, as in convolutions, that takes about half of the time.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalize(matrix.T).T
    x = matrix / (matrix.norm() + 1e-7)
    (a, b, c), square, product = COEFFICIENTS, x @ x.T, None
    for left in reversed(range(ITERATIONS)):
        factor = torch.addmm(square, square, square, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        square = factor @ (factor @ square) if left else square
    return x if product is None else product @ x
