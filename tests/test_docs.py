"""README.md and docs/*.md: each command line in them is one that there is, and what is marked `<!-- run -->` runs.

The marker, an HTML comment before a block, shows nowhere. A marked page is walked in a folder of its own, beside what a reader has:
`photos`, `rainy` and `clean`, and `my_restormer.pth`; its commands are run with few steps and small images.
"""

import argparse
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest
import torch
import yaml
from basicsr.archs import build_network
from markdown_it import MarkdownIt
from safetensors.torch import save_file
from skimage import data

from kd_plugins.checks import check_file
from kd_plugins.cli import COMMANDS, build_parser, main
from kd_plugins.options import OptionError, read_option_file
from kd_plugins.yaml_loader import load

ROOT = Path(__file__).parents[1]
PAGES = {file.name: file for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if "_build" not in file.parts}
MODULES = {name: import_module(f"kd_plugins.commands.{name}") for name in COMMANDS}
PARSER = build_parser(MODULES)
MARKER = "<!-- run -->"
MUST_RUN = ("README.md", "distill.md", "restore.md", "export.md", "benchmark.md", "students.md", "teachers.md", "options.md")
MUST_RUN += ("unlabelled.md", "inheritance.md")
NOT_HERE = re.compile(r"does not exist|no such file|missing, expected the weights")  # files that the reader has
OWN_FILES = {"my.yml", "base.yml"}  # option files that the reader has, beside those of `basicsr init`


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str
    runs: bool

    @property
    def commands(self) -> Iterator[list[str]]:
        """Each command as its words, without what stands before `basicsr` or `python`, as `torchrun` and settings of the shell."""
        said: dict[str, str] = {}
        for line in re.findall(r'(?:[^"\n]|"[^"]*")+', self.text.replace("\\\n", " ")):  # a line, or several between quotes
            text = line.strip().removeprefix("$ ")
            for name, value in said.items():
                text = text.replace(f"${name}", value)
            for statement in statements(text):
                if len(statement) == 1 and (found := re.fullmatch(r"([A-Z]\w*)=(.*)", statement[0], re.S)):
                    said[found[1]] = found[2]
                start = next((n for n, word in enumerate(statement) if word in ("basicsr", "python")), len(statement))
                program = statement[start : start + 2]
                if len(program) == 2 and not program[1].endswith(":") and program[1] != "COMMAND":  # `basicsr train: what it says`
                    yield statement[start:]


