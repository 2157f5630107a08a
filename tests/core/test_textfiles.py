from pathlib import Path

import pytest

from failsight.core.errors import EpisodeDataError
from failsight.core.textfiles import read_json, read_json_lines, read_json_object, read_text_file


def test_whole_files(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, "\u00e9"]}')
    assert read_json_object(path) == {"a": [1, "\u00e9"]}
    assert read_text_file(path).startswith("{")


def test_devices_never_end_and_are_refused():
    for path in ("/dev/zero", "/dev/full", "/proc"):
        with pytest.raises(EpisodeDataError, match="is not a file"):
            read_text_file(Path(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "not an object"),
        (b"", "not JSON"),
    ],
)
def test_other_content_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(EpisodeDataError, match=message) as caught:
        read_json_object(path)
    assert str(path) in str(caught.value)


def test_missing_and_large(tmp_path):
    with pytest.raises(EpisodeDataError, match="No such file"):
        read_json(tmp_path / "none.json")
    path = tmp_path / "a.json"
    path.write_text("[1, 2, 3]")
    with pytest.raises(EpisodeDataError, match="9 bytes; at most 8"):
        read_json(path, limit=8)


def test_lines_are_read_and_only_the_last_may_be_cut_off(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert list(read_json_lines(path)) == [(1, {"a": 1}), (2, {"a": 2})]
    path.write_text("")
    assert list(read_json_lines(path)) == []
    for damaged in ('{"a": 1}\n{"a\n{"a": 3}\n', '{"a": 1}\n[3]\n', "3"):
        path.write_text(damaged)
        with pytest.raises(EpisodeDataError, match=r"a\.jsonl:[12] "):
            list(read_json_lines(path))
