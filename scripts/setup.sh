#!/bin/bash
# Make a virtual environment with Corten in it: setup.sh PYTHON VENV. Says what it does; can be run again.
# Installs the Debian packages that this needs (python3-venv, libseccomp2) where they are missing and apt is there.
set -euo pipefail
python=$1 venv=$2
log=$(mktemp)
trap 'status=$?; [ $status = 0 ] || { echo "set-up failed; the end of its log:"; tail -n 20 "$log"; }; rm -f "$log"' EXIT

apt_install() {
    echo "installing Debian packages: $*"
    command -v apt-get >/dev/null || { echo "apt-get is not here: install $* by hand" | tee -a "$log"; return 1; }
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >>"$log" 2>&1
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Corten needs Python 3.11 or newer; $python is older" | tee -a "$log"; exit 1; }
missing=()
ldconfig -p | grep -q libseccomp.so.2 || missing+=(libseccomp2)
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
[ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
echo "making $venv and installing Corten into it"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" >>"$log" 2>&1
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[test]' >>"$log" 2>&1
