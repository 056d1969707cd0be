#!/usr/bin/env bash
# What runs on each host of a TPU VM slice; `pod` calls it over ssh.
#   install VERSION                            the code in `new`, with Python and jax[tpu],
#                                              and the secret that was sent with it
#   start RUN FOLDER EXPERIMENT [ARGUMENT...]  the run, detached: it outlives the connection
#   state                                      one line: HOST VERSION RUN STATE STATUS
#   follow                                     the log, each line after the host's name
set -euo pipefail
readonly UV=0.13.8 # fetches a Python where the host has none from 3.11 to 3.13
readonly SUITABLE='import sys, venv, ensurepip
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
mkdir -p "$HOME/jaxformers-pod"
cd "$HOME/jaxformers-pod"

die() {
    printf '%s: %s\n' "$(hostname)" "$1" >&2
    exit 1
}

# The run holds `lock` as long as it or its supervisor is alive.
take_lock() { exec 9>>lock && flock --nonblock 9; }

make_venv() {
    local python
    rm -rf venv
    for python in python3.13 python3.12 python3.11 python3; do
        if "$python" -c "$SUITABLE" 2>/dev/null; then
            "$python" -m venv venv
            return
        fi
    done
    python3 -m pip install --user --quiet "uv==$UV"
    "$HOME/.local/bin/uv" venv --quiet --seed --python 3.12 venv
}

install() {
    take_lock || die "a run is active on this host: delete the pod, or wait"
    rm -f installed
    rm -rf code
    mv new code
    mv "$HOME/jaxformers-pod.secret" secret
    chmod 600 secret
    # The stamp is written last, so that an interrupted installation is repeated.
    [[ -f venv/made ]] || { make_venv && touch venv/made; }
    venv/bin/python -m pip install --quiet --disable-pip-version-check \
        -c code/constraints.txt -e 'code[tpu]'
    rm -f run ended
    printf '%s\n' "$1" >installed
}

start() {
    take_lock || { printf '%s: already running\n' "$(hostname)" && return; }
    printf '%s\n' "$1" >run
    rm -f ended
    setsid nohup bash code/tpu_setup/on_host.sh supervise "${@:2}" </dev/null >>log 2>&1 &
}

# Waits for the run, forwards SIGTERM to it, records its exit status, copies the log to the bucket.
supervise() {
    local status child signalled=""
    echo $$ >pid
    export JAXFORMERS_SECRET_FILE=$PWD/secret
    trap 'signalled=yes; kill -TERM "${child:-}" || true' TERM INT
    (cd code && exec ../venv/bin/jaxformers train "$2" --folder "$1" "${@:3}") &
    child=$!
    while wait "$child" && status=0 || status=$?; [[ $signalled ]]; do
        signalled="" # the status is the signal's: the run's own comes from another wait
    done
    printf '%s\n' "$status" >ended.new
    mv ended.new ended
    printf '%s: ended with status %s\n' "$(hostname)" "$status"
    timeout 60 gcloud storage cp --quiet log "$1/hosts/$(hostname).log" || true
}

# A run that neither holds the lock nor left a status was killed with its host: 137.
state() {
    local fields="idle -"
    if [[ -f run ]]; then fields="ended $(cat ended 2>/dev/null || echo 137)"; fi
    flock --nonblock lock true || fields="running -"
    printf 'jaxformers-host %s %s %s %s\n' "$(hostname)" "$(cat installed 2>/dev/null || echo -)" \
        "$(cat run 2>/dev/null || echo -)" "$fields"
}

follow() {
    local until=()
    touch log
    flock --nonblock lock true || until=(--follow=name --retry "--pid=$(cat pid)")
    tail --lines=50 "${until[@]}" log | sed --unbuffered "s/^/$(hostname): /"
}

case ${1:-} in
    install | start | supervise | state | follow) "$@" ;;
    *) die "not one of install, start, state, follow: ${1:-}" ;;
esac
