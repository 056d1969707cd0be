# shellcheck shell=bash disable=SC2154 # `pod` sets what is shared
# The steps on TPU VMs: one queued resource, named as the configuration says, holds all slices.

# Assumed answers of the cloud and the hosts in a dry run.
assumed_request="" assumed_hosts=""

# vm_begin VERB: sets the options that all commands share.
tpus=(gcloud compute tpus)
vm_begin() {
    place=("--project=${conf[project]}" "--zone=${conf[zone]}")
    case $dry_run/$1 in
        / | */run | */create) return ;;
        */resume) assumed_request=${conf[name]}$'\tSUSPENDED' ;;
        *) assumed_request=${conf[name]}$'\tACTIVE' ;;
    esac
    vm_assume - idle -
}

# Every queued resource of the zone: NAME<TAB>STATE.
vm_requests() {
    listing "[A-Z_]+" "$assumed_request" "${tpus[@]}" queued-resources list "${place[@]}" \
        "--format=value(name.basename(),state.state)" ||
        die "the queued resources could not be listed; what exists may cost money"
}

# Every node of the zone: NAME<TAB>STATE.
vm_nodes() {
    listing "[A-Z_]+" "" "${tpus[@]}" tpu-vm list "${place[@]}" \
        "--format=value(name.basename(),state)" ||
        die "the nodes could not be listed; what exists may cost money"
}

# State of our queued resource, or none.
vm_state() {
    local all name state
    all=$(vm_requests) || exit
    while IFS=$'\t' read -r name state; do
        if [[ $name == "${conf[name]}" ]]; then echo "$state" && return; fi
    done <<<"$all"
    echo none
}

vm_create() {
    local state before="" asked=""
    while :; do
        state=$(vm_state) || exit
        [[ $before$asked || $state == none || $state == SUSPENDED || $state == FAILED ]] ||
            vm_compare
        case $state in
            ACTIVE) say "${conf[name]} exists and costs money" && return ;;
            none) vm_request && asked=yes ;;
            SUSPENDED) vm_drop ;;
            FAILED)
                [[ ! $asked ]] ||
                    die "the request failed: $(vm_reason); the same command requests again; $again"
                vm_drop
                ;;
            *)
                [[ $state == "$before" ]] || say "waiting: ${conf[name]} is $state"
                pause
                ;;
        esac
        before=$state
    done
}

# Refuses an existing request of this name for another accelerator type.
vm_compare() {
    local made
    made=$(ask "${conf[accelerator]}" "${tpus[@]}" queued-resources describe "${conf[name]}" \
        "${place[@]}" "--format=value(tpu.nodeSpec[0].node.acceleratorType)") ||
        die "${conf[name]} could not be described; $again"
    [[ ! $made || $made == "${conf[accelerator]}" ]] ||
        die "${conf[name]} exists as $made, but $config requests ${conf[accelerator]}: \
restore its topology, or first: tpu_setup/pod delete $(quoted "$config")" 2
}

# Requests the slices. A call that failed may still have created the request.
vm_request() {
    local nodes=("--node-id=${conf[name]}") extra=() state
    ((conf[slices] == 1)) || nodes=("--node-count=${conf[slices]}" "--node-prefix=${conf[name]}")
    [[ ${conf[spot]} == no ]] || extra+=(--spot)
    [[ ! ${conf[wait]} ]] || extra+=("--valid-until-duration=${conf[wait]}")
    [[ ! ${conf[service_account]} ]] || extra+=("--service-account=${conf[service_account]}")
    assumed_request=${conf[name]}$'\tACTIVE'
    vm_assume - idle -
    if run "${tpus[@]}" queued-resources create "${conf[name]}" "${place[@]}" \
        "--accelerator-type=${conf[accelerator]}" "--runtime-version=${conf[runtime]}" \
        "${nodes[@]}" "${extra[@]}" --scopes=https://www.googleapis.com/auth/cloud-platform \
        --async --quiet; then
        return 0
    fi
    state=$(vm_state) || exit
    [[ $state != none ]] || die "the slices could not be requested; nothing was created"
}

