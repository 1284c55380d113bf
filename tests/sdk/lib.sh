# Shared by the scripts of this folder and of tests/browser: where things are, the tools, a live gateway.
# shellcheck shell=bash
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kero/contract
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kero/target}
kero=${KERO:-$CARGO_TARGET_DIR/debug/kero}
node=$cache/node
python=$cache/python/bin/python
oasdiff=$cache/bin/oasdiff
mkdir -p "$cache/bin"
work=$(mktemp -d "${TMPDIR:-/tmp}/kero-contract-XXXXXX")
pids=()

finish() {
    local status=$?
    trap - EXIT
    for pid in "${pids[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    done
    [ -n "${KEEP:-}" ] || rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# One line per part, with its seconds, so that a slow one is seen.
part_began=$SECONDS
part=
part() {
    [ -z "$part" ] || printf -- '    %s: %d s\n' "$part" $((SECONDS - part_began))
    part=$1
    part_began=$SECONDS
}

sum() { cat "$@" | sha256sum | cut -d' ' -f1; }

# Whether what STAMP stands for was made from these very things; `made STAMP SUM` notes it.
is_made() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }
made() { mkdir -p "$(dirname "$1")" && echo "$2" >"$1"; }

# The tools, each from its registry's client, in the versions of the committed lock files. Warm, it costs nothing.
tools() {
    local want
    want=$(node --version; sum "$top/tests/sdk/package-lock.json")
    if ! is_made "$node/.made" "$want"; then
        mkdir -p "$node"
        cp "$top"/tests/sdk/package{,-lock}.json "$node/"
        npm ci --prefix "$node" --no-audit --no-fund --loglevel=error
        made "$node/.made" "$want"
    fi
    want=$(python3 --version; sum "$top/tests/sdk/requirements.txt")
    if ! is_made "$cache/python/.made" "$want"; then
        rm -rf "$cache/python"
        python3 -m venv "$cache/python"
        "$python" -m pip install --quiet --disable-pip-version-check --require-hashes \
            --requirement "$top/tests/sdk/requirements.txt"
        made "$cache/python/.made" "$want"
    fi
    want=$(go version; sum "$top"/tests/sdk/oasdiff/go.{mod,sum})
    if ! is_made "$cache/oasdiff.made" "$want"; then
        (cd "$top/tests/sdk/oasdiff" && go build -o "$oasdiff" github.com/oasdiff/oasdiff)
        made "$cache/oasdiff.made" "$want"
    fi
    export PATH="$node/node_modules/.bin:$PATH"
}

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

# A gateway on SQLite with a simulated WhatsApp behind it; sets KERO_URL, KERO_KEY and SIMULATOR_URL.
# Arguments are further variables of the gateway.
live() {
    [ -x "$kero" ] || fail "no kero at $kero: cargo build --workspace --features simulator"
    local simulator_port gateway_port folder
    simulator_port=$(free_port)
    gateway_port=$(free_port)
    folder=$(mktemp -d "$work/live-XXXXXX")
    "$kero" simulator --listen "127.0.0.1:$simulator_port" >"$folder/simulator.log" 2>&1 &
    pids+=($!)
    export SIMULATOR_URL=http://127.0.0.1:$simulator_port KERO_URL=http://127.0.0.1:$gateway_port
    export KERO_KEY=only-for-these-tests-0123456789abcdef
    gateway_log=$folder/gateway.log
    # the gateway leads the list of what is ended: the simulator goes after it
    env KERO_DATA_DIR="$folder/data" KERO_LISTEN="127.0.0.1:$gateway_port" KERO_API_KEY="$KERO_KEY" \
        KERO_WHATSAPP__URL="ws://127.0.0.1:$simulator_port/ws/chat" \
        KERO_DELIVERY__ALLOW_NETWORKS=127.0.0.0/8 "$@" \
        "$kero" serve >"$gateway_log" 2>&1 &
    pids=($! "${pids[@]}")
    for _ in $(seq 150); do
        curl --silent --fail --max-time 5 "$KERO_URL/readyz" >/dev/null 2>&1 && return
        sleep 0.1
    done
    cat "$gateway_log" >&2
    fail "the gateway did not start"
}
