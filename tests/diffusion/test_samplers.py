"""Sampling loops: whole trajectories of the original, and what must hold for any model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.commands.completing import SAMPLER_NAMES
from adm_cli.commands.options import SAMPLERS as SAMPLER_HELP
from adm_cli.diffusion.guidance import (
    classifier_gradient,
    classifier_guidance,
    limited_guidance,
)
from adm_cli.diffusion.multistep import (
    churn_gamma,
    dpm_solver_3m_sample,
    dpm_solver_sample,
    heun_sample,
    integral_weights,
)
from adm_cli.diffusion.process import rescaled
from adm_cli.diffusion.samplers import SAMPLERS, SAMPLERS_WITH_ETA, ddim_reverse, ddim_sample
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import SampleStep
from adm_cli.pictures.images import to_uint8
from tests.golden_arrays import (
    Arrays,
    arrays,
    close,
    config_from_constructor,
    golden_model,
    stems,
)

TRAJECTORIES = [name for name in stems("sampling") if not name.startswith("model_")]


def network(name: str, dtype: torch.dtype) -> Any:
    file = name if name.endswith(".safetensors") else f"{name}.safetensors"
    golden = arrays(file)
    config = config_from_constructor(golden.meta["model_class"], golden.meta["constructor_args"])
    return golden_model(golden, config, dtype)


class Trajectory:
    """A golden sampling run, ready to be run again in one precision."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.golden: Arrays = arrays(f"sampling/{name}.safetensors")
        self.dtype, meta = dtype, self.golden.meta
        self.meta = meta
        total = meta["diffusion_steps"]
        schedule = NoiseSchedule.named(meta["noise_schedule"], total)
        self.schedule = schedule.respace(meta["timestep_respacing"])
        extra: dict[str, Tensor] = {}
        if meta["class_conditional_unet"]:
            extra["y"] = self.golden["y"]
        if "low_res" in self.golden:
            extra["low_res"] = self.golden["low_res"].to(dtype)
        self.seen: list[Tensor] = []
        net = network(meta["model"], dtype)

        def model_fn(x: Tensor, t: Tensor) -> Tensor:
            t = rescaled(t, total) if meta["rescale_timesteps"] else t
            self.seen.append(t[0])
            output: Tensor = net(x, t, **extra)
            return output

        self.model_fn = model_fn
        self.guidance = None
        if meta["classifier"]:
            self.guidance = classifier_guidance(
                network(meta["classifier"], dtype), self.golden["y"], meta["classifier_scale"]
            )
        self.options: dict[str, Any] = {
            "prediction": "x_start" if meta["predict_xstart"] else "eps",
            "variance": "learned_range"
            if meta["learn_sigma"]
            else ("fixed_small" if meta["sigma_small"] else "fixed_large"),
            "clip_denoised": meta["clip_denoised"],
        }

    def noise(self, i: int, like: Tensor) -> Tensor:
        return self.golden["noise"][len(self.schedule) - 1 - i].to(like)

    def run(self, x: Tensor, schedule: NoiseSchedule | None = None) -> Iterator[SampleStep]:
        schedule = schedule or self.schedule
        if self.meta["sampler"] == "reverse":
            return ddim_reverse(self.model_fn, schedule, x, **self.options)
        sampler: Any = SAMPLERS[self.meta["sampler"]]
        if self.meta["sampler"] == "ddim":
            sampler = partial(sampler, eta=self.meta["eta"])
        run: Iterator[SampleStep] = sampler(
            self.model_fn,
            schedule,
            x,
            noise=self.noise,
            guidance=self.guidance,
            **self.options,
        )
        return run


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectory_float64(name: str) -> None:
    run = Trajectory(name, torch.float64)
    steps = list(run.run(run.golden["x_init"].double()))
    close(torch.stack([step.x for step in steps]), run.golden["x_f64"][1:], relative=1e-9)
    pred_xstart = torch.stack([step.pred_xstart for step in steps])
    close(pred_xstart, run.golden["pred_xstart"], relative=1e-6)  # stored as float32
    assert [step.i for step in steps] == run.golden["t_index"].tolist()
    assert torch.equal(torch.stack(run.seen), run.golden["t_model"])


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectory_float32(name: str) -> None:
    run = Trajectory(name, torch.float32)
    steps = list(run.run(run.golden["x_init"]))
    close(torch.stack([step.x for step in steps]), run.golden["x_f64"][1:], absolute=2e-3)
    if "sample_uint8" not in run.golden:
        assert run.meta["sampler"] == "reverse"
        return
    ours = to_uint8(steps[-1].x).int()
    assert (ours - run.golden["sample_uint8"].int()).abs().max() <= 1
    assert torch.equal(to_uint8(run.golden["x_f32"][-1]), run.golden["sample_uint8"])


