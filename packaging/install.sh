#!/bin/sh
# Installs Sampan from this checkout, or from a wheel, into an environment of its own. Read before you run it.
#
#   packaging/install.sh [--dry-run] [--with venv|pipx|pip] [--from SOURCE] [--systemd]
#   packaging/install.sh [--dry-run] --uninstall
#
# For root it makes /opt/sampan and links its commands into /usr/local/bin, with manual pages and completion in
# /usr/local/share; --systemd adds service, socket and group.
# For others pipx puts the commands into ~/.local, where the client alone is of use: the daemon needs root.
# A Python that its distribution looks after (PEP 668) is never written to.
set -eu

prefix=/opt/sampan
bin=/usr/local/bin
share=/usr/local/share
units=/etc/systemd/system
sysusers=/etc/sysusers.d
commands="sampan sampand sampan-runtime"

usage() {
    cat <<END
usage: install.sh [--dry-run] [--with venv|pipx|pip] [--from SOURCE] [--systemd]
       install.sh [--dry-run] --uninstall

  --with venv    an environment in $prefix, its commands linked from $bin (default for root)
  --with pipx    by pipx (default for others)
  --with pip     into the first Python on the PATH, unless the distribution looks after that
  --from SOURCE  what pip takes: a checkout (default: this one) or a wheel
  --systemd      install and start the service as well (with venv)
  --uninstall    remove what --with venv and --systemd have installed; images and volumes stay
  --dry-run      say what would be done, and do nothing
END
}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

# Every change goes through here.
run() {
    if [ "$dry" = yes ]; then
        printf '%s' "$1"
        shift
        printf ' %s' "$@"
        echo
    else
        "$@"
    fi
}

# What is there and was not put there by us is nobody's to overwrite.
is_ours() {
    [ ! -e "$1" ] && [ ! -L "$1" ] || [ "$(readlink "$1")" = "$prefix/bin/${1##*/}" ]
}

find_python() {
    for python in python3 python3.13 python3.12 python3.11; do
        if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return
        fi
    done
    fail "needs Python 3.11 or newer on the PATH: apt-get install python3"
}

check_machine() {
    [ "$(uname -s)" = Linux ] || fail "Sampan runs on Linux, not on $(uname -s)"
    case $(uname -m) in
    x86_64 | aarch64) ;;
    *) fail "needs a processor of the kind x86_64 or aarch64, and this is $(uname -m)" ;;
    esac
    if [ "$(dpkg-query -W -f '${db:Status-Status}' sampan 2>/dev/null)" = installed ]; then
        fail "the package sampan is installed, and would be in the way: apt-get remove sampan"
    fi
}

with_venv() {
    [ "$(id -u)" = 0 ] || [ "$dry" = yes ] || fail "only root may write to $prefix: use sudo, or --with pipx"
    "$python" -I -c 'import ensurepip, venv' 2>/dev/null ||
        fail "this Python cannot make environments: apt-get install python3-venv"
    [ ! -e "$prefix" ] || [ -e "$prefix/pyvenv.cfg" ] || fail "$prefix is there, and is no environment: move it away"
    for name in $commands; do
        is_ours "$bin/$name" || fail "$bin/$name is there, and not from here: move it away"
    done
    # An environment whose Python has gone is of no use; a working one is brought up to date, or left as it is.
    if "$prefix/bin/python" -I -c '' 2>/dev/null; then
        run "$prefix/bin/python" -I -m pip --disable-pip-version-check install -q --upgrade "$source"
    else
        run "$python" -I -m venv --clear "$prefix"
        run "$prefix/bin/python" -I -m pip --disable-pip-version-check install -q "$source" || {
            rm -rf "$prefix"
            fail "pip could not install $source"
        }
    fi
    run mkdir -p "$bin"
    for name in $commands; do
        run ln -sf "$prefix/bin/$name" "$bin/$name"
    done
    run "$prefix/bin/sampan" install-help --dir "$share"
}