# The cloud's reason for a failed request.
vm_reason() {
    ask "" "${tpus[@]}" queued-resources describe "${conf[name]}" "${place[@]}" \
        "--format=value(state.failedData.error.message)" || echo "the cloud states no reason"
}

# Deletes our queued resource with its nodes, and waits until it is gone.
vm_drop() {
    local state deleted=""
    run "${tpus[@]}" queued-resources delete "${conf[name]}" "${place[@]}" --force --quiet &&
        deleted=yes
    assumed_request=""
    while state=$(vm_state) || exit; [[ $state != none ]]; do
        [[ $deleted || $state == DELETING || $state == SUSPENDING ]] ||
            die "${conf[name]} could not be deleted and may cost money; $again"
        pause
    done
}

# Deletes all resources of this configuration; returns only after another listing is empty.
vm_delete() {
    local state all name left="" looks=0
    while ((looks < 2)) || [[ $left ]]; do
        ((looks < 2)) || pause
        left="" looks=$((looks + 1))
        state=$(vm_state) || exit
        if [[ $state != none ]]; then left=yes && vm_drop; fi
        all=$(vm_nodes) || exit
        while IFS=$'\t' read -r name state; do
            [[ $name =~ ^${conf[name]}(-[0-9]+)?$ ]] || continue
            left=yes
            [[ $state == DELETING ]] ||
                run "${tpus[@]}" tpu-vm delete "$name" "${place[@]}" --quiet ||
                die "the node $name could not be deleted and may cost money; $again"
        done <<<"$all"
    done
}

vm_status() {
    local requests nodes name state note count=0
    requests=$(vm_requests) || exit
    nodes=$(vm_nodes) || exit
    [[ ! $dry_run ]] || return 0
    while IFS=$'\t' read -r name state; do
        [[ $name == "${conf[name]}"* ]] || continue
        case $state in
            SUSPENDED | FAILED) note="costs nothing, delete it" ;;
            ACTIVE | PROVISIONING | SUSPENDING | DELETING) note="its nodes cost money" ;;
            *) note="will cost money once granted" ;;
        esac
        printf 'queued resource  %-24s %-22s %s\n' "$name" "$state" "$note"
        count=$((count + 1))
    done <<<"$requests"
    while IFS=$'\t' read -r name state; do
        [[ $name == "${conf[name]}"* ]] || continue
        printf 'node             %-24s %-22s costs money\n' "$name" "$state"
        count=$((count + 1))
    done <<<"$nodes"
    ((count)) || echo "nothing is left in ${conf[zone]}: nothing costs money"
}

# on_hosts COMMAND: sets `ssh`, the command that runs COMMAND in a shell on every host. Words
# from the configuration come through `printf %q` only.
on_hosts() {
    ssh=("${tpus[@]}" queued-resources ssh "${conf[name]}" "${place[@]}" --node=all --worker=all
        --batch-size=all --quiet --ssh-flag=-oConnectTimeout=30 --ssh-flag=-oServerAliveInterval=30
        "--command=$1")
}

readonly ON_HOST=jaxformers-pod/code/tpu_setup/on_host.sh

# Identifies the run on the hosts: a checksum of the folder, the experiment and the arguments.
vm_run_id() {
    printf '%s\0' "${conf[folder]}" "${conf[experiment]}" "${arguments[@]}" | cksum | cut -d' ' -f1
}

# One line a host: HOST VERSION RUN STATE STATUS.
vm_hosts() {
    on_hosts "if [ -f $ON_HOST ]; then bash $ON_HOST state; \
else echo jaxformers-host \$(hostname) - - idle -; fi"
    ask "$assumed_hosts" "${ssh[@]}" | sed -n 's/^jaxformers-host //p'
}

