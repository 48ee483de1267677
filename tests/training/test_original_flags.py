"""Training settings among the original's flags: taken over, or named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adm_cli.checkpoints.converting import convert
from adm_cli.config import Kind
from adm_cli.errors import UsageError
from adm_cli.training.original_flags import take_over

SIZE = "--image_size 64"


@pytest.mark.parametrize(
    ("kind", "flags", "expected"),
    [
        ("classifier", "--iterations 30 --anneal_lr True --batch_size 6 --lr 3e-4 --save_interval "
         "10 --weight_decay 0.05 --noised False",
         {"steps": 30, "anneal": "linear", "batch_size": 6, "lr": 3e-4, "save_every": 10,
          "weight_decay": 0.05, "noised": False}),
        ("diffusion", "--lr_anneal_steps 50 --ema_rate 0.99,0.9 --microbatch 2 --log_interval 5 "
         "--schedule_sampler loss-second-moment",
         {"steps": 50, "anneal": "linear", "ema": "0.99,0.9", "microbatch": 2, "log_every": 5,
          "timestep_sampler": "loss-second-moment"}),
        ("diffusion", "--lr_anneal_steps 0 --microbatch -1 --resume_checkpoint=", {}),
    ],
)  # fmt: skip
def test_taken_over(kind: Kind, flags: str, expected: dict[str, Any]) -> None:
    options, notes = take_over(kind, {"flags": f"{SIZE} {flags}"})
    assert {name: value for name, value in options.items() if name != "flags"} == expected
    assert len(notes) == bool(expected)
    assert all(f"--{name.replace('_', '-')} " in notes[0] for name in expected)


def test_batches_are_of_all_processes_and_options_win() -> None:
    text = f"mpiexec -n 4 python image_train.py {SIZE} --batch_size 8 --lr 1e-5"
    options, notes = take_over("diffusion", {"flags": text, "lr": 1e-3})
    assert (options["batch_size"], options["lr"]) == (32, 1e-3)
    assert notes == ["taken from the flags: --batch-size 32", "left out of the flags: --lr"]


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_a_variable_that_was_not_set(tmp_path: Path, text: str) -> None:
    """``--flags "$MODEL_FLAGS"``: it was the original's default model, without a word."""
    with pytest.raises(UsageError, match="--flags is empty, as where a variable of the shell"):
        take_over("diffusion", {"flags": text})
    with pytest.raises(UsageError, match="--flags is empty"):
        convert(tmp_path, flags=text)


def test_what_is_left_out_is_named() -> None:
    text = (
        f"python image_train.py {SIZE} --data_dir x --resume_checkpoint y --use_fp16 True "
        f"--iterations 5 --fp16_scale_growth 1e-3 --p2_k 1"
    )
    options, notes = take_over("diffusion", {"flags": text})
    assert options == {"flags": text}
    assert notes == [
        "passed over, not flags of the original: --p2_k",
        "left out of the flags: --data_dir, --resume_checkpoint, --iterations, "
        "--fp16_scale_growth, --use_fp16 (data_dir: the pictures are the command's argument; "
        "resume_checkpoint: --init; use_fp16: --dtype)",
    ]
    _, notes = take_over("diffusion", {"flags": f"python image_sample.py {SIZE} --batch_size 4"})
    assert notes == ["left out of the flags: --batch_size"]


def test_when_to_stop_is_said_once() -> None:
    flags = f"{SIZE} --iterations 30"
    options, notes = take_over("classifier", {"flags": flags, "kimg": 1.0})
    assert "steps" not in options
    assert notes == ["left out of the flags: --iterations"]


def test_how_to_read_needs_flags() -> None:
    from adm_cli.training.original_flags import refuse_lone

    with pytest.raises(UsageError, match="--flags-of says how to read --flags"):
        refuse_lone({"flags_of": "improved-diffusion"})
