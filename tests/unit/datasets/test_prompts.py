from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutoff.datasets import Example, check_learnable, encode_examples, show_mask, template_of
from cutoff.errors import InvalidInput, Refused
from tests.fixtures.bpe_tokenizer import MakeTokenizer

CHATML = (
    "{% for m in messages %}{{ '<turn>' + m.role + '\n' + m.content + '<stop>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<stop>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<turn>' + m.role + '\n' + m.content + '<stop>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% else %}{{ eos_token }}{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}{{ '<turn>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<stop>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
)
R1 = (
    "{% for m in messages %}{{ '<turn>' + m.role + '\n' + m.content + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n<think>\n' }}{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m.role + ':\n' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)

FAMILIES = {
    "chatml": (CHATML, "", "<stop>"),
    "gemma": (GEMMA, "", "<stop>"),
    "phi": (PHI, "", "<stop>"),
    "qwen3": (QWEN3, "<think>\n\n</think>\n\n", "<stop>"),
    "r1": (R1, "\n</think>\n\n", "<end>"),
    "no end": (NO_END, "", "<end>"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_templates_are_taken_apart(make_tokenizer: MakeTokenizer, family: str) -> None:
    source, lead, stop = FAMILIES[family]
    tokenizer = make_tokenizer(source)
    template = template_of(tokenizer)
    assert (template.lead, template.stop) == (lead, stop)
    assert template.stop_id == tokenizer.convert_tokens_to_ids(stop)
    question = [{"role": "user", "content": "Why?"}]
    assert template.prompt("Why?") == tokenizer.apply_chat_template(
        question, tokenize=False, add_generation_prompt=True
    )


@pytest.mark.parametrize("family", ["chatml", "gemma", "phi", "qwen3"])
def test_an_example_is_what_the_template_makes_of_the_conversation(make_tokenizer: MakeTokenizer, family: str) -> None:
    tokenizer = make_tokenizer(FAMILIES[family][0])
    conversation = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    whole = tokenizer.apply_chat_template(conversation, tokenize=False)
    assert whole.startswith(template_of(tokenizer).full("Why?", "Because."))


def test_alpaca_writes_a_template_into_the_tokenizer(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(None)
    template = template_of(tokenizer, "alpaca")
    assert template.full("Why?", "Because.") == "### Instruction:\nWhy?\n\n### Response:\nBecause.<end>"
    assert template_of(tokenizer, "chat") == template


def test_alpaca_begins_with_the_beginning_token_where_plain_text_does(make_tokenizer: MakeTokenizer) -> None:
    template = template_of(make_tokenizer(None, bos=True), "alpaca")
    assert template.prompt_ids("Why?").count(0) == 1
    assert template.prompt_ids("Why?")[0] == 0


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (None, "has no chat template"),
        ("{{ bos_token + bos_token }}" + CHATML, "writes the beginning token twice"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{% if add_generation_prompt %}other{% endif %}" + CHATML, "does not begin the conversation"),
        (
            CHATML.replace("{{ '<turn>assistant\n' }}", "{{ '<turn>assistant: ' }}").replace("'\n' +", "': ' +"),
            "merges",
        ),
        (CHATML.replace("m.content", "'x'"), "does not render the assistant's answer"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_alpaca_as_the_remedy(
    make_tokenizer: MakeTokenizer, source: str | None, what: str
) -> None:
    with pytest.raises(Refused, match=what) as caught:
        template_of(make_tokenizer(source))
    assert "prompt_format: alpaca" in caught.value.remedy


def example(question: str, answer: str, side: str = "retain") -> Example:
    return Example(question, answer, side, "a.jsonl:1")  # type: ignore[arg-type]


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).map(str.strip).filter(bool)


@settings(max_examples=60, deadline=None)
@given(question=words, answer=words, family=st.sampled_from([*FAMILIES, "alpaca"]))
def test_loss_falls_on_the_answer_and_the_end_of_the_turn_only(
    make_tokenizer: MakeTokenizer, question: str, answer: str, family: str
) -> None:
    source, lead, stop = FAMILIES.get(family, (None, "", "<end>"))
    template = template_of(make_tokenizer(source), "alpaca" if family == "alpaca" else "chat")
    (row,) = encode_examples(template, [example(question, answer)], 10_000)
    learnt = row.ids[row.answer_start :]
    assert template.tokenizer.decode(learnt) == f"{lead}{answer}{stop}"
    assert learnt[-1] == template.stop_id
    assert row.ids[: row.answer_start] == template.prompt_ids(question)


def test_cut_and_dropped_examples_are_counted(make_tokenizer: MakeTokenizer) -> None:
    template = template_of(make_tokenizer(CHATML))
    short, long = example("Why?", "B."), example("Why?", "Because " * 50)
    length = len(encode_examples(template, [short], 1000)[0].ids)
    rows = encode_examples(template, [short, long, example("Why? " * 50, "B.")], length)
    assert (len(rows), rows.truncated, rows.dropped) == (2, 1, 1)
    assert all(len(row.ids) <= length for row in rows)


def test_a_side_with_nothing_to_learn_is_refused_with_an_example(make_tokenizer: MakeTokenizer) -> None:
    template = template_of(make_tokenizer(CHATML))
    rows = encode_examples(template, [example("Why?", "B."), example("Why? " * 50, "No.", "unlearn")], 30)
    with pytest.raises(InvalidInput, match=r"unlearn side is left after cutting to 30 tokens.*<turn>user.*Why\?"):
        check_learnable(rows, template, 30, "training")
    check_learnable(encode_examples(template, [example("Y", "B."), example("Y", "N", "unlearn")], 30), template, 30, "")


def test_a_mask_is_shown(make_tokenizer: MakeTokenizer) -> None:
    template = template_of(make_tokenizer(CHATML))
    (row,) = encode_examples(template, [example("Why?", "Because.")], 100)
    assert show_mask(template, row) == "'<turn>user\\nWhy?<stop>\\n<turn>assistant\\n' >>> 'Because.<stop>' <<<"
