#!/usr/bin/env bash
# A real systemd (Debian 12's) in namespaces of its own, to try the service as its users have it. Needs root.
#
#   boot.sh build BASE              make the root file system BASE with debootstrap, from the mirror that apt has; minutes
#   boot.sh start BASE RUN PROJECT  a fresh copy of it (an overlay: BASE stays as it is) with PROJECT in /opt/crawler and
#                                   its .venv made as the README says; then systemd is booted in it
#   boot.sh run RUN COMMAND…        run a command inside, as root; its input and output are this one's
#   boot.sh stop RUN                power it off and remove RUN
#
# What runs inside sees nothing of this machine: it has its own mounts, processes, host name, IPC, cgroups and network
# (lo alone; only `build` and the making of .venv have this machine's). Before systemd is executed the script asserts
# that from inside; if anything is in doubt it ends with 9 and starts nothing. Ends with 3 where a machine lacks what
# this needs. Never start a systemd manager on a machine's own root: systemd-tmpfiles empties /tmp.
# Not inside: a memory controller (MemoryMax= does nothing), loadable modules, a console.
set -euo pipefail
packages=systemd,systemd-sysv,dbus,python3,python3-venv,make,ca-certificates,procps,iproute2,logrotate,nginx-light
suite=bookworm
stamp=etc/crawler-tests-root # in BASE: that it is whole, and made of these packages
masked="systemd-networkd-wait-online.service systemd-resolved.service apt-daily.timer apt-daily-upgrade.timer nginx.service"
masked="$masked logrotate.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer"

lacking() { echo "$*" >&2; exit 3; }
verb=${1:-help}
shift || true
[[ $verb == help || $(id -u) -eq 0 ]] || lacking "only root can make namespaces that a systemd boots in"

# Writes to memory what is wanted on the disk in the end: thousands of files, each synced, take minutes there
build() {
  local base=$1
  [[ "$(cat "$base/$stamp" 2>/dev/null)" == "$suite $packages" ]] && return
  command -v debootstrap >/dev/null || lacking "debootstrap is not installed"
  rm -rf --one-file-system "$base" "$base.new"
  mkdir -p "$base.new" "$base.memory"
  unshare --mount --propagation private "$BASH" "$self" _build "$base.memory" "$base.new" "$base.log" ||
    { tail -n 3 "$base.log" >&2; lacking "debootstrap failed: $base.log"; }
  mv "$base.new" "$base"
  rmdir "$base.memory"
}

