"""`basicsr check`: an option file is checked, and nothing else is done."""

from __future__ import annotations

import argparse
import json
import os
import sys

from kd_plugins.mappings import mapping
from kd_plugins.options import add_option_file, read_option_file

HELP = "check an option file, and do nothing else"
EXAMPLE = "basicsr check -opt slkd_derain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option file, or the question for the schema."""
    what = parser.add_mutually_exclusive_group(required=True)
    add_option_file(parser, what)
    what.add_argument("--schema", action="store_true", help="print the JSON schema of option files, for editors")


def run(args: argparse.Namespace) -> int:
    """Check an option file as the command would that it is for, or print the JSON schema of all option files.

    Raises:
        OptionError: see `check_file`, `read_option_file`.
    """
    from kd_plugins.checks import check_file, json_schema

    if args.schema:
        print(json.dumps(json_schema(), indent=1))
        return 0
    found = read_option_file(args.opt, args.force_yml)
    is_train = any(str(phase).split("_")[0] == "train" for phase in mapping(found.opt.get("datasets")))
    args.auto_resume, args.debug, args.root_path = False, False, os.getcwd()
    for warning in check_file(found, args, is_train):
        print(f"{warning} (a warning)", file=sys.stderr)
    print(f"{args.opt}: fine, for `basicsr {'train' if is_train else 'test'}`")
    return 0
