"""The distillation of whole models."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from factories import NEWEST, stock

from ghost_yolo import host
from ghost_yolo.ghostify.distill import compute, distillation_loss, mean_prediction_loss
from ghost_yolo.ghostify.student import build_reshaped


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


def test_the_classes_of_a_classifier_learn() -> None:
    """Its logits count by their divergence, so that the head learns, too."""
    torch.manual_seed(0)
    teacher = host.build(stock("v8/yolov8-cls")).eval()
    student = copy.deepcopy(teacher).requires_grad_()
    images, head = torch.rand(2, 3, 64, 64), student.model[-1]
    assert abs(mean_prediction_loss(teacher, student, images)) < 1e-6
    with torch.no_grad():
        head.linear.bias[0] += 1
    shares = [model(images)[1].softmax(1) for model in (teacher, student)]
    divergence = (shares[0] * (shares[0] / shares[1]).log()).sum(1).mean().item()
    assert mean_prediction_loss(teacher, student, images) == pytest.approx(divergence, rel=1e-3)
    torch.autograd.backward(distillation_loss(teacher, student, images, ()))
    assert head.linear.weight.grad.abs().sum() > 0 and head.conv.conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "changes", "learns"),
    [
        ("v8/yolov8-seg", {}, ("cv4", "proto")),
        ("v8/yolov8-pose", {"kpt_shape": [4, 3]}, ("cv4",)),
        *[("26/yolo26-pose", {"kpt_shape": [4, 3]}, ("cv4", "cv4_kpts", "one2one_cv4_kpts"))] * NEWEST,
        *[("26/yolo26-seg", {}, ("cv4", "one2one_cv4", "proto"))] * NEWEST,
    ],
)
def test_what_a_head_gives_beside_boxes_learns(name: str, changes: dict[str, Any], learns: tuple[str, ...]) -> None:
    """Also where the branches of a narrower model are narrower: of YOLO26's key points those themselves are compared."""
    torch.manual_seed(0)
    teacher = host.build({**stock(name), **changes}).eval().requires_grad_(requires_grad=False)
    student: Any = build_reshaped(teacher, {}, "relu", (0.5,), 0).model.requires_grad_()
    images, head = torch.rand(1, 3, 64, 64), student.model[-1]
    kept = {i: torch.arange(x.shape[1]) for i, x in zip(head.f, compute(student, images, ()).inputs, strict=True)}
    torch.autograd.backward(distillation_loss(teacher, student, images, (), kept))
    for branch in learns:
        module = head.proto.cv3 if branch == "proto" else getattr(head, branch)[0]
        assert next(module.parameters()).grad.abs().sum() > 0
