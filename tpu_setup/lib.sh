# shellcheck shell=bash disable=SC2154 # `pod` sets what is shared
# Printing, querying and running: all commands of the verbs go through these functions.

# say WORDS...: prints progress to standard error; a dry run prints commands only.
say() { [[ $dry_run ]] || printf '%s\n' "$*" >&2; }

# fail TEXT: reports a failed step; the caller decides whether to go on.
fail() {
    printf 'tpu_setup: %s\n' "$1" >&2
    return 1
}

# die TEXT [STATUS]: prints the error and exits.
die() {
    fail "$1" || exit "${2:-1}"
}

# quoted WORDS...: the words, quoted for a shell where they need it.
quoted() {
    local word out=()
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=${word@Q}
        out+=("$word")
    done
    printf '%s' "${out[*]}"
}

# run COMMAND...: prints and runs it; with --dry-run only prints it (on standard output).
run() {
    if [[ $dry_run ]]; then
        printf '%s\n' "$(quoted "$@")" >&3
    else
        say "+ $(quoted "$@")"
        "$@" </dev/null # a loop that reads lines may be around it
    fi
}

# ask ASSUMED COMMAND...: the output of a read-only command, tried three times. With --dry-run the
# command is printed and ASSUMED is the output.
ask() {
    local assumed=$1 try
    shift
    if [[ $dry_run ]]; then
        run "$@"
        printf '%s\n' "$assumed"
        return
    fi
    for try in 1 2 3; do
        if "$@" </dev/null; then return 0; fi
        ((try == 3)) || pause
    done
    return 1
}

# listing STATE ASSUMED COMMAND...: the output of a listing command: lines of NAME<TAB>STATE, where
# STATE is a pattern, or nothing. Any other output is an error, whatever the exit status.
listing() {
    local state=$1 answer line form try
    form="^[A-Za-z0-9][A-Za-z0-9._-]*"$'\t'"$state\$"
    shift
    for try in 1 2 3; do
        answer=$(ask "$@") || return
        while IFS= read -r line; do
            [[ ! $line || $line =~ $form ]] || break
            line=""
        done <<<"$answer"
        if [[ ! $line ]]; then printf '%s\n' "$answer" && return; fi
        ((try == 3)) || pause
    done
    line=${line:0:80}
    fail "this output is not a list of names and states: ${line@Q}"
}

# make_secret FILE: writes a new secret, by which the hosts of a run authenticate each other. It is
# sent as a file, never in a command, an environment variable or a log.
make_secret() {
    [[ ! $dry_run ]] || return 0
    (umask 077 && head -c 32 /dev/urandom | base64 >"$1") || die "the secret could not be written"
}

# Waits between two polls.
pause() { [[ $dry_run ]] || sleep "$interval"; }

# read_config FILE: fills the array `conf` and the list `arguments`.
declare -A conf=()
arguments=()
read_config() {
    local pairs key value
    pairs=$(python3 "$here/config.py" "$1") || exit
    while IFS=$'\t' read -r key value; do
        if [[ $key == argument ]]; then arguments+=("$value"); else conf[$key]=$value; fi
    done <<<"$pairs"
}

# Sets `commit`, which is sent to the hosts, and conf[version], its name. With --dirty: the working
# tree with its uncommitted changes, without untracked files.
choose_commit() {
    local changed
    commit=$(git -C "$root" rev-parse HEAD) || die "this is not a git repository: nothing to send"
    conf[version]=${commit:0:12}
    changed=$(git -C "$root" status --porcelain --untracked-files=no) || die "git status failed"
    if [[ $changed ]]; then
        [[ $dirty ]] || die "uncommitted changes: commit them, or send them with --dirty" 2
        commit=$(git -C "$root" stash create) || die "git stash create failed"
        conf[version]=dirty-$(git -C "$root" rev-parse --short=12 "$commit^{tree}")
    fi
    git -C "$root" cat-file -e "$commit:${conf[experiment]}" 2>/dev/null ||
        die "${conf[experiment]} is not in the commit that is sent: git add it, and commit" 2
}

# progress [step]: the run's progress from its status.json in the bucket, as a line or as a step.
progress() {
    local read=(gcloud storage cat "${conf[folder]}/status.json")
    if [[ $dry_run ]]; then run "${read[@]}" && return; fi
    "${read[@]}" 2>/dev/null </dev/null | python3 "$here/progress.py" "$@" || true
}
