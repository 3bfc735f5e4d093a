#!/bin/sh
# install.sh gets the servers that the tests beside it talk to: Debian's
# Prometheus and VictoriaMetrics, statsd_exporter and Datadog's OpenMetrics check.
#
# Everything goes into a folder of the user's cache. Nothing is installed on the
# system, and nothing is started. What is there already is left alone: when all is,
# it says nothing and needs no network.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/outrider-e2e/series
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# apt calls apt-get with lists and a cache of its own if it must: those of the
# system may be missing or old, and are not ours to change.
own_lists=
apt() {
	if [ "$own_lists" ]; then
		set -- -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/apt" "$@"
	fi
	apt-get -q -q -o APT::Sandbox::User=root "$@"
}

# debian PACKAGE COMMAND... takes commands out of Debian's package.
debian() {
	package=$1
	shift
	missing=
	for command; do
		[ -x "$cache/$command" ] || missing=yes
	done
	[ "$missing" ] || return 0
	mkdir "$work/$package"
	cd "$work/$package"
	if ! apt download "$package" 2>"$work/errors"; then
		[ "$own_lists" ] || { own_lists=yes && mkdir -p "$work/lists/partial" "$work/apt/archives/partial" && apt update; }
		apt download "$package"
	fi
	dpkg -x ./*.deb .
	for command; do
		mv "usr/bin/$command" "$cache/$command"
	done
	echo "$cache: $(dpkg-deb -f ./*.deb Package Version | sed 's/.*: //' | paste -s -d ' '): $*"
	cd "$here"
}

# same FILE WHAT reports whether WHAT was made from FILE as it is now.
same() { cmp -s "$here/$1" "$cache/$2.from"; }

statsd_exporter() {
	same statsdexporter/go.mod statsd_exporter && return
	(cd "$here/statsdexporter" && CGO_ENABLED=0 go build -o "$work/statsd_exporter" github.com/prometheus/statsd_exporter)
	mv "$work/statsd_exporter" "$cache/"
	cp "$here/statsdexporter/go.mod" "$cache/statsd_exporter.from"
	echo "$cache: statsd_exporter $(sed -n 's/.*statsd_exporter v\([0-9.]*\).*/\1/p' "$here/statsdexporter/go.mod")"
}

# The check is made for Python 3.13, and runs with 3.11 too. Of what it asks for
# only what it imports for this is installed: the rest needs a C compiler.
openmetrics() {
	same requirements.txt venv && return
	rm -rf "$cache/venv" "$cache/venv.from"
	python3 -m venv "$cache/venv" || { echo "python3 -m venv failed: Debian has it in python3-venv" >&2; exit 1; }
	"$cache/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$here/requirements.txt"
	cp "$here/requirements.txt" "$cache/venv.from"
	echo "$cache: $(grep ^datadog-checks-base "$here/requirements.txt" | tr -s = ' ')"
}

debian prometheus prometheus promtool
debian victoria-metrics victoria-metrics
statsd_exporter
openmetrics
