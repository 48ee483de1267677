"""What people type that is not ours, answered in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.main import get_command

from adm_cli.commands.main import app
from adm_cli.commands.other_names import OTHER_COMMANDS, OTHER_OPTIONS
from tests.conftest import Result, Toys

Run = Callable[..., Result]
GROUP: Any = get_command(app)
OPTIONS = {
    name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    for name, command in GROUP.commands.items()
}


def _path_words() -> Iterator[list[str]]:
    """Every command with nothing for one of its paths."""
    for name, command in GROUP.commands.items():
        for param in command.params:
            option = param.opts[-1]
            if "Path" not in str(param.type_descriptor.annotation):
                continue
            if not option.startswith("-"):
                yield [name, ""]
                continue
            yield [name, option, ""]
            if option.startswith("--"):
                yield [name, f"{option}="]


def test_an_empty_path_is_not_the_present_folder(adm: Run) -> None:
    """A variable of a shell that is not set would have drawn there, or gathered all of it."""
    tried = list(_path_words())
    assert len(tried) > 60
    for words in tried:
        done = adm(*words)
        assert done.code == 2, words
        assert "is empty, expected a path" in done.err, words
    titled = adm("gallery", "nowhere", "--title", "", "-o", "page.html")  # which may be
    assert "is empty" not in titled.err


def test_the_tables_name_what_there_is() -> None:
    everything = set().union({"--version"}, *OPTIONS.values())
    for name, meanings in OTHER_OPTIONS.items():
        assert name == name.lower().replace("_", "-").lstrip("-")
        for text in meanings:
            assert set(re.findall(r"--[a-z-]+", text)) <= everything, text
    assert not set(OTHER_COMMANDS) & set(OPTIONS)
    for text in OTHER_COMMANDS.values():
        names = re.findall(r"[a-z-]+", text.replace(" or ", ", "))
        assert text == "--version" or set(names) <= set(OPTIONS), text


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ("sample --classifier_scale 3", "--classifier_scale in adm sample: here it is --scale"),
        ("sample --guidance-scale=3", "--scale (of the classifier) or --cfg (classifier-free)"),
        ("sample --cfg_scale 3", "here it is --cfg"),
        ("sample --num_samples 3", "here it is --total"),
        ("sample --num_images 3", "here it is --total"),
        ("sample --samples 3", "here it is --num"),
        ("sample --n 3", "here it is --num"),
        ("sample --timestep_respacing 250", "here it is --steps"),
        ("sample --num_inference_steps 25", "here it is --steps"),
        ("sample --use_ddim True", "here it is --sampler ddim"),
        ("sample --use_ddim False", "leave it out, what it turns on is --sampler ddim"),
        ("sample --use_fp16=False", "leave it out, what it turns on is --dtype float16"),
        ("train-diffusion --random_flip False", "here it is --flip or --no-flip"),
        ("sample --model_path x", "here it is --model"),
        ("train-diffusion --model_path x", "here it is --init"),
        ("sample --classifier_path x", "here it is --classifier"),
        ("sample --prompt dog", "here it is --class"),
        ("sample --image_size 64", "here it is in the weights file: leave it out"),
        ("models --size 64", "--size belongs to adm train-diffusion, train-classifier"),
        ("train-diffusion --image_size 64", "here it is --size"),
        ("train-diffusion --num_heads 4", "here it is --flags, with the original's flags"),
        ("sample --Batch_Size 4", "here it is --batch-size"),
        ("info --classifier_scale 3", "in adm info: --scale belongs to adm sample, edit, "),
        ("sample --microbatch 3", "--microbatch belongs to adm train-diffusion"),
        ("--class 207", "no option --class in adm: --class belongs to adm sample"),
        ("sample --sclae 3", "no option --sclae in adm sample; did you mean --scale"),
        ("sample --guidance-weight 3", "--scale (of the classifier) or --cfg (classifier-free)"),
        ("sample --amount 3", "here it is --num (of each class) or --total"),
        ("sample --width 64", "here it is --upsampler (the model's file says the size)"),
        ("sample --negative-prompt cat", "here it is --negative-class"),
        ("sample -p dog", "here it is --class"),
        ("sample --folder x", "here it is --out"),
        ("sample --batchsize 3", "did you mean --batch-size?"),
        ("sample --gpus 2", "here it is --shard (torchrun shares by itself)"),
        ("sample --gif", "here it is --animate FILE.gif"),
        ("sample --save-grid", "here it is --grid"),
        ("sample --continue", "here it is --out, the folder of the run: the same command goes on"),
        ("sample --interactive", "no option --interactive in adm sample (adm sample --help"),
        ("sample --scale 4,5", "such as 2.5 (several: adm sweep --scale 4,5)"),
        ("sample --device gpu", "expected auto (a GPU where there is one), cpu, cuda"),
        ("sample --num 10k", "--num '10k': expected a whole number: write --num 10000"),
        ("sample --total 50,000", "expected a whole number: write --total 50000"),
        ("train-diffusion x --steps 1e5", "expected a whole number: write --steps 100000"),
        ("sample --batch-size 1.5", "expected a whole number, such as 8"),
        ("sample --batch-size auto", "--batch-size 'auto': leave it out, then adm chooses"),
        ("edit x.png --strength 60%", "expected a number: write --strength 0.6"),
        ("edit x.png --strength much", "expected a number, such as 0.6"),
        ("sample --no-guidance", "here it is --scale 0"),
        ("sample --unconditional", "here it is --class none"),
        ("sample --name test", "here it is --out"),
        ("sample --list-models", "here it is adm models, a command"),
        ("sample --list-samplers", "here it is --sampler, whose help names them all"),
        ("sample --no-progress", "here it is --quiet"),
        ("sample --threads 4", "here it is OMP_NUM_THREADS=4 before the command"),
        ("sample --nrow 4", "here it is --grid"),
        ("sample --gpu-id 0", "here it is --device cuda:0"),
        ("sample --cache-dir x", "here it is ADM_HOME=FOLDER before the command"),
        ("sample --sampler DDIM50", "write --sampler ddim --steps 50"),
        ("sample --sampler euler_a", "here it is --sampler ddim --eta 1"),
        ("sample --sampler dpmpp_2m_sde", "here it is --sampler dpm++2m --eta 1"),
        ("sweep --workers 2", "no option --workers in adm sweep: the processes would begin anew"),
        ("evaluate x --workers 2", "draw first, by adm sample --workers --out FOLDER"),
        ("sample --spacing karras", "got 'karras': here it is rho"),
        ("sample --spacing logsnr", "got 'logsnr'; did you mean log-snr"),
        ("train-classifier x --arch resnet", "here it is --preset, --channels or --set"),
        ("interpolate --from 207 --to 1", "here it is --class 207,281, the way from one to"),
        ("repro out --sample 3", "here it is --num"),
        ("evaluate a b", "did you mean --ref b?"),
        ("evaluate nowhere --ref docs", "no such folder or file of pictures: nowhere"),
        ("convert x.pt y.safetensors", "did you mean --output y.safetensors?"),
        ("gallery . -o page.pdf", "--output page.pdf: expected a name that ends in .html"),
        ("classes dgo", "no class matches 'dgo'; did you mean dingo, dugong, dog?"),
        ("gen", "here it is adm sample"),
        ("sweep --axis scale", "here it is the option itself: --scale 0,1,2"),
        ("train-diffusion --num-epochs 3", "here it is --steps or --kimg"),
        ("train-diffusion --pretrained x", "here it is --init"),
        ("train-diffusion --grad-accum 2", "here it is --microbatch"),
        ("train-diffusion --wandb", "here it is --tensorboard"),
        ("train-classifier --patience 3", "best.safetensors is of the lowest validation loss"),
        ("train-classifier --num-classes 3", "here it is by the pictures' folders"),
        ("classes --list", "here it is the command without an option"),
        ("cache clean", "'clean': expected ls, rm or verify"),
        ("evaluate a.png b.png", "takes 1 argument without an option, and 'b.png' is one more"),
        ("sample -z", "no option -z in adm sample (adm sample --help"),
        ("sample -scale 3", "-scale: did you mean --scale, with two hyphens?"),
        ("sample -class 3", "-class: did you mean --class, with two hyphens?"),
        ("train", "here it is adm train-diffusion, train-classifier or train-upsampler"),
        ("generate", "here it is adm sample"),
        ("scripts/classifier_sample.py --x", "here it is adm sample"),
        ("train_diffusion", "here it is adm train-diffusion"),
        ("convert-checkpoint x.pt", "here it is adm convert"),
        ("help smaple", "no command 'smaple'; did you mean sample"),
        ("sample 207", "did you mean --class 207?"),
        ("sample --class 1 145", "did you mean --class 1,145?"),
        ("sample --class 1, 145", "did you mean --class 1,145?"),
        ("sample golden retriever", 'did you mean --class "golden retriever"?'),
        ("sample -c golden retriever", 'did you mean --class "golden retriever"?'),
        ("sweep --scale 1, 2.5", "did you mean --scale 1,2.5?"),
        ("sample --seeds 1 2 3", "did you mean --seeds 1,2,3?"),
        ("sample --num 4 207", "did you mean --class 207?"),
        ("sample --version", "no option --version in adm sample: write adm --version"),
        ("-V", "no option -V in adm: here it is --version"),
        ("sample --grid true", "what is on or off has no value"),
        (
            "repro o/a.png o/b.png o/c.png",
            "adm repro takes 1 argument without an option, and 'o/b.png' is one more",
        ),
        ("info a b c", "adm info takes 2 arguments without an option, and 'c' is one more"),
        ("sample --flags x", "here it is --model, of the file that adm convert makes by such"),
        ("models tiny", "without an option; did you mean adm info tiny?"),
        ("bench imagenet64", "without an option; did you mean --model imagenet64?"),
        ("sample tiny-stack", "without an option; did you mean --model tiny-stack?"),
        ("sample --num many", "--num 'many': expected a whole number, such as 8"),
        ("sample --scale 4,5", "--scale '4,5': expected a number, such as 2.5"),
        ("sample -nx", "--num 'x': expected a whole number"),
        ("train-classifier --lr fast p", "--lr 'fast': expected a number, such as 1e-4"),
        ("fetch --timeout 0 inception", "--timeout '0': expected at least 1, such as 30"),
        ("fetch --retries 1.5 inception", "--retries '1.5': expected a whole number"),
        ("sample --scale", "--scale needs a value, such as --scale 2.5"),
        ("sample --class", "--class needs a value, such as --class 207"),
        ("sample --grid=3", "--grid=3: write --grid or --no-grid alone"),
        ("sample --clip=no", "--clip=no: write --clip or --no-clip alone"),
        ("merge x", "adm merge needs --output"),
        ("sample --out --grid", "--out needs a value, such as --out runs/first"),
        ("sample -o -q", "-o needs a value, such as -o runs/first (adm sample --help), and what"),
        ("sample --animate --out x", "--animate film.gif (adm sample --help), and what follows it"),
        ("sweep --scale --steps 2", "and what follows it is the option --steps"),
        ("train-diffusion x --init --out y", "and what follows it is the option --out"),
        ("evaluate x --ref --help", "and what follows it is the option --help"),
    ],
)  # fmt: skip
def test_answers(adm: Run, arguments: str, answer: str) -> None:
    done = adm(*arguments.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("adm: error: ")
    assert answer in done.err
    assert len(done.err.splitlines()) == 1


def test_usual_spellings(adm: Run, toys: Toys) -> None:
    made = ("--model", toys.model, "--classifier", toys.classifier, "--class", "STAR")
    names = ("--sampler", "DPM++ 2M", "--steps", "DDIM5", "--device", "CPU", "--dtype", "BF16")
    done = adm("sample", *made, *names, "--format", "WebP", "--dry-run", "--json")
    plan = json.loads(done.out)
    found = [plan[name] for name in ("sampler", "steps", "device", "dtype", "format")]
    assert found == ["dpm++2m", "ddim5", "cpu", "bfloat16", "webp"]


def test_help_is_a_command(adm: Run) -> None:
    assert adm("help") == adm("--help")
    assert adm("help", "models") == adm("models", "--help")


def test_out_and_output_are_one(adm: Run) -> None:
    """The documented name is in the answer."""
    for option in ("--out", "--output"):
        assert "--output x.foo: expected a name" in adm("merge", "x", option, "x.foo").err
        assert "--out x.foo: expected a name" in adm("reference", "x", f"{option}=x.foo").err


def test_each_command_has_one_of_the_two() -> None:
    for name, own in OPTIONS.items():
        assert not {"--out", "--output"} <= own, name


@pytest.mark.parametrize("option", ["-o", "--out", "--output"])
def test_the_place_of_an_export_is_a_word(adm: Run, option: str) -> None:
    done = adm("export", "tiny", "--to", "original", option, "m.pt")
    assert done.code == 2
    assert "it is the second word, as in adm export tiny tiny.pt --to original" in done.err


@pytest.mark.parametrize(
    ("words", "together"),
    [
        (("sweep", "--scale", "0", "--steps", "5", "-s", "2"), "--scale 0,2"),
        (("sweep", "--model=a/model.safetensors", "--model", "b"), "--model a/model.safetensors,b"),
        (("sweep", "--eps-scale", "1", "--eps-scale", "1.01"), "--eps-scale 1,1.01"),
        (("bench", "-b", "1", "-b", "4"), "--batch-size 1,4"),
    ],
)
def test_a_list_in_parts_is_not_its_last_part(
    adm: Run, words: tuple[str, ...], together: str
) -> None:
    done = adm(*words)
    name = together.split(maxsplit=1)[0]
    assert (done.code, done.out) == (2, "")
    assert f"{name} is given 2 times, and takes one list: {together}\n" in done.err


def test_a_single_value_may_be_given_again(adm: Run, toys: Toys) -> None:
    """As for any program: what an alias or a script begins with, a person overrides."""
    scale = ("--scale", "3", "--scale", "0", "--seed", "1", "--seed", "2", "--steps", "2")
    done = adm("sample", "--model", "no", "--model", toys.model, *scale, "--class", "0", "-o", "x")
    assert done.code == 0, done.err
    assert "seed000002" in done.out
