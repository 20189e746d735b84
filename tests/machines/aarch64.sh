# A container engine's life on AArch64, from outside: run by tools/aarch64.py on an emulated machine.
set -eu
export PYTHONPATH=/run/checkout/src
export SAMPAN_HOST=unix:///run/s.sock
says() { # what is said must be found in what is printed
    expected=$1
    shift
    "$@" >/tmp/said 2>&1 || { echo "FAILED ($?): $*"; cat /tmp/said /tmp/log; exit 1; }
    grep -q -- "$expected" /tmp/said || { echo "FAILED, no '$expected': $*"; cat /tmp/said /tmp/log; exit 1; }
    echo "ok: $*"
}
sampan() { python3 -m sampan.cli -H $SAMPAN_HOST "$@"; }

python3 -m sampan.daemon --data-root /tmp/data --exec-root /run/exec --pidfile /run/pid --host $SAMPAN_HOST \
    --bridge arm0 --bip 10.77.0.1/24 >/tmp/log 2>&1 &
daemon=$!
for _ in $(seq 120); do [ -S /run/s.sock ] && break; sleep 1; done

says aarch64 sampan info
says "Ahoy" sampan run --rm hello-world
mkdir -p /tmp/root/bin /tmp/root/etc
cp /bin/busybox /tmp/root/bin/busybox
for applet in sh cat echo sleep uname mount mknod head ip ps id touch true; do
    ln -s busybox /tmp/root/bin/$applet
done
echo root:x:0:0:root:/:/bin/sh >/tmp/root/etc/passwd
tar -C /tmp/root -c . | sampan import - busybox >/dev/null

says aarch64 sampan run --rm busybox uname -m
says "^67108864" sampan run --rm --memory 64m busybox cat /sys/fs/cgroup/memory.max
says "Seccomp:.2" sampan run --rm busybox cat /proc/self/status
says "permission denied" sampan run --rm busybox sh -c 'mount -t tmpfs x /etc || true'
says "not permitted" sampan run --rm busybox sh -c 'mknod /k c 1 11; cat /k || true'
says "Read-only" sampan run --rm busybox sh -c 'echo x >/proc/sys/kernel/domainname || true'
says "uid=7 gid=8" sampan run --rm --user 7:8 busybox id
says docker-init sampan run --rm --init busybox ps
says "10.77.0" sampan run --rm busybox ip addr
says "/dev/pts/0" python3 -c '
import os, pty, sys
pty.spawn([sys.executable, "-m", "sampan.cli", "-H", os.environ["SAMPAN_HOST"],
           "run", "--rm", "-it", "busybox", "sh", "-c", "readlink -f /proc/self/fd/0 || busybox tty"])'
sampan run -d --name kept --pids-limit 20 busybox sh -c 'echo up; sleep 600; :' >/dev/null
says inside sampan exec kept echo inside
says "up" sampan logs kept
says kept sampan pause kept
says kept sampan unpause kept
kill -9 $daemon
sleep 1
python3 -m sampan.daemon --data-root /tmp/data --exec-root /run/exec --pidfile /run/pid --host $SAMPAN_HOST \
    --bridge arm0 --bip 10.77.0.1/24 >>/tmp/log 2>&1 &
for _ in $(seq 60); do sampan version >/dev/null 2>&1 && break; sleep 1; done
says again sampan exec kept echo again
says kept sampan stop -t 0 kept
says kept sampan rm kept
echo "all went well"
