# What `--on HOST` runs on the host, in bash, from standard input. Before it stand `mark`, `folder`, `sends`, `survives`
# and `words`, and the function `activate`; after it, where files are sent, their tar archive.
# shellcheck shell=bash disable=SC2154

# Words for the program on the laptop begin with a mark that nobody else knows; all other lines are for its user.
say() { printf '%s %s\n' "$mark" "$*"; }
fail() { say "$@"; exit 0; }

# Nothing is written outside this folder, not even through a link in it.
check_inside() {
    case $(realpath -m -- "$1") in
        "$PWD" | "$PWD"/*) ;;
        *) fail outside "$1" ;;
    esac
}

# Move a file to its place.
put() {
    mkdir -p -- "$(dirname -- "$2")" || fail not-writable
    mv -fT -- "$1" "$2" || fail not-writable
}

# Put the files of the archive where they belong. .sent/sums lists those of last time, so it is known what was changed here
# since, which is kept, and what is no longer in the project, which goes.
receive() {
    local name kept
    local -x LC_ALL=C
    check_inside .sent
    check_inside .replaced
    mkdir -p .sent 2>/dev/null || fail not-writable

    # One at a time, from here until the experiment has its copy of the code. Some file systems have no locks.
    exec 9>> .sent/lock
    flock -w 120 9 2>/dev/null
    case $? in
        0) rm -rf -- .incoming-* ;; # of a call that was killed
        1) fail busy ;;
    esac

    incoming=$(mktemp -d "$PWD/.incoming-XXXXXXXX" 2>/dev/null) || fail not-writable
    trap 'rm -rf -- "$incoming"' EXIT
    tar -xf - --no-same-owner -C "$incoming" || fail incomplete
    (cd "$incoming/files" && sha256sum --check --strict --quiet ../.sent/sums) >/dev/null 2>&1 || fail incomplete
    (cd "$incoming/files" && find . -type l -printf '%P\n') > "$incoming/links"
    cut -c67- "$incoming/.sent/sums" > "$incoming/names"

    while IFS= read -r name; do
        check_inside "$name"
    done < <(cat "$incoming/names" "$incoming/links" | xargs -d '\n' dirname -- | sort -u)

    touch .sent/sums || fail not-writable
    while IFS= read -r name; do
        if [ -f "$name" ]; then printf '%s\0' "$name"; fi
    done < <(cut -c67- .sent/sums "$incoming/.sent/sums" | sort -u) | xargs -0 -r sha256sum -- > "$incoming/here"

    kept=.replaced/$(date +%Y%m%d-%H%M%S)
    while IFS= read -r name; do
        put "$name" "$kept/$name"
        say kept "$kept/$name"
    done < <(grep -vxF -f .sent/sums -f "$incoming/.sent/sums" "$incoming/here" | cut -c67-)

    while IFS= read -r name; do
        rm -f -- "$name"
    done < <(grep -xF -f .sent/sums "$incoming/here" | cut -c67- | grep -vxF -f "$incoming/names")

    grep -vxF -f "$incoming/here" "$incoming/.sent/sums" | cut -c67- > "$incoming/new"
    while IFS= read -r name; do
        [ -d "$name" ] && ! [ -L "$name" ] && fail in-the-way "$name"
        put "$incoming/files/$name" "$name"
    done < <(cat "$incoming/new" "$incoming/links")
    put "$incoming/.sent/version.json" .sent/version.json
    put "$incoming/.sent/sums" .sent/sums
    rm -rf -- "$incoming"
}

# Passes lines on, and reads to the end also when nobody listens any more.
relay() {
    local line
    while IFS= read -r line || [ "$line" ]; do printf '%s\n' "$line"; done 2>/dev/null
}

main() {
    local code project
    # A lost connection must end nothing half way.
    if [ "$survives" ]; then trap '' PIPE HUP; fi
    say begun
    cd -P -- "$folder" 2>/dev/null || fail no-folder
    if [ "$sends" ]; then receive; fi
    exec < /dev/null
    [ -f SlurmTrain.py ] || fail no-project

    project=$PWD
    activate >&2
    set +o errexit +o nounset +o pipefail
    trap - ERR
    cd -- "$project" || fail no-folder
    python -c "$needs" 2>/dev/null || fail no-environment "$(command -v python)"

    if [ "$survives" ]; then
        python -u SlurmTrain.py "${words[@]}" 2>&1 | relay
        code=${PIPESTATUS[0]}
    else
        python -u SlurmTrain.py "${words[@]}"
        code=$?
    fi
    say ended "$code"
}
