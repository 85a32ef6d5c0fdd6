"""`basicsr init`: a bundled option file, to make one's own."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a copy of a bundled option file"
EXAMPLE = "basicsr init slkd_derain"
NEEDS_LIBRARIES = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add name and place."""
    parser.add_argument("name", nargs="?", help="which one; without it the names are listed")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to; by default NAME.yml in this folder")


def run(args: argparse.Namespace) -> int:
    """Write the file, or list the names.

    Raises:
        ValueError: no such name, or the place is taken.
    """
    from kd_plugins.option_library import bundled_option_file, bundled_option_files
    from kd_plugins.options import read_option_file
    from kd_plugins.yaml_loader import text_saying

    if args.name is None:
        for name, path in bundled_option_files().items():
            print(f"{name:40s} {path.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}")
        return 0
    source = bundled_option_file(args.name)
    target, opt = Path(args.output or f"{source.stem}.yml"), read_option_file(str(source)).opt
    text = text_saying(opt, source.read_text(encoding="utf-8"))  # its bases stay behind
    text = text.replace(f" options/{args.name}.yml", f" {target}", 1)  # in the command at its head
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{target} is there already: expected another -o FILE") from None
    except OSError as error:
        raise ValueError(f"{target}: cannot be written: {error.strerror}") from None
    command = f"basicsr {'train' if 'train' in opt else 'test'} -opt {target}"
    print(f"{target}: {f'`{command}`' if 'model_type' in opt else 'its first lines say how it is used'}")
    return 0
