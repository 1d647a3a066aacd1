#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What docs/recipes.md prints is what is run here, with directories of the system in the
# scratch directory; but for the conversion, which tests/slow/test-v2v-in-place.sh runs.
# A step that did not come to its good end loses no disk, in a script and where the lines
# are pasted (without set -e).

. "$(dirname "$0")/../functions.sh"
requires nbdsh nbdcopy jq python3

python3 - "$srcdir/docs/recipes.md" "$scratch" <<'END_OF_PYTHON'
import re, sys
for kind, name, text in re.findall(r"^```(sh|ini) (\S+)\n(.*?)^```$", open(sys.argv[1]).read(), re.M | re.S):
    open(f"block.{name}", "w").write(text.replace("/srv/", sys.argv[2] + "/srv/"))
END_OF_PYTHON
# In no document an add-cow file is removed whatever came before; but where that is the point.
python3 - "$srcdir" <<'END_OF_PYTHON' || fail "rm of an add-cow file"
import glob, re, sys
found = 0
for path in [sys.argv[1] + "/README.md", *glob.glob(sys.argv[1] + "/docs/*.md"), *glob.glob(sys.argv[1] + "/*/*.pod")]:
    text = open(path, encoding="utf-8").read().replace("\\\n", " ")
    text = re.sub(r"^```sh convert-drop\n.*?^```$", "", text, flags=re.M | re.S)
    for command in re.findall(r"^.*\brm\b[^`\n]*?\.add-cow\b.*$", re.sub(r"(&&|\|\|)\s*\n", r"\1 ", text), re.M):
        assert re.search(r"&& +rm \S*\.add-cow$", command), f"{path}: {command}"
        found += 1
assert found == 3, found
END_OF_PYTHON
mkdir -p bin srv/backups srv/bases srv/imports
for program in addcow nbdkit; do
    printf '#!/bin/sh\nPATH="%s"\nexec "%s" %s "$@"\n' "$PATH" "$ADDCOW_RUN" "$program" >"bin/$program"
