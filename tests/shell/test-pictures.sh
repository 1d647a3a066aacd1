#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# map --output=svg and info --picture: an example whose bytes are known is drawn as it is,
# in a browser, in a terminal and without one; no picture is larger than 200 KiB; the
# colours can be told apart. docs/map.svg, which the README shows, is that example.

. "$(dirname "$0")/../functions.sh"
requires nbdsh python3 jq

# web-1, over debian-12. Of every 4 KiB of the disk it notes where they come from.
cat >example.py <<'END_OF_EXAMPLE'
import json, random
M, K, size, base_size = 1 << 20, 1 << 10, 128 << 20, 80 << 20
chance = random.Random(3)

# The base: a boot partition, a file system, and room at its end.
base = set()
for at in range(0, base_size, 256 * K):
    share = 0.97 if at < 16 * M else 0.75 if at < 48 * M else 0.12
    if chance.random() < share:
        base.update(range(at // 4096, (at + 256 * K) // 4096))

# What was written: the boot partition anew, updates all over the file system, a database,
# its small writes, logs, and the end of the disk.
writes = [(0, 2 * M)]
for start, end, share, length in (
    (2 * M, 22 * M, 0.45, 64 * K),
    (22 * M, 36 * M, 0.12, 64 * K),
    (52 * M, 58 * M, 0.4, 4 * K),
    (88 * M, 96 * M, 0.8, 128 * K),
):
    writes += [(at, length) for at in range(start, end, length) if chance.random() < share]
writes += [(38 * M, 14 * M), (125 * M, 3 * M)]


def make_base():
    with open("debian-12.img", "wb") as file:
        file.truncate(base_size)
        for block in sorted(base):
            file.seek(block * 4096)
            file.write(b"b" * 4096)


# In bytes.
def kinds():
    image = {at // 4096 + i for at, length in writes for i in range(length // 4096)}
    kinds = dict(image=0, partial=0, backing=0, hole=0)
    for cluster in range(0, size // 4096, 16):
        blocks = range(cluster, cluster + 16)
        written = sum(block in image for block in blocks)
        for block in blocks:
            kind = ("partial" if 0 < written < 16 else "image" if written
                    else "backing" if block in base else "hole")
            kinds[kind] += 4096
    return kinds
END_OF_EXAMPLE
python3 -c 'from example import *; make_base(); print(json.dumps(kinds()))' >kinds
addcow create -q -b debian-12.img -F raw -i web-1.raw -s 128M web-1.add-cow
nbdkit -U - addcow web-1.add-cow --run 'PYTHONPATH=. nbdsh -u "$uri" -c "
from example import *
for at, length in writes: h.pwrite(b\"w\" * length, at)"'
addcow map --output=svg web-1.add-cow >web-1.svg
cmp web-1.svg "$srcdir/docs/map.svg" || {
    diff -u "$srcdir/docs/map.svg" web-1.svg | cut -c1-200 >&2 || :
    fail "docs/map.svg is not what is drawn of the example (see above)"
}
grep -q 'docs/map.svg' "$srcdir/README.md" || fail "README.md does not show docs/map.svg"

# It is XML that a parser takes, of the bytes that were written, and says how much they are.
cat >svg.py <<'END_OF_SVG'
import json, re, sys
import xml.etree.ElementTree as tree

UNITS = dict(B=1, KiB=2**10, MiB=2**20, GiB=2**30, TiB=2**40)
SVG = "{http://www.w3.org/2000/svg}"


def size_of(text):
    number, unit = text.split()
    return float(number) * UNITS[unit]


root = tree.parse(sys.argv[1]).getroot()
assert root.tag == SVG + "svg", root.tag
total = root.find(SVG + "title").text.rsplit(": ", 1)[1]
told = {word: size_of(rest) for word, rest in (part.split(" ", 1) for part in total.split(", "))}
cells = [t.text for t in root.iter(SVG + "title")][1:]
if len(sys.argv) > 2:
    for kind, bytes in json.load(open(sys.argv[2])).items():
        assert abs(told[kind] - bytes) <= bytes * 0.005, (kind, told[kind], bytes)
    # The tooltips have all of the disk, in order.
    at = 0
    for cell in cells:
        start, length = re.match(r"(0x[0-9a-f]+), ([^:]*):", cell).groups()
        assert int(start, 16) == at, (start, at)
        at += size_of(length)
    assert at == 128 << 20, at
print(len(cells))
END_OF_SVG
python3 svg.py web-1.svg kinds >/dev/null || fail "the picture of the example"

# Contrasts as WCAG 2 has them: of text, of what is drawn, and of each two kinds by their
# lightness alone, as who sees no colours has it.
cat >colours.py <<'END_OF_COLOURS'
import itertools, re
style = re.search("<style>(.*)</style>", open("web-1.svg").read(), re.S)[1]
light, dark = style.split("@media(prefers-color-scheme:dark)")


def rules(text):
    found = dict(re.findall(r"(?:^|\n)(\S+)\{[^}]*fill:#([0-9a-f]+)", text))
    return {k: v if len(v) == 6 else "".join(c * 2 for c in v) for k, v in found.items()}


def contrast(a, b):
    def luminance(colour):
        parts = [int(colour[i:i + 2], 16) / 255 for i in (0, 2, 4)]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    a, b = sorted((luminance(a), luminance(b)))
    return (b + 0.05) / (a + 0.05)


for colours in (rules(light), {**rules(light), **rules(dark)}):
    ground = colours[".g"]
    for text in ("text", ".m"):
        assert contrast(colours[text], ground) >= 4.5, (text, contrast(colours[text], ground))
    for kind in (".i", ".p", ".b"):
        assert contrast(colours[kind], ground) >= 3, (kind, contrast(colours[kind], ground))
    for a, b in itertools.combinations((".i", ".p", ".b", ".h"), 2):
        assert contrast(colours[a], colours[b]) >= 1.5, (a, b, contrast(colours[a], colours[b]))
assert rules(light)[".i"] != rules(dark)[".i"]
END_OF_COLOURS
python3 colours.py || fail "the colours"

# The worst case: in each of the most cells something of everything, at random.
cat >worst.py <<'END_OF_WORST'
import random
M = 1 << 20
def each(put):
    for cell in range(768):
        put(cell * M + random.randrange(16) * 65536, 65536)
        put(cell * M + random.randrange(256) * 4096, 4096)
        put(cell * M + random.randrange(256) * 4096, 4096)
END_OF_WORST
python3 -c 'from worst import *
with open("worst.img", "wb") as file:
    file.truncate(768 * M)
    each(lambda at, length: (file.seek(at), file.write(b"b" * length)))'
addcow create -q -b worst.img -F raw -i worst.raw worst.add-cow
nbdkit -U - addcow worst.add-cow --run 'PYTHONPATH=. nbdsh -u "$uri" -c "
from worst import *
each(lambda at, length: h.pwrite(b\"w\" * length, at))"'
addcow map --output=svg worst.add-cow >worst.svg
cells="$(python3 svg.py worst.svg)"
bytes="$(stat -c %s worst.svg)"
echo "the worst case: $cells cells, $bytes bytes"
[ "$cells" -eq 768 ] || fail "the worst case has $cells cells"
[ "$bytes" -le $((200 * 1024)) ] || fail "the worst case has $bytes bytes"

# Names are text, whatever is in them.
odd=$'a<b>&"c\n\xff.add-cow'
if addcow create -q -i odd.raw -s 1M "$odd" 2>stderr; then
    addcow map --output=svg "$odd" >odd.svg
    python3 svg.py odd.svg >/dev/null || fail "a picture of an odd name"
fi

# A huge disk takes no longer than a small one, and is as readable.
for size in 64T 8T 1T; do
    if truncate -s "$size" huge.raw 2>/dev/null; then break; fi
done
if [ -s huge.raw ]; then
    addcow create -q -b debian-12.img -F raw -i huge.raw huge.add-cow
    addcow map --output=svg huge.add-cow >huge.svg
    python3 svg.py huge.svg >/dev/null || fail "the picture of $size"
    addcow info --picture huge.add-cow | has -E '^  hole .*>99%$' || fail "info --picture of $size"
fi

# In text. Nowhere a terminal, ASCII, 80 columns.
picture() { addcow info --picture "$@" | sed -n '/^picture: /,$p'; }
unset COLUMNS NO_COLOR
picture web-1.add-cow >text
expect_equal 6 "$(wc -l <text)" "lines of the picture"
awk 'length > 80' text >long
[ ! -s long ] || fail "wider than 80 columns: $(cat long)"
if LC_ALL=C grep -q '[^ -~]' text; then fail "not only ASCII: $(cat text)"; fi
for pair in 'image file=image' 'partial=partial' 'backing=backing' 'hole=hole'; do
    kind="$(jq -r ".${pair#*=}" kinds)"
    percent=$(((100 * kind + 64 * 1024 * 1024) / (128 * 1024 * 1024)))
    grep -qE "^  ${pair%=*} +\|.*\| .* ${percent}%\$" text || fail "not $percent% of ${pair%=*}: $(cat text)"
done
# The image file has the beginning and the end of the disk, and the database's 14 MiB.
grep -qE '^  image file \|%[^ ]*[.]#####:  .*[.]#\|' text || fail "not where it was written: $(cat text)"
expect_equal 60 "$(COLUMNS=60 picture web-1.add-cow | awk '{ if (length > most) most = length } END { print most }')" \
    "columns with COLUMNS=60"
COLUMNS=64 picture web-1.add-cow | sed 's/^/ /' >text64
sed -n '/^ picture: /,/^$/p' "$srcdir/tools/addcow.pod" | sed '/^$/d' | diff -u - text64 ||
    fail "the manual shows another picture of the example"
LC_ALL=C.UTF-8 picture web-1.add-cow >blocks
grep -q $'\xe2\x96\x88' blocks || fail "no blocks in UTF-8: $(cat blocks)"

# Of one byte, and whatever COLUMNS says.
addcow create -q -i one.raw -s 1 one.add-cow
for columns in '' 0 1 5 20 47 48 80 -1 x 1e9 ' 80' 1000000000 18446744073709551615 99999999999999999999; do
    COLUMNS="$columns" picture one.add-cow >text
    expect_equal 6 "$(wc -l <text)" "lines of the picture of a byte, COLUMNS='$columns'"
    grep -qE '^  (image file|hole      ) \|#\| +1 B 100%$' text || fail "COLUMNS='$columns': $(cat text)"
    grep -qx ' *0 1 B' text || fail "COLUMNS='$columns': $(cat text)"
    COLUMNS="$columns" picture web-1.add-cow >text
    expect_equal 6 "$(wc -l <text)" "lines of the picture, COLUMNS='$columns'"
    [ "$(wc -c <text)" -le 70000 ] || fail "COLUMNS='$columns': $(wc -c <text) bytes"
done

# On a terminal: its width, and colours unless NO_COLOR is set.
cat >terminal.py <<'END_OF_TERMINAL'
import fcntl, os, pty, struct, sys, termios
pid, master = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    os.execvp(sys.argv[1], sys.argv[1:])
try:
    while data := os.read(master, 4096): os.write(1, data)
except OSError:
    pass  # the other end is closed
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
END_OF_TERMINAL
on_terminal() { python3 terminal.py "$ADDCOW_RUN" addcow info --picture web-1.add-cow | tr -d '\r' | sed -n '/^picture: /,$p'; }
on_terminal >coloured
grep -q $'\e\\[' coloured || fail "no colours on a terminal: $(cat coloured)"
expect_equal 100 "$(sed $'s/\e\\[[0-9]*m//g' coloured | awk '{ if (length > most) most = length } END { print most }')" \
    "columns on a terminal of 100"
NO_COLOR=1 on_terminal >plain
if grep -q $'\e' plain; then fail "colours with NO_COLOR: $(cat plain)"; fi
diff -u <(sed $'s/\e\\[[0-9]*m//g' coloured) plain || fail "colours change more than colours"

# What cannot be.
expect_fails 64 addcow info --picture --output=json web-1.add-cow
grep -qx 'addcow: info: --picture is not for JSON .*; see: addcow info --help' stderr || fail "$(cat stderr)"
expect_fails 64 addcow info --picture --backing-chain web-1.add-cow
expect_fails 64 addcow map --output=png web-1.add-cow
expect_fails 1 addcow map --output=svg nowhere.add-cow
expect_equal '' "$(cat stdout)" "half a picture"
if [ -e /dev/full ]; then
    status=0
    addcow map --output=svg web-1.add-cow >/dev/full 2>stderr || status=$?
    expect_equal 1 "$status" "exit status on a full disk"
fi
# In use: as map and as info have it.
start_server sock addcow web-1.add-cow
expect_fails 1 addcow map --output=svg web-1.add-cow
grep -q -- '-U looks at it all the same' stderr || fail "$(cat stderr)"
addcow map -U --output=svg web-1.add-cow | cmp - web-1.svg || fail "another picture with -U"
picture web-1.add-cow | cmp - text || fail "another picture of what is in use"
stop_server "$server_pid"
mv debian-12.img away.img
expect_fails 1 addcow info --picture web-1.add-cow
grep -q 'debian-12.img: not found' stderr || fail "$(cat stderr)"
expect_equal '' "$(cat stdout)" "half an answer"
picture --backing=away.img web-1.add-cow | cmp - text || fail "another picture with --backing"
addcow map --output=svg --backing=away.img web-1.add-cow >away.svg
python3 svg.py away.svg kinds >/dev/null || fail "a picture with --backing"

# How it looks.
browser=
for program in chromium chromium-browser google-chrome; do
    if command -v "$program" >/dev/null; then browser="$program"; break; fi
done
[ -n "$browser" ] || skip "all holds but how it looks: no chromium, chromium-browser or google-chrome"
cat >pixels.py <<'END_OF_PIXELS'
import json, re, struct, sys, zlib
image, scheme = sys.argv[1:]
data = open(image, "rb").read()
assert data[:8] == b"\x89PNG\r\n\x1a\n"
at, packed = 8, b""
while at < len(data):
    length, kind = struct.unpack(">I4s", data[at:at + 8])
    body = data[at + 8:at + 8 + length]
    at += 12 + length
    if kind == b"IHDR": width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", body)
    if kind == b"IDAT": packed += body
assert depth == 8 and colours in (2, 6) and interlaced == 0, (depth, colours, interlaced)
step = 3 if colours == 2 else 4
raw, stride = zlib.decompress(packed), width * step
rows, above = [], bytearray(stride)
for y in range(height):
    filter, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
    if filter:
        for x in range(stride):
            a, b = row[x - step] if x >= step else 0, above[x]
            c = above[x - step] if x >= step else 0
            if filter == 1: add = a
            elif filter == 2: add = b
            elif filter == 3: add = (a + b) // 2
            else:
                pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
                add = a if pa <= pb and pa <= pc else b if pb <= pc else c
            row[x] = row[x] + add & 255
    rows.append(row)
    above = row
pixel = lambda x, y: bytes(rows[y][x * step:x * step + 3]).hex()

svg = open("web-1.svg").read()
style = re.search("<style>(.*)</style>", svg, re.S)[1].split("@media")[scheme == "dark"]
fill = lambda name: (lambda v: v if len(v) == 6 else "".join(c * 2 for c in v))(
    re.search(r"\n\." + name + r"\{[^}]*fill:#([0-9a-f]+)", style)[1])
kinds = dict(image=fill("i"), partial=fill("p"), backing=fill("b"), hole=fill("h"))
ground = fill("g")

# The rows of the disk: nothing but the four colours, as much of each as there are bytes.
count, all = dict.fromkeys(kinds.values(), 0), 0
for left, top in re.findall(r'<g transform="translate\((\d+) (\d+)\)">', svg):
    for y in range(int(top), int(top) + 28):
        for x in range(int(left), int(left) + 768):
            all += 1
            count[pixel(x, y)] += 1
assert all > 100000, all
want = json.load(open("kinds"))
for kind, colour in kinds.items():
    drawn, there = count[colour] / all, want[kind] / sum(want.values())
    print(f"{scheme}: {kind} {drawn:.1%} of the picture, {there:.1%} of the disk")
    assert abs(drawn - there) < 0.005, kind
# The first cluster and the last are the image file's, the second but last row is a hole.
assert pixel(113, 190) == kinds["image"] and pixel(878, 185 + 7 * 34) == kinds["image"]
assert pixel(500, 190 + 6 * 34) == kinds["hole"]
# The legend has each colour, and text, which stays within the picture.
for name, x in re.findall(r'<rect class="([ipbh])" x="(\d+)"', svg):
    assert pixel(int(x) + 7, 120) == fill(name), name
assert sum(pixel(x, y) != ground for y in range(30, 50) for x in range(28, 200)) > 100, "no title"
size = re.search(r'width="(\d+)" height="(\d+)"', svg).groups()
for y in range(int(size[1])):
    for x in (0, 10, 27, *range(885, int(size[0]))): assert pixel(x, y) == ground, (x, y)
END_OF_PIXELS
for scheme in light dark; do
    option=()
    [ "$scheme" = light ] || option=(--force-dark-mode)
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars \
        --user-data-dir="$scratch/profile-$scheme" --window-size=1200,800 ${option[@]+"${option[@]}"} \
        --screenshot="$scratch/$scheme.png" "file://$scratch/web-1.svg" >browser.log 2>&1 ||
        { cat browser.log >&2; fail "$browser"; }
    python3 pixels.py "$scheme.png" "$scheme" || fail "how it looks ($scheme)"
done
