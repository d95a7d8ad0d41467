#!/bin/sh
# venv.sh DIRECTORY UV_REQUIREMENTS REQUIREMENTS: a virtual environment with exactly the locked packages.
# The same uv and the same lock files as `make setup`. tests/integrity/test_compose_image.py runs it without Docker.
set -eu
directory=$1
uv_requirements=$2
requirements=$3
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$uv_requirements"
export UV_PYTHON_DOWNLOADS=never
# uv reads neither pip's settings nor pip's environment
if [ -n "${PIP_INDEX_URL:-}" ]; then
    UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}
    export UV_DEFAULT_INDEX
fi
"$tools/bin/uv" venv --quiet --python "$tools/bin/python" "$directory"
"$tools/bin/uv" pip sync --quiet --python "$directory/bin/python" --require-hashes "$requirements"
