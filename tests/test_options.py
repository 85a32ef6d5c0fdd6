"""Option files."""

import itertools
from pathlib import Path

import pytest
import yaml
from option_texts import MINIMAL

from kd_plugins.options import OptionError, force_options, option_errors, read_option_file, read_options

# ------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "2e5", "+1.5e-3", "-.5e2", "1.e4", "0.5", "300", ".inf"])
def test_numbers_are_numbers(write, text):
    value = read_options(write(MINIMAL + f"value: {text}\n"))["value"]
    assert type(value) is (int if text == "300" else float)
    assert value == float(text.replace(".inf", "inf"))


@pytest.mark.parametrize("text", ["1e", "e5", "1e-4x", "1-4", "'1e-4'", "v1e4", "1.2.3"])
def test_what_only_looks_like_a_number_stays_text(write, text):
    assert read_options(write(MINIMAL + f"value: {text}\n"))["value"] == text.strip("'")


def test_the_rest_of_yaml_is_as_ever(write):
    opt = read_options(write(MINIMAL + "a: [1, true, ~, x]\nb: {c: 'é'}\nd: &anchor {e: 1}\nf: *anchor\n"))
    assert opt["a"] == [1, True, None, "x"] and opt["b"] == {"c": "é"} and opt["f"] == {"e": 1}
    assert opt["train"]["optim_g"]["lr"] == 1e-4
    assert list(opt)[:3] == ["name", "model_type", "num_gpu"]  # in the file's order


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir"])
def test_code_in_the_file_is_refused_and_not_run(write, tmp_path, tag):
    arguments = "" if "name" in tag else f" ['{tmp_path / 'ran'}']"
    file = write(MINIMAL + f"extra: {tag}{arguments}\n")
    with pytest.raises(OptionError, match=r"options\.yml: not a valid option file: (.|\n)*python"):
        read_options(file)
    assert not (tmp_path / "ran").exists()
    if "apply" in tag:  # the file is as dangerous as it was meant to be
        with open(file, encoding="utf-8") as stream:
            yaml.load(stream, Loader=yaml.UnsafeLoader)
        assert (tmp_path / "ran").exists()


def test_a_missing_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(OptionError, match=r"-opt .*none\.yml: no such file \(looked from /?.+\)"):
        read_options(str(tmp_path / "none.yml"))
    with pytest.raises(OptionError, match="a folder"):
        read_options(str(tmp_path))


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tx: 1", "a: *nowhere"])
def test_what_is_not_yaml_names_the_line(write, text):
    with pytest.raises(OptionError, match="not a valid option file: (.|\n)*line"):
        read_options(write(text))


@pytest.mark.parametrize("text", ['!!int ""', "!!float ''", "!!bool x", "!!timestamp x", "2025-13-01", "1" * 5000])
def test_a_value_that_is_not_what_its_tag_says_is_named_with_its_line(write, text):
    with pytest.raises(OptionError, match=r"options\.yml: not a valid option file: '.{0,100}' is no \w+\n.*\.yml\", line \d+"):
        read_options(write(MINIMAL + f"note: {text}\n"))


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "[" * 120 + "]" * 120])
def test_a_file_that_is_nested_without_end_is_refused(write, text):
    with pytest.raises(OptionError, match="nested in more than 100 levels"):
        read_options(write(MINIMAL + f"note: {text}\n"))
    assert read_options(write(MINIMAL + f"note: {'[' * 90}{']' * 90}\n"))["note"]


@pytest.mark.parametrize(
    ("first", "further"),
    [("[1]", "[{0}, {0}]"), ("{k: 1}", "{{a: {0}, b: {0}}}"), ("{k: 1}", "{{<<: [{0}, {0}]}}"), ("[1]", "[{0}]")],
    ids=["lists", "mappings", "merges", "levels"],
)
def test_aliases_that_repeat_each_other_without_end_are_refused_wherever_they_are_read(write, first, further):
    def text(count):
        lines = [f"x-{n}: &a{n} {further.format(f'*a{n - 1}')}" for n in range(1, count)]
        return "\n".join([MINIMAL, f"x-0: &a0 {first}", *lines]) + "\n"

    for read in (read_options, read_option_file):
        with pytest.raises(OptionError, match="aliases repeat what they stand for until there are more than 100000 values, or 100"):
            read(write(text(300)))
        assert read(write(text(9)))
    pairs = ", ".join(f"&{name} [*{before}, *{before}]" for before, name in itertools.pairwise("abcdefghijklmnopqrstu"))
    inline = f"[&a [1], {pairs}]"
    with pytest.raises(OptionError, match="is not a YAML value .aliases repeat"):
        force_options({}, [f"a={inline}"])


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "options.yml").write_bytes(MINIMAL.encode() + b"note: \xe9\n")
    with pytest.raises(OptionError, match="not a valid option file: .*utf-8"):
        read_options(str(tmp_path / "options.yml"))


@pytest.mark.parametrize(("text", "kind"), [("- a\n- b", "list"), ("just words", "str"), ("", "nothing")])
def test_what_is_not_a_mapping_is_refused(write, text, kind):
    with pytest.raises(OptionError, match=f"expected `key: value` lines at the top, got {kind}"):
        read_options(write(text))


def test_missing_keys_are_all_named(write):
    with pytest.raises(OptionError, match=r"missing key\(s\) model_type, network_g"):
        read_options(write("name: a\ndatasets: {}\n"))
    with pytest.raises(OptionError, match=r"missing key\(s\) datasets$"):
        read_options(write("name: a\nmodel_type: b\ndatasets:\nnetwork_g: {type: c}\n"))


# ------------------------------------------------------------------------------------------------ where a key stands


def test_keys_know_their_lines_and_what_force_yml_says(write):
    train = "train:\n  optim_g:\n    lr: 1e-4\n  steps: [1, {a: 2}]"
    file = write(MINIMAL.replace("train: {optim_g: {type: Adam, lr: 1e-4}}", train))
    found = read_option_file(file, ["datasets:train:name=other", "logger:print_freq=1"])
    lines = Path(file).read_text().splitlines()
    expected = {("name",): "name: trial", ("train", "optim_g", "lr"): "    lr: 1e-4", ("train", "steps", "1", "a"): "  steps: ["}
    for path, text in expected.items():
        assert lines[found.place(path).line - 1].startswith(text)
    assert found.place(("train", "optim_g", "none")) == found.place(("train", "optim_g"))  # the nearest above
    assert str(found.place(("datasets", "train", "name"))) == "--force_yml" and found.opt["datasets"]["train"]["name"] == "other"
    assert str(found.place(("datasets", "train", "type"))) == f"{file}:8"
    assert found.twice == {}


def test_keys_that_stand_twice_are_found(write):
    file = write("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    assert read_option_file(file).twice == {("b", "c"): f"in lines 2 and 2 of {file}", ("a",): f"in lines 1 and 3 of {file}"}


def test_a_file_that_holds_itself_is_read(write):
    assert read_option_file(write("a: &a {b: 1, again: *a}\n")).places[("a", "b")].line == 1


# ------------------------------------------------------------------------------------------------ while things are built


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyError("bad"), FileNotFoundError("bad"), NotADirectoryError("bad")], ids=repr
)
def test_errors_of_building_name_the_option_file(error):
    with pytest.raises(OptionError, match=r"^a\.yml: bad$") as caught, option_errors("a.yml"):
        raise error
    assert caught.value.__cause__ is error


def test_other_errors_are_not_options():
    with pytest.raises(RuntimeError, match="^bad$"), option_errors("a.yml"):
        raise RuntimeError("bad")
    with option_errors("a.yml"):
        pass