with_pipx() {
    command -v pipx >/dev/null || fail "needs the program pipx: apt-get install pipx"
    run pipx install --force "$source"
}

# The file beside the standard library says that a distribution looks after it (PEP 668).
with_pip() {
    "$python" -I -c '
import os, sys, sysconfig
marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
sys.exit(sys.prefix == sys.base_prefix and os.path.exists(marker))' ||
        fail "$(command -v "$python") is looked after by the distribution (PEP 668): use --with venv, or pipx"
    "$python" -I -m pip --version >/dev/null 2>&1 || fail "this Python has no pip: apt-get install python3-pip"
    run "$python" -I -m pip --disable-pip-version-check install -q --upgrade "$source"
}

unit() {
    run cp "$here/systemd/$1" "$units/$1"
    run sed -i "s,^ExecStart=/usr/bin/,ExecStart=$bin/," "$units/$1"
}

install_service() {
    [ -d /run/systemd/system ] || [ "$dry" = yes ] || fail "no systemd runs here, so there is no service to start"
    unit sampan.service
    unit sampan.socket
    run mkdir -p "$sysusers"
    run cp "$here/systemd/sampan.sysusers" "$sysusers/sampan.conf"
    run systemd-sysusers "$sysusers/sampan.conf"
    run systemctl daemon-reload
    run systemctl enable -q --now sampan.socket sampan.service
    run systemctl restart sampan.service # containers live on
}

uninstall() {
    [ "$(id -u)" = 0 ] || [ "$dry" = yes ] || fail "only root may remove $prefix: use sudo"
    for name in $commands; do
        is_ours "$bin/$name" || fail "$bin/$name is not from here: nothing is removed"
    done
    [ ! -e "$prefix" ] || [ -e "$prefix/pyvenv.cfg" ] || fail "$prefix is no environment: nothing is removed"
    if [ -e "$units/sampan.service" ]; then
        run systemctl disable -q --now sampan.service sampan.socket
        run rm -f "$units/sampan.service" "$units/sampan.socket" "$sysusers/sampan.conf"
        run systemctl daemon-reload
    fi
    # As install-help --remove does, whose Python may have gone.
    run rm -f "$share/man/man1/sampan.1" "$share"/man/man1/sampan-*.1 "$share/man/man8/sampand.8" \
        "$share/bash-completion/completions/sampan" "$share/zsh/site-functions/_sampan" \
        "$share/fish/vendor_completions.d/sampan.fish"
    for name in $commands; do
        run rm -f "$bin/$name"
    done
    run rm -rf "$prefix"
}

dry=no
with=
source=
systemd=no
verb=install
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry=yes ;;
    --systemd) systemd=yes ;;
    --uninstall) verb=uninstall ;;
    --with | --from)
        [ $# -gt 1 ] || fail "$1 needs a value (see --help)"
        case $1 in
        --with) with=$2 ;;
        --from) source=$2 ;;
        esac
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) fail "unknown argument: $1 (see --help)" ;;
    esac
    shift
done

here=$(cd "$(dirname "$0")" && pwd)
if [ $verb = uninstall ]; then
    [ -z "$with$source" ] && [ $systemd = no ] || fail "--uninstall takes no other option than --dry-run"
    uninstall
    exit 0
fi
if [ -z "$with" ]; then
    if [ "$(id -u)" = 0 ]; then with=venv; else with=pipx; fi
fi
[ $systemd = no ] || [ "$with" = venv ] || fail "--systemd goes with --with venv alone"
[ -n "$source" ] || source=$(dirname "$here")
check_machine
find_python
case $with in
venv) with_venv ;;
pipx) with_pipx ;;
pip) with_pip ;;
*) fail "unknown way to install: $with (venv, pipx or pip)" ;;
esac
[ $systemd = no ] || install_service
[ "$dry" = yes ] || echo "installed; try: sampan run hello-world"
