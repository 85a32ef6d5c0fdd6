"""The option files that come with the package, found by name."""

from __future__ import annotations

from pathlib import Path, PurePath

from kd_plugins.messages import choose

_HERE = Path(__file__).parent


def bundled_option_files() -> dict[str, Path]:
    """All of them, by name: `slkd_derain`, `baselines/fitnet_derain`."""
    folder = _HERE / "option_files"  # in a wheel; in a checkout they stand beside the package
    folder = folder if folder.is_dir() else _HERE.parent / "options"
    files = sorted(folder.rglob("*.yml"), key=lambda path: (len(path.parts), path))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def find_option_file(text: str) -> str:
    """The option file that is meant: what is there, else the bundled one of this name, else the text as it is."""
    is_there = Path(text).exists() and not Path(text).is_dir()
    return text if is_there else str(bundled_option_files().get(text, text))


def unknown_name(name: str) -> str:
    """That there is no bundled option file of this name, and which is near."""
    name, names = name.removesuffix(".yml"), bundled_option_files()
    same = [known for known in names if PurePath(known).name == PurePath(name).name]  # with, or without, the folder
    return f"no bundled option file; nearest: {', '.join(same)}" if same else f"no bundled option file; {choose(name, names)}"


def bundled_option_file(name: str) -> Path:
    """A bundled option file.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in bundled_option_files():
        raise ValueError(f"{name}: {unknown_name(name)}")
    return bundled_option_files()[name]
