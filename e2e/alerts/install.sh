#!/bin/sh
# install.sh gets what the tests beside it run: Debian's Prometheus with promtool,
# Alertmanager with amtool, and Nagios 4 with its basic plugins.
#
# They are unpacked in a folder of the user's cache. Nothing is installed on the
# system, and nothing is started; of what the packages depend on, the system has the
# libraries, and what else is missing the tests do without. When all is there it says
# nothing and needs no network. It needs apt-get and dpkg, and not to be root.
set -eu

packages='prometheus prometheus-alertmanager nagios4-core nagios4-common monitoring-plugins-basic monitoring-plugins-common'

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/outrider-e2e
want=$(sha256sum "$here/install.sh" | cut -d ' ' -f 1)

there() { [ "$(cat "$cache/alerts/installed" 2>/dev/null)" = "$want" ]; }
fail() { echo "$0: $*" >&2; exit 1; }

there && exit 0
for tool in apt-get dpkg flock; do
	command -v "$tool" >/dev/null || fail "got no $tool, want Debian 12 or later"
done
mkdir -p "$cache"
exec 9>"$cache/alerts.lock"
flock 9
there && exit 0

work=$(mktemp -d "$cache/alerts.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# apt calls apt-get with lists and a cache of its own if it must: those of the
# system may be missing or old, and are not ours to change.
own_lists=
apt() {
	if [ "$own_lists" ]; then
		set -- -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/apt" "$@"
	fi
	apt-get -q -q -o APT::Sandbox::User= "$@"
}

mkdir "$work/debs" "$work/root"
cd "$work/debs"
# shellcheck disable=SC2086 # one word a package
if ! apt download $packages 2>"$work/errors"; then
	own_lists=yes
	mkdir -p "$work/lists/partial" "$work/apt/archives/partial"
	apt update
	apt download $packages
fi
for deb in ./*.deb; do
	dpkg -x "$deb" "$work/root"
	echo "$cache/alerts: $(dpkg-deb -f "$deb" Package Version | sed 's/.*: //' | paste -s -d ' ')"
done
echo "$want" >"$work/root/installed"
rm -rf "$cache/alerts"
mv "$work/root" "$cache/alerts"
