#!/bin/bash
# Runs in the virtual machine: the tests named in /corten/tests, for at most /corten/seconds, results into /corten/results, progress to
# the console. Out of time, pytest is interrupted as by Ctrl-C: what it has is reported.
cd /corten/checkout || exit 1
export CORTEN_ASSETS=/corten/assets CORTEN_TEST_PATIENCE=${CORTEN_TEST_PATIENCE:-6} HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
say() { echo "corten-vm: $*" >/dev/ttyS0; }
say "kernel $(uname -r), $(systemctl --version | head -n 1), cgroup $(stat -fc %T /sys/fs/cgroup), AppArmor $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo -)"
/opt/corten/bin/python - <<'P' >/corten/results/facts.json
import json, os, platform
with open("/etc/debian_version") as file:
    version = file.read().strip()
print(json.dumps({"kernel": os.uname().release, "system": f"Debian {version}", "python": platform.python_version()}))
P
/opt/corten/bin/python -m compileall -q src tests >/dev/null
mapfile -t tests </corten/tests
timeout --foreground -s INT -k 120 "$(cat /corten/seconds)" /opt/corten/bin/python -m pytest -vv -p no:cacheprovider --timeout 600 --junitxml=/corten/results/junit.xml "${tests[@]}" 2>&1 \
    | tee >(grep --line-buffered -E 'PASSED|FAILED|ERROR|SKIPPED|(passed|failed).* in |left behind' | sed -u 's/^/corten-vm: /' >/dev/ttyS0)
status=${PIPESTATUS[0]}
echo "$status" >/corten/results/status
sed -n 's/.*collected \([0-9]*\) item.*/\1/p' /corten/results/log | head -n 1 >/corten/results/collected
journalctl -b --no-pager >/corten/results/journal 2>&1
say "pytest ended with $status"
sync
systemctl poweroff --force