# In a mount namespace of its own
_build() {
  local new=$1 result=$2 log=$3 mirror unit
  mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v suite=$suite '$1 == suite && $2 ~ /\/debian\/?$/ { print $2; exit }' || true)
  mount -t tmpfs -o mode=755 tmpfs "$new"
  debootstrap --variant=minbase --include=$packages $suite "$new" ${mirror:+"$mirror"} >"$log" 2>&1
  cp -f /etc/resolv.conf "$new/etc/resolv.conf"
  [[ ! -e /etc/pip.conf ]] || cp -f /etc/pip.conf "$new/etc/pip.conf"
  [[ ! -d $HOME/.config/pip ]] || { mkdir -p "$new/root/.config" && cp -rf "$HOME/.config/pip" "$new/root/.config/"; }
  [[ ! -e /etc/ssl/certs/ca-certificates.crt ]] || cp -f /etc/ssl/certs/ca-certificates.crt "$new/etc/ssl/certs/"
  for unit in $masked; do ln -sf /dev/null "$new/etc/systemd/system/$unit"; done
  rm -f "$new"/var/cache/apt/archives/*.deb
  for file in proc sys dev; do umount -l "$new/$file" 2>/dev/null || true; done
  tar --create --one-file-system --directory="$new" . | tar --extract --directory="$result"
  echo "$suite $packages" >"$result/$stamp"
}

# Everything of a project but what git ignores
copy() {
  (
    cd "$1"
    git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
      while IFS= read -r -d '' file; do [[ ! -e $file && ! -L $file ]] || printf '%s\0' "$file"; done |
      tar --create --null --files-from=- | tar --extract --no-same-owner --directory="$2"
  )
}

# In a mount namespace of its own: the overlay, in memory; the project in it, and .venv with this machine's network and
# pip. Then the other namespaces
_outer() {
  local base=$1 run=$2 project=$3 name root=$2/root
  local -a kept=()
  shift 3
  mount -t tmpfs -o mode=755 tmpfs "$run/memory"
  mkdir "$run/memory/upper" "$run/memory/work"
  mount -t overlay overlay -o "lowerdir=$base,upperdir=$run/memory/upper,workdir=$run/memory/work" "$root"
  mkdir -p "$root/opt/crawler"
  copy "$project" "$root/opt/crawler"
  mount -t proc proc "$root/proc"
  mount --bind /dev "$root/dev"
  for name in $(compgen -e | grep -iE '^(pip_|ssl_|requests_|https?_proxy|no_proxy)' || true); do kept+=("$name=${!name}"); done
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "${kept[@]}" \
    chroot "$root" make -C /opt/crawler venv
  umount "$root/proc" "$root/dev"
  exec unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup --propagation private \
    "$BASH" "$self" _init "$run" "$@"
}

# The first process of the new namespaces: builds the root, asserts that it is alone in it, becomes systemd
_init() {
  local run=$1 tmp_device=$2 marker=$3 root_id file
  mount --make-rprivate /
  root_id=$(stat -c %d:%i "$run/root")
  cd "$run/root"
  mount -t proc -o nosuid,nodev,noexec proc proc
  mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
  mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs -o mode=1777 tmpfs tmp
  mount -t tmpfs -o mode=755,nosuid tmpfs dev
  for file in null zero full random urandom tty; do touch dev/$file && mount --bind /dev/$file dev/$file; done
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
  ln -s pts/ptmx dev/ptmx
  mount -t tmpfs -o mode=1777 tmpfs dev/shm
  ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
  mount --bind proc/sys proc/sys
  mount -o remount,bind,ro proc/sys
  [[ ! -e proc/sysrq-trigger ]] || mount --bind dev/null proc/sysrq-trigger
  ip link set lo up
  hostname crawlertest
  mkdir -p mnt/old
  pivot_root . mnt/old
  cd /
  umount -l /mnt/old
  rmdir /mnt/old
  mount --make-rshared /
  {
    [[ "$(stat -c %d:%i /)" == "$root_id" ]] && [[ -e /$stamp ]] && # / is the new root,
      [[ ! -e $marker ]] && [[ ! -e $run ]] && # this machine's files cannot be seen,
      [[ "$(stat -c %d /tmp)" != "$tmp_device" ]] && [[ "$(stat -f -c %T /tmp)" == tmpfs ]] && [[ -z "$(ls -A /tmp)" ]] && # nor its /tmp,
      (($(find /proc -maxdepth 1 -name '[0-9]*' | wc -l) < 8)) && # nor its processes,
      ! awk '{ print $5 }' /proc/self/mountinfo | grep -q -E '^/(mnt|var|root|opt|home)' && # nothing of it is mounted,
      ! ip -o link show | grep -v ' lo: ' | grep -q -E '[<,]UP[,>]' # nor has this its network
  } || { echo "NOT ISOLATED: nothing was started"; exit 9; }
  echo isolated
  exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set -sys_time,-sys_module,-sys_boot,-mknod,-sys_rawio,-syslog,-audit_control,-audit_write,-wake_alarm,-block_suspend \
    /lib/systemd/systemd --system systemd.unified_cgroup_hierarchy=1
}

cgroup_of() {
  local top=/sys/fs/cgroup
  [[ ! -d $top/unified ]] || top=$top/unified
  echo "$top/crawler-tests-$(basename "$1")"
}

start() {
  local base=$1 run=$2 project=$3 group marker outer state=""
  unshare --mount --pid --fork --uts --ipc --net --cgroup true 2>/dev/null || lacking "namespaces are not to be had here"
  group=$(cgroup_of "$run")
  mkdir "$group" 2>/dev/null || lacking "no cgroup can be made here: $group"
  mkdir -p "$run/memory" "$run/root"
  marker=$(mktemp /tmp/.crawler-tests-marker.XXXXXX)
  (
    echo $BASHPID >"$group/cgroup.procs"
    exec setsid unshare --mount --propagation private \
      "$BASH" "$self" _outer "$base" "$run" "$project" "$(stat -c %d /tmp)" "$marker" >"$run/log" 2>&1 </dev/null
  ) &
  outer=$!
  echo "$outer" >"$run/outer"
  until grep -q '^isolated$' "$run/log" 2>/dev/null; do
    kill -0 "$outer" 2>/dev/null || { rm -f "$marker"; tail -n 20 "$run/log" >&2; exit 9; }
    sleep 0.1
  done
  rm -f "$marker"
  pgrep -P "$outer" | head -n 1 >"$run/pid"
  for _ in $(seq 300); do
    state=$(inside "$run" systemctl is-system-running 2>/dev/null || true)
    [[ $state == running || $state == degraded ]] && break
    sleep 0.1
  done
  [[ $state == running ]] || { inside "$run" systemctl --no-pager --failed >&2 || true; cat "$run/log" >&2; exit 1; }
}

inside() {
  local run=$1
  shift
  nsenter -t "$(cat "$run/pid")" -m -u -i -n -p -C -r -w env -i \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8 "$@"
}

# Whether the process that holds the namespaces of RUN is there; its number may be another's by now
is_held() { grep -q --text --fixed-strings -- "$2" "/proc/$1/cmdline" 2>/dev/null; }

stop() {
  local run=$1 outer pid
  outer=$(cat "$run/outer" 2>/dev/null || true)
  pid=$(cat "$run/pid" 2>/dev/null || true)
  if [[ -n $outer ]] && is_held "$outer" "$run"; then
    [[ -z $pid ]] || inside "$run" systemctl poweroff --force 2>/dev/null || true
    for _ in $(seq 50); do is_held "$outer" "$run" || break; sleep 0.1; done
    ! is_held "$outer" "$run" || kill -9 "$outer" # and with it, by --kill-child, all that runs inside
    for _ in $(seq 50); do is_held "$outer" "$run" || break; sleep 0.1; done
  fi
  for _ in $(seq 50); do # until the last of what ran inside is gone
    find "$(cgroup_of "$run")" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [[ -d $(cgroup_of "$run") ]] || break
    sleep 0.1
  done
  rm -rf --one-file-system "$run"
}

self=$(readlink -f "$0")
case $verb in
  build) mkdir -p "$(dirname "$1")" && (flock 9 && build "$1") 9>"$1.lock" ;;
  start) start "$(readlink -f "$1")" "$(readlink -m "$2")" "$(readlink -f "$3")" ;;
  run) inside "$@" ;;
  stop) stop "$(readlink -m "$1")" ;;
  _build | _outer | _init) "$verb" "$@" ;;
  *) sed -n '2,16p' "$0"; exit 2 ;;
esac
