#!/usr/bin/env bash
# Installation into .venv, lint and the whole test suite:  bash launch/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment test
.venv/bin/ruff check .
.venv/bin/lint-imports --no-cache
.venv/bin/python -m pytest -n 2 "$@"
