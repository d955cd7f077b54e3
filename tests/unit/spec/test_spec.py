"""The job specification: defaults of the user's document, every fault at once, the same fields as the proto."""

from pathlib import Path
from typing import get_args

import pytest
import yaml
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from cutoff.errors import InvalidInput, NotFound
from cutoff.spec import JobSpec, load_job_yaml, parse_job, spec_from_proto, spec_to_proto
from cutoff.spec.document import job_reference
from cutoff.spec.job import AttackName
from cutoff.v1 import job_pb2

FOUR = {
    "retain_train": "retain/retain_train.jsonl",
    "retain_val": "retain/retain_val.jsonl",
    "unlearn_train": "unlearn/unlearn_train.jsonl",
    "unlearn_val": "unlearn/unlearn_val.jsonl",
}


def job(**changes):
    return {"name": "j", "base_model": "Qwen/Qwen2.5-1.5B-Instruct", "dataset": FOUR, **changes}


def faults_of(data) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_job(data, source="job.yaml")
    return [str(fault) for fault in caught.value.faults]


def test_defaults_are_the_documents():
    spec = parse_job(job())
    train = spec.train
    assert (train.epochs, train.batch_size, train.learning_rate, train.max_seq_length) == (3, 4, 2e-4, 512)
    assert (train.lora_r, train.lora_alpha, train.lora_dropout, train.warmup_ratio) == (16, 32, 0.05, 0.1)
    assert (train.gradient_accumulation_steps, train.eval_steps, train.save_steps, train.seed) == (4, 100, 500, 42)
    assert (train.quantization, train.prompt_format, train.report_to) == ("none", "chat", ())
    assert (spec.merge.dtype, spec.convert.quant_types) == ("bfloat16", ("q4_k_m",))
    assert (spec.evaluate.max_tokens, spec.evaluate.limit) == (256, 500)
    assert spec.evaluate.lmstudio_url == "http://localhost:1234/v1"
    assert (spec.install.publisher, spec.install.require) == ("local", "minimum")


def test_a_judge_needs_a_server_and_a_model():
    (fault,) = faults_of(job(evaluate={"judge_url": "http://localhost:1234/v1"}))
    assert "a judge needs both judge_url and judge_model" in fault
    spec = parse_job(job(evaluate={"judge_url": "http://localhost:1234/v1", "judge_model": "other"}))
    assert spec_from_proto(spec_to_proto(spec)) == spec


def test_which_quantization_type_is_installed_can_be_left_to_the_numbers():
    assert parse_job(job()).install.quant == "first"
    spec = parse_job(job(install={"quant": "smallest_passing"}))
    assert spec_from_proto(spec_to_proto(spec)).install.quant == "smallest_passing"
    assert "install.quant" in faults_of(job(install={"quant": "smallest"}))[0]


@pytest.mark.parametrize("quant", ["f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s", "q3_k_m"])
def test_every_type_of_the_documents_table(quant):
    assert parse_job(job(convert={"quant_types": [quant]})).convert.quant_types == (quant,)


@pytest.mark.parametrize("given", ["q4_k_m", "Q4_K_M", ["Q4_K_M"]])
def test_a_quantization_type_may_be_one_word_in_any_case(given):
    assert parse_job(job(convert={"quant_types": given})).convert.quant_types == ("q4_k_m",)


