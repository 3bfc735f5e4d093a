#!/usr/bin/env bash
# Installs what the tests in this folder run: Debian's Redis, Celery and Python
# client of Prometheus, and the Celery exporter from PyPI with all versions pinned
# in testdata/exporter.txt. It needs apt-get, dpkg, and Debian's Python 3.11 or
# later with venv, and not to be root: everything goes to one folder of the cache,
# nothing is installed on the system, and nothing is started. The second time it
# does nothing.
set -euo pipefail
cd "$(dirname "$0")"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/outrider-e2e
root=$cache/neighbours
packages=(redis-server celery python3-celery python3-redis python3-prometheus-client)
want=$(cat install.sh testdata/exporter.txt | sha256sum | cut -d' ' -f1)

[ "$(cat "$root/installed" 2>/dev/null)" != "$want" ] || exit 0

fail() { echo "$0: $*" >&2; exit 1; }

for tool in apt-get dpkg flock /usr/bin/python3; do
	command -v "$tool" >/dev/null || fail "got no $tool, want Debian 12 or later"
done
/usr/bin/python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' ||
	fail "got $(/usr/bin/python3 --version), want 3.11 or later with python3-venv"

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ "$(cat "$root/installed" 2>/dev/null)" != "$want" ] || exit 0

echo "==> installing Redis, Celery and its exporter in $root: about a minute, once"
rm -rf "$root"
mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial" "$root/debs" "$root/system"

# apt-get with lists of its own, so that those of the system stay as they are.
log=$root/log
apt() { apt-get -qq -o "Dir::State::lists=$root/apt/lists" -o "Dir::Cache=$root/apt/cache" -o APT::Sandbox::User= "$@"; }
apt update >>"$log" 2>&1 || fail "apt-get update: $(tail -n 3 "$log")"
missing=$(apt --simulate --no-install-recommends install "${packages[@]}" 2>>"$log" | awk '$1 == "Inst" { print $2 }') ||
	fail "${packages[*]}: $(tail -n 3 "$log")"
if [ -n "$missing" ]; then
	# shellcheck disable=SC2086 # one word a package
	(cd "$root/debs" && apt download $missing >>"$log" 2>&1) || fail "apt-get download: $(tail -n 3 "$log")"
	for deb in "$root"/debs/*.deb; do
		dpkg -x "$deb" "$root/system"
	done
fi
rm -rf "$root/apt" "$root/debs"

/usr/bin/python3 -m venv "$root/venv"
"$root/venv/bin/pip" install --quiet --no-deps -r testdata/exporter.txt >>"$log" 2>&1 || fail "pip install: $(tail -n 3 "$log")"

echo "$want" >"$root/installed"
