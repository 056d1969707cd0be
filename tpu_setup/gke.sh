# shellcheck shell=bash disable=SC2154 # `pod` sets what is shared
# The same steps on a GKE cluster: a node pool for each slice, and one JobSet.

# Output formats of kubectl: RUN TYPE/REASON... of one JobSet; NAME<TAB>STATE of all.
readonly STANDS='{.metadata.labels.jaxformers-run} '\
'{range .status.conditions[?(@.status=="True")]}{.type}/{.reason} {end}'
readonly ALL='{range .items[*]}{.metadata.name}{"\t"}{.status.terminalState}{"\n"}{end}'

# Assumed answers of the cloud in a dry run.
assumed_pools="" assumed_jobset=""

# gke_begin VERB: sets the options that all commands share, and credentials for kubectl in a separate
# file, so that the user's current context stays as it is.
gke_begin() {
    place=("--project=${conf[project]}" "--location=${conf[location]}")
    pools=("--cluster=${conf[cluster]}" "${place[@]}")
    case $dry_run/$1 in
        / | */run | */create) ;;
        *) gke_assume "$1" ;;
    esac
    export KUBECONFIG=$scratch/kubeconfig
    run gcloud container clusters get-credentials "${conf[cluster]}" "${place[@]}" --quiet ||
        die "the cluster ${conf[cluster]} does not answer; what exists may cost money"
}

gke_assume() {
    local slice
    for ((slice = 0; slice < conf[slices]; slice++)); do
        assumed_pools+="${conf[name]}-$slice"$'\tRUNNING\n'
    done
    [[ $1 != resume ]] || assumed_jobset="$(gke_run_id) Failed/ReachedMaxRestarts "
}

# Every node pool of the cluster: NAME<TAB>STATUS.
gke_pools() {
    listing "[A-Z_]+" "$assumed_pools" gcloud container node-pools list "${pools[@]}" \
        "--format=value(name,status)" ||
        die "the node pools could not be listed; what exists may cost money"
}

# gke_pool POOL: its status, or none.
gke_pool() {
    local all name status
    all=$(gke_pools) || exit
    while IFS=$'\t' read -r name status; do
        if [[ $name == "$1" ]]; then echo "$status" && return; fi
    done <<<"$all"
    echo none
}

gke_create() {
    local slice pool status tried
    for ((slice = 0; slice < conf[slices]; slice++)); do
        pool=${conf[name]}-$slice tried=""
        while status=$(gke_pool "$pool") || exit; [[ $status != RUNNING ]]; do
            case $status in
                none)
                    [[ ! $tried ]] || die "the node pool $pool could not be created; $again"
                    tried=yes
                    gke_make_pool "$pool" || say "the call failed: checking whether $pool was created"
                    ;;
                ERROR)
                    [[ ! $tried ]] || die "the node pool $pool failed and may cost money; $again"
                    gke_drop_pool "$pool"
                    ;;
                *) say "waiting: $pool is $status" && pause ;;
            esac
        done
        say "$pool exists and costs money"
    done
}

gke_make_pool() {
    local extra=()
    [[ ${conf[spot]} == no ]] || extra+=(--spot)
    ((conf[hosts] == 1)) || extra+=("--tpu-topology=${conf[size]}")
    assumed_pools+="$1"$'\tRUNNING\n'
    run gcloud container node-pools create "$1" "${pools[@]}" "--node-locations=${conf[zone]}" \
        "--machine-type=${conf[machine]}" "--num-nodes=${conf[hosts]}" "${extra[@]}" \
        "--node-labels=jaxformers-pod=${conf[name]}" --scopes=cloud-platform --quiet
}

gke_drop_pool() {
    run gcloud container node-pools delete "$1" "${pools[@]}" --quiet ||
        die "the node pool $1 could not be deleted and may cost money; $again"
}

gke_drop_jobset() {
    run kubectl delete jobset "${conf[name]}" --ignore-not-found ||
        die "the JobSet ${conf[name]} could not be deleted and holds its nodes; $again"
}

gke_drop_secret() {
    run kubectl delete secret "${conf[name]}-rendezvous" --ignore-not-found ||
        die "the secret ${conf[name]}-rendezvous could not be deleted; $again"
}