@pytest.mark.parametrize("name", [n for n in TRAJECTORIES if "reverse" not in n])
def test_single_steps_float32(name: str) -> None:
    """Each step from the stored state before it, so that errors cannot add up or cancel."""
    run = Trajectory(name, torch.float32)
    states, full = run.golden["x_f32"], run.schedule
    for k, i in enumerate(run.golden["t_index"].tolist()):
        # the process cut off above step i begins with step i
        below = NoiseSchedule(full.betas[: i + 1], full.timesteps[: i + 1], 1000)
        step = next(run.run(states[k], below))
        assert step.i == i
        close(step.x, states[k + 1], absolute=2e-4)


@pytest.mark.parametrize("name", [n for n in TRAJECTORIES if "guided" in n])
def test_guidance_gradient(name: str) -> None:
    run = Trajectory(name, torch.float64)
    assert run.guidance is not None
    for k, t in enumerate(run.golden["t_model"]):
        x = run.golden["x_f64"][k]
        close(run.guidance(x, t.expand(len(x))), run.golden["cond_grad"][k], relative=1e-6)


def test_gradient_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64)
    weight = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    y, t = torch.tensor([1, 4]), torch.tensor([10, 20])

    def classifier(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1)) @ weight * (1 + t[:, None] / 100)

    gradient = classifier_gradient(classifier, x, t, y)
    step = 1e-6
    for index in range(x[0].numel()):
        shift = torch.zeros(12, dtype=torch.float64)
        shift[index] = step
        high = torch.log_softmax(classifier(x + shift.view(1, 3, 2, 2), t), -1)
        low = torch.log_softmax(classifier(x - shift.view(1, 3, 2, 2), t), -1)
        slope = (high - low).gather(1, y[:, None])[:, 0] / (2 * step)
        close(gradient.flatten(1)[:, index], slope, absolute=1e-8)


def test_gradient_leaves_no_graph_and_scales() -> None:
    x, t, y = torch.randn(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), torch.tensor([0, 1])
    weight = torch.randn(48, 3)
    classifier = lambda x, _t: x.flatten(1) @ weight  # noqa: E731
    with torch.no_grad():
        one = classifier_guidance(classifier, y, 1.0)(x, t)
        minus_three = classifier_guidance(classifier, y, -3.0)(x, t)
    assert not one.requires_grad
    assert not x.requires_grad
    close(minus_three, -3 * one, relative=1e-6)


def test_entropy_scaling() -> None:
    """Nothing changes where the classifier knows nothing; the surer it is, the stronger."""
    x, y = normal((3, 1, 2, 2), 0), torch.tensor([0, 0, 0])
    sureness = torch.tensor([0.0, 1.0, 20.0], dtype=torch.float64)

    def classifier(x: Tensor, _t: Tensor) -> Tensor:
        score = x.sum((1, 2, 3)) * 1e-9 + sureness
        return torch.stack([score, *[torch.zeros_like(score)] * 3], dim=1)  # [3, 4]

    t = torch.zeros(3, dtype=torch.int64)
    plain = classifier_gradient(classifier, x, t, y)
    scaled = classifier_gradient(classifier, x, t, y, entropy_scaling=True)
    factor = scaled / plain
    p = math.e / (math.e + 3)  # of the second image's class
    entropy = -p * math.log(p) - (1 - p) * math.log((1 - p) / 3)
    close(factor[0], torch.ones_like(factor[0]), relative=1e-6)
    close(factor[1], torch.full_like(factor[1], math.log(4) / entropy), relative=1e-6)
    assert bool((factor[2] > 1e6).all())


def test_entropy_of_a_sure_classifier() -> None:
    """Probabilities that are 0 and 1 to the last digit: no NaN, and nothing to scale."""
    logits = torch.tensor([[1e6, 0.0]])
    found = classifier_gradient(
        lambda x, _t: logits * x.sum((1, 2, 3))[:, None],
        torch.ones(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64), torch.tensor([0]),
        entropy_scaling=True,
    )  # fmt: skip
    assert found.item() == 0