# vm_assume VERSION STATE STATUS: sets the hosts' answers in a dry run.
vm_assume() {
    local host
    assumed_hosts=""
    for ((host = 0; host < conf[hosts] * conf[slices]; host++)); do
        assumed_hosts+="jaxformers-host host-$host $1 $(vm_run_id) $2 $3"$'\n'
    done
}

# The state of the run, in one word.
vm_look() {
    local state lines
    state=$(vm_state) || exit
    case $state in
        ACTIVE) ;;
        none | DELETING) echo none && return ;;
        SUSPENDED | SUSPENDING | FAILED) echo preempted && return ;;
        *) echo waiting && return ;;
    esac
    lines=$(vm_hosts) || lines=""
    vm_verdict <<<"$lines"
}

# Reduces the hosts' states to one word: running if a host runs, else stop if one ended with an
# error, else idle or finished if all are, else resume.
vm_verdict() {
    local host version run_id state status answered=0 running=0 idle=0 finished=0 wrong=""
    local mine expected=$((conf[hosts] * conf[slices]))
    mine=$(vm_run_id)
    while read -r host version run_id state status; do
        [[ $host ]] || continue
        answered=$((answered + 1))
        [[ $state != ended || $run_id == "$mine" ]] || state=idle
        case $state/$status in
            running/*) running=$((running + 1)) ;;
            idle/*) idle=$((idle + 1)) ;;
            ended/0) finished=$((finished + 1)) ;;
            ended/75 | ended/134 | ended/137) ;;
            *) wrong+=" $host ($status)" ;;
        esac
    done
    if ((answered < expected)); then
        say "$answered of $expected hosts answer"
        echo unreachable
    elif ((running)); then
        echo running
    elif [[ $wrong ]]; then
        say "ended with an error:$wrong"
        echo stop
    elif ((idle == expected)); then
        echo idle
    elif ((finished == expected)); then
        echo finished
    else
        echo resume
    fi
}

vm_bootstrap() {
    local lines have
    lines=$(vm_hosts) || fail "the hosts do not answer; $again" || return
    have=$(grep -c "^[^ ]* ${conf[version]} " <<<"$lines" || true)
    if ((have == conf[hosts] * conf[slices])); then
        say "all $have hosts have ${conf[version]}"
        return
    fi
    run git -C "$root" archive --format=tar.gz "--output=$scratch/jaxformers-pod.tar.gz" \
        "$commit" || die "git archive failed"
    make_secret "$scratch/jaxformers-pod.secret"
    run "${tpus[@]}" queued-resources scp "$scratch/jaxformers-pod.tar.gz" \
        "$scratch/jaxformers-pod.secret" "${conf[name]}:" "${place[@]}" --node=all --worker=all --quiet ||
        fail "the code could not be sent to the hosts; $again" || return
    on_hosts "rm -rf jaxformers-pod/new && mkdir -p jaxformers-pod/new && \
tar -xzf jaxformers-pod.tar.gz -C jaxformers-pod/new && \
bash jaxformers-pod/new/tpu_setup/on_host.sh install $(printf %q "${conf[version]}")"
    run "${ssh[@]}" || fail "a host could not be set up, its output is above; $again" || return
    vm_assume "${conf[version]}" idle -
}

vm_launch() {
    local stands words
    stands=$(vm_look) || exit
    case $stands in
        running | finished) say "the run is $stands" && return ;;
        idle | resume | stop) ;;
        *) fail "no hosts to launch on ($stands); $again" || return ;;
    esac
    printf -v words ' %q' "$(vm_run_id)" "${conf[folder]}" "${conf[experiment]}" "${arguments[@]}"
    on_hosts "bash $ON_HOST start$words"
    run "${ssh[@]}" || fail "a host could not start, its output is above; $again" || return
    vm_assume "${conf[version]}" ended 0
}

vm_logs() {
    on_hosts "bash $ON_HOST follow"
    run "${ssh[@]}"
}
