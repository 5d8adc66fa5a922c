# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034
# To be sourced: install_packages GROUP... installs with apt what is missing of the groups below,
# and calls apt only when something is. No server that Debian would start by itself is started.

packages_embedded=(g++ cmake ninja-build libsqlite3-dev)
packages_clients=(libpq-dev libhiredis-dev librdkafka-dev librabbitmq-dev)
packages_build=("${packages_embedded[@]}" "${packages_clients[@]}" libgtest-dev)
packages_servers=(postgresql-15 pgbouncer redis-server)
packages_rabbitmq=(rabbitmq-server)
# Kafka is not in Debian: tests/support/kafka/fetch gets its jars with Maven.
packages_kafka=(default-jre-headless maven)
# libboost1.81-dev: the hash map that MemoryStore is measured against.
packages_bench=(libboost1.81-dev)
packages_tools=(ccache clang-14 clang-format-14 clang-tidy-14 git libclang-rt-14-dev)

# Those of the given packages that are not installed, one a line.
missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' ||
            echo "$package"
    done
}

install_packages() {
    local group missing=() as_root=()
    for group in "$@"; do
        local -n packages=packages_$group
        mapfile -t -O "${#missing[@]}" missing < <(missing_packages "${packages[@]}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0

    echo "to be installed: ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        echo "this script installs with apt-get only: install the like of these yourself" >&2
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "not root and no sudo; as root: apt-get install ${missing[*]}" >&2
            return 1
        fi
        as_root=(sudo)
    fi
    "${as_root[@]}" bash -s -- "${missing[@]}" <<'INSTALL'
set -eu
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1

# No cluster and no service may be made or started: the tests start servers of their own.
clusters=/etc/postgresql-common/createcluster.conf
if [[ " $* " == *' postgresql'* && ! -e $clusters ]]; then
    mkdir -p "${clusters%/*}"
    echo 'create_main_cluster = false' >"$clusters"
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

options=(-q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
apt-get "${options[@]}" update
apt-get "${options[@]}" install -y --no-install-recommends "$@" </dev/null
INSTALL
}
