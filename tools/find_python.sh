#!/bin/sh
# Prints a Python that kd_plugins runs on: `sh tools/find_python.sh [PYTHON ...]`.
# The names given are tried in their order, or the usual ones. Each is run: a name on the PATH may be a shim that fails.

if [ "$#" -eq 0 ]; then
    set -- python3.12 python3.11 python3.10 python3 python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[0-2].*/bin/python
fi

found=""
for python in "$@"; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case "$version" in
        3.10 | 3.11 | 3.12)
            if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
                printf '%s\n' "$python"
                exit 0
            fi
            version="$version without the venv module"
            ;;
    esac
    found="$found${found:+, }$python ($version)"
done

echo "kd_plugins needs Python 3.10, 3.11 or 3.12 with its venv module; found: ${found:-none of $*}." >&2
exit 1