def test_limited_guidance() -> None:
    called: list[int] = []

    def guidance(x: Tensor, t: Tensor) -> Tensor:
        called.append(int(t[0]))
        return torch.ones_like(x)

    limited, x = limited_guidance(guidance, 20, 60), torch.zeros(2, 1, 1, 1)
    found = [int(limited(x, torch.full((2,), t)).sum()) for t in (0, 19, 20, 60, 61)]
    assert found == [0, 0, 2, 2, 0]
    assert called == [20, 60]


def gaussian_eps(schedule: NoiseSchedule, mean: float, variance: float) -> Any:
    """The exact noise prediction where x_0 ~ N(mean, variance), and the score's x_0."""
    abar_of = dict(zip(schedule.timesteps.tolist(), schedule.alphas_cumprod.tolist(), strict=True))

    def model_fn(x: Tensor, t: Tensor) -> Tensor:
        abar = float(abar_of[int(t[0])])
        total = abar * variance + 1 - abar
        return math.sqrt(1 - abar) * (x - math.sqrt(abar) * mean) / total

    return model_fn


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EVERY: dict[str, Any] = dict(SAMPLERS)
EVERY["heun, churn"] = partial(heun_sample, gamma=0.3)
EVERY |= {f"{name}, eta 1": partial(EVERY[name], eta=1.0) for name in SAMPLERS_WITH_ETA}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("schedule_name", ["linear", "cosine"])
def test_true_score_gives_the_true_distribution(name: str, schedule_name: str) -> None:
    """A Gaussian with its exact score: every sampler must draw that Gaussian."""
    schedule = NoiseSchedule.named(schedule_name, 1000)
    mean, variance, shape = 0.3, 0.25, (1, 1, 64, 64)
    generator = torch.Generator().manual_seed(1)

    def noise(_i: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    *_, last = EVERY[name](
        gaussian_eps(schedule, mean, variance),
        schedule,
        normal(shape, 0),
        noise=noise,
        variance="fixed_small",
        clip_denoised=False,
    )
    assert abs(last.x.mean().item() - mean) < 0.03  # standard error 0.008
    assert abs(last.x.var().item() / variance - 1) < 0.08  # standard error 0.022


def test_guidance_shifts_a_gaussian_by_bayes() -> None:
    """x_0 ~ N(0, 1) and p(y | x_t) exact: guided DDIM must draw the posterior p(x_0 | y)."""
    schedule = NoiseSchedule.linear(1000)
    # y is an observation x_0 + N(0, noise): the posterior is N(y/(1+noise), noise/(1+noise))
    observed, observation_noise = 1.0, 0.5
    abar_of = dict(zip(schedule.timesteps.tolist(), schedule.alphas_cumprod.tolist(), strict=True))

    def guidance(x: Tensor, t: Tensor) -> Tensor:
        abar = float(abar_of[int(t[0])])
        # given x_t, x_0 ~ N(sqrt(abar) x_t, 1 - abar), hence y ~ N(sqrt(abar) x_t, 1-abar+noise)
        return math.sqrt(abar) * (observed - math.sqrt(abar) * x) / (1 - abar + observation_noise)

    *_, last = ddim_sample(
        gaussian_eps(schedule, 0.0, 1.0),
        schedule,
        normal((1, 1, 100, 100), 0),
        noise=lambda _i, like: torch.zeros_like(like),
        guidance=guidance,
        variance="fixed_small",
        clip_denoised=False,
    )
    assert abs(last.x.mean().item() - observed / (1 + observation_noise)) < 0.02
    expected = observation_noise / (1 + observation_noise)
    assert abs(last.x.var().item() / expected - 1) < 0.06


@pytest.mark.parametrize(
    ("inflation", "between", "least"), [(1.0, (0.05, 50.0), 6), (1.4, (0.3, 4.0), 3)]
)
def test_churn_goes_back_up_as_in_edm(
    inflation: float, between: tuple[float, float], least: int
) -> None:
    """By algorithm 2: to (1 + gamma) sigma, with S_noise times the noise of the difference, where
    sigma is between S_tmin and S_tmax; at the nearest timestep there is, with the noise of that."""
    whole = NoiseSchedule.linear(1000)
    schedule = whole.respace("12")
    sigma = ((1 - whole.alphas_cumprod) / whole.alphas_cumprod).sqrt().tolist()
    seen: list[tuple[int, Tensor]] = []

    def model_fn(x: Tensor, t: Tensor) -> Tensor:
        seen.append((int(t[0]), x))
        return torch.zeros_like(x)

    z = normal((1, 1, 4, 4), 1)
    steps = list(
        heun_sample(
            model_fn, schedule, normal((1, 1, 4, 4), 0), noise=lambda _i, _like: z,
            variance="fixed_small", clip_denoised=False, gamma=0.3, inflation=inflation,
            churned=between,
        )
    )  # fmt: skip
    assert len(seen) == 2 * 12 - 1
    churned = 0
    for step, (t, x) in zip(steps[1:], seen[2::2], strict=True):
        before = next(s.x for s in steps if s.i == step.i + 1)
        low = int(schedule.timesteps[step.i])
        wanted = 1.3 * sigma[low] if between[0] <= sigma[low] <= between[1] else sigma[low]
        assert t == min(range(1000), key=lambda s: abs(sigma[s] - wanted))
        more = inflation * math.sqrt(sigma[t] ** 2 - sigma[low] ** 2)
        alpha, alpha_low = (math.sqrt(1 / (1 + sigma[at] ** 2)) for at in (t, low))
        close(x / alpha, before / alpha_low + more * z, relative=1e-9)
        churned += t != low
    assert least <= churned < len(steps)


def test_churn_is_shared_out_over_the_steps() -> None:
    assert churn_gamma(40.0, 256) == 40 / 256
    assert churn_gamma(40.0, 18) == math.sqrt(2) - 1


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_weights_integrate_polynomials(count: int) -> None:
    start, end = -0.7, 0.4
    places = torch.tensor([start, -1.3, -2.0, end], dtype=torch.float64)[:count]
    u = torch.linspace(start, end, 200_001, dtype=torch.float64)
    weights = integral_weights(places, start, end)
    assert float(weights.sum()) == pytest.approx(1 - math.exp(start - end))
    for power in range(count):
        exact = torch.trapezoid(torch.exp(u - end) * u**power, u)
        close((weights * places**power).sum(), exact, relative=1e-8)


def test_third_order_is_newtons_polynomial() -> None:
    """The same integral to third order by derivatives, from divided differences."""
    schedule = NoiseSchedule.cosine(1000).respace("12")
    x_T = normal((2, 3, 4, 4), 0)
    steps = list(
        dpm_solver_3m_sample(
            lambda x, t: torch.tanh(x * (1 + t[0] / 1000)), schedule, x_T,
            noise=lambda _i, like: torch.zeros_like(like), variance="fixed_small",
        )
    )  # fmt: skip
    abar = schedule.alphas_cumprod
    alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
    lambda_ = (alpha / sigma).log()
    x_0 = {step.i: step.pred_xstart for step in steps}
    for step in steps[2:-2]:  # from the third on, before the lower orders of the end
        i = step.i
        h = lambda_[i - 1] - lambda_[i]
        r0, r1 = ((lambda_[i + k] - lambda_[i + k + 1]) / h for k in (0, 1))
        newest, older = (x_0[i] - x_0[i + 1]) / r0, (x_0[i + 1] - x_0[i + 2]) / r1
        slope = newest + r0 / (r0 + r1) * (newest - older)
        bend = 2 * (newest - older) / (r0 + r1)  # h^2 times the second derivative
        phi2 = (torch.exp(-h) - 1) / h + 1
        phi3 = phi2 / h - 0.5
        before = next(s.x for s in steps if s.i == i + 1)
        x = sigma[i - 1] / sigma[i] * before - alpha[i - 1] * (torch.exp(-h) - 1) * x_0[i]
        x = x + alpha[i - 1] * phi2 * slope - alpha[i - 1] * phi3 * bend
        close(step.x, x, relative=1e-9)


def solver_by_the_paper(
    schedule: NoiseSchedule, x_starts: list[Tensor], x_T: Tensor
) -> Iterator[Tensor]:
    """Algorithm 2 of arXiv 2211.01095, as written there, from given predictions of x_0."""
    abar = schedule.alphas_cumprod
    alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
    lambda_ = (alpha / sigma).log()
    x, last = x_T, len(schedule) - 1
    for n, i in enumerate(range(last, 1, -1)):
        h = lambda_[i - 1] - lambda_[i]
        data = x_starts[n]
        if n > 0:
            r = (lambda_[i] - lambda_[i + 1]) / h
            data = (1 + 1 / (2 * r)) * x_starts[n] - x_starts[n - 1] / (2 * r)
        x = sigma[i - 1] / sigma[i] * x - alpha[i - 1] * (torch.exp(-h) - 1) * data
        yield x


def test_dpm_solver_is_the_papers() -> None:
    schedule = NoiseSchedule.cosine(1000).respace("12")
    x_T = normal((2, 3, 4, 4), 0)
    steps = list(
        dpm_solver_sample(
            lambda x, t: torch.tanh(x * (1 + t[0] / 1000)), schedule, x_T,
            noise=lambda _i, like: torch.zeros_like(like),
            guidance=lambda x, _t: 0.5 * torch.cos(x), variance="fixed_small",
        )
    )  # fmt: skip
    for step, x in zip(
        steps, solver_by_the_paper(schedule, [s.pred_xstart for s in steps], x_T), strict=False
    ):
        close(step.x, x, relative=1e-9)
    assert torch.equal(steps[-1].x, steps[-1].pred_xstart)
    assert all(bool((step.pred_xstart.abs() <= 1).all()) for step in steps)  # guided, too


def test_ddim_round_trip() -> None:
    """Image to latent and back, on the exact score."""
    schedule = NoiseSchedule.cosine(1000)
    model_fn = gaussian_eps(schedule, 0.1, 0.5)
    x_0 = normal((1, 3, 8, 8), 3) * 0.7
    options: dict[str, Any] = {"variance": "fixed_small", "clip_denoised": False}
    *_, latent, _pure_noise = ddim_reverse(model_fn, schedule, x_0, **options)
    *_, back = ddim_sample(
        model_fn, schedule, latent.x, noise=lambda _i, like: torch.zeros_like(like), **options
    )
    close(back.x, x_0, absolute=0.01)


def test_names_in_the_help() -> None:
    assert set(SAMPLER_NAMES) == set(SAMPLERS)
    assert all(name in SAMPLER_HELP for name in SAMPLER_NAMES)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_randomness_and_steps(name: str) -> None:
    """Noise is drawn once a step, also where none is added; steps count down to 0."""
    schedule = NoiseSchedule.linear(100).respace("7")
    drawn: list[int] = []

    def noise(i: int, like: Tensor) -> Tensor:
        drawn.append(i)
        return torch.zeros_like(like)

    steps = list(
        SAMPLERS[name](
            lambda x, _t: x * 0.1,
            schedule,
            torch.ones(2, 3, 4, 4),
            noise=noise,
            variance="fixed_large",
        )
    )
    assert drawn == [step.i for step in steps] == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("steps", ["1", "2", "ddim3"])
def test_few_steps(name: str, steps: str) -> None:
    schedule = NoiseSchedule.cosine(100).respace(steps)
    *_, last = SAMPLERS[name](
        lambda x, _t: torch.cat([x, torch.zeros_like(x)], dim=1),
        schedule,
        torch.ones(1, 3, 2, 2),
        noise=lambda _i, like: torch.ones_like(like),
        guidance=lambda x, _t: torch.ones_like(x),
    )
    assert bool(torch.isfinite(last.x).all())


def one_step(sampler: Any, **changed: Any) -> None:
    x = torch.zeros(2, 3, 4, 4)
    options: dict[str, Any] = {
        "model_fn": lambda x, _t: x, "noise": lambda _i, x: torch.zeros_like(x),
        "variance": "fixed_large",
    } | changed  # fmt: skip
    model_fn = options.pop("model_fn")
    next(iter(sampler(model_fn, NoiseSchedule.cosine(10), x, **options)))


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_fn": lambda x, _t: x[:1]}, "prediction is .1, 3, 4, 4., expected .2, 3, 4, 4."),
        ({"guidance": lambda x, _t: x[0]}, "the guidance is .3, 4, 4., expected .2, 3, 4, 4."),
        ({"denoised_fn": lambda x: x[:1]}, "denoised_fn is .1, 3, 4, 4., expected .2, 3, 4, 4."),
    ],
)
def test_what_is_of_one_image_passes_for_no_batch(
    sampler: Any, changed: dict[str, Any], message: str
) -> None:
    one_step(sampler)
    with pytest.raises(ValueError, match=message):
        one_step(sampler, **changed)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm++2m", "heun"])  # that add noise
def test_noise_of_one_image_passes_for_no_batch(name: str) -> None:
    with pytest.raises(ValueError, match=r"the noise is .3, 4, 4., expected .2, 3, 4, 4."):
        one_step(SAMPLERS[name], noise=lambda _i, x: x[0])


def test_options_of_samplers_out_of_range() -> None:
    for name in SAMPLERS_WITH_ETA:
        with pytest.raises(ValueError, match=r"eta must be in \[0, 1\], got 2"):
            one_step(SAMPLERS[name], eta=2.0)
    for order in (0, 4):
        with pytest.raises(ValueError, match=f"order must be from 1 to 3, got {order}"):
            one_step(SAMPLERS["unipc"], order=order)