# Deletes all resources of this configuration; returns only after another listing is empty.
gke_delete() {
    local all name status left="" looks=0
    gke_drop_jobset
    gke_drop_secret
    while ((looks < 2)) || [[ $left ]]; do
        ((looks < 2)) || pause
        left="" looks=$((looks + 1))
        all=$(gke_pools) || exit
        while IFS=$'\t' read -r name status; do
            [[ $name =~ ^${conf[name]}-[0-9]+$ ]] || continue
            left=yes
            [[ $status == STOPPING ]] || gke_drop_pool "$name"
        done <<<"$all"
        assumed_pools=""
    done
}

gke_status() {
    local all jobsets name status count=0
    all=$(gke_pools) || exit
    jobsets=$(listing "[A-Za-z]*" "" kubectl get jobsets "--output=jsonpath=$ALL") ||
        die "the JobSets could not be listed; what exists may cost money"
    [[ ! $dry_run ]] || return 0
    while IFS=$'\t' read -r name status; do
        [[ $name == "${conf[name]}"* ]] || continue
        printf 'node pool        %-24s %-22s costs money\n' "$name" "$status"
        count=$((count + 1))
    done <<<"$all"
    while IFS=$'\t' read -r name status; do
        [[ $name == "${conf[name]}"* ]] || continue
        printf 'JobSet           %-24s %-22s holds its nodes\n' "$name" "${status:-running}"
        count=$((count + 1))
    done <<<"$jobsets"
    ((count)) || echo "nothing is left in ${conf[cluster]}: nothing costs money"
}

# Builds the image of this commit, unless it exists.
gke_bootstrap() {
    local image=${conf[image]}:${conf[version]}
    local seek=(gcloud artifacts docker images describe "$image" "--project=${conf[project]}")
    if [[ $dry_run ]]; then
        run "${seek[@]}"
    elif "${seek[@]}" &>/dev/null; then
        say "$image exists already"
        return
    fi
    run git -C "$root" archive --format=tar "--output=$scratch/code.tar" "$commit"
    run mkdir -p "$scratch/code"
    run tar -xf "$scratch/code.tar" -C "$scratch/code"
    run cp "$scratch/code/tpu_setup/Dockerfile" "$scratch/code" || die "the commit has no tpu_setup/Dockerfile"
    run gcloud builds submit "$scratch/code" "--tag=$image" "--project=${conf[project]}" --quiet ||
        die "the image could not be built, the output is above"
}

gke_run_id() {
    printf '%s\0' "${conf[version]:-}" "${conf[folder]}" "${conf[experiment]}" "${arguments[@]}" |
        cksum | cut -d' ' -f1
}

# The state of the run, in one word.
gke_look() {
    local answer
    answer=$(ask "$assumed_jobset" kubectl get jobset "${conf[name]}" --ignore-not-found \
        "--output=jsonpath=$STANDS") ||
        die "the state of the JobSet could not be read; is JobSet installed in the cluster?"
    case $answer in
        "") echo none ;;
        *" Completed/"* | *" Failed/"*)
            if [[ ${answer%% *} != "$(gke_run_id)" ]]; then
                echo idle
            elif [[ $answer == *" Completed/"* ]]; then
                echo finished
            elif [[ $answer == *" Failed/ReachedMaxRestarts"* ]]; then
                echo resume
            else
                echo stop
            fi
            ;;
        *) echo running ;;
    esac
}

gke_launch() {
    local stands key pairs=() word
    stands=$(gke_look) || exit
    case $stands in running | finished) say "the run is $stands" && return ;; esac
    for key in "${!conf[@]}"; do pairs+=("$key=${conf[$key]}"); done
    for word in "${arguments[@]}"; do pairs+=("argument=$word"); done
    python3 "$here/jobset.py" "run=$(gke_run_id)" "${pairs[@]}" >"$scratch/jobset.json" ||
        die "the JobSet could not be written"
    [[ ! $dry_run ]] || cat "$scratch/jobset.json" >&3
    [[ $stands == none ]] || gke_drop_jobset
    make_secret "$scratch/secret"
    gke_drop_secret
    run kubectl create secret generic "${conf[name]}-rendezvous" \
        "--from-file=secret=$scratch/secret" ||
        die "the secret could not be created; the nodes cost money; $again"
    run kubectl apply "--filename=$scratch/jobset.json" ||
        die "the JobSet could not be created; the nodes cost money; $again"
    assumed_jobset="$(gke_run_id) Completed/AllJobsCompleted "
}

gke_logs() {
    run kubectl logs "--selector=jobset.sigs.k8s.io/jobset-name=${conf[name]}" --container=train \
        --prefix --follow --tail=50 "--max-log-requests=$((conf[hosts] * conf[slices]))"
}
