"""Entries of `--force_yml`."""

import pytest

from kd_plugins.options import OptionError, force_options


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("a:b=1e-4", {"a": {"b": 1e-4, "c": 2}}),
        ("a:b=[1, 2.5, x]", {"a": {"b": [1, 2.5, "x"], "c": 2}}),
        ("a:b={c: {d: 1}}", {"a": {"b": {"c": {"d": 1}}, "c": 2}}),
        ("a:b=~", {"a": {"b": None, "c": 2}}),
        ("a:b=true", {"a": {"b": True, "c": 2}}),
        ("a:b=", {"a": {"b": None, "c": 2}}),
        ("a:b=x=y", {"a": {"b": "x=y", "c": 2}}),
        ("a=3", {"a": 3}),
        ("a:new=5", {"a": {"b": 1, "c": 2, "new": 5}}),
        ("x:y:z=5", {"a": {"b": 1, "c": 2}, "x": {"y": {"z": 5}}}),
        (" a : b = 7", {"a": {"b": 7, "c": 2}}),
    ],
)
def test_an_entry_sets_any_yaml_value(entry, expected):
    opt = {"a": {"b": 1, "c": 2}}
    force_options(opt, [entry])
    assert opt == expected and type(opt["a"]) is type(expected["a"])


def test_entries_are_applied_in_order():
    opt = {}
    force_options(opt, ["a:b=1", "a:c=2", "a:b=3"])
    assert opt == {"a": {"b": 3, "c": 2}}


def test_below_an_empty_key_a_mapping_is_made():
    opt = {"path": None}  # `path:` with nothing after it
    force_options(opt, ["path:resume_state=a.state"])
    assert opt == {"path": {"resume_state": "a.state"}}


@pytest.mark.parametrize("entry", ["a", "a:b", "=1", "a:=1", ":a=1", "a::b=1", ""])
def test_what_is_no_entry_says_what_one_looks_like(entry):
    with pytest.raises(OptionError, match=f"--force_yml {entry}: expected key:subkey=value"):
        force_options({"a": {"b": 1}}, [entry])


@pytest.mark.parametrize(("entry", "where"), [("a:b:c=1", "a:b is 1"), ("a:l:0=1", r"a:l is \[1, 2\]"), ("t:x=1", "t is 'text'")])
def test_a_path_through_something_else_is_refused(entry, where):
    opt = {"a": {"b": 1, "l": [1, 2]}, "t": "text"}
    with pytest.raises(OptionError, match=f"--force_yml {entry}: {where}, it has no keys below it"):
        force_options(opt, [entry])
    assert opt == {"a": {"b": 1, "l": [1, 2]}, "t": "text"}


@pytest.mark.parametrize("text", ["[1", "!!python/object/apply:os.getcwd []", "{a: b", "*x", "2025-13-01"])
def test_a_value_that_is_not_safe_yaml_is_refused(text):
    with pytest.raises(OptionError, match="is not a YAML value"):
        force_options({}, [f"a={text}"])