def test_all_faults_in_one_answer():
    faults = faults_of(job(train={"lora_rank": 8, "epochs": 0}, convert={"quant_types": ["q4"]}, extra=1))
    assert len(faults) == 4
    assert "train.lora_rank: is not a known field; did you mean lora_r?" in " ".join(faults)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"learning_rat": 1}}, "did you mean learning_rate?"),
        ({"datasets": {}}, "did you mean dataset?"),
        ({"train": {"lora_r": 0}}, "train.lora_r"),
        ({"train": {"quantization": "both"}}, "'4bit'"),
        ({"convert": {"quant_types": ["q4_km"]}}, "q4_k_m"),
        ({"convert": {"quant_types": []}}, "at least 1"),
        ({"name": "../x"}, "use letters, digits"),
        ({"name": "x\n"}, "control characters"),
        ({"cutoff": "1969"}, "write it as 1969-12-31"),
        ({"install": {"model_name": "a/b"}}, "install.model_name"),
        ({"install": {"publisher": ".."}}, "install.publisher"),
        ({"base_model": "just-a-name"}, "neither a hub id"),
        ({"base_model": "https://example.com/m"}, "neither a hub id"),
        ({"dataset": {**FOUR, "dev": "d.jsonl"}}, "not both"),
        ({"dataset": {"retain_train": "x"}}, "or dev"),
        ({"evaluate": {"targets": ["base"]}}, "add gguf to evaluate.targets"),
        ({"evaluate": {"targets": ["gguf", "lmstudio"]}}, "lmstudio_model"),
        ({"resources": {"gpus": -1}}, "resources.gpus"),
        ({"resources": {"gpus": 1.5}}, "resources.gpus: 1.5: more than one GPU must be a whole number"),
        ({"resources": {"gpus": 0.333}}, "a share of a GPU is given in hundredths"),
        ({"resources": {"priority": "urgent"}}, "resources.priority: 'urgent': give low, normal, high"),
        ({"resources": {"priority": 101}}, "resources.priority"),
        ({"resources": {"priority": True}}, "resources.priority: True: give a number"),
        ({"resources": {"wait_minutes": -1}}, "resources.wait_minutes"),
        ({"train": {"then": [{"method": "forget"}]}}, "train.then.0.method"),
        ({"train": {"then": [{"method": "npo", "epoch": 2}]}}, "did you mean epochs?"),
        ({"train": {"early_stopping_patience": True}}, "train.early_stopping_patience: True: give a number"),
        ({"train": {"epochs": False}}, "train.epochs: False: give a number"),
        ({"resources": {"gpus": True}}, "resources.gpus: True: give a number"),
        ({"train": {"report_to": "tensorboard"}}, "report_to: 'tensorboard' is no list; write it as [tensorboard]"),
        ({"train": {"then": {"method": "npo"}}}, "train.then: is no list; write it as [{method: npo}]"),
        ({"train": {"then": None}}, "train.then: is empty; leave it out, or write []"),
        ({"train": None}, "train: is empty; write its fields below it, indented, or leave it out"),
        ({"train": 3}, "train: 3 is no section; write its fields below it, indented, or leave it out"),
    ],
)
def test_each_fault_is_named(changes, said):
    assert said in " ".join(faults_of(job(**changes)))


def test_a_missing_field_is_named():
    assert "dataset: is required; add `dataset:`" in " ".join(faults_of({"name": "j", "base_model": "a/b"}))


def test_a_staged_recipe_inherits_what_it_does_not_say():
    train = parse_job(
        job(train={"epochs": 3, "learning_rate": 1e-3, "retain_loss": "kl", "beta": 9, "then": [{"method": "npo"}]})
    ).train
    first, second = train.stages
    assert (first.method, first.epochs, first.beta) == ("sft", 3, 9)
    assert (second.method, second.epochs, second.learning_rate, second.retain_loss) == ("npo", 1, 1e-3, "kl")
    assert second.beta is None, "a beta fits one method only"
    assert train.needs_true_answers
    assert [stage.needs_true_answers for stage in train.stages] == [False, True]


def test_wire_and_yaml_have_the_same_fields():
    def compare(model, descriptor):
        assert set(model.model_fields) == set(descriptor.fields_by_name), descriptor.name
        for field in descriptor.fields:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                annotation = model.model_fields[field.name].annotation
                compare((get_args(annotation) or (annotation,))[0], field.message_type)

    compare(JobSpec, job_pb2.JobSpec.DESCRIPTOR)


@given(
    st.builds(
        job,
        cutoff=st.one_of(st.none(), st.dates().map(str)),
        train=st.fixed_dictionaries(
            {},
            optional={
                "epochs": st.floats(0.1, 50),
                "batch_size": st.integers(1, 64),
                "learning_rate": st.floats(1e-6, 1),
                "quantization": st.sampled_from(["none", "4bit", "8bit"]),
                "report_to": st.lists(st.sampled_from(["wandb", "mlflow", "tensorboard"]), max_size=2),
            },
        ),
        merge=st.fixed_dictionaries({}, optional={"verify": st.booleans()}),
        resources=st.fixed_dictionaries(
            {}, optional={"gpus": st.sampled_from([0, 0.07, 0.29, 0.5, 1, 8]), "priority": st.integers(-100, 100)}
        ),
    )
)
def test_nothing_is_lost_on_the_wire(data):
    spec = parse_job(data)
    assert spec_from_proto(spec_to_proto(spec)) == spec