done
chmod +x bin/*
block() { # NAME: as printed
    [ -s "block.$1" ] || fail "docs/recipes.md has no block $1"
    PATH="$scratch/bin:$PATH" bash -e -u -o pipefail "block.$1"
}
pasted() { PATH="$scratch/bin:$PATH" bash "block.$1"; }
# daemon DIRECTORY: the server that a block has left there; it is stopped at the end.
daemon() {
    # nbdkit notes its process id once it is in the background.
    wait_for "srv/$1/pid"
    server_pid="$(cat "srv/$1/pid")"
    at_exit "kill $server_pid 2>/dev/null"
}
stop_daemon() {
    kill "$server_pid"
    wait_until '' is_gone "$server_pid" || fail "the server goes on"
}
has_open() { # FILE: whether the server has
    local real
    real="$(realpath "$1")"
    find "/proc/$server_pid/fd" -lname "$real*" | has .
}

# A guest that is restored: it reads and writes while the rest is copied, and the server
# is killed in the middle of that.
random_file srv/backups/vm01.img 24M
truncate -s 32M srv/backups/vm01.img
cp srv/backups/vm01.img want
printf '%4096s' guest | dd of=want bs=4096 seek=5 conv=notrunc status=none
# Slow enough to be killed, and to be looked at.
sed -i 's/fill=all/& fill-rate=1M/' block.restore block.restore-again
block restore
daemon vm01
guest="nbd+unix:///?socket=$scratch/srv/vm01/sock"
nbdsh -u "$guest" -c 'h.pwrite(b"%4096s" % b"guest", 20480)' -c 'h.flush()'
block restore-status >status || fail "status: $(cat status)"
kill -9 "$server_pid"
wait_until '' is_gone "$server_pid"
rm srv/vm01/pid # of the one that was killed
block restore-again
daemon vm01
has_open srv/backups/vm01.img || fail "the backup is not what it stands on"
# To end it now would lose what is still to be copied: in a script, and pasted.
for way in block pasted; do
    expect_fails 1 "$way" restore-end
    expect_equal false "$(cat stdout)" "what restore-end says of a fill that is not done"
    [ -e srv/vm01/x.add-cow ] || fail "x.add-cow of a fill that is not done was removed ($way)"
    rm srv/vm01/pid
    block restore-again
    daemon vm01
done
addcow fill srv/vm01/control resume --rate=0
block restore-wait
if has_open srv/backups/vm01.img; then fail "the backup is not let go"; fi
rm srv/backups/vm01.img
nbdcopy "$guest" - | cmp - want
block restore-end >/dev/null
cmp srv/vm01/disk.raw want
[ ! -e srv/vm01/control ] || fail "the control socket is left"

# What a conversion has left, kept, though there was no room for it at first.
mkdir srv/vm03
random_file srv/imports/vm03.img 16M
addcow create -q -b "$scratch/srv/imports/vm03.img" -F raw -i disk.raw srv/vm03/x.add-cow
for way in block pasted; do
    (ulimit -f 10240 && expect_fails 1 "$way" convert-keep) || fail "convert-keep without room ($way)"
    [ -e srv/vm03/x.add-cow ] || fail "x.add-cow of a flatten that failed was removed ($way)"
done
pasted convert-keep >/dev/null
[ ! -e srv/vm03/x.add-cow ] || fail "x.add-cow is left"
cmp srv/vm03/disk.raw srv/imports/vm03.img

# An import, stopped by signals, killed in the middle, and again.
if built_with_sanitizer; then
    echo "SKIP of a part: no import: with the sanitizer preloaded nbdkit does not end after libnbd's strerror"
elif nbdkit curl --dump-plugin >/dev/null 2>&1; then
    random_file srv/image.img 16M
    cat >ranges.py <<'END_OF_PYTHON'
"""An HTTP server of one file, which knows ranges and is slow."""
import http.server, os, re, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(os.path.getsize(sys.argv[1])))
        self.end_headers()
    def do_GET(self):
        first, last = (int(n) for n in re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        with open(sys.argv[1], "rb") as f:
            f.seek(first)
            data = f.read(last - first + 1)
        time.sleep(0.05)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{os.path.getsize(sys.argv[1])}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open("port.new", "w") as f: f.write(str(server.server_port))
os.rename("port.new", "port")
server.serve_forever()
END_OF_PYTHON
    python3 ranges.py srv/image.img &
    web=$!
    at_exit "kill $web 2>/dev/null"
    wait_for port "$web"
    url="http://127.0.0.1:$(cat port)/image.img"
    export url
    sed 's/fill=all/& fill-rate=2M/' block.import >block.import-slowly
    # import_slowly BASH-OPTION...: until it has gone on. Its process group is $import.
    imported() { if [ -e srv/vm02/disk.raw ]; then used_bytes srv/vm02/disk.raw; else echo 0; fi; }
    import_slowly() {
        local bytes=$(($(imported) + 1048576))
        PATH="$scratch/bin:$PATH" setsid env --default-signal=INT,QUIT bash "$@" block.import-slowly >import.log 2>&1 &
        import=$!
        at_exit "kill -9 -- -$import 2>/dev/null"
        some() { [ "$(imported)" -ge "$bytes" ]; }
        wait_until "$import" some || fail "the import: $(cat import.log)"
    }
    # nbdkit ends with 0 then, and what the script does next must not lose the disk. Ctrl-C is
    # for all of the group.
    for signal in INT TERM; do
        for options in '-e -u -o pipefail' ''; do
            # shellcheck disable=SC2086
            import_slowly $options
            if [ "$signal" = INT ]; then
                kill -INT -- "-$import"
            else
                kill "-$signal" "$(awk '{ print $1 }' "/proc/$import/task/$import/children")"
            fi
            ends_with 1 "$import" "the import that got SIG$signal ('$options')" import.log
            [ -e srv/vm02/x.add-cow ] || fail "SIG$signal ('$options'): x.add-cow was removed: $(cat import.log)"
        done
    done
    import_slowly -e -u -o pipefail
    kill -9 -- "-$import" "$(cat srv/vm02/url.pid)"
    ends_with 137 "$import" "the import that is killed"
    [ -e srv/vm02/x.add-cow ] || fail "it was done before it was killed"
    block import
    cmp srv/image.img srv/vm02/disk.raw
    [ ! -e srv/vm02/x.add-cow ] || fail "x.add-cow is left"
    kill "$web"
else
    echo "SKIP of a part: no import from a web server: this nbdkit has no curl plugin"
fi

# Twenty guests on one base, two of which get it for themselves.
random_file srv/bases/debian-12.img 4M
cksum srv/bases/debian-12.img >before
block golden
expect_equal 20 "$(find srv -path '*guest*/x.add-cow' | wc -l)" "guests"
block golden-fill
for i in 01 02; do
    daemon "guest$i"
    PATH="$scratch/bin:$PATH" addcow fill "srv/guest$i/control" all --wait
    stop_daemon
    cmp "srv/guest$i/disk.raw" srv/bases/debian-12.img
done
cksum srv/bases/debian-12.img | cmp - before

# The unit with its sandbox, as systemd sees it; and where systemd runs, started.
if command -v systemd-analyze >/dev/null && [ -x /usr/bin/nbdkit ]; then
    mkdir -p units/addcow@.service.d
    sed 's/^ExecStart=$//' block.fill.conf | grep . >units/addcow@.service
    systemd-analyze verify "$PWD/units/addcow@.service" >verify.log 2>&1 || fail "fill.conf: $(cat verify.log)"
    ! grep -v '^/usr/lib/systemd/' verify.log | has . || fail "fill.conf: $(cat verify.log)"
else
    echo "SKIP of a part: the unit is not verified: no systemd-analyze, or no /usr/bin/nbdkit"
fi
if [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ]; then
    mkdir -p srv/unit
    addcow create -q -b "$scratch/srv/bases/debian-12.img" -F raw -i disk.raw srv/unit/x.add-cow
    properties=()
    while read -r line; do properties+=(-p "$line"); done \
        < <(grep -v '^\[Service\]\|^ExecStart\|^PrivateTmp\|^$' block.fill.conf | sed "s|/srv/%i|$scratch/srv/unit|")
    systemd-run --quiet --wait --collect "${properties[@]}" \
        "$ADDCOW_RUN" nbdkit -f -U "$scratch/srv/unit/sock" addcow "$scratch/srv/unit/x.add-cow" \
        fill=all fill-exit=on || fail "the sandboxed service"
    cmp srv/unit/disk.raw srv/bases/debian-12.img
else
    echo "SKIP of a part: the unit is not started: systemd does not run here, or no root"
fi
