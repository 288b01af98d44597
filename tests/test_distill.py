"""The distillation of whole models."""

from __future__ import annotations

import copy

import torch
from factories import stock

from ghost_yolo import host
from ghost_yolo.ghostify.distill import distillation_loss, mean_prediction_loss


def test_both_branches_of_an_end_to_end_head_learn() -> None:
    """Which one is deployed depends on the release of Ultralytics and on the export, so both have gradients and count."""
    torch.manual_seed(0)
    teacher = host.build(stock("26/yolo26")).eval()
    student = copy.deepcopy(teacher).requires_grad_()
    images = torch.rand(2, 3, 64, 64)
    assert mean_prediction_loss(teacher, student, images) < 1e-6
    head = student.model[-1]
    with torch.no_grad():
        for branch in (head.cv2, head.one2one_cv2):
            branch[0][2].bias.add_(0.1)
            assert mean_prediction_loss(teacher, student, images) > 1e-6
            branch[0][2].bias.sub_(0.1)
        for parameter in student.model[-1].parameters():
            parameter.mul_(1.1)
    torch.autograd.backward(distillation_loss(teacher, student, images, ()))
    for branch in (head.cv2, head.cv3, head.one2one_cv2, head.one2one_cv3):
        assert all(parameter.grad.abs().sum() > 0 for parameter in branch[0][2].parameters())
