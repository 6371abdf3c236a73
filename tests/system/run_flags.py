"""The flags of `docker run` as rows: what to give, and where its effect shows. test_run_flags.py runs them.

INSIDE: arguments, a script, a pattern of its standard output. GROUP: arguments, file of the container's control group on version 1 and
its value, the same on version 2. SHOWN: arguments, a key of inspect, its value. REFUSED: arguments, a pattern of the error.
"""

from __future__ import annotations

from typing import Any

INSIDE: dict[str, tuple[list[str], str, str]] = {
    "--add-host": (["--add-host", "far:10.1.2.3", "--add-host", "gate:host-gateway"], "cat /etc/hosts", r"(?m)^10\.1\.2\.3\s+far$(.|\n)*^\d+\.\d+\.\d+\.\d+\s+gate$"),
    "--cap-add": (["--cap-add", "NET_ADMIN"], "grep CapEff /proc/self/status", "00000000a80435fb"),
    "--cap-drop": (["--cap-drop", "ALL"], "grep CapEff /proc/self/status", "0000000000000000"),
    "--cpuset-cpus": (["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status", r"\t0$"),
    "--cpuset-mems": (["--cpuset-mems", "0"], "grep Mems_allowed_list /proc/self/status", r"\t0$"),
    "--device": (["--device", "/dev/null:/dev/mine:r"], "ls -l /dev/mine; echo x > /dev/mine || echo readonly", r"^crw.* 1, +3 "),
    "--device-cgroup-rule": (["--device-cgroup-rule", "c 10:229 rwm"], "mknod /n c 10 229; (: < /n) 2>&1; echo end", r"^((?!not permitted)(.|\n))*end$"),
    "--dns": (["--dns", "9.9.9.9"], "cat /etc/resolv.conf", r"nameserver 9\.9\.9\.9"),
    "--dns-option": (["--dns-option", "attempts:7"], "cat /etc/resolv.conf", "options.* attempts:7"),
    "--dns-search": (["--dns-search", "corten.test"], "cat /etc/resolv.conf", r"search corten\.test"),
    "--domainname": (["--domainname", "corten.test"], "cat /proc/sys/kernel/domainname", r"corten\.test"),
    "--entrypoint": (["--entrypoint", "/bin/echo"], "rest", r"^sh -c rest|^-c rest"),
    "--env": (["-e", "A=b c", "-e", "HOME=/h"], "echo $A $HOME", "^b c /h$"),
    "--group-add": (["--group-add", "audio", "--group-add", "4242"], "id -G", r"\b29\b.*\b4242\b|\b\d+ 4242\b"),
    "--hostname": (["--hostname", "boat"], "hostname; grep boat /etc/hosts /etc/hostname", "^boat\n/etc/hosts:(.|\n)*/etc/hostname:boat"),
    "--init": (["--init"], "cat /proc/1/comm", "^docker-init$"),
    "--ipc": (["--ipc", "none"], "test -d /dev/shm && mountpoint -q /dev/shm || echo none", "none"),
    "--isolation": (["--isolation", "default"], "echo runs", "runs"),
    "--disable-content-trust": (["--disable-content-trust"], "echo runs", "runs"),
    "--mac-address": (["--mac-address", "02:42:c0:ff:ee:01"], "cat /sys/class/net/eth0/address", "02:42:c0:ff:ee:01"),
    "--mount": (["--mount", "type=tmpfs,destination=/t,tmpfs-size=1m"], "grep ' /t ' /proc/mounts", "^tmpfs /t tmpfs .*size=1024k"),
    "--network": (["--network", "none"], "ls /sys/class/net", "^lo\n$"),
    "--oom-score-adj": (["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "^500$"),
    "--platform": (["--platform", "linux/amd64"], "uname -m", "x86_64"),
    "--privileged": (["--privileged"], "mount -t tmpfs x /tmp && echo mounted; test -w /proc/sys/kernel/panic && echo open", "mounted\nopen"),
    "--quiet": (["--quiet"], "echo runs", "^runs$"),
    "--read-only": (["--read-only"], "touch /x 2>&1", "Read-only file system"),
    "--runtime": (["--runtime", "corten"], "echo runs", "runs"),
    "--security-opt": (["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"],
                       "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status", "NoNewPrivs:\t1\nSeccomp:\t0"),
    "--shm-size": (["--shm-size", "1m"], "grep /dev/shm /proc/mounts", "size=1024k"),
    "--sysctl": (["--sysctl", "net.ipv4.ip_default_ttl=99"], "cat /proc/sys/net/ipv4/ip_default_ttl", "^99$"),
    "--tmpfs": (["--tmpfs", "/t:size=2m,exec"], "grep ' /t ' /proc/mounts", r"^tmpfs /t tmpfs rw,nosuid,nodev,(?!.*noexec).*size=2048k"),
    "--ulimit": (["--ulimit", "nofile=111:222"], "ulimit -Sn; ulimit -Hn", "^111\n222$"),
    "--user": (["--user", "daemon:29"], "id -un; id -g", "^daemon\n29$"),
    "--userns": (["--userns", "host"], "cat /proc/self/uid_map", r"^\s+0\s+0\s+4294967295$"),
    "--workdir": (["--workdir", "/made/here"], "pwd", "^/made/here$"),
}  # fmt: skip

GROUP: dict[str, tuple[list[str], str, str, str, str]] = {
    "--cpu-period": (["--cpu-period", "50000"], "cpu.cfs_period_us", "50000", "cpu.max", "max 50000"),
    "--cpu-quota": (["--cpu-quota", "30000"], "cpu.cfs_quota_us", "30000", "cpu.max", "30000 100000"),
    "--cpu-shares": (["--cpu-shares", "512"], "cpu.shares", "512", "cpu.weight", "20"),
    "--cpus": (["--cpus", "0.5"], "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000"),
    "--cpu-rt-period": (["--cpu-rt-period", "500000"], "cpu.rt_period_us", "500000", "", ""),
    "--memory": (["--memory", "64m"], "memory.limit_in_bytes", "67108864", "memory.max", "67108864"),
    "--memory-reservation": (["--memory-reservation", "32m"], "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"),
    "--memory-swap": (["--memory", "64m", "--memory-swap", "96m"], "memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432"),
    "--memory-swappiness": (["--memory-swappiness", "33"], "memory.swappiness", "33", "", ""),
    "--oom-kill-disable": (["--memory", "64m", "--oom-kill-disable"], "memory.oom_control", "oom_kill_disable 1", "", ""),
    "--pids-limit": (["--pids-limit", "44"], "pids.max", "44", "pids.max", "44"),
    "--blkio-weight": (["--blkio-weight", "300"], "blkio.bfq.weight", "300", "io.bfq.weight", "default 300"),
    "--blkio-weight-device": (["--blkio-weight-device", "DISK:300"], "blkio.bfq.weight_device", "NUMBER 300", "io.bfq.weight", "NUMBER 300"),
    "--device-read-bps": (["--device-read-bps", "DISK:1mb"], "blkio.throttle.read_bps_device", "NUMBER 1048576", "io.max", "NUMBER rbps=1048576"),
    "--device-write-bps": (["--device-write-bps", "DISK:2mb"], "blkio.throttle.write_bps_device", "NUMBER 2097152", "io.max", "NUMBER .*wbps=2097152"),
    "--device-read-iops": (["--device-read-iops", "DISK:300"], "blkio.throttle.read_iops_device", "NUMBER 300", "io.max", "NUMBER .*riops=300"),
    "--device-write-iops": (["--device-write-iops", "DISK:400"], "blkio.throttle.write_iops_device", "NUMBER 400", "io.max", "NUMBER .*wiops=400"),
}  # fmt: skip

SHOWN: dict[str, tuple[list[str], str, Any]] = {
    "--annotation": (["--annotation", "a.b=c"], "HostConfig.Annotations", {"a.b": "c"}),
    "--expose": (["--expose", "9000-9001/udp"], "Config.ExposedPorts", {"9000/udp": {}, "9001/udp": {}}),
    "--health-interval": (["--health-cmd", "true", "--health-interval", "2s"], "Config.Healthcheck.Interval", 2_000_000_000),
    "--health-retries": (["--health-cmd", "true", "--health-retries", "4"], "Config.Healthcheck.Retries", 4),
    "--health-start-interval": (["--health-cmd", "true", "--health-start-interval", "2s"], "Config.Healthcheck.StartInterval", 2_000_000_000),
    "--health-start-period": (["--health-cmd", "true", "--health-start-period", "9s"], "Config.Healthcheck.StartPeriod", 9_000_000_000),
    "--health-timeout": (["--health-cmd", "true", "--health-timeout", "3s"], "Config.Healthcheck.Timeout", 3_000_000_000),
    "--label": (["--label", "x=y"], "Config.Labels", {"x": "y"}),
    "--log-opt": (["--log-opt", "max-size=1m", "--log-opt", "max-file=2"], "HostConfig.LogConfig.Config", {"max-size": "1m", "max-file": "2"}),
    "--no-healthcheck": (["--no-healthcheck"], "Config.Healthcheck.Test", ["NONE"]),
    "--restart": (["--restart", "on-failure:3"], "HostConfig.RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
    "--stop-signal": (["--stop-signal", "SIGQUIT"], "Config.StopSignal", "SIGQUIT"),
    "--stop-timeout": (["--stop-timeout", "3"], "Config.StopTimeout", 3),
    "--volume-driver": (["--volume-driver", "local", "-v", "VOLUME:/v"], "HostConfig.VolumeDriver", "local"),
}  # fmt: skip

# The CLI itself refuses these; what the engine says to their keys is in tests/conformance.
_WINDOWS = "is only supported on a Docker daemon running on windows"
REFUSED: dict[str, tuple[list[str], str]] = {
    flag: ([flag, "1"], _WINDOWS) for flag in ("--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops")
}
