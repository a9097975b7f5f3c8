#!/usr/bin/env bash
# Makes the image that tests of containers run: a static busybox and nothing else, imported from a tar, because no registry
# need be in reach. Makes it once: a second call finds it and does nothing.
#
#   docker/test/test-image.sh        prints the image's name
set -euo pipefail

image=modchain-test/busybox:1

if docker image inspect "$image" >/dev/null 2>&1; then
  echo "$image"
  exit 0
fi

busybox=$(command -v busybox) || {
  echo "the test image needs a static busybox: apt-get install busybox-static" >&2
  exit 1
}
if ldd "$busybox" 2>/dev/null | grep -q '=>'; then
  echo "$busybox is not static and cannot run alone in an image: apt-get install busybox-static" >&2
  exit 1
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# The folder becomes the image's root, which everybody must be able to enter.
chmod 755 "$root"
mkdir -p "$root"/{bin,etc,tmp,root,dev,proc,sys,var,data}
mkdir "$root/var/open"
chmod 1777 "$root/tmp" "$root/var/open"
cp "$busybox" "$root/bin/busybox"
chmod 755 "$root/bin/busybox"
for applet in $("$busybox" --list); do
  # The name it is called by is the program it is.
  [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
# What some probes look for: a program with the set-user-id bit that makes anybody root (root's password is empty), a file that
# is no program, and one without its interpreter.
rm "$root/bin/su"
cp "$busybox" "$root/bin/su"
chmod 4755 "$root/bin/su"
echo 'not a program' > "$root/data/plain"
printf '#!/no/such/interpreter\n' > "$root/data/orphan"
chmod 755 "$root/data/orphan"
printf 'root::0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' > "$root/etc/passwd"
printf 'root::0:\nnogroup:x:65534:\n' > "$root/etc/group"

tar -C "$root" --owner=0 --group=0 --numeric-owner -c . \
  | docker import --change 'CMD ["/bin/sh"]' --change 'ENV PATH=/bin' --change 'ENV IMAGE_SAYS=hello' - "$image" >/dev/null
echo "$image"
