#!/bin/sh
# make.sh - draws the pictures of this folder anew, in a real xterm on an X server without a screen:
#
#     assets/screenshots/make.sh [build/release/pali [chat.png ...]]
#
# chat.png and segment-chat.png are sixels, symbols.png and narrow.png coloured characters, chat.gif is a
# recording. Needs the Debian packages xvfb xterm xdotool imagemagick ffmpeg fonts-dejavu-core, which
# `make deps` does not bring. Everything is typed; what is waited for is the chat's file, which has a line for
# every answer. Look at the result: a model says what it says.
#
# The miniature answers in milliseconds. So that the recording shows what streaming looks like, every token
# is held up (slow.c below): 80 ms, as PaliGemma 3B takes in NF4 on two processor cores.
set -eu
cd "$(dirname "$0")/../.."
pali=${1:-build/release/pali}
[ $# -gt 0 ] && shift
only=${*:-chat.png segment-chat.png symbols.png narrow.png chat.gif}
out=assets/screenshots
work=$(mktemp -d)
trap 'stop; kill $server 2>/dev/null; rm -rf "$work"' EXIT
terminal='' server='' preload='' recorder=''

stop() {
    [ -z "$terminal" ] || kill "$terminal" 2>/dev/null || true
    terminal=''
}

mkfifo "$work/display"
Xvfb -displayfd 3 -screen 0 1280x800x24 -noreset -nolisten tcp 3>"$work/display" 2>/dev/null &
server=$!
read -r display <"$work/display"
export DISPLAY=":$display" LC_ALL=C.UTF-8
export XDG_STATE_HOME="$work/state" PALI_CONFIG='' INPUTRC=/dev/null

# start COLUMNSxROWS DEVICE PALI-OPTIONS...: a chat about the demo's picture. DEVICE: vt340 has sixels.
start() {
    size=$1 device=$2
    shift 2
    rm -rf "$work/state"
    COLORTERM=truecolor xterm -geometry "$size+0+0" -ti "$device" -tn xterm-256color -u8 -b 2 -bw 0 +sb \
        -fa 'DejaVu Sans Mono' -fs 11 -bg '#16181d' -fg '#d8dee9' -cr '#d8dee9' \
        -xrm 'xterm*metaSendsEscape: true' -xrm 'xterm*color8: #4c566a' \
        -e env LD_PRELOAD="$preload" "$pali" --demo --theme dark "$@" &
    terminal=$!
    window=$(xdotool search --sync --onlyvisible --class xterm | tail -n 1)
    xdotool mousemove 1279 799 windowfocus --sync "$window"
    [ "${record:-}" ] || sleep 2 # the picture is drawn
}

answers() {
    cat "$work"/state/pali/chats/*.jsonl 2>/dev/null | grep -c '"q"' || true
}

# ask LINE...: each is asked, and its answer awaited.
ask() {
    for line; do
        n=$(answers)
        xdotool type --delay "${delay:-5}" "$line"
        sleep "${think:-0}"
        xdotool key Return
        while [ "$(answers)" -le "$n" ]; do
            kill -0 "$terminal" # else the chat is gone
            sleep 0.05
        done
        sleep "${rest:-0}"
    done
    sleep 1 # boxes are drawn
}

# A pause behind every piece of an answer: memory grew for it, and a lock was let go.
slow_down() {
    cat >"$work/slow.c" <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>
static __thread int grew;
void *realloc(void *p, size_t n) {
    void *(*real)(void *, size_t) = dlsym(RTLD_NEXT, "realloc");
    grew = 1;
    return real(p, n);
}
int pthread_mutex_unlock(pthread_mutex_t *m) {
    int (*real)(pthread_mutex_t *) = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    int rc = real(m);
    if (grew && gettid() != getpid())
        usleep(80000);
    grew = 0;
    return rc;
}
END
    ${CC:-cc} -shared -fPIC -o "$work/slow.so" "$work/slow.c" -ldl
    preload=$work/slow.so
}

# record FILE COMMAND...: what the terminal shows meanwhile.
record() {
    file=$1
    shift
    eval "$(xdotool getwindowgeometry --shell "$window")" # WIDTH, HEIGHT
    ffmpeg -v error -y -f x11grab -draw_mouse 0 -framerate 10 -video_size "${WIDTH}x$HEIGHT" -i "$DISPLAY+0,0" \
        -c:v ffv1 "$work/seen.mkv" </dev/null &
    recorder=$!
    while [ ! -s "$work/seen.mkv" ]; do sleep 0.1; done
    sleep 0.7
    "$@"
    kill -INT "$recorder"
    wait "$recorder" || true
    ffmpeg -v error -y -i "$work/seen.mkv" -filter_complex \
        'split[a][b];[a]palettegen=max_colors=64[p];[b][p]paletteuse=dither=none:diff_mode=rectangle' "$out/$file"
    stop
}

# shot FILE: the terminal as it is.
shot() {
    import -window "$window" "$work/shot.png"
    convert "$work/shot.png" -strip -define png:compression-level=9 "$out/$1"
    stop
}

for name in $only; do
    case $name in
    chat.png)
        start 116x30 vt340
        ask 'caption en' 'what color is the star?' 'and where is it?' 'is there a green square?' 'detect blue star'
        shot chat.png
        ;;
    segment-chat.png)
        start 92x26 vt340
        ask 'ocr' 'segment red circle'
        shot segment-chat.png
        ;;
    symbols.png)
        start 116x30 vt420
        ask 'caption en' 'how many shapes are there?' 'detect red circle'
        shot symbols.png
        ;;
    narrow.png)
        start 60x36 vt420
        ask 'what shape is red?' 'where is the circle?' 'detect star'
        shot narrow.png
        ;;
    chat.gif)
        slow_down
        record=1 start 92x26 vt340
        delay=45 think=0.2 rest=1 record chat.gif ask 'caption en' 'detect blue star' 'segment red circle'
        preload=''
        ;;
    *)
        echo "make.sh: $name is none of its pictures" >&2
        exit 2
        ;;
    esac
done
