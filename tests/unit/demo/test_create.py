"""The whole demo folder, with a base model of a few steps: what is pretrained here knows nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cutoff.client.cli import app
from cutoff.demo import Recipe, create, make_world
from cutoff.demo.cache import cached_base_model, link_or_copy
from cutoff.demo.folder import epochs_for
from cutoff.demo.recipe import recipe_hash
from cutoff.demo.world import CUTOFF_YEAR, before_cutoff
from cutoff.spec import load_job_yaml

TINY = Recipe(vocabulary=512, feed_forward=256, layers=1, exposures=1, minimum_steps=1, minimum_accuracy=0.0, threads=1)
FACTS, SEED = 8, 5


class Steps:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        self.seen.append((what, done, total))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the tiny model of the world under test."""
    cache = tmp_path_factory.mktemp("cache")
    cached_base_model(make_world(FACTS, SEED), cache, Steps(), TINY)
    return cache


def models(cache: Path) -> list[Path]:
    """The models in a cache, unfinished ones too."""
    return [path for path in (cache / "demo-base").iterdir() if path.is_dir()]


@pytest.fixture
def out(tmp_path: Path, cache: Path) -> Path:
    create(tmp_path / "demo", facts=FACTS, seed=SEED, cache=cache, on_progress=Steps(), recipe=TINY)
    return tmp_path / "demo"