def statements(line: str) -> Iterator[list[str]]:
    """The commands of a line of a shell, as words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    try:
        words = [word for word in lexer if word != "..."]
    except ValueError:  # no such line: what a command says
        return
    for is_between, statement in groupby(words, lambda word: word != "" and set(word) <= set(";&|<>")):
        if not is_between:
            yield list(statement)


def blocks(page: str) -> list[Block]:
    found, before = [], None
    for token in MarkdownIt().parse(PAGES[page].read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block") and token.map:
            runs = before is not None and before.type == "html_block" and before.content.strip() == MARKER
            found.append(Block(page, token.map[0] + 1, token.info.strip(), token.content, runs))
        before = token
    return found


EVERY = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in EVERY if block.language in ("", "sh", "bash", "console")]


# ------------------------------------------------------------------------------------------------ what is there


def refused(parse) -> str:
    """What a parser says against a line; nothing where it takes it."""
    try:
        parse()
    except SystemExit as end:
        return "" if end.code in (0, None) else "refused"
    return ""


class _Parsed(Exception):
    pass


def parse_tool(words: list[str], monkeypatch) -> None:
    """Give the words to the parser of a tool, and no more."""
    take = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        take(self, args, namespace)
        raise _Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", words)
        patch.syspath_prepend(str(ROOT / "tools"))
        with pytest.raises(_Parsed):
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def wrong_options(args: argparse.Namespace, own: set[str]) -> str:
    """What an option file and its `--force_yml` have wrong, beside files that the reader has."""
    if Path(args.opt).name in own:
        return ""
    found = read_option_file(args.opt, args.force_yml)
    try:
        check_file(found, argparse.Namespace(auto_resume=False, debug=False, root_path=str(ROOT)), args.command != "test")
    except OptionError as error:
        return "\n".join(line for line in str(error).splitlines()[1:] if not NOT_HERE.search(line) and "(a warning)" not in line)
    return ""


def test_every_command_line_is_one_that_there_is(monkeypatch, capsys):
    wrong: list[str] = []
    known: dict[tuple[str, ...], str] = {}
    for block in SHELL:
        own = OWN_FILES | {f"{name}.yml" for name in re.findall(r"basicsr init (?:\w+/)?(\w+)", block.text)}
        for program, *words in block.commands:
            line = f"{block.page}:{block.line}: {program} {' '.join(words)}"
            if program == "python" and words[0].startswith("tools/"):
                if not (ROOT / words[0]).is_file() or refused(lambda: parse_tool(words, monkeypatch)):  # noqa: B023
                    wrong.append(f"{line}\n{capsys.readouterr().err}")
                named = [word for word in words if re.fullmatch(r"options/\S+\.yml", word)]
                wrong += [f"{line}: {word}: no such file" for word in named if not list(ROOT.glob(word))]
            elif program == "basicsr":
                args = argparse.Namespace()
                if refused(lambda: PARSER.parse_args(words, args)):  # noqa: B023
                    wrong.append(f"{line}\n{capsys.readouterr().err}")
                elif getattr(args, "opt", None):
                    key = (args.command, args.opt, *(args.force_yml or ()))
                    known.setdefault(key, wrong_options(args, own))
                    wrong += [f"{line}\n{known[key]}"] if known[key] else []
    assert not wrong, "\n".join(wrong)
    assert known


def test_commands_within_a_sentence_have_names_and_flags_that_there_are():
    wrong = []
    parsers = next(action for action in PARSER._actions if isinstance(action, argparse._SubParsersAction)).choices
    for page, file in PAGES.items():
        for token in MarkdownIt().parse(file.read_text(encoding="utf-8")):
            for text in (each.content for each in token.children or () if each.type == "code_inline"):
                _, *words = text.split() if text.startswith("basicsr ") else ("",)
                if not words or not words[0].islower():
                    continue
                flags = [word for word in words[1:] if re.match(r"--?[a-z]", word)]
                known = parsers[words[0]]._option_string_actions if words[0] in parsers else PARSER._option_string_actions
                if (words[0] not in parsers and words[0] not in known) or not set(flags) <= set(known):
                    wrong.append(f"{page}: {text}")
    assert not wrong, "\n".join(wrong)


def test_python_and_yaml_in_the_pages_can_be_read():
    for block in EVERY:
        if block.language == "python":
            compile(block.text, f"{block.page}:{block.line}", "exec")
        elif block.language in ("yaml", "yml"):
            assert load(block.text) is not None, f"{block.page}:{block.line}"
        elif block.language == "" and re.match(r"(network_g|teacher|init|datasets|_base_): ", block.text):
            for line in re.split(r"\n(?=\w)", block.text.strip()):
                yaml.safe_load(line)


# ------------------------------------------------------------------------------------------------ what runs


@pytest.fixture
def reader(tmp_path, monkeypatch, one_thread):
    """A folder with what a reader has."""
    from kd_plugins.archs import Restormer
    from kd_plugins.distill import images, plan, stages

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kd_plugins.deploy.benchmark.peak_memory", lambda *_: 3 << 20)  # a process for each network
    monkeypatch.setattr("kd_plugins.report.make.RESTORED", 32)
    monkeypatch.setattr(plan, "CROP", 32)
    monkeypatch.setattr(images, "_SIDE", 48)
    monkeypatch.setattr(stages, "_FORMS", (".pth", ".safetensors"))
    for folder in ("photos", "my_photos", "rainy", "clean"):
        Path(folder).mkdir()
        for name in ("astronaut", "coffee", "rocket"):
            image = getattr(data, name)()[100:148, 200:264, ::-1]
            cv2.imwrite(f"{folder}/{name}.png", cv2.blur(image, (3, 3)) if folder == "rainy" else image)
    torch.manual_seed(0)
    torch.save({"params": Restormer(dim=16, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1).state_dict()}, "my_restormer.pth")
    Path("my.yml").write_text("_base_: distill_derain\nname: mine\n")
    small = {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 1}
    weights = {name: 0.01 * weight for name, weight in build_network(dict(small)).state_dict().items()}
    save_file(weights, SMALL, metadata={"network": json.dumps(small)})
    return tmp_path


SMALL = "small.safetensors"
STEPS = ["train:total_iter=2", "logger:use_tb_logger=false", "num_threads=1", "val=null"]
STEPS += ["init={from: teacher, channels: magnitude, refit: false}"]


def cheaply(words: list[str]) -> list[str]:
    """A command with few steps, small images, and in what does not train a network of a layer or two."""
    command, *rest = ["photos" if word == "builtin" else word for word in words]
    if command == "distill":
        cheap = {"restormer_derain": "my_restormer.pth", "--flops": "--params", "0.2": "0.26"}
        rest = [cheap.get(word, word) for word in rest]
        rest += ["--steps", "2", "--threads", "1", "--device", "cpu"]
    if command == "train":
        at = rest.index("--force_yml") + 1 if "--force_yml" in rest else len(rest)
        rest[at:at] = [*(["--force_yml"] if at == len(rest) else []), *STEPS]
    if command in ("export", "benchmark", "restore"):
        for at in [number + 1 for number, word in enumerate(rest) if word == "-m"]:
            assert "/" not in rest[at] or Path(rest[at]).is_file(), rest[at]
            rest[at] = rest[at] if rest[at].endswith(".onnx") else SMALL
    if "--size" in rest:
        rest[rest.index("--size") + 1] = "32"
    return [command, *rest]


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.runs for block in blocks(page))])
def test_what_is_marked_on_a_page_runs(page, reader, capfd):
    names: dict = {}
    for block in blocks(page):
        if block.runs and block.language == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)  # noqa: S102 (our own page)
        elif block.runs:
            lines = list(block.commands)
            assert lines, f"{page}:{block.line}: no command"
            for program, *words in lines:
                assert program == "basicsr", f"{page}:{block.line}"
                assert main(cheaply(words)) == 0, f"{page}:{block.line}: {' '.join(words)}\n{capfd.readouterr().err}"


def test_each_how_to_page_has_something_that_runs():
    assert set(MUST_RUN) <= {block.page for block in EVERY if block.runs}
