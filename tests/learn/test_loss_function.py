"""A loss of the user's own: a name or a callable, and what is said if it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onnx_cgmq import quantize
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.learn.loss_function import OwnLoss, backward
from onnx_cgmq.settings.config import Config
from tests.support.toys import mlp, toy_data

pytestmark = pytest.mark.slow


class Squared(nn.Module):
    def forward(self, outputs: dict[str, Tensor], labels: Tensor, teacher: dict[str, Tensor]):
        return (outputs["y"] - teacher["y"]).square().mean()


def squared(outputs, labels, teacher):
    return (outputs["y"] - teacher["y"]).square().mean()


def breaks(outputs, labels, teacher):
    raise KeyError("boxes")


def changes_what_is_needed(outputs, labels, teacher):
    root = outputs["y"].square().sqrt()
    root.mul_(2)
    return root.sum()


def run(loss: Any, **settings: Any):
    return quantize(mlp(), toy_data(mlp()), "5%", epochs=1, loss=loss, **settings)


def test_a_callable_is_a_loss_like_a_name() -> None:
    text = f"{__name__}:squared"
    results = [run(loss) for loss in (text, squared, Squared(), lambda *args: squared(*args))]
    assert len({result.outcome.validation_loss for result in results}) == 1
    assert len({result.plan.to_json() for result in results}) == 1
    assert results[0].complete


def test_a_run_with_a_callable_is_resumed_and_another_callable_is_refused(tmp_path) -> None:
    def stop(event: Any) -> None:
        if event.kind == "epoch":
            raise KeyboardInterrupt

    def go(share: float, **options: Any):
        data = toy_data(mlp())
        output = tmp_path / "out.onnx"
        loss: Callable[..., Tensor] = lambda o, labels, t: share * squared(o, labels, t)  # noqa: E731
        return quantize(mlp(), data, "5%", output=output, epochs=2, loss=loss, **options)

    assert not go(1.0, progress=stop).complete
    with pytest.raises(ConfigError, match="belongs to a run that differs in its loss"):
        go(0.5, resume=True)
    assert go(1.0, resume=True).complete


@pytest.mark.parametrize(
    ("loss", "cause", "told"),
    [
        (breaks, KeyError, r"the loss breaks failed with KeyError: 'boxes' .*in breaks"),
        (changes_what_is_needed, RuntimeError, "backward pass of the loss changes_what.*inplace"),
        (lambda outputs: 0, TypeError, "positional argument"),
        (lambda *_: 0.5, None, "of type float; return a tensor with a single number"),
        (lambda outputs, *_: outputs["y"], None, r"shape \[\d+, 3\]; return a tensor with a"),
        (lambda outputs, *_: outputs["y"].detach().sum(), None, "without a gradient"),
        (nn.Identity, None, "the loss Identity returns an object of type Identity"),
    ],
)
def test_a_loss_that_fails_is_an_error_of_the_user(loss, cause, told) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        run(loss)
    assert type(caught.value.__cause__) is (cause or type(None))


def test_no_gradient_is_asked_for_where_outputs_have_none() -> None:
    with torch.no_grad():
        assert OwnLoss.of(squared)({"y": torch.ones(2)}, None, {"y": torch.zeros(2)}) == 1


def test_an_error_in_the_gradient_of_our_own_losses_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        backward(torch.ones(()), lambda *_: torch.ones(()))


@pytest.mark.parametrize("loss", [3, None, ["auto"]])
def test_what_is_no_loss_is_refused(loss) -> None:
    with pytest.raises(ConfigError, match="loss"):
        Config.create(loss=loss)
