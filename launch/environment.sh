# Functions that create the virtual environment .venv and install this project into it. Other scripts source this file.
# shellcheck shell=bash

find_python() {  # prints the newest suitable Python, 3.13 to 3.11
  local candidate
  for candidate in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13.*/bin/python \
                   python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python \
                   python3.11 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.11.*/bin/python python3; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
        >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  echo "lgg_jax: no Python 3.11 to 3.13 with venv found; install one (Debian: apt-get install python3 python3-venv)" >&2
  return 2
}

make_environment() {  # make_environment EXTRA...: create .venv with the project (editable) and these extras
  local python
  if [ ! -x .venv/bin/python ]; then
    python=$(find_python) || exit 2
    "$python" -m venv .venv
  fi
  echo "Python: $(.venv/bin/python --version) in $PWD/.venv"
  # If everything is installed already, pip changes nothing and takes a second or two.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${*:+[$(IFS=,; echo "$*")]}"
}
