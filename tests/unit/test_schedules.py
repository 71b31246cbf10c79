"""The learning rate over a run, exactly; and what Lightning is told about schedules."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, SequentialLR, StepLR

from lightning_hpc.training.schedules import WarmupCosine, configure_optimizers, put_at_step


def optimizer(*rates):
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates], lr=1.0)


def module(total):
    return SimpleNamespace(trainer=SimpleNamespace(estimated_stepping_batches=total))


def rates(schedule, steps):
    """The learning rate that each of the first optimizer steps uses."""
    used = []
    for _ in range(steps):
        used.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return used


@pytest.mark.parametrize("warmup, steps", [(0.1, 10), (10, 10), (0, 0), (0.0, 0), (0.25, 25), (1, 1), (99, 99)])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_warm_up_and_cosine_have_the_documented_shape(warmup, steps, final):
    schedule = WarmupCosine(optimizer(0.5), warmup=warmup, final=final, total_steps=100)
    expected = [(t + 1) / steps for t in range(steps)]
    expected += [
        final + (1 - final) * (1 + math.cos(math.pi * (t - steps) / (100 - steps))) / 2 for t in range(steps, 100)
    ]
    assert rates(schedule, 100) == pytest.approx([0.5 * factor for factor in expected], abs=1e-12)


def test_the_warm_up_ends_at_the_highest_rate_and_the_run_near_the_last():
    used = rates(WarmupCosine(optimizer(0.5), warmup=0.1, final=0.01, total_steps=1000), 1001)
    assert max(used) == used[99] == used[100] == 0.5
    assert used[0] == pytest.approx(0.005) and used[1000] == pytest.approx(0.005)
    assert all(a < b for a, b in zip(used[:99], used[1:100], strict=True))
    assert all(a > b for a, b in zip(used[100:-1], used[101:], strict=True))


def test_it_is_torchs_linear_and_cosine_schedule_in_sequence():
    ours = rates(WarmupCosine(optimizer(0.5), warmup=10, total_steps=110), 110)
    other = optimizer(0.5)
    parts = [LinearLR(other, 0.1, total_iters=9), CosineAnnealingLR(other, 100)]
    theirs = rates(SequentialLR(other, parts, milestones=[10]), 110)
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_past_the_end_the_rate_stays_at_the_last_one():
    assert rates(WarmupCosine(optimizer(1.0), warmup=0, final=0.2, total_steps=5), 9)[5:] == pytest.approx([0.2] * 4)


def test_every_parameter_group_follows_with_its_own_rate():
    schedule = WarmupCosine(optimizer(1.0, 0.1), warmup=4, total_steps=10)
    assert [group["lr"] for group in schedule.optimizer.param_groups] == pytest.approx([0.25, 0.025])


@pytest.mark.parametrize("wrong", [{"warmup": -1}, {"final": 1.5}, {"final": -0.1}])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match="warmup must be at least 0 and final between 0 and 1"):
        WarmupCosine(optimizer(1.0), **wrong)


def test_the_length_of_the_run_is_filled_in_before_the_first_step():
    configured = configure_optimizers(module(200), optimizer(0.5), lambda o: WarmupCosine(o, warmup=0.1))
    schedule = configured["lr_scheduler"]["scheduler"]
    assert schedule.total_steps == 200 and configured["lr_scheduler"]["interval"] == "step"
    assert rates(schedule, 200) == rates(WarmupCosine(optimizer(0.5), warmup=0.1, total_steps=200), 200)


def test_a_length_that_is_given_stays():
    configured = configure_optimizers(module(200), optimizer(0.5), lambda o: WarmupCosine(o, total_steps=50))
    assert configured["lr_scheduler"]["scheduler"].total_steps == 50


def test_an_endless_run_needs_a_length():
    with pytest.raises(ValueError, match="needs a length: set --trainer.max_epochs"):
        configure_optimizers(module(math.inf), optimizer(0.5), WarmupCosine)


def test_no_schedule_is_a_constant_rate():
    assert configure_optimizers(module(10), made := optimizer(0.5)) == {"optimizer": made}


def test_schedules_step_as_their_documentation_says():
    for make, interval in (
        (lambda o: StepLR(o, 5), "epoch"),
        (lambda o: OneCycleLR(o, 0.5, total_steps=9), "step"),
        (lambda o: ReduceLROnPlateau(o, monitor="val/loss"), "epoch"),
    ):
        configured = configure_optimizers(module(10), optimizer(0.5), make)["lr_scheduler"]
        assert configured["interval"] == interval
        assert configured.get("monitor") == (
            "val/loss" if "Plateau" in type(configured["scheduler"]).__name__ else None
        )


def test_a_restart_continues_the_curve():
    whole = rates(WarmupCosine(optimizer(0.5), warmup=5, total_steps=40), 40)
    first = WarmupCosine(optimizer(0.5), warmup=5, total_steps=40)
    rates(first, 17)
    second = configure_optimizers(module(40), optimizer(0.5), lambda o: WarmupCosine(o, warmup=5))
    second["lr_scheduler"]["scheduler"].load_state_dict(first.state_dict())
    second["optimizer"].load_state_dict(first.optimizer.state_dict())
    assert rates(second["lr_scheduler"]["scheduler"], 23) == whole[17:]


def test_a_length_that_lightning_does_not_know_is_asked_for():
    """With data that have no length it says −1, which is no length to count down to."""
    with pytest.raises(ValueError, match="the training data don't say how many batches they have"):
        configure_optimizers(module(-1), optimizer(1.0), lambda optimizer: WarmupCosine(optimizer))


@pytest.mark.parametrize("settings", [dict(step_size=2), dict(step_size=5)])
def test_a_restored_schedule_is_put_where_its_own_settings_have_it(settings):
    first = StepLR(optimizer(0.1), step_size=3)
    rates(first, 7)
    second, whole = StepLR(optimizer(0.2), **settings), StepLR(optimizer(0.2), **settings)
    fresh = dict(second.state_dict())
    second.load_state_dict(first.state_dict())
    line = put_at_step(second, fresh)
    expected = rates(whole, 12)[7:]
    assert rates(second, 5) == pytest.approx(expected)
    assert line == f"StepLR has the length of this run: at step 7 the learning rate is {expected[0]:.4g}"


def test_a_schedule_that_is_at_its_end_says_so_and_one_of_many_parts_continues():
    first = WarmupCosine(optimizer(1.0), total_steps=4)
    rates(first, 4)
    second = WarmupCosine(optimizer(1.0), total_steps=4)
    fresh = dict(second.state_dict())
    second.load_state_dict(first.state_dict())
    assert put_at_step(second, fresh).startswith("warning: WarmupCosine has the length of this run: at step 4")
    parts = torch.optim.lr_scheduler.MultiplicativeLR(optimizer(1.0), lambda step: 0.5)
    rates(parts, 1)
    assert put_at_step(parts, {}) == "MultiplicativeLR continues as the other run had it, at learning rate 0.5"