def test_yaml_faults_name_file_and_line(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: j\ntrain: {epochs: 1\n")
    with pytest.raises(InvalidInput, match=rf"{path}:\d"):
        load_job_yaml(path)
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(InvalidInput, match="UTF-8"):
        load_job_yaml(path)
    path.write_text("")
    with pytest.raises(InvalidInput, match="holds no fields"):
        load_job_yaml(path)
    with pytest.raises(NotFound):
        load_job_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: j\ntrain: {epochs: 1}\nseed: 1\ntrain: {lora_r: 8}\n", "train: stands twice (lines 2 and 4)"),
        ("train:\n  lora_r: 8\n  lora_r: 16\n  lora_r: 4\n", "train.lora_r: stands 3 times (lines 2, 3 and 4)"),
        ("train:\n  then:\n  - {method: npo, method: dpo}\n", "train.then.0.method: stands twice (both in line 3)"),
    ],
)
def test_a_key_that_is_written_twice_is_a_fault(tmp_path, text, said):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load_job_yaml(path)
    (fault,) = caught.value.faults
    assert str(fault) == f"{path}: {said}; keep one of them"


def test_a_mapping_that_is_shared_by_an_anchor_is_none_of_it(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: j\nbase_model: a/b\ndataset: {dev: d.jsonl}\n"
        "train:\n  then:\n  - &npo {method: npo, epochs: 1}\n  - {<<: *npo, epochs: 2}\n"
    )
    assert [stage.epochs for stage in load_job_yaml(path).train.then] == [1, 2]
    path.write_text("name: &a [*a]\n")
    with pytest.raises(InvalidInput):
        load_job_yaml(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cutoff: 1969-13-45\n", "is not YAML: month must be in 1..12"),
        ("a: " + "[" * 5000 + "]" * 5000, "is not YAML: it is nested too deeply"),
        ("name: \x00", "is not YAML: special characters are not allowed"),
    ],
)
def test_what_the_yaml_reader_cannot_take_is_a_fault(tmp_path, text, said):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=said):
        load_job_yaml(path)


def test_a_relative_base_model_is_relative_to_the_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job(base_model="./base")))
    assert load_job_yaml(path).base_model == str(tmp_path / "base")


def test_a_control_is_named_as_the_base_model_is(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job(evaluate={"control": "./control"})))
    assert load_job_yaml(path).evaluate.control == str(tmp_path / "control")
    assert parse_job(job(evaluate={"control": "owner/name@main"})).evaluate.control == "owner/name@main"
    with pytest.raises(InvalidInput, match=r"evaluate.control: 'control': neither a hub id .* nor a folder"):
        parse_job(job(evaluate={"control": "control"}))


def test_relearning_is_off_unless_asked_for_and_has_defaults():
    assert parse_job(job()).evaluate.relearn is None
    spec = parse_job(job(evaluate={"relearn": {}}))
    assert (spec.evaluate.relearn.examples, spec.evaluate.relearn.file) == (100, None)
    assert spec_from_proto(spec_to_proto(spec)) == spec
    with pytest.raises(InvalidInput, match=r"evaluate.relearn.exampels: is not a known field; did you mean examples\?"):
        parse_job(job(evaluate={"relearn": {"exampels": 3}}))


def test_the_reference_is_current_and_complete():
    page = (Path(__file__).parents[3] / "docs/job.md").read_text()
    assert page == job_reference(), "run `make docs`"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert [row for row in rows if row.endswith("|  |")] == []


def test_only_packed_weights_are_dequantized():
    (fault,) = faults_of(job(merge={"base": "dequantized"}))
    assert "set train.quantization: 4bit or 8bit, or merge.base: original" in fault
    spec = parse_job(job(merge={"base": "dequantized"}, train={"quantization": "4bit"}))
    assert spec_to_proto(spec).merge.base == "dequantized"


@pytest.mark.parametrize(("given", "number"), [("low", -10), ("normal", 0), ("High", 10), (3, 3)])
def test_a_priority_is_a_number_or_one_of_three_words(given, number):
    assert parse_job(job(resources={"priority": given})).resources.priority == number


def test_attacks_are_named_or_all_of_them():
    every = get_args(AttackName)
    for attacks in ("all", ["all"]):
        spec = parse_job(job(evaluate={"attacks": attacks}))
        assert spec.evaluate.attacks == every
        assert spec_from_proto(spec_to_proto(spec)) == spec
    assert parse_job(job(evaluate={"attacks": "few_shot"})).evaluate.attacks == ("few_shot",)
    assert parse_job(job(evaluate={"attacks": ["role_play", "few_shot", "role_play"]})).evaluate.attacks == (
        "role_play",
        "few_shot",
    )


def test_unknown_attacks_are_answered_with_the_nearest():
    (fault,) = faults_of(job(evaluate={"attacks": ["fewshot", "role_play", "xyz"]}))
    assert "evaluate.attacks" in fault
    assert "'fewshot' is no attack, did you mean few_shot?" in fault
    assert "'xyz' is no attack, known: reworded_polite, " in fault
    (fault,) = faults_of(job(evaluate={"attacks": [7]}))
    assert "evaluate.attacks.0" in fault