def test_a_folder_holds_job_data_sets_and_base_model(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {"job.yaml", "datasets", "base"}
    assert {path.name for path in (out / "base").iterdir()} >= {
        "config.json",
        "generation_config.json",
        "knowledge.json",
        "model.safetensors",
        "tokenizer.model",
        "tokenizer_config.json",
    }


def test_the_job_names_what_was_written(out: Path) -> None:
    job = yaml.safe_load((out / "job.yaml").read_text("utf-8"))
    assert job["base_model"] == "./base"
    for name in (*job["dataset"].values(), job["evaluate"]["test_file"]):
        assert (out / "datasets" / name).is_file()


def test_a_control_reads_nothing_that_came_after_the_cutoff(tmp_path: Path) -> None:
    world = make_world(FACTS, SEED)
    known = before_cutoff(world).facts
    assert known
    assert known == tuple(fact for fact in world.facts if fact.year <= CUTOFF_YEAR)
    made, cache = tmp_path / "demo", tmp_path / "cache"
    create(made, facts=FACTS, seed=SEED, cache=cache, on_progress=Steps(), recipe=TINY, control=True)
    control = cached_base_model(before_cutoff(world), cache, Steps(), TINY)
    for file in ("model.safetensors", "tokenizer.model"):
        assert (made / "control" / file).read_bytes() == (control / file).read_bytes()
    assert (made / "control/tokenizer.model").read_bytes() != (made / "base/tokenizer.model").read_bytes()
    job = load_job_yaml(made / "job.yaml")
    assert (job.base_model, job.evaluate.control) == (str(made / "base"), str(made / "control"))
    assert job.evaluate.attacks
    assert job.evaluate.relearn is not None
    assert (made / "datasets" / str(job.evaluate.relearn.file)).is_file()


def test_services_elsewhere_see_the_control_beside_the_base_model(tmp_path: Path) -> None:
    made = create(
        tmp_path, facts=FACTS, seed=SEED, cache=tmp_path / "cache", on_progress=Steps(), recipe=TINY,
        base_model="/base-models/base", control=True,
    )  # fmt: skip
    assert load_job_yaml(made).evaluate.control == "/base-models/control"


def test_the_job_is_one_that_can_be_submitted_wherever_the_world_is_moved(out: Path, tmp_path: Path) -> None:
    world = out.rename(tmp_path / "moved")
    job = load_job_yaml(world / "job.yaml")
    assert job.base_model_is_folder
    assert Path(job.base_model) == world / "base"
    assert job.resources.gpus == 0


def test_the_command_says_what_to_do_next(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTOFF_CACHE", str(cache))
    monkeypatch.setattr("cutoff.demo.cache.Recipe", lambda: TINY)
    out = tmp_path / "my world"
    made = CliRunner().invoke(app, ["demo", "--out", str(out), "--facts", str(FACTS), "--seed", str(SEED)])
    assert made.exit_code == 0, made.output
    assert made.stdout == f"{out}/job.yaml\n"
    run = f"cutoff run '{out}/job.yaml' --datasets '{out}/datasets' --artifacts '{out}/output' --models '{out}/models'"
    assert made.stderr.endswith(f"next: {run}\n")


def test_a_cached_model_is_not_made_again(tmp_path: Path, cache: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from cutoff.demo import Recipe, create
out, cache = Path({str(tmp_path / "demo")!r}), Path({str(cache)!r})
create(out, facts={FACTS}, seed={SEED}, cache=cache, on_progress=lambda *_: None, recipe={TINY!r})
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_another_recipe_is_another_model(cache: Path) -> None:
    world = make_world(FACTS, SEED)
    again = cached_base_model(world, cache, Steps(), TINY)
    assert again.name == recipe_hash(TINY, world)
    assert models(cache) == [again]


def test_writing_again_replaces_what_was_there(out: Path, cache: Path) -> None:
    (out / "base" / "leftover").write_text("from before")
    create(out, facts=FACTS, seed=SEED, cache=cache, on_progress=Steps(), recipe=TINY)
    assert not (out / "base" / "leftover").exists()
    assert {path.name for path in out.iterdir()} == {"job.yaml", "datasets", "base"}


def test_files_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    source = tmp_path / "source"
    source.mkdir()
    (source / "weights").write_bytes(b"1")
    link_or_copy(source, tmp_path / "target")
    assert (tmp_path / "target" / "weights").read_bytes() == b"1"


def test_nothing_is_cached_when_pretraining_fails(tmp_path: Path) -> None:
    from cutoff.demo.base_model import PretrainingError

    demanding = Recipe(vocabulary=512, feed_forward=256, layers=1, exposures=1, minimum_steps=1, threads=1)
    with pytest.raises(PretrainingError, match="answers only") as caught:
        cached_base_model(make_world(8, 0), tmp_path, Steps(), demanding)
    assert "--facts" in caught.value.remedy
    assert not models(tmp_path)


def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path) -> None:
    world = make_world(8, 0)
    half_written = tmp_path / "demo-base" / f".{recipe_hash(TINY, world)}-abc"
    half_written.mkdir(parents=True)
    whole = cached_base_model(world, tmp_path, Steps(), TINY)
    assert models(tmp_path) == [whole]


def test_progress_counts_every_step(tmp_path: Path) -> None:
    steps = Steps()
    cached_base_model(make_world(8, 0), tmp_path, steps, TINY)
    assert [done for _, done, _ in steps.seen] == list(range(1, steps.seen[-1][2] + 1))


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, cache: Path) -> None:
    ours = cached_base_model(make_world(FACTS, SEED), cache, Steps(), TINY)
    theirs = cached_base_model(make_world(FACTS, SEED), tmp_path, Steps(), TINY)
    for name in ("model.safetensors", "tokenizer.json", "tokenizer.model"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_what_the_model_knows_is_written_beside_it(out: Path) -> None:
    report = json.loads((out / "base" / "knowledge.json").read_text("utf-8"))
    assert set(report["accuracy"]) == {"train", "validation", "test"}


def test_the_tokenizer_says_what_llama_cpp_needs(out: Path) -> None:
    config = json.loads((out / "base" / "tokenizer_config.json").read_text("utf-8"))
    special = {token["content"] for token in config["added_tokens_decoder"].values() if token["special"]}
    assert special >= {"<|im_start|>", "<|im_end|>", "<s>"}
    assert config["add_bos_token"] is False
    assert config["eos_token"] == "<|im_end|>"
    assert config["pad_token"] != config["eos_token"]


def test_the_tokenizer_renders_chatml_without_loss(out: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(out / "base")
    turn = [{"role": "user", "content": "Who designed the Éiffel Bridge?\nSay it."}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text)["input_ids"]
    assert text == "<|im_start|>user\n" + turn[0]["content"] + "<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == text
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id


@pytest.mark.parametrize(("facts", "epochs"), [(16, 40), (160, 4), (1000, 4)])
def test_a_small_world_is_trained_for_more_epochs(facts: int, epochs: int) -> None:
    assert epochs_for(facts) == epochs


def test_rows_suit_k_quants() -> None:
    for size in (Recipe().hidden, Recipe().feed_forward):
        assert size % 256 == 0
