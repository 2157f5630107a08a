"""Words of every script; checkpoints that know the old rule keep their tokens."""

import unicodedata

import pytest
from lattice_data import make_config, make_data

from failsight.core.errors import FailsightError
from failsight.policies.vla.design import BackboneConfig, VLAConfig
from failsight.policies.vla.shipped import CHECKPOINTS
from failsight.policies.vla.store import load_model
from failsight.policies.vla.telling import MAX_WORDS, confused, tiny_confuses, tokens_of
from failsight.policies.vla.tiny_backbone import TinyBackbone
from failsight.policies.vla.words import vocabulary_of, words

DIFFERENT = [
    ("move to shelf 3", "move to shelf 7"),
    ("move to shelf 3", "move to shelf 33"),
    ("turn -30 degrees", "turn 30 degrees"),
    ("go 2.5 m", "go 25 m"),
    ("왼쪽으로 돌아 병까지 가", "오른쪽으로 돌아 병까지 가"),
    ("从左边绕过箱子", "从右边绕过箱子"),
    ("左に曲がって", "右に曲がって"),
    ("اذهب إلى اليسار", "اذهب إلى اليمين"),
    ("बाएँ जाओ", "बाई जाओ"),
    ("ไปทางซ้าย", "ไปทางขวา"),
    ("nimm den größten Würfel", "nimm den gr ten W rfel"),
    ("pick the 🍎", "pick the 🍌"),
    ("pick ❤️", "pick 💙"),
    ("lift arm ½ up", "lift arm ¼ up"),
]
SAME = [
    ("Pick up the cup!", "pick up  the cup"),
    ("größer", unicodedata.normalize("NFD", "größer")),
    ("병까지", unicodedata.normalize("NFD", "병까지")),
    ("❤\ufe0f now", "❤ now"),
    ("turn \u221230", "turn -30"),
    ("STRASSE", "straße"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_instructions_that_differ_have_different_words(one, other):
    assert words(one) != words(other)
    backbone = TinyBackbone(BackboneConfig(width=32, depth=1), vocabulary_of([one, other]), 1, 1, True)
    assert backbone.ids(one, False) != backbone.ids(other, False)
    assert any(backbone.ids(one, False))


@pytest.mark.parametrize(("one", "other"), SAME)
def test_case_punctuation_and_spelling_of_a_sign_say_nothing(one, other):
    assert words(one) == words(other)


@pytest.mark.parametrize("name", ["tabletop-strong", "tabletop-weak"])
def test_shipped_checkpoints_keep_their_tokens(name):
    model = load_model(CHECKPOINTS / name)
    assert model.config.word_rule == 1
    index = {word: i + 3 for i, word in enumerate(model.config.vocabulary)}
    wanted = [index["put"], index["the"], index["red"], index["cube"]]
    assert model.backbone.ids("Put the RED cube 3 größer!", False)[:5] == [*wanted, 1]
    assert model.backbone.ids("put the red cube 3", False)[:5] == [*wanted, 0], "a digit stays unseen"
    read = tokens_of(model.config)
    assert read("cube " * 20 + "left") == read("cube " * 20 + "right"), "of a long instruction 20 words are read"
    assert read("cube " * 19 + "left") != read("cube " * 19 + "right")


def test_a_configuration_that_does_not_say_reads_by_the_first_rule(tmp_path):
    config = make_config(make_data(tmp_path / "d"), "tiny", "", "lstm", "policy-head", "full")
    written = config.as_dict()
    assert VLAConfig.from_dict(written).word_rule == 2
    del written["word_rule"]
    old = VLAConfig.from_dict(written)
    assert old.word_rule == 1
    assert words("shelf 3", old.word_rule) == ["shelf"]
    with pytest.raises(FailsightError, match="rule 9"):
        words("shelf", 9)


def test_instructions_with_the_same_tokens_are_named():
    long = "go " * MAX_WORDS
    texts = {"Go!": (), "go": (), long + "left": (), long + "right": (), "wait": ["Halt"], "halt": []}
    assert tiny_confuses(texts) == [("Go!", "go"), (long + "left", long + "right"), ("wait", "halt")]
    assert confused({"a": ["b"], "c": []}, lambda text: [0] if text in "ab" else [1]) == []


def test_a_tokenizer_of_a_language_model_is_asked_too(tmp_path):
    from failsight.testing.tiny_vlms import save_tiny_vlm

    data = make_data(tmp_path / "d")
    save_tiny_vlm("llava", tmp_path / "m")
    read = tokens_of(make_config(data, "llava", tmp_path / "m", "lstm", "policy-head"))
    assert list(read("a {b}")) == list(read("a (b)"))
    assert list(read("left")) != list(read("right"))
