#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The control socket: who gets one, who may use it, and that nobody there disturbs anybody;
# what 'addcow status' and 'addcow fill' make of it.

. "$(dirname "$0")/../functions.sh"
requires jq nbdsh python3

random_file noise 1M
new_image

# peers: in Python, connect() to ./ctl; a peer's ask(line) is its next answer.
cat >peers.py <<'END'
import json, os, socket, sys, threading, time
class Peer:
    def __init__(self, path="ctl"):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rwb")
    def say(self, data):
        self.file.write(data); self.file.flush()
    def hear(self):
        return json.loads(self.file.readline())
    def ask(self, **command):
        self.say(json.dumps(command).encode() + b"\n")
        return self.hear()
END
python() { python3 -c "exec(open('peers.py').read())
$1"; }
status_of() { addcow status "$1" --output=json | jq -r "$2"; }

# Only for its owner, whatever the umask is; gone after a clean stop, in the foreground and
# in the background, with a path that is not absolute.
umask 0
start_server sock addcow x.add-cow control=ctl
umask 022
expect_equal 600 "$(stat -c %a ctl)" "rights of the control socket"
expect_equal socket "$(stat -c %F ctl)" "kind of the control socket"
stop_server "$server_pid"
[ ! -e ctl ] || fail "the control socket stays"
start_daemon sock addcow x.add-cow control=ctl
addcow status ctl | has 'fill *off' || fail "no status of a server in the background"
kill "$server_pid"
wait_until '' is_gone "$server_pid" || fail "the server stays"
[ ! -e ctl ] || fail "the control socket stays after SIGTERM"

# One that a killed server left is replaced, one that is served is not.
start_daemon sock addcow x.add-cow control=ctl
kill_daemon "$server_pid"
[ -S ctl ] || fail "nothing is left to be replaced"
expect_fails 1 addcow status ctl
grep -qF 'addcow: ctl: no server listens at this control socket any more (one that' stderr || fail "$(cat stderr)"
start_server sock addcow x.add-cow control=ctl
addcow create -q -i other.raw -s 1M y.add-cow
expect_fails 1 nbdkit -U other -f addcow y.add-cow control=ctl
grep -q 'ctl: a server listens at this control socket already' stderr || fail "$(cat stderr)"
addcow status ctl | has '^fill' || fail "the first server lost its control socket"
stop_server "$server_pid"

# What cannot be one.
echo kept >file
expect_fails 1 nbdkit -U other -f addcow y.add-cow control=file
grep -q 'file: is no socket' stderr || fail "$(cat stderr)"
expect_equal kept "$(cat file)" "the file that is no socket"
ln -s elsewhere link
expect_fails 1 nbdkit -U other -f addcow y.add-cow control=link
grep -q 'link: is a symbolic link, so no control socket is made there: name' stderr || fail "$(cat stderr)"
[ -L link ] && [ ! -e elsewhere ] || fail "the symbolic link: $(ls -l)"
long="$(printf 'x%.0s' {1..100})"
expect_fails 1 nbdkit -U other -f addcow y.add-cow control="$long"
grep -q "bytes long, the path of a socket can have 107: name one" stderr || fail "$(cat stderr)"
expect_fails 1 nbdkit -U other -f addcow y.add-cow control=
expect_fails 1 nbdkit -U other -f addcow y.add-cow control=none/ctl

# Sums are right at the end, with 50 who ask while 8 write.
start_server sock addcow x.add-cow control=ctl
uri="$(uri sock)"
for i in {1..8}; do
    nbdsh -u "$uri" -c "for i in range(200): h.pwrite(bytes(4096), (i * 8 + $i) % 256 * 4096)" -c 'h.flush()' -c 'h.shutdown()' &
    writers[i]=$!
done
python '
def run():
    peer = Peer()
    last = 0
    for i in range(10):
        now = peer.ask(execute="status")["return"]["requests"]["write"]["count"]
        assert now >= last, (now, last)
        last = now
failed = []
def guarded():
    try: run()
    except BaseException as error: failed.append(error)
threads = [threading.Thread(target=guarded) for i in range(50)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
'
for pid in "${writers[@]}"; do wait "$pid" || fail "a writer failed"; done
expect_equal '1600 6553600 0' "$(status_of ctl '.requests.write | "\(.count) \(.bytes) \(.errors)"')" "writes"
expect_equal 8 "$(status_of ctl .requests.flush.count)" "flushes"
expect_equal 8 "$(status_of ctl '.flushes | .count + .shared')" "flushes, shared or not"
expect_equal 1600 "$(status_of ctl '.requests.write.histogram | add')" "writes in the histogram"
[ "$(status_of ctl .written.image)" -ge 6553600 ] || fail "bytes written to the image file"
expect_equal 16 "$(status_of ctl '.clusters.allocated')" "clusters allocated"

# Peers that are silent, slow, deaf or loud disturb nobody.
python '
silent = [Peer() for i in range(20)]
half = Peer(); half.say(b"{\"execute\": \"sta")
deaf = Peer(); deaf.socket.setblocking(False)
try: deaf.socket.send(b"{\"execute\": \"status\"}\n" * 100000)
except BlockingIOError: pass
gone = Peer(); gone.say(b"{\"execute\": \"flush\"}\n"); gone.socket.close()
loud = Peer()
loud.say(b"x" * (1 << 20) + b"\n")
assert loud.hear()["error"]["class"] == "BadRequest"
loud.say(os.urandom(1 << 16).replace(b"\n", b"") + b"\n")
assert loud.hear()["error"]["class"] == "BadRequest"
peer = Peer()
for i in range(100):
    assert peer.ask(execute="status", id=i)["id"] == i
assert peer.ask(execute="dance")["error"]["class"] == "UnknownCommand"
half.say(b"tus\"}\n")
assert "return" in half.hear()
assert "return" in loud.ask(execute="status")
'

# What a flush by control covered is there after kill -9.
nbdsh -u "$uri" -c 'h.pwrite(b"kept" * 1024, 8192)' -c 'h.shutdown()'
[ "$(status_of ctl .unpublished.bytes)" -eq 0 ] || [ "$(status_of ctl .clusters.allocated)" -eq 16 ]
python 'assert Peer().ask(execute="flush") == {"return": {}}'
stop_server "$server_pid"
new_image
start_daemon sock addcow x.add-cow control=ctl sync-interval=0
nbdsh -u "$(uri sock)" -c 'h.pwrite(b"kept" * 1024, 8192)' -c 'h.shutdown()'
expect_equal '1 4096' "$(status_of ctl '.unpublished | "\(.subclusters) \(.bytes)"')" "bits that wait"
expect_equal '1 1' "$(status_of ctl '.clusters | "\(.partial) \(.subclusters)"')" "partial clusters"
python 'assert Peer().ask(execute="flush") == {"return": {}}'
expect_equal 0 "$(status_of ctl .unpublished.bytes)" "bits that wait after a flush"
kill_daemon "$server_pid"
start_server sock addcow x.add-cow control=ctl
client 'assert h.pread(4096, 8192) == b"kept" * 1024'
client 'h.pread(1 << 20, 0)'
expect_equal $((1048576 - 4096)) "$(status_of ctl .read.backing)" "bytes read from the backing file"
expect_equal $((3 * 4096)) "$((4096 + $(status_of ctl .read.image)))" "bytes read from the image file"

# What the tool prints, and where.
addcow status ctl --output=prometheus >metrics
if command -v promtool >/dev/null; then promtool check metrics <metrics || fail "promtool"; fi
python '
import re
seen = set()
for line in open("metrics"):
    if line.startswith("#"):
        assert re.fullmatch(r"# (HELP \w+ .+|TYPE \w+ (counter|gauge|histogram))\n", line), line
        continue
    match = re.fullmatch(r"(\w+)\{((?:\w+=\"(?:[^\"\\\n]|\\.)*\",?)*)\} ([0-9.e+-]+)\n", line)
    assert match, line
    assert (match[1], match[2]) not in seen, line
    seen.add((match[1], match[2]))
    float(match[3])
assert len(seen) > 200
'
grep -q '^addcow_requests_total{image=".*/x.add-cow",op="read"} [1-9]' metrics || fail "no reads: $(cat metrics)"
# Each that the program can print, not only those that this server has now, has its line in
# docs/control.md, and the other way round.
documented="$(grep -oE '`addcow_[a-z_]+' "$srcdir/docs/control.md" | tr -d '`' | sort -u)"
printable="$(grep -oE '"addcow_[a-z_]+"' "$srcdir/tools/status_text.cc" | tr -d '"' | sort -u)"
expect_equal "$printable" "$documented" "metrics in docs/control.md"
expect_equal '' "$(sed -n 's/^# HELP \([a-z_]*\) .*/\1/p' metrics | sort -u | comm -23 - <(echo "$printable"))" \
    "metrics that tools/status_text.cc does not name"

# --to: what it wrote before, in whatever form, is replaced, and so is what a link leads to.
ln -s dir/node.prom link.prom
mkdir dir
: >dir/node.prom
for output in prometheus json human prometheus; do
    addcow status ctl --output=$output --to=link.prom
    expect_equal "$(addcow status ctl --output=$output | head -c 10)" "$(head -c 10 dir/node.prom)" "--to"
done
[ -L link.prom ] || fail "--to: the symbolic link was replaced"
grep -q '^addcow_requests_total' dir/node.prom || fail "--to: $(cat dir/node.prom)"
expect_equal '' "$(find . -name '*.prom.*')" "what --to leaves"
expect_fails 1 addcow status ctl --to=none/file
# Anything else is refused, and stays as it is: the disk that is served, first of all.
mkfifo fifo
ln -s nowhere dangling
ln -s x.add-cow disk-link
printf '# HELP node_load1 of another\n' >other.prom
cp x.add-cow before.add-cow
others=(x.add-cow disk.raw base.img sock ctl fifo dir dangling disk-link other.prom /dev/stdout)
if [ "$(id -u)" = 0 ] && mknod null c 1 3 2>/dev/null; then
    others+=(null)
else
    echo "SKIP of a part: no device can be made here, so --to of one is not tried"
fi
for name in "${others[@]}"; do
    kind="$(stat -c '%F %i' "$name")"
    status=0
    # Its standard output is a pipe, which has no name to be replaced.
    addcow status ctl --output=prometheus --to="$name" 2>stderr | cat >printed || status=$?
    expect_equal 1 "$status" "exit status of --to=$name"
    grep -qE "^addcow: $name: (is no regular file|holds something else than a status), which --to would put an end to: .*leave --to out|^addcow: $name: is a symbolic link that leads to no file" \
        stderr || fail "--to=$name: $(cat stderr)"
    expect_equal "$kind" "$(stat -c '%F %i' "$name")" "what --to=$name is"
done
expect_equal '' "$(find . -name '*.tmp')" "what --to leaves of what it refused"
cmp before.add-cow x.add-cow
client 'assert h.pread(4096, 8192) == b"kept" * 1024'
addcow status ctl | awk 'length > 80 { exit 1 }' || fail "more than 80 columns: $(addcow status ctl)"

# Of a fill that was not started there is nothing to pause. Its mode and state, once it was.
for action in pause resume; do
    expect_fails 1 addcow fill ctl "$action"
    grep -q "^addcow: ctl: the server says: .*x.add-cow: there is no fill to $action" stderr || fail "$(cat stderr)"
done
python 'assert Peer().ask(execute="fill", arguments={"action": "pause"})["error"]["class"] == "Failed"'
# in_state MODE STATE: and in no other.
in_state() {
    addcow status ctl --output=prometheus >metrics
    expect_equal "mode=$1 state=$2" "$(sed -n 's/^addcow_fill_\(mode\|state\){.*,\(mode\|state\)="\(.*\)"} 1$/\2=\3/p' metrics | sort | xargs)" "the fill"
}
in_state off off
addcow fill ctl touched --wait >/dev/null
in_state touched 'done'
addcow fill ctl pause || fail "a fill cannot be paused"

# Nobody goes on printing where nothing arrives.
# ends_at_full COMMAND...
ends_at_full() {
    local status=0
    timeout 60 "$ADDCOW_RUN" addcow "$@" >/dev/full 2>stderr || status=$?
    expect_equal 1 "$status" "exit status of $* >/dev/full"
    grep -q '^addcow: .*write: standard output: No space left on device$' stderr || fail "$*: $(cat stderr)"
}
ends_at_full status ctl --watch --output=json
ends_at_full status ctl --watch

# By the other socket nobody is asked, nor waited for.
expect_fails 1 addcow status sock
grep -q 'sock: this is the socket by which clients use the disk' stderr || fail "$(cat stderr)"

# Asked again and again, until the server ends.
"$ADDCOW_RUN" addcow status ctl --watch --output=json >watched 2>stderr &
watch=$!
wait_until "$watch" eval '[ "$(wc -l <watched)" -ge 2 ]' || fail "--watch: $(cat watched stderr)"
"$ADDCOW_RUN" addcow status ctl --watch=100 >seen 2>interrupted &
stopped=$!
wait_for seen "$stopped" || fail "--watch=100"
kill -TERM "$stopped"
ends_with 143 "$stopped" "status --watch and SIGTERM" interrupted
stop_server "$server_pid"
ends_with 1 "$watch" "status --watch of a server that ended" stderr
grep -qxF 'addcow: ctl: the server has ended' stderr || fail "$(cat stderr)"
jq -es 'all(.version != null)' watched >/dev/null || fail "--watch --output=json: $(cat watched)"
for arguments in "status ctl" "fill ctl all --wait"; do
    # shellcheck disable=SC2086
    expect_fails 1 addcow $arguments
    grep -q 'started with control=? One that has ended has removed it$' stderr || fail "$(cat stderr)"
done
expect_fails 1 addcow status file
grep -q 'file: is no socket: name the control socket, which' stderr || fail "$(cat stderr)"
expect_fails 1 addcow status "$long$long"
expect_fails 64 addcow status ctl --watch=0
expect_fails 64 addcow fill ctl pause --wait
expect_fails 64 addcow fill ctl all --rate=fast

# filling STATE...: a double of a server whose fill is in these states, one after the other;
# the last stays. "end": it ends there, and says so; "die": it says nothing.
filling() {
    rm -f ctl
    python "
states = '$*'.split()
listener = socket.socket(socket.AF_UNIX)
listener.bind('ctl.new'); listener.listen(5); os.rename('ctl.new', 'ctl')
connection, _ = listener.accept()
file = connection.makefile('rwb')
asked = []
for line in file:
    command = json.loads(line)
    asked.append(command)
    open('asked', 'w').write(json.dumps(asked))
    if command['execute'] != 'status':
        file.write(b'{\"return\": {}}\n'); file.flush(); continue
    state = states.pop(0) if len(states) > 1 else states[0]
    if state == 'die': os._exit(0)
    fill = {'mode': 'all', 'state': state, 'left': 1000, 'rate': 10, 'error': 'the disk is full' if state == 'failed' else ''}
    if state == 'mute':
        import time; time.sleep(60)
    if state == 'half':
        fill.update(state='running', copied=1000)
    if state == 'touched':
        fill.update(mode='touched', state='done')
    if state == 'end':
        fill['state'] = 'done'
        answer = {'event': 'stop', 'status': {'fill': fill}}
    else:
        answer = {'return': {'fill': fill}}
    file.write(json.dumps(answer).encode() + b'\n'); file.flush()
    if state == 'end': os._exit(0)
" &
    double=$!
    at_exit "kill $double 2>/dev/null"
    wait_until "$double" test -S ctl || fail "no double"
}
filling running running 'done'
addcow fill ctl all --rate=50M --wait -p >out || fail "fill --wait"
grep -q 'can now be used alone' out || fail "$(cat out)"
expect_equal '{"action":"start","mode":"all","rate":52428800}' "$(jq -c '.[0].arguments' asked)" "the command"
filling waiting running failed
expect_fails 1 addcow fill ctl touched --wait
grep -qxF 'addcow: the fill has failed: the disk is full' stderr || fail "$(cat stderr)"
filling running off
expect_fails 1 addcow fill ctl resume --wait --rate=0
expect_equal '{"action":"resume","rate":0}' "$(jq -c '.[0].arguments' asked)" "the command"
filling running end
addcow fill ctl all --wait >out || fail "fill --wait of a server that ends when it has filled"
filling running die
expect_fails 1 addcow fill ctl all --wait
grep -qxF 'addcow: ctl: the server has ended' stderr || fail "$(cat stderr)"
# What is waited for is all, whatever somebody else says meanwhile.
filling running touched
expect_fails 1 addcow fill ctl all --wait
grep -q "was changed to 'touched' meanwhile" stderr || fail "$(cat stderr)"
filling running half
ends_at_full fill ctl all --wait -p
# A signal ends who waits for an answer.
filling running mute
status=0
timeout --foreground -s TERM 2 "$ADDCOW_RUN" addcow fill ctl all --wait 2>stderr || status=$?
expect_equal 124 "$status" "timeout's status, the command having ended in time"
grep -q 'interrupted\|stopped' stderr || fail "$(cat stderr)"
