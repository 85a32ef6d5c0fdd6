"""What a check found: one line each, all of them at once."""

from __future__ import annotations

from kd_plugins.arguments import Path
from kd_plugins.options import OptionError, OptionFile, Place


class Findings:
    """Collects errors and warnings about the keys of an option file.

    Args:
        found: the file.
    """

    def __init__(self, found: OptionFile) -> None:
        self.found = found
        self._errors: list[tuple[Place, str]] = []
        self._warnings: list[tuple[Place, str]] = []
        self._wrong: set[Path] = set()
        self.files: dict[Path, str] = {}

    def error(self, path: Path, text: str) -> None:
        """Note what keeps a run from starting."""
        self._errors.append(self._line(path, text))
        self._wrong.add(path)

    def has_error(self, path: Path) -> bool:
        """Whether there is an error about a key, or about one above it or below it."""
        return any(path[: len(wrong)] == wrong[: len(path)] for wrong in self._wrong)

    def warning(self, path: Path, text: str) -> None:
        """Note what does not."""
        self._warnings.append(self._line(path, text))

    def file(self, path: Path, name: str) -> None:
        """Note the name of a file that has to be there, for `check_paths`."""
        self.files[path] = name

    def _line(self, path: Path, text: str) -> tuple[Place, str]:
        place = self.found.place(path)
        return place, f"{place}: {':'.join(path)}: {text}"

    def close(self) -> list[str]:
        """The warnings, in the order of the file.

        Raises:
            OptionError: there are errors; it has them all, and the warnings.
        """
        errors, warnings = (
            [line for _, line in sorted(lines, key=lambda line: line[0])] for lines in (self._errors, self._warnings)
        )
        if errors:
            count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
            notes = [f"{line} (a warning)" for line in warnings]
            raise OptionError("\n".join((f"{self.found.file}: {count}, nothing was started", *notes, *errors)))
        return warnings
