"""Length of a run: the number of steps from steps, epochs or minutes."""

import time

import pytest

from configs import default
from lgg_jax.errors import UserError
from lgg_jax.training import length


def config(**fields):
    result = default.get_config().train
    result.update(fields)
    return result


@pytest.mark.parametrize("fields, expected", [
    ({"num_steps": 40}, 40),
    ({"epochs": 2.0, "batch_size": 16}, 125),
    ({"epochs": 0.5, "batch_size": 16}, 31),  # 31.25
    ({"epochs": 0.001, "batch_size": 16}, 1),
    ({"minutes": 3.0}, None),
])  # fmt: skip
def test_steps_without_a_clock(fields, expected):
    assert length.steps_without_clock(config(**fields), num_slices=1000) == expected


@pytest.mark.parametrize("fields", [
    {}, {"num_steps": 5, "epochs": 1.0}, {"num_steps": 5, "minutes": 1.0}, {"epochs": 1.0, "minutes": 1.0},
])  # fmt: skip
def test_exactly_one_length_must_be_set(fields):
    with pytest.raises(UserError, match=r"set exactly one of config\.train\.num_steps"):
        length.steps_without_clock(config(**fields), num_slices=1000)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only steps and validations advance; the first call of each takes 5 s more, for its compilation."""

    class Clock:
        now, calls = 100.0, ()

        def taking(self, name: str, seconds: float):
            def run():
                self.now += seconds + (5.0 if name not in self.calls else 0.0)
                self.calls += (name,)

            return run

    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def test_the_run_with_its_validations_takes_the_minutes(clock):
    """Before the steps: 20 s have passed, compilations take 10 s, 25 steps 0.5 s each, two validations 2 s each."""
    stages = [(1.0, clock.taking("step", 0.5))]
    steps = length.measure_steps(
        config(minutes=10.0, eval_every=100), stages, clock.taking("validate", 2.0), 80.0, 9.3
    )
    left = 600 - 20 - (10 + 25 * 0.5 + 2 * 2.0) - 9.3 * 2.0
    assert steps == int(left / (0.5 + 2.0 / 100))
    end = clock.now + steps * 0.5 + steps // 100 * 2.0 + 9.3 * 2.0
    assert end - 80.0 == pytest.approx(600, abs=1.5)


def test_compilation_does_not_change_the_measured_rate(clock):
    arguments = [(1.0, clock.taking("step", 0.5))], clock.taking("validate", 2.0)
    first = length.measure_steps(config(minutes=10.0), *arguments, clock.now, 4)
    second = length.measure_steps(config(minutes=10.0), *arguments, clock.now, 4)
    assert second - first == pytest.approx(10 / 0.504, abs=1)  # only the ten seconds of the compilations


def test_steps_on_a_coarser_grid_are_weighted_by_their_share(clock):
    stages = [(0.75, clock.taking("coarse", 0.2)), (0.25, clock.taking("fine", 0.6))]
    steps = length.measure_steps(config(minutes=10.0, eval_every=100), stages, clock.taking("validate", 2.0), 100.0, 4)
    left = 600 - (5 + 25 * 0.2) - (5 + 25 * 0.6) - (5 + 2 * 2.0) - 4 * 2.0
    assert steps == int(left / (0.75 * 0.2 + 0.25 * 0.6 + 2.0 / 100))


def test_too_few_minutes_give_one_step(clock):
    slow = [(1.0, clock.taking("step", 9.0))], clock.taking("validate", 9.0)
    assert length.measure_steps(config(minutes=0.01), *slow, 0, 4) == 1


@pytest.mark.parametrize("flip_tta, finer, expected", [
    ("off", (), 2.0),
    ("on", (), 3.0),
    ("choose", (), 4.0),  # first without, then with mirror images
    ("on", (16, 32), 1 + 2 * (1 + (112 / 96) ** 2 + (128 / 96) ** 2)),
])  # fmt: skip
def test_the_final_choice_costs_its_passes_weighted_by_pixels(flip_tta, finer, expected):
    whole = default.get_config()
    whole.data.size, whole.eval.flip_tta, whole.eval.finer = 96, flip_tta, finer
    assert length.choice_cost(whole) == pytest.approx(expected)
